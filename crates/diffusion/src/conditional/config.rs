//! The settings of a conditional model and of its training.

use std::fmt;

use evenset_nn::UNetConfig;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::error::{DiffusionError, Result};

/// Groups of channels that are normalised together.
const NORM_GROUPS: usize = 8;

/// How large the network is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Size {
    /// A few hundred thousand weights on patches of 2x2 pixels: small images, minutes on a laptop.
    Tiny,
    /// About a million weights at full resolution: small images, an hour on a laptop.
    #[default]
    Small,
    /// Several million weights with attention: for a GPU, or a night on a CPU.
    Base,
}

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Tiny => "tiny",
            Self::Small => "small",
            Self::Base => "base",
        })
    }
}

impl Size {
    fn default_patch(self) -> usize {
        match self {
            Self::Tiny => 2,
            Self::Small | Self::Base => 1,
        }
    }

    fn default_channels(self) -> Vec<usize> {
        match self {
            Self::Tiny => vec![32, 48],
            Self::Small => vec![32, 64, 64],
            Self::Base => vec![64, 128, 192],
        }
    }

    fn layers(self) -> usize {
        match self {
            Self::Tiny | Self::Small => 1,
            Self::Base => 2,
        }
    }

    /// Whether the level with this number, of so many, has attention.
    fn attention(self, level: usize, levels: usize) -> bool {
        match self {
            Self::Tiny => false,
            Self::Small => level == 2 && level + 1 == levels,
            Self::Base => level > 0,
        }
    }

    fn embedding_dim(self) -> usize {
        match self {
            Self::Tiny => 96,
            Self::Small => 128,
            Self::Base => 256,
        }
    }

    fn default_steps(self) -> u64 {
        match self {
            Self::Tiny => 1800,
            Self::Small => 6000,
            Self::Base => 30_000,
        }
    }

    fn default_learning_rate(self) -> f64 {
        match self {
            Self::Tiny => 5e-3,
            Self::Small => 2e-3,
            Self::Base => 4e-4,
        }
    }
}

/// A diffusion model of label and attributes, trained on the dataset itself.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct ConditionalConfig {
    /// Size of the network: tiny (minutes on a laptop), small (an hour), base (for a GPU). Default: small.
    pub size: Size,
    /// Channels of each level of the network; every further level halves height and width. Default: what `size` says.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub channels: Option<Vec<usize>>,
    /// Side of the square of pixels that is one pixel to the network: 1 is the image as it is, 2 costs a quarter.
    /// Default: 2 for tiny, else 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub patch: Option<usize>,
    /// Optimiser steps. Default: 1800 for tiny, 6000 for small, 30000 for base.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub steps: Option<u64>,
    /// Images per step. Default: 32.
    pub batch: usize,
    /// Highest learning rate; it falls to zero along a cosine. Default: 0.005 for tiny, 0.002 for small, 0.0004 for base.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub learning_rate: Option<f64>,
    /// Steps in which the learning rate rises to its highest. Default: 100.
    pub warmup: u64,
    /// Decay of the moving average of the weights that images are drawn with. Default: 0.999.
    pub ema: f64,
    /// How strongly small groups are drawn more often: an image weighs (size of its group)^-balance. 0 leaves the dataset
    /// as it is, 1 draws every group equally often. Default: 0.5.
    pub balance: f64,
    /// Chance that an attribute is hidden from the network in a training step, each on its own. Default: 0.2.
    pub attribute_dropout: f64,
    /// Whether images are mirrored left to right at random; wrong for text and for left and right hands. Default: false.
    pub flip: bool,
    /// Longest side, in pixels, of the images that the model learns and draws; larger ones are scaled down first.
    /// Default: the dataset's own size, at most 64.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub resolution: Option<u32>,
    /// Steps between checkpoints, from which an interrupted training goes on. Default: 250.
    pub checkpoint_every: u64,
}

impl Default for ConditionalConfig {
    fn default() -> Self {
        Self {
            size: Size::default(),
            channels: None,
            patch: None,
            steps: None,
            batch: 32,
            learning_rate: None,
            warmup: 100,
            ema: 0.999,
            balance: 0.5,
            attribute_dropout: 0.2,
            flip: false,
            resolution: None,
            checkpoint_every: 250,
        }
    }
}

impl ConditionalConfig {
    /// Side of the square of pixels that is one pixel to the UNet.
    pub(crate) fn patch(&self) -> usize {
        self.patch.unwrap_or(self.size.default_patch())
    }

    /// The UNet for images of this many channels, after patches are folded into channels; it has two heads.
    pub(crate) fn unet(&self, channels: usize) -> UNetConfig {
        let folded = channels * self.patch() * self.patch();
        let levels = self.channels.clone().unwrap_or_else(|| self.size.default_channels());
        UNetConfig {
            in_channels: folded,
            out_channels: 2 * folded,
            layers_per_block: self.size.layers(),
            norm_num_groups: NORM_GROUPS,
            attention: (0..levels.len()).map(|level| self.size.attention(level, levels.len())).collect(),
            embedding_dim: self.size.embedding_dim(),
            block_out_channels: levels,
        }
    }

    /// Height and width of what the network sees are multiples of this; images are padded to it.
    pub(crate) fn multiple(&self) -> usize {
        self.patch() * self.unet(1).size_multiple()
    }

    /// Optimiser steps of the whole training.
    pub fn steps(&self) -> u64 {
        self.steps.unwrap_or(self.size.default_steps())
    }

