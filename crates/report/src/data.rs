//! What a report says, as plain data: the pipeline fills it, the page draws it, `evenset report RUN --json` prints it.
//!
//! Every part that a stage produces is optional, so that a run that is not finished still has a report. Numbers are
//! finite: what has no value (a ratio with an empty group, an association with one attribute) is `None`.

mod checks;
mod evidence;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use evenset_core::Group;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

pub(crate) use checks::summed;
pub use checks::{
    Acceptance, Auc, BiasWarning, Calibration, Checks, CorrectedAttribute, CorrectedCount, Cue, Diversity, GateRow,
    GroupShortcut, GuideRow, Rate, Shortcut, ShortcutFigures, SmallGroups, Threshold,
};
pub use evidence::{
    Arm, Distances, Evidence, Gain, GroupAccuracy, GroupDistances, HeldOut, HeldOutGroup, KernelDistance, SkippedArm,
    Sweep, SweepShare, Verdict,
};

/// A 95 % interval `[low, high]`, in the unit of the number it belongs to.
pub type Interval = [f64; 2];

/// Everything that the report of one run says.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct ReportData {
    /// The job's name.
    pub name: String,
    /// The version of evenset that ran the job.
    pub evenset: String,
    /// The job's seed.
    pub seed: u64,
    /// The attribute that a downstream model is to learn; it is the rows of the grids.
    pub label: Option<String>,
    /// All attributes that the job looks at, in the job's order, without the label.
    pub attributes: Vec<String>,
    /// The main grouping: the label first, then the attributes that the plan balances.
    pub grouping: Vec<String>,
    /// What was read (scan).
    pub dataset: Option<Dataset>,
    /// One row for each group of the main grouping, in the order of the attributes' values.
    pub groups: Vec<GroupRow>,
    /// How even the counts are, before and after (audit).
    pub balance: Option<BalanceChange>,
    /// What was aimed at (plan).
    pub plan: Option<Plan>,
    /// What the gates did (verify).
    pub acceptance: Option<Acceptance>,
    /// The rounds of plan, generate, verify.
    pub rounds: Vec<Round>,
    /// What drew the images (generate).
    pub generator: Option<Generator>,
    /// How well the verifier's classifier does on real images that it did not train on, one entry an attribute.
    pub calibration: Vec<Calibration>,
    /// What was found when the gates themselves were looked at (checks).
    pub checks: Option<Checks>,
    /// Whether the balanced dataset trains a better classifier (evidence).
    pub evidence: Option<Evidence>,
    /// What was written (write).
    pub outputs: Option<Outputs>,
    /// What the user's own trainer said (hook).
    pub hook: Option<Hook>,
    /// Remarks that a reader must not miss.
    pub notes: Vec<Note>,
    /// The page with every figure of the audit, where it lies beside this one.
    pub audit_page: Option<String>,
    /// The resolved job file, YAML.
    pub job: String,
}

/// The dataset as it was read.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Dataset {
    /// Where it lies, as the job file names it.
    pub path: String,
    /// How it is stored: `parquet`, `image-folder`.
    pub kind: String,
    /// Rows of each split, in the order of the splits.
    pub splits: Vec<SplitRows>,
    /// Rows that could not be used, by reason, most frequent first.
    pub rejected: Vec<RejectedRows>,
}

/// How many rows a split has.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct SplitRows {
    /// The split's name, for example `train`.
    pub split: String,
    /// Usable rows.
    pub rows: u64,
}

/// Rows that were left out for one reason.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct RejectedRows {
    /// Why, in words.
    pub reason: String,
    /// How many.
    pub rows: u64,
    /// The first of them, at most twenty: the file or row and its error.
    pub examples: Vec<String>,
}

/// One group of the main grouping, from the real counts to the images shown for it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct GroupRow {
    /// The group; a missing value is `(missing)`.
    pub values: Group,
    /// Real training rows.
    pub before: u64,
    /// Training rows that the plan wants.
    pub want: Option<u64>,
    /// Candidates drawn, over all rounds.
    pub generated: u64,
    /// Candidates that passed every gate.
    pub accepted: u64,
    /// Candidates that a gate dropped.
    pub rejected: u64,
    /// Training rows in the balanced dataset.
    pub after: Option<u64>,
    /// Generated ones among them: the accepted candidates that fill the plan.
    pub used: Option<u64>,
    /// 95 % interval of the acceptance rate, 0 to 1.
    pub acceptance_interval: Option<Interval>,
    /// Why candidates of this group were dropped, most frequent first.
    pub reasons: Vec<ReasonCount>,
    /// Why no more was asked for it, where its acceptance stayed too low.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub unreachable: Option<String>,
    /// Some real images.
    pub samples_real: Vec<Picture>,
    /// Some accepted generated images.
    pub samples_generated: Vec<Picture>,
    /// Some rejected candidates and why.
    pub samples_rejected: Vec<RejectedPicture>,
}

