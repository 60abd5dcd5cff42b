//! A model's files: where they must lie in a folder, whether they are there, whether they are whole.

use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};

use evenset_nn::Error as NnError;
use evenset_nn::models::{Layout, Variant, weight_files};
use serde_json::{Map, Value};

use crate::error::{DiffusionError, Result};

/// The longest configuration that is read; real ones have a few kilobytes.
const CAP: u64 = 1 << 20;
/// How a file starts that stands for another one in a repository with large files.
const POINTER: &[u8] = b"version https://git-lfs";
/// Ends of names of weights in a form that is never read, since reading it can run any program.
pub(super) const PICKLES: [&str; 4] = ["bin", "ckpt", "pt", "pth"];

/// The files of a tokenizer: all of it in one, or its vocabulary and merges; and what else it may have.
pub(super) const TOKENIZER_FILES: [&str; 6] = [
    "tokenizer.json",
    "vocab.json",
    "merges.txt",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
];

/// The error of a file that is there and cannot be used.
pub(super) fn unusable(path: &Path, reason: impl Into<String>) -> DiffusionError {
    DiffusionError::Model { path: path.to_owned(), reason: reason.into() }
}

/// The map in a configuration file.
pub(super) fn read_json(path: &Path) -> Result<Map<String, Value>> {
    let text = read_text(path)?;
    serde_json::from_str(&text).map_err(|error| match text.as_bytes().starts_with(POINTER) {
        true => unusable(path, pointer()),
        false => unusable(path, format!("not a whole configuration ({error}); copy the file again")),
    })
}

/// A short text.
pub(super) fn read_text(path: &Path) -> Result<String> {
    let mut text = String::new();
    let file = fs::File::open(path).map_err(DiffusionError::file(path))?;
    file.take(CAP + 1).read_to_string(&mut text).map_err(DiffusionError::file(path))?;
    match text.len() as u64 > CAP {
        true => Err(unusable(path, format!("more than {CAP} bytes are too many for a configuration"))),
        false => Ok(text),
    }
}

fn pointer() -> String {
    "this is Git's stand-in for a large file, not the file; run `git lfs pull` in its folder".into()
}

/// The error of weights whose header cannot be read.
pub(super) fn unread(error: NnError) -> DiffusionError {
    match error {
        NnError::Malformed { path, .. } if is_pointer(&path) => unusable(&path, pointer()),
        NnError::Malformed { path, reason } => {
            unusable(&path, format!("cut off or damaged ({reason}); fetch this file again"))
        }
        other => other.into(),
    }
}

/// A folder whose files are gathered, and what is wrong with them.
#[derive(Debug)]
pub(super) struct Files<'a> {
    dir: &'a Path,
    /// Where every file must end up that the folder's links lead to.
    within: Option<&'a Path>,
    variant: Variant,
    found: Vec<PathBuf>,
    missing: Vec<String>,
}

impl<'a> Files<'a> {
    pub(super) fn new(dir: &'a Path, within: Option<&'a Path>, variant: Variant) -> Self {
        Self { dir, within, variant, found: Vec::new(), missing: Vec::new() }
    }

    /// Needs the file `name`.
    pub(super) fn need(&mut self, name: &str) -> Result<()> {
        if !self.has(name)? {
            self.missing.push(name.to_owned());
        }
        Ok(())
    }

    /// Whether the file `name` is there; if so it is one of those that are read.
    pub(super) fn has(&mut self, name: &str) -> Result<bool> {
        let path = self.dir.join(name);
        let there = path.is_file();
        if there {
            self.take(path)?;
        }
        Ok(there)
    }

    /// Needs the files of a tokenizer in the folder `part`.
    pub(super) fn need_tokenizer(&mut self, part: &str) -> Result<()> {
        let name = |file: &str| format!("{part}/{file}");
        let [whole, vocabulary, merges, further @ ..] = TOKENIZER_FILES;
        if !self.has(&name(whole))? {
            self.need(&name(vocabulary))?;
            self.need(&name(merges))?;
        }
        for file in further {
            self.has(&name(file))?;
        }
        Ok(())
    }

