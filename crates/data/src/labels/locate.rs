//! From a path, a pattern or an address to the files of a table.

use std::path::{Path, PathBuf};

use globset::{GlobBuilder, GlobMatcher};

use super::file::{LabelFile, Place};
use super::format::{Format, is_table_name};
use super::remote::{Object, Store, is_remote};
use super::table::LabelSpec;
use crate::error::DataError;
use crate::files::{entries, images, join};
use crate::layout::{UNSPLIT, role_of};
use crate::metadata;
use crate::parquet_layout::{data_files, is_data_file, split_files};

/// Folders deeper than this are not searched.
const MAX_DEPTH: usize = 32;
/// What makes a path a pattern.
const PATTERN: [char; 4] = ['*', '?', '[', '{'];

/// What a path stands for.
pub(crate) enum Located {
    Files {
        files: Vec<LabelFile>,
        format: Format,
        warnings: Vec<String>,
    },
    /// A folder of images with or without metadata.
    Images(PathBuf),
}

/// A file before its split is known.
struct Candidate {
    /// Relative to the folder that was searched.
    name: String,
    address: String,
    place: Place,
}

/// Finds the files.
pub(crate) fn locate(spec: &LabelSpec) -> Result<Located, DataError> {
    if is_remote(&spec.path) {
        return of_candidates(spec, remote(spec)?);
    }
    let path = Path::new(&spec.path);
    match path.metadata() {
        Ok(metadata) if metadata.is_dir() => folder(spec, path),
        Ok(_) => of_candidates(spec, vec![local(path, base_name(path))]),
        Err(_) if spec.path.contains(PATTERN) => of_candidates(spec, local_pattern(&spec.path)?),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            Err(DataError::NotFound { path: path.to_path_buf() })
        }
        Err(error) => Err(DataError::io(path, error)),
    }
}

fn local(path: &Path, name: String) -> Candidate {
    Candidate { name, address: path.display().to_string(), place: Place::Local(path.to_path_buf()) }
}

fn base_name(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

/// Parquet goes first, as where images are read; then images; then text files.
fn folder(spec: &LabelSpec, path: &Path) -> Result<Located, DataError> {
    let root = path.canonicalize().map_err(|error| DataError::io(path, error))?;
    let mut names = data_files(&root, &spec.splits, is_data_file)?;
    if names.is_empty() {
        if is_image_folder(&root)? {
            return Ok(Located::Images(root));
        }
        names = data_files(&root, &spec.splits, is_table_name)?;
    }
    of_candidates(spec, names.into_iter().map(|name| local(&path.join(&name), name)).collect())
}

fn is_image_folder(root: &Path) -> Result<bool, DataError> {
    let io = |error| DataError::io(root, error);
    if metadata::find(root)?.is_some() {
        return Ok(true);
    }
    for entry in entries(root).map_err(io)? {
        if entry.is_folder && metadata::find(&root.join(&entry.name))?.is_some() {
            return Ok(true);
        }
    }
    Ok(!images(root, "").map_err(io)?.is_empty())
}

/// Splits by name, one format for all.
fn of_candidates(spec: &LabelSpec, candidates: Vec<Candidate>) -> Result<Located, DataError> {
    let path = Path::new(&spec.path);
    let names: Vec<String> = candidates.iter().map(|candidate| candidate.name.clone()).collect();
    if names.is_empty() {
        return Err(DataError::NoTable { path: path.to_path_buf(), found: "no file of labels is there".into() });
    }
    if !path.is_dir() && candidates.len() == 1 {
        let format = one_format(path, &with_role(&candidates, UNSPLIT))?;
        return Ok(Located::Files { files: with_role(&candidates, UNSPLIT), format, warnings: Vec::new() });
    }
    let (splits, warnings) = split_files(path, &names, &spec.splits, false)?;
    let mut files = Vec::new();
    for (split, names) in &splits {
        let own = candidates.iter().filter(|candidate| names.contains(&candidate.name));
        files.extend(with_role(own, &split.role));
    }
    let format = one_format(path, &files)?;
    Ok(Located::Files { files, format, warnings })
}

fn with_role<'a>(candidates: impl IntoIterator<Item = &'a Candidate>, role: &str) -> Vec<LabelFile> {
    let file = |candidate: &Candidate| LabelFile {
        address: candidate.address.clone(),
        split: role.to_owned(),
        place: candidate.place.clone(),
    };
    candidates.into_iter().map(file).collect()
}

