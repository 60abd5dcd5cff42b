//! How many bytes a row takes: what decides where shards, row groups and pages end.
//!
//! An estimate from the values alone, never from how Arrow happens to hold them, so the cuts do not depend on batches.

use arrow_array::cast::AsArray;
use arrow_array::{Array, RecordBatch};

use crate::columns::{bytes_at, text_at};

/// A flat price for values whose size is not worth finding out.
const FLAT: u64 = 16;
/// What an offset or a length costs.
const LENGTH: u64 = 4;

/// About how many bytes each row takes uncompressed.
pub(super) fn row_bytes(batch: &RecordBatch) -> Vec<u64> {
    let size = |row: usize| batch.columns().iter().map(|column| cell_bytes(column, row)).sum();
    (0..batch.num_rows()).map(size).collect()
}

fn cell_bytes(array: &dyn Array, row: usize) -> u64 {
    if let Some(bytes) = bytes_at(array, row) {
        return LENGTH + bytes.len() as u64;
    }
    if let Some(text) = text_at(array, row) {
        return LENGTH + text.len() as u64;
    }
    match array.as_struct_opt() {
        Some(fields) => fields.columns().iter().map(|column| cell_bytes(column, row)).sum(),
        None => array.data_type().primitive_width().map_or(FLAT, |width| width as u64),
    }
}
