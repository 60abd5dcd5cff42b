//! Plateau: does another round still help?
//!
//! After a round the classifier of the evidence is trained with all accepted images and with those of the rounds before,
//! and both are tried on real images that are neither trained on nor part of the test split. Where the interval of the
//! difference in the worst group does not lie above zero, more images have stopped helping.

use std::collections::BTreeMap;
use std::path::Path;

use evenset_core::{Fingerprint, Seed};
use evenset_evidence::{EvidenceConfig, EvidenceData, ShareRun, SweepSummary};
use rand::RngExt;

use crate::error::{PipelineError, Result};
use crate::run::{Context, Stage, StageReport, fingerprint, read_json, read_json_of, write_json};
use crate::within::Within;

const PLATEAU: &str = "plateau.json";
/// Share of each real training group that is kept apart to judge rounds, where there is no validation split.
const APART: f64 = 0.2;
/// A group smaller than this keeps all its images for training.
const SMALLEST_SPLIT: usize = 5;

/// Judges one round.
pub struct PlateauStage<'a> {
    /// From 1.
    pub round: u32,
    /// How the classifiers are trained.
    pub config: &'a EvidenceConfig,
    /// The images, with those accepted so far.
    pub data: &'a dyn Fn() -> Result<EvidenceData>,
    /// Images accepted before this round.
    pub before: usize,
    /// Images accepted up to and with it.
    pub now: usize,
    /// The fingerprint of its verification.
    pub after: &'a Fingerprint,
    /// The job's seed.
    pub seed: Seed,
}

impl PlateauStage<'_> {
    /// The accepted images of the rounds before, as a share of all.
    fn share(&self) -> f64 {
        self.before as f64 / self.now.max(1) as f64
    }
}

impl Stage for PlateauStage<'_> {
    type Output = SweepSummary;

    fn name(&self) -> String {
        format!("plateau-{}", self.round)
    }

    fn fingerprint(&self) -> Fingerprint {
        fingerprint(&self.name(), &(self.config, self.before, self.now, self.seed), &[self.after])
    }

    fn run(&self, folder: &Path, context: &Context<'_>) -> Result<StageReport> {
        let runs_folder = folder.join("runs");
        std::fs::create_dir_all(&runs_folder).map_err(PipelineError::io(&runs_folder))?;
        let data = judged_apart((self.data)()?, self.seed.derive("plateau"));
        let steps = u64::from(self.config.steps);
        let shares = [self.share(), 1.0];
        let trainings = (shares.len() as u64) * u64::from(self.config.seeds);
        context.progress.begin(&format!("does round {} help?", self.round), trainings * steps);
        let mut runs: Vec<ShareRun> = Vec::new();
        for number in 0..self.config.seeds {
            for share in shares {
                let path = runs_folder.join(format!("share-{share}-{number}.json"));
                if let Some(run) = read_json(&path)? {
                    context.progress.advance(steps);
                    runs.push(run);
                    continue;
                }
                let inside = Within(context.progress);
                let run = evenset_evidence::run_share(share, &data, self.seed, number, self.config, &inside)?;
                write_json(&path, &run)?;
                runs.push(run);
            }
        }
        context.progress.end();
        write_json(&folder.join(PLATEAU), &evenset_evidence::summarise_sweep(&runs)?)?;
        Ok(StageReport { rows: trainings, rejected: 0 })
    }

    fn load(&self, folder: &Path) -> Result<SweepSummary> {
        read_json_of(&folder.join(PLATEAU))
    }
}

/// The data with a validation part in the place of the test part: rounds must not be chosen by the test images.
fn judged_apart(data: EvidenceData, seed: Seed) -> EvidenceData {
    if let Some(validation) = &data.validation {
        let test = validation.clone();
        return EvidenceData { test, validation: None, ..data };
    }
    let mut groups = BTreeMap::<u32, Vec<usize>>::new();
    for (row, &group) in data.train.groups.iter().enumerate() {
        groups.entry(group).or_default().push(row);
    }
    let (mut learn, mut apart) = (Vec::new(), Vec::new());
    for (group, mut rows) in groups {
        let mut rng = seed.index(group.into()).rng();
        for i in (1..rows.len()).rev() {
            rows.swap(i, rng.random_range(0..=i));
        }
        let count = if rows.len() < SMALLEST_SPLIT { 0 } else { (APART * rows.len() as f64).ceil() as usize };
        apart.extend(rows.drain(..count));
        learn.extend(rows);
    }
    learn.sort_unstable();
    apart.sort_unstable();
    EvidenceData { train: data.train.select(&learn), test: data.train.select(&apart), left_out: Vec::new(), ..data }
}
