//! A model's networks, read once.

use std::path::{Path, PathBuf};
use std::time::Instant;

use candle_core::{DType, Device};
use evenset_nn::models::clip::{ClipTextEncoder, Family as ClipFamily, LearnedToken, TextAdditions, Tokenizer};
use evenset_nn::models::{AutoencoderKL, AutoencoderKLConfig, ControlNetModel, LoadOptions, UNet2DConditionModel};
use evenset_nn::{LoraStack, Part};
use serde_json::Value;

use super::encode::{Encoder, TextEncoders};
use super::facts::{Family, ModelFacts};
use super::files::{read_json, read_text, unusable};
use super::folder::ModelFolder;
use crate::error::Result;

/// What is added to a model while it is loaded. The default is nothing.
#[derive(Clone, Debug, Default)]
pub struct Additions {
    /// LoRAs, added to the weights.
    pub loras: LoraStack,
    /// Words by textual inversion (Gal et al. 2022).
    pub learned: Vec<LearnedToken>,
    /// Folders of ControlNets (Zhang et al. 2023), in the order of the pictures of each request.
    pub controls: Vec<PathBuf>,
}

/// The networks of a model. They are constants: every image is drawn with them.
#[derive(Debug)]
pub struct Components {
    /// Prompts become what the network sees.
    pub text: TextEncoders,
    /// Latents lose noise.
    pub unet: UNet2DConditionModel,
    /// Images become latents, and latents images.
    pub vae: AutoencoderKL,
    /// Pictures that images follow.
    pub controls: Vec<ControlNetModel>,
    /// What kind of model it is.
    pub facts: ModelFacts,
    /// Where the networks are.
    pub device: Device,
    /// The number type of their weights.
    pub dtype: DType,
}

impl Components {
    /// All networks of `folder` with `additions` on `device`, with weights in `dtype` (`F32`, `F16` or `BF16`) straight from the mapped
    /// files. On other devices than the CPU, which compute in the weights' number type, an autoencoder that is known to
    /// overflow in `F16` (`force_upcast`) is kept in `F32`.
    ///
    /// How long each took is logged.
    ///
    /// # Errors
    /// [`DiffusionError::Network`](crate::DiffusionError::Network) names the file and the tensor that is missing, one too
    /// many or of another shape than its configuration says, and a LoRA, learned word or ControlNet of another model;
    /// [`DiffusionError::Model`](crate::DiffusionError::Model) a tokenizer that is another model's.
    pub fn load(folder: &ModelFolder, additions: &Additions, device: &Device, dtype: DType) -> Result<Self> {
        let started = Instant::now();
        let options = LoadOptions::default().with_dtype(dtype).with_variant(folder.variant());
        let facts = *folder.facts();
        let is_xl = facts.family == Family::Xl;
        let parts = [Part::UNet, Part::TextEncoder, Part::TextEncoder2];
        additions.loras.only(if is_xl { &parts } else { &parts[..2] })?;
        let text = |part| {
            let words = TextAdditions { part, loras: Some(&additions.loras), learned: &additions.learned };
            encoder(folder, words, device, options)
        };
        let first = text(Part::TextEncoder)?;
        let second = is_xl.then(|| text(Part::TextEncoder2)).transpose()?;
        let unet = timed("unet", || {
            let (dir, loras) = (folder.part("unet"), &additions.loras);
            Ok(UNet2DConditionModel::from_pretrained_with(&dir, device, options, loras)?)
        })?;
        let vae = timed("vae", || autoencoder(&folder.part("vae"), device, options))?;
        let control =
            |dir: &PathBuf| timed("controlnet", || Ok(ControlNetModel::from_pretrained(dir, device, options)?));
        let controls = additions.controls.iter().map(control).collect::<Result<_>>()?;
        tracing::info!(
            model = %folder.dir().display(),
            family = %facts.family,
            ?dtype,
            seconds = started.elapsed().as_secs_f32(),
            "loaded a model"
        );
        let text = TextEncoders::new(first, second, facts.zeros_for_no_negative);
        Ok(Self { text, unet, vae, controls, facts, device: device.clone(), dtype })
    }

    /// Whether the autoencoder computes in a number type that overflows where `f32` does not: not on the CPU, which always
    /// computes in `f32`.
    pub(super) fn overflows(&self) -> bool {
        !self.device.is_cpu() && self.dtype == DType::F16
    }
}

fn timed<T>(part: &str, load: impl FnOnce() -> Result<T>) -> Result<T> {
    let started = Instant::now();
    let loaded = load()?;
    tracing::debug!(part, seconds = started.elapsed().as_secs_f32(), "loaded a part of a model");
    Ok(loaded)
}

/// A text encoder with its tokenizer.
fn encoder(
    folder: &ModelFolder,
    additions: TextAdditions<'_>,
    device: &Device,
    options: LoadOptions,
) -> Result<Encoder> {
    let suffix = if additions.part == Part::TextEncoder2 { "_2" } else { "" };
    let (part, words) = (additions.part.to_string(), folder.part(&format!("tokenizer{suffix}")));
    let dir = folder.part(&part);
    let model = timed(&part, || Ok(ClipTextEncoder::from_pretrained_with(&dir, device, options, &additions)?))?;
    if !suffix.is_empty() && !model.has_projection() {
        return Err(unusable(&dir, "its weights lack `text_projection`, which XL's second text encoder has"));
    }
    let config = model.model().config();
    let length = config.positions.min(model_max_length(&words)?.unwrap_or(config.positions));
    let mut tokenizer = Tokenizer::from_folder(&words, ClipFamily::Clip, length)?;
    if tokenizer.words() > config.vocabulary {
        let reason = format!(
            "the tokenizer has {} words, but {} of the model has {}; copy the tokenizer of this model",
            tokenizer.words(),
            dir.display(),
            config.vocabulary
        );
        return Err(unusable(&words, reason));
    }
    tokenizer.add_learned(additions.learned, config.vocabulary)?;
    let asks = read_json(&dir.join("config.json"))?.get("use_attention_mask").and_then(Value::as_bool);
    Ok(Encoder { model, tokenizer, masked: suffix.is_empty() && asks == Some(true) })
}

/// The length of texts that the tokenizer's own file says.
fn model_max_length(dir: &Path) -> Result<Option<usize>> {
    let path = dir.join("tokenizer_config.json");
    if !path.is_file() {
        return Ok(None);
    }
    let length = read_json(&path)?.get("model_max_length").and_then(Value::as_u64);
    Ok(length.and_then(|length| usize::try_from(length).ok()))
}

fn autoencoder(dir: &Path, device: &Device, options: LoadOptions) -> Result<AutoencoderKL> {
    let text = read_text(&dir.join("config.json"))?;
    let overflows = AutoencoderKLConfig::from_json(&text)?.force_upcast();
    let kept = match (options.dtype, device.is_cpu(), overflows) {
        (DType::F16, false, true) => options.with_dtype(DType::F32),
        _ => options,
    };
    Ok(AutoencoderKL::from_pretrained(dir, device, kept)?)
}
