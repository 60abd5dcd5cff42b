//! Columns of the run's own tables: small builders, and readers that name what is missing.

use std::path::Path;
use std::sync::Arc;

use arrow_array::{Array, ArrayRef, BinaryArray, BooleanArray, RecordBatch, StringArray, UInt64Array};

use crate::error::{PipelineError, Result};

/// A table from named columns of the same length.
pub(crate) fn table(columns: Vec<(&str, ArrayRef)>) -> Result<RecordBatch> {
    RecordBatch::try_from_iter_with_nullable(columns.into_iter().map(|(name, array)| (name, array, true)))
        .map_err(|error| PipelineError::damaged(Path::new("a table of the run"))(error))
}

pub(crate) fn texts<'a>(values: impl Iterator<Item = Option<&'a str>>) -> ArrayRef {
    Arc::new(values.collect::<StringArray>())
}

pub(crate) fn strings(values: impl Iterator<Item = String>) -> ArrayRef {
    Arc::new(values.map(Some).collect::<StringArray>())
}

pub(crate) fn numbers(values: impl Iterator<Item = u64>) -> ArrayRef {
    Arc::new(values.collect::<UInt64Array>())
}

pub(crate) fn flags(values: impl Iterator<Item = bool>) -> ArrayRef {
    Arc::new(values.map(Some).collect::<BooleanArray>())
}

pub(crate) fn blobs<'a>(values: impl Iterator<Item = &'a [u8]>) -> ArrayRef {
    Arc::new(values.map(Some).collect::<BinaryArray>())
}

/// A table of the run that is read back, with the file's name for errors.
pub(crate) struct Reader<'a> {
    pub batch: &'a RecordBatch,
    pub path: &'a Path,
}

impl Reader<'_> {
    fn column<T: 'static>(&self, name: &str) -> Result<&T> {
        let column = self.batch.column_by_name(name).and_then(|column| column.as_any().downcast_ref::<T>());
        column
            .ok_or_else(|| PipelineError::damaged(self.path)(format!("column `{name}` is missing or of another type")))
    }

    pub fn texts(&self, name: &str) -> Result<Vec<Option<String>>> {
        Ok(self.column::<StringArray>(name)?.iter().map(|value| value.map(str::to_owned)).collect())
    }

    pub fn strings(&self, name: &str) -> Result<Vec<String>> {
        Ok(self.texts(name)?.into_iter().map(Option::unwrap_or_default).collect())
    }

    pub fn parsed<T: std::str::FromStr>(&self, name: &str) -> Result<Vec<T>>
    where
        T::Err: std::fmt::Display,
    {
        self.strings(name)?.iter().map(|text| text.parse().map_err(PipelineError::damaged(self.path))).collect()
    }

    pub fn numbers(&self, name: &str) -> Result<Vec<u64>> {
        Ok(self.column::<UInt64Array>(name)?.iter().map(Option::unwrap_or_default).collect())
    }

    pub fn flags(&self, name: &str) -> Result<Vec<bool>> {
        Ok(self.column::<BooleanArray>(name)?.iter().map(Option::unwrap_or_default).collect())
    }

    pub fn blobs(&self, name: &str) -> Result<Vec<Vec<u8>>> {
        Ok(self.column::<BinaryArray>(name)?.iter().map(|value| value.unwrap_or_default().to_vec()).collect())
    }
}
