//! Evidence: does the balanced dataset train a better classifier, on real held-out images?
//!
//! Each arm with each seed is a piece of work of its own, so a killed stage loses one training at most. Its result is kept
//! beside the stages in `classifiers/ARM-SEED-FINGERPRINT.json`, by a fingerprint of what this training sees and follows:
//! another generator trains no arm on real images again, and one more arm trains that one alone. Beside the arms: a sweep
//! over the share of generated images, and how far these lie from real ones in the verifier's features.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use evenset_core::{Fingerprint, Group, SampleId, Seed};
use evenset_data::Dataset;
use evenset_evidence::distances::{GroupDistances, GroupedFeatures, distances};
use evenset_evidence::{
    Arm, ArmRun, ClassifierKind, Evidence, EvidenceConfig, EvidenceData, Labelled, ShareRun, Skipped, SweepSummary,
    arms_for,
};
use evenset_verify::{GateConfig, Verifier};
use serde::{Deserialize, Serialize};

use super::model::vocabulary;
use super::scan::{Row, Scan};
use crate::error::{PipelineError, Result};
use crate::images::{self, Frame};
use crate::job::{Job, Role};
use crate::rounds::{Accepted, GroupProgress};
use crate::run::{Context, Done, Stage, StageReport, fingerprint, read_json_of, write_json};
use crate::surplus::LeftOut;
use crate::trainings::{Training, complete_all};
use crate::within::Within;

const EVIDENCE: &str = "evidence.json";
/// The folder of the run in which the results of trainings are kept.
const CLASSIFIERS: &str = "classifiers";
/// Above this share of overlapping test images a test split is no test.
const MOST_OVERLAP: f64 = 0.05;

/// Trains the same classifier on every arm's data, several times, and tries it on the real test split.
pub struct EvidenceStage<'a> {
    /// The part of the job that it follows.
    pub config: &'a EvidenceConfig,
    /// What the classifier learns.
    pub label: &'a str,
    /// The attributes whose combinations are the groups, the label among them.
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
    /// What the plan adds to each group.
    pub planned: &'a [GroupProgress],
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
    /// Test images that were left out because no training image has their class.
    #[serde(default)]
    pub unseen: u64,
    /// Classes that are trained on and that no test image shows.
    #[serde(default)]
    pub untested: Vec<String>,
    /// How many test images a group needs to count as the worst one, where no group has as many: then all count.
    #[serde(default)]
    pub all_below: Option<u32>,
    /// Whether the best step of each training was chosen by training images, which generator and gates learned from.
    #[serde(default)]
    pub validation_seen: bool,
}

/// Why a job has no evidence.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Obstacle {
    /// In words, with the remedy.
    pub why: String,
    /// Whether the test split was refused: it repeats what is learned from.
    pub refused: bool,
}

impl Obstacle {
    /// Something that is lacking; `why` is a clause.
    pub(crate) fn lacking(why: &str) -> Self {
        Self { why: format!("no evidence: {why}"), refused: false }
    }

    /// What is said before any work.
    pub(crate) fn ahead(&self) -> String {
        format!("the run will have {}; or write `evidence: false` to do without", self.why)
    }
}

/// Why a job has no evidence; `None` where it can have some.
pub fn obstacle(job: &Job, scan: &Scan, overlap: &BTreeSet<SampleId>) -> Option<Obstacle> {
    if let Some(why) = unlearnable(job) {
        return Some(Obstacle::lacking(&why));
    }
    let (Some(label), Some(plan)) = (&job.dataset.label, &job.plan) else { return None };
    untestable(scan, label, &plan.grouping, overlap)
}

