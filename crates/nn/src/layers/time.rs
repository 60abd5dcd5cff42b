//! A noise level becomes a vector that every block of the network sees.

use candle_core::{D, Result, Tensor};

use super::Linear;
use crate::ops;
use crate::weights::Scope;

/// The slowest and the fastest frequency, in radians for one unit of the noise level.
///
/// EDM's `c_noise = ln(sigma) / 4` spans about three units: the slowest wave is monotone over all of it, the fastest
/// tells apart noise levels that differ by a few per cent.
const FREQUENCIES: (f64, f64) = (1.0, 64.0);

/// Sines and cosines of the noise level at geometrically spaced frequencies, then `linear_1`, SiLU, `linear_2`.
#[derive(Clone, Debug)]
pub struct TimestepEmbedding {
    linear_1: Linear,
    linear_2: Linear,
    frequencies: Tensor,
}

impl TimestepEmbedding {
    /// `features` (made even) sines and cosines, `width` values out.
    ///
    /// # Errors
    /// [`Error::Shape`](crate::Error::Shape) where the scope holds another layer.
    pub fn new(scope: &Scope, features: usize, width: usize) -> crate::Result<Self> {
        let half = features.div_ceil(2).max(1);
        let (slow, fast) = FREQUENCIES;
        let frequency = |i: usize| (slow * (fast / slow).powf(i as f64 / (half - 1).max(1) as f64)) as f32;
        let frequencies: Vec<f32> = (0..half).map(frequency).collect();
        Ok(Self {
            linear_1: Linear::new(&scope.sub("linear_1"), 2 * half, width)?,
            linear_2: Linear::new(&scope.sub("linear_2"), width, width)?,
            frequencies: Tensor::from_vec(frequencies, (1, half), scope.device())?,
        })
    }

    /// `[batch]` noise levels to `[batch, width]`.
    ///
    /// # Errors
    /// Noise levels that are not a vector.
    pub fn forward(&self, noise: &Tensor) -> Result<Tensor> {
        let angles = noise.unsqueeze(1)?.broadcast_mul(&self.frequencies)?;
        let features = Tensor::cat(&[angles.cos()?, angles.sin()?], D::Minus1)?;
        self.linear_2.forward(&ops::silu(&self.linear_1.forward(&features)?)?)
    }
}
