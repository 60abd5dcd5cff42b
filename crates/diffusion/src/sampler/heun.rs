//! Heun's method: algorithm 1 of Karras et al. 2022, without churn.

use candle_core::Tensor;

use super::{Denoiser, Sampler};
use crate::error::Result;

/// An Euler step, then the trapezoid through both slopes; the last step, to zero noise, is Euler's.
#[derive(Clone, Debug)]
pub struct Heun {
    sigmas: Vec<f64>,
}

impl Heun {
    /// A walk over falling noise levels; the last may be 0.
    pub fn new(sigmas: Vec<f64>) -> Self {
        Self { sigmas }
    }
}

impl Sampler for Heun {
    fn sample(&self, denoiser: &Denoiser<'_>, noise: &Tensor) -> Result<Tensor> {
        let slope = |x: &Tensor, sigma: f64| -> Result<Tensor> { Ok(((x - denoiser(x, sigma)?)? / sigma)?) };
        let mut x = (noise * self.sigmas.first().copied().unwrap_or(0.0))?;
        for (&sigma, &next) in self.sigmas.iter().zip(self.sigmas.iter().skip(1)) {
            let d = slope(&x, sigma)?;
            let euler = (&x + (&d * (next - sigma))?)?;
            x = match next > 0.0 {
                true => (x + ((d + slope(&euler, next)?)? * (0.5 * (next - sigma)))?)?,
                false => euler,
            };
        }
        Ok(x)
    }

    fn first_sigma(&self) -> f64 {
        self.sigmas.first().copied().unwrap_or(0.0)
    }
}
