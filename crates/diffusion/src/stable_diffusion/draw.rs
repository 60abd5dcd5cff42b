//! From prompts to latents: the loops of diffusers 0.42's Stable Diffusion pipelines (text to image, image to image,
//! inpainting, and their XL and latent consistency forms), for a batch of images that go the same way.

use candle_core::{DType, Device, Tensor};
use evenset_core::Progress;
use evenset_nn::models::{
    AutoencoderKL, Conditions, ControlNetModel, ControlResiduals, DeepFeatures, Tiling, UNet2DConditionModel,
};

use super::components::Components;
use super::encode::{Conditioning, Embedded};
use super::guidance::{guided, scale_embedding};
use super::settings::{ControlSettings, DeepCache, DrawSettings};
use super::sizes::{SizeConditioning, time_ids};
use super::start::{Latents, Start, planes};
use crate::error::{DiffusionError, Result};
use crate::scheduler::{Scheduler, Walk};

/// Pixels of the largest image that is encoded and decoded as a whole.
const UNTILED: usize = 1 << 20;

/// Which noise is asked for. All of it is standard normal, of the latents' shape.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Noise {
    /// What the walk starts from, alone or added to a real image.
    Start,
    /// For the draw of a real image's latents from the autoencoder's distribution.
    Posterior,
    /// The same for the part of the image that a mask keeps.
    MaskedPosterior,
    /// The i-th draw of a solver that adds noise.
    Step(usize),
}

/// Gives a batch's noise, `[batch, latent_channels, height / downsampling, width / downsampling]`.
pub type Noises<'a> = dyn FnMut(Noise) -> Result<Tensor> + 'a;

/// One image of a batch.
#[derive(Clone, Debug)]
pub struct Wanted<'a> {
    /// Its prompts, encoded.
    pub text: &'a Embedded,
    /// The real image that it starts from.
    pub start: Option<&'a Start>,
    /// A picture for each ControlNet, RGB `[height, width, 3]` at the size of the image.
    pub controls: &'a [Vec<u8>],
    /// Its guidance scale.
    pub guidance: f64,
}

