//! Named `f32` tensors in a safetensors file, written atomically and read strictly.

use std::borrow::Cow;
use std::fs::{self, File};
use std::io::{Read, Write};
use std::path::Path;

use safetensors::{Dtype, SafeTensors, View};

use crate::error::{Error, Result};

/// The longest header that is read: a million tensors would fit.
const HEADER_CAP: u64 = 64 << 20;

/// A tensor on the host.
pub(crate) struct Stored {
    pub(crate) name: String,
    pub(crate) shape: Vec<usize>,
    pub(crate) values: Vec<f32>,
}

/// The bytes of a [`Stored`], little-endian.
struct Bytes {
    shape: Vec<usize>,
    bytes: Vec<u8>,
}

impl View for Bytes {
    fn dtype(&self) -> Dtype {
        Dtype::F32
    }
    fn shape(&self) -> &[usize] {
        &self.shape
    }
    fn data(&self) -> Cow<'_, [u8]> {
        Cow::Borrowed(&self.bytes)
    }
    fn data_len(&self) -> usize {
        self.bytes.len()
    }
}

/// Writes `tensors` to `path`: to a temporary name beside it, then renamed. The same tensors give the same bytes.
pub(crate) fn write(path: &Path, tensors: Vec<Stored>) -> Result<()> {
    let views = tensors.into_iter().map(|tensor| {
        let bytes = tensor.values.iter().flat_map(|value| value.to_le_bytes()).collect();
        (tensor.name, Bytes { shape: tensor.shape, bytes })
    });
    let bytes = safetensors::serialize(views, None)
        .map_err(|error| Error::Malformed { path: path.to_owned(), reason: error.to_string() })?;
    let mut temporary = path.as_os_str().to_owned();
    temporary.push(".tmp");
    let temporary = Path::new(&temporary);
    let written = File::create(temporary).and_then(|mut file| {
        file.write_all(&bytes)?;
        file.sync_all()
    });
    written.and_then(|()| fs::rename(temporary, path)).map_err(|source| {
        // The half-written file is of no use; that it may stay behind is no second error.
        let _ = fs::remove_file(temporary);
        Error::File { path: path.to_owned(), source }
    })
}

/// Reads exactly the tensors of `expected` (name and shape), in that order.
///
/// Nothing larger than the expected tensors and a header is read into memory. A missing, unexpected or misshapen tensor
/// is an error that names it.
pub(crate) fn read(path: &Path, expected: &[(String, Vec<usize>)]) -> Result<Vec<Vec<f32>>> {
    let bytes = read_capped(path, expected.iter().map(|(_, shape)| 4 * shape.iter().product::<usize>() as u64).sum())?;
    let file = SafeTensors::deserialize(&bytes)
        .map_err(|error| Error::Malformed { path: path.to_owned(), reason: error.to_string() })?;
    let mut unexpected: Vec<&str> = file.names();
    unexpected.retain(|name| !expected.iter().any(|(other, _)| other == name));
    unexpected.sort_unstable();
    let tensors = expected.iter().map(|(name, shape)| tensor(path, &file, name, shape)).collect::<Result<_>>()?;
    match unexpected.first() {
        Some(name) => Err(Error::Unexpected { path: path.to_owned(), name: (*name).to_owned() }),
        None => Ok(tensors),
    }
}

fn tensor(path: &Path, file: &SafeTensors<'_>, name: &str, shape: &[usize]) -> Result<Vec<f32>> {
    let view = file
        .tensor(name)
        .map_err(|_| Error::Missing { path: path.to_owned(), name: name.chars().take(200).collect() })?;
    if view.dtype() != Dtype::F32 || view.shape() != shape {
        return Err(Error::Mismatch {
            path: path.to_owned(),
            name: name.to_owned(),
            expected: format!("F32 {shape:?}"),
            found: format!("{:?} {:?}", view.dtype(), view.shape()),
        });
    }
    let (words, _) = view.data().as_chunks::<4>();
    Ok(words.iter().map(|word| f32::from_le_bytes(*word)).collect())
}

fn read_capped(path: &Path, data: u64) -> Result<Vec<u8>> {
    let failed = |source| Error::File { path: path.to_owned(), source };
    let malformed = |reason: String| Error::Malformed { path: path.to_owned(), reason };
    let mut file = File::open(path).map_err(failed)?;
    let length = file.metadata().map_err(failed)?.len();
    let mut header = [0; 8];
    file.read_exact(&mut header).map_err(|_| malformed(format!("{length} bytes are too few for a header")))?;
    let header_length = u64::from_le_bytes(header);
    if header_length > HEADER_CAP {
        return Err(malformed(format!("a header of {header_length} bytes is claimed, {HEADER_CAP} are allowed")));
    }
    // A file that holds more data than the network is a file of another network; its header says which tensor is too much.
    let claimed = length.saturating_sub(8 + header_length);
    if claimed > data.saturating_mul(2).saturating_add(HEADER_CAP) {
        return Err(malformed(format!("{claimed} bytes of tensors where the network has {data}")));
    }
    let mut bytes = Vec::from(header);
    file.take(length.saturating_sub(8)).read_to_end(&mut bytes).map_err(failed)?;
    Ok(bytes)
}
