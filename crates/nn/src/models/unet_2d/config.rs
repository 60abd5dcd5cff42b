//! The configuration of a [`UNet2DModel`](super::UNet2DModel), as written and checked.

use std::path::Path;

use serde::{Deserialize, Serialize};

use super::super::config::{
    self, Activation, ClassEmbedding, MidBlock, Resampling, SampleSize, TimeEmbedding, TimeScaleShift, UNetDownBlock,
    UNetUpBlock, in_range, only, unsupported,
};
use super::super::plan::{self, AttentionPlan, Level, MidPlan, NormPlan, ResnetStyle, TimePlan, UNetPlan};
use super::super::time::{ClassPlan, FeaturesPlan};
use super::super::unet_condition::divisor;
use crate::error::Result;

/// The widest layer and the longest table that are built.
const WIDEST: usize = 1 << 16;
/// The most levels and residual blocks of a level.
const DEEPEST: usize = 64;

/// `config.json` as diffusers writes it: its keys, its defaults.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[allow(missing_docs, reason = "the keys are diffusers' own and documented there")]
pub struct UNet2DJson {
    pub sample_size: Option<SampleSize>,
    pub in_channels: usize,
    pub out_channels: usize,
    pub center_input_sample: bool,
    pub time_embedding_type: TimeEmbedding,
    pub time_embedding_dim: Option<usize>,
    pub freq_shift: f64,
    pub flip_sin_to_cos: bool,
    pub down_block_types: Vec<UNetDownBlock>,
    pub mid_block_type: Option<MidBlock>,
    pub up_block_types: Vec<UNetUpBlock>,
    pub block_out_channels: Vec<usize>,
    pub layers_per_block: usize,
    pub mid_block_scale_factor: f64,
    pub downsample_padding: usize,
    pub downsample_type: Resampling,
    pub upsample_type: Resampling,
    pub dropout: f64,
    pub act_fn: Activation,
    pub attention_head_dim: Option<usize>,
    pub norm_num_groups: usize,
    pub attn_norm_num_groups: Option<usize>,
    pub norm_eps: f64,
    pub resnet_time_scale_shift: TimeScaleShift,
    pub add_attention: bool,
    pub class_embed_type: Option<ClassEmbedding>,
    pub num_class_embeds: Option<usize>,
    pub num_train_timesteps: Option<usize>,
}

impl Default for UNet2DJson {
    fn default() -> Self {
        use UNetDownBlock::{AttnDownBlock2D, DownBlock2D};
        use UNetUpBlock::{AttnUpBlock2D, UpBlock2D};
        Self {
            sample_size: None,
            in_channels: 3,
            out_channels: 3,
            center_input_sample: false,
            time_embedding_type: TimeEmbedding::Positional,
            time_embedding_dim: None,
            freq_shift: 0.0,
            flip_sin_to_cos: true,
            down_block_types: vec![DownBlock2D, AttnDownBlock2D, AttnDownBlock2D, AttnDownBlock2D],
            mid_block_type: Some(MidBlock::UNetMidBlock2D),
            up_block_types: vec![AttnUpBlock2D, AttnUpBlock2D, AttnUpBlock2D, UpBlock2D],
            block_out_channels: vec![224, 448, 672, 896],
            layers_per_block: 2,
            mid_block_scale_factor: 1.0,
            downsample_padding: 1,
            downsample_type: Resampling::Conv,
            upsample_type: Resampling::Conv,
            dropout: 0.0,
            act_fn: Activation::Silu,
            attention_head_dim: Some(8),
            norm_num_groups: 32,
            attn_norm_num_groups: None,
            norm_eps: 1e-5,
            resnet_time_scale_shift: TimeScaleShift::Default,
            add_attention: true,
            class_embed_type: None,
            num_class_embeds: None,
            num_train_timesteps: None,
        }
    }
}

/// A configuration that was checked, every block spelled out.
#[derive(Clone, Debug, PartialEq)]
pub struct UNet2DConfig {
    pub(super) body: UNetPlan,
    pub(super) features: FeaturesPlan,
    /// The width of the time embedding.
    pub(super) embedding: usize,
    pub(super) class: Option<ClassPlan>,
    pub(super) dropout: f64,
}

impl UNet2DConfig {
    /// From the text of a `config.json`.
    ///
    /// # Errors
    /// [`Error::Unsupported`](crate::Error::Unsupported) names a key, its value and what is supported.
    pub fn from_json(text: &str) -> Result<Self> {
        config::parse::<UNet2DJson>(text, super::CLASS)?.resolve()
    }