impl GroupRow {
    /// Generated training rows in the balanced dataset; before it is written, the candidates accepted so far.
    pub fn made(&self) -> u64 {
        self.used.or(self.after.map(|after| after.saturating_sub(self.before))).unwrap_or(self.accepted)
    }

    /// Real training rows in the balanced dataset; before it is written, all that there are.
    pub fn real(&self) -> u64 {
        self.after.map_or(self.before, |after| after.saturating_sub(self.made()))
    }
}

/// A reason and how often it was the reason.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ReasonCount {
    /// The reason, in words.
    pub reason: String,
    /// How often.
    pub count: u64,
}

/// A small image, ready to be shown. Serialises with its bytes in base64.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Picture {
    /// `image/png`, `image/jpeg` or `image/webp`; other types are not shown.
    pub mime: String,
    /// The encoded file.
    #[serde(serialize_with = "to_base64", deserialize_with = "from_base64")]
    pub bytes: Vec<u8>,
    /// What it shows, for readers who do not see it.
    pub alt: String,
}

/// A rejected candidate.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct RejectedPicture {
    /// The candidate.
    pub picture: Picture,
    /// Why it was dropped.
    pub reason: String,
}

/// Evenness before, and after where the dataset has been written.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct BalanceChange {
    /// Of the real training rows.
    pub before: Balance,
    /// Of the balanced training rows.
    pub after: Option<Balance>,
}

/// How even the counts of the main grouping are.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Balance {
    /// Entropy of the counts over the entropy of equal counts: 1 is even, 0 is all in one group.
    pub normalised_entropy: Option<f64>,
    /// Largest count over smallest; `None` where a group is empty.
    pub largest_to_smallest: Option<f64>,
    /// Total variation distance from equal counts: 0 is even, towards 1 is concentrated.
    pub total_variation: Option<f64>,
    /// Cramér's V of label and attributes: 0 is independent, 1 is one given by the other.
    pub cramers_v: Option<f64>,
    /// How many equally large groups would have the same entropy.
    pub effective_groups: Option<f64>,
}

/// What the plan aimed at.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Plan {
    /// The target in one sentence.
    pub target: String,
    /// The limits that the job sets, each in words.
    pub limits: Vec<String>,
    /// Images that the plan asks for.
    pub images: u64,
    /// Whether every group can reach (or, after the rounds, has reached) its target.
    pub satisfied: bool,
    /// What cannot be reached, and why.
    pub unreachable: Vec<String>,
}

/// One round of plan, generate, verify.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Round {
    /// From 1.
    pub round: u32,
    /// Candidates drawn in it.
    pub requested: u64,
    /// Candidates of it that were accepted.
    pub accepted: u64,
    /// Images still missing after it.
    pub remaining: u64,
}

/// What drew the images.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Generator {
    /// The kind of model: `conditional`, `stable-diffusion`.
    pub kind: String,
    /// Its size or name.
    pub size: String,
    /// Trainable parameters.
    pub parameters: Option<u64>,
    /// Training steps.
    pub steps: Option<u64>,
    /// Training loss, thinned to at most a few hundred points.
    pub loss: Vec<LossPoint>,
    /// The sampler's name.
    pub sampler: String,
    /// Sampling steps.
    pub sampler_steps: Option<u64>,
    /// Guidance weight; 1 is no guidance.
    pub guidance: Option<f64>,
    /// Device and number type it ran on, for example `cpu f32`.
    pub device: String,
    /// SHA-256 of the weights file.
    pub model_sha256: Option<String>,
    /// A grid of samples, one row or cell a group.
    pub sample_grid: Option<Picture>,
}

/// One point of the loss curve.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct LossPoint {
    /// Training step.
    pub step: u64,
    /// Loss, smoothed over the steps since the point before.
    pub loss: f64,
}