/// Why no classifier can learn the label from this job's images, a clause; `None` where one can.
pub(crate) fn unlearnable(job: &Job) -> Option<String> {
    let Some(evidence) = &job.evidence else {
        return Some("the job does without (`evidence: false`)".into());
    };
    let Some(label) = &job.dataset.label else {
        return Some("the job names no `dataset.label` for a classifier to learn".into());
    };
    let Some(plan) = &job.plan else {
        return Some("the job has no `plan`, so that no image is generated which could help".into());
    };
    if !plan.grouping.contains(label) {
        let groups = plan.grouping.join(", ");
        return Some(format!(
            "the plan's groups ({groups}) do not fix the label `{label}`, so that nobody knows the class of a generated \
             image; add it to them with `plan.grouping: [{label}, {groups}]`"
        ));
    }
    let linear = evidence.classifier == ClassifierKind::Linear;
    (linear && !job.verify.gates.iter().any(has_features)).then(|| WITHOUT_FEATURES.to_owned())
}

/// What `linear` lacks.
pub(crate) const WITHOUT_FEATURES: &str = "the classifier `linear` looks at what the classifier of the gates sees, and \
                                           no gate of this job has one; add the gate `attributes` to `verify.gates`, \
                                           or choose `cnn` or `mlp`";

/// Whether a gate brings a classifier, which gives images features.
fn has_features(gate: &GateConfig) -> bool {
    match gate {
        GateConfig::Attributes(_)
        | GateConfig::InDistribution(_)
        | GateConfig::Novelty(_)
        | GateConfig::Diversity(_) => true,
        GateConfig::Decode(_) | GateConfig::Safety(_) | GateConfig::Command(_) | GateConfig::Shortcut(_) => false,
    }
}

/// Why the real images cannot tell whether it helped; `None` where they can.
fn untestable(scan: &Scan, label: &str, grouping: &[String], overlap: &BTreeSet<SampleId>) -> Option<Obstacle> {
    let test: Vec<&Row> = scan.role(Role::Test).collect();
    if test.is_empty() {
        return Some(Obstacle::lacking(
            "the dataset has no test split, and only real held-out images can show whether balance helped; add one with \
             `dataset.splits: {train: ..., test: ...}`",
        ));
    }
    let overlapping = test.iter().filter(|row| overlap.contains(&row.id)).count();
    if overlapping as f64 > MOST_OVERLAP * test.len() as f64 {
        let why = format!(
            "no evidence: {overlapping} of {} test images stand, exactly or nearly, in another split too; such images are \
             left out of the test, but where they are more than {:.0} % of it, it is refused, since it would repeat what \
             was learned; remove them from one of the splits (the audit page lists near-duplicates)",
            test.len(),
            100.0 * MOST_OVERLAP
        );
        return Some(Obstacle { why, refused: true });
    }
    let column = scan.column(label).unwrap_or_default();
    let known = |row: &Row| scan.group(row, grouping).is_some();
    let classes = |rows: Vec<&Row>| vocabulary(&rows, column);
    let learned = classes(scan.role(Role::Train).filter(|row| known(row)).collect()).len();
    if learned < 2 {
        return Some(Obstacle::lacking(&format!(
            "the training images that have a value of {} are of {learned} class of `{label}`; a classifier needs two to \
             tell apart",
            names(grouping)
        )));
    }
    let classes = classes(scan.role(Role::Train).collect());
    let seen = |row: &Row| row.values[column].as_ref().is_some_and(|class| classes.contains(class));
    let usable = |row: &Row| !overlap.contains(&row.id) && known(row) && seen(row);
    (!test.iter().any(|row| usable(row))).then(|| {
        let lacks = |name: &&String| {
            let column = scan.column(name).unwrap_or_default();
            test.iter().all(|row| row.values[column].is_none())
        };
        let why = match grouping.iter().find(lacks) {
            Some(name) => format!("no test image has a value of `{name}`"),
            None => format!(
                "none of the {} test images has a value of {} and a class that a training image has",
                test.len(),
                names(grouping)
            ),
        };
        Obstacle::lacking(&format!("{why}; a classifier can only be tested on labelled images"))
    })
}

