//! What was measured on real held-out images when a verifier was trained: for the report, and to load it again.

use std::collections::BTreeMap;

use evenset_core::Group;
use serde::{Deserialize, Serialize};

use crate::gates::{Aim, DecodeLimits, InDistributionLimit, NoveltyLimits, Seen, Thresholds};
use crate::{Share, View};

/// What real images taught the gates. The images held out here are real training images: the test part of a dataset is
/// never looked at.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Calibration {
    /// How many real images the classifier learned from.
    pub learned_from: usize,
    /// How many real images were held out.
    pub held_out: usize,
    /// How well each attribute is recognised in held-out images; empty without a classifier.
    pub attributes: Vec<AttributeCalibration>,
    /// How many real held-out images of each group the gate `attributes` would keep; empty without that gate.
    pub groups: Vec<GroupRecall>,
    /// The limits of `decode`.
    pub decode: DecodeLimits,
    /// The limit of `in-distribution`, if the gate is there.
    pub in_distribution: Option<InDistributionLimit>,
    /// The limits of `novelty`, if the gate is there.
    pub novelty: Option<NoveltyLimits>,
}

impl Calibration {
    /// The thresholds of every attribute, in their order; none for those that are not checked.
    pub(crate) fn thresholds(&self) -> Vec<Option<Thresholds>> {
        self.attributes.iter().map(|attribute| attribute.thresholds.clone()).collect()
    }
}

/// How well one attribute is recognised.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AttributeCalibration {
    /// The attribute.
    pub attribute: String,
    /// Its values, the order of rows and columns of `confusion`.
    pub classes: Vec<String>,
    /// What its classifier looks at: the view in which held-out images are recognised better.
    pub view: View,
    /// `confusion[true value][value seen]`: held-out images.
    pub confusion: Vec<Vec<u64>>,
    /// Held-out images with a value.
    pub images: u64,
    /// Share of them recognised rightly.
    pub accuracy: f64,
    /// Mean over the values of the share recognised rightly; values without a held-out image do not count.
    pub balanced_accuracy: f64,
    /// Mean over the groups of the share recognised rightly: what matters where groups are entangled.
    pub group_accuracy: f64,
    /// How sure the recogniser must be of each value; none where the gate `attributes` does not check it.
    pub thresholds: Option<Thresholds>,
    /// `accepts[true value][value asked for]`: held-out images that would pass as that value; empty without the gate.
    pub accepts: Vec<Vec<u64>>,
    /// Both tables with all groups counting alike: what counts are corrected by.
    pub balanced: BalancedTables,
}

/// What the recogniser does to images of each true value, all groups of the value counting alike.
///
/// Most held-out images are of large groups, and most images that are asked for are of small ones, where the recogniser
/// may err otherwise. So an image weighs one over the number of held-out images of its group. A row sums to the
/// effective number of images behind it (Kish 1965, "Survey Sampling"): the squared sum of the weights over the sum of
/// their squares, which is the number of images itself where all groups are equally large, and about that of the
/// smallest groups where they are not.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BalancedTables {
    /// `confusion[true value][value seen]`.
    pub confusion: Vec<Vec<f64>>,
    /// `accepts[true value][value asked for]`: those that would pass as that value; empty without the gate.
    pub accepts: Vec<Vec<f64>>,
}

/// How many held-out real images of a group a gate would keep.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GroupRecall {
    /// The group: all attributes.
    pub group: Group,
    /// The share kept.
    pub share: Share,
}

impl AttributeCalibration {
    /// From what was seen in each held-out image with a value.
    pub(crate) fn new(attribute: &str, classes: &[String], view: View, seen: &[Seen]) -> Self {
        let mut confusion = vec![vec![0u64; classes.len()]; classes.len()];
        let mut groups = BTreeMap::<(&Group, usize), (f64, f64)>::new();
        for Seen { truth, first, rest, .. } in seen {
            if let Some(count) = confusion.get_mut(*truth).and_then(|row| row.get_mut(*first)) {
                *count += 1;
            }
            let of_group = groups.entry((rest, *truth)).or_default();
            of_group.0 += f64::from(u8::from(truth == first));
            of_group.1 += 1.0;
        }
        let right = |class: usize| confusion[class][class] as f64;
        let total = |class: usize| confusion[class].iter().sum::<u64>() as f64;
        let met: Vec<usize> = (0..classes.len()).filter(|&class| total(class) > 0.0).collect();
        let mean =
            |values: Vec<f64>| if values.is_empty() { 0.0 } else { values.iter().sum::<f64>() / values.len() as f64 };
        let images: f64 = met.iter().map(|&class| total(class)).sum();
        Self {
            attribute: attribute.to_owned(),
            classes: classes.to_vec(),
            view,
            images: images as u64,
            accuracy: if images > 0.0 { met.iter().map(|&class| right(class)).sum::<f64>() / images } else { 0.0 },
            balanced_accuracy: mean(met.iter().map(|&class| right(class) / total(class)).collect()),
            group_accuracy: mean(groups.values().map(|(right, all)| right / all).collect()),
            confusion,
            thresholds: None,
            accepts: Vec::new(),
            balanced: BalancedTables { confusion: balanced(classes.len(), seen, |_| true), accepts: Vec::new() },
        }
    }

