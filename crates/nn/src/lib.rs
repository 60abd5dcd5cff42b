//! Differentiable layers, fast CPU kernels, the UNet, optimiser and EMA.
//!
//! [`Weights`] names and initialises variables, [`layers`] and [`models`] are networks made of them, [`maps`] and [`ops`]
//! the operations underneath, [`optim`] and [`ema`] move the weights. Sampling and evaluation run inside [`no_grad`].
//!
//! Tensors are candle's. On the CPU in `f32` the expensive operations run this crate's own kernels, forward and
//! backward; on other devices they are made of candle's. On the CPU an image's result is the same bytes in any batch
//! and with any number of threads, and so is a gradient for any number of threads.

pub mod classifier;
pub mod ema;
mod error;
mod files;
mod grad_mode;
#[doc(hidden)]
pub mod gradcheck;
mod kernels;
pub mod layers;
pub mod lora;
pub mod maps;
mod memory;
pub mod models;
pub mod ops;
pub mod optim;
mod original;
mod param;
mod pickle;
pub mod single_file;
mod store;
mod threads;
mod weights;

pub use ema::Ema;
pub use error::{Error, Result};
pub use grad_mode::no_grad;
pub use lora::{LoraStack, Part};
pub use maps::Maps;
pub use memory::Recycler;
pub use models::{UNet, UNetConfig};
pub use optim::{AdamW, AdamWConfig};
pub use param::Param;
pub use single_file::{Base, Family, SingleFile};
pub use threads::stop_idle_spinning;
pub use weights::{Init, Scope, Weights};
