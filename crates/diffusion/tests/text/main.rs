//! Folders and single files of Stable Diffusion and prompts, against diffusers. `tests/golden/make_prompts.py` made the
//! folders.
#![allow(clippy::unwrap_used, clippy::expect_used)]

#[path = "../../../nn/tests/sd_parts/assemble.rs"]
mod assemble;
mod folders;
mod hub;
mod prompts;
mod single;

use std::fs;
use std::path::{Path, PathBuf};

pub(crate) const FAMILIES: [&str; 3] = ["sd1", "sd2", "sdxl"];

pub(crate) fn golden(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden/prompts").join(name)
}

pub(crate) fn model(family: &str) -> PathBuf {
    golden(family).join("model")
}

/// Copies a folder with all that is in it.
pub(crate) fn copy_into(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        match entry.file_type().unwrap().is_dir() {
            true => copy_into(&entry.path(), &to.join(entry.file_name())),
            false => drop(fs::copy(entry.path(), to.join(entry.file_name())).unwrap()),
        }
    }
}

/// A copy of a model that a test may spoil.
pub(crate) fn copy(family: &str) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    copy_into(&model(family), dir.path());
    dir
}

/// Changes a key of a configuration.
pub(crate) fn set(path: &Path, key: &str, value: serde_json::Value) {
    let mut config: serde_json::Value = serde_json::from_slice(&fs::read(path).unwrap()).unwrap();
    config[key] = value;
    fs::write(path, config.to_string()).unwrap();
}
