//! A loaded model, and images for requests.

use std::collections::BTreeMap;
use std::sync::OnceLock;

use candle_core::{DType, Device, Tensor};
use evenset_core::{Progress, Seed};
use evenset_nn::models::{AutoencoderKL, LoadOptions};
use evenset_nn::no_grad;

use super::components::{Additions, Components};
use super::draw::{Noise, Wanted, is_guided};
use super::encode::Embedded;
use super::facts::{Family, ModelFacts};
use super::prompt::Prompt;
use super::settings::DrawSettings;
use super::source::ModelSource;
use super::start::Start;
use crate::error::Result;
use crate::image::Generated;
use crate::scheduler::{Scheduler, SchedulerJson};

/// Pixels that go through the networks together: an image is the same in any batch. One of 512 x 512 fills a processor, and
/// what plans say of memory is of one; a graphics card takes four.
const PIXELS: usize = 1 << 18;
const PIXELS_ON_A_CARD: usize = 1 << 20;

/// One image to be drawn.
#[derive(Clone, Debug)]
pub struct PromptRequest {
    /// What it shows.
    pub prompt: Prompt,
    /// Where its noise comes from.
    pub seed: Seed,
    /// The real image that it starts from; from pure noise without one.
    pub start: Option<Start>,
    /// Its own guidance scale instead of the settings'.
    pub guidance: Option<f64>,
    /// A picture for each ControlNet, RGB `[height, width, 3]` at the size of the image.
    pub controls: Vec<Vec<u8>>,
}

impl PromptRequest {
    /// An image drawn from pure noise with the settings' guidance.
    pub fn new(prompt: Prompt, seed: Seed) -> Self {
        Self { prompt, seed, start: None, guidance: None, controls: Vec::new() }
    }
}

/// A Stable Diffusion model, ready to draw.
#[derive(Debug)]
pub struct StableDiffusion {
    source: Box<dyn ModelSource>,
    components: Components,
    scheduler: SchedulerJson,
    /// The autoencoder in `f32`, once the one in another number type has overflowed.
    exact: OnceLock<AutoencoderKL>,
}

impl StableDiffusion {
    /// Loads the networks of a model with `additions` on `device`, with weights in `dtype`.
    ///
    /// # Errors
    /// Those of [`Components::load`] and [`ModelSource::scheduler`].
    pub fn load(source: Box<dyn ModelSource>, additions: &Additions, device: &Device, dtype: DType) -> Result<Self> {
        let scheduler = source.scheduler()?;
        let components = Components::load(source.as_ref(), additions, device, dtype)?;
        Ok(Self { source, components, scheduler, exact: OnceLock::new() })
    }

    /// Where it was read from.
    pub fn source(&self) -> &dyn ModelSource {
        self.source.as_ref()
    }

    /// Its own solver, by diffusers' name, as `PNDMScheduler`.
    pub fn solver(&self) -> &str {
        self.scheduler.class_name().unwrap_or_default()
    }

    /// Its networks.
    pub fn components(&self) -> &Components {
        &self.components
    }

    /// The solver that `settings` ask for, with what diffusers repairs in outdated files of Stable Diffusion 1 and 2.
    ///
    /// # Errors
    /// [`DiffusionError::SchedulerSetting`](crate::DiffusionError::SchedulerSetting).
    pub fn scheduler(&self, settings: &DrawSettings, masked: bool) -> Result<Scheduler> {
        solver(&self.scheduler, &self.components.facts, settings, masked)
    }

