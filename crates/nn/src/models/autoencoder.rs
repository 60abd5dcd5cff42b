//! The autoencoder between images and latents: diffusers' `AutoencoderKL` (Rombach et al. 2022, Kingma and Welling 2014).

mod config;
mod tiling;

use std::path::Path;

use candle_core::{DType, Device, Result, Tensor};

use super::blocks::{Block, Context, MidBlock};
use super::layers::{Conv2d, GroupNorm, from_images};
use super::load::{self, LoadOptions};
use super::resnet::Direction;
use crate::single_file::SingleFile;
use crate::weights::{Scope, Weights};

pub use config::{AutoencoderKLConfig, AutoencoderKLJson};
pub use tiling::Tiling;

const CLASS: &str = "AutoencoderKL";

/// Images to the parameters of a normal distribution of latents.
#[derive(Clone, Debug)]
struct Encoder {
    conv_in: Conv2d,
    down_blocks: Vec<Block>,
    mid_block: MidBlock,
    conv_norm_out: GroupNorm,
    conv_out: Conv2d,
    quant_conv: Option<Conv2d>,
}

/// Latents to images.
#[derive(Clone, Debug)]
struct Decoder {
    post_quant_conv: Option<Conv2d>,
    conv_in: Conv2d,
    mid_block: MidBlock,
    up_blocks: Vec<Block>,
    conv_norm_out: GroupNorm,
    conv_out: Conv2d,
}

/// The network.
#[derive(Clone, Debug)]
pub struct AutoencoderKL {
    config: AutoencoderKLConfig,
    weights: Weights,
    encoder: Encoder,
    decoder: Decoder,
    tiling: Option<Tiling>,
    dtype: DType,
}

/// The normal distribution of an image's latents, independent in every number.
#[derive(Clone, Debug)]
pub struct Posterior {
    /// `[batch, latent_channels, height, width]`.
    pub mean: Tensor,
    /// The logarithm of the variance, within `[-30, 20]`; like the mean.
    pub logvar: Tensor,
}

impl Posterior {
    /// The latents to which standard normal `noise` of the mean's shape leads.
    ///
    /// # Errors
    /// Noise of another shape.
    pub fn sample(&self, noise: &Tensor) -> Result<Tensor> {
        self.mean.add(&(&self.logvar * 0.5)?.exp()?.mul(noise)?)
    }
}

