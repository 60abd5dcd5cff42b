//! Intervals by a bootstrap over test images and seeds together.
//!
//! Two things are random: which images happen to be in the test part, and the seed of each training run. Every resample
//! draws both, with replacement: images within their group (group sizes stay as they are), and seeds. Arms share the
//! draws, so differences between arms are paired. Resampling the two factors independently is the *pigeonhole
//! bootstrap* (Owen, 2007, "The pigeonhole bootstrap").
//!
//! There are many images, but only a handful of seeds. A bootstrap of *n* values takes their spread as known and a factor
//! `sqrt((n - 1) / n)` too small, so that its intervals of five seeds miss the truth in every sixth case. What a resample
//! draws of the seeds is therefore moved away from their mean by `sqrt(n / (n - 1))` times the ratio of Student's t with
//! `n - 1` degrees of freedom to the normal quantile ([`seed_weights`]): where the seeds alone vary, the interval is then
//! that of the t-test.
//!
//! The worst group is a minimum over noisy groups, so it is biased downwards, the more so the more groups are about
//! equally bad; a resample adds the same bias once more. The gap, the equalised-odds difference and the calibration error
//! are biased upwards in the same way. Intervals are therefore *basic* bootstrap intervals (Davison and Hinkley, 1997,
//! "Bootstrap Methods and their Application", section 5.2.1), `[2t - q_high, 2t - q_low]`, which turn the bias around
//! instead of doubling it, and are stretched to hold the estimate itself where the bias is larger than the noise.

use evenset_core::Seed;
use rand::RngExt;
use rayon::prelude::*;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::ArmRun;
use crate::metrics::{BINS, Figures, Layout, bin};
use crate::student::t_to_normal;

/// Lower and upper end.
pub type Interval = [f64; 2];

/// A value with its 95 % interval.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Estimate {
    /// The value that was measured.
    pub value: f64,
    /// Its 95 % interval.
    pub interval: Interval,
}

/// How often the test is drawn again.
const RESAMPLES: u64 = 2000;
/// Share of the resamples below the lower and above the upper end: 95 % intervals.
const TAIL: f64 = 0.025;
/// Draws depend on the number of images and seeds alone, never on the job.
const SEED: Seed = Seed(0x6576_656e_7365_7421);

/// What every run said about every image, arranged for resampling.
#[derive(Debug)]
pub(crate) struct Sample {
    layout: Layout,
    /// `[image][arm][seed]`.
    entries: Vec<Entry>,
    arms: usize,
    seeds: usize,
}

/// What one run said about one image.
#[derive(Clone, Copy, Debug, Default)]
struct Entry {
    /// Where it is counted: the slot, times the runs, plus the run.
    place: u32,
    /// Right (65535) or wrong (0) less the confidence in 65535ths, times 16, plus the bin of the confidence.
    miss_and_bin: i32,
}

/// The figures of the arms, means over the seeds.
#[derive(Clone, Debug, Default)]
pub(crate) struct ArmFigures {
    /// `[arm]`.
    pub(crate) figures: Vec<Figures>,
    /// `[arm][group]`; as many resamples of many groups as there are want short numbers.
    pub(crate) per_group: Vec<f32>,
}

impl Sample {
    /// From runs in the order `[arm][seed]`, all over the same groups of the same sizes.
    pub(crate) fn new(runs: &[Vec<&ArmRun>]) -> Self {
        let seeds = runs.first().map_or(0, Vec::len);
        let columns: Vec<&ArmRun> = runs.iter().flatten().copied().collect();
        let Some(first) = columns.first() else {
            let layout = Layout { parts: vec![], cells: vec![], cell_of: vec![], classes: 0, attributes: 0 };
            return Self { layout, entries: Vec::new(), arms: 0, seeds: 0 };
        };
        let layout = Layout::of(first);
        let mut entries = vec![Entry::default(); layout.cell_of.len() * columns.len()];
        for (column, run) in columns.iter().enumerate() {
            for (part, group) in layout.parts.iter().zip(&run.groups) {
                for (image, &[label, predicted, confidence]) in part.images.clone().zip(group.predictions.rows()) {
                    let slot = layout.slot(layout.cell_of[image] as usize, part.counts, usize::from(predicted));
                    let miss = i32::from(label == predicted) * 65535 - i32::from(confidence);
                    entries[image * columns.len() + column] = Entry {
                        place: (slot * columns.len() + column) as u32,
                        miss_and_bin: miss * 16 + bin(confidence) as i32,
                    };
                }
            }
        }
        Self { layout, entries, arms: runs.len(), seeds }
    }

    /// How many groups there are.
    pub(crate) fn groups(&self) -> usize {
        self.layout.parts.len()
    }