impl Components {
    /// Latents `[batch, latent_channels, h, w]` in `f32` for images that have as many tokens, starts of one kind and
    /// strength, and one guidance scale. `progress` is told of each call of the network, and asked before it whether to stop.
    ///
    /// # Errors
    /// [`DiffusionError::Interrupted`];
    /// [`DiffusionError::Setting`] for a walk or settings that are impossible and for images that do not go the same way;
    /// what a tensor operation or `noise` gives.
    pub fn draw(
        &self,
        scheduler: &Scheduler,
        wanted: &[Wanted<'_>],
        settings: &DrawSettings,
        noise: &mut Noises<'_>,
        progress: &dyn Progress,
    ) -> Result<Tensor> {
        settings.validate(&self.facts)?;
        let way = Way::of(wanted)?;
        let starts: Vec<&Start> = wanted.iter().filter_map(|one| one.start).collect();
        starts.iter().try_for_each(|start| start.check(settings))?;
        let inpainting = self.facts.inpainting;
        if inpainting && !way.masked {
            let reason = "this model paints what a mask frees in an image, so it needs both; \
                          take a text-to-image model, or give guides and masks";
            return Err(DiffusionError::Setting { key: "model", reason: reason.into() });
        }
        self.check_controls(wanted, settings)?;
        let walk = scheduler.walk(settings.steps, way.strength)?;
        let latents = match starts.is_empty() {
            true => None,
            false => {
                let size = (settings, self.facts.downsampling);
                let vae = in_tiles(&self.vae, settings.height * settings.width)?;
                Some(Latents::of(&starts, &vae, size, &self.device, inpainting, noise)?)
            }
        };
        let network = Network::new(self, wanted, settings, way.guidance, latents.as_ref())?;
        let first = noise(Noise::Start)?.to_device(&self.device)?;
        // At full strength inpainting starts from noise alone, and image-to-image still from the image (as diffusers do).
        let image = latents.as_ref().and_then(|latents| latents.image.as_ref());
        let x = walk.start(&first, image.filter(|_| !way.masked || way.strength < 1.0))?;
        // A network of four channels knows nothing of the mask: what stays is put back after each step.
        let mask = latents.as_ref().filter(|_| !inpainting).and_then(|latents| latents.mask.as_ref());
        let mut calls = 0;
        let mut deep = settings.deep_cache.map(Deep::new);
        walk.run(
            &x,
            &mut |x, timestep| {
                progress.check()?;
                progress.note(&format!("call {} of {}", calls + 1, walk.timesteps().len()));
                let prediction = network.predict(x, timestep, &walk, calls, deep.as_mut());
                calls += 1;
                prediction
            },
            &mut |i| Ok(noise(Noise::Step(i))?.to_device(&self.device)?),
            &mut |i, x| match (image, mask) {
                (Some(image), Some(mask)) => {
                    let stays = mask.free.affine(-1.0, 1.0)?;
                    let image = walk.noised(image, &first, i + 1)?;
                    Ok((image.broadcast_mul(&stays)? + x.broadcast_mul(&mask.free)?)?)
                }
                _ => Ok(x),
            },
        )
    }

    /// Refuses pictures that are not one for each ControlNet, at the images' size.
    fn check_controls(&self, wanted: &[Wanted<'_>], settings: &DrawSettings) -> Result<()> {
        let (nets, bytes) = (self.controls.len(), settings.height * settings.width * 3);
        let fits = |one: &Wanted<'_>| one.controls.len() == nets && one.controls.iter().all(|rgb| rgb.len() == bytes);
        match wanted.iter().all(fits) && settings.controls.len() == nets {
            true => Ok(()),
            false => {
                let reason = format!(
                    "there are {nets} ControlNets: each image needs as many RGB pictures of {}x{}, and each net its settings",
                    settings.width, settings.height
                );
                Err(DiffusionError::Setting { key: "controls", reason })
            }
        }
    }

    /// Images `[batch, 3, height, width]` of about `[-1, 1]` in `f32` from latents of [`draw`](Self::draw).
    ///
    /// Images of more than a million pixels are decoded in tiles, so that memory does not grow with them.
    ///
    /// # Errors
    /// What a tensor operation gives.
    pub fn decode(&self, latents: &Tensor) -> Result<Tensor> {
        let Some(small) = &self.small_decoder else { return self.decode_with(&self.vae, latents) };
        let tiling = (self.pixels(latents)? > UNTILED).then_some(Tiling::USUAL);
        let small = small.clone().with_tiling(tiling)?;
        Ok(small.decode(&small.from_model(&latents.to_dtype(DType::F32)?)?)?)
    }

    /// The same with another autoencoder.
    pub(super) fn decode_with(&self, vae: &AutoencoderKL, latents: &Tensor) -> Result<Tensor> {
        let vae = in_tiles(vae, self.pixels(latents)?)?;
        Ok(vae.decode(&vae.from_model(&latents.to_dtype(DType::F32)?)?)?)
    }

    /// Pixels of an image with these latents.
    fn pixels(&self, latents: &Tensor) -> Result<usize> {
        let (_, _, height, width) = latents.dims4()?;
        Ok(height * width * self.facts.downsampling.pow(2))
    }
}

/// The autoencoder for images of so many pixels.
fn in_tiles(vae: &AutoencoderKL, pixels: usize) -> Result<AutoencoderKL> {
    Ok(vae.clone().with_tiling((pixels > UNTILED).then(|| Tiling::of(vae.config())))?)
}

/// What the images of a batch have in common.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Way {
    strength: f64,
    started: bool,
    masked: bool,
    tokens: usize,
    guidance: f64,
}

impl Way {
    fn of(wanted: &[Wanted<'_>]) -> Result<Self> {
        let way = |one: &Wanted<'_>| Self {
            strength: one.start.map_or(1.0, |start| start.strength),
            started: one.start.is_some(),
            masked: one.start.is_some_and(|start| start.mask.is_some()),
            tokens: one.text.tokens(),
            guidance: one.guidance,
        };
        let mut ways = wanted.iter().map(way);
        match ways.next() {
            Some(first) if ways.all(|way| way == first) => Ok(first),
            _ => {
                let reason = "a batch needs an image, and all of it the same kind of start, tokens and guidance";
                Err(DiffusionError::Setting { key: "batch", reason: reason.into() })
            }
        }
    }
}

/// The denoising network with everything that stays the same from step to step.
struct Network<'a> {
    unet: &'a UNet2DConditionModel,
    settings: &'a DrawSettings,
    guidance: f64,
    positive: Conditioning,
    /// What guidance steers away from; none where there is no guidance.
    negative: Option<Conditioning>,
    /// XL: `[batch, 6]`.
    sizes: Option<Tensor>,
    /// Latent consistency: `[batch, width]`.
    scale: Option<Tensor>,
    /// ControlNets that are shown something, with the pictures `[batch, 3, height, width]` in `[0, 1]`.
    controls: Vec<(&'a ControlNetModel, Tensor, ControlSettings)>,
    /// Nine channels: the mask and the image that stays, `[batch, 1 + latent_channels, h, w]`.
    beside: Option<Tensor>,
    device: &'a Device,
}

impl<'a> Network<'a> {
    fn new(
        components: &'a Components,
        wanted: &[Wanted<'_>],
        settings: &'a DrawSettings,
        guidance: f64,
        latents: Option<&Latents>,
    ) -> Result<Self> {
        let (facts, device) = (&components.facts, &components.device);
        super::settings::check_guidance(guidance)?;
        let positives: Vec<&Conditioning> = wanted.iter().map(|one| &one.text.positive).collect();
        let positive = Conditioning::stack(&positives)?;
        let negative = match is_guided(guidance, facts.guidance_embedding) {
            false => None,
            true => {
                let all: Option<Vec<&Conditioning>> = wanted.iter().map(|one| one.text.negative.as_ref()).collect();
                let missing = || DiffusionError::Setting {
                    key: "guidance",
                    reason: "it steers away from a negative prompt, and none was encoded".into(),
                };
                Some(Conditioning::stack(&all.ok_or_else(missing)?)?)
            }
        };
        let beside = match latents.and_then(|latents| latents.mask.as_ref()) {
            Some(super::start::Mask { free, kept: Some(kept) }) => Some(Tensor::cat(&[free, kept], 1)?),
            _ => None,
        };
        let of_size = |pooled: &Tensor| {
            let size = SizeConditioning::of(settings.height as u32, settings.width as u32);
            time_ids(&vec![size; pooled.dims().first().copied().unwrap_or(0)], device)
        };
        let controls =
            components.controls.iter().zip(&settings.controls).enumerate().map(|(i, (model, settings_of))| {
                let pictures = wanted.iter().filter_map(|one| one.controls.get(i)).map(Vec::as_slice);
                let pictures = planes(pictures, (settings.height, settings.width), |v| f32::from(v) / 255.0, device)?;
                Ok((model, pictures, *settings_of))
            });
        let scale = facts.guidance_embedding.map(|width| scale_embedding(&vec![guidance; wanted.len()], width, device));
        Ok(Self {
            unet: &components.unet,
            settings,
            guidance,
            sizes: positive.pooled.as_ref().map(of_size).transpose()?,
            scale: scale.transpose()?,
            controls: controls.collect::<Result<_>>()?,
            positive,
            negative,
            beside,
            device,
        })
    }

    /// The guided prediction for `x` at call `call` of `walk`.
    fn predict(
        &self,
        x: &Tensor,
        timestep: f64,
        walk: &Walk<'_>,
        call: usize,
        mut deep: Option<&mut Deep>,
    ) -> Result<Tensor> {
        let now = Now { x, timestep, share: (call, walk.timesteps().len()) };
        let sigma = walk.sigma(call);
        let within = self.settings.guidance_interval.is_none_or(|[low, high]| (low..=high).contains(&sigma));
        let negative = self.negative.as_ref().filter(|_| within);
        if let Some(deep) = &mut deep {
            deep.begin(call, negative.is_some());
        }
        let [first, second] = deep.map_or([None, None], |deep| deep.features.each_mut().map(Some));
        let Some(negative) = negative else {
            return self.call(now, &[&self.positive], first);
        };
        let (positive, negative) = match self.settings.guided_at_once {
            true => {
                let both = self.call(now, &[negative, &self.positive], first)?;
                let batch = x.dim(0)?;
                (both.narrow(0, batch, batch)?, both.narrow(0, 0, batch)?)
            }
            false => (self.call(now, &[&self.positive], first)?, self.call(now, &[negative], second)?),
        };
        guided(&positive, &negative, self.guidance, self.settings.guidance_rescale)
    }

    /// The network's predictions under each of `texts`, one behind another.
    fn call(&self, now: Now<'_>, texts: &[&Conditioning], deep: Option<&mut DeepFeatures>) -> Result<Tensor> {
        let repeated = |x: &Tensor| Tensor::cat(&vec![x; texts.len()], 0);
        let text = Conditioning::stack(texts)?;
        let latents = repeated(now.x)?;
        let timesteps = Tensor::full(now.timestep as f32, latents.dim(0)?, self.device)?;
        let sizes = self.sizes.as_ref().map(repeated).transpose()?;
        let scale = self.scale.as_ref().map(repeated).transpose()?;
        let conditions = Conditions {
            text: Some(&text.tokens),
            pooled_text: text.pooled.as_ref(),
            time_ids: sizes.as_ref(),
            ..Conditions::default()
        };
        let mut control: Option<ControlResiduals> = None;
        let (call, calls) = now.share;
        for (model, pictures, settings) in self.controls.iter().filter(|(.., settings)| settings.acts(call, calls)) {
            let seen = model.forward(&latents, &timesteps, &conditions, &repeated(pictures)?, settings.scale)?;
            control = Some(match control {
                Some(before) => before.add(&seen)?,
                None => seen,
            });
        }
        let input = match &self.beside {
            Some(beside) => Tensor::cat(&[&latents, &repeated(beside)?], 1)?,
            None => latents,
        };
        let conditions = Conditions { timestep: scale.as_ref(), ..conditions };
        Ok(self.unet.forward_with(&input, &timesteps, &conditions, control.as_ref(), deep)?)
    }
}

/// The deep features of the steps before.
#[derive(Debug)]
struct Deep {
    interval: usize,
    /// Of the prediction with the prompt, or of both in one call; and of that without it, in a call of its own.
    features: [DeepFeatures; 2],
    /// Whether the step before was guided.
    guided: bool,
}

impl Deep {
    fn new(settings: DeepCache) -> Self {
        let features = || DeepFeatures::new(settings.branch);
        Self { interval: settings.interval, features: [features(), features()], guided: false }
    }

    /// Has every `interval`th call compute the whole network, and one with other texts than the call before.
    fn begin(&mut self, call: usize, guided: bool) {
        if call.is_multiple_of(self.interval.max(1)) || guided != self.guided {
            self.features.iter_mut().for_each(DeepFeatures::forget);
        }
        self.guided = guided;
    }
}

/// Where a walk is.
#[derive(Clone, Copy)]
struct Now<'a> {
    x: &'a Tensor,
    timestep: f64,
    /// Number of the call, and how many there are.
    share: (usize, usize),
}

/// Whether the network is also asked about the negative prompt (diffusers' `do_classifier_free_guidance`).
pub(super) fn is_guided(guidance: f64, embedding: Option<usize>) -> bool {
    guidance > 1.0 && embedding.is_none()
}
