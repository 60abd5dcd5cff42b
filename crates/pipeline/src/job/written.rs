//! The job file as it is written: every key optional where a default serves the common case.
//!
//! These types are the job file's reference: `evenset schema` prints their JSON Schema, and the first sentence of each
//! key's comment is its line in `docs/job-file.md`.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;

use evenset_audit::AuditConfig;
use evenset_data::{Derive, Filter};
use evenset_diffusion::ConditionalConfig;
use evenset_diffusion::http::HttpConfig;
use evenset_diffusion::stable_diffusion::{ControlConfig, StableDiffusionConfig};
use evenset_evidence::EvidenceConfig;
use evenset_plan::{AskPolicy, GuidesConfig, Limits, Prompts, Surplus, Targets};
use evenset_verify::GateConfig;
use schemars::JsonSchema;
use serde::de::value::MapAccessDeserializer;
use serde::de::{MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};

use super::sampler::Sampler;

/// A job: what to measure, what to fill up, and where to put it.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(title = "evenset job")]
pub struct WrittenJob {
    /// Name of the job; names the run folder. Default: the job file's name.
    pub name: Option<String>,
    /// Seed of everything random: the same seed, data and version give the same bytes. Default: 0.
    #[serde(default)]
    pub seed: u64,
    /// Folder of the run, which resumes. Default: `runs/NAME`.
    pub run: Option<PathBuf>,
    /// The labelled images.
    pub dataset: WrittenDataset,
    /// Attributes made from columns: bins of numbers, maps of values, parts of names and paths.
    #[serde(default)]
    pub derive: BTreeMap<String, Derive>,
    /// Which rows are looked at: those that pass every filter.
    #[serde(default, rename = "where")]
    pub filters: Vec<Filter>,
    /// What the audit counts.
    #[serde(default)]
    pub audit: AuditConfig,
    /// What is missing. Without it the job ends after the audit.
    pub plan: Option<WrittenPlan>,
    /// How the missing images are made.
    #[serde(default)]
    pub generate: WrittenGenerate,
    /// How each generated image is checked.
    #[serde(default)]
    pub verify: WrittenVerify,
    /// Where the balanced dataset goes, and in which formats.
    #[serde(default)]
    pub write: WrittenWrite,
    /// How it is proved on real held-out images whether balance helped; `false` does without.
    #[serde(default)]
    pub evidence: WrittenEvidence,
    /// Your own trainer, started on the finished dataset, after the evidence and before the report, which says how it ended.
    /// Where it fails the run ends with an error, after the report is written.
    pub hook: Option<WrittenHook>,
}

/// The labelled images.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct WrittenDataset {
    /// A Parquet file, a folder of Parquet files in the Hugging Face layout, or a folder of images; for `audit` and `plan`
    /// also a table of labels without images (CSV, JSONL, Parquet; a file, a folder, a pattern such as `data/*.csv`, or an
    /// address such as `s3://bucket/labels.parquet`). Relative to the folder that evenset is started in.
    pub path: PathBuf,
    /// Column of the label; in class folders without metadata it is called `label`.
    pub label: Option<String>,
    /// Columns, beside the label, that can be under-represented.
    #[serde(default)]
    pub attributes: Vec<String>,
    /// Column that says how many rows a row of a table of labels stands for. Default: one.
    pub count: Option<String>,
    /// Words that stand for a missing value, beside `null` and, in CSV, empty cells and `NaN`. An empty text in JSON or
    /// Parquet is a value unless `''` is one of them.
    #[serde(default)]
    pub missing: Vec<String>,
    /// Role (`train`, `validation`, `test`) to the split's name in the data, each split in one role. Default: the splits
    /// that are found.
    #[serde(default)]
    pub splits: BTreeMap<Role, String>,
    /// Column of the image. Default: the first image column.
    pub image: Option<String>,
    /// What a broken row does: `reject` it and go on, or `fail` the run. Default: reject.
    #[serde(default)]
    pub on_error: OnError,
}