    /// One image for each request, in their order.
    ///
    /// An image depends on its request, `settings` and the model alone: not on the other requests nor on the threads.
    /// `progress` is only asked whether to stop, so that a caller's own task can be open.
    ///
    /// # Errors
    /// [`DiffusionError::Prompt`](crate::DiffusionError::Prompt) and
    /// [`DiffusionError::Setting`](crate::DiffusionError::Setting) before any image is drawn;
    /// [`DiffusionError::Interrupted`](crate::DiffusionError::Interrupted).
    pub fn generate(
        &self,
        requests: &[PromptRequest],
        settings: &DrawSettings,
        progress: &dyn Progress,
    ) -> Result<Vec<Generated>> {
        let facts = &self.components.facts;
        settings.validate(facts)?;
        let mut texts: Vec<Embedded> = Vec::with_capacity(requests.len());
        for request in requests {
            progress.check()?;
            let guidance = request.guidance.unwrap_or(settings.guidance);
            super::settings::check_guidance(guidance)?;
            request.start.iter().try_for_each(|start| start.check(settings))?;
            let guided = is_guided(guidance, facts.guidance_embedding);
            texts.push(self.components.text.encode(&request.prompt, settings.prompts, guided)?);
        }
        let mut alike = BTreeMap::<Way, Vec<usize>>::new();
        for (i, (request, text)) in requests.iter().zip(&texts).enumerate() {
            alike.entry(Way::of(request, text, settings)).or_default().push(i);
        }
        let pixels = if self.components.device.is_cpu() { PIXELS } else { PIXELS_ON_A_CARD };
        let most = (pixels / (settings.height * settings.width).max(1)).clamp(1, 64);
        let mut images: Vec<Option<Generated>> = vec![None; requests.len()];
        for (way, places) in &alike {
            let scheduler = self.scheduler(settings, way.masked)?;
            for places in places.chunks(most) {
                progress.check()?;
                let of = |&i: &usize| {
                    let (request, text) = (requests.get(i)?, texts.get(i)?);
                    let guidance = f64::from_bits(way.guidance);
                    let controls = &request.controls;
                    Some((Wanted { text, start: request.start.as_ref(), guidance, controls }, request.seed))
                };
                let (wanted, seeds): (Vec<Wanted<'_>>, Vec<Seed>) = places.iter().filter_map(of).unzip();
                let drawn = no_grad(|| self.batch(&scheduler, &wanted, &seeds, settings, progress))?;
                for (&place, image) in places.iter().zip(drawn) {
                    if let Some(slot) = images.get_mut(place) {
                        *slot = Some(image);
                    }
                }
            }
        }
        Ok(images.into_iter().flatten().collect())
    }

    fn batch(
        &self,
        scheduler: &Scheduler,
        wanted: &[Wanted<'_>],
        seeds: &[Seed],
        settings: &DrawSettings,
        progress: &dyn Progress,
    ) -> Result<Vec<Generated>> {
        let facts = &self.components.facts;
        let (height, width) = (settings.height / facts.downsampling, settings.width / facts.downsampling);
        let shape = (seeds.len(), facts.latent_channels, height, width);
        let mut noise = |which: Noise| {
            let one = |seed: &Seed| noise_seed(*seed, which).normal(facts.latent_channels * height * width);
            Ok(Tensor::from_vec(seeds.iter().flat_map(one).collect(), shape, &Device::Cpu)?)
        };
        let latents = self.components.draw(scheduler, wanted, settings, &mut noise, progress)?;
        let mut images = self.pixels(&self.components.decode(&latents)?)?;
        // A decoder may turn what is not a number into a number.
        let values = latents.flatten_all()?.to_device(&Device::Cpu)?.to_vec1::<f32>()?;
        let each = facts.latent_channels * height * width;
        for (image, latents) in images.iter_mut().zip(values.chunks_exact(each.max(1))) {
            image.finite &= latents.iter().all(|value| value.is_finite());
        }
        if images.iter().any(|image| !image.finite) && self.components.overflows() {
            tracing::warn!("the autoencoder overflowed; it decodes in f32 from here on where it does");
            let again = self.pixels(&self.components.decode_with(self.exact()?, &latents)?)?;
            for (image, again) in images.iter_mut().zip(again).filter(|(image, _)| !image.finite) {
                *image = again;
            }
        }
        Ok(images)
    }

    /// The autoencoder in `f32`.
    fn exact(&self) -> Result<&AutoencoderKL> {
        if let Some(vae) = self.exact.get() {
            return Ok(vae);
        }
        let vae = self.source.vae(&self.components.device, LoadOptions::default())?;
        Ok(self.exact.get_or_init(|| vae))
    }

    /// Images `[batch, 3, height, width]` in `[-1, 1]` as bytes.
    fn pixels(&self, images: &Tensor) -> Result<Vec<Generated>> {
        let (_, channels, height, width) = images.dims4()?;
        let values = images.permute((0, 2, 3, 1))?.flatten_all()?.to_device(&Device::Cpu)?.to_vec1::<f32>()?;
        let byte = |value: &f32| ((value / 2.0 + 0.5).clamp(0.0, 1.0) * 255.0).round_ties_even() as u8;
        let image = |values: &[f32]| Generated {
            width: width as u32,
            height: height as u32,
            channels: channels as u32,
            pixels: values.iter().map(byte).collect(),
            finite: values.iter().all(|value| value.is_finite()),
        };
        Ok(values.chunks_exact((channels * height * width).max(1)).map(image).collect())
    }
}

/// Whether a model whose weights need not be read draws so, from noise and, at these strengths, from real images.
///
/// # Errors
/// [`DiffusionError::Setting`](crate::DiffusionError::Setting) for impossible settings, steps or strengths, and what
/// [`ModelSource::scheduler`] and [`StableDiffusion::scheduler`] give.
pub fn check_settings(source: &dyn ModelSource, settings: &DrawSettings, strengths: &[f64]) -> Result<()> {
    settings.validate(source.facts())?;
    let scheduler = solver(&source.scheduler()?, source.facts(), settings, false)?;
    [1.0].iter().chain(strengths).try_for_each(|&strength| scheduler.walk(settings.steps, strength).map(drop))
}

fn solver(own: &SchedulerJson, facts: &ModelFacts, settings: &DrawSettings, masked: bool) -> Result<Scheduler> {
    let scheduler = own.scheduler(settings.scheduler)?;
    Ok(match (facts.family, masked) {
        _ if facts.latent_consistency => scheduler.for_latent_consistency(),
        (Family::Xl, _) => scheduler,
        (_, true) => scheduler.for_stable_diffusion_inpaint(),
        (_, false) => scheduler.for_stable_diffusion(),
    })
}

/// Each kind of noise of an image has a seed of its own.
fn noise_seed(seed: Seed, which: Noise) -> Seed {
    match which {
        Noise::Start => seed.derive("start"),
        Noise::Posterior => seed.derive("posterior"),
        Noise::MaskedPosterior => seed.derive("masked posterior"),
        Noise::Step(i) => seed.derive("step").index(i as u64),
    }
}

/// What images of one batch have in common.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Way {
    tokens: usize,
    started: bool,
    masked: bool,
    strength: u64,
    guidance: u64,
}

impl Way {
    fn of(request: &PromptRequest, text: &Embedded, settings: &DrawSettings) -> Self {
        let start = request.start.as_ref();
        Self {
            tokens: text.tokens(),
            started: start.is_some(),
            masked: start.is_some_and(|start| start.mask.is_some()),
            strength: start.map_or(1.0, |start| start.strength).to_bits(),
            guidance: request.guidance.unwrap_or(settings.guidance).to_bits(),
        }
    }
}
