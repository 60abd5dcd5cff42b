//! Units: the small, immutable, content-addressed pieces of a dataset that map stages work on.

use std::ops::Range;

use evenset_core::Fingerprint;
use serde::{Deserialize, Serialize};

/// Rows of a unit at most.
const MAX_ROWS: usize = 2048;
/// Bytes of image files in a unit, about.
const MAX_BYTES: u64 = 128 << 20;

/// A run of rows of one split that is read at once.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Unit {
    /// Its place in [`Dataset::units`](crate::Dataset::units).
    pub index: usize,
    /// The role of its split: `train`, `validation` or `test`.
    pub split: String,
    /// Where the rows are.
    pub source: Source,
    /// How many rows it has.
    pub rows: usize,
    /// Changes when the content of the rows does; the same in every copy of the dataset.
    pub fingerprint: Fingerprint,
}

/// Where a unit's rows are.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "type")]
pub enum Source {
    /// Consecutive rows of one Parquet file.
    Parquet {
        /// The file, relative to the dataset.
        file: String,
        /// The first row in the file.
        first_row: usize,
    },
    /// Image files, one a row.
    Files {
        /// The first row in the dataset's listing.
        first_row: usize,
        /// The files, relative to the dataset.
        files: Vec<String>,
    },
}

/// Cuts rows of these sizes in bytes into runs for units. Only the sizes decide where, so every machine cuts alike.
pub(crate) fn cut(sizes: impl IntoIterator<Item = u64>) -> Vec<Range<usize>> {
    let mut runs = Vec::new();
    let (mut first, mut bytes, mut end) = (0, 0u64, 0);
    for size in sizes {
        let full = end - first == MAX_ROWS || bytes.saturating_add(size) > MAX_BYTES;
        if full && end > first {
            runs.push(first..end);
            (first, bytes) = (end, 0);
        }
        bytes = bytes.saturating_add(size);
        end += 1;
    }
    if end > first {
        runs.push(first..end);
    }
    runs
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_end_at_the_row_limit_and_before_the_byte_limit_and_cover_every_row() {
        assert!(cut([]).is_empty());
        assert_eq!(cut(vec![1; 5000]), [0..2048, 2048..4096, 4096..5000]);
        assert_eq!(cut([MAX_BYTES, 1, MAX_BYTES - 1, 1, u64::MAX, u64::MAX]), [0..1, 1..3, 3..4, 4..5, 5..6]);
    }
}
