//! All runs put together: means, intervals, the comparison that counts, and the verdict.

use evenset_core::Group;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::analysis::Analysis;
use crate::bootstrap::Interval;
use crate::sentence::sentence;
use crate::table::Table;
use crate::{Arm, ArmRun, Error};

/// With fewer seeds there is no verdict but *no difference seen*: intervals take the luck of training to be about normal, and
/// so few trainings do not show whether it is.
pub const SEEDS_FOR_A_VERDICT: usize = 5;

/// Whether balancing changed the accuracy in the worst group, against the best baseline.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Verdict {
    /// The interval of the difference lies above zero.
    Helped,
    /// The interval of the difference holds zero, or there are fewer than [`SEEDS_FOR_A_VERDICT`] seeds, or no generated
    /// image.
    NoDifference,
    /// The interval of the difference lies below zero.
    Harmed,
}

/// What the runs show.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Evidence {
    /// The verdict over the best baseline.
    pub verdict: Verdict,
    /// The verdict in words, with the figures behind it.
    pub sentence: String,
    /// How many classifiers were trained for each arm.
    pub seeds: usize,
    /// Number of real test images.
    pub test_images: usize,
    /// The arms: `as-is` first, the other baselines, and those with generated images.
    pub arms: Vec<ArmSummary>,
    /// `balanced` against the baseline with the highest mean worst-group accuracy.
    pub against_best_baseline: Comparison,
    /// `balanced` against `as-is`.
    pub against_as_is: Comparison,
}

/// The figures of one arm: means over its seeds. A worst group is found for each seed by itself, since a user trains one
/// classifier, and the mean is taken over those minima; likewise for the other figures. Each has a 95 % interval.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ArmSummary {
    /// The arm.
    pub name: Arm,
    /// Share of all test images classified rightly.
    pub accuracy: f64,
    /// Interval of `accuracy`.
    pub accuracy_interval: Interval,
    /// Mean of the groups' accuracies.
    pub balanced_accuracy: f64,
    /// Interval of `balanced_accuracy`.
    pub balanced_accuracy_interval: Interval,
    /// Accuracy in the group with the lowest. A minimum over noisy groups lies below the lowest true accuracy.
    pub worst_group: f64,
    /// Interval of `worst_group`, turned around to allow for that bias.
    pub worst_group_interval: Interval,
    /// Highest minus lowest accuracy of a group.
    pub gap: f64,
    /// Interval of `gap`.
    pub gap_interval: Interval,
    /// [`Metric::EqualisedOdds`](crate::Metric::EqualisedOdds).
    pub equalised_odds: f64,
    /// Interval of `equalised_odds`.
    pub equalised_odds_interval: Interval,
    /// [`Metric::CalibrationError`](crate::Metric::CalibrationError).
    pub calibration_error: f64,
    /// Interval of `calibration_error`.
    pub calibration_error_interval: Interval,
    /// Every group with test images.
    pub per_group: Vec<GroupSummary>,
    /// Real images that each of its classifiers was trained on.
    pub real_images: u32,
    /// Generated images that each of its classifiers was trained on.
    pub generated_images: u32,
    /// This arm less the best baseline; none for the best baseline itself.
    pub against_best_baseline: Option<Comparison>,
    /// What a reader must know to read the figures rightly, as a sentence.
    pub note: Option<String>,
}

/// The accuracy of one arm in one group.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct GroupSummary {
    /// The group.
    pub group: Group,
    /// Mean accuracy over the seeds.
    pub accuracy: f64,
    /// Its 95 % interval.
    pub interval: Interval,
    /// Number of test images.
    pub total: u32,
}

/// An arm less another one, paired by test image and seed: differences of the means over the seeds, with 95 % intervals.
/// Above zero, the arm is better in accuracy and worse in gap, equalised odds and calibration.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Comparison {
    /// The arm compared with.
    pub with: Arm,
    /// Difference of the worst-group accuracies.
    pub worst_group: f64,
    /// Its interval. Where an arm with generated images is compared with the best baseline, every resample picks its own
    /// best one, so that picking the best of several is paid for.
    pub worst_group_interval: Interval,
    /// Two-sided p of `worst_group`, by swapping what the two arms said about each test image at random, for all seeds
    /// together (a paired permutation test with 1999 draws). It takes the trained classifiers as they are and so leaves
    /// out the luck of training, which the interval holds.
    pub worst_group_p: f64,
    /// Difference of the accuracies.
    pub accuracy: f64,
    /// Its interval.
    pub accuracy_interval: Interval,
    /// The same p of `accuracy`.
    pub accuracy_p: f64,
    /// Difference of the balanced accuracies.
    pub balanced_accuracy: f64,
    /// Its interval.
    pub balanced_accuracy_interval: Interval,
    /// Difference of the gaps.
    pub gap: f64,
    /// Its interval.
    pub gap_interval: Interval,
    /// Difference of the equalised-odds differences.
    pub equalised_odds: f64,
    /// Its interval.
    pub equalised_odds_interval: Interval,
    /// Difference of the calibration errors.
    pub calibration_error: f64,
    /// Its interval.
    pub calibration_error_interval: Interval,
}

/// Puts the runs of all arms and seeds together, in any order.
///
/// The verdict is [`Verdict::Helped`] only where the interval of the worst-group difference to the best baseline lies
/// above zero, and [`Verdict::Harmed`] only where it lies below; with fewer than [`SEEDS_FOR_A_VERDICT`] seeds, or
/// without a generated image, it is neither.
///
/// # Errors
/// [`Error::NoRuns`] or [`Error::MissingRun`] where a run is missing, [`Error::OtherTest`] where the runs were not
/// tested on the same images.
pub fn summarise(runs: &[ArmRun]) -> Result<Evidence, Error> {
    let table = Table::new(runs, &[Arm::AsIs, Arm::Balanced])?;
    let analysis = Analysis::new(&table);
    let baselines = analysis.baselines();
    let balanced = analysis.place(Arm::Balanced);
    let arms = analysis.arms(analysis.best(&baselines));
    let against_as_is = analysis.compare(balanced, vec![analysis.place(Arm::AsIs)]);
    let against_best_baseline = analysis.compare(balanced, baselines);
    // Without a generated image, what is better in the balanced data is their even drawing alone.
    let made = arms.iter().any(|arm| arm.name == Arm::Balanced && arm.generated_images > 0);
    let enough = made && table.seeds() >= SEEDS_FOR_A_VERDICT;
    let verdict = if enough { verdict(against_best_baseline.worst_group_interval) } else { Verdict::NoDifference };
    Ok(Evidence {
        verdict,
        sentence: sentence(verdict, &arms, &against_best_baseline, &against_as_is, table.seeds()),
        seeds: table.seeds(),
        test_images: table.test_images(),
        arms,
        against_best_baseline,
        against_as_is,
    })
}

fn verdict([low, high]: Interval) -> Verdict {
    if low > 0.0 {
        Verdict::Helped
    } else if high < 0.0 {
        Verdict::Harmed
    } else {
        Verdict::NoDifference
    }
}
