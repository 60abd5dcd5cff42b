//! ControlNet (Zhang et al. 2023): a copy of a UNet's way down that also sees an image, and says what to add to the UNet's
//! results. diffusers' `ControlNetModel` (0.42), for Stable Diffusion 1, 2 and XL.

mod config;

use std::path::Path;

use candle_core::{DType, Device, Result, Tensor, bail};

use super::blocks::{Block, Context, MidBlock, Skips};
use super::layers::{Conv2d, from_images};
use super::load::{self, LoadOptions};
use super::plan;
use super::resnet::Direction;
use super::unet_condition::{ConditionEmbedding, Conditions};
use crate::maps::{Maps, Padding};
use crate::ops;
use crate::weights::{Scope, Weights};

pub use config::{ChannelOrder, ControlNetConfig, ControlNetJson};

const CLASS: &str = "ControlNetModel";

/// What a ControlNet adds to the results of a UNet.
#[derive(Clone, Debug)]
pub struct ControlResiduals {
    /// For the first convolution and every layer on the way down, in their order.
    pub down: Vec<Maps>,
    /// For the middle.
    pub mid: Maps,
}

impl ControlResiduals {
    /// The sum with what another ControlNet says of the same images.
    ///
    /// # Errors
    /// Residuals for another network.
    pub fn add(&self, other: &Self) -> Result<Self> {
        Ok(Self { down: sums(&self.down, &other.down)?, mid: self.mid.add(&other.mid)? })
    }

    /// What the way up takes again, with them added. `skips` are the first results of a network that has so many.
    pub(super) fn on_skips(&self, skips: &[Maps], of: usize) -> Result<Vec<Maps>> {
        if self.down.len() != of {
            return Err(foreign(self.down.len(), of));
        }
        skips.iter().zip(&self.down).map(sum).collect()
    }

    /// The middle, with theirs added.
    pub(super) fn on_mid(&self, mid: &Maps) -> Result<Maps> {
        sum((mid, &self.mid))
    }
}

fn sums(a: &[Maps], b: &[Maps]) -> Result<Vec<Maps>> {
    if a.len() != b.len() {
        return Err(foreign(b.len(), a.len()));
    }
    a.iter().zip(b).map(sum).collect()
}

fn sum((result, residual): (&Maps, &Maps)) -> Result<Maps> {
    match result.dims() == residual.dims() {
        true => result.add(residual),
        false => bail!("a ControlNet's residual of {:?} for a result of {:?}", residual.dims(), result.dims()),
    }
}

fn foreign(residuals: usize, results: usize) -> candle_core::Error {
    candle_core::Error::Msg(format!(
        "{residuals} residuals of a ControlNet for {results} results: it belongs to another UNet"
    ))
}

/// The convolutions that bring the image down to the size of the latents.
#[derive(Clone, Debug)]
struct ImageEmbedding {
    conv_in: Conv2d,
    blocks: Vec<Conv2d>,
    conv_out: Conv2d,
}

impl ImageEmbedding {
    fn new(scope: &Scope, config: &ControlNetConfig) -> crate::Result<Self> {
        let blocks = scope.sub("blocks");
        let pair = |(i, pair): (usize, &[usize])| {
            let [inputs, outputs] = *pair else { return Ok(Vec::new()) };
            let halving = Conv2d::with_stride(&blocks.sub(2 * i + 1), inputs, outputs, 3, 2, Padding::all(1))?;
            Ok(vec![Conv2d::new(&blocks.sub(2 * i), inputs, inputs, 3)?, halving])
        };
        let pairs: Vec<_> =
            config.image_channels.windows(2).enumerate().map(pair).collect::<crate::Result<Vec<Vec<Conv2d>>>>()?;
        let (first, last) = config.image_ends();
        Ok(Self {
            conv_in: Conv2d::new(&scope.sub("conv_in"), config.conditioning_channels, first, 3)?,
            blocks: pairs.into_iter().flatten().collect(),
            conv_out: Conv2d::new(&scope.sub("conv_out"), last, config.unet.body.channels, 3)?,
        })
    }

    fn forward(&self, image: &Tensor) -> Result<Maps> {
        let h = self.conv_in.forward(&from_images(image)?)?.silu()?;
        let h = self.blocks.iter().try_fold(h, |h, conv| conv.forward(&h)?.silu())?;
        self.conv_out.forward(&h)
    }
}

/// The network.
#[derive(Clone, Debug)]
pub struct ControlNetModel {
    config: ControlNetConfig,
    weights: Weights,
    embedding: ConditionEmbedding,
    conv_in: Conv2d,
    image_embedding: ImageEmbedding,
    down_blocks: Vec<Block>,
    mid_block: MidBlock,
    /// The 1x1 convolutions in front of the residuals.
    controls: Vec<Conv2d>,
    mid_control: Conv2d,
    dtype: DType,
}