    /// Sets the thresholds by the same images, and counts which of them would pass as what.
    pub(crate) fn set_thresholds(&mut self, seen: &[Seen], aim: Aim) {
        let thresholds = Thresholds::calibrate(&self.attribute, &self.classes, seen, aim);
        let passes = |Seen { first, probability, rest, .. }: &Seen| {
            let Some(value) = self.classes.get(*first) else { return false };
            let group = rest.clone().with(&self.attribute, value);
            thresholds.of(*first, &group).is_some_and(|threshold| *probability >= threshold.least)
        };
        let classes = self.classes.len();
        let mut accepts = vec![vec![0u64; classes]; classes];
        for image in seen.iter().filter(|image| passes(image)) {
            if let Some(count) = accepts.get_mut(image.truth).and_then(|row| row.get_mut(image.first)) {
                *count += 1;
            }
        }
        self.balanced.accepts = balanced(classes, seen, passes);
        (self.thresholds, self.accepts) = (Some(thresholds), accepts);
    }
}

/// The weights of images that count, by true value and value seen; see [`BalancedTables`].
fn balanced(classes: usize, seen: &[Seen], counts: impl Fn(&Seen) -> bool) -> Vec<Vec<f64>> {
    let known = |image: &&Seen| image.truth < classes && image.first < classes;
    let mut sizes = BTreeMap::<(usize, &Group), f64>::new();
    for image in seen.iter().filter(known) {
        *sizes.entry((image.truth, &image.rest)).or_default() += 1.0;
    }
    // The weights of a group sum to one, and their squares to one over its size.
    let (mut groups, mut squares) = (vec![0.0; classes], vec![0.0; classes]);
    for ((truth, _), size) in &sizes {
        groups[*truth] += 1.0;
        squares[*truth] += 1.0 / size;
    }
    let mut table = vec![vec![0.0; classes]; classes];
    for image in seen.iter().filter(known).filter(|image| counts(image)) {
        let weight = sizes.get(&(image.truth, &image.rest)).map_or(0.0, |size| 1.0 / size);
        table[image.truth][image.first] += weight * groups[image.truth] / squares[image.truth];
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_confusion_matrix_counts_truth_against_sight() {
        let group = |name: &str| Group::new([("colour", name)]).unwrap();
        let classes = ["bag".to_owned(), "coat".to_owned(), "shoe".to_owned()];
        let image = |truth, first, colour| Seen { truth, first, probability: 0.9, rest: group(colour) };
        let seen = [image(0, 0, "red"), image(0, 1, "red"), image(1, 1, "red"), image(0, 0, "blue")];
        let found = AttributeCalibration::new("garment", &classes, View::Colour, &seen);
        assert_eq!(found.confusion, [[2, 1, 0], [0, 1, 0], [0, 0, 0]]);
        assert_eq!((found.images, found.accuracy), (4, 0.75));
        assert!((found.balanced_accuracy - (2.0 / 3.0 + 1.0) / 2.0).abs() < 1e-12);
        assert!((found.group_accuracy - (0.5 + 1.0 + 1.0) / 3.0).abs() < 1e-12);
        let mut found = found;
        found.set_thresholds(&seen, Aim { false_accept: 0.05, fixed: Some(0.95) });
        assert_eq!(found.accepts, [[0; 3]; 3], "nothing is as sure as the job wants");
        found.set_thresholds(&seen, Aim { false_accept: 0.05, fixed: Some(0.5) });
        assert_eq!(found.accepts, found.confusion);
    }

    #[test]
    fn small_groups_count_as_much_as_large_ones_and_the_rows_sum_to_what_they_are_worth() {
        let classes = ["bag".to_owned(), "coat".to_owned()];
        let image = |truth, first, colour: &str, probability| Seen {
            truth,
            first,
            probability,
            rest: Group::new([("colour", colour)]).unwrap(),
        };
        // Of 96 red bags none is mistaken, of four blue ones half.
        let mut seen: Vec<Seen> = (0..96).map(|_| image(0, 0, "red", 0.9)).collect();
        seen.extend((0..4).map(|i| image(0, i % 2, "blue", 0.6)));
        seen.extend((0..10).map(|_| image(1, 1, "red", 0.9)));
        let mut found = AttributeCalibration::new("garment", &classes, View::Colour, &seen);
        assert_eq!(found.confusion, [[98, 2], [0, 10]]);
        let effective = 4.0 / (1.0 / 96.0 + 1.0 / 4.0);
        let near = |found: &[Vec<f64>], expected: [[f64; 2]; 2]| {
            let pairs = found.iter().flatten().zip(expected.as_flattened());
            assert!(pairs.clone().all(|(a, b)| (a - b).abs() < 1e-9), "{found:?}, {expected:?}");
        };
        near(&found.balanced.confusion, [[0.75 * effective, 0.25 * effective], [0.0, 10.0]]);
        found.set_thresholds(&seen, Aim { false_accept: 0.05, fixed: Some(0.7) });
        near(&found.balanced.accepts, [[0.5 * effective, 0.0], [0.0, 10.0]]);
    }
}
