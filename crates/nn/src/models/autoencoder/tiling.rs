//! Large images in overlapping tiles, so that memory does not grow with the image: `enable_tiling` of diffusers'
//! `AutoencoderKL` (0.42), with its sizes and its blending.
//!
//! Every tile is normalised by itself, so the result is not that of the whole image.

use candle_core::{Result, Tensor};

use super::AutoencoderKLConfig;
use crate::error::Error;

/// How images are taken apart.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Tiling {
    /// Height and width of a tile in pixels (`tile_sample_min_size`); an image with no larger side is taken whole. A
    /// multiple of the pixels of one latent.
    pub size: usize,
    /// The share of a tile that overlaps with the next, from 0 to below 1 and in whole latents (`tile_overlap_factor`).
    pub overlap: f64,
}

impl Tiling {
    /// diffusers' own where nothing is said of a size: tiles of 512 pixels, a quarter overlapping.
    pub const USUAL: Self = Self { size: 512, overlap: 0.25 };

    /// diffusers' own: tiles of the size the network was trained on.
    pub fn of(config: &AutoencoderKLConfig) -> Self {
        Self { size: config.sample_size.unwrap_or(Self::USUAL.size), ..Self::USUAL }
    }

    /// An error for tiles that do not cover an image, or whose edges fall between latents, which diffusers takes for an
    /// image of another size; `factor` is the pixels of a latent.
    pub(in super::super) fn check(self, factor: usize) -> crate::Result<()> {
        let (latents, kept) = (self.latents(factor), 1.0 - self.overlap);
        let step = portion(latents, kept);
        let possible = (0.0..1.0).contains(&self.overlap) && self.size <= 1 << 24 && step > 0;
        let meets = || {
            let pixels = step * factor;
            latents * factor == self.size
                && pixels == self.size - portion(self.size, self.overlap)
                && pixels == portion(self.size, kept)
                && step == latents - portion(latents, self.overlap)
        };
        match possible && meets() {
            true => Ok(()),
            false => Err(Error::Config(format!(
                "tiles of {} pixels with an overlap of {}: size and overlap must be multiples of {factor} pixels, and the \
                 overlap from 0 to below 1",
                self.size, self.overlap
            ))),
        }
    }

    /// Height and width of a tile in latents.
    fn latents(self, factor: usize) -> usize {
        self.size / factor.max(1)
    }

    /// `[batch, channels, height, width]` of latents to images.
    pub(in super::super) fn decode(
        self,
        x: &Tensor,
        factor: usize,
        run: impl Fn(&Tensor) -> Result<Tensor>,
    ) -> Result<Tensor> {
        let (size, overlap) = (self.latents(factor), self.overlap);
        Grid { size, step: portion(size, 1.0 - overlap), blend: portion(self.size, overlap), kept: self.size }
            .run(x, run)
    }

    /// `[batch, channels, height, width]` of images to what is said of their latents.
    pub(super) fn encode(self, x: &Tensor, factor: usize, run: impl Fn(&Tensor) -> Result<Tensor>) -> Result<Tensor> {
        let (latents, overlap) = (self.latents(factor), self.overlap);
        let step = portion(self.size, 1.0 - overlap);
        Grid { size: self.size, step, blend: portion(latents, overlap), kept: latents }.run(x, run)
    }
}

/// A share of a size, rounded down.
fn portion(size: usize, share: f64) -> usize {
    (size as f64 * share) as usize
}

/// Tiles of a map.
#[derive(Clone, Copy)]
struct Grid {
    /// Of a tile that goes in, and from one to the next.
    size: usize,
    step: usize,
    /// Of a tile that comes out: the rows that are blended, and its whole size.
    blend: usize,
    kept: usize,
}

impl Grid {
    fn run(self, x: &Tensor, run: impl Fn(&Tensor) -> Result<Tensor>) -> Result<Tensor> {
        let (_, _, height, width) = x.dims4()?;
        if height.max(width) <= self.size {
            return run(x);
        }
        let kept = self.kept - self.blend;
        let mut rows = Vec::new();
        let mut above: Vec<Tensor> = Vec::new();
        for y in (0..height).step_by(self.step) {
            let mut row: Vec<Tensor> = Vec::new();
            for x0 in (0..width).step_by(self.step) {
                let tile = x.narrow(2, y, self.size.min(height - y))?.narrow(3, x0, self.size.min(width - x0))?;
                let mut tile = run(&tile.contiguous()?)?;
                if let Some(over) = above.get(row.len()) {
                    tile = blended(over, &tile, 2, self.blend)?;
                }
                if let Some(left) = row.last() {
                    tile = blended(left, &tile, 3, self.blend)?;
                }
                row.push(tile);
            }
            let cut = |tile: &Tensor| tile.narrow(2, 0, kept.min(tile.dim(2)?))?.narrow(3, 0, kept.min(tile.dim(3)?));
            rows.push(Tensor::cat(&row.iter().map(cut).collect::<Result<Vec<_>>>()?, 3)?);
            above = row;
        }
        Tensor::cat(&rows, 2)
    }
}

/// `b`, whose first `extent` rows (or columns, by `axis`) go over from the last ones of `a`.
fn blended(a: &Tensor, b: &Tensor, axis: usize, extent: usize) -> Result<Tensor> {
    let (before, length) = (a.dim(axis)?, b.dim(axis)?);
    let extent = extent.min(before).min(length);
    if extent == 0 {
        return Ok(b.clone());
    }
    let mut shape = [1; 4];
    shape[axis] = extent;
    let shares = |of: &dyn Fn(f64) -> f64| {
        let values: Vec<f32> = (0..extent).map(|i| of(i as f64 / extent as f64) as f32).collect();
        Tensor::from_vec(values, &shape, b.device())?.to_dtype(b.dtype())
    };
    let end = a.narrow(axis, before - extent, extent)?.broadcast_mul(&shares(&|share| 1.0 - share)?)?;
    let start = b.narrow(axis, 0, extent)?.broadcast_mul(&shares(&|share| share)?)?;
    Tensor::cat(&[&end.add(&start)?, &b.narrow(axis, extent, length - extent)?], axis)
}
