//! Drawing images from a trained model.

use candle_core::{Device, Tensor};
use evenset_core::{Group, Progress, Seed, Silent};

use super::batches::Frame;
use super::model::ConditionalModel;
use super::set;
use crate::error::{DiffusionError, Result};
use crate::sampler::SamplerConfig;

/// Images that go through the network together. A matter of speed alone: an image is the same in any batch.
const BATCH: usize = 64;
/// White pixels between the images of a grid.
const GRID_GAP: usize = 2;

/// One image to be drawn.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImageRequest {
    /// What it shows. Attributes that the model knows and the group leaves out are left to the model.
    pub group: Group,
    /// Where its noise comes from.
    pub seed: Seed,
}

/// An image that was drawn.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Generated {
    /// Width in pixels.
    pub width: u32,
    /// Height in pixels.
    pub height: u32,
    /// 1 (grey) or 3 (RGB).
    pub channels: u32,
    /// `[height, width, channels]`.
    pub pixels: Vec<u8>,
}

impl ConditionalModel {
    /// One image for each request, in their order, at the training set's size.
    ///
    /// An image depends on its request, `sampler` and the model alone: not on the other requests nor on the threads.
    /// `progress` is only asked whether to stop, so that a caller's own task can be open.
    ///
    /// # Errors
    /// [`DiffusionError::UnknownAttribute`] and [`DiffusionError::UnknownValue`] before any work,
    /// [`DiffusionError::Setting`] for an impossible sampler, [`DiffusionError::Interrupted`].
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
        let mut images = Vec::with_capacity(requests.len());
        for (requests, codes) in requests.chunks(BATCH).zip(codes.chunks(BATCH)) {
            progress.check()?;
            let pixels = evenset_nn::no_grad(|| self.draw(requests, codes, sampler))?;
            images.extend(pixels.into_iter().map(|pixels| self.image(pixels)));
        }
        Ok(images)
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
            let request = |i| ImageRequest {
                group: group.clone(),
                seed: Seed::of_request(seed, group, 0, i as u64, "sample grid"),
            };
            let requests: Vec<ImageRequest> = (0..columns).map(request).collect();
            cells.extend(self.generate(&requests, sampler, &Silent)?);
            progress.advance(1);
        }
        progress.end();
        Ok(grid(&cells, columns, [width, height, channels.len()]))
    }

    /// The pixels of at most [`BATCH`] images.
    fn draw(&self, requests: &[ImageRequest], codes: &[Vec<u32>], sampler: &SamplerConfig) -> Result<Vec<Vec<u8>>> {
        let (edm, frame, guidance) = (self.card.edm(), self.card.frame(), sampler.guide());
        let away_from = self.without_guided(codes, sampler);
        let denoiser = |x: &Tensor, sigma: f64| {
            guidance.apply(
                sigma,
                || self.network.denoise(edm, x, sigma, codes),
                || self.network.denoise(edm, x, sigma, &away_from),
            )
        };
        let noise: Vec<f32> = requests.iter().flat_map(|request| request.seed.normal(frame.len())).collect();
        let (channels, height, width) = frame.shape();
        let noise = Tensor::from_vec(noise, (requests.len(), channels, height, width), self.network.weights.device())?;
        let images = sampler.sampler().sample(&denoiser, &noise)?.to_device(&Device::Cpu)?.flatten_all()?;
        Ok(images.to_vec1::<f32>()?.chunks_exact(frame.len()).map(|values| frame.store(values)).collect())
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

    fn image(&self, pixels: Vec<u8>) -> Generated {
        let (width, height, channels) = self.shape();
        Generated { width, height, channels, pixels }
    }
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
    Generated { width: total_width as u32, height: total_height as u32, channels: channels as u32, pixels }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_grid_places_cells_row_by_row_with_white_gaps() {
        let cell = |value| Generated { width: 1, height: 1, channels: 1, pixels: vec![value] };
        let sheet = grid(&[cell(1), cell(2), cell(3), cell(4)], 2, [1, 1, 1]);
        assert_eq!((sheet.width, sheet.height), (4, 4));
        assert_eq!(sheet.pixels[..4], [1, 255, 255, 2]);
        assert_eq!(sheet.pixels[4..12], [255; 8]);
        assert_eq!(sheet.pixels[12..], [3, 255, 255, 4]);
    }
}