    /// Needs whole weights in the folder `part`; an empty name is this folder.
    pub(super) fn need_weights(&mut self, part: &str, layout: Layout) -> Result<()> {
        let dir = self.dir.join(part);
        match weight_files(&dir, layout, self.variant) {
            Ok(files) => files.into_iter().try_for_each(|path| self.take(path)),
            Err(NnError::NoWeights { .. } | NnError::NoModel { .. }) => match pickle_in(&dir) {
                Some(pickle) => Err(unusable(&pickle, converted(self.dir, part))),
                None => {
                    let name = match layout {
                        Layout::Diffusers => "diffusion_pytorch_model.safetensors",
                        Layout::Transformers => "model.safetensors",
                    };
                    self.missing.push(if part.is_empty() { name.to_owned() } else { format!("{part}/{name}") });
                    Ok(())
                }
            },
            // A shard that the index names.
            Err(NnError::File { path, source }) if source.kind() == std::io::ErrorKind::NotFound => {
                let name = path.strip_prefix(self.dir).unwrap_or(&path);
                self.missing.push(name.display().to_string());
                Ok(())
            }
            Err(other) => Err(unread(other)),
        }
    }

    /// All files that are read, in the order in which they were asked for.
    ///
    /// # Errors
    /// [`DiffusionError::Incomplete`] where some are missing.
    pub(super) fn finish(self, remedy: String) -> Result<Vec<PathBuf>> {
        match self.missing.is_empty() {
            true => Ok(self.found),
            false => Err(DiffusionError::Incomplete { dir: self.dir.to_owned(), missing: self.missing, remedy }),
        }
    }

    fn take(&mut self, path: PathBuf) -> Result<()> {
        if let Some(within) = self.within {
            let end = fs::canonicalize(&path).map_err(DiffusionError::file(&path))?;
            if !end.starts_with(within) {
                let reason = format!(
                    "a link to {}, outside the cache {}, is not followed; fetch the model again",
                    end.display(),
                    within.display()
                );
                return Err(unusable(&path, reason));
            }
        }
        self.found.push(path);
        Ok(())
    }
}

/// Weights in the folder that are a pickle.
fn pickle_in(dir: &Path) -> Option<PathBuf> {
    let entries = fs::read_dir(dir).ok()?;
    let mut paths: Vec<PathBuf> = entries.filter_map(|entry| Some(entry.ok()?.path())).collect();
    paths.sort();
    paths.into_iter().find(|path| is_pickle(path))
}

/// Whether a file's name says that it is a pickle.
pub(super) fn is_pickle(path: &Path) -> bool {
    let end = path.extension().and_then(|end| end.to_str());
    end.is_some_and(|end| PICKLES.contains(&end.to_ascii_lowercase().as_str()))
}

/// Why a pickle in a folder is refused, and what to do.
fn converted(dir: &Path, part: &str) -> String {
    let own = || Some(read_json(&dir.join("config.json")).ok()?.get("_class_name")?.as_str()?.to_owned());
    let class = if part.is_empty() { own() } else { None };
    let class = class.filter(|class| class.chars().all(|c| c.is_ascii_alphanumeric()));
    let class = class.as_deref().unwrap_or("DiffusionPipeline");
    format!(
        "a pickle is never read since it can run any program; convert the model to safetensors: python -c \"from diffusers \
         import {class}; {class}.from_pretrained('{}').save_pretrained('converted')\"",
        dir.display()
    )
}

fn is_pointer(path: &Path) -> bool {
    let mut start = [0; POINTER.len()];
    fs::File::open(path).and_then(|mut file| file.read_exact(&mut start)).is_ok() && start == *POINTER
}
