//! Reading files that a stranger's dataset names, without leaving the dataset's folder.

use std::fs::{self, File};
use std::io::{self, Read, Seek};
use std::path::{Path, PathBuf};

/// Extensions of files that count as images, whether they can be decoded or not: none is passed over in silence.
const IMAGE_EXTENSIONS: [&str; 18] = [
    "png", "jpg", "jpeg", "jpe", "jfif", "webp", "gif", "bmp", "tif", "tiff", "heic", "heif", "avif", "jxl", "jp2",
    "ppm", "pgm", "tga",
];
/// Folders deeper than this are not searched.
const MAX_DEPTH: usize = 32;

/// Whether a file of this name counts as an image.
pub(crate) fn is_image_name(name: &str) -> bool {
    extension(name).is_some_and(|extension| IMAGE_EXTENSIONS.contains(&extension.as_str()))
}

/// The extension in lower case.
pub(crate) fn extension(name: &str) -> Option<String> {
    Path::new(name).extension().and_then(|extension| extension.to_str()).map(str::to_lowercase)
}

/// Names that hold no data: hidden files, and what operating systems leave in folders.
pub(crate) fn is_ignored_name(name: &str) -> bool {
    name.starts_with('.') || matches!(name, "__MACOSX" | "Thumbs.db" | "desktop.ini")
}

/// The last part of a path with `/`.
pub(crate) fn base_name(path: &str) -> &str {
    path.rsplit('/').next().unwrap_or(path)
}

/// A file as a folder or a column names it, relative to the dataset with `/`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Found {
    pub path: String,
    /// Why the file is not read, where that is known already.
    pub problem: Option<String>,
}

/// One entry of a folder.
pub(crate) struct Entry {
    pub name: String,
    pub is_folder: bool,
    /// The name is not UTF-8; `name` is then an approximation.
    pub unreadable_name: bool,
}

/// The entries of a folder, sorted by name; ignored names and links to folders are left out.
pub(crate) fn entries(folder: &Path) -> io::Result<Vec<Entry>> {
    let mut entries = Vec::new();
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let name = entry.file_name();
        let unreadable_name = name.to_str().is_none();
        let name = name.to_string_lossy().into_owned();
        let file_type = entry.file_type()?;
        if is_ignored_name(&name) || (file_type.is_symlink() && entry.path().is_dir()) {
            continue;
        }
        entries.push(Entry { name, is_folder: file_type.is_dir(), unreadable_name });
    }
    entries.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(entries)
}

/// All image files in `root/under` and its folders, sorted by path.
pub(crate) fn images(root: &Path, under: &str) -> io::Result<Vec<Found>> {
    let mut found = Vec::new();
    search(root, under, MAX_DEPTH, &mut found)?;
    found.sort_by(|a, b| a.path.cmp(&b.path));
    Ok(found)
}

fn search(root: &Path, under: &str, depth: usize, found: &mut Vec<Found>) -> io::Result<()> {
    for entry in entries(&root.join(under))? {
        let path = join(under, &entry.name);
        if entry.is_folder {
            if depth > 0 && !entry.unreadable_name {
                search(root, &path, depth - 1, found)?;
            } else {
                let problem = Some("the folder's name is not UTF-8, or it lies too deep".to_owned());
                found.push(Found { path, problem });
            }
        } else if is_image_name(&entry.name) {
            let problem = entry.unreadable_name.then(|| "the file's name is not UTF-8; rename it".to_owned());
            found.push(Found { path, problem });
        }
    }
    Ok(())
}

/// `under/name`, or `name` where `under` is empty.
pub(crate) fn join(under: &str, name: &str) -> String {
    if under.is_empty() { name.to_owned() } else { format!("{under}/{name}") }
}

/// Checks a file name that a metadata row gives, and joins it to the metadata's folder.
///
/// The error is the reason for the rejected row: the name is empty, absolute, an address, or leads upwards.
pub(crate) fn checked_name(under: &str, name: &str) -> Result<String, String> {
    let shown: String = name.chars().take(200).collect();
    let refuse = |why: &str| Err(format!("file_name `{shown}` {why}; it must lie beside or below the metadata file"));
    if name.is_empty() || name.ends_with('/') {
        return refuse("names no file");
    }
    if name.contains("://") {
        return refuse("is an address");
    }
    let drive = name.as_bytes().get(1) == Some(&b':') && name.as_bytes()[0].is_ascii_alphabetic();
    if name.starts_with(['/', '\\']) || drive {
        return refuse("is an absolute path");
    }
    if name.split(['/', '\\']).any(|part| part == "..") {
        return refuse("leads out of its folder");
    }
    if name.contains('\0') {
        return refuse("holds a NUL character");
    }
    let parts: Vec<&str> = name.split('/').filter(|part| !part.is_empty() && *part != ".").collect();
    Ok(join(under, &parts.join("/")))
}

