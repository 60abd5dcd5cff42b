//! Which files a network's weights lie in, found out before any of them is read.

use std::path::{Path, PathBuf};

use super::clip;
use super::load::{self, Variant};
use crate::error::Result;
use crate::files::WeightFiles;

/// Whose names a folder's weights have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Layout {
    /// `diffusion_pytorch_model.safetensors` and its like: a UNet, an autoencoder.
    Diffusers,
    /// `model.safetensors` and its like: a text encoder, a safety checker.
    Transformers,
}

/// The names that a network's weights can have, in the order in which they are looked for: whole files and indexes of shards,
/// those of `variant` first.
pub fn weight_names(layout: Layout, variant: Variant) -> impl Iterator<Item = &'static str> {
    let names = match layout {
        Layout::Diffusers => load::NAMES,
        Layout::Transformers => clip::load::NAMES,
    };
    variant.ordered(names).into_iter().flatten().copied()
}

/// The files that hold the weights of the network in `dir`, an index of shards first: those that loading it with the
/// same `variant` reads. Every file's header is read, so a file that is cut off is found out here.
///
/// # Errors
/// [`Error::NoWeights`](crate::Error::NoWeights), [`Error::NoModel`](crate::Error::NoModel),
/// [`Error::Malformed`](crate::Error::Malformed) and [`Error::File`](crate::Error::File), naming the folder or the file.
pub fn weight_files(dir: &Path, layout: Layout, variant: Variant) -> Result<Vec<PathBuf>> {
    let first = match layout {
        Layout::Diffusers => load::find(dir, variant)?,
        Layout::Transformers => clip::load::find(dir, variant)?,
    };
    let files = WeightFiles::open(&first)?.paths();
    let index = (!files.contains(&first)).then_some(first);
    Ok(index.into_iter().chain(files).collect())
}
