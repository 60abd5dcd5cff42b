//! The names that weights had in the first releases of Stable Diffusion (`CompVis/stable-diffusion`,
//! `Stability-AI/stablediffusion` and `generative-models`): single files still use them, and so do LoRAs of SDXL.
//!
//! A name of diffusers is turned into the original one, which is then looked up: the way back from diffusers'
//! `convert_ldm_unet_checkpoint`, `convert_ldm_vae_checkpoint`, `convert_ldm_clip_checkpoint` and
//! `convert_open_clip_checkpoint` (0.42).

mod clip;
mod unet;
mod vae;

use std::collections::BTreeSet;

pub(crate) use unet::modules as unet_modules;

/// Which of a file's numbers a name stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Take {
    /// All of them.
    Whole,
    /// One of three parts of the rows: queries, keys and values lie behind one another.
    Third(usize),
    /// All of them, rows for columns.
    Transposed,
}

/// Where a name of diffusers may lie.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    /// The name in the file.
    pub(crate) key: String,
    pub(crate) take: Take,
}

impl Place {
    pub(crate) fn whole(key: String) -> Self {
        Self { key, take: Take::Whole }
    }
}

/// One network within a file of original names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Original {
    /// What every name of this network starts with.
    prefix: &'static str,
    network: Network,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Network {
    UNet {
        /// Residual blocks of a level.
        layers: usize,
    },
    Vae {
        /// Resolutions.
        levels: usize,
    },
    /// A text encoder under transformers' own names.
    Clip,
    /// A text encoder under OpenCLIP's names; `unused` names what Stable Diffusion 2 has no use for.
    OpenClip { unused: Option<UnusedEnd> },
}

/// Stable Diffusion 2 reads the states before the last layer, and neither that layer nor the projection.
#[derive(Clone, Debug, PartialEq, Eq)]
struct UnusedEnd {
    last_layer: usize,
}

impl Original {
    /// The UNet among the names of a file.
    pub(crate) fn unet<'a>(names: impl Iterator<Item = &'a str>) -> Self {
        const PREFIX: &str = "model.diffusion_model.";
        Self { prefix: PREFIX, network: Network::UNet { layers: unet::layers(within(names, PREFIX)) } }
    }

    /// The autoencoder: in a whole model's file, or in a file of its own.
    pub(crate) fn vae<'a>(names: impl Iterator<Item = &'a str> + Clone) -> Self {
        let has = |prefix: &str| names.clone().any(|name| name.starts_with(prefix));
        let prefixes = ["first_stage_model.", "vae."];
        let prefix = prefixes.into_iter().find(|prefix| has(prefix)).unwrap_or("");
        Self { prefix, network: Network::Vae { levels: vae::levels(within(names, prefix)) } }
    }

    /// A text encoder under transformers' names behind `prefix`.
    pub(crate) fn clip(prefix: &'static str) -> Self {
        Self { prefix, network: Network::Clip }
    }

    /// A text encoder under OpenCLIP's names behind `prefix`, with its projection.
    pub(crate) fn open_clip(prefix: &'static str) -> Self {
        Self { prefix, network: Network::OpenClip { unused: None } }
    }

    /// The text encoder of Stable Diffusion 2 behind `prefix`: without its last layer and its projection.
    pub(crate) fn open_clip_without_end<'a>(prefix: &'static str, names: impl Iterator<Item = &'a str>) -> Self {
        let last_layer = clip::last_layer(within(names, prefix));
        Self { prefix, network: Network::OpenClip { unused: Some(UnusedEnd { last_layer }) } }
    }

    /// The places in which a name of diffusers may lie, the likeliest first.
    pub(crate) fn places(&self, name: &str) -> Vec<Place> {
        let places = match &self.network {
            Network::UNet { layers } => unet::names(name, *layers).into_iter().map(Place::whole).collect(),
            Network::Vae { levels } => vae::name(name, *levels).into_iter().map(Place::whole).collect(),
            Network::Clip => vec![Place::whole(name.to_owned())],
            Network::OpenClip { unused } => match unused.is_some() && name.starts_with("text_projection") {
                true => Vec::new(),
                false => clip::place(name).into_iter().collect::<Vec<_>>(),
            },
        };
        places.into_iter().map(|place| Place { key: format!("{}{}", self.prefix, place.key), ..place }).collect()
    }

    /// Whether a name of the file is that of a weight of this network.
    pub(crate) fn holds(&self, key: &str) -> bool {
        let Some(name) = key.strip_prefix(self.prefix) else { return false };
        match &self.network {
            Network::UNet { .. } | Network::Clip => true,
            Network::Vae { .. } => vae::holds(name),
            Network::OpenClip { unused } => clip::holds(name, unused.as_ref().map(|end| end.last_layer)),
        }
    }

    /// Residual blocks of a UNet's level; 0 for other networks.
    pub(crate) fn unet_layers(&self) -> usize {
        match self.network {
            Network::UNet { layers } => layers,
            _ => 0,
        }
    }
}

/// The names behind `prefix`, without it.
fn within<'a>(names: impl Iterator<Item = &'a str>, prefix: &str) -> impl Iterator<Item = &'a str> {
    names.filter_map(move |name| name.strip_prefix(prefix))
}

/// The different numbers that stand behind `start` in names.
fn numbers<'a>(names: impl Iterator<Item = &'a str>, start: &str) -> BTreeSet<usize> {
    names.filter_map(|name| name.strip_prefix(start)?.split('.').next()?.parse().ok()).collect()
}
