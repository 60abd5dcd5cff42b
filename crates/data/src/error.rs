//! What can go wrong with a dataset, and what to do about it.

use std::io;
use std::path::{Path, PathBuf};

use crate::labels::FilterError;

/// A dataset that cannot be opened, read or written. A single broken image is never one of these: it is an entry in
/// [`Table::errors`](crate::Table::errors) or a [`DecodeError`].
#[derive(Debug, thiserror::Error)]
pub enum DataError {
    /// The path of the dataset does not exist.
    #[error("{}: there is no such file or folder", path.display())]
    NotFound {
        /// The path as given.
        path: PathBuf,
    },
    /// The path exists but holds nothing that is known as a dataset.
    #[error(
        "{}: {found}; expected Parquet files (`data/train-*.parquet`, `train.parquet`, `train/*.parquet`) or images \
         (`train/<class>/*.png`, `<class>/*.png`, or images beside a `metadata.jsonl`, `.csv` or `.parquet`)",
        path.display()
    )]
    NoData {
        /// The folder that was searched.
        path: PathBuf,
        /// What stands there instead.
        found: String,
    },
    /// The path exists but holds no table of labels.
    #[error(
        "{}: {found}; expected Parquet, CSV, TSV or JSONL (a file, a folder, or a pattern such as `data/*.parquet`), or a \
         dataset of images",
        path.display()
    )]
    NoTable {
        /// The path as given.
        path: PathBuf,
        /// What stands there instead.
        found: String,
    },
    /// A CSV or JSONL file that is not well-formed.
    #[error("{}, line {line}: {problem}", path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// The line, from 1 on.
        line: u64,
        /// What is wrong, and the remedy.
        problem: String,
    },
    /// An object store or a web server did not give what was asked for.
    #[error("{address}: {problem}; check the address and the credentials in the environment")]
    Remote {
        /// The address.
        address: String,
        /// What the store said.
        problem: String,
    },
    /// A derived attribute that cannot be made.
    #[error("derived attribute `{attribute}`: {problem}")]
    Derive {
        /// Its name.
        attribute: String,
        /// What is wrong, and the remedy.
        problem: String,
    },
    /// A filter that cannot be applied.
    #[error(transparent)]
    Filter(#[from] FilterError),
    /// The user asked for an end.
    #[error(transparent)]
    Interrupted(#[from] evenset_core::Interrupted),
    /// The folders and files contradict each other.
    #[error("{}: {problem}", path.display())]
    Layout {
        /// The file or folder at fault.
        path: PathBuf,
        /// What is wrong, and the remedy.
        problem: String,
    },
    /// A split that was asked for is not in the data.
    #[error("{}: there is no split `{split}`; found: {}; correct `dataset.splits`", path.display(), list(found))]
    NoSplit {
        /// The dataset.
        path: PathBuf,
        /// The name that was asked for.
        split: String,
        /// The names that exist.
        found: Vec<String>,
    },
    /// The key of a split is not a role.
    #[error("`{role}` is not a role of a split; use `train`, `validation` or `test`")]
    NoSuchRole {
        /// The key as given.
        role: String,
    },
    /// A column that was asked for is not in the data.
    #[error("there is no column `{column}`{}; the columns are: {}", suggestion(nearest.as_deref()), list(columns))]
    NoSuchColumn {
        /// The name that was asked for.
        column: String,
        /// The most similar name, where one is close.
        nearest: Option<String>,
        /// All columns.
        columns: Vec<String>,
    },
    /// No column holds images, or the named one does not.
    #[error(
        "{}: {problem}; an image column is struct<bytes: binary, path: string>, binary, or a text column of paths in \
         the dataset folder; name it with `dataset.image`",
        path.display()
    )]
    NoImageColumn {
        /// The file or folder.
        path: PathBuf,
        /// What was found.
        problem: String,
    },
    /// A column that is to hold pictures holds something else.
    #[error(
        "column `{column}` holds {holds}; pictures are struct<bytes: binary, path: string>, binary, or a text column of paths \
         in the dataset folder"
    )]
    NotPictures {
        /// The column.
        column: String,
        /// Its type.
        holds: String,
    },
    /// A column has no values that can name groups.
    #[error("column `{column}` {problem}")]
    NotAnAttribute {
        /// The column.
        column: String,
        /// Why, and the remedy.
        problem: String,
    },
    /// A class index without a class name.
    #[error(
        "column `{column}`, row {row}: class index {index} is outside the {classes} class names; correct the column or \
         its `names`"
    )]
    ClassOutOfRange {
        /// The column.
        column: String,
        /// Row in the table.
        row: usize,
        /// The index found there.
        index: i64,
        /// How many names there are.
        classes: usize,
    },
    /// The files of one dataset have different columns.
    #[error("{}: {problem}; all files of a dataset need the same columns", path.display())]
    SchemaMismatch {
        /// The file that differs.
        path: PathBuf,
        /// How it differs.
        problem: String,
    },
    /// A Parquet file is damaged or uses something this build cannot read.
    #[error("{}: not a readable Parquet file: {problem}; fetch or write it again", path.display())]
    Parquet {
        /// The file.
        path: PathBuf,
        /// What the reader said.
        problem: String,
    },
    /// A metadata file is damaged.
    #[error("{}: {problem}", path.display())]
    Metadata {
        /// The file.
        path: PathBuf,
        /// What is wrong, and the remedy.
        problem: String,
    },
    /// A file or a run of rows is larger than what is read at once.
    #[error("{}: {bytes} bytes are more than the {limit} that are read at once; split it into smaller files", path.display())]
    TooLarge {
        /// The file.
        path: PathBuf,
        /// Its size.
        bytes: u64,
        /// The limit.
        limit: u64,
    },
    /// A unit does not belong to this dataset, or the data changed after it was opened.
    #[error("{}: unit {unit} does not match the data there; it changed since it was opened, so open it again", path.display())]
    Stale {
        /// The dataset.
        path: PathBuf,
        /// Index of the unit.
        unit: usize,
    },
    /// Rows that a format cannot hold.
    #[error("{}: split `{split}`, row {row}: {problem}", path.display())]
    Unwritable {
        /// The folder that is being written.
        path: PathBuf,
        /// The split.
        split: String,
        /// Row in the split.
        row: u64,
        /// Why, and the remedy.
        problem: String,
    },
    /// The destination is there already.
    #[error("{}: exists already and is left as it is; choose another place or pass --overwrite", path.display())]
    Exists {
        /// The destination.
        path: PathBuf,
    },
    /// The disk or the quota is full.
    #[error(
        "{}: no space left on the disk{}; free some space and run again (files that were complete are untouched)",
        path.display(),
        needed.map(|bytes| format!(" ({bytes} bytes needed)")).unwrap_or_default()
    )]
    DiskFull {
        /// The file that was being written.
        path: PathBuf,
        /// How many bytes it needs, where that is known.
        needed: Option<u64>,
    },
    /// Any other failure of the file system.
    #[error("{}: {source}; check that the path exists and its permissions", path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Columns that do not fit together. A caller's mistake, not the data's.
    #[error("{context}: {source}")]
    Arrow {
        /// What was being built.
        context: String,
        /// What Arrow said.
        source: arrow_schema::ArrowError,
    },
}

