//! Where a model's files lie in a folder, and how its weights are taken over.

use std::path::{Path, PathBuf};

use candle_core::{DType, Device};

use super::config::unsupported;
use crate::error::{Error, Result};
use crate::files::WeightFiles;
use crate::lora::{LoraStack, Part};
use crate::weights::{Scope, Weights};

/// The names that diffusers gives a model's weights: whole, and in `f16`; each in the order of preference.
pub(super) const NAMES: [&[&str]; 2] = [
    &["diffusion_pytorch_model.safetensors", "diffusion_pytorch_model.safetensors.index.json"],
    &[
        "diffusion_pytorch_model.fp16.safetensors",
        "diffusion_pytorch_model.safetensors.index.fp16.json",
        "diffusion_pytorch_model.fp16.safetensors.index.json",
    ],
];

/// Which file is read where a folder has weights twice: diffusers' `variant`. Where it has one of them, that one is read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Variant {
    /// The file without a variant's name.
    #[default]
    Whole,
    /// The file with `.fp16` in its name: half the bytes to read.
    Fp16,
}

impl Variant {
    /// The first name of a file in `dir`, of a list for each variant.
    pub(super) fn find(self, dir: &Path, names: [&[&str]; 2]) -> Option<PathBuf> {
        self.ordered(names).concat().into_iter().map(|name| dir.join(name)).find(|path| path.is_file())
    }

    /// A list for each variant, the preferred one first.
    pub(super) fn ordered<T>(self, [whole, half]: [T; 2]) -> [T; 2] {
        match self {
            Self::Whole => [whole, half],
            Self::Fp16 => [half, whole],
        }
    }
}

/// How weights from a file are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LoadOptions {
    /// The number type of the weights of convolutions and linear maps: `F32`, or `F16` or `BF16` at half the memory.
    /// Files may hold any of the three. On the CPU, everything else is computed in `f32`.
    pub dtype: DType,
    /// Whether the weights are variables that training moves (`F32` only) or constants.
    pub trainable: bool,
    /// Which file is read where a folder has two.
    pub variant: Variant,
}

impl Default for LoadOptions {
    /// Constants in `f32`.
    fn default() -> Self {
        Self { dtype: DType::F32, trainable: false, variant: Variant::Whole }
    }
}

impl LoadOptions {
    /// The same, with weights in `dtype`.
    #[must_use]
    pub fn with_dtype(self, dtype: DType) -> Self {
        Self { dtype, ..self }
    }

    /// The same, with another preference among a folder's files.
    #[must_use]
    pub fn with_variant(self, variant: Variant) -> Self {
        Self { variant, ..self }
    }

    /// Variables in `f32`, for training.
    pub fn trainable() -> Self {
        Self { trainable: true, ..Self::default() }
    }

    /// Refuses what no network can do.
    pub(super) fn check(self) -> Result<()> {
        let Self { dtype, trainable, .. } = self;
        if matches!((dtype, trainable), (DType::F32, _) | (DType::F16 | DType::BF16, false)) {
            return Ok(());
        }
        let wanted = if trainable { "train" } else { "run" };
        Err(Error::Config(format!("no network can {wanted} in {dtype:?}: f32 always works, f16 and bf16 only run")))
    }
}

/// Builds a model from the weights in `dir`: `build` must ask for every tensor that the files hold.
pub(super) fn weights<T>(
    dir: &Path,
    device: &Device,
    options: LoadOptions,
    dropout: f64,
    build: impl FnOnce(&Scope) -> Result<T>,
) -> Result<T> {
    built(open(dir, options.variant)?, device, options, dropout, build)
}

/// The same, with the changes of `loras` to a UNet.
pub(super) fn unet_weights<T>(
    files: WeightFiles,
    loras: &LoraStack,
    device: &Device,
    options: LoadOptions,
    dropout: f64,
    build: impl FnOnce(&Scope) -> Result<T>,
) -> Result<T> {
    let merger = loras.merger(Part::UNet, files.unet_layers());
    built(files.with_merger(merger), device, options, dropout, build)
}

/// Builds a model from weights in files that are open.
pub(super) fn built<T>(
    files: WeightFiles,
    device: &Device,
    options: LoadOptions,
    dropout: f64,
    build: impl FnOnce(&Scope) -> Result<T>,
) -> Result<T> {
    let LoadOptions { dtype, trainable, .. } = options;
    options.check()?;
    if trainable && dropout != 0.0 {
        return Err(unsupported("dropout", &dropout, "0.0 in training (without training, dropout has no effect)"));
    }
    let weights = Weights::from_files(files, device, dtype, trainable);
    let model = build(&weights.scope(""))?;
    weights.finish()?;
    Ok(model)
}

/// The files of a model of diffusers in `dir`.
pub(super) fn open(dir: &Path, variant: Variant) -> Result<WeightFiles> {
    WeightFiles::open(&find(dir, variant)?)
}

pub(super) fn find(dir: &Path, variant: Variant) -> Result<PathBuf> {
    variant.find(dir, NAMES).ok_or_else(|| Error::NoWeights { dir: dir.to_owned() })
}
