//! CLIP (Radford et al. 2021) and SigLIP (Zhai et al. 2023): texts and images in one space, read from folders that
//! transformers' `save_pretrained` writes.
//!
//! [`ClipModel`] is both transformers, [`ClipTextEncoder`] CLIP's text transformer alone (the text encoder of Stable
//! Diffusion), [`SafetyChecker`] the one that diffusers puts behind it. [`Tokenizer`] and [`ImageProcessor`] make the
//! inputs. Weights are safetensors files only.

mod activation;
mod added;
mod attention;
mod config;
mod encoder;
mod learned;
pub(super) mod load;
mod model;
mod preprocess;
mod resample;
mod safety;
mod siglip;
mod text;
mod tokens;
mod vision;
mod vocabulary;

pub use activation::Activation;
pub use config::{ClipConfig, Family, TextConfig, TransformerConfig, VisionConfig};
pub use learned::LearnedToken;
pub use model::ClipModel;
pub use preprocess::ImageProcessor;
pub use resample::{Filter, resample};
pub use safety::{SafetyChecker, SafetyScores};
pub use text::{ClipTextEncoder, TextAdditions, TextModel, TextOutput};
pub use tokens::{Filling, Tokenizer, Tokens};
pub use vision::{VisionModel, VisionOutput};
