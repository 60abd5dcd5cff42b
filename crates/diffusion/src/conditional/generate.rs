//! Drawing images from a trained model.

use std::collections::BTreeMap;

use candle_core::{Device, Tensor};
use evenset_core::{Group, Progress, Seed, Silent};
use serde::{Deserialize, Serialize};

use super::batches::Frame;
use super::model::ConditionalModel;
use super::set;
use crate::error::{DiffusionError, Result};
use crate::image::Generated;
use crate::sampler::{Guidance, SamplerConfig};

/// Images that go through the network together. A matter of speed alone: an image is the same in any batch.
const BATCH: usize = 64;
/// White pixels between the images of a grid.
const GRID_GAP: usize = 2;

/// One image to be drawn.
#[derive(Clone, Debug, PartialEq)]
pub struct ImageRequest {
    /// What it shows. Attributes that the model knows and the group leaves out are left to the model.
    pub group: Group,
    /// Where its noise comes from.
    pub seed: Seed,
    /// The real image that it starts from; from pure noise without one.
    pub guide: Option<Guide>,
    /// Its own guidance scale instead of the sampler's.
    pub guidance: Option<f64>,
}

impl ImageRequest {
    /// An image drawn from pure noise with the sampler's guidance.
    pub fn new(group: Group, seed: Seed) -> Self {
        Self { group, seed, guide: None, guidance: None }
    }

    fn inversion(&self) -> Option<&Inversion> {
        self.guide.as_ref()?.inverted.as_ref()
    }
}

/// A real image that a candidate starts from (Meng et al. 2022, "SDEdit"): noise is added to it, and the sampler takes it
/// away again on the way to what was asked for.
#[derive(Clone, Debug, PartialEq)]
pub struct Guide {
    /// `[height, width, channels]` at the model's size.
    pub pixels: Vec<u8>,
    /// Above 0, at most 1: the share of the sampler's steps that are run. As in diffusers' image-to-image pipelines, little
    /// is changed near 0, and at 1 nothing but the brightest outlines of the image survive its noise.
    pub strength: f64,
    /// How the guide is inverted, where it is inverted instead of noised.
    pub inverted: Option<Inversion>,
}

/// Runs the sampler backwards, to the noise that this very image would be drawn from (DDIM inversion), and then forwards
/// to what was asked for. So the image changes in what was asked to change and keeps the rest (Su et al. 2023, "Dual
/// Diffusion Implicit Bridges").
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Inversion {
    /// What the guide shows: the condition under which the sampler is run backwards.
    pub shows: Group,
    /// The noise level to begin at, 0 to 10, the nearest of those that the strength leaves; that much of the request's own
    /// noise is added to the guide first. At 0 none is, and the request's seed is not used.
    pub noise: f64,
}

impl ConditionalModel {
    /// One image for each request, in their order, at the training set's size.
    ///
    /// An image depends on its request, `sampler` and the model alone: not on the other requests nor on the threads.
    /// `progress` is only asked whether to stop, so that a caller's own task can be open.
    ///
    /// # Errors
    /// [`DiffusionError::UnknownAttribute`] and [`DiffusionError::UnknownValue`] before any work,
    /// [`DiffusionError::Setting`] for an impossible sampler, strength or guidance and for a guide of another size,
    /// [`DiffusionError::Interrupted`].
    pub fn generate(
        &self,
        requests: &[ImageRequest],
        sampler: &SamplerConfig,
        progress: &dyn Progress,
    ) -> Result<Vec<Generated>> {
        sampler.validate()?;
        if let Some(attribute) = sampler.guided().into_iter().flatten().find(|name| !self.knows(name)) {
            let known = set::listed(self.card.attributes.iter().map(|attribute| attribute.name.as_str()));
            return Err(DiffusionError::UnknownAttribute { attribute: attribute.clone(), known });
        }
        let codes: Vec<Vec<u32>> =
            requests.iter().map(|request| set::codes(&self.card.attributes, &request.group)).collect::<Result<_>>()?;
        requests.iter().try_for_each(|request| self.check_guide(request))?;
        // Images go through the network together where they take the same steps with the same guidance, and were inverted
        // from the same level.
        let mut alike = BTreeMap::<(usize, u64, Option<u64>), Vec<usize>>::new();
        for (i, request) in requests.iter().enumerate() {
            let skipped = request.guide.as_ref().map_or(0, |guide| sampler.skipped(guide.strength));
            let guidance = request.guidance.unwrap_or(sampler.guidance());
            let inverted = request.inversion().map(|inversion| inversion.noise.to_bits());
            alike.entry((skipped, guidance.to_bits(), inverted)).or_default().push(i);
        }
        let mut images: Vec<Option<Generated>> = vec![None; requests.len()];
        for ((skipped, guidance, inverted), places) in alike {
            let way =
                Way { sampler, skipped, guidance: f64::from_bits(guidance), inverted: inverted.map(f64::from_bits) };
            for places in places.chunks(BATCH) {
                progress.check()?;
                let requests: Vec<&ImageRequest> = places.iter().map(|&i| &requests[i]).collect();
                let codes: Vec<Vec<u32>> = places.iter().map(|&i| codes[i].clone()).collect();
                let drawn = evenset_nn::no_grad(|| self.draw(&requests, &codes, &way))?;
                for (&place, image) in places.iter().zip(drawn) {
                    images[place] = Some(image);
                }
            }
        }
        Ok(images.into_iter().flatten().collect())
    }

