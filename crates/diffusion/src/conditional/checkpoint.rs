//! Checkpoints: everything that training needs to go on as if it had never stopped.
//!
//! A checkpoint is a folder `checkpoint-STEP` that is filled under a temporary name and renamed, so it is whole or not
//! there. Random numbers need no place in it: they are made from (seed, step).

use std::fs;
use std::path::{Path, PathBuf};

use evenset_core::Fingerprint;
use evenset_nn::{AdamW, Ema, Weights};
use serde::{Deserialize, Serialize};

use super::files;
use super::loss_curve::LossCurve;
use crate::error::{DiffusionError, Result};

const PREFIX: &str = "checkpoint-";
const STATE: &str = "state.json";

/// Where a training is.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct State {
    /// What is trained: data, settings and seed.
    pub(crate) training: Fingerprint,
    /// Steps that are done.
    pub(crate) step: u64,
    /// Steps that were skipped because the loss or gradient was not finite.
    pub(crate) skipped: u64,
    /// How many of them were the last ones, in a row.
    pub(crate) skipped_in_a_row: u64,
}

/// What a checkpoint holds, in memory.
pub(crate) struct Parts<'a> {
    pub(crate) weights: &'a Weights,
    pub(crate) optimizer: &'a mut AdamW,
    pub(crate) ema: &'a mut Ema,
    pub(crate) curve: &'a mut LossCurve,
    pub(crate) state: &'a mut State,
}

impl Parts<'_> {
    /// Writes a checkpoint into `folder`, then removes the ones before it.
    pub(crate) fn save(&self, folder: &Path) -> Result<()> {
        let path = folder.join(format!("{PREFIX}{}", self.state.step));
        if !path.exists() {
            let temporary = folder.join(format!("{PREFIX}{}.tmp", self.state.step));
            remove(&temporary)?;
            fs::create_dir_all(&temporary).map_err(DiffusionError::file(&temporary))?;
            self.weights.save(&temporary.join("weights.safetensors"))?;
            self.ema.save(&temporary.join("ema.safetensors"))?;
            self.optimizer.save(&temporary.join("optimizer.safetensors"))?;
            self.curve.save(&temporary)?;
            let state = serde_json::to_vec_pretty(&self.state).map_err(|error| damaged(&path, folder, error))?;
            files::write(&temporary.join(STATE), &state)?;
            fs::rename(&temporary, &path).map_err(DiffusionError::file(&path))?;
        }
        // For whoever looks while it trains; a resumed training takes the checkpoint's own copy.
        self.curve.save(folder)?;
        remove_but(folder, Some(&path))
    }

    /// Takes up the latest checkpoint in `folder`, if there is one. All-or-nothing is not needed: on an error, training ends.
    pub(crate) fn resume(&mut self, folder: &Path) -> Result<()> {
        let Some(path) = latest(folder)? else { return Ok(()) };
        let text = files::read(&path.join(STATE))?.unwrap_or_default();
        let state: State = serde_json::from_str(&text).map_err(|error| damaged(&path.join(STATE), &path, error))?;
        if state.training != self.state.training {
            return Err(DiffusionError::OtherTraining(folder.to_owned()));
        }
        let unusable = |error: evenset_nn::Error| damaged(&path, &path, error);
        self.weights.load(&path.join("weights.safetensors")).map_err(unusable)?;
        self.ema.load(&path.join("ema.safetensors")).map_err(unusable)?;
        self.optimizer.load(&path.join("optimizer.safetensors")).map_err(unusable)?;
        *self.curve = LossCurve::load(&path)?;
        *self.state = state;
        Ok(())
    }
}

/// Removes every checkpoint, finished or not.
pub(crate) fn remove_all(folder: &Path) -> Result<()> {
    remove_but(folder, None)
}

fn damaged(path: &Path, folder: &Path, error: impl ToString) -> DiffusionError {
    DiffusionError::Damaged { path: path.to_owned(), folder: folder.to_owned(), reason: error.to_string() }
}

fn latest(folder: &Path) -> Result<Option<PathBuf>> {
    let step = |path: &PathBuf| path.file_name()?.to_str()?.strip_prefix(PREFIX)?.parse::<u64>().ok();
    Ok(checkpoints(folder)?.into_iter().filter(|path| step(path).is_some()).max_by_key(step))
}

/// Folders that are checkpoints, or were to become one.
fn checkpoints(folder: &Path) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).map_err(DiffusionError::file(folder))? {
        let entry = entry.map_err(DiffusionError::file(folder))?;
        if entry.file_name().to_string_lossy().starts_with(PREFIX) {
            found.push(entry.path());
        }
    }
    Ok(found)
}

fn remove_but(folder: &Path, kept: Option<&Path>) -> Result<()> {
    checkpoints(folder)?.iter().filter(|path| Some(path.as_path()) != kept).try_for_each(|path| remove(path))
}

fn remove(folder: &Path) -> Result<()> {
    match fs::remove_dir_all(folder) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(DiffusionError::file(folder)(error)),
        _ => Ok(()),
    }
}
