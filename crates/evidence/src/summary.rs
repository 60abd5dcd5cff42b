//! All runs put together: means, intervals, the comparison that counts, and the verdict in words.

use evenset_core::Group;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::bootstrap::{ArmFigures, Interval, Outcomes, interval};
use crate::{Arm, ArmRun, Error};

/// Fewer seeds than this leave a verdict open to luck; the sentence says so.
const SEEDS_FOR_A_CLAIM: usize = 5;
const SHARE: Interval = [0.0, 1.0];
const DIFFERENCE: Interval = [-1.0, 1.0];

/// Whether balancing changed the accuracy in the worst group, against the best baseline.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Verdict {
    /// The interval of the difference lies above zero.
    Helped,
    /// The interval of the difference holds zero.
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
    /// The arms in the order they were run, `as-is` first and `balanced` last.
    pub arms: Vec<ArmSummary>,
    /// `balanced` against the baseline with the highest mean worst-group accuracy.
    pub against_best_baseline: Comparison,
    /// `balanced` against `as-is`.
    pub against_as_is: Comparison,
}

/// The figures of one arm: means over its seeds. A worst group is found for each seed by itself, since a user trains one
/// classifier, and the mean is taken over those minima.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ArmSummary {
    /// The arm.
    pub name: Arm,
    /// Share of all test images classified rightly.
    pub accuracy: f64,
    /// 95 % interval of `accuracy`.
    pub accuracy_interval: Interval,
    /// Mean of the groups' accuracies.
    pub balanced_accuracy: f64,
    /// Accuracy in the group with the lowest. A minimum over noisy groups lies below the lowest true accuracy.
    pub worst_group: f64,
    /// 95 % interval of `worst_group`, turned around to allow for that bias.
    pub worst_group_interval: Interval,
    /// Highest minus lowest accuracy of a group.
    pub gap: f64,
    /// 95 % interval of `gap`.
    pub gap_interval: Interval,
    /// Every group with test images.
    pub per_group: Vec<GroupSummary>,
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

/// `balanced` minus another arm, paired by test image and seed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Comparison {
    /// The arm compared with.
    pub with: Arm,
    /// Difference of the mean worst-group accuracies; above zero, `balanced` is better.
    pub worst_group: f64,
    /// Its 95 % interval. Against the best baseline every resample picks its own best one, so that picking the best of
    /// several is paid for.
    pub worst_group_interval: Interval,
    /// Difference of the mean accuracies.
    pub accuracy: f64,
    /// Its 95 % interval.
    pub accuracy_interval: Interval,
}

/// Puts the runs of all arms and seeds together, in any order.
///
/// The verdict is [`Verdict::Helped`] only where the interval of the worst-group difference to the best baseline lies
/// above zero, and [`Verdict::Harmed`] only where it lies below.
///
/// # Errors
/// [`Error::NoRuns`] or [`Error::MissingRun`] where a run is missing, [`Error::OtherTest`] where the runs were not
/// tested on the same images.
pub fn summarise(runs: &[ArmRun]) -> Result<Evidence, Error> {
    let table = Table::new(runs)?;
    let outcomes = Outcomes::new(&table.runs);
    let observed = outcomes.observed();
    let resampled = outcomes.resampled();

    let arms: Vec<ArmSummary> =
        (0..table.arms.len()).map(|arm| arm_summary(arm, &table, &observed, &resampled)).collect();
    let balanced = table.arms.len() - 1;
    let baselines: Vec<usize> = (0..balanced).collect();
    let against_as_is = compare(balanced, &[0], &table.arms, &observed, &resampled);
    let against_best_baseline = compare(balanced, &baselines, &table.arms, &observed, &resampled);
    let verdict = match against_best_baseline.worst_group_interval {
        [low, _] if low > 0.0 => Verdict::Helped,
        [_, high] if high < 0.0 => Verdict::Harmed,
        _ => Verdict::NoDifference,
    };
    let seeds = table.runs[0].len();
    Ok(Evidence {
        verdict,
        sentence: sentence(verdict, &arms, &against_best_baseline, &against_as_is, seeds),
        seeds,
        test_images: table.runs[0][0].groups.iter().map(|group| group.total as usize).sum(),
        arms,
        against_best_baseline,
        against_as_is,
    })
}

/// The runs by arm and seed, complete and over the same test images.
struct Table<'a> {
    /// `as-is` first, `balanced` last.
    arms: Vec<Arm>,
    /// `[arm][seed]`.
    runs: Vec<Vec<&'a ArmRun>>,
}

