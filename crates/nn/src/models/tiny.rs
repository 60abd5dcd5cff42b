//! A small autoencoder that imitates a model's own: diffusers' `AutoencoderTiny` (TAESD, Bohan 2023). It decodes many times
//! faster, and a little coarser.

use std::path::Path;

use candle_core::{DType, Device, Result, Tensor};
use serde::{Deserialize, Serialize};

use super::autoencoder::Tiling;
use super::config::{self, in_range, unsupported};
use super::layers::{Conv2d, from_images};
use super::load::{self, LoadOptions};
use crate::maps::{Maps, Padding};
use crate::weights::{Scope, Weights};

const CLASS: &str = "AutoencoderTiny";
/// The widest layer, and the most levels and blocks of a level, that are built.
const WIDEST: usize = 1 << 14;
const DEEPEST: usize = 32;
/// Latents are brought softly within this magnitude before they are decoded.
const MAGNITUDE: f64 = 3.0;

/// `config.json` as diffusers writes it: its keys, its defaults.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[allow(missing_docs, reason = "the keys are diffusers' own and documented there")]
pub struct AutoencoderTinyJson {
    pub in_channels: usize,
    pub out_channels: usize,
    pub encoder_block_out_channels: Vec<usize>,
    pub decoder_block_out_channels: Vec<usize>,
    /// As `decoder_block_out_channels`; diffusers writes both and reads that one.
    pub block_out_channels: Option<Vec<usize>>,
    pub act_fn: String,
    pub upsample_fn: String,
    pub latent_channels: usize,
    pub upsampling_scaling_factor: usize,
    pub num_encoder_blocks: Vec<usize>,
    pub num_decoder_blocks: Vec<usize>,
    /// These two say how latents are kept in 8 bits, which is not done here.
    pub latent_magnitude: f64,
    pub latent_shift: f64,
    pub force_upcast: bool,
    pub scaling_factor: f64,
    pub shift_factor: f64,
}

impl Default for AutoencoderTinyJson {
    fn default() -> Self {
        Self {
            in_channels: 3,
            out_channels: 3,
            encoder_block_out_channels: vec![64; 4],
            decoder_block_out_channels: vec![64; 4],
            block_out_channels: None,
            act_fn: "relu".into(),
            upsample_fn: "nearest".into(),
            latent_channels: 4,
            upsampling_scaling_factor: 2,
            num_encoder_blocks: vec![1, 3, 3, 3],
            num_decoder_blocks: vec![3, 3, 3, 1],
            latent_magnitude: 3.0,
            latent_shift: 0.5,
            force_upcast: false,
            scaling_factor: 1.0,
            shift_factor: 0.0,
        }
    }
}

/// A configuration that was checked.
#[derive(Clone, Debug, PartialEq)]
pub struct AutoencoderTinyConfig {
    in_channels: usize,
    out_channels: usize,
    latent_channels: usize,
    /// Channels and blocks of each level, in the order in which it is passed.
    encoder: Vec<(usize, usize)>,
    decoder: Vec<(usize, usize)>,
    /// What a diffusion model sees is latents times this.
    scaling_factor: f64,
}

impl AutoencoderTinyConfig {
    /// From the text of a `config.json`.
    ///
    /// # Errors
    /// [`Error::Unsupported`](crate::Error::Unsupported) names a key, its value and what is supported.
    pub fn from_json(text: &str) -> crate::Result<Self> {
        config::parse::<AutoencoderTinyJson>(text, CLASS)?.resolve()
    }

    fn read(path: &Path) -> crate::Result<Self> {
        let located = |source| crate::Error::InFile { path: path.to_owned(), source: Box::new(source) };
        config::read::<AutoencoderTinyJson>(path, CLASS)?.resolve().map_err(located)
    }

    /// Channels of the latents.
    pub fn latent_channels(&self) -> usize {
        self.latent_channels
    }

    /// Channels of the images.
    pub fn out_channels(&self) -> usize {
        self.out_channels
    }

    /// How many pixels of an image, in height and in width, one latent stands for.
    pub fn downsampling(&self) -> usize {
        1 << self.decoder.len().saturating_sub(1).min(DEEPEST)
    }
}

