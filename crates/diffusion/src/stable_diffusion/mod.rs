//! Stable Diffusion 1, 2 and XL from the folders that diffusers writes: the networks, and prompts as they see them.
//!
//! [`ModelFolder`] says what a folder holds and whether it is whole, [`hub`] where a model of the hub lies on this machine,
//! [`Components`] loads the networks once. [`TextEncoders`] turns a [`Prompt`] into what the denoising network sees,
//! [`SizeConditioning`] the sizes that XL is told.

mod cache;
mod chunks;
mod components;
mod emphasis;
mod encode;
mod facts;
mod files;
mod folder;
pub mod hub;
mod index;
mod prompt;
mod sizes;

pub use components::Components;
pub use encode::{Conditioning, Embedded, TextEncoders};
pub use facts::{Distilled, Family, ModelFacts, Prediction};
pub use folder::{ModelFolder, Scheduler};
pub use prompt::{LongPrompts, Prompt, PromptOptions};
pub use sizes::{SizeConditioning, time_ids};
