//! What was measured on real held-out images when a verifier was trained: for the report, and to load it again.

use evenset_core::Group;
use serde::{Deserialize, Serialize};

use crate::gates::{DecodeLimits, InDistributionLimit, NoveltyLimits};
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
    /// From the true value, the value seen and the group of each held-out image with a value.
    pub(crate) fn new(attribute: &str, classes: &[String], view: View, seen: &[(u32, u32, Group)]) -> Self {
        let mut confusion = vec![vec![0u64; classes.len()]; classes.len()];
        let mut groups = std::collections::BTreeMap::<&Group, (f64, f64)>::new();
        for (truth, seen, group) in seen {
            if let Some(count) = confusion.get_mut(*truth as usize).and_then(|row| row.get_mut(*seen as usize)) {
                *count += 1;
            }
            let of_group = groups.entry(group).or_default();
            of_group.0 += f64::from(u8::from(truth == seen));
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
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_confusion_matrix_counts_truth_against_sight() {
        let group = |name: &str| Group::new([("colour", name)]).unwrap();
        let classes = ["bag".to_owned(), "coat".to_owned(), "shoe".to_owned()];
        let seen = [(0, 0, group("red")), (0, 1, group("red")), (1, 1, group("red")), (0, 0, group("blue"))];
        let found = AttributeCalibration::new("garment", &classes, View::Colour, &seen);
        assert_eq!(found.confusion, [[2, 1, 0], [0, 1, 0], [0, 0, 0]]);
        assert_eq!((found.images, found.accuracy), (4, 0.75));
        assert!((found.balanced_accuracy - (2.0 / 3.0 + 1.0) / 2.0).abs() < 1e-12);
        assert!((found.group_accuracy - (2.0 / 3.0 + 1.0) / 2.0).abs() < 1e-12);
    }
}
