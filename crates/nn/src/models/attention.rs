//! Self-attention over pixels, and the transformer blocks of latent diffusion (Rombach et al. 2022).

use candle_core::{DType, Result, Tensor, bail};

use super::layers::{Conv2d, GroupNorm, LayerNorm};
use super::plan::{AttentionPlan, NormPlan, TransformerPlan};
use super::resnet::divided;
use crate::layers::Linear;
use crate::maps::{self, Maps};
use crate::weights::Scope;

/// What follows a residual block.
#[derive(Clone, Debug)]
pub(super) enum Attention {
    /// Self-attention over pixels.
    Pixels(PixelAttention),
    /// Transformer blocks.
    Transformer(Transformer),
}

impl Attention {
    pub(super) fn new(scope: &Scope, plan: AttentionPlan) -> crate::Result<Self> {
        match plan {
            AttentionPlan::Pixels { channels, heads, head_width, norm, divisor } => {
                let heads =
                    HeadsPlan { queries: channels, keys: channels, heads, head_width, bias: true, upcast: false };
                Ok(Self::Pixels(PixelAttention {
                    group_norm: norm
                        .map(|norm| GroupNorm::new(&scope.sub("group_norm"), channels, norm))
                        .transpose()?,
                    heads: Heads::new(scope, heads)?,
                    divisor,
                }))
            }
            AttentionPlan::Transformer(plan) => Ok(Self::Transformer(Transformer::new(scope, plan)?)),
        }
    }

    /// `text` is `[batch, tokens, width]`.
    pub(super) fn forward(&self, x: &Maps, text: Option<&Tensor>) -> Result<Maps> {
        match self {
            Self::Pixels(attention) => attention.forward(x),
            Self::Transformer(transformer) => transformer.forward(x, text),
        }
    }
}

/// Multi-head attention with its four projections.
#[derive(Clone, Debug)]
struct Heads {
    to_q: Linear,
    to_k: Linear,
    to_v: Linear,
    to_out: Linear,
    heads: usize,
    upcast: bool,
}

/// The shape of [`Heads`].
struct HeadsPlan {
    /// The width of the tokens that ask, and of the result.
    queries: usize,
    /// The width of the tokens that are asked.
    keys: usize,
    heads: usize,
    head_width: usize,
    /// Whether queries, keys and values have a bias; the result has one in any case.
    bias: bool,
    upcast: bool,
}

impl Heads {
    fn new(scope: &Scope, plan: HeadsPlan) -> crate::Result<Self> {
        let HeadsPlan { queries, keys, heads, head_width, bias, upcast } = plan;
        let width = heads * head_width;
        let linear = |name: &str, inputs| Linear::with_bias(&scope.sub(name), inputs, width, bias);
        Ok(Self {
            to_q: linear("to_q", queries)?,
            to_k: linear("to_k", keys)?,
            to_v: linear("to_v", keys)?,
            to_out: Linear::new(&scope.sub("to_out").sub(0), width, queries)?,
            heads,
            upcast,
        })
    }

    /// `x` asks `others`; the result is added to `residual`.
    fn forward(&self, x: &Tensor, others: &Tensor, residual: &Tensor) -> Result<Tensor> {
        let (q, k, v) = (self.to_q.forward(x)?, self.to_k.forward(others)?, self.to_v.forward(others)?);
        let mixed = match (self.upcast, q.dtype()) {
            (true, dtype @ (DType::F16 | DType::BF16)) => {
                let wide = |x: &Tensor| x.to_dtype(DType::F32);
                maps::attention(&wide(&q)?, &wide(&k)?, &wide(&v)?, self.heads)?.to_dtype(dtype)?
            }
            _ => maps::attention(&q, &k, &v, self.heads)?,
        };
        self.to_out.forward_onto(&mixed, residual)
    }
}

/// Attention of all pixels to one another, added to its input.
#[derive(Clone, Debug)]
pub(super) struct PixelAttention {
    group_norm: Option<GroupNorm>,
    heads: Heads,
    divisor: f64,
}

impl PixelAttention {
    fn forward(&self, x: &Maps) -> Result<Maps> {
        let residual = x.to_tokens()?;
        let tokens = match &self.group_norm {
            Some(norm) => norm.forward(x)?.to_tokens()?,
            None => residual.clone(),
        };
        divided(Maps::from_tokens(&self.heads.forward(&tokens, &tokens, &residual)?, x.size())?, self.divisor)
    }
}

