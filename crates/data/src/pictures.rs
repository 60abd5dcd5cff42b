//! Columns of image files: how they are stored, and the file in one row.
//!
//! The image itself lies in one such column. Others hold pictures that belong to it: masks, edges, depth maps, poses.

use std::borrow::Cow;
use std::path::Path;

use arrow_array::{Array, ArrayRef};
use arrow_schema::DataType;

use crate::columns::{bytes_at, child, text_at};
use crate::decode::Limits;
use crate::error::DataError;
use crate::features::{is_binary, is_image_struct, is_text};
use crate::files::{checked_name, hash_inside, read_inside};
use crate::table::no_such_column;

/// Where the image files of a column are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Storage {
    /// struct<bytes, path>.
    Struct,
    /// Bytes without a path.
    Bytes,
    /// struct<path> or text: files in the dataset's folder.
    Paths,
}

impl Storage {
    /// How a column of this type stores image files; none where it can hold none.
    pub fn of(data_type: &DataType) -> Option<Self> {
        match data_type {
            DataType::Struct(fields) if is_image_struct(fields) => {
                let bytes = fields.iter().any(|field| field.name() == "bytes");
                Some(if bytes { Self::Struct } else { Self::Paths })
            }
            binary if is_binary(binary) => Some(Self::Bytes),
            text if is_text(text) => Some(Self::Paths),
            _ => None,
        }
    }
}

/// Where the paths in a column lead: a dataset's folder, and the folder in it that they are relative to.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Place<'a> {
    /// Canonical.
    pub root: &'a Path,
    /// Relative to the root; empty for the root itself.
    pub under: &'a str,
}

impl Place<'_> {
    /// Size and content of the file that a row names, as far as they can be known: else the reason stands for the content.
    pub fn content(self, path: Option<&str>) -> (u64, String) {
        let named = path.ok_or_else(no_image).and_then(|path| checked_name(self.under, path));
        match named.and_then(|path| hash_inside(self.root, &path)) {
            Ok((size, hash)) => (size, hash.to_hex().to_string()),
            Err(problem) => (0, problem),
        }
    }
}

/// The path in a row of a column of image files, whatever its storage.
pub(crate) fn path_at(column: &ArrayRef, row: usize) -> Option<&str> {
    text_at(child(column, "path").unwrap_or(column), row).filter(|_| column.is_valid(row))
}

/// The file in a row of a column of image files; none where the row has none. The error is the reason why it cannot be read.
pub(crate) fn file_at<'a>(
    column: &'a ArrayRef,
    row: usize,
    place: Place<'_>,
    limits: &Limits,
) -> Result<Option<Cow<'a, [u8]>>, String> {
    let path = path_at(column, row);
    if Storage::of(column.data_type()) == Some(Storage::Paths) {
        let read = |path| read_inside(place.root, &checked_name(place.under, path)?, limits.max_bytes);
        return path.map(|path| read(path).map(Cow::Owned)).transpose();
    }
    let bytes = child(column, "bytes").unwrap_or(column);
    match (bytes_at(bytes, row).filter(|_| column.is_valid(row)), path) {
        (Some(bytes), _) if bytes.len() as u64 > limits.max_bytes => {
            Err(format!("{} bytes are more than the limit of {}", bytes.len(), limits.max_bytes))
        }
        (Some(bytes), _) => Ok(Some(Cow::Borrowed(bytes))),
        (None, Some(path)) => Err(format!("the row has the path `{path}` but not the file's bytes; embed the images")),
        (None, None) => Ok(None),
    }
}

/// Refuses a column that is not there, or that can hold no pictures.
pub(crate) fn check<'a>(
    pictures: &[String],
    columns: impl Iterator<Item = (&'a str, &'a DataType)> + Clone,
) -> Result<(), DataError> {
    for picture in pictures {
        let Some((_, data_type)) = columns.clone().find(|(name, _)| name == picture) else {
            return Err(no_such_column(picture, columns.map(|(name, _)| name)));
        };
        if Storage::of(data_type).is_none() {
            return Err(DataError::NotPictures { column: picture.clone(), holds: data_type.to_string() });
        }
    }
    Ok(())
}

pub(crate) fn no_image() -> String {
    "the row has no image".to_owned()
}