/// `a`, `b` and `c`.
fn names(of: &[String]) -> String {
    let quoted: Vec<String> = of.iter().map(|name| format!("`{name}`")).collect();
    match quoted.split_last() {
        Some((last, rest)) if !rest.is_empty() => format!("{} and {last}", rest.join(", ")),
        _ => quoted.join(""),
    }
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
        let classifiers = context.run.root.join(CLASSIFIERS);
        std::fs::create_dir_all(&classifiers).map_err(PipelineError::io(&classifiers))?;
        let Parts { data, overlapping, unlabelled, unseen } = self.data()?;
        let (with_generated, without) = (self.seen(&data, true), self.seen(&data, false));
        let kept = |name: String, seen: &Fingerprint| classifiers.join(format!("{name}-{}.json", seen.short()));
        let (arms, skipped) = arms_for(self.config, &data);
        let shares = self.config.shares();
        let trainings = (arms.len() + shares.len()) as u64 * u64::from(self.config.seeds);
        let steps = u64::from(self.config.steps);
        context.progress.begin("evidence", trainings * steps);
        let (mut of_arms, mut of_shares) = (Vec::new(), Vec::new());
        let (config, data_of_all, job_seed) = (self.config, &data, self.seed);
        for seed in 0..config.seeds {
            of_arms.extend(arms.iter().map(|&arm| Training {
                path: kept(format!("{arm}-{seed}"), if arm.is_baseline() { &without } else { &with_generated }),
                note: format!("{arm}, seed {seed}"),
                steps,
                train: Box::new(move |inside: &Within<'_>| {
                    Ok(evenset_evidence::run_arm(arm, data_of_all, job_seed, seed, config, inside)?)
                }),
            }));
            of_shares.extend(shares.iter().map(|&share| Training {
                path: kept(format!("share-{share}-{seed}"), &with_generated),
                note: format!("{share} of the generated images, seed {seed}"),
                steps,
                train: Box::new(move |inside: &Within<'_>| {
                    Ok(evenset_evidence::run_share(share, data_of_all, job_seed, seed, config, inside)?)
                }),
            }));
        }
        let runs: Vec<ArmRun> = complete_all(&of_arms, context.progress)?;
        let sweep: Vec<ShareRun> = complete_all(&of_shares, context.progress)?;
        context.progress.end();
        let sweep = if sweep.is_empty() { None } else { Some(evenset_evidence::summarise_sweep(&sweep)?) };
        let proof = Proof {
            evidence: evenset_evidence::summarise(&runs)?,
            sweep,
            distances: self.distances(&data)?,
            skipped: skipped.into_iter().map(|Skipped { arm, why }| (arm, why)).collect(),
            overlapping,
            unlabelled,
            unseen,
            untested: untested(&data),
            all_below: all_below(&runs, self.config.smallest_group),
            validation_seen: data.validation.is_none() && self.config.validation_share > 0.0,
        };
        write_json(&folder.join(EVIDENCE), &proof)?;
        Ok(StageReport { rows: trainings, rejected: 0 })
    }

    fn load(&self, folder: &Path) -> Result<Proof> {
        read_json_of(&folder.join(EVIDENCE))
    }
}

/// The classes that no test image shows.
fn untested(data: &EvidenceData) -> Vec<String> {
    let tested: BTreeSet<u32> = data.test.labels.iter().copied().collect();
    (0..).zip(&data.classes).filter(|(class, _)| !tested.contains(class)).map(|(_, name)| name.clone()).collect()
}

/// `smallest` where groups count as the worst though they have fewer test images, since no group has as many.
fn all_below(runs: &[ArmRun], smallest: u32) -> Option<u32> {
    let mut groups = runs.iter().flat_map(|run| &run.groups);
    groups.any(|group| group.counts && group.predictions.len() < smallest as usize).then_some(smallest)
}

/// The images, and how many test images were left out.
struct Parts {
    data: EvidenceData,
    overlapping: u64,
    unlabelled: u64,
    unseen: u64,
}

/// The classes and groups that rows are sorted into.
struct Codes {
    classes: Vec<String>,
    groups: Vec<Group>,
    grouping: Vec<String>,
    /// The label, and its column.
    name: String,
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

