//! What a classifier looks at: images, or feature vectors that something else has made of them.

use candle_core::{Device, Tensor};
use evenset_core::Seed;
use rayon::prelude::*;

use super::images::{ImageSet, moments};
use super::network::{Description, InputShape};
use super::rand_augment::RandAugment;
use super::sampling::{Augment, Change};
use crate::{Error, Result};

/// Vectors of one width, `[rows, width]`.
#[derive(Clone, Debug, PartialEq)]
pub struct FeatureSet {
    width: usize,
    values: Vec<f32>,
}

impl FeatureSet {
    /// Vectors from their numbers, row by row.
    ///
    /// # Errors
    /// [`Error::Config`] for an empty width, numbers that are not a whole number of rows, or one that is not finite.
    pub fn new(width: usize, values: Vec<f32>) -> Result<Self> {
        if width == 0 || !values.len().is_multiple_of(width) {
            let reason = format!("{} numbers are not a whole number of vectors of width {width}", values.len());
            return Err(Error::Config(reason));
        }
        if let Some(at) = values.iter().position(|value| !value.is_finite()) {
            let reason =
                format!("feature {} of row {} is not a finite number; compute it again", at % width, at / width);
            return Err(Error::Config(reason));
        }
        Ok(Self { width, values })
    }

    /// Numbers in a vector.
    pub fn width(&self) -> usize {
        self.width
    }

    /// Number of vectors.
    pub fn len(&self) -> usize {
        self.values.len() / self.width
    }

    /// Whether there is no vector.
    pub fn is_empty(&self) -> bool {
        self.values.is_empty()
    }

    /// All numbers, `[rows, width]`.
    pub fn values(&self) -> &[f32] {
        &self.values
    }

    /// One vector; empty beyond the last.
    pub fn row(&self, row: usize) -> &[f32] {
        row.checked_mul(self.width).and_then(|from| self.values.get(from..from + self.width)).unwrap_or_default()
    }

    /// The vectors at `rows`, in that order; rows beyond the last are left out.
    #[must_use]
    pub fn select(&self, rows: impl IntoIterator<Item = usize>) -> Self {
        Self { width: self.width, values: rows.into_iter().flat_map(|row| self.row(row)).copied().collect() }
    }

    /// Appends the vectors of `other`.
    ///
    /// # Errors
    /// [`Error::Config`] where the widths differ.
    pub fn extend(&mut self, other: &Self) -> Result<()> {
        if self.width != other.width {
            let reason = format!("vectors of width {} cannot join vectors of width {}", other.width, self.width);
            return Err(Error::Config(reason));
        }
        self.values.extend_from_slice(&other.values);
        Ok(())
    }
}

