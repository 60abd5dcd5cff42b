//! Model: the generator that the rounds draw from, trained on the dataset itself or brought by the user.

use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use candle_core::Device;
use evenset_core::{Fingerprint, Group, Progress, Seed};
use evenset_data::Dataset;
use evenset_diffusion::http::HttpConfig;
use evenset_diffusion::stable_diffusion::{StableDiffusion, StableDiffusionConfig, check_settings};
use evenset_diffusion::{AttributeVocabulary, ConditionalConfig, ConditionalModel, SamplerConfig, TrainingSet};

use super::scan::{Row, Scan};
use crate::error::{PipelineError, Result};
use crate::generator::{Conditional, FileState, Generator, Hosted, Pretrained, Weights, states};
use crate::images::{self, Frame};
use crate::job::{Role, Sampler};
use crate::run::{Context, Done, Stage, StageReport, fingerprint, read_json, read_json_of, remove, write_json};

/// What is known of a model that others trained.
const WEIGHTS: &str = "weights.json";
/// What a model that was trained here draws.
const GRID: &str = "samples.png";
/// What it was drawn with.
const GRID_OF: &str = "samples.json";
/// The sample grid shows at most this many groups.
const GRID_GROUPS: usize = 64;
const GRID_COLUMNS: usize = 6;

/// Trains the conditional model.
pub struct ModelStage<'a> {
    /// The part of the job that it follows.
    pub config: &'a ConditionalConfig,
    /// How the sample grid is drawn.
    pub sampler: &'a SamplerConfig,
    /// The job's seed.
    pub seed: Seed,
    /// The images.
    pub dataset: &'a Dataset,
    /// The scanned rows.
    pub scan: &'a Done<Scan>,
    /// The size that the model works at.
    pub frame: Frame,
    /// The groups that the plan is about, for the sample grid.
    pub groups: Vec<Group>,
}

impl ModelStage<'_> {
    /// What the sample grid is drawn with. It makes no other model: a grid of something else is drawn again, and no more.
    fn grid_of(&self) -> Fingerprint {
        fingerprint("samples", &(self.sampler, &self.groups), &[])
    }
}

impl Stage for ModelStage<'_> {
    type Output = Box<dyn Generator>;

    fn name(&self) -> String {
        "model".into()
    }

    fn fingerprint(&self) -> Fingerprint {
        // A checkpoint changes no step.
        let config = ConditionalConfig { checkpoint_every: 1, ..self.config.clone() };
        fingerprint("model", &(config, self.seed, self.frame), &[&self.scan.fingerprint])
    }

    fn intact(&self, folder: &Path) -> bool {
        read_json(&folder.join(GRID_OF)).is_ok_and(|drawn_of| drawn_of == Some(self.grid_of()))
    }

    fn run(&self, folder: &Path, context: &Context<'_>) -> Result<StageReport> {
        let rows: Vec<&Row> = self.scan.output.role(Role::Train).collect();
        let set = training_set(self.dataset, &self.scan.output.columns, &rows, self.frame)?;
        let seed = self.seed.derive("generator");
        let model = evenset_diffusion::train(&set, self.config, seed, folder, context.progress, &Device::Cpu)?;
        let groups: Vec<Group> = self.groups.iter().take(GRID_GROUPS).cloned().collect();
        let grid = model.sample_grid(&groups, GRID_COLUMNS, self.sampler, seed.derive("grid"), context.progress)?;
        let png = evenset_data::encode_png(grid.width, grid.height, grid.channels, &grid.pixels, &[]);
        remove(&folder.join(GRID_OF))?;
        evenset_data::atomic::write_file(&folder.join(GRID), &png)?;
        write_json(&folder.join(GRID_OF), &self.grid_of())?;
        Ok(StageReport { rows: rows.len() as u64, rejected: 0 })
    }

    fn load(&self, folder: &Path) -> Result<Box<dyn Generator>> {
        let model = ConditionalModel::load(folder, &Device::Cpu)?;
        let loss = model.loss_curve(folder)?;
        Ok(Box::new(Conditional { model, sampler: self.sampler.clone(), frame: self.frame, loss }))
    }
}

/// Takes a Stable Diffusion model from where it lies; its weights are not copied.
pub struct PretrainedStage<'a> {
    /// The part of the job that it follows.
    pub config: &'a StableDiffusionConfig,
    /// How images are drawn.
    pub sampler: &'a Sampler,
    /// Every file that the images depend on, with its SHA-256.
    files: Vec<(PathBuf, String)>,
    /// How they were when they were hashed.
    states: Vec<FileState>,
    /// The networks, once they have been loaded.
    loaded: Mutex<Option<StableDiffusion>>,
}

