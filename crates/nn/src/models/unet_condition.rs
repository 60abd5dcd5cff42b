//! The denoising UNet of Stable Diffusion 1, 2 and XL: diffusers' `UNet2DConditionModel` (Rombach et al. 2022, Podell et
//! al. 2023).

mod config;

use std::path::Path;

use candle_core::{DType, Device, Result, Tensor, bail};

use super::blocks::{Context, UNetBody};
use super::load::{self, LoadOptions};
use super::time::{Classes, Embedding, Features};
use crate::ops;
use crate::weights::{Scope, Weights};

pub(super) use config::divisor;
pub use config::{UNet2DConditionConfig, UNet2DConditionJson};

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
    features: Features,
    time_embedding: Embedding,
    class_embedding: Option<Classes>,
    text_time: Option<(Features, Embedding)>,
    body: UNetBody,
    dtype: DType,
}

impl UNet2DConditionModel {
    /// The network with its weights under `scope`; fresh weights start as PyTorch starts them.
    ///
    /// # Errors
    /// Those of the weights' source.
    pub fn new(config: &UNet2DConditionConfig, scope: &Scope) -> crate::Result<Self> {
        let features = Features::new(&scope.sub("time_proj"), config.features)?;
        let width = config.features.width();
        let time_embedding = Embedding::with_condition(
            &scope.sub("time_embedding"),
            width,
            config.embedding,
            config.condition,
            config.silu_after_embedding,
        )?;
        let class = |plan| Classes::new(&scope.sub("class_embedding"), plan, width, config.embedding);
        let text_time = |plan: config::TextTimePlan| {
            let embedding = Embedding::new(&scope.sub("add_embedding"), plan.inputs, config.embedding)?;
            Ok::<_, crate::Error>((Features::new(&scope.sub("add_time_proj"), plan.features)?, embedding))
        };
        Ok(Self {
            features,
            time_embedding,
            class_embedding: config.class.map(class).transpose()?,
            text_time: config.text_time.map(text_time).transpose()?,
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
        let (batch, _, _, _) = latents.dims4()?;
        if timesteps.dims() != [batch] {
            bail!("{batch} images need as many timesteps, not {:?}", timesteps.dims());
        }
        let time = ops::silu(&self.embedding(timesteps, conditions)?)?;
        let text = conditions.text.map(|text| text.to_dtype(self.dtype)?.contiguous()).transpose()?;
        let context = Context { time: Some(&time), text: text.as_ref() };
        self.body.forward(&latents.to_dtype(self.dtype)?, context)?.to_dtype(latents.dtype())
    }

    /// The sum of all embeddings, `[batch, width]`.
    fn embedding(&self, timesteps: &Tensor, conditions: &Conditions<'_>) -> Result<Tensor> {
        let condition = conditions.timestep.map(|x| x.to_dtype(self.dtype)).transpose()?;
        let features = self.features.forward(timesteps)?.to_dtype(self.dtype)?;
        let mut sum = self.time_embedding.forward_with(&features, condition.as_ref())?;
        match (&self.class_embedding, conditions.class) {
            (Some(classes), Some(class)) => sum = sum.add(&classes.forward(class, &self.features, self.dtype)?)?,
            (None, None) => {}
            (Some(_), None) => bail!("this network needs a class for each image"),
            (None, Some(_)) => bail!("this network takes no classes"),
        }
        match (&self.text_time, conditions.pooled_text, conditions.time_ids) {
            (Some(text_time), Some(text), Some(ids)) => sum = sum.add(&self.text_time(text_time, text, ids)?)?,
            (None, None, None) => {}
            (Some(_), ..) => bail!("this network needs a pooled text embedding and the time ids for each image"),
            (None, ..) => bail!("this network takes neither a pooled text embedding nor time ids"),
        }
        if self.config.silu_after_sum { ops::silu(&sum) } else { Ok(sum) }
    }

    fn text_time(&self, (features, embedding): &(Features, Embedding), text: &Tensor, ids: &Tensor) -> Result<Tensor> {
        let (batch, width) = text.dims2()?;
        let (rows, _) = ids.dims2()?;
        let numbers = features.forward(&ids.flatten_all()?)?.reshape((rows, ()))?.to_dtype(self.dtype)?;
        let inputs = self.config.text_time.map_or(0, |plan| plan.inputs);
        if rows != batch || width + numbers.dim(1)? != inputs {
            bail!("a pooled text of {:?} and time ids {:?} do not make {inputs} features", text.dims(), ids.dims());
        }
        embedding.forward(&Tensor::cat(&[&text.to_dtype(self.dtype)?, &numbers], 1)?)
    }
}
