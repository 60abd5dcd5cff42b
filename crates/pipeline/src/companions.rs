//! The texts that stand beside a balanced dataset: its card and a ready training script.

use evenset_data::Feature;
use evenset_report::{self as report, CardData, CardGenerator, CardGroup, CardSplit};

use crate::engine::Finished;
use crate::error::Result;
use crate::job::{Format, Job};
use crate::stages::write::Written;

/// File names and contents.
pub(crate) fn texts(job: &Job, finished: &Finished, written: &Written) -> Result<Vec<(String, String)>> {
    let mut texts = vec![("README.md".to_owned(), report::dataset_card(&card_data(job, finished, written)))];
    if let (Some(label), Some(plan)) = (&job.dataset.label, &job.plan)
        && job.write.formats.contains(&Format::Parquet)
    {
        let side = finished.frame.width.max(finished.frame.height);
        texts.push(("train.py".to_owned(), report::train_py(label, &plan.grouping, side)));
    }
    Ok(texts)
}

fn card_data(job: &Job, finished: &Finished, written: &Written) -> CardData {
    let parquet = |split: &str| -> u64 {
        let mine = written.files.iter().filter(|file| file.split == split && file.path.ends_with(".parquet"));
        mine.map(|file| file.bytes).sum()
    };
    let splits = written
        .splits
        .iter()
        .map(|(name, rows)| CardSplit {
            name: name.clone(),
            num_bytes: parquet(name),
            num_examples: *rows,
            generated: if name == "train" { written.rows_generated } else { 0 },
            files: format!("data/{name}-*"),
        })
        .collect();
    let features = written
        .features
        .iter()
        .filter_map(|(name, feature)| {
            let kind = match feature {
                Feature::Image => report::FeatureKind::Image,
                Feature::ClassLabel { names } => report::FeatureKind::ClassLabel(names.clone()),
                Feature::Value { dtype } => report::FeatureKind::Value(dtype.clone()),
                Feature::Other(_) => return None,
            };
            Some(report::Feature { name: name.to_owned(), kind })
        })
        .collect();
    let groups = finished.plan.iter().flat_map(|plan| &plan.output.groups).map(|group| CardGroup {
        values: group.values.clone(),
        before: group.count,
        generated: finished.accepted.iter().filter(|a| a.candidate.request.group == group.values).count() as u64,
    });
    let candidates: usize = finished.rounds.iter().map(|round| round.candidates.len()).sum();
    CardData {
        name: job.name.clone(),
        license: job.write.license.clone(),
        evenset: crate::VERSION.to_owned(),
        seed: job.seed.0,
        source: job.dataset.path.display().to_string(),
        features,
        splits,
        download_size: written.files.iter().filter(|f| f.path.ends_with(".parquet")).map(|file| file.bytes).sum(),
        label: job.dataset.label.clone().unwrap_or_default(),
        grouping: job.plan.as_ref().map(|plan| plan.grouping.clone()).unwrap_or_default(),
        groups: groups.collect(),
        target: finished.target_sentence(),
        generator: finished.model.as_ref().map(|model| model.output.card()).map(|card| CardGenerator {
            model: card.id,
            sha256: card.sha256,
            sampler: card.sampler,
            steps: card.steps,
            guidance: card.guidance,
        }),
        gates: job.verify.gates.iter().map(|gate| gate.name().to_owned()).collect(),
        candidates: candidates as u64,
        accepted: finished.progress.groups.iter().map(|group| group.accepted).sum(),
        evidence: None,
        other_formats: job
            .write
            .formats
            .iter()
            .filter(|&&f| f == Format::Webdataset)
            .map(|_| "webdataset".into())
            .collect(),
    }
}
