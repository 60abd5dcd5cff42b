//! Classifier-free guidance (Ho and Salimans 2022) on the denoised prediction.

use candle_core::Tensor;

use crate::error::Result;

/// How far a prediction is pushed away from the unconditional one.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Guidance {
    /// `g` in `D_uncond + g (D_cond - D_uncond)`; 1 is none, 0 ignores the condition.
    pub scale: f64,
    /// Lowest and highest noise level at which it applies (Kynkäänniemi et al. 2024); elsewhere `g` is 1.
    pub interval: Option<[f64; 2]>,
}

impl Guidance {
    /// Whether the unconditional prediction is needed at this noise level.
    pub fn applies(&self, sigma: f64) -> bool {
        self.scale != 1.0 && self.interval.is_none_or(|[low, high]| (low..=high).contains(&sigma))
    }

    /// The guided prediction at noise level `sigma`; `unconditional` is only asked where it matters.
    ///
    /// # Errors
    /// What either prediction gives.
    pub fn apply(
        &self,
        sigma: f64,
        conditional: impl FnOnce() -> Result<Tensor>,
        unconditional: impl FnOnce() -> Result<Tensor>,
    ) -> Result<Tensor> {
        let conditional = conditional()?;
        if !self.applies(sigma) {
            return Ok(conditional);
        }
        let unconditional = unconditional()?;
        Ok((&unconditional + ((conditional - &unconditional)? * self.scale)?)?)
    }
}
