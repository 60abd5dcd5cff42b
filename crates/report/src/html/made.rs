//! How it was made: what was read, what drew the images, what was written, the hook and the job.

use minijinja::Value;
use serde::Serialize;

use super::safe;
use super::samples::{Image, image};
use crate::ReportData;
use crate::charts::line_chart;
use crate::data::{Dataset, Generator, Hook, Outputs};
use crate::text::{bytes, count, number, plural, short_count};

/// A name and what it is.
#[derive(Serialize)]
struct Fact {
    name: &'static str,
    value: String,
}

/// How the run was made.
#[derive(Serialize)]
pub struct Made<'a> {
    facts: Vec<Fact>,
    rejected_rows: Vec<RejectedView<'a>>,
    generator: Vec<Fact>,
    loss: Option<Value>,
    sample_grid: Option<Image>,
    files: Vec<FileView<'a>>,
    hook: Option<HookView<'a>>,
    job: &'a str,
}

#[derive(Serialize)]
struct RejectedView<'a> {
    reason: &'a str,
    rows: String,
    examples: &'a [String],
}

#[derive(Serialize)]
struct FileView<'a> {
    path: &'a str,
    size: String,
    sha256: &'a str,
}

#[derive(Serialize)]
struct HookView<'a> {
    command: String,
    ended: String,
    failed: bool,
    output: &'a str,
}

/// The view of all of it; parts that a run has not reached are empty.
pub fn made(data: &ReportData) -> Made<'_> {
    let generator = data.generator.as_ref();
    let loss = generator.and_then(|generator| {
        let (first, last) = (generator.loss.first()?, generator.loss.last()?);
        let described = format!(
            "Training loss from {} at step {} to {} at step {}",
            number(first.loss, 3),
            count(first.step),
            number(last.loss, 3),
            count(last.step)
        );
        line_chart(&generator.loss, &described).map(safe)
    });
    Made {
        facts: facts(data),
        rejected_rows: data.dataset.as_ref().map(rejected_rows).unwrap_or_default(),
        generator: generator.map(generator_facts).unwrap_or_default(),
        loss,
        sample_grid: generator
            .and_then(|generator| generator.sample_grid.as_ref())
            .and_then(|grid| image(grid, "A grid of images drawn by the model during its training")),
        files: data.outputs.as_ref().map(files).unwrap_or_default(),
        hook: data.hook.as_ref().map(hook),
        job: &data.job,
    }
}

fn facts(data: &ReportData) -> Vec<Fact> {
    let mut facts = Vec::new();
    let mut fact = |name, value: String| {
        if !value.is_empty() {
            facts.push(Fact { name, value });
        }
    };
    if let Some(dataset) = &data.dataset {
        let rows: Vec<String> =
            dataset.splits.iter().map(|split| format!("{} {}", count(split.rows), split.split)).collect();
        fact("Dataset", dataset.path.clone());
        fact("Stored as", dataset.kind.clone());
        fact("Images read", rows.join(", "));
    }
    fact("Label", data.label.clone().unwrap_or_default());
    fact("Attributes", data.attributes.join(", "));
    fact("Groups", data.grouping.join(" × "));
    if let Some(outputs) = &data.outputs {
        let real = plural(outputs.rows_real, "real row", "real rows");
        fact("Written to", outputs.path.clone());
        fact("Formats", outputs.formats.join(", "));
        fact("Rows written", format!("{real}, {} generated", count(outputs.rows_generated)));
    }
    fact("Seed", data.seed.to_string());
    fact("evenset", data.evenset.clone());
    facts
}

fn rejected_rows(dataset: &Dataset) -> Vec<RejectedView<'_>> {
    dataset
        .rejected
        .iter()
        .map(|rejected| RejectedView {
            reason: &rejected.reason,
            rows: plural(rejected.rows, "row", "rows"),
            examples: rejected.examples.get(..20).unwrap_or(&rejected.examples),
        })
        .collect()
}

fn generator_facts(generator: &Generator) -> Vec<Fact> {
    let all = [
        ("Model", format!("{} {}", generator.kind, generator.size).trim().to_owned()),
        ("Parameters", generator.parameters.map(short_count).unwrap_or_default()),
        ("Training steps", generator.steps.map(count).unwrap_or_default()),
        ("Sampler", generator.sampler.clone()),
        ("Sampling steps", generator.sampler_steps.map(count).unwrap_or_default()),
        ("Guidance", generator.guidance.map(|guidance| number(guidance, 2)).unwrap_or_default()),
        ("Ran on", generator.device.clone()),
        ("Weights, SHA-256", generator.model_sha256.clone().unwrap_or_default()),
    ];
    all.into_iter().filter(|(_, value)| !value.is_empty()).map(|(name, value)| Fact { name, value }).collect()
}

fn files(outputs: &Outputs) -> Vec<FileView<'_>> {
    outputs
        .files
        .iter()
        .map(|file| FileView { path: &file.path, size: bytes(file.bytes), sha256: &file.sha256 })
        .collect()
}

fn hook(hook: &Hook) -> HookView<'_> {
    HookView {
        command: hook.command.join(" "),
        ended: hook.failure.clone().unwrap_or_else(|| "finished".to_owned()),
        failed: hook.failure.is_some(),
        output: &hook.output_tail,
    }
}
