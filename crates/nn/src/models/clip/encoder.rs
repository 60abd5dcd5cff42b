//! The transformer that texts and images share: layers that normalise first (Xiong et al. 2020).

use candle_core::{Result, Tensor};

use super::activation::Activation;
use super::attention::{Mask, SelfAttention};
use super::config::TransformerConfig;
use crate::grad_mode::used;
use crate::layers::Linear;
use crate::maps;
use crate::weights::{Init, Scope};

/// Normalisation of tokens.
#[derive(Clone, Debug)]
pub(super) struct Norm {
    weight: Tensor,
    bias: Tensor,
    eps: f64,
}

impl Norm {
    pub(super) fn new(scope: &Scope, config: TransformerConfig) -> crate::Result<Self> {
        let weight = scope.get("weight", &[config.width], Init::Ones)?;
        Ok(Self { weight, bias: scope.get("bias", &[config.width], Init::Zeros)?, eps: config.eps })
    }

    pub(super) fn forward(&self, x: &Tensor) -> Result<Tensor> {
        maps::layer_norm(x, Some(&used(&self.weight)), Some(&used(&self.bias)), self.eps)
    }
}

/// Two linear maps with an activation between them.
#[derive(Clone, Debug)]
pub(super) struct FeedForward {
    fc1: Linear,
    fc2: Linear,
    activation: Activation,
}

impl FeedForward {
    pub(super) fn new(scope: &Scope, config: TransformerConfig) -> crate::Result<Self> {
        Ok(Self {
            fc1: Linear::new(&scope.sub("fc1"), config.width, config.hidden)?,
            fc2: Linear::new(&scope.sub("fc2"), config.hidden, config.width)?,
            activation: config.activation,
        })
    }

    /// The result is added to `residual`.
    pub(super) fn forward(&self, x: &Tensor, residual: &Tensor) -> Result<Tensor> {
        self.fc2.forward_onto(&self.activation.forward(&self.fc1.forward(x)?)?, residual)
    }
}

#[derive(Clone, Debug)]
struct Layer {
    norm1: Norm,
    attention: SelfAttention,
    norm2: Norm,
    feed_forward: FeedForward,
}

/// The layers one after another.
#[derive(Clone, Debug)]
pub(super) struct Encoder {
    layers: Vec<Layer>,
}

impl Encoder {
    pub(super) fn new(scope: &Scope, config: TransformerConfig) -> crate::Result<Self> {
        let layer = |i: usize| {
            let scope = scope.sub("layers").sub(i);
            Ok(Layer {
                norm1: Norm::new(&scope.sub("layer_norm1"), config)?,
                attention: SelfAttention::new(&scope.sub("self_attn"), config.width, config.heads)?,
                norm2: Norm::new(&scope.sub("layer_norm2"), config)?,
                feed_forward: FeedForward::new(&scope.sub("mlp"), config)?,
            })
        };
        Ok(Self { layers: (0..config.layers).map(layer).collect::<crate::Result<_>>()? })
    }

    /// Tokens `[batch, tokens, width]` before the first layer and behind each one: what was asked for by `keep`, and the
    /// last of them in any case.
    pub(super) fn forward(&self, x: Tensor, mask: &Mask, keep: bool) -> Result<(Tensor, Vec<Tensor>)> {
        let mut kept = Vec::new();
        let mut x = x;
        for layer in &self.layers {
            let next = layer.attention.forward(&layer.norm1.forward(&x)?, mask, &x)?;
            let next = layer.feed_forward.forward(&layer.norm2.forward(&next)?, &next)?;
            let before = std::mem::replace(&mut x, next);
            if keep {
                kept.push(before);
            }
        }
        if keep {
            kept.push(x.clone());
        }
        Ok((x, kept))
    }
}
