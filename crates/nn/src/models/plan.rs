//! A UNet or autoencoder spelled out block by block: what a checked configuration holds and the networks are built from.

use super::config::unsupported;
use crate::error::Result;

/// A group normalisation.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct NormPlan {
    pub(super) groups: usize,
    pub(super) eps: f64,
}

impl NormPlan {
    /// The same, once it is known that it can normalise `channels`.
    pub(super) fn of(self, channels: usize) -> Result<Self> {
        if !(self.eps.is_finite() && self.eps >= 0.0) {
            return Err(unsupported("norm_eps", &self.eps, "a number that is not negative"));
        }
        match self.groups != 0 && channels.is_multiple_of(self.groups) {
            true => Ok(self),
            false => {
                Err(unsupported("norm_num_groups", &self.groups, format!("a divisor of all of {channels} channels")))
            }
        }
    }
}

/// What all residual blocks of a network have in common.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct ResnetStyle {
    pub(super) norm: NormPlan,
    pub(super) time: Option<TimePlan>,
    /// What the sum of block and shortcut is divided by.
    pub(super) divisor: f64,
}

/// How residual blocks take the time embedding.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct TimePlan {
    pub(super) width: usize,
    pub(super) scale_shift: bool,
}

/// A residual block.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct ResnetPlan {
    pub(super) inputs: usize,
    pub(super) outputs: usize,
    pub(super) style: ResnetStyle,
}

impl ResnetStyle {
    pub(super) fn block(self, inputs: usize, outputs: usize) -> Result<ResnetPlan> {
        self.norm.of(inputs)?;
        self.norm.of(outputs)?;
        Ok(ResnetPlan { inputs, outputs, style: self })
    }
}

/// Attention behind a residual block.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum AttentionPlan {
    /// Of all pixels to one another.
    Pixels {
        channels: usize,
        heads: usize,
        head_width: usize,
        norm: Option<NormPlan>,
        /// What the sum with the input is divided by.
        divisor: f64,
    },
    /// Transformer blocks.
    Transformer(TransformerPlan),
}

/// Transformer blocks over the pixels of a map.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct TransformerPlan {
    pub(super) channels: usize,
    pub(super) groups: usize,
    pub(super) heads: usize,
    pub(super) layers: usize,
    /// The width of the text's tokens.
    pub(super) context: usize,
    /// Whether the first attention of each block sees the text too.
    pub(super) only_cross: bool,
    /// Whether the projections around the blocks are linear maps of tokens or 1x1 convolutions; that is one and the same
    /// but for the shape of the weight.
    pub(super) linear: bool,
    /// Whether attention is computed in `f32` in any case.
    pub(super) upcast: bool,
}

impl AttentionPlan {
    /// Heads of `head_width` channels, or of all channels.
    pub(super) fn pixels(
        channels: usize,
        head_width: Option<usize>,
        norm: Option<NormPlan>,
        divisor: f64,
    ) -> Result<Self> {
        let head_width = head_width.unwrap_or(channels);
        if !(1..=channels).contains(&head_width) {
            return Err(unsupported(
                "attention_head_dim",
                &head_width,
                format!("1 to {channels}, the block's channels"),
            ));
        }
        let norm = norm.map(|norm| norm.of(channels)).transpose()?;
        Ok(Self::Pixels { channels, heads: channels / head_width, head_width, norm, divisor })
    }
}

impl TransformerPlan {
    pub(super) fn checked(self) -> Result<AttentionPlan> {
        if self.heads == 0 || !self.channels.is_multiple_of(self.heads) {
            let supported = format!("a number of heads that divides {} channels", self.channels);
            return Err(unsupported("attention_head_dim", &self.heads, supported));
        }
        NormPlan { groups: self.groups, eps: 1e-6 }.of(self.channels)?;
        Ok(AttentionPlan::Transformer(self))
    }
}

/// A residual block and what follows it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct LayerPlan {
    pub(super) resnet: ResnetPlan,
    pub(super) attention: Option<AttentionPlan>,
}

/// How a level ends.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum ResamplePlan {
    /// A 3x3 convolution of `channels`, with stride 2 on the way down; padding 0 means zeros at the bottom and right.
    Conv { channels: usize, padding: usize },
    /// A residual block.
    Resnet(ResnetPlan),
}

