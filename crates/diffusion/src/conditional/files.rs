//! Small files that are whole or not there.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::path::Path;

use sha2::{Digest, Sha256};

use crate::error::{DiffusionError, Result};

/// No text file of a model or checkpoint is longer.
const TEXT_CAP: u64 = 64 << 20;

/// Writes `bytes` to a temporary name beside `path`, then renames.
pub(crate) fn write(path: &Path, bytes: &[u8]) -> Result<()> {
    let mut temporary = path.as_os_str().to_owned();
    temporary.push(".tmp");
    let temporary = Path::new(&temporary);
    let written = File::create(temporary).and_then(|mut file| {
        file.write_all(bytes)?;
        file.sync_all()
    });
    written.and_then(|()| fs::rename(temporary, path)).map_err(DiffusionError::file(path))
}

/// The text of a file, if there is one.
pub(crate) fn read(path: &Path) -> Result<Option<String>> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(DiffusionError::file(path)(error)),
    };
    let mut text = String::new();
    file.take(TEXT_CAP).read_to_string(&mut text).map_err(DiffusionError::file(path))?;
    Ok(Some(text))
}

/// SHA-256 of a file's bytes in hexadecimal.
pub(crate) fn sha256(path: &Path) -> Result<String> {
    let bytes = fs::read(path).map_err(DiffusionError::file(path))?;
    Ok(Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect())
}