/// The bytes of `root/path`, or the reason why the row is rejected. `root` must be canonical.
pub(crate) fn read_inside(root: &Path, path: &str, max_bytes: u64) -> Result<Vec<u8>, String> {
    let (mut file, size) = open_inside(root, path)?;
    if size > max_bytes {
        return Err(format!("{size} bytes are more than the limit of {max_bytes}"));
    }
    let mut bytes = Vec::with_capacity(size as usize);
    file.by_ref().take(max_bytes + 1).read_to_end(&mut bytes).map_err(|error| unreadable(&error))?;
    if bytes.len() as u64 > max_bytes {
        return Err(format!("the file grew over the limit of {max_bytes} bytes"));
    }
    Ok(bytes)
}

/// The size and the blake3 hash of `root/path`, or the reason why the row is rejected.
pub(crate) fn hash_inside(root: &Path, path: &str) -> Result<(u64, blake3::Hash), String> {
    let (file, _) = open_inside(root, path)?;
    hash(file).map_err(|error| unreadable(&error))
}

/// The size and the blake3 hash of a whole file, wherever its reader stands.
pub(crate) fn hash(mut file: File) -> io::Result<(u64, blake3::Hash)> {
    file.rewind()?;
    let mut hasher = blake3::Hasher::new();
    let mut buffer = [0; 1 << 16];
    loop {
        match file.read(&mut buffer)? {
            0 => return Ok((hasher.count(), hasher.finalize())),
            n => hasher.update(&buffer[..n]),
        };
    }
}

fn open_inside(root: &Path, path: &str) -> Result<(File, u64), String> {
    let joined = root.join(path);
    let resolved: PathBuf = joined.canonicalize().map_err(|error| unreadable(&error))?;
    if !resolved.starts_with(root) {
        return Err("the file is a link out of the dataset's folder; copy what it points to into the folder".into());
    }
    let metadata = resolved.metadata().map_err(|error| unreadable(&error))?;
    if !metadata.is_file() {
        return Err("not a regular file".into());
    }
    let file = File::open(&resolved).map_err(|error| unreadable(&error))?;
    Ok((file, metadata.len()))
}

fn unreadable(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::NotFound => "the file does not exist".into(),
        _ => format!("the file cannot be read: {error}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_lead_out_of_the_folder_are_refused() {
        for name in
            ["../a.png", "x/../../a.png", "..\\a.png", "/etc/a.png", "\\a", "C:/a.png", "http://h/a.png", "", "a/"]
        {
            assert!(checked_name("train", name).is_err(), "{name}");
        }
        assert_eq!(checked_name("train", "./images//a..b.png"), Ok("train/images/a..b.png".into()));
        assert_eq!(checked_name("", "a.png"), Ok("a.png".into()));
    }

    #[cfg(unix)]
    #[test]
    fn a_link_out_of_the_folder_is_not_followed_and_one_inside_is() {
        let (folder, outside) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let root = folder.path().canonicalize().unwrap();
        fs::write(outside.path().join("secret.png"), "secret").unwrap();
        fs::write(root.join("real.png"), "real").unwrap();
        std::os::unix::fs::symlink(outside.path().join("secret.png"), root.join("out.png")).unwrap();
        std::os::unix::fs::symlink(outside.path(), root.join("folder")).unwrap();
        std::os::unix::fs::symlink(root.join("real.png"), root.join("in.png")).unwrap();
        assert!(read_inside(&root, "out.png", 100).unwrap_err().contains("link out of"));
        assert!(read_inside(&root, "folder/secret.png", 100).unwrap_err().contains("link out of"));
        assert_eq!(read_inside(&root, "in.png", 100).unwrap(), b"real");
        assert_eq!(read_inside(&root, "real.png", 3).unwrap_err(), "4 bytes are more than the limit of 3");
        assert_eq!(read_inside(&root, "gone.png", 3).unwrap_err(), "the file does not exist");
        let paths: Vec<String> = images(&root, "").unwrap().into_iter().map(|found| found.path).collect();
        assert_eq!(paths, ["in.png", "out.png", "real.png"]);
    }

    #[test]
    fn image_names_are_known_in_any_case_and_others_are_ignored() {
        assert!(is_image_name("a.PNG") && is_image_name("b.c.jpeg") && is_image_name("x.gif"));
        assert!(!is_image_name("README.md") && !is_image_name("png"));
        assert!(is_ignored_name(".DS_Store") && is_ignored_name("Thumbs.db"));
    }
}
