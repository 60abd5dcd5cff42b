//! Diffusion: noise levels, samplers, and the model that is trained on the dataset itself.
//!
//! [`edm`] holds the closed forms of Karras et al. 2022, [`sampler`] the solvers that walk from noise to an image, and
//! [`conditional`] the generator: a UNet in pixel space that takes one embedding for each attribute, so that it can
//! compose a combination that the dataset hardly has. [`http`] asks a hosted model instead.
//!
//! Nothing here draws noise of its own: training takes it from (seed, step), sampling from each image's own seed. So a
//! resumed training ends in the same bytes, and an image depends on its request and the model alone. What a hosted model
//! does is its own affair: its images say whether it was given their seeds.

pub mod conditional;
pub mod edm;
mod error;
pub mod http;
pub mod sampler;

pub use conditional::{
    AttributeVocabulary, ConditionalConfig, ConditionalModel, Generated, Guide, ImageRequest, Size, TrainingSet, train,
};
pub use error::{DiffusionError, Result};
pub use http::{HttpConfig, HttpGenerator};
pub use sampler::{Sampler, SamplerConfig};