impl<'a> PretrainedStage<'a> {
    /// Finds and hashes the model's files. Settings that it cannot draw with, and `strengths` at which it cannot start from real
    /// images, are found before that.
    ///
    /// # Errors
    /// An impossible setting by its key; what is missing or damaged, by its path.
    pub fn new(
        config: &'a StableDiffusionConfig,
        sampler: &'a Sampler,
        strengths: &[f64],
        progress: &dyn Progress,
    ) -> Result<Self> {
        let source = config.source()?;
        check_settings(source.as_ref(), &sampler.draw_settings(config, source.facts()), strengths)?;
        let paths = config.files()?;
        let states = states(paths.clone())?;
        progress.begin("hash the model's files", paths.len() as u64);
        let mut files = Vec::with_capacity(paths.len());
        for path in paths {
            progress.check()?;
            let sha256 = evenset_data::sha256_file(&path)?;
            files.push((path, sha256));
            progress.advance(1);
        }
        progress.end();
        Ok(Self { config, sampler, files, states, loaded: Mutex::default() })
    }

    fn weights(&self) -> Weights {
        let is_lora = |path: &PathBuf| self.config.loras.iter().any(|lora| lora.path == *path);
        let (loras, own): (Vec<_>, Vec<_>) = self.files.iter().partition(|(path, _)| is_lora(path));
        // The same model has the same hash wherever its folder lies.
        let one = |files: &[&(PathBuf, String)]| {
            let all: Vec<&str> = files.iter().map(|(_, sha256)| sha256.as_str()).collect();
            evenset_data::sha256_bytes(all.join("\n").as_bytes())
        };
        Weights { sha256: one(&own), lora_sha256: (!loras.is_empty()).then(|| one(&loras)) }
    }
}

impl Stage for PretrainedStage<'_> {
    type Output = Box<dyn Generator>;

    fn name(&self) -> String {
        "model".into()
    }

    fn fingerprint(&self) -> Fingerprint {
        let hashes: Vec<&String> = self.files.iter().map(|(_, sha256)| sha256).collect();
        // How its files came here makes it no other model.
        let config = StableDiffusionConfig { download: false, ..self.config.clone() };
        fingerprint("model", &(config, hashes), &[])
    }

    fn run(&self, folder: &Path, _: &Context<'_>) -> Result<StageReport> {
        // Weights that cannot be used are found now, and not behind the training of gates.
        let model = self.config.load(&Device::Cpu)?;
        *self.loaded.lock().unwrap_or_else(PoisonError::into_inner) = Some(model);
        write_json(&folder.join(WEIGHTS), &self.weights())?;
        Ok(StageReport::default())
    }

    fn load(&self, folder: &Path) -> Result<Box<dyn Generator>> {
        let weights = read_json_of(&folder.join(WEIGHTS))?;
        let loaded = self.loaded.lock().unwrap_or_else(PoisonError::into_inner).take();
        Ok(Box::new(Pretrained::new(self.config, self.sampler, weights, self.states.clone(), loaded)?))
    }
}

/// Asks a hosted model; its images are kept in the run's folder as they come.
pub struct HostedStage<'a> {
    /// The part of the job that it follows.
    pub config: &'a HttpConfig,
    /// The run's folder.
    pub run: &'a Path,
}

impl Stage for HostedStage<'_> {
    type Output = Box<dyn Generator>;

    fn name(&self) -> String {
        "model".into()
    }

    fn fingerprint(&self) -> Fingerprint {
        // How it is asked, and how much may be spent, changes no image.
        let HttpConfig { base_url, model, size, fields, seed_field, .. } = self.config;
        fingerprint("model", &(base_url, model, size, fields, seed_field), &[])
    }

    fn run(&self, _: &Path, _: &Context<'_>) -> Result<StageReport> {
        // A missing key is said before anything else is done.
        Hosted::new(self.config, self.run).open()?;
        Ok(StageReport::default())
    }

    fn load(&self, _: &Path) -> Result<Box<dyn Generator>> {
        Ok(Box::new(Hosted::new(self.config, self.run)))
    }
}

/// The sample grid of a model that was trained here, as PNG bytes.
pub fn sample_grid(folder: &Path) -> Result<Option<Vec<u8>>> {
    let path = folder.join(GRID);
    if !path.is_file() {
        return Ok(None);
    }
    std::fs::read(&path).map(Some).map_err(PipelineError::io(&path))
}

/// The images of these rows as a generator takes them.
pub(crate) fn training_set(dataset: &Dataset, columns: &[String], rows: &[&Row], frame: Frame) -> Result<TrainingSet> {
    let attributes: Vec<AttributeVocabulary> = columns
        .iter()
        .enumerate()
        .map(|(i, name)| AttributeVocabulary { name: name.clone(), values: vocabulary(rows, i) })
        .collect();
    let conditions = rows
        .iter()
        .map(|row| {
            let code = |(value, attribute): (&Option<String>, &AttributeVocabulary)| {
                value.as_ref().and_then(|value| attribute.values.iter().position(|v| v == value)).map(|i| i as u32)
            };
            row.values.iter().zip(&attributes).map(code).collect()
        })
        .collect();
    Ok(TrainingSet {
        width: frame.width,
        height: frame.height,
        channels: 3,
        pixels: images::load(dataset, rows, frame)?,
        attributes,
        conditions,
    })
}

/// The values of one column over these rows, sorted.
pub(crate) fn vocabulary(rows: &[&Row], column: usize) -> Vec<String> {
    let values: std::collections::BTreeSet<&String> =
        rows.iter().filter_map(|row| row.values[column].as_ref()).collect();
    values.into_iter().cloned().collect()
}
