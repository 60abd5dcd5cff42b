//! SigLIP's pooling: one learned query asks all patches (Zhai et al. 2022, "MAP" head).

use candle_core::{IndexOp, Result, Tensor};

use super::config::TransformerConfig;
use super::encoder::{FeedForward, Norm};
use crate::grad_mode::used;
use crate::layers::Linear;
use crate::maps;
use crate::param::Param;
use crate::weights::{Init, Scope};

/// The head. Its attention is PyTorch's, whose three input maps are one tensor.
#[derive(Clone, Debug)]
pub(super) struct PoolingHead {
    probe: Tensor,
    /// Queries, keys and values.
    inputs: [(Param, Tensor); 3],
    out: Linear,
    layernorm: Norm,
    mlp: FeedForward,
    heads: usize,
}

impl PoolingHead {
    pub(super) fn new(scope: &Scope, config: TransformerConfig) -> crate::Result<Self> {
        let width = config.width;
        let attention = scope.sub("attention");
        let init = Init::KaimingUniform { fan_in: width };
        let weight = attention.get("in_proj_weight", &[3 * width, width], init)?;
        let bias = attention.get("in_proj_bias", &[3 * width], Init::Zeros)?;
        let input = |i: usize| {
            let (weight, bias) = (weight.narrow(0, i * width, width)?, bias.narrow(0, i * width, width)?);
            Ok::<_, crate::Error>((Param::new(weight.contiguous()?), bias.contiguous()?))
        };
        Ok(Self {
            probe: scope.get("probe", &[1, 1, width], Init::Normal { std: 0.02 })?,
            inputs: [input(0)?, input(1)?, input(2)?],
            out: Linear::new(&attention.sub("out_proj"), width, width)?,
            layernorm: Norm::new(&scope.sub("layernorm"), config)?,
            mlp: FeedForward::new(&scope.sub("mlp"), config)?,
            heads: config.heads,
        })
    }

    /// `[batch, tokens, width]` to `[batch, width]`.
    pub(super) fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let (batch, _, width) = x.dims3()?;
        let probe = used(&self.probe).broadcast_as((batch, 1, width))?.contiguous()?;
        let [q, k, v] = &self.inputs;
        let map = |x: &Tensor, (weight, bias): &(Param, Tensor)| maps::linear(x, weight, Some(&used(bias)), None);
        let mixed = maps::attention(&map(&probe, q)?, &map(x, k)?, &map(x, v)?, self.heads)?;
        let pooled = self.out.forward(&mixed)?;
        self.mlp.forward(&self.layernorm.forward(&pooled)?, &pooled)?.i((.., 0))?.contiguous()
    }
}