    fn check_guide(&self, request: &ImageRequest) -> Result<()> {
        let fail = |key, reason| Err(DiffusionError::Setting { key, reason });
        if let Some(scale) = request.guidance.filter(|scale| !(0.0..=100.0).contains(scale)) {
            return fail("guidance", format!("{scale} is not between 0 and 100 (1 is no guidance)"));
        }
        let Some(guide) = &request.guide else { return Ok(()) };
        let (width, height, channels) = self.shape();
        let wanted = width as usize * height as usize * channels as usize;
        if guide.pixels.len() != wanted {
            return fail("guide", format!("{} bytes for an image of {width}x{height}x{channels}", guide.pixels.len()));
        }
        if !(guide.strength > 0.0 && guide.strength <= 1.0) {
            return fail("strength", format!("{} is not above 0 and at most 1", guide.strength));
        }
        if let Some(Inversion { shows, noise }) = &guide.inverted {
            set::codes(&self.card.attributes, shows)?;
            if !(0.0..=10.0).contains(noise) {
                return fail("inversion_noise", format!("{noise} is not a noise level from 0 to 10"));
            }
        }
        Ok(())
    }

    /// A contact sheet: one row for each group with `columns` images in it, on white. No more than 4096 pixels high: groups
    /// beyond that are left out.
    ///
    /// # Errors
    /// As [`generate`](Self::generate).
    pub fn sample_grid(
        &self,
        groups: &[Group],
        columns: usize,
        sampler: &SamplerConfig,
        seed: Seed,
        progress: &dyn Progress,
    ) -> Result<Generated> {
        let Frame { width, height, mean: channels, .. } = self.card.frame();
        let rows = groups.len().min((4096 / (height + GRID_GAP)).max(1));
        let columns = columns.clamp(1, (4096 / (width + GRID_GAP)).max(1));
        progress.begin("draw the sample grid", rows as u64);
        let mut cells = Vec::with_capacity(rows * columns);
        for group in groups.iter().take(rows) {
            progress.check()?;
            let request =
                |i| ImageRequest::new(group.clone(), Seed::of_request(seed, group, 0, i as u64, "sample grid"));
            let requests: Vec<ImageRequest> = (0..columns).map(request).collect();
            cells.extend(self.generate(&requests, sampler, &Silent)?);
            progress.advance(1);
        }
        progress.end();
        Ok(grid(&cells, columns, [width, height, channels.len()]))
    }

    /// At most [`BATCH`] images that go the same way.
    fn draw(&self, requests: &[&ImageRequest], codes: &[Vec<u32>], way: &Way<'_>) -> Result<Vec<Generated>> {
        let (edm, frame) = (self.card.edm(), self.card.frame());
        let guidance = Guidance { scale: way.guidance, ..way.sampler.guide() };
        let away_from = self.without_guided(codes, way.sampler);
        let denoiser = |x: &Tensor, sigma: f64| {
            guidance.apply(
                sigma,
                || self.network.denoise(edm, x, sigma, codes),
                || self.network.denoise(edm, x, sigma, &away_from),
            )
        };
        let sampler = way.sampler.sampler(way.skipped);
        let noise = match way.inverted {
            Some(from) => self.inverted(requests, way, from, sampler.first_sigma())?,
            None => self.noised(requests, sampler.first_sigma())?,
        };
        let images = sampler.sample(&denoiser, &noise)?.to_device(&Device::Cpu)?.flatten_all()?;
        let image = |values: &[f32]| {
            let finite = values.iter().all(|value| value.is_finite());
            self.image(frame.store(values), finite)
        };
        Ok(images.to_vec1::<f32>()?.chunks_exact(frame.len()).map(image).collect())
    }

    /// Where requests start: each one's own noise, on its guide where there is one. The sampler starts at `first` times
    /// this.
    fn noised(&self, requests: &[&ImageRequest], first: f64) -> Result<Tensor> {
        let frame = self.card.frame();
        let mut noise: Vec<f32> = requests.iter().flat_map(|request| request.seed.normal(frame.len())).collect();
        let mut clean = vec![0f32; frame.len()];
        for (noise, request) in noise.chunks_exact_mut(frame.len()).zip(requests) {
            if let Some(guide) = &request.guide {
                frame.load(&guide.pixels, false, &mut clean);
                noise.iter_mut().zip(&clean).for_each(|(noise, clean)| *noise += clean / first as f32);
            }
        }
        self.tensor(noise, requests.len())
    }