impl<'a> Table<'a> {
    fn new(runs: &'a [ArmRun]) -> Result<Self, Error> {
        let mut arms: Vec<Arm> = runs.iter().map(|run| run.arm).collect();
        arms.sort();
        arms.dedup();
        for needed in [Arm::AsIs, Arm::Balanced] {
            if !arms.contains(&needed) {
                return Err(Error::NoRuns(needed));
            }
        }
        let mut seeds: Vec<u32> = runs.iter().map(|run| run.seed).collect();
        seeds.sort_unstable();
        seeds.dedup();
        let table = arms
            .iter()
            .map(|&arm| {
                let of = |&seed: &u32| runs.iter().find(|run| run.arm == arm && run.seed == seed);
                seeds.iter().map(|seed| of(seed).ok_or(Error::MissingRun { arm, seed: *seed })).collect()
            })
            .collect::<Result<Vec<Vec<_>>, _>>()?;
        let groups_of = |run: &ArmRun| -> Vec<(Group, usize, bool)> {
            run.groups.iter().map(|group| (group.group.clone(), group.outcomes.len(), group.counts)).collect()
        };
        let first = groups_of(table[0][0]);
        if let Some(run) = runs.iter().find(|run| groups_of(run) != first) {
            return Err(Error::OtherTest { arm: run.arm, seed: run.seed });
        }
        Ok(Self { arms, runs: table })
    }
}

fn arm_summary(arm: usize, table: &Table<'_>, observed: &[ArmFigures], resampled: &[Vec<ArmFigures>]) -> ArmSummary {
    let with_interval = |value: &dyn Fn(&ArmFigures) -> f64| {
        let estimate = value(&observed[arm]);
        (estimate, interval(estimate, resampled.iter().map(|arms| value(&arms[arm])).collect(), SHARE))
    };
    let (accuracy, accuracy_interval) = with_interval(&|of| of.figures.accuracy);
    let (worst_group, worst_group_interval) = with_interval(&|of| of.figures.worst_group);
    let (gap, gap_interval) = with_interval(&|of| of.figures.gap);
    let groups = table.runs[arm][0].groups.iter().enumerate();
    let per_group = groups
        .map(|(g, group)| {
            let (accuracy, interval) = with_interval(&|of| of.per_group[g]);
            GroupSummary { group: group.group.clone(), accuracy, interval, total: group.total }
        })
        .collect();
    ArmSummary {
        name: table.arms[arm],
        accuracy,
        accuracy_interval,
        balanced_accuracy: observed[arm].figures.balanced_accuracy,
        worst_group,
        worst_group_interval,
        gap,
        gap_interval,
        per_group,
    }
}

/// `balanced` against the best of `others` by worst group, the best chosen afresh in every resample.
fn compare(
    balanced: usize,
    others: &[usize],
    arms: &[Arm],
    observed: &[ArmFigures],
    resampled: &[Vec<ArmFigures>],
) -> Comparison {
    // Of equally good ones the first: a later one must be better to replace it.
    let best = |figures: &[ArmFigures]| -> usize {
        let worst_group = |arm: usize| figures[arm].figures.worst_group;
        others.iter().copied().reduce(|a, b| if worst_group(b) > worst_group(a) { b } else { a }).unwrap_or(balanced)
    };
    let worst_group =
        |figures: &[ArmFigures]| figures[balanced].figures.worst_group - figures[best(figures)].figures.worst_group;
    let with = best(observed);
    let accuracy = |figures: &[ArmFigures]| figures[balanced].figures.accuracy - figures[with].figures.accuracy;
    let over_resamples = |value: &dyn Fn(&[ArmFigures]) -> f64| {
        interval(value(observed), resampled.iter().map(|figures| value(figures)).collect(), DIFFERENCE)
    };
    Comparison {
        with: arms[with],
        worst_group: worst_group(observed),
        worst_group_interval: over_resamples(&worst_group),
        accuracy: accuracy(observed),
        accuracy_interval: over_resamples(&accuracy),
    }
}

fn sentence(verdict: Verdict, arms: &[ArmSummary], best: &Comparison, as_is: &Comparison, seeds: usize) -> String {
    let worst = |arm: Arm| arms.iter().find(|summary| summary.name == arm).map_or(0.0, |summary| summary.worst_group);
    let found = match verdict {
        Verdict::Helped => "Balancing helped",
        Verdict::NoDifference => "Balancing made no measurable difference over the best baseline",
        Verdict::Harmed => "The balanced data did worse than the best baseline",
    };
    let mut text = format!(
        "{found}: accuracy in the worst group is {:.3} with the balanced data and {:.3} with {}, the best baseline \
         ({}).",
        worst(Arm::Balanced),
        worst(best.with),
        best.with,
        difference(best),
    );
    if best.with == Arm::AsIs {
        text.push_str(" The best baseline is the data as it was.");
    } else {
        let against = format!(" With the data as it was, it is {:.3} ({}).", worst(Arm::AsIs), difference(as_is));
        text.push_str(&against);
    }
    if seeds < SEEDS_FOR_A_CLAIM {
        let plural = if seeds == 1 { "" } else { "s" };
        let caution = format!(" This rests on {seeds} seed{plural}, too few to rule out luck; run at least five.");
        text.push_str(&caution);
    }
    text
}

/// `+0.081, 95 % interval +0.032 to +0.119`.
fn difference(comparison: &Comparison) -> String {
    let [low, high] = comparison.worst_group_interval;
    format!("{:+.3}, 95 % interval {low:+.3} to {high:+.3}", comparison.worst_group)
}
