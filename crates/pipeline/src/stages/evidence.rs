//! Evidence: does the balanced dataset train a better classifier, on real held-out images?
//!
//! Each arm with each seed is a piece of work of its own, kept in `runs/ARM-SEED.json`, so a killed stage loses one
//! training at most. Beside the arms: a sweep over the share of generated images, and how far these lie from real ones in
//! the verifier's features.

use std::collections::BTreeSet;
use std::path::Path;

use evenset_core::{Fingerprint, Group, SampleId, Seed};
use evenset_data::Dataset;
use evenset_evidence::distances::{GroupDistances, GroupedFeatures, distances};
use evenset_evidence::{
    Arm, ArmRun, Evidence, EvidenceConfig, EvidenceData, Labelled, ShareRun, Skipped, SweepSummary, arms_for,
};
use evenset_verify::Verifier;
use serde::{Deserialize, Serialize};

use super::model::vocabulary;
use super::scan::{Row, Scan};
use crate::error::{PipelineError, Result};
use crate::images::{self, Frame};
use crate::job::Role;
use crate::rounds::Accepted;
use crate::run::{Context, Done, Stage, StageReport, fingerprint, read_json_of, write_json};
use crate::surplus::LeftOut;
use crate::trainings::{Training, complete_all};
use crate::within::Within;

const EVIDENCE: &str = "evidence.json";
/// Above this share of overlapping test images a test split is no test.
const MOST_OVERLAP: f64 = 0.05;

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
    /// Accepted candidates beyond the plan.
    pub further: &'a [Accepted],
    /// The fingerprint of the last round.
    pub rounds: &'a Fingerprint,
    /// The gates, whose features the distances are measured in.
    pub verifier: Option<&'a Verifier>,
    /// Held-out images that stand, exactly or nearly, in another split too: they are no test.
    pub overlap: &'a BTreeSet<SampleId>,
    /// Training rows that the plan leaves out of the balanced dataset.
    pub(crate) left_out: &'a LeftOut,
}

/// What the evidence stage found.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Proof {
    /// The arms and the verdict.
    #[serde(flatten)]
    pub evidence: Evidence,
    /// How the balanced data fares with fewer or more generated images, where the job asks for it.
    pub sweep: Option<SweepSummary>,
    /// How far generated images lie from real ones in the verifier's features: all first, then group by group. Empty
    /// without a verifier or generated images.
    pub distances: Vec<GroupDistances>,
    /// Arms that could not be run, and why.
    pub skipped: Vec<(Arm, String)>,
    /// Test images that were left out because they stand, exactly or nearly, in another split too.
    pub overlapping: u64,
    /// Test images that were left out because they lack a value of the label or of an attribute.
    pub unlabelled: u64,
}

/// Why a job has no evidence, in words; `None` where it can have some.
pub fn obstacle(scan: &Scan, label: Option<&str>, overlap: &BTreeSet<SampleId>) -> Option<String> {
    let Some(label) = label else {
        return Some("no evidence: the job names no `dataset.label` for a classifier to learn".into());
    };
    let test: Vec<&Row> = scan.role(Role::Test).collect();
    if test.is_empty() {
        let why = "no evidence: the dataset has no test split, and only real held-out images can show whether balance \
                   helped; add one with `dataset.splits: {train: ..., test: ...}`";
        return Some(why.into());
    }
    let column = scan.column(label).unwrap_or_default();
    if test.iter().all(|row| row.values[column].is_none()) {
        return Some(format!(
            "no evidence: no test image has a value of `{label}`; a classifier can only be tested on labelled images"
        ));
    }
    let overlapping = test.iter().filter(|row| overlap.contains(&row.id)).count();
    if overlapping as f64 > MOST_OVERLAP * test.len() as f64 {
        return Some(format!(
            "no evidence: {overlapping} of {} test images stand, exactly or nearly, in another split too, so the test \
             would repeat what was learned; remove them from one of the splits (the audit page lists near-duplicates)",
            test.len()
        ));
    }
    None
}