    /// The figures of every arm as they were measured.
    pub(crate) fn observed(&self) -> ArmFigures {
        self.figures(&vec![1.0 / self.seeds.max(1) as f64; self.seeds], &vec![1; self.layout.cell_of.len()])
    }

    /// The figures of every arm in each resample.
    pub(crate) fn resampled(&self) -> Vec<ArmFigures> {
        let resample = |resample: u64| {
            let mut rng = SEED.index(resample).rng();
            let seeds = seed_weights(self.seeds, &mut rng);
            let mut images = vec![0; self.layout.cell_of.len()];
            for part in &self.layout.parts {
                let images = &mut images[part.images.clone()];
                let number = images.len() as u32;
                (0..number).for_each(|_| images[rng.random_range(0..number) as usize] += 1);
            }
            self.figures(&seeds, &images)
        };
        (0..RESAMPLES).into_par_iter().map(resample).collect()
    }

    /// The figures where each seed has this weight and each image comes as often as said.
    fn figures(&self, seeds: &[f64], images: &[u32]) -> ArmFigures {
        let (columns, layout) = (self.arms * self.seeds, &self.layout);
        let mut cells = vec![0.0; layout.cells.len()];
        // [slot][arm][seed] and [bin][arm][seed]
        let mut slots = vec![0u32; layout.slots() * columns];
        let mut bins = vec![0i64; BINS * columns];
        for ((&times, entries), &cell) in
            images.iter().zip(self.entries.chunks_exact(columns.max(1))).zip(&layout.cell_of)
        {
            if times == 0 {
                continue;
            }
            cells[cell as usize] += f64::from(times);
            for (column, entry) in entries.iter().enumerate() {
                slots[entry.place as usize] += times;
                let (miss, bin) = (entry.miss_and_bin >> 4, (entry.miss_and_bin & 15) as usize);
                bins[bin * columns + column] += i64::from(miss) * i64::from(times);
            }
        }
        let mut per_group = vec![0f64; self.groups()];
        let mut found = ArmFigures::default();
        for arm in 0..self.arms {
            let mut mean = Figures::default();
            let mut group_means = vec![0.0; self.groups()];
            for (seed, &weight) in seeds.iter().enumerate() {
                let column = arm * self.seeds + seed;
                let slot = |slot: usize| f64::from(slots[slot * columns + column]);
                let bin = |bin: usize| bins[bin * columns + column] as f64 / 65535.0;
                let figures = layout.figures(&cells, slot, bin, &mut per_group);
                mean.0.iter_mut().zip(figures.0).for_each(|(mean, value)| *mean += weight * value);
                group_means.iter_mut().zip(&per_group).for_each(|(mean, value)| *mean += weight * value);
            }
            found.figures.push(mean);
            found.per_group.extend(group_means.iter().map(|&mean| mean as f32));
        }
        found
    }
}

/// What each of so many seeds weighs in a resample: how often it was drawn, its distance to the equal share stretched to
/// what so few seeds leave open. The weights sum to one; those of seeds that were not drawn may be negative.
fn seed_weights(seeds: usize, rng: &mut impl RngExt) -> Vec<f64> {
    let mut times = vec![0u32; seeds];
    (0..seeds).for_each(|_| times[rng.random_range(0..seeds)] += 1);
    let number = seeds as f64;
    let stretch = if seeds > 1 { (number / (number - 1.0)).sqrt() * t_to_normal(seeds - 1) } else { 1.0 };
    times.iter().map(|&times| (1.0 + stretch * (f64::from(times) - 1.0)) / number).collect()
}

/// The figures of a single run.
pub(crate) fn figures_of(run: &ArmRun) -> Figures {
    Sample::new(&[vec![run]]).observed().figures.first().copied().unwrap_or_default()
}

