//! A denoising UNet without text: diffusers' `UNet2DModel` (Ho et al. 2020).

mod config;

use std::path::Path;

use candle_core::{DType, Device, Result, Tensor, bail};

use super::blocks::{Context, UNetBody};
use super::load::{self, LoadOptions};
use super::time::{Classes, Embedding, Features, FeaturesPlan};
use crate::ops;
use crate::weights::{Scope, Weights};

pub use config::{UNet2DConfig, UNet2DJson};

const CLASS: &str = "UNet2DModel";

/// The network.
#[derive(Clone, Debug)]
pub struct UNet2DModel {
    config: UNet2DConfig,
    weights: Weights,
    features: Features,
    time_embedding: Embedding,
    class_embedding: Option<Classes>,
    body: UNetBody,
    dtype: DType,
}

impl UNet2DModel {
    /// The network with its weights under `scope`; fresh weights start as PyTorch starts them.
    ///
    /// # Errors
    /// Those of the weights' source.
    pub fn new(config: &UNet2DConfig, scope: &Scope) -> crate::Result<Self> {
        let width = config.features.width();
        let class = |plan| Classes::new(&scope.sub("class_embedding"), plan, width, config.embedding);
        Ok(Self {
            features: Features::new(&scope.sub("time_proj"), config.features)?,
            time_embedding: Embedding::new(&scope.sub("time_embedding"), width, config.embedding)?,
            class_embedding: config.class.map(class).transpose()?,
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
        let config = UNet2DConfig::read(&dir.join("config.json"))?;
        load::weights(dir, device, options, config.dropout, |scope| Self::new(&config, scope))
    }

    /// The network's shape.
    pub fn config(&self) -> &UNet2DConfig {
        &self.config
    }

    /// The weights that the network was built from: its variables, where it can be trained.
    pub fn weights(&self) -> &Weights {
        &self.weights
    }

    /// `images` is `[batch, in_channels, height, width]`; `timesteps` `[batch]`, each image's own; `class` `[batch]` class
    /// numbers, or `[batch, width]` with identity embeddings. The result is `[batch, out_channels, height, width]` in the
    /// number type of `images`.
    ///
    /// # Errors
    /// Shapes that do not agree, a class that is missing, or one that the network does not take.
    pub fn forward(&self, images: &Tensor, timesteps: &Tensor, class: Option<&Tensor>) -> Result<Tensor> {
        let (batch, _, _, _) = images.dims4()?;
        if timesteps.dims() != [batch] {
            bail!("{batch} images need as many timesteps, not {:?}", timesteps.dims());
        }
        let mut embedding = self.time_embedding.forward(&self.features.forward(timesteps)?.to_dtype(self.dtype)?)?;
        match (&self.class_embedding, class) {
            (Some(classes), Some(class)) => {
                embedding = embedding.add(&classes.forward(class, &self.features, self.dtype)?)?;
            }
            (None, None) => {}
            (Some(_), None) => bail!("this network needs a class for each image"),
            (None, Some(_)) => bail!("this network takes no classes"),
        }
        let time = ops::silu(&embedding)?;
        let context = Context { time: Some(&time), text: None };
        let mut y = self.body.forward(&images.to_dtype(self.dtype)?, context)?;
        if let FeaturesPlan::Fourier { .. } = self.config.features {
            // Timesteps are noise levels here (Song et al. 2021), and the network predicts the noise's score.
            y = y.broadcast_div(&timesteps.to_dtype(self.dtype)?.reshape((batch, 1, 1, 1))?)?;
        }
        y.to_dtype(images.dtype())
    }
}
