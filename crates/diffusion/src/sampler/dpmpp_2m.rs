//! DPM-Solver++(2M): Lu et al. 2022, "DPM-Solver++: Fast Solver for Guided Sampling of Diffusion Probabilistic Models",
//! algorithm 2, for EDM's noise (alpha = 1, so lambda = -ln sigma).

use candle_core::Tensor;

use super::{Denoiser, Sampler};
use crate::error::Result;

/// A multistep solver: the denoised prediction is extrapolated from the last two evaluations.
#[derive(Clone, Debug)]
pub struct Dpmpp2m {
    sigmas: Vec<f64>,
}

impl Dpmpp2m {
    /// A walk over falling noise levels; the last may be 0.
    pub fn new(sigmas: Vec<f64>) -> Self {
        Self { sigmas }
    }
}

impl Sampler for Dpmpp2m {
    fn sample(&self, denoiser: &Denoiser<'_>, noise: &Tensor) -> Result<Tensor> {
        let mut x = (noise * self.sigmas.first().copied().unwrap_or(0.0))?;
        // The prediction before and the step in lambda that followed it.
        let mut before: Option<(Tensor, f64)> = None;
        for (&sigma, &next) in self.sigmas.iter().zip(self.sigmas.iter().skip(1)) {
            let denoised = denoiser(&x, sigma)?;
            if next == 0.0 {
                return Ok(denoised);
            }
            let h = (sigma / next).ln();
            let direction = match &before {
                None => denoised.clone(),
                Some((previous, h_before)) => {
                    let half = h / (2.0 * h_before);
                    ((&denoised * (1.0 + half))? - (previous * half)?)?
                }
            };
            x = ((x * (next / sigma))? - (direction * (-h).exp_m1())?)?;
            before = Some((denoised, h));
        }
        Ok(x)
    }

    fn first_sigma(&self) -> f64 {
        self.sigmas.first().copied().unwrap_or(0.0)
    }
}
