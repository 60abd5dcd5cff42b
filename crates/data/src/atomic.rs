//! Files and folders that are whole or not there.
//!
//! Everything is written under a temporary name beside its destination and renamed at the end, so killing the process
//! anywhere leaves the old content or the new one, and a full disk never touches what was complete.

use std::fs::{self, File};
use std::io::{self, BufWriter, Read, Write};
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use crate::error::DataError;

/// Writes a whole file: temporary name, fsync, rename. The folder must exist.
///
/// # Errors
/// [`DataError::DiskFull`] or [`DataError::Io`]; an existing file at `path` is then as it was.
pub fn write_file(path: &Path, bytes: &[u8]) -> Result<(), DataError> {
    let mut file = AtomicFile::create(path)?;
    file.write_all(bytes).map_err(|error| DataError::io_needing(path, error, Some(bytes.len() as u64)))?;
    file.commit()
}

/// The SHA-256 of a file's bytes in hexadecimal.
///
/// # Errors
/// [`DataError::Io`] where the file cannot be read.
pub fn sha256_file(path: &Path) -> Result<String, DataError> {
    let mut hasher = Sha256::new();
    let read = File::open(path).and_then(|mut file| {
        let mut buffer = vec![0; 1 << 18];
        loop {
            match file.read(&mut buffer)? {
                0 => return Ok(()),
                n => hasher.update(&buffer[..n]),
            }
        }
    });
    read.map_err(|error| DataError::io(path, error))?;
    Ok(hex(hasher))
}

/// The SHA-256 of bytes, in hexadecimal.
pub fn sha256_bytes(bytes: &[u8]) -> String {
    hex(Sha256::new_with_prefix(bytes))
}

fn hex(hasher: Sha256) -> String {
    hasher.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A file that appears at its path when it is committed; dropped before that, it leaves nothing behind.
#[derive(Debug)]
pub struct AtomicFile {
    path: PathBuf,
    temporary: PathBuf,
    file: Option<BufWriter<File>>,
}

impl AtomicFile {
    /// Begins the file that will stand at `path`. The folder must exist.
    ///
    /// # Errors
    /// [`DataError::Io`] where nothing can be created there.
    pub fn create(path: &Path) -> Result<Self, DataError> {
        let temporary = beside(path, "tmp")?;
        let file = File::create(&temporary).map_err(|error| DataError::io(path, error))?;
        Ok(Self { path: path.to_path_buf(), temporary, file: Some(BufWriter::with_capacity(1 << 18, file)) })
    }

    /// Makes the content durable and gives it its name.
    ///
    /// # Errors
    /// [`DataError::DiskFull`] or [`DataError::Io`]; what stood at the path before is then as it was.
    pub fn commit(mut self) -> Result<(), DataError> {
        let Some(file) = self.file.take() else { return Ok(()) };
        let done = file
            .into_inner()
            .map_err(io::IntoInnerError::into_error)
            .and_then(|file| file.sync_all())
            .and_then(|()| fs::rename(&self.temporary, &self.path));
        if done.is_err() {
            let _ = fs::remove_file(&self.temporary);
        }
        done.map_err(|error| DataError::io(&self.path, error))?;
        sync_folder(&self.path);
        Ok(())
    }
}

impl Write for AtomicFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.file.as_mut().map_or(Ok(0), |file| file.write(bytes))
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.as_mut().map_or(Ok(()), Write::flush)
    }
}

impl Drop for AtomicFile {
    fn drop(&mut self) {
        if let Some(file) = self.file.take() {
            drop(file.into_parts());
            let _ = fs::remove_file(&self.temporary);
        }
    }
}

/// A folder that appears at its path when it is committed; dropped before that, it leaves nothing behind.
///
/// What a killed process left of an earlier attempt is removed by the next [`create`](Self::create) for the same path.
#[derive(Debug)]
pub struct AtomicFolder {
    destination: PathBuf,
    temporary: PathBuf,
    retired: PathBuf,
    committed: bool,
}

impl AtomicFolder {
    /// Begins the folder that will stand at `path`. With `overwrite`, what stands there is removed once the folder that
    /// replaces it is complete and in place; an empty folder may always be replaced.
    ///
    /// # Errors
    /// [`DataError::Exists`] where something stands there and `overwrite` is false; [`DataError::Io`].
    pub fn create(path: &Path, overwrite: bool) -> Result<Self, DataError> {
        let (temporary, retired) = (beside(path, "tmp")?, beside(path, "old.tmp")?);
        let at = |error| DataError::io(path, error);
        fs::create_dir_all(parent(path)).map_err(at)?;
        if exists(&retired) {
            // Killed between the two renames of a commit: the complete old content stands under the other name.
            if exists(path) { remove(&retired) } else { fs::rename(&retired, path) }.map_err(at)?;
        }
        if !overwrite && exists(path) && !is_empty_folder(path) {
            return Err(DataError::Exists { path: path.to_path_buf() });
        }
        remove(&temporary).map_err(at)?;
        fs::create_dir(&temporary).map_err(at)?;
        Ok(Self { destination: path.to_path_buf(), temporary, retired, committed: false })
    }

    /// Where to write: a folder beside the destination.
    pub fn path(&self) -> &Path {
        &self.temporary
    }

