//! Evidence: does the balanced dataset train a better classifier, on real held-out images?
//!
//! Each arm with each seed is a piece of work of its own, kept in `runs/ARM-SEED.json`, so a killed stage loses one
//! training at most.

use std::path::{Path, PathBuf};

use evenset_core::{Fingerprint, Group, Seed};
use evenset_data::Dataset;
use evenset_evidence::{Arm, ArmRun, Evidence, EvidenceConfig, EvidenceData, Labelled};

use super::model::vocabulary;
use super::scan::{Row, Scan};
use crate::error::{PipelineError, Result};
use crate::images::{self, Frame};
use crate::job::Role;
use crate::rounds::Accepted;
use crate::run::{Context, Done, Stage, StageReport, fingerprint, read_json, read_json_of, write_json};
use crate::surplus::LeftOut;
use crate::within::Within;

const EVIDENCE: &str = "evidence.json";

/// Trains the same classifier on every arm's data, several times, and tries it on the real test split.
pub struct EvidenceStage<'a> {
    /// The part of the job that it follows.
    pub config: &'a EvidenceConfig,
    /// What the classifier learns.
    pub label: &'a str,
    /// The attributes whose combinations are the groups.
    pub grouping: &'a [String],
    /// The job's seed.
    pub seed: Seed,
    /// The images.
    pub dataset: &'a Dataset,
    /// The scanned rows.
    pub scan: &'a Done<Scan>,
    /// The size that classifiers look at.
    pub frame: Frame,
    /// Accepted candidates that fill the plan.
    pub accepted: &'a [Accepted],
    /// The fingerprint of the last round.
    pub rounds: &'a Fingerprint,
    /// Training rows that the plan leaves out of the balanced dataset.
    pub(crate) left_out: &'a LeftOut,
}

/// Why a job has no evidence, in words; `None` where it can have some.
pub fn obstacle(scan: &Scan, label: Option<&str>) -> Option<String> {
    if label.is_none() {
        return Some("no evidence: the job names no `dataset.label` for a classifier to learn".into());
    }
    if scan.role(Role::Test).next().is_none() {
        let why = "no evidence: the dataset has no test split, and only real held-out images can show whether balance \
                   helped; add one with `dataset.splits: {train: ..., test: ...}`";
        return Some(why.into());
    }
    None
}

impl Stage for EvidenceStage<'_> {
    type Output = Evidence;

    fn name(&self) -> String {
        "evidence".into()
    }

    fn fingerprint(&self) -> Fingerprint {
        let config = (self.config, self.label, self.grouping, self.seed, self.frame);
        fingerprint("evidence", &config, &[&self.scan.fingerprint, self.rounds])
    }

    fn run(&self, folder: &Path, context: &Context<'_>) -> Result<StageReport> {
        let runs_folder = folder.join("runs");
        std::fs::create_dir_all(&runs_folder).map_err(PipelineError::io(&runs_folder))?;
        let arms = self.config.arms();
        let wanted: Vec<(Arm, u32, PathBuf)> = (0..self.config.seeds)
            .flat_map(|seed| arms.iter().map(move |&arm| (arm, seed)))
            .map(|(arm, seed)| (arm, seed, runs_folder.join(format!("{arm}-{seed}.json"))))
            .collect();
        let data = self.data()?;
        let mut runs: Vec<ArmRun> = Vec::with_capacity(wanted.len());
        let steps = u64::from(self.config.steps);
        context.progress.begin("evidence", wanted.len() as u64 * steps);
        for (arm, seed, path) in &wanted {
            let run = match read_json(path)? {
                Some(run) => {
                    context.progress.advance(steps);
                    run
                }
                None => {
                    context.progress.check()?;
                    context.progress.note(&format!("{arm}, seed {seed}"));
                    let inside = Within(context.progress);
                    let run = evenset_evidence::run_arm(*arm, &data, self.seed, *seed, self.config, &inside)?;
                    write_json(path, &run)?;
                    run
                }
            };
            runs.push(run);
        }
        context.progress.end();
        let evidence = evenset_evidence::summarise(&runs)?;
        write_json(&folder.join(EVIDENCE), &evidence)?;
        Ok(StageReport { rows: runs.len() as u64, rejected: 0 })
    }

    fn load(&self, folder: &Path) -> Result<Evidence> {
        read_json_of(&folder.join(EVIDENCE))
    }
}

