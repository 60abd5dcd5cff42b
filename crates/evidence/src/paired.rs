//! A test of two arms by the images on which they differ.
//!
//! If it did not matter which of the two classifiers looks at a test image, then swapping what they said about it would
//! change nothing but chance. Each image's predictions are swapped or not, for all seeds together, by the toss of a coin,
//! and p is the share of such tosses whose difference is at least as large as the one that was seen, the one seen
//! included (a sign-flip permutation test; Edgington and Onghena 2007, "Randomization Tests", chapter 5). For the accuracy
//! of one seed this is McNemar's exact test.
//!
//! p speaks of the trained classifiers as they are: the chance in which images were tested is in it, the chance in
//! training is not. The bootstrap's intervals hold both, and the verdict rests on them alone.

use std::collections::BTreeMap;

use evenset_core::Seed;
use rand::Rng;
use rayon::prelude::*;

use crate::ArmRun;

/// Tosses; p is at least one over this number plus one.
const TOSSES: u64 = 1999;
/// Tosses depend on the number of images alone, never on the job.
const SEED: Seed = Seed(0x6576_656e_7061_6972);

/// Two-sided p of a difference between two arms.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct PValues {
    pub(crate) accuracy: f64,
    pub(crate) worst_group: f64,
}

/// One group's images: how many each arm got right with each seed, and the images on which they differ.
struct Group {
    images: f64,
    counts: bool,
    /// `[seed]`: images that the first and the second arm got right.
    right: Vec<[i32; 2]>,
    /// What the first arm got right less what the second did, `[seed]`, and how many images have just these differences.
    differences: Vec<(Vec<i32>, u32)>,
}

/// The p-values of the difference between two arms, from their runs with the same seeds over the same images.
pub(crate) fn sign_flip(first: &[&ArmRun], second: &[&ArmRun]) -> PValues {
    let seeds = first.len().min(second.len());
    let groups: Vec<Group> =
        (0..first.first().map_or(0, |run| run.groups.len())).map(|g| group(g, first, second)).collect();
    let seen = differences(&groups, seeds, |_| 0);
    let larger = (0..TOSSES)
        .into_par_iter()
        .map(|toss| {
            let mut rng = SEED.index(toss).rng();
            let tossed = differences(&groups, seeds, |images| heads(images, &mut rng));
            // Sums in another order differ in their last digits.
            [0, 1].map(|i| u64::from(tossed[i].abs() >= seen[i].abs() - 1e-12))
        })
        .reduce(|| [0; 2], |a, b| [a[0] + b[0], a[1] + b[1]]);
    let [accuracy, worst_group] = larger.map(|larger| (larger + 1) as f64 / (TOSSES + 1) as f64);
    PValues { accuracy, worst_group }
}

/// How many of so many coins show heads.
fn heads(coins: u32, rng: &mut impl Rng) -> i32 {
    let (words, rest) = (coins / 64, coins % 64);
    let mut heads: u32 = (0..words).map(|_| rng.next_u64().count_ones()).sum();
    if rest > 0 {
        heads += (rng.next_u64() >> (64 - rest)).count_ones();
    }
    heads as i32
}

fn group(g: usize, first: &[&ArmRun], second: &[&ArmRun]) -> Group {
    let right = |run: &ArmRun| -> Vec<i32> {
        run.groups[g].predictions.iter().map(|prediction| i32::from(prediction.right())).collect()
    };
    let pairs: Vec<[Vec<i32>; 2]> = first.iter().zip(second).map(|(a, b)| [right(a), right(b)]).collect();
    let images = first.first().map_or(0, |run| run.groups[g].total());
    let mut differences: BTreeMap<Vec<i32>, u32> = BTreeMap::new();
    for image in 0..images {
        let difference: Vec<i32> = pairs.iter().map(|[a, b]| a[image] - b[image]).collect();
        if difference.iter().any(|&difference| difference != 0) {
            *differences.entry(difference).or_default() += 1;
        }
    }
    Group {
        images: images as f64,
        counts: first.first().is_some_and(|run| run.groups[g].counts),
        right: pairs.iter().map(|[a, b]| [a.iter().sum(), b.iter().sum()]).collect(),
        differences: differences.into_iter().collect(),
    }
}

/// The differences of the mean accuracies and of the mean worst groups, where `swapped` says how many of so many images
/// that differ alike are swapped.
fn differences(groups: &[Group], seeds: usize, mut swapped: impl FnMut(u32) -> i32) -> [f64; 2] {
    let (mut all, mut right) = (0.0, 0);
    let mut worst = vec![[f64::INFINITY; 2]; seeds];
    for group in groups {
        let mut counts = group.right.clone();
        for (differences, images) in &group.differences {
            let swapped = swapped(*images);
            for (count, difference) in counts.iter_mut().zip(differences) {
                *count = [count[0] - swapped * difference, count[1] + swapped * difference];
            }
        }
        all += group.images;
        right += counts.iter().map(|[a, b]| a - b).sum::<i32>();
        if group.counts {
            for (worst, count) in worst.iter_mut().zip(&counts) {
                *worst = [0, 1].map(|arm| worst[arm].min(f64::from(count[arm]) / group.images));
            }
        }
    }
    let seeds = seeds.max(1) as f64;
    [f64::from(right) / (all.max(1.0) * seeds), worst.iter().map(|[a, b]| a - b).sum::<f64>() / seeds]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::run;

    /// 100 images of two groups; the arm gets those at `wrong` wrong.
    fn with(wrong: &[usize]) -> ArmRun {
        let rows: Vec<(u32, u32, f32)> = (0..100).map(|i| (0, u32::from(wrong.contains(&i)), 0.9)).collect();
        run(&[(&[("colour", "red")], &rows[..60]), (&[("colour", "blue")], &rows[60..])])
    }

    #[test]
    fn the_p_of_the_accuracy_is_that_of_the_exact_binomial_test() {
        // The arms differ on 12 images: the first is right in 10 of them. McNemar's exact test: 2 P(X <= 2), X binomial
        // with 12 tosses: 2 (1 + 12 + 66) / 4096 = 0.03857.
        let first = with(&[1, 2, 50]);
        let second = with(&[50, 11, 12, 13, 14, 15, 71, 72, 73, 74, 75]);
        let p = sign_flip(&[&first], &[&second]);
        // The standard error of 1999 tosses is 0.0043.
        assert!((p.accuracy - 0.03857).abs() < 0.013, "{p:?}");
        let same = sign_flip(&[&first, &second], &[&first, &second]);
        assert_eq!(same, PValues { accuracy: 1.0, worst_group: 1.0 });
    }

    #[test]
    fn the_p_of_the_worst_group_is_that_of_all_tosses() {
        // One group, two seeds: the worst group is the accuracy. Three images differ, by 2, 2 and 1: of the eight sums
        // +-2 +-2 +-1 only +5 and -5 are as large as 5.
        let rows = |wrong: &[usize]| -> ArmRun {
            let rows: Vec<(u32, u32, f32)> = (0..30).map(|i| (0, u32::from(wrong.contains(&i)), 0.9)).collect();
            run(&[(&[("colour", "red")], &rows)])
        };
        let (good, bad, fair) = (rows(&[]), rows(&[3, 4, 5]), rows(&[3, 4]));
        let p = sign_flip(&[&good, &good], &[&bad, &fair]);
        assert!((p.worst_group - 0.25).abs() < 0.03 && (p.accuracy - 0.25).abs() < 0.03, "{p:?}");
    }
}
