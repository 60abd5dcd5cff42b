//! What every format gives: batches of rows of the columns that were asked for.

use super::words::Cells;
use crate::error::DataError;

/// Rows that are read and counted at once.
pub(crate) const BATCH_ROWS: usize = 1 << 16;

/// A column that is read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Column {
    /// A column of the table.
    Own(String),
    /// The role of the split.
    Split,
    /// The path of the image file.
    ImagePath,
}

/// Rows of the columns in the order in which they were asked for.
#[derive(Debug, Default)]
pub(crate) struct Batch {
    pub cells: Vec<Cells>,
    pub rows: usize,
    /// The file that the rows are from.
    pub address: String,
    /// The place of the first row in the file.
    pub first_row: u64,
}

impl Batch {
    /// An empty batch of so many columns.
    pub fn new(columns: usize) -> Self {
        Self { cells: std::iter::repeat_with(Cells::default).take(columns).collect(), ..Self::default() }
    }
}

/// Reads a part of a table.
pub(crate) trait BatchReader {
    /// Replaces the rows of the batch by the next ones, at least one; false where there are no more.
    fn next(&mut self, batch: &mut Batch) -> Result<bool, DataError>;
}
