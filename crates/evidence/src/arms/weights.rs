//! Weights of training images.

use std::collections::BTreeMap;

use crate::Labelled;

/// For each row `rows / (groups * rows of its group)`: the groups' sums are equal and the mean over all rows is one.
pub(super) fn inverse_group_size(part: &Labelled) -> Vec<f64> {
    let sizes = counts(part.groups.iter().copied());
    let (rows, groups) = (part.groups.len() as f64, sizes.len() as f64);
    part.groups.iter().map(|group| rows / (groups * of(&sizes, *group))).collect()
}

/// For each row `p(a) p(y) / p(a, y)` with its label `y` and its attribute value `a`, so that `p(a | y)` becomes `p(a)`
/// for every label that occurs with every value; divided by the mean, which is below one where some pair never occurs.
/// `attribute_of` gives each group's attribute value.
pub(super) fn matched(part: &Labelled, attribute_of: &[usize]) -> Vec<f64> {
    let attribute = |group: u32| attribute_of.get(group as usize).copied().unwrap_or_default();
    let pairs: Vec<(usize, u32)> =
        part.groups.iter().zip(&part.labels).map(|(&group, &label)| (attribute(group), label)).collect();
    let attributes = counts(pairs.iter().map(|(attribute, _)| *attribute));
    let labels = counts(pairs.iter().map(|(_, label)| *label));
    let both = counts(pairs.iter().copied());
    let rows = pairs.len().max(1) as f64;
    let weights: Vec<f64> =
        pairs.iter().map(|&pair| of(&attributes, pair.0) * of(&labels, pair.1) / (rows * of(&both, pair))).collect();
    let mean = weights.iter().sum::<f64>() / rows;
    weights.into_iter().map(|weight| weight / mean).collect()
}

fn counts<T: Ord>(values: impl Iterator<Item = T>) -> BTreeMap<T, f64> {
    let mut counts = BTreeMap::new();
    values.for_each(|value| *counts.entry(value).or_insert(0.0) += 1.0);
    counts
}

fn of<T: Ord>(counts: &BTreeMap<T, f64>, value: T) -> f64 {
    counts.get(&value).copied().unwrap_or(1.0)
}

#[cfg(test)]
mod tests {
    use evenset_nn::classifier::ImageSet;

    use super::*;

    fn part(groups: &[u32], labels: &[u32]) -> Labelled {
        let images = ImageSet::new(8, 8, vec![0; groups.len() * 8 * 8 * 3]).unwrap();
        Labelled { images, labels: labels.to_vec(), groups: groups.to_vec(), features: None }
    }

    #[test]
    fn every_group_weighs_the_same_and_the_mean_weight_is_one() {
        let weights = inverse_group_size(&part(&[0, 0, 0, 1, 2, 2], &[0; 6]));
        assert_eq!(weights, [6.0 / 9.0, 6.0 / 9.0, 6.0 / 9.0, 2.0, 1.0, 1.0]);
        assert!((weights.iter().sum::<f64>() / 6.0 - 1.0).abs() < 1e-12);
    }

    #[test]
    fn matched_weights_make_label_and_attribute_independent() {
        // Groups: 0 = (red, label 0), 1 = (blue, label 0), 2 = (red, label 1), 3 = (blue, label 1).
        let groups = [0, 0, 0, 0, 0, 0, 1, 2, 3, 3];
        let labels = [0, 0, 0, 0, 0, 0, 0, 1, 1, 1];
        let weights = matched(&part(&groups, &labels), &[0, 1, 0, 1]);
        // p(red) = 0.7, p(label 0) = 0.7, p(red, label 0) = 0.6.
        assert!((weights[0] - 0.7 * 0.7 / 0.6).abs() < 1e-12 && (weights[6] - 0.3 * 0.7 / 0.1).abs() < 1e-12);
        let sum = |group: u32| groups.iter().zip(&weights).filter(|(g, _)| **g == group).map(|(_, w)| w).sum::<f64>();
        assert!((sum(0) / (sum(0) + sum(1)) - 0.7).abs() < 1e-12, "p(red | label 0) is p(red)");
        assert!((sum(2) / (sum(2) + sum(3)) - 0.7).abs() < 1e-12, "p(red | label 1) is p(red)");
        let sparse = matched(&part(&[0, 0, 3], &[0, 0, 1]), &[0, 1, 0, 1]);
        assert!((sparse.iter().sum::<f64>() / 3.0 - 1.0).abs() < 1e-12, "the mean is one");
    }
}