impl AutoencoderTinyJson {
    /// Checks every value.
    ///
    /// # Errors
    /// [`Error::Unsupported`](crate::Error::Unsupported) names a key, its value and what is supported.
    pub fn resolve(&self) -> crate::Result<AutoencoderTinyConfig> {
        let only = |key: &'static str, value: &str, supported: &str| match value == supported {
            true => Ok(()),
            false => Err(unsupported(key, &value, format!("\"{supported}\""))),
        };
        only("act_fn", &self.act_fn, "relu")?;
        only("upsample_fn", &self.upsample_fn, "nearest")?;
        if self.upsampling_scaling_factor != 2 {
            return Err(unsupported("upsampling_scaling_factor", &self.upsampling_scaling_factor, "2"));
        }
        if !(self.scaling_factor.is_finite() && self.scaling_factor != 0.0) {
            return Err(unsupported("scaling_factor", &self.scaling_factor, "a number other than 0"));
        }
        if self.shift_factor != 0.0 {
            return Err(unsupported("shift_factor", &self.shift_factor, "0"));
        }
        let levels = |[key, blocks_key]: [&'static str; 2], widths: &[usize], blocks: &[usize]| {
            in_range(key, widths.len(), DEEPEST)?;
            if widths.len() != blocks.len() {
                return Err(unsupported(
                    key,
                    &widths,
                    format!("{} entries, one for each number of blocks", blocks.len()),
                ));
            }
            // Blocks and the convolutions between levels have as many channels behind them as before them.
            if widths.iter().any(|width| Some(width) != widths.first()) {
                return Err(unsupported(key, &widths, "the same number for every level"));
            }
            let level = |(&width, &blocks): (&usize, &usize)| match blocks <= DEEPEST {
                true => Ok((in_range(key, width, WIDEST)?, blocks)),
                false => Err(unsupported(blocks_key, &blocks, format!("at most {DEEPEST}"))),
            };
            widths.iter().zip(blocks).map(level).collect::<crate::Result<Vec<_>>>()
        };
        let encoder = levels(
            ["encoder_block_out_channels", "num_encoder_blocks"],
            &self.encoder_block_out_channels,
            &self.num_encoder_blocks,
        )?;
        let decoder = levels(
            ["decoder_block_out_channels", "num_decoder_blocks"],
            &self.decoder_block_out_channels,
            &self.num_decoder_blocks,
        )?;
        Ok(AutoencoderTinyConfig {
            in_channels: in_range("in_channels", self.in_channels, WIDEST)?,
            out_channels: in_range("out_channels", self.out_channels, WIDEST)?,
            latent_channels: in_range("latent_channels", self.latent_channels, WIDEST)?,
            encoder,
            decoder,
            scaling_factor: self.scaling_factor,
        })
    }
}

/// The network.
#[derive(Clone, Debug)]
pub struct AutoencoderTiny {
    config: AutoencoderTinyConfig,
    weights: Weights,
    encoder: Vec<Layer>,
    decoder: Vec<Layer>,
    tiling: Option<Tiling>,
    dtype: DType,
}