impl Stage for EvidenceStage<'_> {
    type Output = Proof;

    fn name(&self) -> String {
        "evidence".into()
    }

    fn fingerprint(&self) -> Fingerprint {
        let config = (self.config, self.label, self.grouping, self.seed, self.frame, self.overlap);
        fingerprint("evidence", &config, &[&self.scan.fingerprint, self.rounds])
    }

    fn run(&self, folder: &Path, context: &Context<'_>) -> Result<StageReport> {
        let runs_folder = folder.join("runs");
        std::fs::create_dir_all(&runs_folder).map_err(PipelineError::io(&runs_folder))?;
        let Parts { data, overlapping, unlabelled } = self.data()?;
        let (arms, skipped) = arms_for(self.config, &data);
        let shares = self.config.shares();
        let trainings = (arms.len() + shares.len()) as u64 * u64::from(self.config.seeds);
        let steps = u64::from(self.config.steps);
        context.progress.begin("evidence", trainings * steps);
        let (mut of_arms, mut of_shares) = (Vec::new(), Vec::new());
        let (config, data_of_all, job_seed) = (self.config, &data, self.seed);
        for seed in 0..config.seeds {
            of_arms.extend(arms.iter().map(|&arm| Training {
                path: runs_folder.join(format!("{arm}-{seed}.json")),
                note: format!("{arm}, seed {seed}"),
                steps,
                train: Box::new(move |inside: &Within<'_>| {
                    Ok(evenset_evidence::run_arm(arm, data_of_all, job_seed, seed, config, inside)?)
                }),
            }));
            of_shares.extend(shares.iter().map(|&share| Training {
                path: runs_folder.join(format!("share-{share}-{seed}.json")),
                note: format!("{share} of the generated images, seed {seed}"),
                steps,
                train: Box::new(move |inside: &Within<'_>| {
                    Ok(evenset_evidence::run_share(share, data_of_all, job_seed, seed, config, inside)?)
                }),
            }));
        }
        let runs: Vec<ArmRun> = complete_all(&of_arms, context)?;
        let sweep: Vec<ShareRun> = complete_all(&of_shares, context)?;
        context.progress.end();
        let sweep = if sweep.is_empty() { None } else { Some(evenset_evidence::summarise_sweep(&sweep)?) };
        let proof = Proof {
            evidence: evenset_evidence::summarise(&runs)?,
            sweep,
            distances: self.distances(&data)?,
            skipped: skipped.into_iter().map(|Skipped { arm, why }| (arm, why)).collect(),
            overlapping,
            unlabelled,
        };
        write_json(&folder.join(EVIDENCE), &proof)?;
        Ok(StageReport { rows: trainings, rejected: 0 })
    }

    fn load(&self, folder: &Path) -> Result<Proof> {
        read_json_of(&folder.join(EVIDENCE))
    }
}

/// The images, and how many test images were left out.
struct Parts {
    data: EvidenceData,
    overlapping: u64,
    unlabelled: u64,
}

/// The classes and groups that rows are sorted into.
struct Codes {
    classes: Vec<String>,
    groups: Vec<Group>,
    grouping: Vec<String>,
    label: usize,
}

impl Codes {
    fn class(&self, value: Option<&str>) -> Option<u32> {
        let place = self.classes.iter().position(|class| Some(class.as_str()) == value)?;
        u32::try_from(place).ok()
    }

    fn group(&self, group: &Group) -> Option<u32> {
        u32::try_from(self.groups.binary_search(group).ok()?).ok()
    }

    /// Class and group of a row; none where a value is missing.
    fn of(&self, scan: &Scan, row: &Row) -> Option<(u32, u32)> {
        let class = self.class(row.values[self.label].as_deref())?;
        Some((class, self.group(&scan.group(row, &self.grouping)?)?))
    }
}

