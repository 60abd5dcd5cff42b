//! How the figures grow with the share of the generated images, and where they stop growing.

use serde::{Deserialize, Serialize};

use crate::analysis::Analysis;
use crate::bootstrap::Interval;
use crate::summary::SEEDS_FOR_A_VERDICT;
use crate::table::{Table, check_test};
use crate::{Arm, Error, Metric, ShareRun};

/// What the runs of a sweep show.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SweepSummary {
    /// How many classifiers were trained for each share.
    pub seeds: usize,
    /// The shares, from the smallest.
    pub shares: Vec<ShareSummary>,
    /// The smallest share from which no larger one is better in the worst group: none has an interval of the difference
    /// (paired by test image and seed) that lies above zero. Shares with no more images than a smaller one do not count;
    /// none where fewer than two do, and with fewer than [`SEEDS_FOR_A_VERDICT`] seeds.
    pub plateau: Option<f64>,
}

/// The figures of `balanced` with one share of the generated images, means over the seeds.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ShareSummary {
    /// The share of the plan's additions.
    pub share: f64,
    /// How many images that is.
    pub wanted: u32,
    /// How many there were.
    pub generated_images: u32,
    /// Share of all test images classified rightly.
    pub accuracy: f64,
    /// Its 95 % interval.
    pub accuracy_interval: Interval,
    /// Accuracy in the group with the lowest.
    pub worst_group: f64,
    /// Its 95 % interval.
    pub worst_group_interval: Interval,
}

/// Puts the runs of all shares and seeds together, in any order.
///
/// # Errors
/// [`Error::Nothing`] or [`Error::MissingRun`] where a run is missing, [`Error::OtherTest`] where the runs were not
/// tested on the same images.
pub fn summarise_sweep(runs: &[ShareRun]) -> Result<SweepSummary, Error> {
    let mut shares: Vec<f64> = runs.iter().map(|run| run.share).collect();
    shares.sort_by(f64::total_cmp);
    shares.dedup();
    let mut seeds: Vec<u32> = runs.iter().map(|run| run.run.seed).collect();
    seeds.sort_unstable();
    seeds.dedup();
    if shares.is_empty() {
        return Err(Error::Nothing("sweep"));
    }
    let of = |share: f64, seed: u32| runs.iter().find(|run| run.share == share && run.run.seed == seed);
    let missing = |seed: u32| Error::MissingRun { arm: Arm::Balanced, seed };
    let ordered = shares
        .iter()
        .map(|&share| seeds.iter().map(|&seed| of(share, seed).ok_or(missing(seed))).collect())
        .collect::<Result<Vec<Vec<&ShareRun>>, _>>()?;
    check_test(ordered.iter().flatten().map(|run| &run.run))?;
    let table = Table {
        arms: vec![Arm::Balanced; shares.len()],
        runs: ordered.iter().map(|runs| runs.iter().map(|run| &run.run).collect()).collect(),
    };
    let analysis = Analysis::new(&table);
    let summary = |(place, runs): (usize, &Vec<&ShareRun>)| {
        let (accuracy, worst_group) =
            (analysis.figure(place, Metric::Accuracy), analysis.figure(place, Metric::WorstGroup));
        ShareSummary {
            share: shares[place],
            wanted: runs[0].wanted,
            generated_images: runs[0].run.generated_images,
            accuracy: accuracy.value,
            accuracy_interval: accuracy.interval,
            worst_group: worst_group.value,
            worst_group_interval: worst_group.interval,
        }
    };
    let summaries: Vec<ShareSummary> = ordered.iter().enumerate().map(summary).collect();
    let enough = seeds.len() >= SEEDS_FOR_A_VERDICT;
    let plateau = if enough { plateau(&summaries, &analysis) } else { None };
    Ok(SweepSummary { seeds: seeds.len(), shares: summaries, plateau })
}

/// [`SweepSummary::plateau`], of enough seeds.
fn plateau(shares: &[ShareSummary], analysis: &Analysis<'_>) -> Option<f64> {
    let images = |place: &usize| shares[*place].generated_images;
    let more = |place: &usize| (0..*place).all(|smaller| images(&smaller) < images(place));
    let counted: Vec<usize> = (0..shares.len()).filter(more).collect();
    let better = |larger: usize, share: usize| analysis.difference(larger, share, Metric::WorstGroup).interval[0] > 0.0;
    let reached = |share: &usize| !counted.iter().any(|&larger| larger > *share && better(larger, *share));
    let place = counted.iter().copied().find(reached).filter(|_| counted.len() > 1)?;
    Some(shares[place].share)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::run;

    /// 200 images of one group, of which a share's classifier gets so many right.
    fn share(share: f64, seed: u32, right: u32) -> ShareRun {
        let rows: Vec<(u32, u32, f32)> = (0..200).map(|i| (0, u32::from((i + 3 * seed) % 200 >= right), 0.9)).collect();
        let mut run = run(&[(&[("colour", "red")], &rows)]);
        (run.seed, run.arm, run.generated_images) = (seed, Arm::Balanced, (share * 100.0) as u32);
        ShareRun { share, wanted: (share * 100.0) as u32, run }
    }

    #[test]
    fn the_plateau_is_where_more_images_stop_helping() {
        let mut runs: Vec<ShareRun> = (0..5)
            .flat_map(|seed| {
                [(2.0, 151), (0.0, 90), (0.5, 130), (1.0, 150)].map(|(at, right)| share(at, seed, right + seed % 2))
            })
            .collect();
        let summary = summarise_sweep(&runs).unwrap();
        assert_eq!(summary.plateau, Some(1.0));
        let shares: Vec<f64> = summary.shares.iter().map(|share| share.share).collect();
        assert_eq!(shares, [0.0, 0.5, 1.0, 2.0]);
        assert_eq!((summary.shares[1].wanted, summary.shares[1].generated_images, summary.seeds), (50, 50, 5));
        for share in &summary.shares {
            let [low, high] = share.worst_group_interval;
            assert!(low < share.worst_group && share.worst_group < high);
        }
        runs.pop();
        assert!(matches!(summarise_sweep(&runs), Err(Error::MissingRun { seed: 4, .. })));
        assert!(matches!(summarise_sweep(&[]), Err(Error::Nothing("sweep"))));
    }

    #[test]
    fn there_is_no_plateau_among_shares_that_hold_the_same_images_or_of_too_few_seeds() {
        let runs = |shares: &[(f64, u32)], seeds: u32| -> Vec<ShareRun> {
            let of = |seed| shares.iter().map(move |&(at, right)| share(at, seed, right + seed % 2));
            (0..seeds).flat_map(of).collect()
        };
        let plateau = |runs: &[ShareRun]| summarise_sweep(runs).unwrap().plateau;
        assert_eq!(plateau(&runs(&[(1.0, 150)], 5)), None, "a single share");
        assert_eq!(plateau(&runs(&[(0.0, 90), (1.0, 150)], 5)), Some(1.0));
        assert_eq!(plateau(&runs(&[(0.0, 90), (1.0, 150)], 4)), None, "four seeds");
        let mut same = runs(&[(0.0, 90), (1.0, 90), (2.0, 150)], 5);
        same.iter_mut().filter(|run| run.share > 1.0).for_each(|run| run.run.generated_images = 100);
        assert_eq!(plateau(&same), Some(0.0), "the images of share 2 are those of share 1");
        same.iter_mut().for_each(|run| run.run.generated_images = 0);
        assert_eq!(plateau(&same), None);
    }
}
