//! What a walk starts from: noise, a real image, or a real image of which a mask frees a part.

use candle_core::{Device, Tensor};
use evenset_nn::models::AutoencoderKL;

use super::draw::{Noise, Noises};
use super::settings::DrawSettings;
use crate::error::{DiffusionError, Result};

/// A real image to start from.
#[derive(Clone, Debug, PartialEq)]
pub struct Start {
    /// RGB, `[height, width, 3]` at the size of the images that are drawn.
    pub pixels: Vec<u8>,
    /// Above 0, at most 1: the share of the steps that are walked (diffusers' `strength`). Little changes near 0.
    pub strength: f64,
    /// `[height, width]`: from 128 up, the pixel is drawn anew; the others stay. Without a mask the whole image changes.
    pub mask: Option<Vec<u8>>,
}

impl Start {
    /// Refuses a picture, mask or strength that does not fit.
    pub(super) fn check(&self, settings: &DrawSettings) -> Result<()> {
        let fail = |key, reason| Err(DiffusionError::Setting { key, reason });
        let pixels = settings.height * settings.width;
        let size = format!("{}x{}", settings.width, settings.height);
        if self.pixels.len() != 3 * pixels {
            return fail("guide", format!("{} bytes are no RGB image of {size}", self.pixels.len()));
        }
        if let Some(mask) = self.mask.as_ref().filter(|mask| mask.len() != pixels) {
            return fail("mask", format!("{} bytes are no mask of {size}", mask.len()));
        }
        if !(self.strength > 0.0 && self.strength <= 1.0) {
            return fail("strength", format!("{} is not above 0 and at most 1", self.strength));
        }
        Ok(())
    }
}

/// The latents of a batch's real images.
pub(super) struct Latents {
    /// `[batch, latent_channels, h, w]`, as the model sees them; none where nothing is made of them: a network that is
    /// shown what stays, and starts from noise alone.
    pub(super) image: Option<Tensor>,
    pub(super) mask: Option<Mask>,
}

/// What is to be drawn anew.
pub(super) struct Mask {
    /// `[batch, 1, h, w]`: 1 where it is, 0 where the image stays.
    pub(super) free: Tensor,
    /// What stays, with grey in place of the rest, as latents: what a network of nine channels is shown.
    pub(super) kept: Option<Tensor>,
}

impl Latents {
    /// Encodes the images of `starts`. Masks are there for all of them or for none. `nine_channels` says whether the
    /// network is shown the masked image (diffusers' `prepare_mask_latents`).
    pub(super) fn of(
        starts: &[&Start],
        vae: &AutoencoderKL,
        (settings, downsampling): (&DrawSettings, usize),
        device: &Device,
        nine_channels: bool,
        noise: &mut Noises<'_>,
    ) -> Result<Self> {
        let DrawSettings { height, width, .. } = *settings;
        let rgb = starts.iter().map(|start| start.pixels.as_slice());
        let pixels = planes(rgb, (height, width), |byte| f32::from(byte) / 127.5 - 1.0, device)?;
        let mut encode = |images: &Tensor, which: Noise| -> Result<Tensor> {
            let posterior = vae.encode(images)?;
            Ok(vae.to_model(&posterior.sample(&noise(which)?.to_device(device)?)?)?)
        };
        let masks: Vec<&[u8]> = starts.iter().filter_map(|start| start.mask.as_deref()).collect();
        let unused = nine_channels && starts.iter().all(|start| start.strength == 1.0);
        let image = if unused { None } else { Some(encode(&pixels, Noise::Posterior)?) };
        if masks.len() < starts.len() {
            return Ok(Self { image, mask: None });
        }
        let free = |step: usize| -> Result<Tensor> {
            let (rows, columns) = (height / step, width / step);
            let at = |mask: &[u8], i: usize| mask.get((i / columns * width + i % columns) * step).copied();
            let value = |value: Option<u8>| if value.unwrap_or(0) >= 128 { 1f32 } else { 0.0 };
            let values: Vec<f32> =
                masks.iter().flat_map(|mask| (0..rows * columns).map(move |i| value(at(mask, i)))).collect();
            Ok(Tensor::from_vec(values, (masks.len(), 1, rows, columns), device)?)
        };
        let kept = match nine_channels {
            true => {
                let stays = free(1)?.affine(-1.0, 1.0)?;
                Some(encode(&pixels.broadcast_mul(&stays)?, Noise::MaskedPosterior)?)
            }
            false => None,
        };
        Ok(Self { image, mask: Some(Mask { free: free(downsampling)?, kept }) })
    }
}

/// RGB images as networks take them: `[batch, 3, height, width]`, each byte as `value` says.
pub(super) fn planes<'a>(
    images: impl Iterator<Item = &'a [u8]>,
    (height, width): (usize, usize),
    value: impl Fn(u8) -> f32,
    device: &Device,
) -> Result<Tensor> {
    let mut values = Vec::new();
    let mut batch = 0;
    for image in images {
        let channel = |channel| image.iter().skip(channel).step_by(3).map(|&byte| value(byte));
        values.extend((0..3).flat_map(channel));
        batch += 1;
    }
    Ok(Tensor::from_vec(values, (batch, 3, height, width), device)?)
}
