//! A whole CLIP or SigLIP model: how well texts describe images.

use std::path::Path;

use candle_core::{D, DType, Device, Result, Tensor, bail};

use super::config::{ClipConfig, Family};
use super::load;
use super::text::{Projection, TextModel};
use super::tokens::Tokens;
use super::vision::VisionModel;
use crate::maps;
use crate::models::load::LoadOptions;
use crate::param::Param;
use crate::weights::{Init, Scope, Weights};

/// Both transformers of a `CLIPModel` or `SiglipModel`.
#[derive(Clone, Debug)]
pub struct ClipModel {
    config: ClipConfig,
    text: TextModel,
    vision: VisionModel,
    /// CLIP's maps to the common space; SigLIP's transformers end there.
    projections: Option<(Projection, Projection)>,
    scale: f64,
    bias: f64,
    weights: Weights,
}

impl ClipModel {
    /// The model with its weights under `scope`.
    ///
    /// # Errors
    /// Those of the weights' source.
    pub fn new(config: &ClipConfig, scope: &Scope) -> crate::Result<Self> {
        let ClipConfig { text, vision } = config;
        let is_clip = text.family == Family::Clip;
        let number = |name: &str, start: f32| -> crate::Result<f64> {
            let shape: &[usize] = if is_clip { &[] } else { &[1] };
            let values = scope.constant(name, shape, Init::Const(start))?.to_dtype(DType::F32)?.flatten_all()?;
            Ok(values.to_vec1::<f32>()?.first().copied().map_or(0.0, f64::from))
        };
        let projections = || {
            let map = |name: &str, width, projection| Projection::new(&scope.sub(name), width, projection);
            let text = map("text_projection", text.transformer.width, text.projection)?;
            Ok::<_, crate::Error>((text, map("visual_projection", vision.transformer.width, vision.projection)?))
        };
        Ok(Self {
            config: *config,
            text: TextModel::new(text, &scope.sub("text_model"))?,
            vision: VisionModel::new(vision, &scope.sub("vision_model"))?,
            projections: is_clip.then(projections).transpose()?,
            scale: number("logit_scale", 2.6592)?.exp(),
            bias: if is_clip { 0.0 } else { number("logit_bias", 0.0)? },
            weights: scope.weights().clone(),
        })
    }

    /// The model in a folder with `config.json` and `model.safetensors` (or its `.fp16` variant, or shards with an index).
    ///
    /// # Errors
    /// A key or value in the configuration that is not supported; a tensor that is missing, unexpected or misshapen;
    /// weights that are a pickle. Each names the file.
    pub fn from_pretrained(dir: &Path, device: &Device, options: LoadOptions) -> crate::Result<Self> {
        let config = ClipConfig::read(&dir.join("config.json"))?;
        load::weights(dir, device, options, |scope| Self::new(&config, scope))
    }

    /// The model's shape.
    pub fn config(&self) -> &ClipConfig {
        &self.config
    }

    /// The text transformer.
    pub fn text(&self) -> &TextModel {
        &self.text
    }

    /// The image transformer.
    pub fn vision(&self) -> &VisionModel {
        &self.vision
    }

    /// The weights that the model was built from: its variables, where it can be trained.
    pub fn weights(&self) -> &Weights {
        &self.weights
    }

    /// Texts in the common space, `[batch, projection]`, of any length.
    ///
    /// # Errors
    /// As [`TextModel::forward`].
    pub fn text_embeds(&self, tokens: &Tokens) -> Result<Tensor> {
        let pooled = self.text.forward(tokens, false)?.pooled;
        match &self.projections {
            Some((text, _)) => text.forward(&pooled),
            None => Ok(pooled),
        }
    }

    /// Images `[batch, 3, image, image]`, normalised, in the common space: `[batch, projection]`, of any length.
    ///
    /// # Errors
    /// As [`VisionModel::forward`], and a model without a pooling head.
    pub fn image_embeds(&self, images: &Tensor) -> Result<Tensor> {
        let Some(pooled) = self.vision.forward(images)?.pooled else {
            bail!("the model has no pooling head (`vision_use_head`), so its images cannot be compared with texts");
        };
        match &self.projections {
            Some((_, vision)) => vision.forward(&pooled),
            None => Ok(pooled),
        }
    }

    /// How well each text describes each image, `[images, texts]`: the cosine of their embeddings, scaled and moved as the
    /// model learned. Over a CLIP's texts softmax gives shares; a SigLIP's sigmoid gives each pair a probability.
    ///
    /// # Errors
    /// Widths that differ.
    pub fn logits(&self, image_embeds: &Tensor, text_embeds: &Tensor) -> Result<Tensor> {
        cosines(image_embeds, text_embeds)?.affine(self.scale, self.bias)
    }
}

/// The cosine of each row of `a` `[n, width]` and each of `b` `[m, width]`: `[n, m]`.
pub(super) fn cosines(a: &Tensor, b: &Tensor) -> Result<Tensor> {
    // Not candle's product, whose sums take another order for a single row.
    maps::linear(&normalised(a)?, &Param::new(normalised(b)?), None, None)
}

/// Every row at length one; a row of zeros stays one.
fn normalised(x: &Tensor) -> Result<Tensor> {
    let length = x.sqr()?.sum_keepdim(D::Minus1)?.sqrt()?.maximum(1e-12)?;
    x.broadcast_div(&length)
}
