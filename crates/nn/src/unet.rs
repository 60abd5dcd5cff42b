//! A UNet in pixel space with diffusers' `UNet2DModel` weight names (Ho et al. 2020), conditioned on a noise level for
//! each image and, on request, on a vector for each image.

use candle_core::{Result, Tensor};
use serde::{Deserialize, Serialize};

use crate::error::Error;
use crate::layers::{Attention, Conv2d, Downsample, GroupNorm, ResnetBlock, TimestepEmbedding, Upsample};
use crate::ops;
use crate::weights::Scope;

/// Channels of one attention head, where they divide the channels of the level; otherwise there is one head.
const HEAD_WIDTH: usize = 32;

/// The shape of a [`UNet`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct UNetConfig {
    /// Channels of the images that come in.
    pub in_channels: usize,
    /// Channels of the images that go out.
    pub out_channels: usize,
    /// Channels at each level; each level has half the resolution of the one before.
    pub block_out_channels: Vec<usize>,
    /// Residual blocks of a level on the way down; one more on the way up.
    pub layers_per_block: usize,
    /// Groups of the group normalisations; must divide every number of channels.
    pub norm_num_groups: usize,
    /// For each level, whether self-attention follows its residual blocks. The last level's entry also says whether the
    /// middle block has attention.
    pub attention: Vec<bool>,
    /// Width of the time embedding and of the condition.
    pub embedding_dim: usize,
}

impl UNetConfig {
    /// Height and width of images must be multiples of this: every level but the last halves them.
    pub fn size_multiple(&self) -> usize {
        1 << self.block_out_channels.len().saturating_sub(1).min(16)
    }

    /// Says what is impossible in this configuration.
    ///
    /// # Errors
    /// [`Error::Config`] names the value and what it must be.
    pub fn validate(&self) -> crate::Result<()> {
        let fail = |what: String| Err(Error::Config(what));
        let levels = self.block_out_channels.len();
        if levels == 0 || levels > 8 {
            return fail(format!("block_out_channels has {levels} levels; 1 to 8 are possible"));
        }
        if self.attention.len() != levels {
            return fail(format!("attention has {} entries for {levels} levels", self.attention.len()));
        }
        if !(1..=16).contains(&self.layers_per_block) {
            return fail(format!("layers_per_block is {}; 1 to 16 are possible", self.layers_per_block));
        }
        let widths = [self.in_channels, self.out_channels, self.embedding_dim];
        if let Some(width) = widths.iter().chain(&self.block_out_channels).find(|width| !(1..=1 << 14).contains(*width))
        {
            return fail(format!("a width of {width}; 1 to {} are possible", 1 << 14));
        }
        if let Some(channels) = self
            .block_out_channels
            .iter()
            .find(|channels| self.norm_num_groups == 0 || !channels.is_multiple_of(self.norm_num_groups))
        {
            return fail(format!(
                "norm_num_groups is {}, which does not divide {channels} channels",
                self.norm_num_groups
            ));
        }
        Ok(())
    }
}

/// One level on the way down: residual blocks, each followed by attention where the level has it, then half resolution.
#[derive(Clone, Debug)]
struct DownBlock {
    resnets: Vec<ResnetBlock>,
    attentions: Vec<Attention>,
    downsample: Option<Downsample>,
}

/// One level on the way up: each residual block also gets the result of its counterpart on the way down.
#[derive(Clone, Debug)]
struct UpBlock {
    resnets: Vec<ResnetBlock>,
    attentions: Vec<Attention>,
    upsample: Option<Upsample>,
}

/// The network. See [`UNetConfig`].
#[derive(Clone, Debug)]
pub struct UNet {
    config: UNetConfig,
    time_embedding: TimestepEmbedding,
    conv_in: Conv2d,
    down_blocks: Vec<DownBlock>,
    mid_resnets: [ResnetBlock; 2],
    mid_attention: Option<Attention>,
    up_blocks: Vec<UpBlock>,
    conv_norm_out: GroupNorm,
    conv_out: Conv2d,
}