/// What a classifier is trained on or shown.
#[derive(Clone, Copy, Debug)]
pub enum Inputs<'a> {
    /// RGB images.
    Images(&'a ImageSet),
    /// Feature vectors.
    Features(&'a FeatureSet),
}

impl Inputs<'_> {
    /// Number of images or vectors.
    pub fn len(&self) -> usize {
        match self {
            Self::Images(images) => images.len(),
            Self::Features(features) => features.len(),
        }
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    pub(super) fn shape(&self) -> InputShape {
        match self {
            Self::Images(images) => InputShape::Image { width: images.width(), height: images.height() },
            Self::Features(features) => InputShape::Features(features.width()),
        }
    }

    /// Mean and standard deviation of each colour or feature.
    pub(super) fn moments(&self) -> (Vec<f32>, Vec<f32>) {
        match self {
            Self::Images(images) => {
                let (mean, deviation) = moments(images);
                (mean.to_vec(), deviation.to_vec())
            }
            Self::Features(features) => feature_moments(features),
        }
    }
}

/// Mean and standard deviation of each feature; a feature that never changes has deviation one.
fn feature_moments(features: &FeatureSet) -> (Vec<f32>, Vec<f32>) {
    let rows = features.len().max(1) as f64;
    let sums = |term: &dyn Fn(usize, f64) -> f64| {
        let mut sums = vec![0f64; features.width];
        for row in features.values.chunks_exact(features.width) {
            sums.iter_mut().zip(row).enumerate().for_each(|(i, (sum, &value))| *sum += term(i, f64::from(value)));
        }
        sums
    };
    let mean: Vec<f64> = sums(&|_, value| value).into_iter().map(|sum| sum / rows).collect();
    let squares = sums(&|i, value| (value - mean[i]) * (value - mean[i]));
    let deviation = squares.into_iter().map(|sum| (sum / rows).sqrt() as f32);
    let deviation = deviation.map(|deviation| if deviation > 1e-6 { deviation } else { 1.0 }).collect();
    (mean.into_iter().map(|mean| mean as f32).collect(), deviation)
}

/// Random changes to images; feature vectors stay as they are.
#[derive(Clone, Copy)]
pub(super) struct Changes {
    pub(super) augment: Augment,
    pub(super) rand_augment: RandAugment,
}

impl Changes {
    pub(super) fn none() -> Self {
        Self { augment: Augment::none(), rand_augment: RandAugment::none() }
    }
}

/// The inputs at `rows`, changed at random and normalised: `[rows, 3, height, width]` for convolutions, otherwise
/// `[rows, numbers]`.
pub(super) fn batch(
    inputs: &Inputs<'_>,
    rows: &[usize],
    changes: Changes,
    seed: Seed,
    description: &Description,
    device: &Device,
) -> Result<Tensor> {
    match inputs {
        Inputs::Images(images) => {
            let size = 3 * images.width() * images.height();
            let mut values = vec![0f32; rows.len() * size];
            let levels = Levels::new(description);
            values.par_chunks_mut(size).zip(rows).enumerate().for_each(|(i, (values, &row))| {
                let seed = seed.index(i as u64);
                let change = Change::draw(changes.augment, seed);
                let size = (images.width(), images.height());
                if changes.rand_augment == RandAugment::none() {
                    levels.write(images.image(row), size, change, description.has_planes(), values);
                } else {
                    let pixels = change.applied(images.image(row), size);
                    let pixels = changes.rand_augment.applied(pixels, size, seed.derive("operations"));
                    levels.write(&pixels, size, Change::none(), description.has_planes(), values);
                }
            });
            let shape = match description.has_planes() {
                true => vec![rows.len(), 3, images.height(), images.width()],
                false => vec![rows.len(), size],
            };
            Ok(Tensor::from_vec(values, shape, device)?)
        }
        Inputs::Features(features) => {
            let scales = || description.mean.iter().zip(&description.deviation);
            let normalised = |row: &usize| {
                let row = features.row(*row).iter().zip(scales());
                row.map(|(value, (mean, deviation))| (value - mean) / deviation).collect::<Vec<f32>>()
            };
            let values: Vec<f32> = rows.iter().flat_map(normalised).collect();
            Ok(Tensor::from_vec(values, (rows.len(), features.width()), device)?)
        }
    }
}

/// The normalised value of each of the 256 levels of each colour.
struct Levels([[f32; 256]; 3]);

impl Levels {
    fn new(description: &Description) -> Self {
        let mut levels = [[0.0; 256]; 3];
        let scales = description.mean.iter().zip(&description.deviation);
        for (levels, (mean, deviation)) in levels.iter_mut().zip(scales) {
            levels.iter_mut().enumerate().for_each(|(level, value)| *value = (level as f32 - mean) / deviation);
        }
        Self(levels)
    }

    /// One image, `[height, width, 3]`, changed and normalised: colour by colour, or in the order of its pixels.
    fn write(&self, pixels: &[u8], (width, height): (usize, usize), change: Change, planes: bool, out: &mut [f32]) {
        if !planes && change == Change::none() {
            for (out, pixel) in out.as_chunks_mut::<3>().0.iter_mut().zip(pixels.as_chunks::<3>().0) {
                *out = std::array::from_fn(|colour| self.0[colour][usize::from(pixel[colour])]);
            }
            return;
        }
        let plane = width * height;
        for y in 0..height {
            let from_row = change.source_row(y, height) * width;
            for x in 0..width {
                let from = 3 * (from_row + change.source_column(x, width));
                for (colour, levels) in self.0.iter().enumerate() {
                    let to = if planes { colour * plane + y * width + x } else { 3 * (y * width + x) + colour };
                    out[to] = levels[usize::from(pixels[from + colour])];
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn feature_vectors_are_checked_and_keep_their_rows() {
        assert!(FeatureSet::new(0, vec![]).is_err() && FeatureSet::new(2, vec![1.0; 3]).is_err());
        let error = FeatureSet::new(2, vec![0.0, 1.0, 2.0, f32::NAN]).unwrap_err().to_string();
        assert!(error.contains("feature 1 of row 1"), "{error}");
        let mut set = FeatureSet::new(2, vec![0.0, 1.0, 2.0, 3.0]).unwrap();
        set.extend(&set.clone().select([1])).unwrap();
        assert_eq!((set.len(), set.row(2), set.row(3)), (3, &[2.0, 3.0][..], &[][..]));
        assert!(set.extend(&FeatureSet::new(3, vec![]).unwrap()).is_err());
        let (mean, deviation) = feature_moments(&FeatureSet::new(2, vec![1.0, 5.0, 3.0, 5.0]).unwrap());
        assert_eq!((mean, deviation), (vec![2.0, 5.0], vec![1.0, 1.0]));
    }
}
