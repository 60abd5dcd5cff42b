//! The residual block of diffusion UNets (Ho et al. 2020; diffusers' `ResnetBlock2D`).

use candle_core::{Result, Tensor};

use super::{Conv2d, GroupNorm, Linear};
use crate::ops::{self, ResnetWeights};
use crate::weights::Scope;

/// `norm1`, SiLU, `conv1`, plus `time_emb_proj` of the time embedding; `norm2`, SiLU, `conv2`; plus the input, through
/// `conv_shortcut` where the number of channels changes.
#[derive(Clone, Debug)]
pub struct ResnetBlock {
    norm1: GroupNorm,
    conv1: Conv2d,
    time_emb_proj: Linear,
    norm2: GroupNorm,
    conv2: Conv2d,
    conv_shortcut: Option<Conv2d>,
}

impl ResnetBlock {
    /// The block under `scope` from `inputs` to `outputs` channels, normalised in `groups` groups, with a time embedding of
    /// `embedding_dim` values.
    ///
    /// # Errors
    /// [`Error::Config`](crate::Error::Config) where the groups do not divide the channels.
    pub fn new(
        scope: &Scope,
        inputs: usize,
        outputs: usize,
        groups: usize,
        embedding_dim: usize,
    ) -> crate::Result<Self> {
        let conv_shortcut = match inputs == outputs {
            true => None,
            false => Some(Conv2d::new(&scope.sub("conv_shortcut"), inputs, outputs, 1, 1, 0)?),
        };
        Ok(Self {
            norm1: GroupNorm::new(&scope.sub("norm1"), groups, inputs, 1e-5)?,
            conv1: Conv2d::new(&scope.sub("conv1"), inputs, outputs, 3, 1, 1)?,
            time_emb_proj: Linear::new(&scope.sub("time_emb_proj"), embedding_dim, outputs)?,
            norm2: GroupNorm::new(&scope.sub("norm2"), groups, outputs, 1e-5)?,
            conv2: Conv2d::new(&scope.sub("conv2"), outputs, outputs, 3, 1, 1)?,
            conv_shortcut,
        })
    }

    /// `x` is `[batch, inputs, height, width]`, `embedding` `[batch, embedding_dim]` with SiLU already applied (it is the
    /// same for every block); the result is `[batch, outputs, height, width]`.
    ///
    /// # Errors
    /// Another number of channels, or another batch.
    pub fn forward(&self, x: &Tensor, embedding: &Tensor) -> Result<Tensor> {
        let shift = self.time_emb_proj.forward(embedding)?;
        let shortcut = self.conv_shortcut.as_ref().map(Conv2d::weights);
        let (norm1, conv1) = (self.norm1.weights(), self.conv1.weights());
        let (norm2, conv2) = (self.norm2.weights(), self.conv2.weights());
        let weights = ResnetWeights {
            norm1: (&norm1.0, &norm1.1),
            conv1: (&conv1.0, &conv1.1),
            norm2: (&norm2.0, &norm2.1),
            conv2: (&conv2.0, &conv2.1),
            shortcut: shortcut.as_ref().map(|(weight, bias)| (weight, bias)),
            groups: self.norm1.groups,
            eps: self.norm1.eps,
        };
        ops::resnet_block(x, &shift, &weights)
    }
}