impl UNet {
    /// The network with its weights under `scope`. The last convolution starts at zero, so the first output is zero.
    ///
    /// # Errors
    /// [`Error::Config`] where the configuration is impossible.
    pub fn new(config: &UNetConfig, scope: &Scope) -> crate::Result<Self> {
        config.validate()?;
        let channels = &config.block_out_channels;
        let (first, last) = (channels[0], channels[channels.len() - 1]);
        let block = |scope: Scope, inputs: usize, outputs: usize| {
            ResnetBlock::new(&scope, inputs, outputs, config.norm_num_groups, config.embedding_dim)
        };
        let attention = |scope: Scope, width: usize| {
            let heads = if width.is_multiple_of(HEAD_WIDTH) { width / HEAD_WIDTH } else { 1 };
            Attention::new(&scope, width, heads, config.norm_num_groups)
        };

        // The channels of every result that a block on the way up will take again.
        let mut skips = vec![first];
        let mut width = first;
        let mut down_blocks = Vec::new();
        for (level, &outputs) in channels.iter().enumerate() {
            let scope = scope.sub("down_blocks").sub(level);
            let (mut resnets, mut attentions) = (Vec::new(), Vec::new());
            for layer in 0..config.layers_per_block {
                resnets.push(block(scope.sub("resnets").sub(layer), width, outputs)?);
                if config.attention[level] {
                    attentions.push(attention(scope.sub("attentions").sub(layer), outputs)?);
                }
                width = outputs;
                skips.push(width);
            }
            let downsample = match level + 1 < channels.len() {
                true => Some(Downsample::new(&scope.sub("downsamplers").sub(0), width)?),
                false => None,
            };
            if downsample.is_some() {
                skips.push(width);
            }
            down_blocks.push(DownBlock { resnets, attentions, downsample });
        }

        let mid = scope.sub("mid_block");
        let mid_resnet = |i: usize| block(mid.sub("resnets").sub(i), last, last);
        let mid_resnets = [mid_resnet(0)?, mid_resnet(1)?];
        let mid_attention = match config.attention.last() {
            Some(true) => Some(attention(mid.sub("attentions").sub(0), last)?),
            _ => None,
        };

        let mut up_blocks = Vec::new();
        for (i, (&outputs, &with_attention)) in channels.iter().zip(&config.attention).rev().enumerate() {
            let scope = scope.sub("up_blocks").sub(i);
            let (mut resnets, mut attentions) = (Vec::new(), Vec::new());
            for layer in 0..=config.layers_per_block {
                let skip = skips.pop().unwrap_or(0);
                resnets.push(block(scope.sub("resnets").sub(layer), width + skip, outputs)?);
                if with_attention {
                    attentions.push(attention(scope.sub("attentions").sub(layer), outputs)?);
                }
                width = outputs;
            }
            let upsample = match i + 1 < channels.len() {
                true => Some(Upsample::new(&scope.sub("upsamplers").sub(0), width)?),
                false => None,
            };
            up_blocks.push(UpBlock { resnets, attentions, upsample });
        }

        Ok(Self {
            config: config.clone(),
            time_embedding: TimestepEmbedding::new(&scope.sub("time_embedding"), first, config.embedding_dim)?,
            conv_in: Conv2d::new(&scope.sub("conv_in"), config.in_channels, first, 3, 1, 1)?,
            down_blocks,
            mid_resnets,
            mid_attention,
            up_blocks,
            conv_norm_out: GroupNorm::new(&scope.sub("conv_norm_out"), config.norm_num_groups, first, 1e-5)?,
            conv_out: Conv2d::zeroed(&scope.sub("conv_out"), first, config.out_channels, 3, 1, 1)?,
        })
    }

    /// The network's shape.
    pub fn config(&self) -> &UNetConfig {
        &self.config
    }

    /// `x` is `[batch, in_channels, height, width]`; `noise` `[batch]` is each image's noise level, EDM's
    /// `c_noise = ln(sigma) / 4` (Karras et al. 2022, table 1); `condition` `[batch, embedding_dim]` is added to the time
    /// embedding before its SiLU. The result is `[batch, out_channels, height, width]`.
    ///
    /// # Errors
    /// Height or width that is not a multiple of [`UNetConfig::size_multiple`], or shapes that do not agree.
    pub fn forward(&self, x: &Tensor, noise: &Tensor, condition: Option<&Tensor>) -> Result<Tensor> {
        let (batch, _, height, width) = x.dims4()?;
        let multiple = self.config.size_multiple();
        if !height.is_multiple_of(multiple) || !width.is_multiple_of(multiple) {
            candle_core::bail!("images of {width}x{height} do not fit this UNet: it needs multiples of {multiple}");
        }
        if noise.dims() != [batch] {
            candle_core::bail!("{batch} images need as many noise levels, not {:?}", noise.dims());
        }
        let mut embedding = self.time_embedding.forward(noise)?;
        if let Some(condition) = condition {
            embedding = embedding.add(condition)?;
        }
        let embedding = ops::silu(&embedding)?;

        let mut h = self.conv_in.forward(x)?;
        let mut skips = vec![h.clone()];
        for block in &self.down_blocks {
            for (i, resnet) in block.resnets.iter().enumerate() {
                h = resnet.forward(&h, &embedding)?;
                if let Some(attention) = block.attentions.get(i) {
                    h = attention.forward(&h)?;
                }
                skips.push(h.clone());
            }
            if let Some(downsample) = &block.downsample {
                h = downsample.forward(&h)?;
                skips.push(h.clone());
            }
        }

        h = self.mid_resnets[0].forward(&h, &embedding)?;
        if let Some(attention) = &self.mid_attention {
            h = attention.forward(&h)?;
        }
        h = self.mid_resnets[1].forward(&h, &embedding)?;

        for block in &self.up_blocks {
            for (i, resnet) in block.resnets.iter().enumerate() {
                if let Some(skip) = skips.pop() {
                    h = ops::concat_channels(&h, &skip)?;
                }
                h = resnet.forward(&h, &embedding)?;
                if let Some(attention) = block.attentions.get(i) {
                    h = attention.forward(&h)?;
                }
            }
            if let Some(upsample) = &block.upsample {
                h = upsample.forward(&h)?;
            }
        }
        self.conv_out.forward(&self.conv_norm_out.forward_silu(&h)?)
    }
}
