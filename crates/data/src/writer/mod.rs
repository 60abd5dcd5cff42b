//! Writing rows as datasets that other tools read.
//!
//! A writer's files are the same bytes for the same rows of a split in the same order: how the rows were batched does
//! not show. Image files are written as they are.

mod parquet;
mod sizes;
mod webdataset;

use std::path::{Path, PathBuf};

use arrow_array::RecordBatch;

use crate::atomic::sha256_file;
use crate::error::DataError;

pub use parquet::{ParquetOptions, ParquetWriter};
pub use webdataset::{WebDatasetOptions, WebDatasetWriter};

/// Something that rows of several splits are written to.
pub trait DatasetWriter {
    /// Adds rows to a split. Splits may take turns; within a split the order of the calls is the order of the rows.
    ///
    /// # Errors
    /// [`DataError`]: the rows do not fit the format, or the disk is full.
    fn write(&mut self, split: &str, batch: &RecordBatch) -> Result<(), DataError>;

    /// Completes all files and gives them their names. Without this call nothing usable is left behind.
    ///
    /// # Errors
    /// [`DataError::DiskFull`] or [`DataError::Io`].
    fn finish(self: Box<Self>) -> Result<Vec<ShardInfo>, DataError>;
}

/// A finished file of a dataset.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct ShardInfo {
    /// Relative to the writer's folder.
    pub path: PathBuf,
    /// The split that it belongs to.
    pub split: String,
    /// How many rows it holds.
    pub rows: u64,
    /// Its size.
    pub bytes: u64,
    /// The SHA-256 of its bytes in hexadecimal.
    pub sha256: String,
}

impl ShardInfo {
    fn of(folder: &Path, path: PathBuf, split: &str, rows: u64) -> Result<Self, DataError> {
        let file = folder.join(&path);
        let bytes = file.metadata().map_err(|error| DataError::io(&file, error))?.len();
        Ok(Self { path, split: split.to_owned(), rows, bytes, sha256: sha256_file(&file)? })
    }
}

/// Split names become parts of file names.
fn check_split_name(folder: &Path, split: &str) -> Result<(), DataError> {
    let plain = !split.is_empty() && split.chars().all(|c| c.is_alphanumeric() || c == '_');
    let problem = || format!("`{split}` cannot name a split; use letters, digits and `_`");
    if plain { Ok(()) } else { Err(DataError::Layout { path: folder.to_path_buf(), problem: problem() }) }
}

/// Refuses to write among files of another dataset.
fn check_no_files(folder: &Path, extension: &str) -> Result<(), DataError> {
    let entries = std::fs::read_dir(folder).map_err(|error| DataError::io(folder, error))?;
    for path in entries.filter_map(|entry| Some(entry.ok()?.path())) {
        if path.extension().is_some_and(|own| own == extension) {
            return Err(DataError::Exists { path });
        }
    }
    Ok(())
}
