//! A model's networks, read once.

use std::path::PathBuf;
use std::time::Instant;

use candle_core::{DType, Device};
use evenset_nn::models::clip::{LearnedToken, TextAdditions};
use evenset_nn::models::{AutoencoderKL, AutoencoderTiny, ControlNetModel, LoadOptions, UNet2DConditionModel, Variant};
use evenset_nn::{LoraStack, Part};

use super::encode::{Encoder, TextEncoders};
use super::facts::{Family, ModelFacts};
use super::files::unusable;
use super::source::ModelSource;
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
    /// Folder of a small decoder that stands in for the model's own.
    pub small_decoder: Option<PathBuf>,
    /// Which file is read where one of these folders has two.
    pub variant: Variant,
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
    /// Latents become images in its place.
    pub small_decoder: Option<AutoencoderTiny>,
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
    /// All networks of a model with `additions` on `device`, with weights in `dtype` (`F32`, `F16` or `BF16`) straight from
    /// the mapped files. On other devices than the CPU, which compute in the weights' number type, an autoencoder that is
    /// known to overflow in `F16` is kept in `F32`.
    ///
    /// How long each took is logged.
    ///
    /// # Errors
    /// [`DiffusionError::Network`](crate::DiffusionError::Network) names the file and the tensor that is missing, one too
    /// many or of another shape than its configuration says, and a LoRA, learned word or ControlNet of another model;
    /// [`DiffusionError::Model`](crate::DiffusionError::Model) a tokenizer that is another model's.
    pub fn load(source: &dyn ModelSource, additions: &Additions, device: &Device, dtype: DType) -> Result<Self> {
        let started = Instant::now();
        let options = LoadOptions::default().with_dtype(dtype);
        let facts = *source.facts();
        let is_xl = facts.family == Family::Xl;
        let parts = [Part::UNet, Part::TextEncoder, Part::TextEncoder2];
        additions.loras.only(if is_xl { &parts } else { &parts[..2] })?;
        let text = |part| {
            let words = TextAdditions { part, loras: Some(&additions.loras), learned: &additions.learned };
            encoder(source, words, device, options)
        };
        let first = text(Part::TextEncoder)?;
        let second = is_xl.then(|| text(Part::TextEncoder2)).transpose()?;
        let unet = timed("unet", || source.unet(device, options, &additions.loras))?;
        let vae = timed("vae", || autoencoder(source, device, options))?;
        let beside = options.with_variant(additions.variant);
        let control =
            |dir: &PathBuf| timed("controlnet", || Ok(ControlNetModel::from_pretrained(dir, device, beside)?));
        let controls = additions.controls.iter().map(control).collect::<Result<_>>()?;
        let small = additions.small_decoder.as_ref();
        let small =
            small.map(|dir| timed("small decoder", || Ok(AutoencoderTiny::from_pretrained(dir, device, beside)?)));
        let small_decoder = small.transpose()?;
        tracing::info!(
            model = %source.path().display(),
            family = %facts.family,
            ?dtype,
            seconds = started.elapsed().as_secs_f32(),
            "loaded a model"
        );
        let text = TextEncoders::new(first, second, facts.zeros_for_no_negative);
        Ok(Self { text, unet, vae, small_decoder, controls, facts, device: device.clone(), dtype })
    }

    /// Whether the autoencoder computes in a number type that overflows where `f32` does not: not on the CPU, which always
    /// computes in `f32`.
    pub(super) fn overflows(&self) -> bool {
        !self.device.is_cpu() && self.dtype == DType::F16 && self.small_decoder.is_none()
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
    source: &dyn ModelSource,
    additions: TextAdditions<'_>,
    device: &Device,
    options: LoadOptions,
) -> Result<Encoder> {
    let part = additions.part;
    let model = timed(&part.to_string(), || source.text_encoder(device, options, &additions))?;
    let is_second = part == Part::TextEncoder2;
    if is_second && !model.has_projection() {
        let reason = format!("the weights of {part} lack `text_projection`, which XL's second text encoder has");
        return Err(unusable(source.path(), reason));
    }
    let config = model.model().config();
    let mut tokenizer = source.tokenizer(part, config.positions)?;
    if tokenizer.words() > config.vocabulary {
        let reason = format!(
            "the tokenizer of {part} has {} words, but {part} has {}; copy the tokenizer of this model",
            tokenizer.words(),
            config.vocabulary
        );
        return Err(unusable(source.path(), reason));
    }
    tokenizer.add_learned(additions.learned, config.vocabulary)?;
    let masked = !is_second && source.hides_filling(part)?;
    Ok(Encoder { model, tokenizer, masked })
}

fn autoencoder(source: &dyn ModelSource, device: &Device, options: LoadOptions) -> Result<AutoencoderKL> {
    let kept = match (options.dtype, device.is_cpu(), source.vae_overflows()?) {
        (DType::F16, false, true) => options.with_dtype(DType::F32),
        _ => options,
    };
    source.vae(device, kept)
}
