//! Estimates, intervals and comparisons of the arms of a table.

use rayon::prelude::*;

use crate::bootstrap::{ArmFigures, Estimate, Interval, Sample, estimate};
use crate::paired::sign_flip;
use crate::summary::{ArmSummary, Comparison, GroupSummary};
use crate::table::Table;
use crate::{Arm, Metric};

const SHARE: Interval = [0.0, 1.0];
const DIFFERENCE: Interval = [-1.0, 1.0];

/// A table with its figures and their resamples.
pub(crate) struct Analysis<'a> {
    table: &'a Table<'a>,
    observed: ArmFigures,
    resampled: Vec<ArmFigures>,
    groups: usize,
}

impl<'a> Analysis<'a> {
    pub(crate) fn new(table: &'a Table<'a>) -> Self {
        let sample = Sample::new(&table.runs);
        Self { table, observed: sample.observed(), resampled: sample.resampled(), groups: sample.groups() }
    }

    /// What every resample makes of the figures, beside what was measured.
    fn over(&self, range: Interval, value: impl Fn(&ArmFigures) -> f64) -> Estimate {
        estimate(value(&self.observed), self.resampled.iter().map(&value).collect(), range)
    }

    /// A figure of an arm.
    pub(crate) fn figure(&self, arm: usize, metric: Metric) -> Estimate {
        self.over(SHARE, |figures| figures.figures[arm].get(metric))
    }

    /// How much an arm's figure exceeds another's.
    pub(crate) fn difference(&self, arm: usize, other: usize, metric: Metric) -> Estimate {
        self.over(DIFFERENCE, |figures| figures.figures[arm].get(metric) - figures.figures[other].get(metric))
    }

    /// The summaries of all arms. `best` is the best baseline.
    pub(crate) fn arms(&self, best: usize) -> Vec<ArmSummary> {
        (0..self.table.arms.len()).into_par_iter().map(|arm| self.arm(arm, best)).collect()
    }

    fn arm(&self, arm: usize, best: usize) -> ArmSummary {
        let figure = |metric| self.figure(arm, metric);
        let [accuracy, balanced_accuracy, worst_group, gap, odds, calibration] = Metric::ALL.map(figure);
        let runs = &self.table.runs[arm];
        let groups = runs.first().map_or(&[][..], |run| &run.groups);
        let per_group = groups.iter().enumerate().map(|(g, group)| {
            // Resamples are kept as short numbers, the measured value is not.
            let right: usize = runs.iter().map(|run| run.groups[g].correct()).sum();
            let accuracy = right as f64 / (group.total() * runs.len()).max(1) as f64;
            let values = self.resampled.iter().map(|of| f64::from(of.per_group[arm * self.groups + g])).collect();
            let interval = estimate(accuracy, values, SHARE).interval;
            GroupSummary { group: group.group.clone(), accuracy, interval, total: group.total() as u32 }
        });
        let name = self.table.arms[arm];
        let generated = !name.is_baseline();
        ArmSummary {
            name,
            accuracy: accuracy.value,
            accuracy_interval: accuracy.interval,
            balanced_accuracy: balanced_accuracy.value,
            balanced_accuracy_interval: balanced_accuracy.interval,
            worst_group: worst_group.value,
            worst_group_interval: worst_group.interval,
            gap: gap.value,
            gap_interval: gap.interval,
            equalised_odds: odds.value,
            equalised_odds_interval: odds.interval,
            calibration_error: calibration.value,
            calibration_error_interval: calibration.interval,
            per_group: per_group.collect(),
            real_images: runs.first().map_or(0, |run| run.real_images),
            generated_images: runs.first().map_or(0, |run| run.generated_images),
            against_best_baseline: (arm != best)
                .then(|| self.compare(arm, if generated { self.baselines() } else { vec![best] })),
            note: runs.iter().find_map(|run| run.note.clone()),
        }
    }

    /// The arms on real images alone.
    pub(crate) fn baselines(&self) -> Vec<usize> {
        (0..self.table.arms.len()).filter(|&arm| self.table.arms[arm].is_baseline()).collect()
    }

    /// The place of an arm; the table was made to hold it.
    pub(crate) fn place(&self, arm: Arm) -> usize {
        self.table.arms.iter().position(|&known| known == arm).unwrap_or_default()
    }

    /// The best of `others` by worst group; of equally good ones the first: a later one must be better to replace it.
    pub(crate) fn best(&self, others: &[usize]) -> usize {
        best(&self.observed, others)
    }

    /// An arm against the best of `others`, for the worst group chosen afresh in every resample.
    pub(crate) fn compare(&self, arm: usize, others: Vec<usize>) -> Comparison {
        let with = self.best(&others);
        let [accuracy, balanced_accuracy, _, gap, odds, calibration] =
            Metric::ALL.map(|metric| self.difference(arm, with, metric));
        let worst_group = self.over(DIFFERENCE, |figures| {
            let worst = |arm: usize| figures.figures[arm].get(Metric::WorstGroup);
            worst(arm) - worst(best(figures, &others))
        });
        let p = sign_flip(&self.table.runs[arm], &self.table.runs[with]);
        Comparison {
            with: self.table.arms[with],
            worst_group: worst_group.value,
            worst_group_interval: worst_group.interval,
            worst_group_p: p.worst_group,
            accuracy: accuracy.value,
            accuracy_interval: accuracy.interval,
            accuracy_p: p.accuracy,
            balanced_accuracy: balanced_accuracy.value,
            balanced_accuracy_interval: balanced_accuracy.interval,
            gap: gap.value,
            gap_interval: gap.interval,
            equalised_odds: odds.value,
            equalised_odds_interval: odds.interval,
            calibration_error: calibration.value,
            calibration_error_interval: calibration.interval,
        }
    }
}

fn best(figures: &ArmFigures, arms: &[usize]) -> usize {
    let worst_group = |arm: usize| figures.figures[arm].get(Metric::WorstGroup);
    arms.iter().copied().reduce(|a, b| if worst_group(b) > worst_group(a) { b } else { a }).unwrap_or_default()
}
