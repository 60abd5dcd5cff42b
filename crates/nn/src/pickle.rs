//! Weights in a form that is never read: a pickle can run any program when it is opened.

use std::path::Path;

use crate::error::{Error, Result};

/// An error where `bytes`, those of the file `path`, are PyTorch's own format (a zip archive or a bare pickle).
pub(crate) fn refuse(path: &Path, bytes: &[u8]) -> Result<()> {
    let is_pickle = bytes.starts_with(b"PK\x03\x04") || matches!(bytes, [0x80, 1..=5, ..]) && !looks_safe(bytes);
    match is_pickle {
        true => Err(Error::Pickle { path: path.to_owned() }),
        false => Ok(()),
    }
}

/// Whether the eight bytes of a header's length are followed by its first brace.
fn looks_safe(bytes: &[u8]) -> bool {
    bytes.get(8) == Some(&b'{')
}
