//! One file of a table: on this machine, in an object store, or kept from standard input.

use std::fs::File;
use std::io::{self, BufReader, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use flate2::read::MultiGzDecoder;
use tempfile::NamedTempFile;

use super::remote::Object;
use crate::error::DataError;
use crate::files::hash;

/// Standard input above this size is not kept on the disk.
const MAX_SPOOLED_BYTES: u64 = 64 << 30;
/// Bytes that are fetched from an object store at a time when it is read from front to back.
const STREAM_BYTES: usize = 4 << 20;

/// A file whose content is read, with the role of the split that it belongs to.
#[derive(Clone, Debug)]
pub(crate) struct LabelFile {
    /// As messages call it: a path or an address.
    pub address: String,
    /// `train`, `validation` or `test`.
    pub split: String,
    pub place: Place,
}

/// Where the bytes are.
#[derive(Clone, Debug)]
pub(crate) enum Place {
    Local(PathBuf),
    Remote(Arc<Object>),
    /// What came from standard input; removed with the table.
    Spooled(Arc<NamedTempFile>),
}

/// An open file that is read at any place.
pub(crate) enum Handle {
    File(Mutex<File>),
    Remote(Arc<Object>),
}

impl LabelFile {
    /// Keeps what a reader gives in a temporary file.
    pub fn spool(name: &str, reader: impl Read) -> Result<Self, DataError> {
        let at = |error| DataError::io(Path::new(name), error);
        let mut file = NamedTempFile::new().map_err(at)?;
        let bytes = io::copy(&mut reader.take(MAX_SPOOLED_BYTES + 1), &mut file).map_err(at)?;
        if bytes > MAX_SPOOLED_BYTES {
            return Err(DataError::TooLarge { path: name.into(), bytes, limit: MAX_SPOOLED_BYTES });
        }
        file.flush().map_err(at)?;
        Ok(Self { address: name.to_owned(), split: "train".to_owned(), place: Place::Spooled(Arc::new(file)) })
    }

    /// The address as a path, for errors.
    pub fn path(&self) -> &Path {
        Path::new(&self.address)
    }

    fn io(&self, error: io::Error) -> DataError {
        match error.downcast::<DataError>() {
            Ok(error) => error,
            Err(error) => DataError::io(self.path(), error),
        }
    }

    /// The whole file from front to back, decompressed where it is gzip.
    pub fn stream(&self) -> Result<Box<dyn Read + Send>, DataError> {
        let mut reader: BufReader<Box<dyn Read + Send>> = match &self.place {
            Place::Local(path) => BufReader::with_capacity(1 << 18, Box::new(self.file(path)?)),
            Place::Spooled(file) => BufReader::with_capacity(1 << 18, Box::new(self.file(file.path())?)),
            Place::Remote(object) => {
                BufReader::new(Box::new(RemoteStream { object: Arc::clone(object), position: 0, left: Bytes::new() }))
            }
        };
        let begin = io::BufRead::fill_buf(&mut reader).map_err(|error| self.io(error))?;
        if begin.starts_with(&[0x1f, 0x8b]) {
            return Ok(Box::new(MultiGzDecoder::new(reader)));
        }
        Ok(Box::new(reader))
    }

    fn file(&self, path: &Path) -> Result<File, DataError> {
        File::open(path).map_err(|error| DataError::io(self.path(), error))
    }

    /// Opens it for reads at any place.
    pub fn handle(&self) -> Result<Handle, DataError> {
        Ok(match &self.place {
            Place::Local(path) => Handle::File(Mutex::new(self.file(path)?)),
            Place::Spooled(file) => Handle::File(Mutex::new(self.file(file.path())?)),
            Place::Remote(object) => Handle::Remote(Arc::clone(object)),
        })
    }

    /// What changes when the content does: the hash of a local file, the tag and size of an object.
    pub fn version(&self) -> Result<String, DataError> {
        let hashed = |path: &Path| {
            let (_, hash) = hash(self.file(path)?).map_err(|error| DataError::io(self.path(), error))?;
            Ok(hash.to_hex().to_string())
        };
        match &self.place {
            Place::Local(path) => hashed(path),
            Place::Spooled(file) => hashed(file.path()),
            Place::Remote(object) => Ok(object.version()),
        }
    }
}

impl Handle {
    /// The size of the file in bytes.
    pub fn bytes(&self) -> io::Result<u64> {
        match self {
            Self::File(file) => Ok(file.lock().unwrap_or_else(PoisonError::into_inner).metadata()?.len()),
            Self::Remote(object) => Ok(object.bytes),
        }
    }

    /// `length` bytes from `start` on.
    pub fn read(&self, start: u64, length: usize) -> io::Result<Bytes> {
        match self {
            Self::File(file) => {
                let mut file = file.lock().unwrap_or_else(PoisonError::into_inner);
                file.seek(SeekFrom::Start(start))?;
                let mut bytes = vec![0; length];
                file.read_exact(&mut bytes)?;
                Ok(bytes.into())
            }
            Self::Remote(object) => object.read(start, length).map_err(io::Error::other),
        }
    }
}

/// An object from front to back.
struct RemoteStream {
    object: Arc<Object>,
    position: u64,
    left: Bytes,
}

impl Read for RemoteStream {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        if self.left.is_empty() && self.position < self.object.bytes {
            let length = (self.object.bytes - self.position).min(STREAM_BYTES as u64) as usize;
            self.left = self.object.read(self.position, length).map_err(io::Error::other)?;
            self.position += length as u64;
        }
        let given = self.left.len().min(into.len());
        into[..given].copy_from_slice(&self.left.split_to(given));
        Ok(given)
    }
}