/// What a split is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Rows to learn from; the only split that generated images may enter.
    Train,
    /// Real rows for choosing settings.
    Validation,
    /// Real rows for the evidence, never learned from.
    Test,
}

impl Role {
    /// The role's name in job files and columns.
    pub fn name(self) -> &'static str {
        match self {
            Self::Train => "train",
            Self::Validation => "validation",
            Self::Test => "test",
        }
    }
}

/// What a broken row does to the run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum OnError {
    /// The row goes to `rejected.parquet` with its reason, and the run goes on.
    #[default]
    Reject,
    /// The first broken row ends the run.
    Fail,
}

/// What is missing.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct WrittenPlan {
    /// The distribution to reach, or a list of several to reach at once.
    pub target: Targets,
    /// What the plan may cost.
    #[serde(default)]
    pub limits: Limits,
    /// Whether images that a target has too many of may be left out of the balanced dataset: `keep` or `remove`.
    /// Default: keep.
    #[serde(default)]
    pub surplus: Surplus,
    /// Seconds that the search for the fewest images may take where no formula gives them. Default: 5.
    pub seconds: Option<f64>,
    /// What each request says in words, for generators that read: templates, phrases for values, scene words.
    pub prompts: Option<Prompts>,
    /// Attributes whose combinations are the groups. Default: those that the target names, else label and attributes.
    pub grouping: Option<Vec<String>>,
}

/// How the missing images are made.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct WrittenGenerate {
    /// The model. Default: a conditional model of size `small`, trained on the dataset itself.
    #[serde(default)]
    pub model: Model,
    /// How images are drawn from the model.
    #[serde(default)]
    pub sampler: Sampler,
    /// Real images that candidates of small groups start from. Default: every image starts from pure noise.
    pub guides: Option<GuidesConfig>,
    /// Images per unit, the smallest piece that is retried as a whole. Default: 256, and 8 for Stable Diffusion.
    pub unit: Option<usize>,
}

/// A model that images are drawn from.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "type", rename_all = "kebab-case")]
pub enum Model {
    /// A diffusion model of label and attributes, trained on the dataset itself.
    Conditional(ConditionalConfig),
    /// A Stable Diffusion model that others trained; it reads `plan.prompts`.
    StableDiffusion(StableDiffusionConfig),
    /// A model behind an OpenAI-compatible images API, hosted or on your own server; it reads `plan.prompts`.
    Http(HttpConfig),
}

impl Model {
    /// Longest side at which gates and classifiers look at images, where the job says it.
    pub fn resolution(&self) -> Option<u32> {
        match self {
            Self::Conditional(config) => config.resolution,
            Self::StableDiffusion(config) => config.resolution,
            Self::Http(_) => None,
        }
    }

    /// The networks that make images follow pictures.
    pub fn controls(&self) -> &[ControlConfig] {
        match self {
            Self::StableDiffusion(config) => &config.controls,
            Self::Conditional(_) | Self::Http(_) => &[],
        }
    }

    /// The model that is trained on the dataset itself, where it is one.
    pub fn conditional(&self) -> Option<&ConditionalConfig> {
        match self {
            Self::Conditional(config) => Some(config),
            Self::StableDiffusion(_) | Self::Http(_) => None,
        }
    }
}

impl Default for Model {
    fn default() -> Self {
        Self::Conditional(ConditionalConfig::default())
    }
}

/// How each generated image is checked.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct WrittenVerify {
    /// The gates, in the order in which they are asked. Default: decode, attributes, in-distribution, novelty.
    pub gates: Vec<GateConfig>,
    /// Rounds of generating at most, until every target is met by accepted images. Default: 4.
    pub rounds: u32,
    /// How many candidates a round asks for: what is missing divided by the acceptance so far, within bounds.
    pub ask: AskPolicy,
    /// Acceptance rate under which a group is given up as unreachable, once its 95 % interval lies below. Default: 0.01.
    #[schemars(range(min = 0.0, max = 1.0))]
    pub floor: f64,
    /// What happens where a group is rejected far more than the others: `warn`, or `fail` the job. Default: warn.
    pub on_bias: OnBias,
    /// Whether rounds end where another one no longer helps a classifier on real images that were kept apart; each round
    /// then costs the trainings that show it. Default: false.
    pub stop_at_plateau: bool,
    /// Rejected images that are kept for review in `rejected.parquet` of each round, evenly over groups and gates.
    /// Default: 1000.
    pub keep_rejected: u64,
}

