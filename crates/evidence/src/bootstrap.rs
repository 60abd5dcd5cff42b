//! Intervals by a bootstrap over test images and seeds together.
//!
//! Two things are random: which images happen to be in the test part, and the seed of each training run. Every resample
//! draws both, with replacement: images within their group (group sizes stay as they are), and seeds. Arms share the
//! draws, so differences between arms are paired. Resampling the two factors independently is the *pigeonhole
//! bootstrap* (Owen, 2007, "The pigeonhole bootstrap"), which errs on the wide side.
//!
//! The worst group is a minimum over noisy groups, so it is biased downwards, the more so the more groups are about
//! equally bad; a resample adds the same bias once more. Intervals are therefore *basic* bootstrap intervals (Davison
//! and Hinkley, 1997, "Bootstrap Methods and their Application", section 5.2.1), `[2t - q_high, 2t - q_low]`, which
//! turn the bias around instead of doubling it, and are stretched to hold the estimate itself where the bias is larger
//! than the noise.

use evenset_core::Seed;
use rand::RngExt;
use rayon::prelude::*;

use crate::ArmRun;
use crate::arm::Figures;

/// Lower and upper end.
pub type Interval = [f64; 2];

/// How often the test is drawn again.
const RESAMPLES: u64 = 2000;
/// Share of the resamples below the lower and above the upper end: 95 % intervals.
const TAIL: f64 = 0.025;
/// Draws depend on the number of images and seeds alone, never on the job.
const SEED: Seed = Seed(0x6576_656e_7365_7421);

/// The outcomes of every run, arranged for resampling.
#[derive(Debug)]
pub(crate) struct Outcomes {
    groups: Vec<GroupOutcomes>,
    arms: usize,
    seeds: usize,
}

#[derive(Debug)]
struct GroupOutcomes {
    /// Right (1) or wrong (0), `[image][arm][seed]`.
    right: Vec<u8>,
    images: u32,
    counts: bool,
}

/// The figures of one arm, means over the seeds.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct ArmFigures {
    pub(crate) figures: Figures,
    pub(crate) per_group: Vec<f64>,
}

impl Outcomes {
    /// From runs in the order `[arm][seed]`, all over the same groups of the same sizes.
    pub(crate) fn new(runs: &[Vec<&ArmRun>]) -> Self {
        let seeds = runs.first().map_or(0, Vec::len);
        let columns: Vec<&ArmRun> = runs.iter().flatten().copied().collect();
        let groups = columns.first().map_or(&[][..], |run| &run.groups);
        let groups = groups
            .iter()
            .enumerate()
            .map(|(g, group)| {
                let mut right = vec![0; group.outcomes.len() * columns.len()];
                for (column, run) in columns.iter().enumerate() {
                    for (image, outcome) in run.groups[g].outcomes.iter().enumerate() {
                        right[image * columns.len() + column] = u8::from(outcome);
                    }
                }
                GroupOutcomes { right, images: group.outcomes.len() as u32, counts: group.counts }
            })
            .collect();
        Self { groups, arms: runs.len(), seeds }
    }

    /// The figures of every arm as they were measured.
    pub(crate) fn observed(&self) -> Vec<ArmFigures> {
        let seeds: Vec<usize> = (0..self.seeds).collect();
        self.figures(&seeds, |group| group.images_in_order())
    }

    /// The figures of every arm in each resample, `[resample][arm]`.
    pub(crate) fn resampled(&self) -> Vec<Vec<ArmFigures>> {
        (0..RESAMPLES)
            .into_par_iter()
            .map(|resample| {
                let mut rng = SEED.index(resample).rng();
                let seeds: Vec<usize> = (0..self.seeds).map(|_| rng.random_range(0..self.seeds)).collect();
                self.figures(&seeds, |group| (0..group.images).map(|_| rng.random_range(0..group.images)).collect())
            })
            .collect()
    }

