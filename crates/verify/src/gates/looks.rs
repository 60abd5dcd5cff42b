//! What images look like to the gates: the classifier's view, a thumbnail, the image's middle, and hashes.

use evenset_core::SampleId;
use evenset_nn::classifier::{ImageSet, Inspection, Prediction};
use rayon::prelude::*;

use crate::nearest::Points;
use crate::phash;
use crate::views::{self, Picture};

/// Pixels of a thumbnail's side.
const SIDE: usize = 8;
/// Numbers of a thumbnail.
const THUMBNAIL: usize = SIDE * SIDE * 3;

/// What some images look like, image by image.
#[derive(Clone, Debug, Default)]
pub struct Looks {
    /// The classifier's probabilities, head by head.
    pub heads: Vec<Prediction>,
    /// The classifier's features, each brought to mean 0 and deviation 1 over the real images.
    pub(crate) features: Points,
    /// 8x8 RGB thumbnails in 0..=1.
    pub(crate) thumbnails: Points,
    /// The images' middles, whatever their brightness (see [`views`]).
    pub(crate) middles: Points,
    /// The same on a coarser grid, for searches.
    pub(crate) coarse: Points,
    /// Perceptual hashes of each image and of its mirror image.
    pub(crate) hashes: Vec<[u64; 2]>,
    /// Hashes of the pixels.
    pub(crate) ids: Vec<SampleId>,
}

/// How features are brought to mean 0 and deviation 1.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Scale {
    pub(crate) mean: Vec<f32>,
    pub(crate) deviation: Vec<f32>,
}

impl Scale {
    /// From the features of the real images.
    pub(crate) fn of(features: &Points) -> Self {
        let count = features.len().max(1) as f64;
        let column = |i: usize| (0..features.len()).map(move |row| f64::from(features.row(row)[i]));
        let mean: Vec<f64> = (0..features.width).map(|i| column(i).sum::<f64>() / count).collect();
        let variance = |i: usize| column(i).map(|value| (value - mean[i]).powi(2)).sum::<f64>() / count;
        // A feature that never changes says nothing, and must not be blown up.
        let deviation = (0..features.width).map(|i| variance(i).sqrt().max(1e-3) as f32).collect();
        Self { mean: mean.iter().map(|&mean| mean as f32).collect(), deviation }
    }

    pub(crate) fn apply(&self, features: &mut Points) {
        for row in features.values.chunks_exact_mut(features.width.max(1)) {
            for ((value, mean), deviation) in row.iter_mut().zip(&self.mean).zip(&self.deviation) {
                *value = (*value - mean) / deviation;
            }
        }
    }
}

impl Looks {
    /// The looks of images; features stay as they are where there is no scale yet.
    pub(crate) fn new(seen: Inspection, feature_width: usize, scale: Option<&Scale>, images: &ImageSet) -> Self {
        let mut features = Points::new(seen.features, feature_width);
        if let Some(scale) = scale {
            scale.apply(&mut features);
        }
        let all: Vec<&[u8]> = images.iter().collect();
        let thumbnails: Vec<f32> =
            all.par_iter().flat_map_iter(|image| thumbnail(image, images.width(), images.height())).collect();
        let described: Vec<(Vec<f32>, Vec<f32>, [u64; 2])> = all
            .par_iter()
            .map(|image| {
                let picture = Picture::new(image, images.width(), images.height());
                (picture.middle(), picture.coarse_middle(), phash::hashes(&picture))
            })
            .collect();
        let hashes = described.iter().map(|(_, _, hashes)| *hashes).collect();
        let coarse = described.iter().flat_map(|(_, coarse, _)| coarse).copied().collect();
        Self {
            heads: seen.heads,
            features,
            thumbnails: Points::new(thumbnails, THUMBNAIL),
            middles: Points::new(described.into_iter().flat_map(|(middle, _, _)| middle).collect(), views::WIDTH),
            coarse: Points::new(coarse, views::COARSE_WIDTH),
            hashes,
            ids: all.par_iter().map(|image| SampleId::of(image)).collect(),
        }
    }

