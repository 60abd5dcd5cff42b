//! ControlNets beside a model: where they lie, and whether they belong to it.

use evenset_nn::models::Variant;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::facts::ModelFacts;
use super::files::{read_json, unusable};
use super::hub::HubCache;
use super::network::{CONTROL, NetworkFolder};
use super::settings::ControlSettings;
use super::source::ModelSource;
use crate::error::{DiffusionError, Result};

/// Keys of which a ControlNet, a copy of half of a network, has the values of its model: each with diffusers' default.
const SHARED: [(&str, u64); 2] = [("cross_attention_dim", 1280), ("layers_per_block", 2)];

/// A network that makes images follow a picture: edges, depth, a pose (ControlNet, Zhang et al. 2023).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ControlConfig {
    /// A folder in diffusers' layout (with `config.json`), or a model of the Hugging Face hub, `owner/name` or
    /// `owner/name@revision`, in the local hub cache.
    pub path: String,
    /// Column of the dataset with the picture that belongs to the real image a candidate starts from: image files in the
    /// data, or paths of some. The column of the images themselves shows the network the guide (for `tile` and its like).
    pub column: String,
    /// What its effect is multiplied with. Default: 1.
    #[serde(default = "one")]
    pub weight: f64,
    /// The share of the steps after which it begins to act, 0 to 1. Default: 0.
    #[serde(default)]
    pub start: f64,
    /// The share of the steps after which it no longer acts, 0 to 1. Default: 1.
    #[serde(default = "one")]
    pub end: f64,
}

pub(super) fn one() -> f64 {
    1.0
}

impl ControlConfig {
    /// One that acts fully and all the way, with pictures that are in no column.
    pub fn at(path: impl Into<String>) -> Self {
        Self { path: path.into(), column: String::new(), weight: 1.0, start: 0.0, end: 1.0 }
    }

    /// What the loop of drawing is told.
    pub fn settings(&self) -> ControlSettings {
        ControlSettings { scale: self.weight, interval: [self.start, self.end] }
    }

    pub(super) fn validate(&self) -> Result<()> {
        let fail = |reason| Err(DiffusionError::Setting { key: "controls", reason });
        if self.path.is_empty() {
            return fail("`path` is missing; name a ControlNet's folder or a hub id such as owner/name".to_owned());
        }
        if !(-100.0..=100.0).contains(&self.weight) {
            return fail(format!(
                "a `weight` of {}; expected a number from -100 to 100, usually 0.5 to 1",
                self.weight
            ));
        }
        if !(0.0 <= self.start && self.start < self.end && self.end <= 1.0) {
            let (start, end) = (self.start, self.end);
            return fail(format!("from {start} to {end} of the steps; expected `start` below `end`, both from 0 to 1"));
        }
        Ok(())
    }

    /// The network's folder, checked to be whole and to belong to `model`, without reading its weights.
    pub(super) fn open(
        &self,
        model: &dyn ModelSource,
        cache: Option<&HubCache>,
        variant: Variant,
    ) -> Result<NetworkFolder> {
        let folder = NetworkFolder::open(&self.path, CONTROL, cache, variant)?;
        let config = folder.config();
        belongs(&read_json(&config)?, &model.unet_config()?, model.facts())
            .map_err(|reason| unusable(&config, format!("{reason}; {OTHER_BASE}")))?;
        Ok(folder)
    }
}

const OTHER_BASE: &str = "it was made for another base model: take a ControlNet for this one's family";

/// Whether the network of this configuration is a copy of that UNet's way down.
fn belongs(own: &Map<String, Value>, unet: &Map<String, Value>, model: &ModelFacts) -> std::result::Result<(), String> {
    let number =
        |config: &Map<String, Value>, (key, default): (&str, u64)| config.get(key).map_or(Some(default), Value::as_u64);
    for shared in SHARED {
        if let (Some(own), Some(its)) = (number(own, shared), number(unet, shared))
            && own != its
        {
            return Err(format!("`{}` is {own}, and the model's is {its}", shared.0));
        }
    }
    let widths = |config: &Map<String, Value>| config.get("block_out_channels").cloned();
    if let (Some(own), Some(its)) = (widths(own), widths(unet))
        && own != its
    {
        return Err(format!("`block_out_channels` are {own}, and the model's are {its}"));
    }
    let channels = number(own, ("in_channels", 4));
    match channels {
        Some(channels) if channels != model.latent_channels as u64 => {
            Err(format!("`in_channels` is {channels}, and latents have {}", model.latent_channels))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn impossible_settings_say_what_is_expected() {
        let read = |text: &str| serde_json::from_str::<ControlConfig>(text).unwrap();
        let plain = read(r#"{"path": "canny", "column": "edges"}"#);
        assert_eq!((plain.weight, plain.start, plain.end), (1.0, 0.0, 1.0));
        assert_eq!(plain.settings(), ControlSettings::default());
        assert!(plain.validate().is_ok());
        let why = |control: ControlConfig| control.validate().unwrap_err().to_string();
        assert!(why(ControlConfig { start: 0.5, end: 0.5, ..plain.clone() }).contains("`start` below `end`"));
        assert!(why(ControlConfig { weight: f64::NAN, ..plain.clone() }).contains("usually 0.5 to 1"));
        assert!(why(ControlConfig { path: String::new(), ..plain }).contains("owner/name"));
    }
}
