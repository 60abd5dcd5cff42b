//! The image transformers (Dosovitskiy et al. 2021).

use candle_core::{IndexOp, Result, Tensor, bail};

use super::attention::Mask;
use super::config::{Family, VisionConfig};
use super::encoder::{Encoder, Norm};
use super::siglip::PoolingHead;
use crate::grad_mode::used;
use crate::maps::{self, ConvExtras, Maps, Padding};
use crate::param::Param;
use crate::weights::{Init, Scope};

/// What an image transformer makes of images.
#[derive(Clone, Debug)]
pub struct VisionOutput {
    /// `[batch, tokens, width]`: CLIP's class token and patches, not normalised; SigLIP's patches, normalised.
    pub last_hidden_state: Tensor,
    /// `[batch, width]`: CLIP's class token, normalised; SigLIP's patches, pooled by attention, or none where the model has
    /// no pooling head.
    pub pooled: Option<Tensor>,
}

/// An image transformer of CLIP or SigLIP.
#[derive(Clone, Debug)]
pub struct VisionModel {
    config: VisionConfig,
    patches: Param,
    patch_bias: Option<Tensor>,
    /// CLIP's: a token that stands for the whole image, and a normalisation before the first layer.
    class: Option<(Tensor, Norm)>,
    positions: Tensor,
    encoder: Encoder,
    post_layernorm: Norm,
    head: Option<PoolingHead>,
}

impl VisionModel {
    /// The transformer with its weights under `scope`.
    ///
    /// # Errors
    /// Those of the weights' source.
    pub fn new(config: &VisionConfig, scope: &Scope) -> crate::Result<Self> {
        let (transformer, is_clip) = (config.transformer, config.family == Family::Clip);
        let width = transformer.width;
        let embeddings = scope.sub("embeddings");
        let patches = embeddings.sub("patch_embedding");
        let init = Init::KaimingUniform { fan_in: config.channels * config.patch * config.patch };
        let class = || {
            let token = embeddings.get("class_embedding", &[width], Init::Normal { std: 0.02 })?;
            // The name's spelling is the files'.
            Ok::<_, crate::Error>((token, Norm::new(&scope.sub("pre_layrnorm"), transformer)?))
        };
        let positions = config.patches() + usize::from(is_clip);
        let table = embeddings.sub("position_embedding");
        Ok(Self {
            config: *config,
            patches: patches.param("weight", &[width, config.channels, config.patch, config.patch], init)?,
            patch_bias: (!is_clip).then(|| patches.get("bias", &[width], Init::Zeros)).transpose()?,
            class: is_clip.then(class).transpose()?,
            positions: table.get("weight", &[positions, width], Init::Normal { std: 0.02 })?,
            encoder: Encoder::new(&scope.sub("encoder"), transformer)?,
            post_layernorm: Norm::new(&scope.sub("post_layernorm"), transformer)?,
            head: match config.family {
                Family::Siglip if config.head => Some(PoolingHead::new(&scope.sub("head"), transformer)?),
                _ => None,
            },
        })
    }

    /// The transformer's shape.
    pub fn config(&self) -> &VisionConfig {
        &self.config
    }

    /// `images` `[batch, 3, image, image]`, normalised as the model's preprocessor says. An image's result does not depend
    /// on the images beside it.
    ///
    /// # Errors
    /// Images of another size.
    pub fn forward(&self, images: &Tensor) -> Result<VisionOutput> {
        let VisionConfig { channels, image, patch, .. } = self.config;
        let batch = match *images.dims() {
            [batch, c, height, width] if batch > 0 && (c, height, width) == (channels, image, image) => batch,
            _ => bail!("the model takes images [batch, {channels}, {image}, {image}], not {:?}", images.shape()),
        };
        let bias = self.patch_bias.as_ref().map(used);
        let extras = ConvExtras { bias: bias.as_ref(), shift: None, residual: None };
        let patches = maps::conv2d(&Maps::from_nchw(images)?, &self.patches, patch, Padding::all(0), extras)?;
        let x = patches.to_tokens()?;
        let x = match &self.class {
            Some((token, _)) => {
                let token = used(token).reshape((1, 1, ()))?.broadcast_as((batch, 1, self.config.transformer.width))?;
                Tensor::cat(&[&token.contiguous()?, &x], 1)?
            }
            None => x,
        };
        let x = x.broadcast_add(&used(&self.positions))?;
        let x = match &self.class {
            Some((_, norm)) => norm.forward(&x)?,
            None => x,
        };
        let (x, _) = self.encoder.forward(x, &Mask::default(), false)?;
        match self.config.family {
            Family::Clip => {
                let pooled = self.post_layernorm.forward(&x.i((.., 0))?.contiguous()?)?;
                Ok(VisionOutput { last_hidden_state: x, pooled: Some(pooled) })
            }
            Family::Siglip => {
                let last_hidden_state = self.post_layernorm.forward(&x)?;
                let pooled = self.head.as_ref().map(|head| head.forward(&last_hidden_state)).transpose()?;
                Ok(VisionOutput { last_hidden_state, pooled })
            }
        }
    }
}