    /// Class and group of what a candidate was asked to show.
    fn of_accepted(&self, accepted: &Accepted) -> Option<(u32, u32)> {
        let group = &accepted.candidate.request.group;
        Some((self.class(group.get(&self.name))?, self.group(&group.project(&self.grouping))?))
    }
}

impl EvidenceStage<'_> {
    /// What a training sees and follows, but for its arm and its number.
    fn seen(&self, data: &EvidenceData, generated: bool) -> Fingerprint {
        let config = self.config.of_one_training();
        let parts = (self.label, self.grouping, self.seed, self.frame, self.overlap, &data.classes, &data.groups);
        // Feature vectors are the verifier's, which belongs to the rounds.
        let rounds = (generated || config.classifier == ClassifierKind::Linear).then_some(self.rounds);
        let reads: Vec<&Fingerprint> = [&self.scan.fingerprint].into_iter().chain(rounds).collect();
        fingerprint("classifier", &(config, parts), &reads)
    }

    /// Why classifiers would see no generated image, though some were accepted; `None` where they see one or none was
    /// accepted.
    pub(crate) fn unreached(&self) -> Option<Obstacle> {
        let codes = self.codes();
        let reached = self.accepted.iter().any(|accepted| codes.of_accepted(accepted).is_some());
        (!self.accepted.is_empty() && !reached).then(|| {
            let images = self.accepted.len();
            Obstacle::lacking(&format!(
                "none of the {images} accepted images has a class of `{}` that a training image has, so that no \
                 classifier would see them",
                self.label
            ))
        })
    }

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
        let unlabelled = test.iter().filter(|row| scan.group(row, self.grouping).is_none()).count();
        let planned =
            self.planned.iter().filter_map(|of| Some((codes.group(&of.group.project(self.grouping))?, of.add)));
        let planned: BTreeMap<u32, u64> = planned.collect();
        let data = EvidenceData {
            train: self.real(&train, &codes)?,
            left_out,
            generated: self.generated(self.accepted, &codes)?,
            further: Some(self.generated(self.further, &codes)?),
            planned,
            validation: (!validation.labels.is_empty()).then_some(validation),
            test: self.real(&test, &codes)?,
            classes: codes.classes,
            groups: codes.groups,
            label: self.label.to_owned(),
        };
        let unseen = test.len() - unlabelled - data.test.labels.len();
        let overlapping = (all_tests - test.len()) as u64;
        Ok(Parts { data, overlapping, unlabelled: unlabelled as u64, unseen: unseen as u64 })
    }

    fn codes(&self) -> Codes {
        let scan = &self.scan.output;
        let label = scan.column(self.label).unwrap_or_default();
        let train: Vec<&Row> = scan.role(Role::Train).collect();
        let rows = train.iter().copied().chain(scan.role(Role::Test));
        let real = rows.filter_map(|row| scan.group(row, self.grouping));
        // A group may have no real image at all.
        let generated = self.accepted.iter().chain(self.further);
        let generated = generated.map(|accepted| accepted.candidate.request.group.project(self.grouping));
        let groups: BTreeSet<Group> = real.chain(generated).collect();
        Codes {
            // What nobody could learn is no test: a class that stands in the test split alone is left out.
            classes: vocabulary(&train, label),
            groups: groups.into_iter().collect(),
            grouping: self.grouping.to_vec(),
            name: self.label.to_owned(),
            label,
        }
    }

    fn real(&self, rows: &[&Row], codes: &Codes) -> Result<Labelled> {
        let scan = &self.scan.output;
        let known: Vec<(&Row, (u32, u32))> = rows.iter().filter_map(|row| Some((*row, codes.of(scan, row)?))).collect();
        let rows: Vec<&Row> = known.iter().map(|(row, _)| *row).collect();
        let pixels = images::load(self.dataset, &rows, self.frame)?;
        self.labelled(pixels, known.iter().map(|(_, codes)| *codes))
    }

    fn generated(&self, accepted: &[Accepted], codes: &Codes) -> Result<Labelled> {
        let known: Vec<(&Accepted, (u32, u32))> =
            accepted.iter().filter_map(|accepted| Some((accepted, codes.of_accepted(accepted)?))).collect();
        let mut pixels = Vec::with_capacity(known.len() * self.frame.bytes());
        for (accepted, _) in &known {
            let image = evenset_data::decode(&accepted.candidate.png, &evenset_data::Limits::default())
                .map_err(PipelineError::damaged(Path::new(&accepted.candidate.request.id)))?;
            let Frame { width, height, .. } = self.frame;
            pixels.extend(evenset_data::fit(&image.rgb, image.width, image.height, width, height));
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stages::scan::ScanSummary;

    /// Rows of (role, shape, colour); an empty word is a missing value.
    fn scan(rows: &[(Role, &str, &str)]) -> Scan {
        let row = |(place, &(role, shape, colour)): (usize, &(Role, &str, &str))| Row {
            id: SampleId::of(&[place as u8]),
            unit: 0,
            row: place,
            role,
            width: 8,
            height: 8,
            grey: false,
            values: [shape, colour].map(|value| (!value.is_empty()).then(|| value.to_owned())).to_vec(),
            guides: true,
        };
        Scan {
            columns: vec!["shape".into(), "colour".into()],
            rows: rows.iter().enumerate().map(row).collect(),
            summary: ScanSummary::default(),
        }
    }

    const TRAIN: [(Role, &str, &str); 2] = [(Role::Train, "disc", "red"), (Role::Train, "square", "blue")];

    fn why(test: &[(Role, &str, &str)]) -> Option<Obstacle> {
        let grouping = ["shape".to_owned(), "colour".to_owned()];
        untestable(&scan(&[&TRAIN[..], test].concat()), "shape", &grouping, &BTreeSet::new())
    }

    #[test]
    fn a_test_split_counts_only_where_label_and_attributes_are_known() {
        let told = |test: &[(Role, &str, &str)]| why(test).map(|obstacle| obstacle.why).unwrap_or_default();
        assert!(why(&[(Role::Test, "disc", "red")]).is_none());
        assert!(told(&[]).contains("no test split"));
        assert!(told(&[(Role::Test, "disc", ""), (Role::Test, "square", "")]).contains("a value of `colour`"));
        assert!(told(&[(Role::Test, "", "red")]).contains("a value of `shape`"));
        let mixed = told(&[(Role::Test, "", "red"), (Role::Test, "disc", ""), (Role::Test, "star", "red")]);
        assert!(mixed.contains("none of the 3 test images has a value of `shape` and `colour`"), "{mixed}");
        assert!(why(&[(Role::Test, "star", "red"), (Role::Test, "disc", "red")]).is_none(), "one is enough");
    }

    #[test]
    fn one_class_of_training_images_is_no_classifier() {
        let rows = [(Role::Train, "disc", "red"), (Role::Train, "square", ""), (Role::Test, "disc", "red")];
        let grouping = ["shape".to_owned(), "colour".to_owned()];
        let obstacle = untestable(&scan(&rows), "shape", &grouping, &BTreeSet::new()).unwrap();
        assert!(obstacle.why.contains("are of 1 class of `shape`") && !obstacle.refused, "{}", obstacle.why);
    }

    #[test]
    fn a_test_split_that_overlaps_is_refused() {
        let scan = scan(&[&TRAIN[..], &[(Role::Test, "disc", "red")]].concat());
        let overlap = scan.role(Role::Test).map(|row| row.id).collect();
        let obstacle = untestable(&scan, "shape", &["shape".to_owned()], &overlap).unwrap();
        assert!(obstacle.refused && obstacle.why.contains("1 of 1 test images stand"), "{}", obstacle.why);
        assert!(obstacle.why.contains("more than 5 % of it, it is refused"), "{}", obstacle.why);
    }
}
