//! The configuration of an [`AutoencoderKL`](super::AutoencoderKL), as written and checked.

use std::path::Path;

use serde::{Deserialize, Serialize};

use super::super::config::{self, Activation, SampleSize, VaeDownBlock, VaeUpBlock, in_range, unsupported};
use super::super::plan::{self, AttentionPlan, BlockPlan, Level, MidPlan, NormPlan, ResnetStyle};
use crate::error::Result;

/// The widest layer that is built.
const WIDEST: usize = 1 << 16;
/// The most levels and residual blocks of a level.
const DEEPEST: usize = 64;
/// Of every normalisation.
const EPS: f64 = 1e-6;

/// `config.json` as diffusers writes it: its keys, its defaults.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[allow(missing_docs, reason = "the keys are diffusers' own and documented there")]
pub struct AutoencoderKLJson {
    pub in_channels: usize,
    pub out_channels: usize,
    pub down_block_types: Vec<VaeDownBlock>,
    pub up_block_types: Vec<VaeUpBlock>,
    pub block_out_channels: Vec<usize>,
    pub layers_per_block: usize,
    pub act_fn: Activation,
    pub latent_channels: usize,
    pub norm_num_groups: usize,
    pub sample_size: Option<SampleSize>,
    pub scaling_factor: f64,
    pub shift_factor: Option<f64>,
    pub latents_mean: Option<Vec<f64>>,
    pub latents_std: Option<Vec<f64>>,
    pub force_upcast: bool,
    pub use_quant_conv: bool,
    pub use_post_quant_conv: bool,
    pub mid_block_add_attention: bool,
}

impl Default for AutoencoderKLJson {
    fn default() -> Self {
        Self {
            in_channels: 3,
            out_channels: 3,
            down_block_types: vec![VaeDownBlock::DownEncoderBlock2D],
            up_block_types: vec![VaeUpBlock::UpDecoderBlock2D],
            block_out_channels: vec![64],
            layers_per_block: 1,
            act_fn: Activation::Silu,
            latent_channels: 4,
            norm_num_groups: 32,
            sample_size: Some(SampleSize::Square(32)),
            scaling_factor: 0.18215,
            shift_factor: None,
            latents_mean: None,
            latents_std: None,
            force_upcast: true,
            use_quant_conv: true,
            use_post_quant_conv: true,
            mid_block_add_attention: true,
        }
    }
}

/// A configuration that was checked, every block spelled out.
#[derive(Clone, Debug, PartialEq)]
pub struct AutoencoderKLConfig {
    pub(super) in_channels: usize,
    pub(super) out_channels: usize,
    pub(super) latent_channels: usize,
    /// Channels of the highest and of the lowest resolution.
    pub(super) channels: (usize, usize),
    pub(super) norm: NormPlan,
    pub(super) down: Vec<BlockPlan>,
    pub(super) mid: MidPlan,
    pub(super) up: Vec<BlockPlan>,
    pub(super) quant_conv: bool,
    pub(super) post_quant_conv: bool,
    /// What diffusion models see is `(latents - mean) * factor`, for each channel or for all.
    pub(super) mean: Vec<f64>,
    pub(super) factor: Vec<f64>,
    pub(super) force_upcast: bool,
    /// Height of the images it was trained on.
    pub(super) sample_size: Option<usize>,
}

impl AutoencoderKLConfig {
    /// From the text of a `config.json`.
    ///
    /// # Errors
    /// [`Error::Unsupported`](crate::Error::Unsupported) names a key, its value and what is supported.
    pub fn from_json(text: &str) -> Result<Self> {
        config::parse::<AutoencoderKLJson>(text, super::CLASS)?.resolve()
    }

    pub(super) fn read(path: &Path) -> Result<Self> {
        let located = |source| crate::Error::InFile { path: path.to_owned(), source: Box::new(source) };
        config::read::<AutoencoderKLJson>(path, super::CLASS)?.resolve().map_err(located)
    }

    /// Channels of the latents.
    pub fn latent_channels(&self) -> usize {
        self.latent_channels
    }

    /// How many pixels of an image, in height and in width, one latent stands for.
    pub fn downsampling(&self) -> usize {
        1 << self.down.len().saturating_sub(1).min(32)
    }