impl AutoencoderKL {
    /// The network with its weights under `scope`; fresh weights start as PyTorch starts them.
    ///
    /// # Errors
    /// Those of the weights' source.
    pub fn new(config: &AutoencoderKLConfig, scope: &Scope) -> crate::Result<Self> {
        let latents = config.latent_channels;
        let pointwise = |name: &str, wanted: bool, channels| {
            wanted.then(|| Conv2d::new(&scope.sub(name), channels, channels, 1)).transpose()
        };
        let quant_conv = pointwise("quant_conv", config.quant_conv, 2 * latents)?;
        let post_quant_conv = pointwise("post_quant_conv", config.post_quant_conv, latents)?;
        Ok(Self {
            encoder: Encoder::new(&scope.sub("encoder"), config, quant_conv)?,
            decoder: Decoder::new(&scope.sub("decoder"), config, post_quant_conv)?,
            tiling: None,
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
        let config = AutoencoderKLConfig::read(&dir.join("config.json"))?;
        load::weights(dir, device, options, 0.0, |scope| Self::new(&config, scope))
    }

    /// The network in a single file of original names (with a whole model, or of its own), of the shape `config`: that of
    /// [`Family::vae`](crate::Family::vae), unless the file is of another one.
    ///
    /// # Errors
    /// A file without an autoencoder; a tensor that is missing, unexpected or misshapen.
    pub fn from_single_file(
        file: &SingleFile,
        config: &AutoencoderKLConfig,
        device: &Device,
        options: LoadOptions,
    ) -> crate::Result<Self> {
        load::built(file.open_vae()?, device, options, 0.0, |scope| Self::new(config, scope))
    }

    /// The same network, which takes images and latents larger than a tile apart into tiles; `None` takes them whole.
    ///
    /// # Errors
    /// A tiling that is none for this network: see [`Tiling`].
    pub fn with_tiling(self, tiling: Option<Tiling>) -> crate::Result<Self> {
        if let Some(tiling) = tiling {
            tiling.check(self.config.downsampling())?;
        }
        Ok(Self { tiling, ..self })
    }

    /// The network's shape.
    pub fn config(&self) -> &AutoencoderKLConfig {
        &self.config
    }

    /// The weights that the network was built from: its variables, where it can be trained.
    pub fn weights(&self) -> &Weights {
        &self.weights
    }

    /// `images` `[batch, in_channels, height, width]` in `[-1, 1]` to the distribution of their latents, in the number
    /// type of `images`.
    ///
    /// # Errors
    /// Another number of channels.
    pub fn encode(&self, images: &Tensor) -> Result<Posterior> {
        let x = images.to_dtype(self.dtype)?;
        let moments = match self.tiling {
            Some(tiling) => tiling.encode(&x, self.config.downsampling(), |tile| self.encoder.forward(tile))?,
            None => self.encoder.forward(&x)?,
        };
        let moments = moments.to_dtype(images.dtype())?;
        let latents = self.config.latent_channels;
        let logvar = moments.narrow(1, latents, latents)?.clamp(-30.0, 20.0)?;
        Ok(Posterior { mean: moments.narrow(1, 0, latents)?.contiguous()?, logvar })
    }

    /// `latents` `[batch, latent_channels, height, width]` to images `[batch, out_channels, 8 height, 8 width]` (with
    /// four levels) of about `[-1, 1]`, in the number type of `latents`.
    ///
    /// # Errors
    /// Another number of channels.
    pub fn decode(&self, latents: &Tensor) -> Result<Tensor> {
        let x = latents.to_dtype(self.dtype)?;
        let images = match self.tiling {
            Some(tiling) => tiling.decode(&x, self.config.downsampling(), |tile| self.decoder.forward(tile))?,
            None => self.decoder.forward(&x)?,
        };
        images.to_dtype(latents.dtype())
    }

    /// Latents as a diffusion model sees them, of about unit variance: what [`encode`](Self::encode) gives, moved and
    /// scaled (`scaling_factor`, `shift_factor`, `latents_mean` and `latents_std`).
    ///
    /// # Errors
    /// Another number of channels.
    pub fn to_model(&self, latents: &Tensor) -> Result<Tensor> {
        let (mean, factor) = self.normalisation(latents)?;
        latents.broadcast_sub(&mean)?.broadcast_mul(&factor)
    }

    /// The way back: latents for [`decode`](Self::decode) from those of a diffusion model.
    ///
    /// # Errors
    /// Another number of channels.
    pub fn from_model(&self, latents: &Tensor) -> Result<Tensor> {
        let (mean, factor) = self.normalisation(latents)?;
        latents.broadcast_div(&factor)?.broadcast_add(&mean)
    }

    /// Mean and factor, `[1, 1 or latent_channels, 1, 1]`.
    fn normalisation(&self, latents: &Tensor) -> Result<(Tensor, Tensor)> {
        let tensor = |values: &[f64]| {
            Tensor::new(values, latents.device())?.to_dtype(latents.dtype())?.reshape((1, values.len(), 1, 1))
        };
        Ok((tensor(&self.config.mean)?, tensor(&self.config.factor)?))
    }
}

impl Encoder {
    fn new(scope: &Scope, config: &AutoencoderKLConfig, quant_conv: Option<Conv2d>) -> crate::Result<Self> {
        let (first, last) = config.channels;
        Ok(Self {
            conv_in: Conv2d::new(&scope.sub("conv_in"), config.in_channels, first, 3)?,
            down_blocks: Block::all(&scope.sub("down_blocks"), Direction::Down, &config.down)?,
            mid_block: MidBlock::new(&scope.sub("mid_block"), &config.mid)?,
            conv_norm_out: GroupNorm::new(&scope.sub("conv_norm_out"), last, config.norm)?,
            conv_out: Conv2d::new(&scope.sub("conv_out"), last, 2 * config.latent_channels, 3)?,
            quant_conv,
        })
    }

    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let h = self.conv_in.forward(&from_images(x)?)?;
        let h = self.down_blocks.iter().try_fold(h, |h, block| block.plain(h))?;
        let h = self.mid_block.forward(&h, Context::default())?;
        let h = self.conv_out.forward(&self.conv_norm_out.forward_silu(&h)?)?;
        match &self.quant_conv {
            Some(conv) => conv.forward(&h)?.to_nchw(),
            None => h.to_nchw(),
        }
    }
}

impl Decoder {
    fn new(scope: &Scope, config: &AutoencoderKLConfig, post_quant_conv: Option<Conv2d>) -> crate::Result<Self> {
        let (first, last) = config.channels;
        Ok(Self {
            post_quant_conv,
            conv_in: Conv2d::new(&scope.sub("conv_in"), config.latent_channels, last, 3)?,
            mid_block: MidBlock::new(&scope.sub("mid_block"), &config.mid)?,
            up_blocks: Block::all(&scope.sub("up_blocks"), Direction::Up, &config.up)?,
            conv_norm_out: GroupNorm::new(&scope.sub("conv_norm_out"), first, config.norm)?,
            conv_out: Conv2d::new(&scope.sub("conv_out"), first, config.out_channels, 3)?,
        })
    }

    fn forward(&self, latents: &Tensor) -> Result<Tensor> {
        let x = from_images(latents)?;
        let x = match &self.post_quant_conv {
            Some(conv) => conv.forward(&x)?,
            None => x,
        };
        let h = self.mid_block.forward(&self.conv_in.forward(&x)?, Context::default())?;
        let h = self.up_blocks.iter().try_fold(h, |h, block| block.plain(h))?;
        self.conv_out.forward(&self.conv_norm_out.forward_silu(&h)?)?.to_nchw()
    }
}