    /// The noise that the guides themselves would be drawn from, beginning at the noise level `from`. The sampler starts at
    /// `first` times this.
    fn inverted(&self, requests: &[&ImageRequest], way: &Way<'_>, from: f64, first: f64) -> Result<Tensor> {
        let shown = requests.iter().filter_map(|request| Some(&request.inversion()?.shows));
        let codes = shown.map(|group| set::codes(&self.card.attributes, group)).collect::<Result<Vec<_>>>()?;
        let inverse = way.sampler.inverse(way.skipped, from);
        let low = inverse.first_sigma();
        let start = if from > 0.0 { self.noised(requests, low)? } else { (self.clean(requests)? / low)? };
        // Guidance would lead to a noise that its guide cannot be drawn from without.
        let denoiser = |x: &Tensor, sigma: f64| self.network.denoise(self.card.edm(), x, sigma, &codes);
        Ok((inverse.sample(&denoiser, &start)? / first)?)
    }

    /// The guides, as the network sees images.
    fn clean(&self, requests: &[&ImageRequest]) -> Result<Tensor> {
        let frame = self.card.frame();
        let mut clean = vec![0f32; requests.len() * frame.len()];
        let guides = requests.iter().filter_map(|request| request.guide.as_ref());
        clean
            .chunks_exact_mut(frame.len())
            .zip(guides)
            .for_each(|(clean, guide)| frame.load(&guide.pixels, false, clean));
        self.tensor(clean, requests.len())
    }

    fn tensor(&self, values: Vec<f32>, images: usize) -> Result<Tensor> {
        let (channels, height, width) = self.card.frame().shape();
        Ok(Tensor::from_vec(values, (images, channels, height, width), self.network.weights.device())?)
    }

    fn knows(&self, name: &str) -> bool {
        self.card.attributes.iter().any(|attribute| attribute.name == name)
    }

    /// The conditions that guidance steers away from: those asked for, without the attributes that it strengthens.
    fn without_guided(&self, codes: &[Vec<u32>], sampler: &SamplerConfig) -> Vec<Vec<u32>> {
        let kept: Vec<bool> = self
            .card
            .attributes
            .iter()
            .map(|attribute| sampler.guided().is_some_and(|guided| !guided.contains(&attribute.name)))
            .collect();
        let keep =
            |codes: &Vec<u32>| codes.iter().zip(&kept).map(|(&code, &kept)| if kept { code } else { 0 }).collect();
        codes.iter().map(keep).collect()
    }

    fn image(&self, pixels: Vec<u8>, finite: bool) -> Generated {
        let (width, height, channels) = self.shape();
        Generated { width, height, channels, pixels, finite }
    }
}

/// What images of one batch have in common.
struct Way<'a> {
    sampler: &'a SamplerConfig,
    /// Steps at the beginning that are left out, since the images start from guides.
    skipped: usize,
    guidance: f64,
    /// The noise level to begin at, where the guides are inverted.
    inverted: Option<f64>,
}

/// Cells of one size in rows of `columns`, with white gaps between them.
fn grid(cells: &[Generated], columns: usize, [width, height, channels]: [usize; 3]) -> Generated {
    let rows = cells.len().div_ceil(columns);
    let span = |n: usize, side: usize| (n * (side + GRID_GAP)).saturating_sub(GRID_GAP).max(1);
    let (total_width, total_height) = (span(columns, width), span(rows, height));
    let mut pixels = vec![255; total_width * total_height * channels];
    for (i, cell) in cells.iter().enumerate() {
        let (left, top) = ((i % columns) * (width + GRID_GAP), (i / columns) * (height + GRID_GAP));
        for (y, line) in cell.pixels.chunks_exact(width * channels).enumerate() {
            let start = ((top + y) * total_width + left) * channels;
            pixels[start..start + line.len()].copy_from_slice(line);
        }
    }
    Generated {
        width: total_width as u32,
        height: total_height as u32,
        channels: channels as u32,
        pixels,
        finite: true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_grid_places_cells_row_by_row_with_white_gaps() {
        let cell = |value| Generated { width: 1, height: 1, channels: 1, pixels: vec![value], finite: true };
        let sheet = grid(&[cell(1), cell(2), cell(3), cell(4)], 2, [1, 1, 1]);
        assert_eq!((sheet.width, sheet.height), (4, 4));
        assert_eq!(sheet.pixels[..4], [1, 255, 255, 2]);
        assert_eq!(sheet.pixels[4..12], [255; 8]);
        assert_eq!(sheet.pixels[12..], [3, 255, 255, 4]);
    }
}