/// A level, on the way down or up.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct BlockPlan {
    pub(super) layers: Vec<LayerPlan>,
    pub(super) resample: Option<ResamplePlan>,
}

/// The middle: a residual block; then each entry of `attentions` and another residual block.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct MidPlan {
    pub(super) resnet: ResnetPlan,
    pub(super) attentions: Vec<Option<AttentionPlan>>,
}

/// A level as a configuration describes it, before the channels between levels are known.
#[derive(Clone, Debug)]
pub(super) struct Level {
    pub(super) channels: usize,
    /// One entry for each residual block.
    pub(super) attentions: Vec<Option<AttentionPlan>>,
    /// Padding of the convolution that halves the size, or nothing where a residual block resamples.
    pub(super) padding: Option<usize>,
}

impl Level {
    fn plan(&self, style: ResnetStyle, inputs: impl FnMut(usize) -> usize, resample: bool) -> Result<BlockPlan> {
        let mut inputs = inputs;
        let layer = |(i, attention): (usize, &Option<AttentionPlan>)| {
            Ok(LayerPlan { resnet: style.block(inputs(i), self.channels)?, attention: *attention })
        };
        let layers = self.attentions.iter().enumerate().map(layer).collect::<Result<_>>()?;
        let resample = match (resample, self.padding) {
            (false, _) => None,
            (true, Some(padding)) => Some(ResamplePlan::Conv { channels: self.channels, padding }),
            (true, None) => Some(ResamplePlan::Resnet(style.block(self.channels, self.channels)?)),
        };
        Ok(BlockPlan { layers, resample })
    }
}

/// The way down from `inputs` channels: every level but the last halves the size.
pub(super) fn down_blocks(style: ResnetStyle, inputs: usize, levels: &[Level]) -> Result<Vec<BlockPlan>> {
    let mut width = inputs;
    let block = |(i, level): (usize, &Level)| {
        let first = std::mem::replace(&mut width, level.channels);
        level.plan(style, |layer| if layer == 0 { first } else { level.channels }, i + 1 < levels.len())
    };
    levels.iter().enumerate().map(block).collect()
}

/// The way up from `inputs` channels: every level but the last doubles the size. Each residual block also takes the
/// last of `skips`, the channels of results on the way down; without skips (in a decoder) they are none.
pub(super) fn up_blocks(
    style: ResnetStyle,
    inputs: usize,
    mut skips: Vec<usize>,
    levels: &[Level],
) -> Result<Vec<BlockPlan>> {
    let mut width = inputs;
    let block = |(i, level): (usize, &Level)| {
        let first = std::mem::replace(&mut width, level.channels);
        let inputs = |layer| (if layer == 0 { first } else { level.channels }) + skips.pop().unwrap_or(0);
        level.plan(style, inputs, i + 1 < levels.len())
    };
    levels.iter().enumerate().map(block).collect()
}

/// The channels of every result on the way down that the way up takes again.
pub(super) fn skips(first: usize, down: &[BlockPlan]) -> Vec<usize> {
    let block = |block: &BlockPlan| {
        let outputs: Vec<usize> = block.layers.iter().map(|layer| layer.resnet.outputs).collect();
        let resampled = block.resample.and(outputs.last().copied());
        outputs.into_iter().chain(resampled).collect::<Vec<_>>()
    };
    std::iter::once(first).chain(down.iter().flat_map(block)).collect()
}

/// A UNet without its embeddings.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct UNetPlan {
    pub(super) in_channels: usize,
    pub(super) out_channels: usize,
    /// Channels of the first and the last level.
    pub(super) channels: usize,
    /// Kernels of the first and the last convolution.
    pub(super) kernels: (usize, usize),
    /// The last normalisation.
    pub(super) norm: NormPlan,
    /// Whether images in `[0, 1]` are moved to `[-1, 1]`.
    pub(super) centred: bool,
    pub(super) down: Vec<BlockPlan>,
    pub(super) mid: Option<MidPlan>,
    pub(super) up: Vec<BlockPlan>,
}
