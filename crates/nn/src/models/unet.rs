//! A UNet in pixel space with diffusers' `UNet2DModel` weight names (Ho et al. 2020), conditioned on a noise level for
//! each image and, on request, on a vector for each image.

use candle_core::{Result, Tensor};
use serde::{Deserialize, Serialize};

use super::blocks::{Context, UNetBody};
use super::plan::{
    AttentionPlan, Level, MidPlan, NormPlan, ResnetStyle, TimePlan, UNetPlan, down_blocks, skips, up_blocks,
};
use crate::error::Error;
use crate::layers::TimestepEmbedding;
use crate::ops;
use crate::weights::{Init, Scope};

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

/// The network. See [`UNetConfig`].
#[derive(Clone, Debug)]
pub struct UNet {
    config: UNetConfig,
    time_embedding: TimestepEmbedding,
    body: UNetBody,
}

/// Side of the kernels of the first and the last convolution.
const KERNEL: usize = 3;

impl UNetConfig {
    /// The network block by block.
    fn plan(&self) -> crate::Result<UNetPlan> {
        let channels = &self.block_out_channels;
        let (first, last) = (channels[0], channels[channels.len() - 1]);
        let norm = NormPlan { groups: self.norm_num_groups, eps: 1e-5 };
        let time = TimePlan { width: self.embedding_dim, scale_shift: false };
        let style = ResnetStyle { norm, time: Some(time), divisor: 1.0 };
        let attention = |width: usize| {
            let head_width = if width.is_multiple_of(HEAD_WIDTH) { HEAD_WIDTH } else { width };
            AttentionPlan::pixels(width, Some(head_width), Some(norm), 1.0)
        };
        let level = |(width, with_attention): (&usize, &bool), layers: usize| {
            let attention = with_attention.then(|| attention(*width)).transpose()?;
            Ok(Level { channels: *width, attentions: vec![attention; layers], padding: Some(1) })
        };
        let levels = || channels.iter().zip(&self.attention);
        let down: Vec<Level> = levels().map(|of| level(of, self.layers_per_block)).collect::<crate::Result<_>>()?;
        let up: Vec<Level> =
            levels().rev().map(|of| level(of, self.layers_per_block + 1)).collect::<crate::Result<_>>()?;
        let down = down_blocks(style, first, &down)?;
        let middle = self.attention.last().copied().unwrap_or(false).then(|| attention(last)).transpose()?;
        Ok(UNetPlan {
            in_channels: self.in_channels,
            out_channels: self.out_channels,
            channels: first,
            kernels: (KERNEL, KERNEL),
            norm,
            centred: false,
            mid: Some(MidPlan { resnet: style.block(last, last)?, attentions: vec![middle] }),
            up: up_blocks(style, last, skips(first, &down), &up)?,
            down,
        })
    }
}

impl UNet {
    /// The network with its weights under `scope`. The last convolution starts at zero, so the first output is zero.
    ///
    /// # Errors
    /// [`Error::Config`] where the configuration is impossible.
    pub fn new(config: &UNetConfig, scope: &Scope) -> crate::Result<Self> {
        config.validate()?;
        let plan = config.plan()?;
        let conv_out = scope.sub("conv_out");
        // Whoever asks for a weight first decides how it starts.
        conv_out.get("weight", &[plan.out_channels, plan.channels, KERNEL, KERNEL], Init::Zeros)?;
        conv_out.get("bias", &[plan.out_channels], Init::Zeros)?;
        Ok(Self {
            time_embedding: TimestepEmbedding::new(&scope.sub("time_embedding"), plan.channels, config.embedding_dim)?,
            body: UNetBody::new(scope, &plan)?,
            config: config.clone(),
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
        self.body.forward(x, Context { time: Some(&ops::silu(&embedding)?), text: None })
    }
}
