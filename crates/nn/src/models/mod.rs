//! The networks of Stable Diffusion and of diffusers' pixel-space models, read from folders that diffusers' own
//! `save_pretrained` writes: its `config.json`, its names of weights.
//!
//! A configuration is two types. The one as written ([`UNet2DConditionJson`] and its like) holds every key that diffusers
//! knows with diffusers' defaults; keys that are not known, and values that this crate cannot compute, are errors that
//! name both. Resolving it gives the checked one, in which every block is spelled out and diffusers' historical
//! readings of a key (`attention_head_dim`, above all) are settled.
//!
//! [`clip`] has CLIP and SigLIP, as transformers writes them. What [`LoraStack`](crate::LoraStack) holds is added to
//! weights while they are read, and [`SingleFile`](crate::SingleFile) reads them from one file with a whole model.
//!
//! [`UNet`] is the same network with an embedding of noise levels and no configuration of diffusers': the one that this
//! project trains itself.
//!
//! Tensors at the surface are `[batch, channels, height, width]`; inside, [`Maps`](crate::Maps) keeps them as the device
//! likes them. Each image has a timestep of its own.

mod attention;
mod autoencoder;
mod blocks;
pub mod clip;
mod config;
mod controlnet;
mod layers;
mod load;
mod plan;
pub(crate) mod published;
mod resnet;
mod time;
mod tiny;
mod unet;
mod unet_2d;
mod unet_condition;
mod weight_files;

pub use autoencoder::{AutoencoderKL, AutoencoderKLConfig, AutoencoderKLJson, Posterior, Tiling};
pub use blocks::DeepFeatures;
pub use config::{
    Activation, AdditionEmbedding, ClassEmbedding, MidBlock, OneOrMany, Resampling, SampleSize, TimeEmbedding,
    TimeScaleShift, UNetDownBlock, UNetUpBlock, VaeDownBlock, VaeUpBlock,
};
pub use controlnet::{ChannelOrder, ControlNetConfig, ControlNetJson, ControlNetModel, ControlResiduals};
pub use load::{LoadOptions, Variant};
pub use tiny::{AutoencoderTiny, AutoencoderTinyConfig, AutoencoderTinyJson};
pub use unet::{UNet, UNetConfig};
pub use unet_2d::{UNet2DConfig, UNet2DJson, UNet2DModel};
pub use unet_condition::{Conditions, UNet2DConditionConfig, UNet2DConditionJson, UNet2DConditionModel};
pub use weight_files::{Layout, weight_files, weight_names};