impl AutoencoderTiny {
    /// The network with its weights under `scope`; fresh weights start as PyTorch starts them.
    ///
    /// # Errors
    /// Those of the weights' source.
    pub fn new(config: &AutoencoderTinyConfig, scope: &Scope) -> crate::Result<Self> {
        Ok(Self {
            encoder: encoder(&scope.sub("encoder").sub("layers"), config)?,
            decoder: decoder(&scope.sub("decoder").sub("layers"), config)?,
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
        let config = AutoencoderTinyConfig::read(&dir.join("config.json"))?;
        load::weights(dir, device, options, 0.0, |scope| Self::new(&config, scope))
    }

    /// The same network, which takes latents of more than a tile apart; `None` takes them whole.
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
    pub fn config(&self) -> &AutoencoderTinyConfig {
        &self.config
    }

    /// The weights that the network was built from: its variables, where it can be trained.
    pub fn weights(&self) -> &Weights {
        &self.weights
    }

    /// `images` `[batch, in_channels, height, width]` in `[-1, 1]` to latents `[batch, latent_channels, height / 8, width / 8]`
    /// (with four levels), in the number type of `images`.
    ///
    /// # Errors
    /// Another number of channels.
    pub fn encode(&self, images: &Tensor) -> Result<Tensor> {
        let x = images.affine(0.5, 0.5)?.to_dtype(self.dtype)?;
        run(&self.encoder, &x)?.to_dtype(images.dtype())
    }

    /// `latents` `[batch, latent_channels, height, width]` to images `[batch, out_channels, 8 height, 8 width]` (with four
    /// levels) of about `[-1, 1]`, in the number type of `latents`.
    ///
    /// # Errors
    /// Another number of channels.
    pub fn decode(&self, latents: &Tensor) -> Result<Tensor> {
        let x = (latents / MAGNITUDE)?.tanh()?.affine(MAGNITUDE, 0.0)?.to_dtype(self.dtype)?;
        let images = match self.tiling {
            Some(tiling) => tiling.decode(&x, self.config.downsampling(), |tile| run(&self.decoder, tile))?,
            None => run(&self.decoder, &x)?,
        };
        images.to_dtype(latents.dtype())?.affine(2.0, -1.0)
    }

    /// Latents for [`decode`](Self::decode) from those of a diffusion model.
    ///
    /// # Errors
    /// Those of candle.
    pub fn from_model(&self, latents: &Tensor) -> Result<Tensor> {
        latents / self.config.scaling_factor
    }
}

/// A layer of an encoder or decoder.
#[derive(Clone, Debug)]
enum Layer {
    Conv(Conv2d),
    /// Three convolutions whose result is added to what went in.
    Block([Conv2d; 3]),
    Relu,
    /// To twice the height and width.
    Grow,
}

impl Layer {
    fn block(scope: &Scope, channels: usize) -> crate::Result<Self> {
        // The activations between them have the odd numbers.
        let conv = |i: usize| Conv2d::new(&scope.sub("conv").sub(2 * i), channels, channels, 3);
        Ok(Self::Block([conv(0)?, conv(1)?, conv(2)?]))
    }

    fn forward(&self, x: &Maps) -> Result<Maps> {
        match self {
            Self::Conv(conv) => conv.forward(x),
            Self::Block([first, second, third]) => {
                let h = second.forward(&first.forward(x)?.relu()?)?.relu()?;
                third.forward_with(&h, None, Some(x))?.relu()
            }
            Self::Relu => x.relu(),
            Self::Grow => {
                let (height, width) = x.size();
                x.upsample_nearest((2 * height, 2 * width))
            }
        }
    }
}

fn run(layers: &[Layer], x: &Tensor) -> Result<Tensor> {
    layers.iter().try_fold(from_images(x)?, |h, layer| layer.forward(&h))?.to_nchw()
}

/// Layers that are numbered one behind another.
fn encoder(scope: &Scope, config: &AutoencoderTinyConfig) -> crate::Result<Vec<Layer>> {
    let mut layers = Vec::new();
    let mut channels = config.in_channels;
    for (level, &(width, blocks)) in config.encoder.iter().enumerate() {
        let place = scope.sub(layers.len());
        layers.push(Layer::Conv(match level {
            0 => Conv2d::new(&place, channels, width, 3)?,
            _ => Conv2d::without_bias(&place, channels, width, 3, 2, Padding::all(1))?,
        }));
        channels = width;
        for _ in 0..blocks {
            layers.push(Layer::block(&scope.sub(layers.len()), width)?);
        }
    }
    layers.push(Layer::Conv(Conv2d::new(&scope.sub(layers.len()), channels, config.latent_channels, 3)?));
    Ok(layers)
}

fn decoder(scope: &Scope, config: &AutoencoderTinyConfig) -> crate::Result<Vec<Layer>> {
    let first = config.decoder.first().map_or(0, |(width, _)| *width);
    let mut layers = vec![Layer::Conv(Conv2d::new(&scope.sub(0), config.latent_channels, first, 3)?), Layer::Relu];
    for (level, &(width, blocks)) in config.decoder.iter().enumerate() {
        for _ in 0..blocks {
            layers.push(Layer::block(&scope.sub(layers.len()), width)?);
        }
        if level + 1 < config.decoder.len() {
            layers.push(Layer::Grow);
            let place = scope.sub(layers.len());
            layers.push(Layer::Conv(Conv2d::without_bias(&place, width, width, 3, 1, Padding::all(1))?));
        } else {
            layers.push(Layer::Conv(Conv2d::new(&scope.sub(layers.len()), width, config.out_channels, 3)?));
        }
    }
    Ok(layers)
}