impl EvidenceStage<'_> {
    /// The images as classifiers take them.
    pub(crate) fn images(&self) -> Result<EvidenceData> {
        Ok(self.data()?.data)
    }

    fn data(&self) -> Result<Parts> {
        let scan = &self.scan.output;
        let train: Vec<&Row> = scan.role(Role::Train).collect();
        let codes = self.codes();
        let independent = |row: &&Row| !self.overlap.contains(&row.id);
        let all_tests = scan.role(Role::Test).count();
        let test: Vec<&Row> = scan.role(Role::Test).filter(independent).collect();
        let validation: Vec<&Row> = scan.role(Role::Validation).filter(independent).collect();
        // Places count the rows that have a label and a group, as the images do.
        let known = train.iter().filter(|row| codes.of(scan, row).is_some()).enumerate();
        let left_out = known.filter(|(_, row)| self.left_out.contains(&(row.unit, row.row))).map(|(i, _)| i).collect();
        let validation = self.real(&validation, &codes)?;
        let data = EvidenceData {
            train: self.real(&train, &codes)?,
            left_out,
            generated: self.generated(self.accepted, &codes)?,
            further: Some(self.generated(self.further, &codes)?),
            validation: (!validation.labels.is_empty()).then_some(validation),
            test: self.real(&test, &codes)?,
            classes: codes.classes,
            groups: codes.groups,
            label: self.label.to_owned(),
        };
        let unlabelled = (test.len() - data.test.labels.len()) as u64;
        Ok(Parts { data, overlapping: (all_tests - test.len()) as u64, unlabelled })
    }

    fn codes(&self) -> Codes {
        let scan = &self.scan.output;
        let rows: Vec<&Row> = scan.role(Role::Train).chain(scan.role(Role::Test)).collect();
        let label = scan.column(self.label).unwrap_or_default();
        // The label is part of every group, whether or not the plan balances it.
        let mut grouping = self.grouping.to_vec();
        if !grouping.iter().any(|name| name == self.label) {
            grouping.insert(0, self.label.to_owned());
        }
        let groups: BTreeSet<Group> = rows.iter().filter_map(|row| scan.group(row, &grouping)).collect();
        Codes { classes: vocabulary(&rows, label), groups: groups.into_iter().collect(), grouping, label }
    }

    fn real(&self, rows: &[&Row], codes: &Codes) -> Result<Labelled> {
        let scan = &self.scan.output;
        let known: Vec<(&Row, (u32, u32))> = rows.iter().filter_map(|row| Some((*row, codes.of(scan, row)?))).collect();
        let rows: Vec<&Row> = known.iter().map(|(row, _)| *row).collect();
        let pixels = images::load(self.dataset, &rows, self.frame)?;
        self.labelled(pixels, known.iter().map(|(_, codes)| *codes))
    }

    fn generated(&self, accepted: &[Accepted], codes: &Codes) -> Result<Labelled> {
        let code = |accepted: &Accepted| {
            let group = &accepted.candidate.request.group;
            Some((codes.class(group.get(self.label))?, codes.group(&group.project(&codes.grouping))?))
        };
        let known: Vec<(&Accepted, (u32, u32))> =
            accepted.iter().filter_map(|accepted| Some((accepted, code(accepted)?))).collect();
        let mut pixels = Vec::with_capacity(known.len() * self.frame.bytes());
        for (accepted, _) in &known {
            let image = evenset_data::decode(&accepted.candidate.png, &evenset_data::Limits::default())
                .map_err(PipelineError::damaged(Path::new(&accepted.candidate.request.id)))?;
            pixels.extend(image.rgb);
        }
        self.labelled(pixels, known.iter().map(|(_, codes)| *codes))
    }

    fn labelled(&self, pixels: Vec<u8>, codes: impl Iterator<Item = (u32, u32)>) -> Result<Labelled> {
        let (labels, groups) = codes.unzip();
        let images = self.frame.image_set(pixels)?;
        let features = match self.verifier {
            Some(verifier) if !images.is_empty() => verifier.features(&images)?,
            _ => None,
        };
        Ok(Labelled { images, labels, groups, features })
    }

    fn distances(&self, data: &EvidenceData) -> Result<Vec<GroupDistances>> {
        match (grouped(&data.train), grouped(&data.generated), grouped(&data.test)) {
            (Some(train), Some(generated), Some(test)) => {
                Ok(distances(train, generated, test, &data.groups, self.seed.derive("distances"))?)
            }
            _ => Ok(Vec::new()),
        }
    }
}

/// The features of a part with the group of each image; none where there are no features.
fn grouped(part: &Labelled) -> Option<GroupedFeatures<'_>> {
    Some(GroupedFeatures { features: part.features.as_ref()?, groups: &part.groups })
}