/// What happens where the gates reject a group far more than the others.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum OnBias {
    /// The report says so.
    #[default]
    Warn,
    /// The job ends before it writes a dataset.
    Fail,
}

impl Default for WrittenVerify {
    fn default() -> Self {
        Self {
            gates: GateConfig::default_cascade(),
            rounds: 4,
            ask: AskPolicy::default(),
            floor: 0.01,
            on_bias: OnBias::default(),
            stop_at_plateau: false,
            keep_rejected: 1000,
        }
    }
}

/// How it is proved on real held-out images whether balance helped; `false` does without.
#[derive(Clone, Debug, Serialize, JsonSchema)]
#[serde(untagged)]
pub enum WrittenEvidence {
    /// Whether there is any, with the usual settings.
    Switch(bool),
    /// There is, with these settings.
    Config(Box<EvidenceConfig>),
}

impl Default for WrittenEvidence {
    fn default() -> Self {
        Self::Switch(true)
    }
}

impl<'de> Deserialize<'de> for WrittenEvidence {
    /// By hand: an untagged enum would hide which key is wrong.
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct SwitchOrConfig;
        impl<'de> Visitor<'de> for SwitchOrConfig {
            type Value = WrittenEvidence;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("keys and values, or false")
            }
            fn visit_bool<E: serde::de::Error>(self, switch: bool) -> Result<WrittenEvidence, E> {
                Ok(WrittenEvidence::Switch(switch))
            }
            fn visit_map<M: MapAccess<'de>>(self, map: M) -> Result<WrittenEvidence, M::Error> {
                EvidenceConfig::deserialize(MapAccessDeserializer::new(map)).map(Box::new).map(WrittenEvidence::Config)
            }
        }
        deserializer.deserialize_any(SwitchOrConfig)
    }
}

/// Where the balanced dataset goes.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct WrittenWrite {
    /// Formats to write: `parquet` goes to `data/`, `webdataset` to `webdataset/`. Default: parquet.
    pub formats: Vec<Format>,
    /// Folder of the balanced dataset; never overwritten without `--overwrite`. Default: `out/NAME`.
    pub out: Option<PathBuf>,
    /// Whether generated images are written in files like the real ones: size, format (JPEG, PNG, lossless WebP) and JPEG
    /// compression of a real image of their group, so that none of this gives them away. The gates look at an image as it
    /// was drawn, before that. Else they are PNG files of the size they were drawn at. Default: false.
    pub match_real: bool,
    /// Licence of the dataset, as its card states it (an SPDX identifier in lower case). Default: `other`.
    pub license: String,
}

impl Default for WrittenWrite {
    fn default() -> Self {
        Self { formats: vec![Format::Parquet], out: None, match_real: false, license: "other".into() }
    }
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Parquet => "parquet",
            Self::Webdataset => "webdataset",
        })
    }
}

/// A format of the balanced dataset.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    /// Parquet in the Hugging Face layout.
    Parquet,
    /// WebDataset tar shards.
    Webdataset,
}

/// Your own trainer.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "type", rename_all = "kebab-case", deny_unknown_fields)]
pub enum WrittenHook {
    /// A program, started without a shell in the folder that evenset is started in; paths and figures come as JSON on
    /// standard input and as `EVENSET_*` environment variables.
    Command {
        /// Program and arguments; `{dataset}`, `{run}` and `{name}` are replaced.
        run: Vec<String>,
        /// Seconds after which the program is ended. Default: no limit.
        timeout: Option<u64>,
    },
}