/// What was written.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Outputs {
    /// The dataset's folder, as the job file names it.
    pub path: String,
    /// `parquet`, `webdataset`.
    pub formats: Vec<String>,
    /// Real rows written, over all splits.
    pub rows_real: u64,
    /// Generated rows written; they are all in `train`.
    pub rows_generated: u64,
    /// The files.
    pub files: Vec<OutputFile>,
}

/// One written file.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct OutputFile {
    /// Path under the dataset's folder.
    pub path: String,
    /// Its size in bytes.
    pub bytes: u64,
    /// SHA-256 of its bytes.
    pub sha256: String,
}

/// The hook and how it ended.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Hook {
    /// The command and its arguments.
    pub command: Vec<String>,
    /// Its exit code; `None` where a signal ended it, or it was not started.
    pub exit_code: Option<i32>,
    /// How it failed, in words; `None` where it did not.
    pub failure: Option<String>,
    /// The end of what it printed.
    pub output_tail: String,
}

/// A remark.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Note {
    /// How much it weighs.
    pub level: NoteLevel,
    /// The remark, one or two sentences.
    pub text: String,
}

/// How much a remark weighs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum NoteLevel {
    /// Good to know.
    #[default]
    Info,
    /// Changes how the results are to be read.
    Warning,
}

impl Note {
    /// Good to know.
    pub fn info(text: impl Into<String>) -> Self {
        Self { level: NoteLevel::Info, text: text.into() }
    }

    /// Changes how the results are to be read.
    pub fn warning(text: impl Into<String>) -> Self {
        Self { level: NoteLevel::Warning, text: text.into() }
    }
}

impl Picture {
    /// An encoded PNG.
    pub fn png(bytes: Vec<u8>, alt: impl Into<String>) -> Self {
        Self { mime: "image/png".to_owned(), bytes, alt: alt.into() }
    }

    /// The picture as a `data:` URI, or `None` if it is empty or of a type that the page does not show.
    pub fn data_uri(&self) -> Option<String> {
        let shown = matches!(self.mime.as_str(), "image/png" | "image/jpeg" | "image/webp");
        (shown && !self.bytes.is_empty()).then(|| format!("data:{};base64,{}", self.mime, STANDARD.encode(&self.bytes)))
    }
}

fn to_base64<S: Serializer>(bytes: &[u8], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&STANDARD.encode(bytes))
}

fn from_base64<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<u8>, D::Error> {
    STANDARD.decode(String::deserialize(deserializer)?).map_err(serde::de::Error::custom)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_reads_back_and_pictures_travel_as_base64() {
        let mut data = ReportData { name: "fashion".into(), seed: u64::MAX, ..ReportData::default() };
        data.groups.push(GroupRow {
            values: Group::new([("garment", "coat"), ("colour", "blau & grün")]).unwrap(),
            before: 3,
            samples_real: vec![Picture::png(vec![0, 159, 255], "a coat")],
            ..GroupRow::default()
        });
        let json = serde_json::to_string(&data).unwrap();
        assert!(json.contains(r#""bytes":"AJ//""#), "{json}");
        assert_eq!(serde_json::from_str::<ReportData>(&json).unwrap(), data);
    }

    #[test]
    fn evidence_is_written_in_the_words_that_machines_read() {
        let arm = Arm {
            name: "as-is".into(),
            accuracy: 0.81,
            worst_group: 0.42,
            worst_group_interval: Some([0.36, 0.47]),
            ..Arm::default()
        };
        let evidence = Evidence { seeds: 5, arms: vec![arm], ..Evidence::default() };
        let json = serde_json::to_value(&evidence).unwrap();
        assert_eq!(json["verdict"], "no-difference");
        assert_eq!(json["seeds"], 5);
        assert_eq!(json["arms"][0]["worst_group"], 0.42);
        assert_eq!(json["arms"][0]["worst_group_interval"][1], 0.47);
        assert!(json["arms"][0].get("gap").is_none());
    }

    #[test]
    fn an_empty_object_is_a_report_of_a_run_that_has_not_begun() {
        assert_eq!(serde_json::from_str::<ReportData>("{}").unwrap(), ReportData::default());
    }

    #[test]
    fn only_the_image_types_that_browsers_show_become_uris() {
        assert_eq!(Picture::png(vec![1], "").data_uri().as_deref(), Some("data:image/png;base64,AQ=="));
        assert_eq!(Picture { mime: "text/html".into(), bytes: vec![1], alt: String::new() }.data_uri(), None);
        assert_eq!(Picture::png(Vec::new(), "").data_uri(), None);
    }
}
