//! DDPM's ancestral sampling: Ho et al. 2020, "Denoising Diffusion Probabilistic Models", equations 6 and 7 (diffusers'
//! `DDPMScheduler`).

use candle_core::Tensor;
use serde_json::Value;

use super::level::combine;
use super::settings::Settings;
use super::walk::{Draws, Stepper, Walk};
use crate::error::Result;

/// How much noise a step adds (`variance_type`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Variance {
    /// The posterior's variance; by its logarithm or not, it is the same.
    Small,
    /// The step's beta.
    Large,
}

impl Variance {
    /// `null`, which files of DPM-Solver have, is the small one.
    pub fn read(settings: &Settings<'_>) -> Result<Self> {
        if settings.values.get("variance_type").is_some_and(Value::is_null) {
            return Ok(Self::Small);
        }
        let choices = [("fixed_small", Self::Small), ("fixed_small_log", Self::Small), ("fixed_large", Self::Large)];
        settings.choice("variance_type", "fixed_small", &choices)
    }
}

pub(super) struct Ddpm<'a> {
    walk: &'a Walk<'a>,
    variance: Variance,
}

impl<'a> Ddpm<'a> {
    pub fn new(walk: &'a Walk<'a>, variance: Variance) -> Self {
        Self { walk, variance }
    }
}

impl Stepper for Ddpm<'_> {
    fn step(&mut self, index: usize, x: &Tensor, prediction: &Tensor, draws: &mut Draws<'_, '_>) -> Result<Tensor> {
        let scheduler = self.walk.scheduler;
        let level = self.walk.level(index)?;
        let timestep = self.walk.grid.timesteps.get(index).copied().unwrap_or(f64::NAN);
        let next = self.walk.grid.timesteps.get(index + 1).copied().unwrap_or(-1.0);
        let next = scheduler.level_or(next, 1.0)?;
        let clean = scheduler.limit.apply(scheduler.prediction.clean(level, x, prediction)?)?;

        // The share of signal that is kept between the next level and this one.
        let kept = level.signal.powi(2) / next.signal.powi(2);
        let (beta, noise) = (1.0 - kept, level.noise.powi(2));
        let mean = combine(&[(next.signal * beta / noise, &clean), (kept.sqrt() * next.noise.powi(2) / noise, x)])?;
        if timestep <= 0.0 {
            return Ok(mean);
        }
        let variance = match self.variance {
            Variance::Small => (next.noise.powi(2) / noise * beta).max(1e-20),
            Variance::Large => beta,
        };
        combine(&[(1.0, &mean), (variance.sqrt(), &draws.next(x)?)])
    }
}
