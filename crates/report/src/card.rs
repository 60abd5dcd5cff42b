//! The dataset card: the README.md of a balanced dataset, with the front matter that the Hugging Face hub reads.

use evenset_core::Group;

use crate::text::{count, number, plural};

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
///
/// Numbers and names are given; every name is quoted for the YAML of the front matter or escaped for Markdown.
pub fn dataset_card(card: &CardData) -> String {
    let mut text = String::from("---\n");
    front_matter(card, &mut text);
    text.push_str("---\n\n");
    for part in [introduction(card), counts(card), columns(card), checks(card), limits(card), loading(card)] {
        text.push_str(&part);
        text.push('\n');
    }
    text.push_str(&format!(
        "Made by [evenset](https://github.com/evenset/evenset) {} with seed {}; the same job gives the same bytes.\n",
        markdown(&card.evenset),
        card.seed
    ));
    text
}

fn front_matter(card: &CardData, text: &mut String) {
    let license = if card.license.is_empty() { "other" } else { &card.license };
    let rows: u64 = card.splits.iter().map(|split| split.num_examples).sum();
    let mut line = |depth: usize, content: String| {
        text.push_str(&"  ".repeat(depth));
        text.push_str(&content);
        text.push('\n');
    };
    line(0, format!("pretty_name: {}", yaml(&card.name)));
    line(0, format!("license: {}", yaml(license)));
    line(0, "task_categories:".into());
    line(0, "- image-classification".into());
    line(0, "size_categories:".into());
    line(0, format!("- {}", size_category(rows)));
    line(0, "tags:".into());
    for tag in ["synthetic", "evenset", "balanced", "fairness"] {
        line(0, format!("- {tag}"));
    }
    line(0, "configs:".into());
    line(0, "- config_name: default".into());
    line(1, "data_files:".into());
    for split in &card.splits {
        line(1, format!("- split: {}", yaml(&split.name)));
        line(2, format!("path: {}", yaml(&split.files)));
    }
    line(0, "dataset_info:".into());
    line(1, "features:".into());
    for feature in &card.features {
        line(1, format!("- name: {}", yaml(&feature.name)));
        match &feature.kind {
            FeatureKind::Image => line(2, "dtype: image".into()),
            FeatureKind::Value(dtype) => line(2, format!("dtype: {}", yaml(dtype))),
            FeatureKind::ClassLabel(names) => {
                line(2, "dtype:".into());
                line(3, "class_label:".into());
                line(4, "names:".into());
                for (i, name) in names.iter().enumerate() {
                    line(5, format!("'{i}': {}", yaml(name)));
                }
            }
        }
    }
    line(1, "splits:".into());
    for split in &card.splits {
        line(1, format!("- name: {}", yaml(&split.name)));
        line(2, format!("num_bytes: {}", split.num_bytes));
        line(2, format!("num_examples: {}", split.num_examples));
    }
    line(1, format!("download_size: {}", card.download_size));
    line(1, format!("dataset_size: {}", card.splits.iter().map(|split| split.num_bytes).sum::<u64>()));
}

fn introduction(card: &CardData) -> String {
    let generated: u64 = card.splits.iter().map(|split| split.generated).sum();
    let rows: u64 = card.splits.iter().map(|split| split.num_examples).sum();
    let mut text = format!(
        "# {}\n\nThis dataset is {} with {} added to it, so that groups which were rare or missing in the training \
         split are there.\nThe other {} are real and are stored byte for byte as they were found; their order and \
         splits are kept.\n**Generated images are in `train` only**: every other split is real.\n",
        markdown(&card.name),
        markdown(&card.source),
        plural(generated, "generated image", "generated images"),
        plural(rows.saturating_sub(generated), "image", "images"),
    );
    if !card.target.is_empty() {
        text.push_str(&format!("\nTarget: {}\n", markdown(&card.target)));
    }
    text.push_str("\n| split | rows | real | generated |\n|---|--:|--:|--:|\n");
    for split in &card.splits {
        let real = split.num_examples.saturating_sub(split.generated);
        let numbers = [split.num_examples, real, split.generated].map(count).join(" | ");
        text.push_str(&format!("| {} | {numbers} |\n", markdown(&split.name)));
    }
    text
}

