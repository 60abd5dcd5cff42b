//! Stable Diffusion 1, 2 and XL from the folders that diffusers writes and from single files: the networks, and prompts as
//! they see them.
//!
//! A [`ModelSource`] is a model on this machine: [`ModelFolder`] or [`ModelFile`] says what it is and whether it is whole,
//! [`hub`] where a model of the hub lies. [`Components`] loads the networks once. [`TextEncoders`] turns a [`Prompt`] into
//! what the denoising network sees, [`SizeConditioning`] the sizes that XL is told. [`StableDiffusion`] joins them and draws
//! images.

mod cache;
mod chunks;
mod components;
mod config;
mod control;
mod draw;
mod emphasis;
mod encode;
mod facts;
pub mod fetch;
mod files;
mod folder;
mod guidance;
pub mod hub;
mod index;
mod model;
mod network;
mod prompt;
mod published;
mod settings;
mod single_file;
mod sizes;
mod source;
mod start;

pub use components::{Additions, Components};
pub use config::{LoraConfig, Precision, StableDiffusionConfig, StatedPrediction, WordConfig};
pub use control::ControlConfig;
pub use draw::{Noise, Noises, Wanted};
pub use encode::{Conditioning, Embedded, TextEncoders};
pub use facts::{Distilled, Family, ModelFacts, Prediction};
pub use folder::ModelFolder;
pub use model::{PromptRequest, StableDiffusion, check_settings};
pub use network::{network_files, single_network};
pub use prompt::{LongPrompts, Prompt, PromptOptions};
pub use settings::{ControlSettings, DeepCache, DrawSettings};
pub use single_file::{FileShapes, ModelFile};
pub use sizes::{SizeConditioning, time_ids};
pub use source::ModelSource;
pub use start::Start;