    /// Gives the folder its name and removes what stood there.
    ///
    /// # Errors
    /// [`DataError::Io`]; what stood at the path before is then still there.
    pub fn commit(mut self) -> Result<(), DataError> {
        let at = |error| DataError::io(&self.destination, error);
        let replaces = exists(&self.destination);
        if replaces {
            fs::rename(&self.destination, &self.retired).map_err(at)?;
        }
        if let Err(error) = fs::rename(&self.temporary, &self.destination) {
            if replaces {
                let _ = fs::rename(&self.retired, &self.destination);
            }
            return Err(at(error));
        }
        self.committed = true;
        sync_folder(&self.destination);
        remove(&self.retired).map_err(at)
    }
}

impl Drop for AtomicFolder {
    fn drop(&mut self) {
        if !self.committed {
            let _ = remove(&self.temporary);
        }
    }
}

/// `.name.suffix` in the same folder, so that a rename stays on one file system.
fn beside(path: &Path, suffix: &str) -> Result<PathBuf, DataError> {
    let name = path.file_name().ok_or_else(|| {
        DataError::io(path, io::Error::new(io::ErrorKind::InvalidInput, "the path does not end in a name"))
    })?;
    let mut hidden = std::ffi::OsString::from(".");
    hidden.push(name);
    hidden.push(".");
    hidden.push(suffix);
    Ok(path.with_file_name(hidden))
}

fn parent(path: &Path) -> &Path {
    path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

fn exists(path: &Path) -> bool {
    path.symlink_metadata().is_ok()
}

fn is_empty_folder(path: &Path) -> bool {
    fs::read_dir(path).is_ok_and(|mut entries| entries.next().is_none())
}

fn remove(path: &Path) -> io::Result<()> {
    match path.symlink_metadata() {
        Err(_) => Ok(()),
        Ok(metadata) if metadata.is_dir() => fs::remove_dir_all(path),
        Ok(_) => fs::remove_file(path),
    }
}

/// Makes a rename durable. Not every file system can; then the rename is at the mercy of the next power cut only.
fn sync_folder(path: &Path) {
    if let Err(error) = File::open(parent(path)).and_then(|folder| folder.sync_all()) {
        tracing::debug!("{}: folder not synchronised: {error}", parent(path).display());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(folder: &Path) -> Vec<String> {
        let mut names: Vec<String> =
            fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    #[test]
    fn a_file_that_is_not_committed_leaves_the_old_one_and_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.json");
        write_file(&path, b"old").unwrap();
        let mut file = AtomicFile::create(&path).unwrap();
        file.write_all(b"half").unwrap();
        drop(file);
        assert_eq!(fs::read(&path).unwrap(), b"old");
        assert_eq!(names(folder.path()), ["a.json"]);
        write_file(&path, b"new").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"new");
    }

    #[test]
    fn a_folder_that_a_killed_process_left_is_begun_again() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("out");
        let killed = AtomicFolder::create(&path, false).unwrap();
        fs::write(killed.path().join("stale"), "x").unwrap();
        std::mem::forget(killed);

        let building = AtomicFolder::create(&path, false).unwrap();
        assert!(!path.exists());
        fs::write(building.path().join("fresh"), "y").unwrap();
        building.commit().unwrap();
        assert_eq!(names(&path), ["fresh"]);
        assert_eq!(names(folder.path()), ["out"]);
    }

    #[test]
    fn an_existing_folder_is_refused_and_with_overwrite_it_stays_until_the_other_is_complete() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("out");
        fs::create_dir(&path).unwrap();
        fs::write(path.join("old"), "x").unwrap();
        assert!(matches!(AtomicFolder::create(&path, false), Err(DataError::Exists { .. })));

        drop(AtomicFolder::create(&path, true).unwrap());
        assert_eq!(names(&path), ["old"]);
        let building = AtomicFolder::create(&path, true).unwrap();
        fs::write(building.path().join("fresh"), "y").unwrap();
        assert_eq!(names(&path), ["old"]);
        building.commit().unwrap();
        assert_eq!(names(&path), ["fresh"]);
        assert_eq!(names(folder.path()), ["out"]);
    }

    #[test]
    fn a_kill_between_the_two_renames_of_a_commit_gives_the_old_folder_back() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("out");
        fs::create_dir(folder.path().join(".out.old.tmp")).unwrap();
        fs::write(folder.path().join(".out.old.tmp/old"), "x").unwrap();
        fs::create_dir(folder.path().join(".out.tmp")).unwrap();
        assert!(matches!(AtomicFolder::create(&path, false), Err(DataError::Exists { .. })));
        assert_eq!(names(&path), ["old"]);
    }

    #[test]
    fn an_empty_folder_may_be_filled() {
        let folder = tempfile::tempdir().unwrap();
        AtomicFolder::create(folder.path(), false).unwrap().commit().unwrap();
        assert!(folder.path().exists());
    }

    #[test]
    fn a_full_disk_is_called_one() {
        let error = DataError::io_needing(Path::new("out/a"), io::ErrorKind::StorageFull.into(), Some(5));
        assert_eq!(
            error.to_string(),
            "out/a: no space left on the disk (5 bytes needed); free some space and run again (files that were \
             complete are untouched)"
        );
    }

    #[test]
    fn the_sha256_is_the_standard_one() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("abc");
        fs::write(&path, "abc").unwrap();
        let expected = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert_eq!(sha256_file(&path).unwrap(), expected);
    }
}
