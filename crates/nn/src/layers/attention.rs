//! Self-attention over the pixels of an image (Vaswani et al. 2017, as in DDPM's UNet).

use candle_core::{Result, Tensor};

use super::{GroupNorm, Linear};
use crate::ops;
use crate::weights::Scope;

/// `group_norm`, then `to_q`, `to_k`, `to_v`, attention in heads, `to_out.0`, and the input added.
#[derive(Clone, Debug)]
pub struct Attention {
    group_norm: GroupNorm,
    to_q: Linear,
    to_k: Linear,
    to_v: Linear,
    to_out: Linear,
    heads: usize,
}

impl Attention {
    /// The layer under `scope` for `channels` in `heads` heads, normalised in `groups` groups.
    ///
    /// # Errors
    /// [`Error::Config`](crate::Error::Config) where heads or groups do not divide the channels.
    pub fn new(scope: &Scope, channels: usize, heads: usize, groups: usize) -> crate::Result<Self> {
        if heads == 0 || !channels.is_multiple_of(heads) {
            return Err(crate::Error::Config(format!(
                "{channels} channels at `{}` do not divide into {heads} attention heads",
                scope.prefix()
            )));
        }
        let linear = |name: &str| Linear::new(&scope.sub(name), channels, channels);
        Ok(Self {
            group_norm: GroupNorm::new(&scope.sub("group_norm"), groups, channels, 1e-5)?,
            to_q: linear("to_q")?,
            to_k: linear("to_k")?,
            to_v: linear("to_v")?,
            to_out: linear("to_out.0")?,
            heads,
        })
    }

    /// `[batch, channels, height, width]` to the same shape.
    ///
    /// # Errors
    /// Another number of channels.
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let normal = self.group_norm.forward(x)?;
        let (q, k) = (self.to_q.forward_pixels(&normal)?, self.to_k.forward_pixels(&normal)?);
        let mixed = ops::attention(&q, &k, &self.to_v.forward_pixels(&normal)?, self.heads)?;
        ops::add(x, &self.to_out.forward_pixels(&mixed)?)
    }
}
