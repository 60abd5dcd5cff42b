//! Pictures that belong to real images: masks, and what ControlNets are shown.
//!
//! They lie in columns of the dataset. The scan looks at them once: a training image that lacks one, or whose picture is
//! broken, stays in the dataset and guides no candidate.

use std::path::Path;

use evenset_data::{DataError, Dataset, Image, Limits, Table, Unit};
use serde::Serialize;

use crate::error::{PipelineError, Result};
use crate::job::{Job, JobError};
use crate::stages::scan::RejectedReason;

/// Files that are named in a note, of those with the same flaw.
const NAMED: usize = 3;

/// The columns of pictures that a job names.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Pictures {
    mask: Option<String>,
    /// Masks and control pictures, each column once.
    pub(crate) columns: Vec<String>,
}

/// Why an image guides no candidate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Unfit {
    /// It has no such picture, or one that leaves nothing to draw.
    Lacking(String),
    /// The picture cannot be read.
    Broken(String),
}

impl Unfit {
    pub(crate) fn reason(&self) -> &str {
        match self {
            Self::Lacking(reason) | Self::Broken(reason) => reason,
        }
    }
}

impl Pictures {
    /// Those of a job.
    pub(crate) fn of(job: &Job) -> Self {
        let mask = job.generate.guides.as_ref().and_then(|guides| guides.mask.clone());
        let mut columns: Vec<String> = Vec::new();
        for column in mask.iter().chain(job.generate.model.controls().iter().map(|control| &control.column)) {
            if !columns.contains(column) {
                columns.push(column.clone());
            }
        }
        Self { mask, columns }
    }

    /// Whether a row has every picture that a guide needs.
    pub(crate) fn check(&self, dataset: &Dataset, unit: &Unit, table: &Table, row: usize) -> Result<(), Unfit> {
        for column in self.columns.iter().filter(|column| **column != dataset.image) {
            let broken = |why: &str| Unfit::Broken(format!("the picture in `{column}`: {why}"));
            let file = dataset.picture(unit, table, column, row).map_err(|why| broken(&why))?;
            let file = file.ok_or_else(|| Unfit::Lacking(format!("there is no picture in `{column}`")))?;
            let picture =
                evenset_data::decode(&file, &Limits::default()).map_err(|error| broken(&error.to_string()))?;
            if self.mask.as_ref() == Some(column) && !mask(&picture.rgb).iter().any(|&grey| is_free(grey)) {
                let why = format!("the mask in `{column}` has no white, so nothing of the image would be drawn anew");
                return Err(Unfit::Lacking(why));
            }
        }
        Ok(())
    }
}

/// From here up, a mask frees a pixel.
fn is_free(grey: u8) -> bool {
    grey >= 128
}

/// RGB pixels as a mask, one byte a pixel: their grey, as the Python imaging library computes it for diffusers (ITU-R
/// 601-2).
pub(crate) fn mask(rgb: &[u8]) -> Vec<u8> {
    let grey = |p: &[u8; 3]| {
        let [r, g, b] = p.map(u32::from);
        ((r * 19_595 + g * 38_470 + b * 7_471 + 0x8000) >> 16) as u8
    };
    rgb.as_chunks().0.iter().map(grey).collect()
}

/// A picture that the user names.
///
/// # Errors
/// [`PipelineError::Picture`] for a file that is too large or no image.
pub(crate) fn read(path: &Path) -> Result<Image> {
    let limits = Limits::default();
    let wrong = |why: String| PipelineError::Picture { path: path.to_owned(), why };
    let bytes = std::fs::metadata(path).map_err(PipelineError::io(path))?.len();
    if bytes > limits.max_bytes {
        return Err(wrong(format!("{bytes} bytes are more than the limit of {}", limits.max_bytes)));
    }
    let bytes = std::fs::read(path).map_err(PipelineError::io(path))?;
    evenset_data::decode(&bytes, &limits).map_err(|error| wrong(error.to_string()))
}

/// An error about a column of pictures as one about the key that names it.
pub(crate) fn of_key(job: &Job, error: DataError) -> PipelineError {
    let (DataError::NoSuchColumn { column, .. } | DataError::NotPictures { column, .. }) = &error else {
        return error.into();
    };
    match key(job, column) {
        Some(key) => job.invalid(&key, error.to_string()).into(),
        None => error.into(),
    }
}

/// Refuses an image as its own mask.
pub(crate) fn refuse_image_as_mask(job: &Job, image: &str) -> Result<(), JobError> {
    match Pictures::of(job).mask.as_deref() == Some(image) {
        true => Err(job.invalid(
            "generate.guides.mask",
            format!("`{image}` holds the images themselves; name the column of their masks"),
        )),
        false => Ok(()),
    }
}

/// The key of the job that names a column of pictures.
fn key(job: &Job, column: &str) -> Option<String> {
    if Pictures::of(job).mask.as_deref() == Some(column) {
        return Some("generate.guides.mask".into());
    }
    let place = job.generate.model.controls().iter().position(|control| control.column == column)?;
    Some(format!("generate.model.controls.{place}.column"))
}

/// What a reader must know of training images that guide no candidate, of so many.
pub(crate) fn note(unfit: &[RejectedReason], images: usize) -> Option<String> {
    let count: u64 = unfit.iter().map(|reason| reason.rows).sum();
    let why = |reason: &RejectedReason| {
        let more = if reason.rows > NAMED as u64 { ", ..." } else { "" };
        let named: Vec<&str> = reason.examples.iter().take(NAMED).map(String::as_str).collect();
        format!("{} ({}: {}{more})", reason.reason, reason.rows, named.join(", "))
    };
    let whys: Vec<String> = unfit.iter().map(why).collect();
    (count > 0).then(|| format!("{count} of {images} training images guide no candidate: {}", whys.join("; ")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mask_is_the_grey_that_diffusers_sees() {
        assert_eq!(mask(&[0, 0, 0, 255, 255, 255, 128, 128, 128]), [0, 255, 128]);
        // As PIL's `convert("L")`.
        assert_eq!(mask(&[255, 0, 0, 0, 255, 0, 0, 0, 255]), [76, 150, 29]);
    }

    #[test]
    fn a_note_names_the_first_files_of_every_flaw() {
        let reason = |reason: &str, files: &[&str]| RejectedReason {
            reason: reason.into(),
            rows: files.len() as u64,
            examples: files.iter().map(|&file| file.to_owned()).collect(),
        };
        assert_eq!(note(&[], 5), None);
        let said = note(&[reason("no mask", &["a", "b", "c", "d"]), reason("damaged", &["e"])], 9).unwrap();
        assert_eq!(said, "5 of 9 training images guide no candidate: no mask (4: a, b, c, ...); damaged (1: e)");
    }
}
