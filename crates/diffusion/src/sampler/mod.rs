//! Samplers: from noise to an image along the probability flow ODE, `dx / d sigma = (x - D(x; sigma)) / sigma`.
//!
//! A sampler is deterministic. It is handed the starting noise and a denoiser, and treats each image of a batch alone.

mod dpmpp_2m;
mod guidance;
mod heun;

use candle_core::Tensor;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub use dpmpp_2m::Dpmpp2m;
pub use guidance::Guidance;
pub use heun::Heun;

use crate::edm::KarrasSchedule;
use crate::error::{DiffusionError, Result};

/// `D(x; sigma)`: the expected clean images behind noisy ones `[batch, channels, height, width]` of noise level `sigma`.
pub type Denoiser<'a> = dyn Fn(&Tensor, f64) -> Result<Tensor> + 'a;

/// A solver of the probability flow ODE.
pub trait Sampler {
    /// Clean images from standard normal `noise`, both `[batch, channels, height, width]`.
    ///
    /// # Errors
    /// What `denoiser` or a tensor operation gives.
    fn sample(&self, denoiser: &Denoiser<'_>, noise: &Tensor) -> Result<Tensor>;

    /// The noise level that it starts at: it begins with `noise` times this.
    fn first_sigma(&self) -> f64;
}

/// How images are drawn from a model: the solver, its steps, and the guidance.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "type", deny_unknown_fields)]
pub enum SamplerConfig {
    /// DPM-Solver++(2M): second order at one evaluation a step; the best images for few steps.
    #[serde(rename = "dpmpp-2m")]
    Dpmpp2m {
        /// Steps from noise to image; each costs one evaluation of the model. Default: 12.
        #[serde(default = "dpmpp_2m_steps")]
        steps: u64,
        /// Classifier-free guidance scale; 1 is none, 1.5 to 2 makes good training data. Default: 1.5.
        #[serde(default = "guidance_scale")]
        guidance: f64,
        /// Noise levels `[lowest, highest]` (sigma) between which guidance applies. Default: all.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        guidance_interval: Option<[f64; 2]>,
        /// Attributes that guidance strengthens, given the others: `[garment]` steers away from "any garment that is
        /// yellow", and so from the garments that usually are. Default: all.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        guided: Option<Vec<String>>,
    },
    /// Heun's method as in EDM: second order at two evaluations a step.
    #[serde(rename = "heun")]
    Heun {
        /// Steps from noise to image; each but the last costs two evaluations of the model. Default: 18.
        #[serde(default = "heun_steps")]
        steps: u64,
        /// Classifier-free guidance scale; 1 is none, 1.5 to 2 makes good training data. Default: 1.5.
        #[serde(default = "guidance_scale")]
        guidance: f64,
        /// Noise levels `[lowest, highest]` (sigma) between which guidance applies. Default: all.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        guidance_interval: Option<[f64; 2]>,
        /// Attributes that guidance strengthens, given the others: `[garment]` steers away from "any garment that is
        /// yellow", and so from the garments that usually are. Default: all.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        guided: Option<Vec<String>>,
    },
}

fn dpmpp_2m_steps() -> u64 {
    12
}

fn heun_steps() -> u64 {
    SamplerConfig::HEUN_STEPS
}

fn guidance_scale() -> f64 {
    1.5
}

impl Default for SamplerConfig {
    fn default() -> Self {
        Self::Dpmpp2m { steps: dpmpp_2m_steps(), guidance: guidance_scale(), guidance_interval: None, guided: None }
    }
}

impl SamplerConfig {
    /// Steps of Heun's method where none are given.
    pub const HEUN_STEPS: u64 = 18;

    /// The name that the configuration gives it.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Dpmpp2m { .. } => "dpmpp-2m",
            Self::Heun { .. } => "heun",
        }
    }

    /// Steps from noise to image.
    pub fn steps(&self) -> u64 {
        match self {
            Self::Dpmpp2m { steps, .. } | Self::Heun { steps, .. } => *steps,
        }
    }

    /// The guidance scale; 1 is none.
    pub fn guidance(&self) -> f64 {
        self.guide().scale
    }

    /// The attributes that guidance strengthens; `None` is all.
    pub fn guided(&self) -> Option<&[String]> {
        match self {
            Self::Dpmpp2m { guided, .. } | Self::Heun { guided, .. } => guided.as_deref(),
        }
    }

    /// The guidance with its interval.
    pub fn guide(&self) -> Guidance {
        match *self {
            Self::Dpmpp2m { guidance: scale, guidance_interval: interval, .. }
            | Self::Heun { guidance: scale, guidance_interval: interval, .. } => Guidance { scale, interval },
        }
    }

    /// Says which setting is impossible.
    ///
    /// # Errors
    /// [`DiffusionError::Setting`] for steps outside 1 to 1000, a guidance scale outside 0 to 100, an empty interval.
    pub fn validate(&self) -> Result<()> {
        let fail = |key, reason| Err(DiffusionError::Setting { key, reason });
        let Guidance { scale, interval } = self.guide();
        if !(1..=1000).contains(&self.steps()) {
            return fail("steps", format!("{} is not between 1 and 1000", self.steps()));
        }
        if !(0.0..=100.0).contains(&scale) {
            return fail("guidance", format!("{scale} is not between 0 and 100 (1 is no guidance)"));
        }
        match interval {
            Some([low, high]) if !(0.0 <= low && low < high) => {
                fail("guidance_interval", format!("[{low}, {high}] is not a rising pair of noise levels from 0 up"))
            }
            _ => Ok(()),
        }
    }

    /// Steps that are left out at this strength (see [`Guide`](crate::Guide)); at least one is run.
    pub fn skipped(&self, strength: f64) -> usize {
        let steps = self.steps() as usize;
        let run = (steps as f64 * strength.clamp(0.0, 1.0)) as usize;
        steps - run.clamp(1, steps.max(1))
    }

    /// The solver, on the noise levels of [`KarrasSchedule`] without the first `skipped`.
    pub fn sampler(&self, skipped: usize) -> Box<dyn Sampler> {
        self.over(self.sigmas(skipped))
    }

    /// The solver that walks the same noise levels upwards, beginning at the one nearest to `from`: from an image with noise
    /// of that level, or from the image itself where `from` is 0, divided by the level ([`Sampler::first_sigma`]), to the
    /// noise (times the sampler's first level) from which the sampler draws that image. Known as DDIM inversion (Song et
    /// al. 2021).
    pub fn inverse(&self, skipped: usize, from: f64) -> Box<dyn Sampler> {
        let mut sigmas = self.sigmas(skipped);
        sigmas.retain(|&sigma| sigma > 0.0);
        let distance = |sigma: &f64| (sigma - from).abs();
        let nearest = sigmas.iter().copied().min_by(|a, b| distance(a).total_cmp(&distance(b))).unwrap_or_default();
        sigmas.retain(|&sigma| sigma >= nearest);
        sigmas.reverse();
        self.over(sigmas)
    }

    fn sigmas(&self, skipped: usize) -> Vec<f64> {
        let mut sigmas = KarrasSchedule::default().sigmas(self.steps() as usize);
        sigmas.drain(..skipped.min(sigmas.len().saturating_sub(2)));
        sigmas
    }

    fn over(&self, sigmas: Vec<f64>) -> Box<dyn Sampler> {
        match self {
            Self::Dpmpp2m { .. } => Box::new(Dpmpp2m::new(sigmas)),
            Self::Heun { .. } => Box::new(Heun::new(sigmas)),
        }
    }
}

#[cfg(test)]
mod tests;
