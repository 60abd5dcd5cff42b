//! The real images by which the best step of every training is chosen.
//!
//! The same images judge every arm and every seed. Where the dataset has no validation split they are held out of the
//! training part, a share of each group. Small groups would make the minimum over groups a draw of luck: groups with
//! fewer than [`SMALLEST`] images are judged as one, *the rest*, which takes in the next smallest group until it has that
//! many. What is chosen is the step with the highest accuracy in the worst of these pools, then the highest mean of
//! their accuracies.

use std::collections::BTreeMap;

use evenset_core::Seed;
use evenset_nn::classifier::Classifier;

use super::recipe::drawn;
use crate::{ClassifierKind, EvidenceConfig, EvidenceData, Labelled};

/// Pools have at least so many images, if there are as many.
const SMALLEST: usize = 10;
/// Training groups with fewer images than this give none away.
const SMALLEST_TRAINING_GROUP: usize = 4;
/// About so many images at most are looked at, or the looks would cost more than the training.
const MOST: usize = 1024;

/// The images, and the pool of each.
pub(super) struct Validation {
    /// Training rows that are held out; none where the dataset has a validation split.
    pub(super) rows: Vec<usize>,
    images: Labelled,
    /// For each image its pool.
    pools: Vec<usize>,
}

impl Validation {
    /// The images to judge by; none where the share is 0.
    pub(super) fn of(data: &EvidenceData, config: &EvidenceConfig, seed: Seed) -> Self {
        let share = config.validation_share;
        let source = data.validation.as_ref().filter(|part| !part.labels.is_empty());
        let rows = match source {
            _ if share <= 0.0 => Vec::new(),
            Some(part) => chosen(&part.groups, |images| images, seed),
            None => chosen(&data.train.groups, |images| held_out(images, share), seed),
        };
        let images = source.unwrap_or(&data.train).select(&rows);
        let pools = pools(&images.groups, SMALLEST);
        let rows = if source.is_some() { Vec::new() } else { rows };
        Self { rows, images, pools }
    }

    /// How many images there are.
    pub(super) fn images(&self) -> usize {
        self.pools.len()
    }

    /// Accuracy in the worst pool, and the mean of the pools' accuracies.
    pub(super) fn judge(&self, classifier: &Classifier, kind: ClassifierKind) -> evenset_nn::Result<[f64; 2]> {
        let Some(inputs) = self.images.inputs(kind) else {
            return Ok([0.0; 2]);
        };
        let heads = classifier.inspect_inputs(&inputs)?.heads;
        let mut counts: BTreeMap<usize, (f64, f64)> = BTreeMap::new();
        for (row, (&pool, &label)) in self.pools.iter().zip(&self.images.labels).enumerate() {
            let (right, all) = counts.entry(pool).or_default();
            *right += f64::from(u8::from(heads.first().is_some_and(|head| head.argmax(row).0 == label)));
            *all += 1.0;
        }
        let accuracies: Vec<f64> = counts.values().map(|(right, all)| right / all).collect();
        let mean = accuracies.iter().sum::<f64>() / accuracies.len().max(1) as f64;
        Ok([accuracies.into_iter().fold(1.0, f64::min), mean])
    }
}

/// How many images a training group of so many gives away: its share, at least one, none of a tiny group.
fn held_out(images: usize, share: f64) -> usize {
    if images < SMALLEST_TRAINING_GROUP { 0 } else { ((images as f64 * share).round() as usize).max(1) }
}

/// The rows to judge by: of each group as many as `wanted` says of its size, but not more than its part of [`MOST`].
fn chosen(groups: &[u32], wanted: impl Fn(usize) -> usize, seed: Seed) -> Vec<usize> {
    let mut by_group: BTreeMap<u32, Vec<usize>> = BTreeMap::new();
    for (row, &group) in groups.iter().enumerate() {
        by_group.entry(group).or_default().push(row);
    }
    let most = (MOST / by_group.len().max(1)).max(SMALLEST);
    let of = |(&group, rows): (&u32, &Vec<usize>)| drawn(rows, wanted(rows.len()).min(most), seed.index(group.into()));
    let mut chosen: Vec<usize> = by_group.iter().flat_map(of).collect();
    chosen.sort_unstable();
    chosen
}

/// For each image its pool: 0 is the rest, the groups with fewer than `smallest` images.
pub(crate) fn pools(groups: &[u32], smallest: usize) -> Vec<usize> {
    let mut sizes: BTreeMap<u32, usize> = BTreeMap::new();
    groups.iter().for_each(|&group| *sizes.entry(group).or_default() += 1);
    let mut smallest_first: Vec<(usize, u32)> = sizes.iter().map(|(&group, &size)| (size, group)).collect();
    smallest_first.sort_unstable();
    let (mut rest, mut pool_of) = (0, BTreeMap::new());
    for (i, &(size, group)) in smallest_first.iter().enumerate() {
        let joins = size < smallest || (1..smallest).contains(&rest);
        rest += if joins { size } else { 0 };
        pool_of.insert(group, if joins { 0 } else { i + 1 });
    }
    groups.iter().filter_map(|group| pool_of.get(group).copied()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_group_gives_its_share_but_tiny_ones_give_none() {
        let groups: Vec<u32> = [(0, 100), (1, 3), (2, 4), (3, 30)].iter().flat_map(|&(g, n)| vec![g; n]).collect();
        let rows = chosen(&groups, |images| held_out(images, 0.1), Seed(3));
        let number = |group| rows.iter().filter(|&&row| groups[row] == group).count();
        assert_eq!([0, 1, 2, 3].map(number), [10, 0, 1, 3]);
        assert!(rows.is_sorted_by(|a, b| a < b));
        assert_eq!(rows, chosen(&groups, |images| held_out(images, 0.1), Seed(3)));
        let many: Vec<u32> = (0..40_000).map(|i| i % 4).collect();
        assert_eq!(chosen(&many, |images| images, Seed(3)).len(), MOST);
    }

    #[test]
    fn small_groups_are_judged_as_one_that_is_large_enough() {
        let groups = |sizes: &[usize]| -> Vec<u32> {
            sizes.iter().enumerate().flat_map(|(group, &size)| vec![group as u32; size]).collect()
        };
        let sizes = |pools: &[usize]| {
            let mut counts: BTreeMap<usize, usize> = BTreeMap::new();
            pools.iter().for_each(|&pool| *counts.entry(pool).or_default() += 1);
            counts.into_values().collect::<Vec<_>>()
        };
        assert_eq!(sizes(&pools(&groups(&[30, 6, 7, 20]), 10)), [13, 20, 30]);
        assert_eq!(sizes(&pools(&groups(&[30, 2, 20]), 10)), [22, 30], "two images take in the next smallest group");
        assert_eq!(sizes(&pools(&groups(&[2, 3]), 10)), [5]);
        assert_eq!(sizes(&pools(&groups(&[10, 12]), 10)), [10, 12]);
    }
}
