//! The denoising UNet of Stable Diffusion 1, 2 and XL: diffusers' `UNet2DConditionModel` (Rombach et al. 2022, Podell et
//! al. 2023).

mod config;
mod embedding;

use std::path::Path;

use candle_core::{DType, Device, Result, Tensor, bail};

use super::blocks::{Context, DeepFeatures, UNetBody};
use super::controlnet::ControlResiduals;
use super::load::{self, LoadOptions};
use crate::lora::LoraStack;
use crate::ops;
use crate::single_file::SingleFile;
use crate::weights::{Scope, Weights};

pub(super) use config::divisor;
pub use config::{UNet2DConditionConfig, UNet2DConditionJson};
pub(super) use embedding::ConditionEmbedding;

const CLASS: &str = "UNet2DConditionModel";

/// What a denoising step sees beside latents and timesteps. Which of them a network takes is up to its configuration;
/// one that it does not take is an error.
#[derive(Clone, Copy, Debug, Default)]
pub struct Conditions<'a> {
    /// The text encoder's tokens, `[batch, tokens, cross_attention_dim]` (`encoder_hidden_states`).
    pub text: Option<&'a Tensor>,
    /// `[batch]` class numbers, or `[batch, width]` where `class_embed_type` says so (`class_labels`).
    pub class: Option<&'a Tensor>,
    /// SDXL's pooled text embedding, `[batch, width]` (`text_embeds`).
    pub pooled_text: Option<&'a Tensor>,
    /// SDXL's sizes and crops, `[batch, 6]` (`time_ids`).
    pub time_ids: Option<&'a Tensor>,
    /// An embedding of the guidance scale in distilled networks, `[batch, time_cond_proj_dim]` (`timestep_cond`).
    pub timestep: Option<&'a Tensor>,
}

impl<'a> Conditions<'a> {
    /// Only a text.
    pub fn text(text: &'a Tensor) -> Self {
        Self { text: Some(text), ..Self::default() }
    }
}

/// The network.
#[derive(Clone, Debug)]
pub struct UNet2DConditionModel {
    config: UNet2DConditionConfig,
    weights: Weights,
    embedding: ConditionEmbedding,
    body: UNetBody,
    dtype: DType,
}

impl UNet2DConditionModel {
    /// The network with its weights under `scope`; fresh weights start as PyTorch starts them.
    ///
    /// # Errors
    /// Those of the weights' source.
    pub fn new(config: &UNet2DConditionConfig, scope: &Scope) -> crate::Result<Self> {
        Ok(Self {
            embedding: ConditionEmbedding::new(config, scope)?,
            body: UNetBody::new(scope, &config.body)?,
            dtype: scope.compute_dtype(),
            weights: scope.weights().clone(),
            config: config.clone(),
        })
    }

    /// The network in a folder with `config.json` and `diffusion_pytorch_model.safetensors` (or its `.fp16` variant, or
    /// shards with a `.safetensors.index.json`).
    ///
    /// # Errors
    /// A key or value in the configuration that is not supported; a tensor that is missing, unexpected or misshapen.
    /// Each names the file.
    pub fn from_pretrained(dir: &Path, device: &Device, options: LoadOptions) -> crate::Result<Self> {
        let config = UNet2DConditionConfig::read(&dir.join("config.json"))?;
        load::weights(dir, device, options, config.dropout, |scope| Self::new(&config, scope))
    }

    /// [`from_pretrained`](Self::from_pretrained), with the changes of `loras` added to the weights.
    ///
    /// # Errors
    /// As [`from_pretrained`](Self::from_pretrained); and [`Error::Lora`](crate::Error::Lora) for a LoRA of which any layer
    /// has no place in this network, or that holds anything but finite numbers.
    pub fn from_pretrained_with(
        dir: &Path,
        device: &Device,
        options: LoadOptions,
        loras: &LoraStack,
    ) -> crate::Result<Self> {
        let config = UNet2DConditionConfig::read(&dir.join("config.json"))?;
        let build = |scope: &Scope| Self::new(&config, scope);
        load::unet_weights(load::open(dir, options.variant)?, loras, device, options, config.dropout, build)
    }

    /// The network in a single file of original names, of the shape `config`: that of
    /// [`Family::unet`](crate::Family::unet), unless the file is of another one.
    ///
    /// # Errors
    /// As [`from_pretrained_with`](Self::from_pretrained_with).
    pub fn from_single_file(
        file: &SingleFile,
        config: &UNet2DConditionConfig,
        device: &Device,
        options: LoadOptions,
        loras: &LoraStack,
    ) -> crate::Result<Self> {
        let build = |scope: &Scope| Self::new(config, scope);
        load::unet_weights(file.open_unet()?, loras, device, options, config.dropout, build)
    }

    /// The network's shape.
    pub fn config(&self) -> &UNet2DConditionConfig {
        &self.config
    }

    /// The weights that the network was built from: its variables, where it can be trained.
    pub fn weights(&self) -> &Weights {
        &self.weights
    }

    /// `latents` is `[batch, in_channels, height, width]`; `timesteps` `[batch]`, each image's own. The result is
    /// `[batch, out_channels, height, width]` in the number type of `latents`.
    ///
    /// # Errors
    /// Shapes that do not agree, and conditions that are missing or that the network does not take.
    pub fn forward(&self, latents: &Tensor, timesteps: &Tensor, conditions: &Conditions<'_>) -> Result<Tensor> {
        self.forward_with(latents, timesteps, conditions, None, None)
    }

    /// [`forward`](Self::forward), with what a [`ControlNetModel`](super::ControlNetModel) says added to the results on the
    /// way down and to the middle (diffusers' `down_block_additional_residuals` and `mid_block_additional_residual`), and
    /// with the deep layers' results of a step before. What `deep` holds is not computed again; where it holds nothing, it
    /// is filled. It belongs to one batch under one set of conditions, which is up to the caller.
    ///
    /// # Errors
    /// As [`forward`](Self::forward), residuals of a ControlNet for another network, and deep features of another shape.
    pub fn forward_with(
        &self,
        latents: &Tensor,
        timesteps: &Tensor,
        conditions: &Conditions<'_>,
        control: Option<&ControlResiduals>,
        deep: Option<&mut DeepFeatures>,
    ) -> Result<Tensor> {
        let (batch, _, _, _) = latents.dims4()?;
        if timesteps.dims() != [batch] {
            bail!("{batch} images need as many timesteps, not {:?}", timesteps.dims());
        }
        let time = ops::silu(&self.embedding.forward(timesteps, conditions, self.dtype)?)?;
        let text = conditions.text.map(|text| text.to_dtype(self.dtype)?.contiguous()).transpose()?;
        let context = Context { time: Some(&time), text: text.as_ref() };
        let latents_in = latents.to_dtype(self.dtype)?;
        self.body.forward_with(&latents_in, context, control, deep)?.to_dtype(latents.dtype())
    }
}
