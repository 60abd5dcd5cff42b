//! Where a model's weights lie in a folder that transformers wrote.

use std::path::{Path, PathBuf};

use candle_core::Device;

use crate::error::{Error, Result};
use crate::files::WeightFiles;
use crate::models::load::{LoadOptions, Variant, built};
use crate::weights::Scope;

/// The names that transformers gives a model's weights: whole, and in `f16`; each in the order of preference.
pub(in super::super) const NAMES: [&[&str]; 2] = [
    &["model.safetensors", "model.safetensors.index.json"],
    &["model.fp16.safetensors", "model.safetensors.index.fp16.json", "model.fp16.safetensors.index.json"],
];

/// Names of weights in a form that is never read, since reading it can run any program.
const PICKLES: [&str; 3] = ["pytorch_model.bin", "pytorch_model.bin.index.json", "pytorch_model.fp16.bin"];

/// Builds a model from the weights in `dir`: `build` must ask for every tensor that the files hold.
pub(super) fn weights<T>(
    dir: &Path,
    device: &Device,
    options: LoadOptions,
    build: impl FnOnce(&Scope) -> Result<T>,
) -> Result<T> {
    built(open(dir, options.variant)?, device, options, 0.0, build)
}

/// The files of a model of transformers in `dir`.
pub(super) fn open(dir: &Path, variant: Variant) -> Result<WeightFiles> {
    WeightFiles::open(&find(dir, variant)?)
}

/// The scope of a model's inside: newer files leave the name of a model that stands alone away.
pub(super) fn inner(scope: &Scope, name: &str) -> Scope {
    let outer = scope.sub(name);
    match outer.has("encoder.layers.0.layer_norm1.weight") || !scope.has("encoder.layers.0.layer_norm1.weight") {
        true => outer,
        false => scope.clone(),
    }
}

pub(in super::super) fn find(dir: &Path, variant: Variant) -> Result<PathBuf> {
    let there = |name: &&str| dir.join(name).is_file();
    if let Some(path) = variant.find(dir, NAMES) {
        return Ok(path);
    }
    let reason = match PICKLES.iter().find(|name| there(name)) {
        Some(name) => format!(
            "the weights are {name}, a pickle, which is never read since it can run any program; convert it: python -c \
             \"import torch; from safetensors.torch import save_file; weights = torch.load('{name}', \
             weights_only=True); save_file({{k: v.contiguous().clone() for k, v in weights.items()}}, \
             'model.safetensors')\""
        ),
        None if dir.is_dir() => {
            "no weights; expected model.safetensors, its .fp16 variant or model.safetensors.index.json".to_owned()
        }
        None => "there is no such folder; name a folder with config.json and model.safetensors".to_owned(),
    };
    Err(Error::NoModel { dir: dir.to_owned(), reason })
}