fn one_format(path: &Path, files: &[LabelFile]) -> Result<Format, DataError> {
    let mut known: Option<Format> = None;
    for file in files {
        let format = match Format::of_name(&file.address) {
            Some(format) => format,
            None => Format::of_content(file)?,
        };
        match known {
            Some(other) if other != format => {
                let problem = format!(
                    "holds both {} and {} files; say which with a pattern such as `*.csv`",
                    other.name(),
                    format.name()
                );
                return Err(DataError::Layout { path: path.to_path_buf(), problem });
            }
            _ => known = Some(format),
        }
    }
    let none = || DataError::NoTable { path: path.to_path_buf(), found: "no file belongs to a split".into() };
    known.ok_or_else(none)
}

/// The folder that a pattern searches, ending in `/` or empty, and what matches below it.
fn pattern(text: &str) -> Result<(&str, GlobMatcher), DataError> {
    let first = text.find(PATTERN).unwrap_or(text.len());
    let base = text[..first].rfind('/').map_or(0, |slash| slash + 1);
    let built = GlobBuilder::new(&text[base..]).literal_separator(true).build();
    let problem = |error: globset::Error| DataError::NoTable {
        path: text.into(),
        found: format!("the pattern cannot be read ({})", error.kind()),
    };
    Ok((&text[..base], built.map_err(problem)?.compile_matcher()))
}

fn local_pattern(text: &str) -> Result<Vec<Candidate>, DataError> {
    let (base, matcher) = pattern(text)?;
    let root = Path::new(if base.is_empty() { "." } else { base });
    if !root.is_dir() {
        return Err(DataError::NotFound { path: root.to_path_buf() });
    }
    let mut found = Vec::new();
    let mut folders = vec![(String::new(), 0)];
    while let Some((folder, depth)) = folders.pop() {
        let path = root.join(&folder);
        for entry in entries(&path).map_err(|error| DataError::io(&path, error))? {
            let name = join(&folder, &entry.name);
            if entry.is_folder && depth < MAX_DEPTH {
                folders.push((name, depth + 1));
            } else if !entry.is_folder && matcher.is_match(&name) {
                found.push(local(Path::new(&format!("{base}{name}")), name));
            }
        }
    }
    found.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(found)
}

fn remote(spec: &LabelSpec) -> Result<Vec<Candidate>, DataError> {
    let address = spec.path.as_str();
    let web = address.starts_with("http");
    let refuse = |problem: &str| Err(DataError::Remote { address: address.to_owned(), problem: problem.to_owned() });
    if web && address.contains('?') {
        return refuse("has a query, and signed links are not read; fetch the file first");
    }
    if web && (address.contains(PATTERN) || address.ends_with('/')) {
        return refuse("a web server does not list its files; give the address of one file");
    }
    if address.contains(PATTERN) {
        let (base, matcher) = pattern(address)?;
        return remote_search(base, &|name| matcher.is_match(name), &|_| true);
    }
    let (store, path) = Store::of(address)?;
    if web || Format::of_name(address).is_some() {
        let object = store.object(&path)?;
        let name = path.filename().unwrap_or_default().to_owned();
        return Ok(vec![of_object(object, name)]);
    }
    let is_split =
        |name: &str| name == "data" || role_of(name).is_some() || spec.splits.values().any(|split| split == name);
    remote_search(&format!("{}/", address.trim_end_matches('/')), &is_table_name_in_path, &|folder| {
        folder.split('/').all(is_split)
    })
}

fn is_table_name_in_path(name: &str) -> bool {
    is_table_name(name.rsplit('/').next().unwrap_or(name))
}

fn of_object(object: Object, name: String) -> Candidate {
    Candidate { name, address: object.address(), place: Place::Remote(std::sync::Arc::new(object)) }
}

/// The objects below an address whose relative name is accepted, in folders that are.
fn remote_search(
    base: &str,
    accept: &dyn Fn(&str) -> bool,
    enter: &dyn Fn(&str) -> bool,
) -> Result<Vec<Candidate>, DataError> {
    let (store, root) = Store::of(base)?;
    let relative = |path: &object_store::path::Path| {
        path.as_ref().strip_prefix(root.as_ref()).unwrap_or(path.as_ref()).trim_start_matches('/').to_owned()
    };
    let mut found = Vec::new();
    let mut folders = vec![(root.clone(), 0)];
    while let Some((folder, depth)) = folders.pop() {
        let (objects, below) = store.list(&folder)?;
        folders.extend(
            below.into_iter().filter(|path| depth < MAX_DEPTH && enter(&relative(path))).map(|p| (p, depth + 1)),
        );
        for object in objects {
            let name = relative(object.path());
            if accept(&name) {
                found.push(of_object(object, name));
            }
        }
    }
    found.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(found)
}