impl EvidenceStage<'_> {
    fn data(&self) -> Result<EvidenceData> {
        let scan = &self.scan.output;
        let train: Vec<&Row> = scan.role(Role::Train).collect();
        let test: Vec<&Row> = scan.role(Role::Test).collect();
        let label = scan.column(self.label).unwrap_or_default();
        let mut all = train.clone();
        all.extend(&test);
        let classes = vocabulary(&all, label);
        // The label is part of every group, whether or not the plan balances it.
        let mut grouping = self.grouping.to_vec();
        if !grouping.iter().any(|name| name == self.label) {
            grouping.insert(0, self.label.to_owned());
        }
        let columns: Vec<usize> = grouping.iter().filter_map(|name| scan.column(name)).collect();
        let group_of = |row: &Row| -> Option<Group> {
            let pairs: Option<Vec<_>> =
                columns.iter().map(|&c| Some((scan.columns[c].clone(), row.values[c].clone()?))).collect();
            Group::new(pairs?).ok()
        };
        let groups: std::collections::BTreeSet<Group> = all.iter().filter_map(|row| group_of(row)).collect();
        let groups: Vec<Group> = groups.into_iter().collect();
        let code = |group: Option<Group>| {
            group.and_then(|group| groups.binary_search(&group).ok()).and_then(|i| u32::try_from(i).ok())
        };
        let class = |value: Option<&str>| {
            value.and_then(|value| classes.iter().position(|c| c == value)).and_then(|i| u32::try_from(i).ok())
        };
        let real = |rows: Vec<&Row>| -> Result<Labelled> {
            let mut known: Vec<(&Row, u32, u32)> = Vec::with_capacity(rows.len());
            for row in rows {
                if let (Some(class), Some(group)) = (class(row.values[label].as_deref()), code(group_of(row))) {
                    known.push((row, class, group));
                }
            }
            let rows: Vec<&Row> = known.iter().map(|(row, ..)| *row).collect();
            Ok(Labelled {
                images: self.frame.image_set(images::load(self.dataset, &rows, self.frame)?)?,
                labels: known.iter().map(|(_, label, _)| *label).collect(),
                groups: known.iter().map(|(.., group)| *group).collect(),
            })
        };
        let generated: Vec<(&Accepted, u32, u32)> = self
            .accepted
            .iter()
            .filter_map(|accepted| {
                let group = &accepted.candidate.request.group;
                Some((accepted, class(group.get(self.label))?, code(Some(group.project(&grouping)))?))
            })
            .collect();
        let mut pixels = Vec::with_capacity(generated.len() * self.frame.bytes());
        for (accepted, ..) in &generated {
            let image = evenset_data::decode(&accepted.candidate.png, &evenset_data::Limits::default())
                .map_err(PipelineError::damaged(Path::new(&accepted.candidate.request.id)))?;
            pixels.extend(image.rgb);
        }
        // Places count the rows that have a label and a group, as the images do.
        let known = |row: &&&Row| class(row.values[label].as_deref()).is_some() && code(group_of(row)).is_some();
        let places = train.iter().filter(known).enumerate();
        let left_out = places.filter(|(_, row)| self.left_out.contains(&(row.unit, row.row))).map(|(i, _)| i).collect();
        Ok(EvidenceData {
            train: real(train)?,
            left_out,
            test: real(test)?,
            generated: Labelled {
                images: self.frame.image_set(pixels)?,
                labels: generated.iter().map(|(_, label, _)| *label).collect(),
                groups: generated.iter().map(|(.., group)| *group).collect(),
            },
            classes,
            groups,
        })
    }
}
