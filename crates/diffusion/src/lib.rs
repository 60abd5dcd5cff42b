//! Diffusion: noise levels, samplers, and models: the one that is trained on the dataset itself, and those of others.
//!
//! [`edm`] holds the closed forms of Karras et al. 2022, [`sampler`] the solvers that walk from noise to an image, and
//! [`conditional`] the generator: a UNet in pixel space that takes one embedding for each attribute, so that it can
//! compose a combination that the dataset hardly has. [`stable_diffusion`] draws with text-to-image models that others
//! trained, on [`scheduler`]'s noise levels and solvers, which are diffusers'. [`http`] asks a hosted model instead.
//!
//! Nothing here draws noise of its own: training takes it from (seed, step), sampling from each image's own seed. So a
//! resumed training ends in the same bytes, and an image depends on its request and the model alone. What a hosted model
//! does is its own affair: its images say whether it was given their seeds.

pub mod conditional;
pub mod edm;
mod error;
pub mod http;
mod image;
pub mod sampler;
pub mod scheduler;
pub mod stable_diffusion;

pub use conditional::{
    AttributeVocabulary, ConditionalConfig, ConditionalModel, Guide, ImageRequest, Inversion, Size, TrainingSet, train,
};
pub use error::{DiffusionError, Result};
pub use http::{HttpConfig, HttpGenerator};
pub use image::Generated;
pub use sampler::{Sampler, SamplerConfig};
pub use scheduler::{Scheduler, SchedulerJson, SchedulerKind};
