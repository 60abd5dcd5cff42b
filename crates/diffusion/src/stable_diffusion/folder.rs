//! A model's folder in diffusers' layout: is it whole, and what is in it?
//!
//! Everything that can be known without reading weights is checked at once: the pipeline and its parts, their
//! configurations and whether those fit together, that all files are there, and that none is cut off. What remains for
//! loading is whether each tensor has the name and the shape that its configuration says.

use std::path::{Path, PathBuf};

use evenset_nn::models::{Layout, Variant};

use super::facts::ModelFacts;
use super::files::{Files, is_pickle, unusable};
use super::index::Index;
use crate::error::Result;

/// The scheduler that a model comes with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Scheduler {
    /// Its class in diffusers, as `PNDMScheduler`.
    pub class: String,
    /// Its `scheduler_config.json`.
    pub config: PathBuf,
}

/// A folder that holds a whole model.
#[derive(Clone, Debug)]
pub struct ModelFolder {
    dir: PathBuf,
    index: Index,
    facts: ModelFacts,
    variant: Variant,
    files: Vec<PathBuf>,
}

impl ModelFolder {
    /// The folder `dir` with a `model_index.json`; `variant` chooses among files of weights where a part has two.
    ///
    /// # Errors
    /// [`DiffusionError::Incomplete`](crate::DiffusionError::Incomplete) lists all files that are missing;
    /// [`DiffusionError::Model`](crate::DiffusionError::Model) names a file that is damaged, a pickle, or says something
    /// that is not supported, and what to do; [`DiffusionError::Network`](crate::DiffusionError::Network) a
    /// configuration that no network here has.
    pub fn open(dir: &Path, variant: Variant) -> Result<Self> {
        Self::open_within(dir, None, variant)
    }

    /// [`open`](Self::open) where no link may lead out of `within`, a path without links.
    pub(super) fn open_within(dir: &Path, within: Option<&Path>, variant: Variant) -> Result<Self> {
        refuse_files(dir)?;
        let mut files = Files::new(dir, within, variant);
        files.need("model_index.json")?;
        if !dir.join("model_index.json").is_file() {
            return Err(no_index(dir));
        }
        let index = Index::read(&dir.join("model_index.json"))?;
        let parts: &[&str] = if index.xl { &["", "_2"] } else { &[""] };
        for part in parts {
            files.need_tokenizer(&format!("tokenizer{part}"))?;
            let encoder = format!("text_encoder{part}");
            files.need(&format!("{encoder}/config.json"))?;
            files.need_weights(&encoder, Layout::Transformers)?;
        }
        for part in ["unet", "vae"] {
            files.need(&format!("{part}/config.json"))?;
            files.need_weights(part, Layout::Diffusers)?;
        }
        files.need("scheduler/scheduler_config.json")?;
        let files = files.finish(remedy(dir, within))?;
        let facts = ModelFacts::read(dir, &index)?;
        Ok(Self { dir: dir.to_owned(), index, facts, variant, files })
    }

    /// The folder.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// The folder of a part, as `unet` or `tokenizer_2`.
    pub fn part(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    /// The class of diffusers' pipeline that the folder was saved from.
    pub fn pipeline(&self) -> &str {
        &self.index.pipeline
    }

    /// What kind of model it is.
    pub fn facts(&self) -> &ModelFacts {
        &self.facts
    }

    /// The scheduler that the model comes with.
    pub fn scheduler(&self) -> Scheduler {
        Scheduler { class: self.index.scheduler.clone(), config: self.dir.join("scheduler/scheduler_config.json") }
    }

    /// The folder of the safety checker, where the model has one and it was copied too.
    pub fn safety_checker(&self) -> Option<PathBuf> {
        let dir = self.dir.join("safety_checker");
        (self.index.safety_checker && dir.join("config.json").is_file()).then_some(dir)
    }

    /// Which files of weights are read where a part has two.
    pub fn variant(&self) -> Variant {
        self.variant
    }

    /// Every file that makes the model what it is, from `model_index.json` on: what a fingerprint of it covers.
    pub fn files(&self) -> &[PathBuf] {
        &self.files
    }
}

/// Says what to do with a path that is no folder.
fn refuse_files(path: &Path) -> Result<()> {
    if path.is_dir() {
        return Ok(());
    }
    Err(unusable(
        path,
        match path.is_file() {
            true if is_pickle(path) => {
                "a pickle is never read since it can run any program; convert it to safetensors with \
                                    diffusers: StableDiffusionPipeline.from_single_file(FILE).save_pretrained(FOLDER)"
            }
            true => "a file, not a folder with a model_index.json",
            false => "there is no such folder",
        },
    ))
}

/// What a folder without `model_index.json` may be.
fn no_index(dir: &Path) -> crate::DiffusionError {
    let there = |name: &str| dir.join(name).exists();
    let reason = match (there("config.json"), there("unet")) {
        (true, _) => "this is one part of a model (it has a config.json); name the folder above it",
        (_, true) => "model_index.json is missing beside its parts; copy it from where the model comes from",
        _ => {
            "no model_index.json, so no model in diffusers' layout; write a single .safetensors file as one with diffusers' `from_single_file` and `save_pretrained`"
        }
    };
    unusable(dir, reason)
}

fn remedy(dir: &Path, within: Option<&Path>) -> String {
    match within {
        Some(_) => "fetch them with `hf download` and the model's name".to_owned(),
        None => {
            format!("copy them from where the model comes from (`hf download NAME --local-dir {}`)", dir.display())
        }
    }
}