fn counts(card: &CardData) -> String {
    if card.groups.is_empty() {
        return String::new();
    }
    let headings: String = card.grouping.iter().map(|attribute| format!(" {} |", markdown(attribute))).collect();
    let mut text = format!(
        "## Training images of every group, before and after\n\n|{headings} before | generated | after |\n|{}--:|--:|--:|\n",
        "---|".repeat(card.grouping.len())
    );
    for group in &card.groups {
        let value = |attribute: &String| group.values.get(attribute).unwrap_or(evenset_core::MISSING);
        let values: String = card.grouping.iter().map(|a| format!(" {} |", markdown(value(a)))).collect();
        let after = group.before.saturating_add(group.generated);
        text.push_str(&format!("|{values} {} |\n", [group.before, group.generated, after].map(count).join(" | ")));
    }
    text
}

/// What each provenance column holds; only the columns that the dataset has are listed.
const COLUMNS: &[(&str, &str)] = &[
    ("is_synthetic", "`true` for a generated image, `false` for a real one"),
    ("source_id", "BLAKE3 of the image file's bytes; names the image wherever it goes"),
    ("group", "the group that the image was generated for"),
    ("round", "the round of plan, generate, verify that it comes from"),
    ("seed", "the seed of its noise"),
    ("prompt", "the prompt, where the model takes one"),
    ("negative_prompt", "the negative prompt, where the model takes one"),
    ("model_id", "the model that drew it"),
    ("model_sha256", "SHA-256 of the model's weights"),
    ("lora_sha256", "SHA-256 of the LoRA file, where there was one"),
    ("scheduler", "the sampler"),
    ("steps", "sampling steps"),
    ("guidance", "guidance weight"),
    ("config_hash", "fingerprint of the generation's configuration"),
    ("plan_hash", "fingerprint of the plan that asked for it"),
    ("verify_scores", "the scores that the gates gave it, as JSON"),
    ("verdict", "`accepted`; rejected candidates are not in this dataset"),
    ("reject_reason", "why a candidate was rejected; empty here"),
    ("reviewer", "who looked at it, where somebody did"),
    ("sample_weight", "a weight for training: rows of one group share it"),
];

fn columns(card: &CardData) -> String {
    let held: Vec<_> =
        COLUMNS.iter().filter(|(name, _)| card.features.iter().any(|feature| feature.name == *name)).collect();
    if held.is_empty() {
        return String::new();
    }
    let lines: String = held.iter().map(|(name, meaning)| format!("| `{name}` | {meaning} |\n")).collect();
    format!(
        "## Where each row comes from\n\nEvery row carries its provenance; on real rows what only concerns generation is \
         empty.\n\n| column | meaning |\n|---|---|\n{lines}"
    )
}

fn checks(card: &CardData) -> String {
    let Some(generator) = &card.generator else {
        return String::new();
    };
    let mut made = format!("The images were drawn by {}", markdown(&generator.model));
    if !generator.sampler.is_empty() {
        made.push_str(&format!(" with the sampler {}", markdown(&generator.sampler)));
    }
    if let Some(steps) = generator.steps {
        made.push_str(&format!(", {}", plural(steps, "step", "steps")));
    }
    if let Some(guidance) = generator.guidance {
        made.push_str(&format!(", guidance {}", number(guidance, 2)));
    }
    if let Some(sha256) = &generator.sha256 {
        made.push_str(&format!(" (weights SHA-256 `{}`)", markdown(sha256)));
    }
    let gates: String = card.gates.iter().map(|gate| format!("- {}\n", markdown(gate))).collect();
    let here: u64 = card.splits.iter().map(|split| split.generated).sum();
    let passed = match card.accepted.saturating_sub(here) {
        0 => format!("{} passed every check and are in this dataset", count(card.accepted)),
        _ => format!(
            "{} passed every check, of which the {} that fill the target are in this dataset",
            count(card.accepted),
            count(here)
        ),
    };
    let mut text = format!(
        "## How the generated images were made and checked\n\n{made}.\nOf {}, {passed}:\n\n{gates}",
        plural(card.candidates, "candidate", "candidates"),
    );
    if let Some(evidence) = &card.evidence {
        text.push_str(&format!("\n{}\n", markdown(evidence)));
    }
    text
}