/// A value with its basic bootstrap interval: stretched to hold the value, and kept within `range`.
pub(crate) fn estimate(value: f64, mut resampled: Vec<f64>, range: Interval) -> Estimate {
    resampled.sort_unstable_by(f64::total_cmp);
    let (low, high) = (quantile(&resampled, TAIL), quantile(&resampled, 1.0 - TAIL));
    let [floor, ceiling] = range;
    let interval =
        [(2.0 * value - high).min(value).clamp(floor, ceiling), (2.0 * value - low).max(value).clamp(floor, ceiling)];
    Estimate { value, interval }
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
    use crate::Metric;
    use crate::testing::run;

    #[test]
    fn quantiles_are_linear_between_values() {
        assert_eq!(quantile(&[0.0, 1.0, 2.0, 3.0, 4.0], 0.5), 2.0);
        assert_eq!(quantile(&[0.0, 1.0], 0.25), 0.25);
        assert_eq!(quantile(&[], 0.5), 0.0);
    }

    #[test]
    fn an_interval_turns_the_bias_around_and_holds_the_estimate() {
        let values = |from: f64| (0..=1000).map(|i| from + f64::from(i) * 1e-4).collect::<Vec<_>>();
        let interval = |value, values| estimate(value, values, [0.0, 1.0]).interval;
        let [low, high] = interval(0.55, values(0.5));
        assert!((low - 0.5025).abs() < 1e-9 && (high - 0.5975).abs() < 1e-9, "symmetric stays as it is");
        let [low, high] = interval(0.62, values(0.5));
        assert!((low - 0.62).abs() < 1e-9 && (high - 0.7375).abs() < 1e-9, "resamples below: the truth lies above");
        assert_eq!(interval(1.0, values(0.5)), [1.0, 1.0]);
    }

    #[test]
    fn weights_of_seeds_sum_to_one_and_spread_as_students_t_asks() {
        // The weights of five seeds: variance (1 - 1 / 5) / 5 / 5 by the bootstrap, times 5 / 4 and (2.776 / 1.960)^2.
        let weights: Vec<Vec<f64>> = (0..20_000).map(|i| seed_weights(5, &mut Seed(4).index(i).rng())).collect();
        assert!(weights.iter().all(|weights| (weights.iter().sum::<f64>() - 1.0).abs() < 1e-12));
        let squares: f64 = weights.iter().flatten().map(|weight| (weight - 0.2).powi(2)).sum();
        let variance = squares / (5.0 * weights.len() as f64);
        assert!((variance - 0.04 * (2.776f64 / 1.960).powi(2)).abs() < 0.002, "{variance}");
        assert_eq!(seed_weights(1, &mut Seed(4).rng()), [1.0]);
    }

    #[test]
    fn where_the_seeds_alone_vary_a_difference_that_is_none_is_seldom_seen() {
        // Groups of one image leave the draws of images nothing to vary: only the luck of the five trainings is left.
        const GROUPS: usize = 40;
        let trainings = 400u64;
        let lucky_run = |luck: f32| {
            let right = (20.0 + 4.0 * luck).round() as usize;
            let said: Vec<[(u32, u32, f32); 1]> = (0..GROUPS).map(|i| [(0, u32::from(i >= right), 0.9)]).collect();
            let names: Vec<String> = (0..GROUPS).map(|i| i.to_string()).collect();
            let pairs: Vec<[(&str, &str); 1]> = names.iter().map(|name| [("group", name.as_str())]).collect();
            run(&pairs.iter().zip(&said).map(|(pairs, said)| (&pairs[..], &said[..])).collect::<Vec<_>>())
        };
        let seen = (0..trainings).filter(|&number| {
            let runs: Vec<ArmRun> = Seed(12).index(number).normal(10).into_iter().map(lucky_run).collect();
            let arms: Vec<Vec<&ArmRun>> = runs.chunks(5).map(|runs| runs.iter().collect()).collect();
            let sample = Sample::new(&arms);
            let difference = |figures: &ArmFigures| {
                figures.figures[1].get(Metric::Accuracy) - figures.figures[0].get(Metric::Accuracy)
            };
            let (observed, resampled) = (difference(&sample.observed()), sample.resampled());
            let [low, high] = estimate(observed, resampled.iter().map(difference).collect(), [-1.0, 1.0]).interval;
            low > 0.0 || high < 0.0
        });
        // 5 % of 400 are 20, with a standard error of 4.4; without the stretch of the seeds they would be about 60.
        let seen = seen.count();
        assert!((8..=32).contains(&seen), "{seen} of {trainings}");
    }

    #[test]
    fn the_interval_of_a_share_is_as_wide_as_the_binomial_says() {
        // One arm, one seed, 400 images, 300 right: standard error sqrt(0.75 * 0.25 / 400) = 0.02165.
        let rows: Vec<(u32, u32, f32)> = (0..400).map(|i| (0, u32::from(i % 4 == 0), 0.9)).collect();
        let run = run(&[(&[("colour", "red")], &rows)]);
        let sample = Sample::new(&[vec![&run]]);
        let accuracy = |figures: &ArmFigures| figures.figures[0].get(Metric::Accuracy);
        let observed = accuracy(&sample.observed());
        assert_eq!(observed, 0.75);
        let [low, high] = estimate(observed, sample.resampled().iter().map(accuracy).collect(), [0.0, 1.0]).interval;
        assert!((low - (0.75 - 1.96 * 0.02165)).abs() < 0.006, "{low}");
        assert!((high - (0.75 + 1.96 * 0.02165)).abs() < 0.006, "{high}");
    }
}
