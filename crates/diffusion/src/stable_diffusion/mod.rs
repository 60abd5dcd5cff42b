//! Stable Diffusion 1, 2 and XL from the folders that diffusers writes: the networks, and prompts as they see them.
//!
//! [`ModelFolder`] says what a folder holds and whether it is whole, [`hub`] where a model of the hub lies on this machine,
//! [`Components`] loads the networks once. [`TextEncoders`] turns a [`Prompt`] into what the denoising network sees,
//! [`SizeConditioning`] the sizes that XL is told. [`StableDiffusion`] joins them and draws images.

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
mod prompt;
mod settings;
mod sizes;
mod start;

pub use components::{Additions, Components};
pub use config::{LoraConfig, Precision, StableDiffusionConfig, WordConfig};
pub use control::{ControlConfig, is_control_net};
pub use draw::{Noise, Noises, Wanted};
pub use encode::{Conditioning, Embedded, TextEncoders};
pub use facts::{Distilled, Family, ModelFacts, Prediction};
pub use folder::{ModelFolder, Scheduler};
pub use model::{PromptRequest, StableDiffusion};
pub use prompt::{LongPrompts, Prompt, PromptOptions};
pub use settings::{ControlSettings, DrawSettings};
pub use sizes::{SizeConditioning, time_ids};
pub use start::Start;