fn limits(card: &CardData) -> String {
    let mut text = String::from(
        "## Limits\n\n- A generated image is a guess of a model, not an observation. Do not use it to learn facts about \
         the world, and never\n  to test or validate a model.\n- A model that was trained on an unbalanced dataset can \
         repeat its bias within a group: equal counts are not equal variety.\n- The labels of generated images are what \
         was asked for and what a classifier recognised; a small share can be wrong.\n- Only the groups in the table \
         above were balanced; attributes that are not columns of this dataset were not looked at.\n",
    );
    if card.evidence.is_none() {
        text.push_str("- Whether training on this dataset helps was not measured.\n");
    }
    text
}

fn loading(card: &CardData) -> String {
    let files: Vec<String> =
        card.splits.iter().map(|split| format!("{}: {}", literal(&split.name), literal(&split.files))).collect();
    let mut text = format!(
        "## How to load it\n\n```python\nfrom datasets import load_dataset\n\n\
         data = load_dataset(\"parquet\", data_files={{{}}})\n\
         real = data[\"train\"].filter(lambda synthetic: not synthetic, input_columns=\"is_synthetic\")\n```\n",
        files.join(", ")
    );
    if !card.other_formats.is_empty() {
        let formats: Vec<String> = card.other_formats.iter().map(|format| markdown(format)).collect();
        text.push_str(&format!("\nThe same rows are also here as {}.\n", formats.join(", ")));
    }
    text.push_str("\n`train.py` trains a small classifier on it and prints its accuracy in every group.\n");
    text
}

/// A scalar of YAML: plain where it is a simple word, else double-quoted with everything unusual escaped.
fn yaml(text: &str) -> String {
    const WORDS_WITH_A_MEANING: [&str; 9] = ["true", "false", "yes", "no", "on", "off", "null", "y", "n"];
    let simple = text.starts_with(|c: char| c.is_ascii_lowercase())
        && text.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_' || c == '-')
        && !WORDS_WITH_A_MEANING.contains(&text);
    if simple { text.to_owned() } else { literal(text) }
}

/// A double-quoted literal that YAML and Python read alike.
fn literal(text: &str) -> String {
    let escaped: String = text
        .chars()
        .map(|c| match c {
            '"' | '\\' => format!("\\{c}"),
            c if c.is_control() || matches!(c, '\u{2028}' | '\u{2029}' | '\u{feff}' | '\u{fffe}' | '\u{ffff}') => {
                format!("\\u{:04x}", u32::from(c))
            }
            c => c.to_string(),
        })
        .collect();
    format!("\"{escaped}\"")
}

/// Text that Markdown shows as it is, on one line and inside a table's cell.
fn markdown(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '<' => shown.push_str("&lt;"),
            '&' => shown.push_str("&amp;"),
            '\\' | '|' | '`' | '*' | '_' | '[' | ']' | '#' => shown.extend(['\\', c]),
            c if c.is_control() => shown.push(' '),
            c => shown.push(c),
        }
    }
    shown
}

fn size_category(rows: u64) -> &'static str {
    match rows {
        0..1_000 => "n<1K",
        1_000..10_000 => "1K<n<10K",
        10_000..100_000 => "10K<n<100K",
        100_000..1_000_000 => "100K<n<1M",
        1_000_000..10_000_000 => "1M<n<10M",
        10_000_000..100_000_000 => "10M<n<100M",
        100_000_000..1_000_000_000 => "100M<n<1B",
        1_000_000_000..10_000_000_000 => "1B<n<10B",
        10_000_000_000..100_000_000_000 => "10B<n<100B",
        100_000_000_000..1_000_000_000_000 => "100B<n<1T",
        _ => "n>1T",
    }
}
