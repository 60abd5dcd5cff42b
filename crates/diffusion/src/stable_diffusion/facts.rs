//! What kind of model it is, by the configurations of its parts, and whether those fit together.

use std::fmt;
use std::path::{Path, PathBuf};

use evenset_nn::models::clip::TextConfig;
use evenset_nn::models::{AutoencoderKLConfig, UNet2DConditionConfig};
use serde_json::{Map, Value};

use super::files::{read_json, read_text, unusable};
use super::index::Index;
use crate::error::{DiffusionError, Result};

/// How many numbers XL is told about sizes.
pub(super) const SIZES: u64 = 6;

/// The generation of a model.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    /// Rombach et al. 2022 with CLIP's text encoder.
    Sd1,
    /// The same with OpenCLIP's text encoder at its last layer but one.
    Sd2,
    /// Podell et al. 2023: two text encoders, sizes and crops as conditions.
    Xl,
}

impl fmt::Display for Family {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Sd1 => "Stable Diffusion 1",
            Self::Sd2 => "Stable Diffusion 2",
            Self::Xl => "Stable Diffusion XL",
        })
    }
}

/// What the denoising network predicts; the scheduler's `prediction_type`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Prediction {
    /// The noise.
    Epsilon,
    /// The velocity of Salimans and Ho 2022.
    V,
    /// The image.
    Sample,
}

/// How a model was distilled to few steps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Distilled {
    /// One to four steps without guidance (Sauer et al. 2023).
    Turbo,
    /// Latent consistency: two to eight steps (Luo et al. 2023).
    Lcm,
}

/// What is known of a model before its weights are read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ModelFacts {
    /// The generation.
    pub family: Family,
    /// What the network predicts; none where a single file does not show it and nobody has said it, which is enough to
    /// list a model and not to draw with it.
    pub prediction: Option<Prediction>,
    /// Whether the network takes a mask and a masked image beside the latents: nine channels.
    pub inpainting: bool,
    /// A guess from the scheduler and the network's configuration; no file says it.
    pub distilled: Option<Distilled>,
    /// Whether it was saved from diffusers' latent consistency pipeline, in which a strength shortens the schedule and not the
    /// walk.
    pub latent_consistency: bool,
    /// The width of an embedding of the guidance scale (`time_cond_proj_dim`), in networks that take one instead of a
    /// second, unconditional step.
    pub guidance_embedding: Option<usize>,
    /// Channels of the latents.
    pub latent_channels: usize,
    /// How many pixels, in height and in width, one latent stands for.
    pub downsampling: usize,
    /// Height and width in pixels of the images the network was trained on, where its configuration says it.
    pub native_size: Option<(usize, usize)>,
    /// Results on the way down of the network below which layers can be left out of a step.
    pub branches: usize,
    /// XL: zeros stand for a negative prompt that is not given (`force_zeros_for_empty_prompt`).
    pub zeros_for_no_negative: bool,
}

/// The configurations of a model's parts, and the files that they belong to.
pub(super) struct Configs {
    pub(super) unet: (PathBuf, Map<String, Value>),
    pub(super) vae: AutoencoderKLConfig,
    pub(super) text: (PathBuf, TextConfig),
    pub(super) text_2: Option<(PathBuf, TextConfig)>,
}

impl Configs {
    /// Those in the folder `dir`; the denoising network's is checked by [`facts`](Self::facts).
    pub(super) fn read(dir: &Path, index: &Index) -> Result<Self> {
        let config = |part: &str| dir.join(part).join("config.json");
        let text = |part: &str| Ok::<_, DiffusionError>((config(part), TextConfig::read(&config(part))?));
        let (unet, vae) = (config("unet"), config("vae"));
        Ok(Self {
            vae: in_file(&vae, AutoencoderKLConfig::from_json(&read_text(&vae)?))?,
            text: text("text_encoder")?,
            text_2: index.xl.then(|| text("text_encoder_2")).transpose()?,
            unet: (unet.clone(), read_json(&unet)?),
        })
    }

    /// What they say of a model with these noise levels, which belong to the file `path`.
    pub(super) fn facts(&self, index: &Index, path: &Path, scheduler: &Map<String, Value>) -> Result<ModelFacts> {
        let (unet, map) = &self.unet;
        let network = in_file(unet, UNet2DConditionConfig::from_json(&Value::Object(map.clone()).to_string()))?;
        self.agree()?;
        let prediction = match scheduler.get("prediction_type").and_then(Value::as_str) {
            None | Some("epsilon") => Prediction::Epsilon,
            Some("v_prediction") => Prediction::V,
            Some("sample") => Prediction::Sample,
            Some(other) => {
                let reason = format!("`prediction_type`: `{other}` is none of `epsilon`, `v_prediction` and `sample`");
                return Err(unusable(path, reason));
            }
        };
        Ok(ModelFacts {
            family: self.family(),
            prediction: Some(prediction),
            inpainting: self.is_inpainting()?,
            distilled: self.distilled(index, scheduler),
            latent_consistency: is_latent_consistency(index),
            guidance_embedding: self.number("time_cond_proj_dim").and_then(|width| width.try_into().ok()),
            latent_channels: self.vae.latent_channels(),
            downsampling: self.vae.downsampling(),
            native_size: self.native_size(),
            branches: network.branches(),
            zeros_for_no_negative: index.zeros_for_no_negative,
        })
    }
}