impl DataError {
    /// An I/O error at `path`; a full disk or quota becomes [`DataError::DiskFull`].
    pub fn io(path: &Path, source: io::Error) -> Self {
        Self::io_needing(path, source, None)
    }

    /// Like [`io`](Self::io), for a write of a known number of bytes.
    pub fn io_needing(path: &Path, source: io::Error, needed: Option<u64>) -> Self {
        let path = path.to_path_buf();
        match source.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Self::DiskFull { path, needed },
            _ => Self::Io { path, source },
        }
    }

    /// An error of the Parquet library at `path`; an I/O error inside it comes out as one.
    pub(crate) fn parquet(path: &Path, error: parquet::errors::ParquetError) -> Self {
        match error {
            parquet::errors::ParquetError::External(inner) => match inner.downcast::<io::Error>() {
                Ok(source) => Self::io(path, *source),
                Err(other) => Self::Parquet { path: path.to_path_buf(), problem: other.to_string() },
            },
            other => Self::Parquet { path: path.to_path_buf(), problem: other.to_string() },
        }
    }

    pub(crate) fn arrow(context: impl Into<String>) -> impl FnOnce(arrow_schema::ArrowError) -> Self {
        let context = context.into();
        move |source| Self::Arrow { context, source }
    }
}

/// Why the bytes of one image file are not an image. The text is the reason that a rejected row carries.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// The file has no bytes.
    #[error("the file is empty")]
    Empty,
    /// The first bytes are those of no image format that is known.
    #[error("not an image: {0}")]
    NotAnImage(String),
    /// An image format that is known but not read.
    #[error("{0} images are not supported; convert to PNG, JPEG or WebP")]
    Unsupported(&'static str),
    /// The header asks for more pixels than the limit.
    #[error("{width} x {height} pixels are more than the limit of {max_pixels}")]
    TooManyPixels {
        /// Width in the header.
        width: u32,
        /// Height in the header.
        height: u32,
        /// [`Limits::max_pixels`](crate::Limits::max_pixels).
        max_pixels: u64,
    },
    /// The file has more bytes than the limit.
    #[error("{bytes} bytes are more than the limit of {max_bytes}")]
    TooManyBytes {
        /// Size of the file.
        bytes: u64,
        /// [`Limits::max_bytes`](crate::Limits::max_bytes).
        max_bytes: u64,
    },
    /// The file ends before the image does.
    #[error("truncated: {0}")]
    Truncated(String),
    /// The content contradicts the format.
    #[error("damaged: {0}")]
    Damaged(String),
}

fn list(names: &[String]) -> String {
    if names.is_empty() { "none".to_owned() } else { names.join(", ") }
}

fn suggestion(nearest: Option<&str>) -> String {
    nearest.map(|name| format!(" (did you mean `{name}`?)")).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_disk_below_the_parquet_library_is_called_one() {
        let full = parquet::errors::ParquetError::from(io::Error::from(io::ErrorKind::StorageFull));
        let error = DataError::parquet(Path::new("out/data/train.parquet"), full);
        assert!(matches!(error, DataError::DiskFull { .. }), "{error}");
    }
}
