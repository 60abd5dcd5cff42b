//! A reader that refuses rows without an end: a quote that is never closed must not fill the memory.

use std::cell::Cell;
use std::io::{self, Read};

/// Bytes of a row at most.
const MAX_ROW_BYTES: usize = 256 << 20;

/// Counts the bytes since the row at hand began.
pub(crate) struct Bounded<R> {
    reader: R,
    row: Cell<usize>,
}

impl<R: Read> Bounded<R> {
    /// Reads from `reader`.
    pub fn new(reader: R) -> Self {
        Self { reader, row: Cell::new(0) }
    }

    /// A row begins.
    pub fn begin(&self) {
        self.row.set(0);
    }
}

impl<R: Read> Read for Bounded<R> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        if self.row.get() > MAX_ROW_BYTES {
            let problem = "a row has more than 256 MiB; a quote that is opened is probably never closed";
            return Err(io::Error::other(problem));
        }
        let read = self.reader.read(into)?;
        self.row.set(self.row.get() + read);
        Ok(read)
    }
}