    pub(super) fn read(path: &Path) -> Result<Self> {
        let located = |source| crate::Error::InFile { path: path.to_owned(), source: Box::new(source) };
        config::read::<UNet2DJson>(path, super::CLASS)?.resolve().map_err(located)
    }

    /// Channels of the images that come in.
    pub fn in_channels(&self) -> usize {
        self.body.in_channels
    }

    /// Channels of the images that go out.
    pub fn out_channels(&self) -> usize {
        self.body.out_channels
    }
}

impl UNet2DJson {
    /// Checks every value and spells out the blocks.
    ///
    /// # Errors
    /// [`Error::Unsupported`](crate::Error::Unsupported) names a key, its value and what is supported.
    pub fn resolve(&self) -> Result<UNet2DConfig> {
        let levels = in_range("down_block_types", self.down_block_types.len(), DEEPEST)?;
        let lengths =
            [("up_block_types", self.up_block_types.len()), ("block_out_channels", self.block_out_channels.len())];
        if let Some((key, found)) = lengths.into_iter().find(|(_, found)| *found != levels) {
            let supported = format!("{levels} entries, as many as `down_block_types`");
            return Err(unsupported(key, &format!("{found} entries"), supported));
        }
        for channels in &self.block_out_channels {
            in_range("block_out_channels", *channels, WIDEST)?;
        }
        in_range("layers_per_block", self.layers_per_block, DEEPEST)?;
        only("downsample_padding", &self.downsample_padding, &[0, 1])?;
        let first = self.block_out_channels[0];
        let embedding = match self.time_embedding_dim {
            Some(width) => in_range("time_embedding_dim", width, WIDEST)?,
            None => 4 * first,
        };
        Ok(UNet2DConfig {
            body: self.body(levels, embedding)?,
            features: self.features(first)?,
            embedding,
            class: self.class()?,
            dropout: self.dropout,
        })
    }

    fn features(&self, first: usize) -> Result<FeaturesPlan> {
        /// diffusers' spread of the random frequencies.
        const SCALE: f32 = 16.0;
        match (self.time_embedding_type, self.num_train_timesteps) {
            (TimeEmbedding::Positional, _) if self.freq_shift < (first / 2) as f64 => {
                Ok(FeaturesPlan::Positional { width: first, flip: self.flip_sin_to_cos, shift: self.freq_shift })
            }
            (TimeEmbedding::Positional, _) => {
                Err(unsupported("freq_shift", &self.freq_shift, format!("less than half the {first} features")))
            }
            // `flip_sin_to_cos` does not reach this one in diffusers either.
            (TimeEmbedding::Fourier, _) => {
                Ok(FeaturesPlan::Fourier { width: 2 * first, flip: false, log: true, scale: SCALE })
            }
            (TimeEmbedding::Learned, Some(rows)) => {
                Ok(FeaturesPlan::Learned { rows: in_range("num_train_timesteps", rows, 1 << 24)?, width: first })
            }
            (TimeEmbedding::Learned, none) => {
                Err(unsupported("num_train_timesteps", &none, "a number, where `time_embedding_type` is \"learned\""))
            }
        }
    }

    fn class(&self) -> Result<Option<ClassPlan>> {
        Ok(match (self.class_embed_type, self.num_class_embeds) {
            (None, Some(classes)) => {
                Some(ClassPlan::Table { classes: in_range("num_class_embeds", classes, 1 << 24)? })
            }
            (None, None) => None,
            (Some(ClassEmbedding::Timestep), _) => Some(ClassPlan::Timestep),
            (Some(ClassEmbedding::Identity), _) => Some(ClassPlan::Identity),
            (Some(other), _) => {
                return Err(unsupported("class_embed_type", &other, "null, \"timestep\" or \"identity\""));
            }
        })
    }

