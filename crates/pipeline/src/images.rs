//! Real images at the one size that models work at.
//!
//! Networks want a rectangle of one size; datasets have many. [`Frame`] is that size: the images' own where they all
//! share it and it is small enough, else a square. Only models see images through a frame: what is written to the
//! balanced dataset are the original bytes.

use evenset_core::SampleId;
use evenset_data::{Dataset, Limits};
use evenset_nn::classifier::ImageSet;
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use crate::error::{PipelineError, Result};
use crate::stages::scan::Row;

/// Longest side that a model works at unless the job asks for another.
const DEFAULT_RESOLUTION: u32 = 64;
/// Networks need at least this much to look at.
const SMALLEST: u32 = 8;

/// The size that models work at, in pixels.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Frame {
    /// Width.
    pub width: u32,
    /// Height.
    pub height: u32,
    /// Whether every training image is grey; generated ones are then written grey too.
    pub grey: bool,
    /// Whether some images are scaled to fit.
    pub scaled: bool,
}

impl Frame {
    /// The frame for these rows; `resolution` is the longest side that the job asks for.
    pub fn of(rows: &[&Row], resolution: Option<u32>) -> Self {
        let grey = rows.iter().all(|row| row.grey);
        let most = resolution.unwrap_or(DEFAULT_RESOLUTION).max(SMALLEST);
        let mut sizes = rows.iter().map(|row| (row.width, row.height));
        let first = sizes.next().unwrap_or((most, most));
        if !sizes.all(|size| size == first) {
            let mut sides: Vec<u32> = rows.iter().map(|row| row.width.min(row.height)).collect();
            sides.sort_unstable();
            let median = sides[sides.len() / 2];
            let side = resolution.unwrap_or(median.clamp(SMALLEST, most));
            return Self { width: side, height: side, grey, scaled: true };
        }
        let (width, height) = first;
        let longest = width.max(height);
        let keep = longest <= most && width.min(height) >= SMALLEST && resolution.is_none_or(|side| side == longest);
        if keep {
            return Self { width, height, grey, scaled: false };
        }
        let target = if longest > most || resolution.is_some() { most } else { longest };
        let scale = |side: u32| {
            ((u64::from(side) * u64::from(target) + u64::from(longest) / 2) / u64::from(longest.max(1))) as u32
        };
        Self { width: scale(width).max(SMALLEST), height: scale(height).max(SMALLEST), grey, scaled: true }
    }

    /// Pixels `[images, height, width, 3]` of this frame, as classifiers take them.
    pub fn image_set(&self, pixels: Vec<u8>) -> Result<ImageSet> {
        Ok(ImageSet::new(self.width as usize, self.height as usize, pixels)?)
    }

    /// Bytes of one RGB image in this frame.
    pub fn bytes(&self) -> usize {
        self.width as usize * self.height as usize * 3
    }
}

/// How an image of another shape comes into a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fit {
    /// All of it, stretched: what classifiers see, and what a model that is trained on the dataset was shown.
    Stretch,
    /// Its middle, not stretched: what a model that others trained starts from, since its images are not stretched either.
    Crop,
}

/// The RGB pixels of `rows` in the frame, one image after another: `[rows, height, width, 3]`.
///
/// Rows are read unit by unit, so each unit is read once, whatever the order of the rows.
pub fn load(dataset: &Dataset, rows: &[&Row], frame: Frame) -> Result<Vec<u8>> {
    load_column(dataset, &dataset.image, rows, frame, Fit::Stretch)
}

/// The same of the pictures in a column that belong to the images.
pub fn load_column(dataset: &Dataset, column: &str, rows: &[&Row], frame: Frame, fit: Fit) -> Result<Vec<u8>> {
    let size = frame.bytes();
    let mut pixels = vec![0u8; rows.len() * size];
    let mut slots: Vec<(&Row, &mut [u8])> = rows.iter().copied().zip(pixels.chunks_exact_mut(size)).collect();
    slots.sort_by_key(|(row, _)| (row.unit, row.row));
    let mut rest = slots.as_mut_slice();
    while let Some((first, _)) = rest.first() {
        let index = first.unit;
        let here = rest.iter().take_while(|(row, _)| row.unit == index).count();
        let (now, later) = rest.split_at_mut(here);
        let unit = &dataset.units[index];
        let table = dataset.read(unit)?;
        now.par_iter_mut().try_for_each(|(row, slot)| {
            let changed =
                |why: &str| PipelineError::Changed(format!("`{column}` in row {} of unit {index}: {why}", row.row));
            let bytes = dataset.picture(unit, &table, column, row.row).map_err(|why| changed(&why))?;
            let bytes = bytes.ok_or_else(|| changed("there is no image"))?;
            if column == dataset.image && SampleId::of(&bytes) != row.id {
                return Err(PipelineError::other_image(index, row.row));
            }
            let image =
                evenset_data::decode(&bytes, &Limits::default()).map_err(|error| changed(&error.to_string()))?;
            let fit = if fit == Fit::Crop { evenset_data::cover } else { evenset_data::fit };
            let fitted = fit(&image.rgb, image.width, image.height, frame.width, frame.height);
            if fitted.len() != slot.len() {
                return Err(changed("it has another size"));
            }
            slot.copy_from_slice(&fitted);
            Ok(())
        })?;
        rest = later;
    }
    Ok(pixels)
}

/// A generated image as a PNG file; grey where the dataset is.
pub fn encode(frame: Frame, rgb: &[u8], text: &[(&str, &str)]) -> Vec<u8> {
    if frame.grey {
        let grey: Vec<u8> = rgb
            .chunks_exact(3)
            .map(|p| ((u16::from(p[0]) + u16::from(p[1]) + u16::from(p[2]) + 1) / 3) as u8)
            .collect();
        return evenset_data::encode_png(frame.width, frame.height, 1, &grey, text);
    }
    evenset_data::encode_png(frame.width, frame.height, 3, rgb, text)
}