    /// How many images these are.
    pub fn len(&self) -> usize {
        self.ids.len()
    }

    /// Whether these are none.
    pub fn is_empty(&self) -> bool {
        self.ids.is_empty()
    }

    pub(crate) fn select(&self, rows: &[usize]) -> Self {
        let head = |head: &Prediction| Prediction {
            name: head.name.clone(),
            classes: head.classes,
            probabilities: rows.iter().flat_map(|&row| head.row(row)).copied().collect(),
        };
        Self {
            heads: self.heads.iter().map(head).collect(),
            features: self.features.select(rows.iter().copied()),
            thumbnails: self.thumbnails.select(rows.iter().copied()),
            middles: self.middles.select(rows.iter().copied()),
            coarse: self.coarse.select(rows.iter().copied()),
            hashes: rows.iter().filter_map(|&row| self.hashes.get(row).copied()).collect(),
            ids: rows.iter().filter_map(|&row| self.ids.get(row).copied()).collect(),
        }
    }
}

/// The mean colour of each cell of an 8x8 grid. Pixels that lie across a border count for both cells, by area, so the
/// thumbnail of a mirrored image is the mirrored thumbnail.
fn thumbnail(image: &[u8], width: usize, height: usize) -> Vec<f32> {
    // In units of 1/SIDE pixels, a pixel is SIDE wide and a cell as wide as the image has pixels.
    let overlap = |cell: usize, pixel: usize, pixels: usize| {
        let (from, to) = ((cell * pixels).max(pixel * SIDE), ((cell + 1) * pixels).min((pixel + 1) * SIDE));
        to.saturating_sub(from) as u64
    };
    let reach = |cell: usize, pixels: usize| cell * pixels / SIDE..((cell + 1) * pixels).div_ceil(SIDE);
    let mut cells = Vec::with_capacity(THUMBNAIL);
    for cell_y in 0..SIDE {
        for cell_x in 0..SIDE {
            let mut sums = [0u64; 3];
            for y in reach(cell_y, height) {
                for x in reach(cell_x, width) {
                    let area = overlap(cell_y, y, height) * overlap(cell_x, x, width);
                    let pixel = image.get(3 * (y * width + x)..).unwrap_or_default();
                    sums.iter_mut().zip(pixel).for_each(|(sum, &value)| *sum += area * u64::from(value));
                }
            }
            let full = (255 * width * height) as f64;
            cells.extend(sums.map(|sum| (sum as f64 / full) as f32));
        }
    }
    cells
}

/// Thumbnails left to right the other way round.
pub(crate) fn mirrored(thumbnails: &Points) -> Points {
    let mut values = Vec::with_capacity(thumbnails.values.len());
    for row in thumbnails.values.chunks_exact(3 * SIDE) {
        values.extend(row.chunks_exact(3).rev().flatten());
    }
    Points::new(values, thumbnails.width)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thumbnail_holds_mean_colours_and_mirrors_with_its_image() {
        let (width, height) = (13, 9);
        let image: Vec<u8> = (0..width * height * 3).map(|i| (i * 37 % 256) as u8).collect();
        let flipped: Vec<u8> = image
            .chunks_exact(3 * width)
            .flat_map(|row| row.chunks_exact(3).rev().flatten().copied().collect::<Vec<_>>())
            .collect();
        let small = thumbnail(&image, width, height);
        let mean = small.iter().map(|&value| f64::from(value)).sum::<f64>() / small.len() as f64;
        let expected = image.iter().map(|&value| f64::from(value) / 255.0).sum::<f64>() / image.len() as f64;
        assert!((mean - expected).abs() < 1e-6);
        let small = Points::new(small, THUMBNAIL);
        assert_eq!(mirrored(&small).values, thumbnail(&flipped, width, height));
        assert_eq!(thumbnail(&[255; 8 * 8 * 3], 8, 8), vec![1.0; THUMBNAIL]);
    }
}
