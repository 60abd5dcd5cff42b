//! Model: the generator that the rounds draw from, trained on the dataset itself.

use std::path::Path;

use candle_core::Device;
use evenset_core::{Fingerprint, Group, Seed};
use evenset_data::Dataset;
use evenset_diffusion::{AttributeVocabulary, ConditionalConfig, ConditionalModel, SamplerConfig, TrainingSet};

use super::scan::{Row, Scan};
use crate::error::{PipelineError, Result};
use crate::images::{self, Frame};
use crate::job::Role;
use crate::run::{Context, Done, Stage, StageReport, fingerprint};

const GRID: &str = "samples.png";
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

impl Stage for ModelStage<'_> {
    type Output = ConditionalModel;

    fn name(&self) -> String {
        "model".into()
    }

    fn fingerprint(&self) -> Fingerprint {
        fingerprint("model", &(self.config, self.seed, self.frame), &[&self.scan.fingerprint])
    }

    fn run(&self, folder: &Path, context: &Context<'_>) -> Result<StageReport> {
        let rows: Vec<&Row> = self.scan.output.role(Role::Train).collect();
        let set = training_set(self.dataset, &self.scan.output.columns, &rows, self.frame)?;
        let seed = self.seed.derive("generator");
        let model = evenset_diffusion::train(&set, self.config, seed, folder, context.progress, &Device::Cpu)?;
        let groups: Vec<Group> = self.groups.iter().take(GRID_GROUPS).cloned().collect();
        let grid = model.sample_grid(&groups, GRID_COLUMNS, self.sampler, seed.derive("grid"), context.progress)?;
        let png = evenset_data::encode_png(grid.width, grid.height, grid.channels, &grid.pixels, &[]);
        evenset_data::atomic::write_file(&folder.join(GRID), &png)?;
        Ok(StageReport { rows: rows.len() as u64, rejected: 0 })
    }

    fn load(&self, folder: &Path) -> Result<ConditionalModel> {
        Ok(ConditionalModel::load(folder, &Device::Cpu)?)
    }
}

/// The sample grid of a trained model, as PNG bytes.
pub fn sample_grid(folder: &Path) -> Result<Vec<u8>> {
    let path = folder.join(GRID);
    std::fs::read(&path).map_err(PipelineError::io(&path))
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