    fn body(&self, levels: usize, embedding: usize) -> Result<UNetPlan> {
        let norm = NormPlan { groups: self.norm_num_groups, eps: self.norm_eps };
        let scale_shift = self.resnet_time_scale_shift == TimeScaleShift::ScaleShift;
        let style = ResnetStyle { norm, time: Some(TimePlan { width: embedding, scale_shift }), divisor: 1.0 };
        let channels = &self.block_out_channels;
        let (first, last) = (channels[0], channels[levels - 1]);
        let down: Vec<Level> = self.down_levels(norm)?;
        let down = plan::down_blocks(style, first, &down)?;
        let up = plan::up_blocks(style, last, plan::skips(first, &down), &self.up_levels(norm)?)?;
        Ok(UNetPlan {
            in_channels: in_range("in_channels", self.in_channels, WIDEST)?,
            out_channels: in_range("out_channels", self.out_channels, WIDEST)?,
            channels: first,
            kernels: (3, 3),
            norm: norm.of(first)?,
            centred: self.center_input_sample,
            down,
            mid: self.mid(last, style)?,
            up,
        })
    }

    fn down_levels(&self, norm: NormPlan) -> Result<Vec<Level>> {
        use UNetDownBlock::{AttnDownBlock2D, CrossAttnDownBlock2D, DownBlock2D, ResnetDownsampleBlock2D};
        let level = |(kind, channels): (&UNetDownBlock, &usize)| {
            let attention = match kind {
                DownBlock2D | ResnetDownsampleBlock2D => None,
                AttnDownBlock2D => Some(self.pixels(*channels, norm)?),
                CrossAttnDownBlock2D => {
                    let supported = "\"DownBlock2D\", \"AttnDownBlock2D\" or \"ResnetDownsampleBlock2D\"";
                    return Err(unsupported("down_block_types", kind, supported));
                }
            };
            let by_resnet = match kind {
                AttnDownBlock2D => self.downsample_type == Resampling::Resnet,
                other => *other == ResnetDownsampleBlock2D,
            };
            let padding = (!by_resnet).then_some(self.downsample_padding);
            Ok(Level { channels: *channels, attentions: vec![attention; self.layers_per_block], padding })
        };
        self.down_block_types.iter().zip(&self.block_out_channels).map(level).collect()
    }

    fn up_levels(&self, norm: NormPlan) -> Result<Vec<Level>> {
        use UNetUpBlock::{AttnUpBlock2D, CrossAttnUpBlock2D, ResnetUpsampleBlock2D, UpBlock2D};
        let level = |(kind, channels): (&UNetUpBlock, &usize)| {
            let attention = match kind {
                UpBlock2D | ResnetUpsampleBlock2D => None,
                AttnUpBlock2D => Some(self.pixels(*channels, norm)?),
                CrossAttnUpBlock2D => {
                    let supported = "\"UpBlock2D\", \"AttnUpBlock2D\" or \"ResnetUpsampleBlock2D\"";
                    return Err(unsupported("up_block_types", kind, supported));
                }
            };
            let by_resnet = match kind {
                AttnUpBlock2D => self.upsample_type == Resampling::Resnet,
                other => *other == ResnetUpsampleBlock2D,
            };
            let padding = (!by_resnet).then_some(1);
            Ok(Level { channels: *channels, attentions: vec![attention; self.layers_per_block + 1], padding })
        };
        self.up_block_types.iter().zip(self.block_out_channels.iter().rev()).map(level).collect()
    }

    /// Attention of a level; `attention_head_dim` is the width of a head here, as it says.
    fn pixels(&self, channels: usize, norm: NormPlan) -> Result<AttentionPlan> {
        AttentionPlan::pixels(channels, self.attention_head_dim, Some(norm), 1.0)
    }

    fn mid(&self, channels: usize, style: ResnetStyle) -> Result<Option<MidPlan>> {
        match self.mid_block_type {
            None => return Ok(None),
            Some(MidBlock::UNetMidBlock2D) => {}
            Some(other) => return Err(unsupported("mid_block_type", &other, "null or \"UNetMidBlock2D\"")),
        }
        let style = ResnetStyle { divisor: divisor(self.mid_block_scale_factor)?, ..style };
        // With scale and shift, diffusers leaves out the attention's normalisation unless it is asked for.
        let groups = match self.resnet_time_scale_shift {
            TimeScaleShift::Default => Some(self.attn_norm_num_groups.unwrap_or(self.norm_num_groups)),
            TimeScaleShift::ScaleShift => self.attn_norm_num_groups,
        };
        let norm = groups.map(|groups| NormPlan { groups, eps: self.norm_eps });
        let attention = match self.add_attention {
            true => Some(AttentionPlan::pixels(channels, self.attention_head_dim, norm, style.divisor)?),
            false => None,
        };
        Ok(Some(MidPlan { resnet: style.block(channels, channels)?, attentions: vec![attention] }))
    }
}
