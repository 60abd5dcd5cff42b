//! What can go wrong in this room, each with its remedy.

use std::path::PathBuf;

/// An error of weights, configurations, files or optimiser steps.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A tensor operation failed.
    #[error(transparent)]
    Tensor(#[from] candle_core::Error),
    /// One name is asked for with two shapes: two layers share a scope by mistake.
    #[error(
        "weight `{name}` exists with shape {found:?} but {expected:?} is asked for; give each layer a scope of its own"
    )]
    Shape {
        /// The weight's full name.
        name: String,
        /// The shape that is asked for.
        expected: Vec<usize>,
        /// The shape it has.
        found: Vec<usize>,
    },
    /// A network's configuration is impossible.
    #[error("impossible network: {0}")]
    Config(String),
    /// A key of a `config.json`, or its value, is none that this crate's networks have.
    #[error("`{key}`: {value} is not supported; supported: {supported}")]
    Unsupported {
        /// The key.
        key: String,
        /// The value, as JSON.
        value: String,
        /// What can stand there.
        supported: String,
    },
    /// Something is wrong with what a file says.
    #[error("{}: {source}", path.display())]
    InFile {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        source: Box<Error>,
    },
    /// A model's folder holds no weights that can be read.
    #[error("{}: no weights; expected diffusion_pytorch_model.safetensors, its .fp16 variant or a .safetensors.index.json \
             (weights in .bin files must be converted to safetensors)", dir.display())]
    NoWeights {
        /// The folder.
        dir: PathBuf,
    },
    /// A folder in transformers' layout holds no weights that can be read.
    #[error("{}: {reason}", dir.display())]
    NoModel {
        /// The folder.
        dir: PathBuf,
        /// What is there instead, and what to do about it.
        reason: String,
    },
    /// A tokenizer's files cannot be used.
    #[error("{}: {reason}", path.display())]
    Tokenizer {
        /// The file or folder.
        path: PathBuf,
        /// What is wrong with it, and what to do about it.
        reason: String,
    },
    /// A file is PyTorch's own format.
    #[error(
        "{}: a pickle, which is never read since it can run any program; convert it: python -c \"import sys, torch; from \
         safetensors.torch import save_file; w = torch.load(sys.argv[1], weights_only=True); w = w.get('state_dict', w); \
         save_file({{k: v.contiguous().clone() for k, v in w.items() if hasattr(v, 'shape')}}, sys.argv[2])\" OLD \
         NEW.safetensors",
        path.display()
    )]
    Pickle {
        /// The file.
        path: PathBuf,
    },
    /// A LoRA cannot be added to a network.
    #[error("{}: {reason}", path.display())]
    Lora {
        /// The LoRA's file.
        path: PathBuf,
        /// What is wrong with it, and what to do about it.
        reason: String,
    },
    /// Learned tokens cannot be added to a text encoder.
    #[error("{}: {reason}", path.display())]
    Learned {
        /// The file of the textual inversion.
        path: PathBuf,
        /// What is wrong with it, and what to do about it.
        reason: String,
    },
    /// A file holds none of the models that are read from single files.
    #[error("{}: {reason}", path.display())]
    SingleFile {
        /// The file.
        path: PathBuf,
        /// What it is instead, and what to do about it.
        reason: String,
    },
    /// A file cannot be read or written.
    #[error("{}: {source}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// A file is not a safetensors file, is cut off, or claims absurd sizes.
    #[error("{}: not a usable safetensors file ({reason}); write it again or name another file", path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// A file lacks a tensor that the network has.
    #[error("{}: tensor `{name}` is missing; the file belongs to another network", path.display())]
    Missing {
        /// The file.
        path: PathBuf,
        /// The tensor's name.
        name: String,
    },
    /// A file holds a tensor that the network lacks.
    #[error("{}: tensor `{name}` is not part of this network; the file belongs to another one", path.display())]
    Unexpected {
        /// The file.
        path: PathBuf,
        /// The tensor's name.
        name: String,
    },
    /// A tensor in a file has another shape or number type than the network's.
    #[error("{}: tensor `{name}` is {found} but the network needs {expected}", path.display())]
    Mismatch {
        /// The file.
        path: PathBuf,
        /// The tensor's name.
        name: String,
        /// What the network has.
        expected: String,
        /// What the file has.
        found: String,
    },
    /// The gradient's global norm is infinite or not a number. The step was skipped: weights and state are as before.
    #[error("the gradient's norm is {norm}; the step was skipped (lower the learning rate if this repeats)")]
    NonFiniteGradient {
        /// The norm that was found.
        norm: f64,
    },
    /// The progress asked for an end.
    #[error(transparent)]
    Interrupted(#[from] evenset_core::Interrupted),
}

/// A result of this room.
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl From<Error> for candle_core::Error {
    fn from(error: Error) -> Self {
        match error {
            Error::Tensor(error) => error,
            other => candle_core::Error::wrap(other),
        }
    }
}