    /// Whether the weights are known to overflow `f16` activations: on devices that compute in the weights' number type,
    /// load them in another one.
    pub fn force_upcast(&self) -> bool {
        self.force_upcast
    }
}

impl AutoencoderKLJson {
    /// Checks every value and spells out the blocks.
    ///
    /// # Errors
    /// [`Error::Unsupported`](crate::Error::Unsupported) names a key, its value and what is supported.
    pub fn resolve(&self) -> Result<AutoencoderKLConfig> {
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
        let norm = NormPlan { groups: self.norm_num_groups, eps: EPS };
        let style = ResnetStyle { norm, time: None, divisor: 1.0 };
        let (first, last) = (self.block_out_channels[0], self.block_out_channels[levels - 1]);
        let mid_attention = match self.mid_block_add_attention {
            true => Some(AttentionPlan::pixels(last, None, Some(norm), 1.0)?),
            false => None,
        };
        let (mean, factor) = self.normalisation()?;
        Ok(AutoencoderKLConfig {
            in_channels: in_range("in_channels", self.in_channels, WIDEST)?,
            out_channels: in_range("out_channels", self.out_channels, WIDEST)?,
            latent_channels: in_range("latent_channels", self.latent_channels, WIDEST)?,
            channels: (first, last),
            norm,
            down: plan::down_blocks(style, first, &self.down_levels(norm)?)?,
            mid: MidPlan { resnet: style.block(last, last)?, attentions: vec![mid_attention] },
            up: plan::up_blocks(style, last, Vec::new(), &self.up_levels(norm)?)?,
            quant_conv: self.use_quant_conv,
            post_quant_conv: self.use_post_quant_conv,
            mean,
            factor,
            force_upcast: self.force_upcast,
            sample_size: match self.sample_size {
                Some(SampleSize::Square(side) | SampleSize::Rectangle([side, _])) => Some(side),
                None => None,
            },
        })
    }

    fn down_levels(&self, norm: NormPlan) -> Result<Vec<Level>> {
        let level = |(kind, channels): (&VaeDownBlock, &usize)| {
            let attention = match kind {
                VaeDownBlock::DownEncoderBlock2D => None,
                VaeDownBlock::AttnDownEncoderBlock2D => Some(AttentionPlan::pixels(*channels, None, Some(norm), 1.0)?),
            };
            Ok(Level { channels: *channels, attentions: vec![attention; self.layers_per_block], padding: Some(0) })
        };
        self.down_block_types.iter().zip(&self.block_out_channels).map(level).collect()
    }

    fn up_levels(&self, norm: NormPlan) -> Result<Vec<Level>> {
        let level = |(kind, channels): (&VaeUpBlock, &usize)| {
            let attention = match kind {
                VaeUpBlock::UpDecoderBlock2D => None,
                VaeUpBlock::AttnUpDecoderBlock2D => Some(AttentionPlan::pixels(*channels, None, Some(norm), 1.0)?),
            };
            Ok(Level { channels: *channels, attentions: vec![attention; self.layers_per_block + 1], padding: Some(1) })
        };
        self.up_block_types.iter().zip(self.block_out_channels.iter().rev()).map(level).collect()
    }

    /// Mean and factor of the latents, one for all channels or one for each.
    fn normalisation(&self) -> Result<(Vec<f64>, Vec<f64>)> {
        let scaling = self.scaling_factor;
        if !(scaling.is_finite() && scaling != 0.0) {
            return Err(unsupported("scaling_factor", &scaling, "a number other than 0"));
        }
        match (&self.latents_mean, &self.latents_std) {
            (None, None) => Ok((vec![self.shift_factor.unwrap_or(0.0)], vec![scaling])),
            (Some(mean), Some(std)) if mean.len() == self.latent_channels && std.len() == mean.len() => {
                if let Some(std) = std.iter().find(|std| !(std.is_finite() && **std != 0.0)) {
                    return Err(unsupported("latents_std", std, "numbers other than 0"));
                }
                if let Some(shift) = self.shift_factor {
                    return Err(unsupported("shift_factor", &shift, "null beside `latents_mean`"));
                }
                Ok((mean.clone(), std.iter().map(|std| scaling / std).collect()))
            }
            (mean, std) => {
                let supported =
                    format!("null, or {} numbers in both `latents_mean` and `latents_std`", self.latent_channels);
                Err(unsupported("latents_mean", &(mean, std), supported))
            }
        }
    }
}
