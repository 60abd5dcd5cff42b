//! What one trained classifier said about the test images.

use evenset_core::Group;
use serde::{Deserialize, Serialize};

use crate::bootstrap::figures_of;
use crate::{Arm, Metric, Predictions};

/// What one trained classifier said, group by group. Small, so that it can be stored as a unit of its own; every figure
/// and interval comes from these.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ArmRun {
    /// What the classifier was trained on.
    pub arm: Arm,
    /// Which of the seeds, from 0.
    pub seed: u32,
    /// The label's name among the attributes of the groups.
    pub label: String,
    /// Every group that has test images, in the order of [`EvidenceData::groups`](crate::EvidenceData::groups).
    pub groups: Vec<GroupOutcome>,
    /// [`Metric::Accuracy`].
    pub accuracy: f64,
    /// [`Metric::BalancedAccuracy`].
    pub balanced_accuracy: f64,
    /// [`Metric::WorstGroup`], of the groups that count (see
    /// [`EvidenceConfig::smallest_group`](crate::EvidenceConfig::smallest_group)).
    pub worst_group: f64,
    /// [`Metric::Gap`] of the groups that count.
    pub gap: f64,
    /// [`Metric::EqualisedOdds`] of the groups that count.
    pub equalised_odds: f64,
    /// [`Metric::CalibrationError`].
    pub calibration_error: f64,
    /// Real images that it was trained on.
    pub real_images: u32,
    /// Generated images that it was trained on.
    pub generated_images: u32,
    /// Real images by which the best step was chosen; 0 where the last step was kept.
    pub validation_images: u32,
    /// The step that was kept, if it was chosen.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kept_step: Option<u32>,
    /// What a reader must know to read the figures rightly, as a sentence.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
}

/// What one classifier said about the images of one group.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GroupOutcome {
    /// The group.
    pub group: Group,
    /// Whether the group is large enough to be the worst group.
    pub counts: bool,
    /// What it said about each test image of the group, in the order of the test part.
    pub predictions: Predictions,
}

impl GroupOutcome {
    /// Test images classified rightly.
    pub fn correct(&self) -> usize {
        self.predictions.correct()
    }

    /// Test images.
    pub fn total(&self) -> usize {
        self.predictions.len()
    }

    /// Share of the group's test images classified rightly.
    pub fn accuracy(&self) -> f64 {
        self.correct() as f64 / self.total().max(1) as f64
    }
}

impl ArmRun {
    /// A run with its figures, to twelve digits; the numbers of images are zero.
    pub fn new(arm: Arm, seed: u32, label: &str, groups: Vec<GroupOutcome>) -> Self {
        let mut run = Self {
            arm,
            seed,
            label: label.to_owned(),
            groups,
            accuracy: 0.0,
            balanced_accuracy: 0.0,
            worst_group: 0.0,
            gap: 0.0,
            equalised_odds: 0.0,
            calibration_error: 0.0,
            real_images: 0,
            generated_images: 0,
            validation_images: 0,
            kept_step: None,
            note: None,
        };
        let figures = figures_of(&run);
        // So many digits are read back as they were written, whoever reads them.
        let figure = |metric| (figures.get(metric) * 1e12).round() / 1e12;
        run.accuracy = figure(Metric::Accuracy);
        run.balanced_accuracy = figure(Metric::BalancedAccuracy);
        run.worst_group = figure(Metric::WorstGroup);
        run.gap = figure(Metric::Gap);
        run.equalised_odds = figure(Metric::EqualisedOdds);
        run.calibration_error = figure(Metric::CalibrationError);
        run
    }
}

#[cfg(test)]
mod tests {
    use crate::testing::run;

    #[test]
    fn the_figures_are_what_counting_by_hand_gives() {
        let said = |right: usize, all: usize| -> Vec<(u32, u32, f32)> {
            (0..all).map(|i| (0, u32::from(i >= right), 1.0)).collect()
        };
        let (red, blue, tiny) = (said(3, 4), said(1, 2), said(0, 1));
        let groups =
            [(&[("colour", "red")][..], &red[..]), (&[("colour", "blue")], &blue), (&[("colour", "tiny")], &tiny)];
        let all = run(&groups);
        assert_eq!((all.worst_group, all.gap), (0.0, 0.75));
        assert!((all.accuracy - 4.0 / 7.0).abs() < 1e-11);
        assert!((all.balanced_accuracy - 1.25 / 3.0).abs() < 1e-11);
        // Always sure, right in four of seven.
        assert!((all.calibration_error - 3.0 / 7.0).abs() < 1e-11);
        // Class 0 is recognised in 3/4 of the red and in none of the tiny.
        assert!((all.equalised_odds - 0.75).abs() < 1e-11);
        let mut small = all.groups.clone();
        small[2].counts = false;
        let large = super::ArmRun::new(all.arm, 0, "label", small);
        assert_eq!((large.worst_group, large.gap), (0.5, 0.25), "tiny is not the worst");
        assert_eq!(large.accuracy, all.accuracy);
        assert!((large.equalised_odds - 0.25).abs() < 1e-11);
    }
}