impl ControlNetModel {
    /// The network with its weights under `scope`; fresh weights start as PyTorch starts them, those in front of the
    /// residuals too, which diffusers starts at zero.
    ///
    /// # Errors
    /// Those of the weights' source.
    pub fn new(config: &ControlNetConfig, scope: &Scope) -> crate::Result<Self> {
        let body = &config.unet.body;
        let controls = scope.sub("controlnet_down_blocks");
        let control = |(i, channels): (usize, usize)| Conv2d::new(&controls.sub(i), channels, channels, 1);
        let widths = plan::skips(body.channels, &body.down);
        let mid_channels = config.mid.resnet.outputs;
        Ok(Self {
            embedding: ConditionEmbedding::new(&config.unet, scope)?,
            conv_in: Conv2d::new(&scope.sub("conv_in"), body.in_channels, body.channels, 3)?,
            image_embedding: ImageEmbedding::new(&scope.sub("controlnet_cond_embedding"), config)?,
            down_blocks: Block::all(&scope.sub("down_blocks"), Direction::Down, &body.down)?,
            mid_block: MidBlock::new(&scope.sub("mid_block"), &config.mid)?,
            controls: widths.into_iter().enumerate().map(control).collect::<crate::Result<_>>()?,
            mid_control: Conv2d::new(&scope.sub("controlnet_mid_block"), mid_channels, mid_channels, 1)?,
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
        let config = ControlNetConfig::read(&dir.join("config.json"))?;
        load::weights(dir, device, options, 0.0, |scope| Self::new(&config, scope))
    }

    /// The network's shape.
    pub fn config(&self) -> &ControlNetConfig {
        &self.config
    }

    /// The weights that the network was built from: its variables, where it can be trained.
    pub fn weights(&self) -> &Weights {
        &self.weights
    }

    /// What to add to the UNet's results for `latents` `[batch, in_channels, height, width]` at `timesteps` `[batch]`, so
    /// that the result follows `image` `[batch, conditioning_channels, 8 height, 8 width]` (with four widths of the image's
    /// convolutions) in `[0, 1]`. `scale` is diffusers' `conditioning_scale`; 1 is what the network was trained for.
    ///
    /// # Errors
    /// Shapes that do not agree, and conditions that are missing or that the network does not take.
    pub fn forward(
        &self,
        latents: &Tensor,
        timesteps: &Tensor,
        conditions: &Conditions<'_>,
        image: &Tensor,
        scale: f64,
    ) -> Result<ControlResiduals> {
        let (batch, _, _, _) = latents.dims4()?;
        if timesteps.dims() != [batch] {
            bail!("{batch} images need as many timesteps, not {:?}", timesteps.dims());
        }
        let time = ops::silu(&self.embedding.forward(timesteps, conditions, self.dtype)?)?;
        let text = conditions.text.map(|text| text.to_dtype(self.dtype)?.contiguous()).transpose()?;
        let context = Context { time: Some(&time), text: text.as_ref() };
        let mut h = self.entry(latents, image)?;
        let mut results = Skips::whole(h.clone());
        for block in &self.down_blocks {
            h = block.down(h, context, &mut results)?;
        }
        let mid = self.mid_block.forward(&h, context)?;
        let control = |(conv, x): (&Conv2d, &Maps)| conv.forward(x)?.scale(scale);
        Ok(ControlResiduals {
            down: self.controls.iter().zip(&results.maps).map(control).collect::<Result<_>>()?,
            mid: control((&self.mid_control, &mid))?,
        })
    }

    /// The latents and the image, as maps of one size.
    fn entry(&self, latents: &Tensor, image: &Tensor) -> Result<Maps> {
        let image = image.to_dtype(self.dtype)?;
        let image = if self.config.blue_first { reversed(&image)? } else { image };
        let h = self.conv_in.forward(&from_images(&latents.to_dtype(self.dtype)?)?)?;
        let seen = self.image_embedding.forward(&image)?;
        if h.dims() != seen.dims() {
            let times = self.config.downsampling();
            bail!(
                "an image of {:?} does not belong to latents of {:?}: as many images are needed, {times} times as high and \
                 wide",
                image.dims(),
                latents.dims()
            );
        }
        h.add(&seen)
    }
}

/// The channels in the opposite order.
fn reversed(image: &Tensor) -> Result<Tensor> {
    let (_, channels, _, _) = image.dims4()?;
    let order: Vec<u32> = (0..channels as u32).rev().collect();
    image.index_select(&Tensor::new(order, image.device())?, 1)
}