    /// The figures over the runs of `seeds` and, for each group, the images that `drawn` gives.
    fn figures(&self, seeds: &[usize], mut drawn: impl FnMut(&GroupOutcomes) -> Vec<u32>) -> Vec<ArmFigures> {
        let columns = self.arms * self.seeds;
        // [group][arm][seed]
        let counts: Vec<Vec<u32>> = self.groups.iter().map(|group| group.count(&drawn(group), columns)).collect();
        let mean = |values: &mut dyn Iterator<Item = f64>| values.sum::<f64>() / seeds.len() as f64;
        (0..self.arms)
            .map(|arm| {
                let right = |g: usize, seed: usize| f64::from(counts[g][arm * self.seeds + seed]);
                let runs: Vec<Figures> = seeds
                    .iter()
                    .map(|&seed| {
                        let groups = self.groups.iter().enumerate();
                        Figures::of(groups.map(|(g, group)| (right(g, seed), group.images, group.counts)))
                    })
                    .collect();
                let figures = Figures {
                    accuracy: mean(&mut runs.iter().map(|run| run.accuracy)),
                    balanced_accuracy: mean(&mut runs.iter().map(|run| run.balanced_accuracy)),
                    worst_group: mean(&mut runs.iter().map(|run| run.worst_group)),
                    gap: mean(&mut runs.iter().map(|run| run.gap)),
                };
                let per_group = self.groups.iter().enumerate();
                let per_group = per_group
                    .map(|(g, group)| mean(&mut seeds.iter().map(|&seed| right(g, seed) / f64::from(group.images))))
                    .collect();
                ArmFigures { figures, per_group }
            })
            .collect()
    }
}

impl GroupOutcomes {
    fn images_in_order(&self) -> Vec<u32> {
        (0..self.images).collect()
    }

    /// How many of the drawn images each run got right.
    fn count(&self, drawn: &[u32], columns: usize) -> Vec<u32> {
        let mut counts = vec![0; columns];
        for &image in drawn {
            let row = &self.right[image as usize * columns..][..columns];
            counts.iter_mut().zip(row).for_each(|(count, &right)| *count += u32::from(right));
        }
        counts
    }
}

/// The basic bootstrap interval of an estimate from its resampled values, stretched to hold the estimate and kept within
/// `range`.
pub(crate) fn interval(estimate: f64, mut resampled: Vec<f64>, range: Interval) -> Interval {
    resampled.sort_by(f64::total_cmp);
    let (low, high) = (quantile(&resampled, TAIL), quantile(&resampled, 1.0 - TAIL));
    let [floor, ceiling] = range;
    [
        (2.0 * estimate - high).min(estimate).clamp(floor, ceiling),
        (2.0 * estimate - low).max(estimate).clamp(floor, ceiling),
    ]
}

/// The `p` quantile of sorted values, linear between them; 0 for none.
fn quantile(sorted: &[f64], p: f64) -> f64 {
    let at = p * sorted.len().saturating_sub(1) as f64;
    let (below, above) = (at.floor() as usize, at.ceil() as usize);
    match (sorted.get(below), sorted.get(above)) {
        (Some(&below), Some(&above)) => below + (above - below) * at.fract(),
        _ => 0.0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_linear_between_values() {
        assert_eq!(quantile(&[0.0, 1.0, 2.0, 3.0, 4.0], 0.5), 2.0);
        assert_eq!(quantile(&[0.0, 1.0], 0.25), 0.25);
        assert_eq!(quantile(&[], 0.5), 0.0);
    }

    #[test]
    fn an_interval_turns_the_bias_around_and_holds_the_estimate() {
        let values = |from: f64| (0..=1000).map(|i| from + f64::from(i) * 1e-4).collect::<Vec<_>>();
        let [low, high] = interval(0.55, values(0.5), [0.0, 1.0]);
        assert!((low - 0.5025).abs() < 1e-9 && (high - 0.5975).abs() < 1e-9, "symmetric stays as it is");
        let [low, high] = interval(0.62, values(0.5), [0.0, 1.0]);
        assert!((low - 0.62).abs() < 1e-9 && (high - 0.7375).abs() < 1e-9, "resamples below: the truth lies above");
        assert_eq!(interval(1.0, values(0.5), [0.0, 1.0]), [1.0, 1.0]);
    }

    #[test]
    fn the_interval_of_a_share_is_as_wide_as_the_binomial_says() {
        // One arm, one seed, 400 images, 300 right: standard error sqrt(0.75 * 0.25 / 400) = 0.02165.
        let right: Vec<u8> = (0..400).map(|i| u8::from(i % 4 != 0)).collect();
        let outcomes = Outcomes { groups: vec![GroupOutcomes { right, images: 400, counts: true }], arms: 1, seeds: 1 };
        let observed = outcomes.observed()[0].figures.accuracy;
        assert_eq!(observed, 0.75);
        let resampled = outcomes.resampled().iter().map(|arms| arms[0].figures.accuracy).collect();
        let [low, high] = interval(observed, resampled, [0.0, 1.0]);
        assert!((low - (0.75 - 1.96 * 0.02165)).abs() < 0.006, "{low}");
        assert!((high - (0.75 + 1.96 * 0.02165)).abs() < 0.006, "{high}");
    }
}
