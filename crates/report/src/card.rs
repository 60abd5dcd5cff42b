//! The dataset card: the README.md of a balanced dataset, with the front matter that the Hugging Face hub reads.

use evenset_core::Group;

/// What the card says, as plain data.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct CardData {
    /// The dataset's name.
    pub name: String,
    /// Licence of the written dataset as a hub identifier (`mit`, `cc-by-4.0`); `other` where it is empty.
    pub license: String,
    /// The version of evenset that wrote it.
    pub evenset: String,
    /// The job's seed.
    pub seed: u64,
    /// The dataset that it was made from, as the job names it.
    pub source: String,
    /// Columns of the Parquet files, in order.
    pub features: Vec<Feature>,
    /// The splits, `train` first.
    pub splits: Vec<CardSplit>,
    /// Bytes of all Parquet files.
    pub download_size: u64,
    /// The label column.
    pub label: String,
    /// The main grouping: the label first.
    pub grouping: Vec<String>,
    /// Counts of every group in `train`.
    pub groups: Vec<CardGroup>,
    /// The target in one sentence.
    pub target: String,
    /// What drew the images; `None` where none were generated.
    pub generator: Option<CardGenerator>,
    /// The gates that candidates passed, each in a few words.
    pub gates: Vec<String>,
    /// Candidates that were drawn.
    pub candidates: u64,
    /// Candidates that passed every gate.
    pub accepted: u64,
    /// What the evidence says, one sentence; `None` where it was not asked.
    pub evidence: Option<String>,
    /// Other formats beside Parquet, for example `webdataset`.
    pub other_formats: Vec<String>,
}

/// One column.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Feature {
    /// The column's name.
    pub name: String,
    /// What it holds.
    pub kind: FeatureKind,
}

/// What a column holds, in the words of `datasets`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FeatureKind {
    /// An image, `struct<bytes, path>`.
    Image,
    /// A class index with the classes' names.
    ClassLabel(Vec<String>),
    /// A plain value with its `dtype`: `string`, `int64`, `float32`, `bool`, ...
    Value(String),
}

/// One split.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CardSplit {
    /// `train`, `validation`, `test`.
    pub name: String,
    /// Bytes of the rows.
    pub num_bytes: u64,
    /// Rows.
    pub num_examples: u64,
    /// Generated rows among them.
    pub generated: u64,
    /// The split's Parquet files as a pattern under the card's folder, for example `data/train-*`.
    pub files: String,
}

/// Counts of one group.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CardGroup {
    /// The group.
    pub values: Group,
    /// Real training rows.
    pub before: u64,
    /// Generated training rows.
    pub generated: u64,
}

/// What drew the images.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct CardGenerator {
    /// The kind of model and its size or name.
    pub model: String,
    /// SHA-256 of its weights.
    pub sha256: Option<String>,
    /// The sampler's name.
    pub sampler: String,
    /// Sampling steps.
    pub steps: Option<u64>,
    /// Guidance weight.
    pub guidance: Option<f64>,
}

/// The text of the card, README.md.
pub fn dataset_card(card: &CardData) -> String {
    format!("# {}\n", card.name)
}
