//! A part of a file as the Parquet library reads it: a few large reads instead of one for each page.

use std::io::{self, Cursor};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use parquet::errors::{ParquetError, Result};
use parquet::file::reader::{ChunkReader, Length};

use super::file::Handle;

/// Bytes that are read at once where the part is long enough. A column of labels in a row group is mostly smaller.
const WINDOW: u64 = 4 << 20;
/// Page headers with their statistics are smaller than this.
const HEADER: usize = 1 << 20;

/// A file up to an end, with the bytes that were read last.
pub(crate) struct Ranged {
    handle: Arc<Handle>,
    bytes: u64,
    /// Nothing is read ahead beyond this place.
    end: u64,
    window: Mutex<(u64, Bytes)>,
}

impl Ranged {
    /// The whole file.
    pub fn new(handle: Arc<Handle>) -> io::Result<Self> {
        let bytes = handle.bytes()?;
        Ok(Self { handle, bytes, end: bytes, window: Mutex::default() })
    }

    /// The same file, read ahead up to `end` only.
    pub fn until(&self, end: u64) -> Self {
        Self { handle: Arc::clone(&self.handle), bytes: self.bytes, end: end.min(self.bytes), window: Mutex::default() }
    }

    /// At least `length` bytes from `start` on.
    fn at_least(&self, start: u64, length: usize) -> Result<Bytes> {
        let too_far = || ParquetError::EOF(format!("bytes {start}..+{length} lie behind the end at {}", self.bytes));
        let needed = start.checked_add(length as u64).filter(|end| *end <= self.bytes).ok_or_else(too_far)?;
        let mut window = self.window.lock().unwrap_or_else(PoisonError::into_inner);
        let (begin, bytes) = &*window;
        if start < *begin || needed > begin + bytes.len() as u64 {
            let end = needed.max(start.saturating_add(WINDOW).min(self.end));
            let length = usize::try_from(end - start).map_err(|_| too_far())?;
            let bytes = self.handle.read(start, length).map_err(|error| ParquetError::External(Box::new(error)))?;
            *window = (start, bytes);
        }
        let (begin, bytes) = &*window;
        Ok(bytes.slice((start - begin) as usize..))
    }
}

impl Length for Ranged {
    fn len(&self) -> u64 {
        self.bytes
    }
}

impl ChunkReader for Ranged {
    type T = Cursor<Bytes>;

    fn get_read(&self, start: u64) -> Result<Self::T> {
        let length = self.end.max(start).min(self.bytes).saturating_sub(start).min(HEADER as u64) as usize;
        self.at_least(start, length).map(Cursor::new)
    }

    fn get_bytes(&self, start: u64, length: usize) -> Result<Bytes> {
        self.at_least(start, length).map(|bytes| bytes.slice(..length))
    }
}