/// Transformer blocks over the pixels, between two projections, added to the input.
#[derive(Clone, Debug)]
pub(super) struct Transformer {
    norm: GroupNorm,
    projections: Projections,
    blocks: Vec<TransformerBlock>,
}

#[derive(Clone, Debug)]
enum Projections {
    Conv { proj_in: Conv2d, proj_out: Conv2d },
    Linear { proj_in: Linear, proj_out: Linear },
}

impl Transformer {
    fn new(scope: &Scope, plan: TransformerPlan) -> crate::Result<Self> {
        let channels = plan.channels;
        let (proj_in, proj_out) = (scope.sub("proj_in"), scope.sub("proj_out"));
        let blocks = scope.sub("transformer_blocks");
        Ok(Self {
            norm: GroupNorm::new(&scope.sub("norm"), channels, NormPlan { groups: plan.groups, eps: 1e-6 })?,
            projections: match plan.linear {
                true => Projections::Linear {
                    proj_in: Linear::new(&proj_in, channels, channels)?,
                    proj_out: Linear::new(&proj_out, channels, channels)?,
                },
                false => Projections::Conv {
                    proj_in: Conv2d::new(&proj_in, channels, channels, 1)?,
                    proj_out: Conv2d::new(&proj_out, channels, channels, 1)?,
                },
            },
            blocks: (0..plan.layers)
                .map(|i| TransformerBlock::new(&blocks.sub(i), plan))
                .collect::<crate::Result<_>>()?,
        })
    }

    fn forward(&self, x: &Maps, text: Option<&Tensor>) -> Result<Maps> {
        let Some(text) = text else {
            bail!("this network needs a text embedding, [batch, tokens, width]");
        };
        let normed = self.norm.forward(x)?;
        let tokens = match &self.projections {
            Projections::Conv { proj_in, .. } => proj_in.forward(&normed)?.to_tokens()?,
            Projections::Linear { proj_in, .. } => proj_in.forward(&normed.to_tokens()?)?,
        };
        let tokens = self.blocks.iter().try_fold(tokens, |tokens, block| block.forward(&tokens, text))?;
        match &self.projections {
            Projections::Conv { proj_out, .. } => {
                proj_out.forward_with(&Maps::from_tokens(&tokens, x.size())?, None, Some(x))
            }
            Projections::Linear { proj_out, .. } => {
                Maps::from_tokens(&proj_out.forward_onto(&tokens, &x.to_tokens()?)?, x.size())
            }
        }
    }
}

/// Self-attention, attention to the text and a gated feed-forward layer, each normalised first and added to its input.
#[derive(Clone, Debug)]
struct TransformerBlock {
    norm1: LayerNorm,
    attn1: Heads,
    norm2: LayerNorm,
    attn2: Heads,
    norm3: LayerNorm,
    ff_in: Linear,
    ff_out: Linear,
    only_cross: bool,
}

impl TransformerBlock {
    fn new(scope: &Scope, plan: TransformerPlan) -> crate::Result<Self> {
        /// The feed-forward layer's hidden width, in widths of a token.
        const EXPANSION: usize = 4;
        let TransformerPlan { channels, heads, context, only_cross, upcast, .. } = plan;
        let attention = |name: &str, keys| {
            let head_width = channels / heads;
            let plan = HeadsPlan { queries: channels, keys, heads, head_width, bias: false, upcast };
            Heads::new(&scope.sub(name), plan)
        };
        let norm = |name: &str| LayerNorm::new(&scope.sub(name), channels);
        let ff = scope.sub("ff").sub("net");
        Ok(Self {
            norm1: norm("norm1")?,
            attn1: attention("attn1", if only_cross { context } else { channels })?,
            norm2: norm("norm2")?,
            attn2: attention("attn2", context)?,
            norm3: norm("norm3")?,
            ff_in: Linear::new(&ff.sub(0).sub("proj"), channels, 2 * EXPANSION * channels)?,
            ff_out: Linear::new(&ff.sub(2), EXPANSION * channels, channels)?,
            only_cross,
        })
    }

    fn forward(&self, x: &Tensor, text: &Tensor) -> Result<Tensor> {
        let normed = self.norm1.forward(x)?;
        let x = self.attn1.forward(&normed, if self.only_cross { text } else { &normed }, x)?;
        let x = self.attn2.forward(&self.norm2.forward(&x)?, text, &x)?;
        let hidden = maps::geglu(&self.ff_in.forward(&self.norm3.forward(&x)?)?)?;
        self.ff_out.forward_onto(&hidden, &x)
    }
}