fn is_latent_consistency(index: &Index) -> bool {
    index.pipeline.starts_with("LatentConsistency")
}

/// Names the file that a configuration was read from.
pub(super) fn in_file<T>(path: &Path, config: evenset_nn::Result<T>) -> Result<T> {
    Ok(config.map_err(|source| evenset_nn::Error::InFile { path: path.to_owned(), source: Box::new(source) })?)
}

impl Configs {
    /// A number of the UNet's configuration.
    fn number(&self, key: &str) -> Option<u64> {
        self.unet.1.get(key)?.as_u64()
    }

    pub(super) fn family(&self) -> Family {
        let linear = self.unet.1.get("use_linear_projection").and_then(Value::as_bool).unwrap_or(false);
        match self.text_2 {
            Some(_) => Family::Xl,
            None if linear || self.number("cross_attention_dim") == Some(1024) => Family::Sd2,
            None => Family::Sd1,
        }
    }

    /// Whether the parts belong to one model.
    fn agree(&self) -> Result<()> {
        let (path, unet) = &self.unet;
        let width = |text: &(PathBuf, TextConfig)| text.1.transformer.width as u64;
        let texts = width(&self.text) + self.text_2.as_ref().map_or(0, width);
        let cross = self.number("cross_attention_dim");
        if unet.get("cross_attention_dim").is_none_or(Value::is_number) && cross.unwrap_or(1280) != texts {
            let reason = format!(
                "`cross_attention_dim` is {}, but tokens of the text encoders are {texts} wide ({}); the folder mixes the \
                 parts of several models, copy them again",
                cross.unwrap_or(1280),
                self.text.0.display()
            );
            return Err(unusable(path, reason));
        }
        let out = self.number("out_channels").unwrap_or(4);
        if out != self.vae.latent_channels() as u64 {
            let reason = format!("`out_channels` is {out}, but latents have {} channels", self.vae.latent_channels());
            return Err(unusable(path, reason));
        }
        let is_text_time = unet.get("addition_embed_type").and_then(Value::as_str) == Some("text_time");
        match (&self.text_2, is_text_time) {
            (Some((second, text)), true) => self.conditions_agree(second, text),
            (None, false) => Ok(()),
            (Some(_), false) => Err(unusable(path, "`addition_embed_type` is not `text_time`, as XL's is")),
            (None, true) => {
                Err(unusable(path, "`addition_embed_type` is `text_time`, as XL's is, but the pipeline is not XL's"))
            }
        }
    }

    /// Whether XL's pooled text and sizes are as wide as its network says.
    fn conditions_agree(&self, second: &Path, text: &TextConfig) -> Result<()> {
        let one = self.number("addition_time_embed_dim").unwrap_or(0);
        let expected = self.number("projection_class_embeddings_input_dim").unwrap_or(0);
        let found = one.saturating_mul(SIZES) + text.projection as u64;
        if found == expected {
            return Ok(());
        }
        let hint = match one.saturating_mul(SIZES - 1) + text.projection as u64 == expected {
            true => "five numbers, as XL's refiner is told, which is not supported: name the base model",
            false => "the folder mixes the parts of several models, copy them again",
        };
        let reason = format!(
            "`projection_class_embeddings_input_dim` is {expected}, but six numbers of {one} features and a text of {} \
             ({}) make {found}; {hint}",
            text.projection,
            second.display()
        );
        Err(unusable(&self.unet.0, reason))
    }

    fn is_inpainting(&self) -> Result<bool> {
        let latents = self.vae.latent_channels() as u64;
        match self.number("in_channels").unwrap_or(4) {
            channels if channels == latents => Ok(false),
            channels if channels == 2 * latents + 1 => Ok(true),
            channels => Err(unusable(
                &self.unet.0,
                format!(
                    "`in_channels` is {channels}; supported are {latents}, and {} with a mask and a masked image",
                    2 * latents + 1
                ),
            )),
        }
    }

    fn distilled(&self, index: &Index, scheduler: &Map<String, Value>) -> Option<Distilled> {
        let spacing = scheduler.get("timestep_spacing").and_then(Value::as_str);
        // Models that predict `v` or end in noise alone space their steps so too, and take many.
        let is_zero_snr = scheduler.get("rescale_betas_zero_snr").and_then(Value::as_bool) == Some(true);
        let says_epsilon =
            scheduler.get("prediction_type").and_then(Value::as_str).is_none_or(|said| said == "epsilon");
        let is_lcm = index.scheduler == "LCMScheduler" || is_latent_consistency(index);
        match index.scheduler.as_str() {
            _ if is_lcm || self.number("time_cond_proj_dim").is_some() => Some(Distilled::Lcm),
            "EulerDiscreteScheduler" | "EulerAncestralDiscreteScheduler"
                if spacing == Some("trailing") && !is_zero_snr && says_epsilon =>
            {
                Some(Distilled::Turbo)
            }
            _ => None,
        }
    }

    fn native_size(&self) -> Option<(usize, usize)> {
        let pixels = |latents: &Value| usize::try_from(latents.as_u64()?).ok()?.checked_mul(self.vae.downsampling());
        match self.unet.1.get("sample_size")? {
            Value::Array(sizes) => match sizes.as_slice() {
                [height, width] => Some((pixels(height)?, pixels(width)?)),
                _ => None,
            },
            size => Some((pixels(size)?, pixels(size)?)),
        }
    }
}
