//! A noise level, and what a model's prediction says at it.

use candle_core::{DType, Tensor};

use super::Class;
use super::settings::Settings;
use crate::error::{DiffusionError, Result};

/// A mix of image and noise: `x = signal * clean + noise * normal`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Level {
    pub signal: f64,
    pub noise: f64,
}

impl Level {
    /// The level at which the signal has this share of the variance.
    pub fn of_alpha(alpha: f64) -> Self {
        Self { signal: alpha.sqrt(), noise: (1.0 - alpha).sqrt() }
    }

    /// The level of this ratio of noise to signal, at a variance of 1.
    pub fn of_sigma(sigma: f64) -> Self {
        let signal = 1.0 / sigma.hypot(1.0);
        Self { signal, noise: sigma * signal }
    }

    /// The level of this ratio of noise to signal, where the signal keeps its size.
    pub fn added(sigma: f64) -> Self {
        Self { signal: 1.0, noise: sigma }
    }

    /// The ratio of noise to signal.
    pub fn sigma(self) -> f64 {
        self.noise / self.signal
    }

    /// The image at this level.
    pub fn mix(self, clean: &Tensor, normal: &Tensor) -> Result<Tensor> {
        combine(&[(self.signal, &in_f32(clean)?), (self.noise, &in_f32(normal)?)])
    }
}

/// What the model was trained to predict (`prediction_type`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Prediction {
    /// The noise.
    Epsilon,
    /// `signal * noise - noise level * image` (Salimans and Ho 2022).
    Velocity,
    /// The image.
    Sample,
}

impl Prediction {
    pub fn read(class: Class, settings: &Settings<'_>) -> Result<Self> {
        let known = [
            ("epsilon", Self::Epsilon),
            ("v_prediction", Self::Velocity),
            ("sample", Self::Sample),
            ("original_sample", Self::Sample),
        ];
        let known = match class {
            Class::Pndm | Class::EulerAncestral => known.get(..2),
            Class::Euler => known.get(..),
            _ => known.get(..3),
        };
        settings.choice("prediction_type", "epsilon", known.unwrap_or_default())
    }

    /// The image that the model predicts for `x` at a level.
    pub fn clean(self, level: Level, x: &Tensor, prediction: &Tensor) -> Result<Tensor> {
        let Level { signal, noise } = level;
        let size = signal.hypot(noise);
        match self {
            Self::Epsilon => combine(&[(1.0 / signal, x), (-noise / signal, prediction)]),
            Self::Velocity => combine(&[(signal / (size * size), x), (-noise / size, prediction)]),
            Self::Sample => Ok(prediction.clone()),
        }
    }

    /// The noise that the model predicts for `x` at a level, whose variance is 1.
    pub fn normal(self, level: Level, x: &Tensor, prediction: &Tensor) -> Result<Tensor> {
        let Level { signal, noise } = level;
        match self {
            Self::Epsilon => Ok(prediction.clone()),
            Self::Velocity => combine(&[(noise, x), (signal, prediction)]),
            Self::Sample => combine(&[(1.0 / noise, x), (-signal / noise, prediction)]),
        }
    }
}

/// The sum of tensors, each times its factor. A factor of 0 leaves its tensor out.
pub(super) fn combine(terms: &[(f64, &Tensor)]) -> Result<Tensor> {
    let mut sum: Option<Tensor> = None;
    for (factor, tensor) in terms.iter().filter(|(factor, _)| *factor != 0.0) {
        if !factor.is_finite() {
            return Err(DiffusionError::Setting {
                key: "steps",
                reason: "two of them are at the same noise level; take fewer steps or another scheduler".into(),
            });
        }
        let term = (*tensor * *factor)?;
        sum = Some(match sum {
            None => term,
            Some(sum) => (sum + term)?,
        });
    }
    match (sum, terms.first()) {
        (Some(sum), _) => Ok(sum),
        (None, Some((_, tensor))) => Ok(tensor.zeros_like()?),
        (None, None) => Err(candle_core::Error::msg("no tensors to combine").into()),
    }
}

/// The number type in which everything is computed.
pub(super) fn in_f32(tensor: &Tensor) -> Result<Tensor> {
    Ok(tensor.to_dtype(DType::F32)?)
}
