//! Figures and distances against fairlearn, scikit-learn, SciPy and NumPy: `tests/golden/evidence/evidence.py`.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use evenset_core::{Group, Seed};
use evenset_evidence::distances::{GroupedFeatures, distances};
use evenset_evidence::{Arm, ArmRun, FeatureSet, GroupOutcome, Predictions};
use serde::Deserialize;

#[derive(Deserialize)]
struct Golden {
    predictions: Vec<Said>,
    features: Vec<Features>,
}

#[derive(Deserialize)]
struct Said {
    classes: usize,
    label: Vec<u32>,
    attribute: Vec<u32>,
    predicted: Vec<u32>,
    confidence: Vec<u32>,
    equalised_odds: f64,
    calibration_error: f64,
}

#[derive(Deserialize)]
struct Features {
    width: usize,
    real: Vec<f32>,
    generated: Vec<f32>,
    frechet: f64,
    kernel: f64,
    precision: f64,
    recall: f64,
}

fn golden() -> Golden {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/golden/evidence/evidence.json");
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}

/// The predictions by groups of label and attribute, or by attribute alone.
fn run(said: &Said, label_in_group: bool) -> ArmRun {
    let mut groups: Vec<GroupOutcome> = Vec::new();
    for (i, (&label, &attribute)) in said.label.iter().zip(&said.attribute).enumerate() {
        let mut group = Group::of("attribute", &attribute.to_string());
        if label_in_group {
            group = group.with("label", &label.to_string());
        }
        let place = groups.iter().position(|known| known.group == group).unwrap_or_else(|| {
            groups.push(GroupOutcome { group, counts: true, predictions: Predictions::new(said.classes) });
            groups.len() - 1
        });
        groups[place].predictions.push(label, said.predicted[i], said.confidence[i] as f32 / 65535.0);
    }
    ArmRun::new(Arm::AsIs, 0, "label", groups)
}

#[test]
fn equalised_odds_are_fairlearns_and_the_calibration_error_is_numpys() {
    for said in golden().predictions {
        for label_in_group in [true, false] {
            let run = run(&said, label_in_group);
            assert!((run.equalised_odds - said.equalised_odds).abs() < 1e-9, "{}", run.equalised_odds);
            assert!((run.calibration_error - said.calibration_error).abs() < 1e-9, "{}", run.calibration_error);
        }
    }
}

#[test]
fn distances_are_those_of_numpy_scipy_and_scikit_learn() {
    for features in golden().features {
        let real = FeatureSet::new(features.width, features.real).unwrap();
        let generated = FeatureSet::new(features.width, features.generated).unwrap();
        let groups = vec![0; real.len().max(generated.len())];
        let groups = &groups;
        let [real, generated] =
            [&real, &generated].map(|features| GroupedFeatures { features, groups: &groups[..features.len()] });
        let found = distances(real, generated, real, &[], Seed(1)).unwrap();
        let found = found[0].generated.as_ref().unwrap();
        let close = |found: Option<f64>, expected: f64| {
            let found = found.unwrap();
            assert!((found - expected).abs() < 1e-8 * expected.abs().max(1.0), "{found} {expected}");
        };
        close(found.frechet, features.frechet);
        close(found.kernel.map(|kernel| kernel.value), features.kernel);
        close(found.precision, features.precision);
        close(found.recall, features.recall);
    }
}