    /// The highest learning rate.
    pub fn learning_rate(&self) -> f64 {
        self.learning_rate.unwrap_or(self.size.default_learning_rate())
    }

    /// The learning rate of a step (from 0): a linear rise over `warmup`, times half a cosine down to zero at the end.
    pub(crate) fn learning_rate_at(&self, step: u64) -> f64 {
        let rise = ((step + 1) as f64 / self.warmup.max(1) as f64).min(1.0);
        let done = step as f64 / self.steps() as f64;
        self.learning_rate() * rise * 0.5 * (1.0 + (std::f64::consts::PI * done).cos())
    }

    /// Says which setting is impossible.
    ///
    /// # Errors
    /// [`DiffusionError::Setting`] names the key, its value and what it must be.
    pub fn validate(&self) -> Result<()> {
        let check = |fine: bool, key: &'static str, reason: String| match fine {
            true => Ok(()),
            false => Err(DiffusionError::Setting { key, reason }),
        };
        let (steps, rate) = (self.steps(), self.learning_rate());
        check((1..=16).contains(&self.patch()), "patch", format!("{} is not between 1 and 16", self.patch()))?;
        let levels = self.unet(1).block_out_channels;
        let fine = |channels: &usize| (NORM_GROUPS..=2048).contains(channels) && channels.is_multiple_of(NORM_GROUPS);
        check(
            (1..=6).contains(&levels.len()) && levels.iter().all(fine),
            "channels",
            format!("{levels:?} is not a list of 1 to 6 multiples of {NORM_GROUPS} up to 2048"),
        )?;
        check((1..=100_000_000).contains(&steps), "steps", format!("{steps} is not between 1 and 100000000"))?;
        check((1..=65_536).contains(&self.batch), "batch", format!("{} is not between 1 and 65536", self.batch))?;
        check(rate > 0.0 && rate <= 1.0, "learning_rate", format!("{rate} is not above 0 and at most 1"))?;
        check((0.0..1.0).contains(&self.ema), "ema", format!("{} is not from 0 to below 1", self.ema))?;
        check((0.0..=1.0).contains(&self.balance), "balance", format!("{} is not between 0 and 1", self.balance))?;
        let dropout = self.attribute_dropout;
        check((0.0..1.0).contains(&dropout), "attribute_dropout", format!("{dropout} is not from 0 to below 1"))?;
        let side = self.resolution.unwrap_or(64);
        check((8..=1024).contains(&side), "resolution", format!("{side} is not between 8 and 1024 pixels"))?;
        check(self.checkpoint_every > 0, "checkpoint_every", "0 is not a number of steps; give 1 or more".into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_learning_rate_rises_over_the_warm_up_and_falls_to_zero() {
        let config = ConditionalConfig {
            steps: Some(1000),
            warmup: 10,
            learning_rate: Some(1e-3),
            ..ConditionalConfig::default()
        };
        assert!((config.learning_rate_at(0) - 1e-4).abs() < 1e-9);
        assert!((config.learning_rate_at(500) - 5e-4).abs() < 1e-9);
        assert!(config.learning_rate_at(999) < 1e-8);
    }

    #[test]
    fn a_configuration_reads_with_defaults_and_refuses_what_it_does_not_know() {
        let read = |text: &str| serde_json::from_str::<ConditionalConfig>(text);
        let tiny = read(r#"{"size":"tiny"}"#).unwrap();
        assert_eq!((tiny.size.to_string().as_str(), tiny.batch, tiny.steps()), ("tiny", 32, tiny.size.default_steps()));
        assert!(read(r#"{"sizes":"tiny"}"#).unwrap_err().to_string().contains("attribute_dropout"));
        assert!(read(r#"{"size":"huge"}"#).unwrap_err().to_string().contains("base"));
    }

    #[test]
    fn impossible_settings_are_named_with_their_value() {
        let said =
            |text: &str| serde_json::from_str::<ConditionalConfig>(text).unwrap().validate().unwrap_err().to_string();
        assert!(said(r#"{"steps":0}"#).starts_with("`steps`: 0 is not"));
        assert!(said(r#"{"patch":0}"#).starts_with("`patch`: 0 is not"));
        assert!(said(r#"{"channels":[12]}"#).starts_with("`channels`: [12] is not"));
        assert!(said(r#"{"channels":[]}"#).starts_with("`channels`: [] is not"));
        assert!(said(r#"{"batch":0}"#).starts_with("`batch`: 0 is not"));
        assert!(said(r#"{"learning_rate":0}"#).starts_with("`learning_rate`: 0 is not"));
        assert!(said(r#"{"ema":1}"#).starts_with("`ema`: 1 is not"));
        assert!(said(r#"{"balance":2}"#).starts_with("`balance`: 2 is not"));
        assert!(said(r#"{"attribute_dropout":1}"#).starts_with("`attribute_dropout`: 1 is not"));
        assert!(said(r#"{"resolution":4}"#).starts_with("`resolution`: 4 is not"));
        assert!(said(r#"{"checkpoint_every":0}"#).starts_with("`checkpoint_every`: 0 is not"));
        assert!(ConditionalConfig::default().validate().is_ok());
    }

    #[test]
    fn every_size_takes_images_of_28_pixels_without_padding() {
        for size in [Size::Tiny, Size::Small, Size::Base] {
            let config = ConditionalConfig { size, ..ConditionalConfig::default() };
            assert_eq!(28 % config.multiple(), 0, "{size}");
            assert!(config.unet(3).validate().is_ok(), "{size}");
        }
    }
}
