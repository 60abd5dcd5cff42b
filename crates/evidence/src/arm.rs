//! One arm with one seed: train a classifier, test it on the real held-out images, group by group.
//!
//! All arms are alike but for what their name says: the same classifier, the same number of gradient steps of the same
//! size, the same initial weights for the same seed. Only `augment` mirrors and shifts.

use evenset_core::{Group, Progress, Seed};
use evenset_nn::classifier::{Augment, Classifier, ClassifierConfig, Head, Sampling};
use serde::{Deserialize, Serialize};

use crate::{Arm, Error, EvidenceConfig, EvidenceData, Labelled, Outcomes};

/// The name of the classifier's only head.
const LABEL: &str = "label";

/// What one trained classifier got right, group by group. Small, so that it can be stored as a unit of its own.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ArmRun {
    /// What the classifier was trained on.
    pub arm: Arm,
    /// Which of the seeds, from 0.
    pub seed: u32,
    /// Every group that has test images, in the order of [`EvidenceData::groups`].
    pub groups: Vec<GroupOutcome>,
    /// Share of all test images classified rightly.
    pub accuracy: f64,
    /// Mean of the groups' accuracies.
    pub balanced_accuracy: f64,
    /// Lowest accuracy of a group that counts (see [`EvidenceConfig::smallest_group`]).
    pub worst_group: f64,
    /// Highest minus lowest accuracy of the groups that count.
    pub gap: f64,
}

/// What one classifier got right in one group.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GroupOutcome {
    /// The group.
    pub group: Group,
    /// Test images classified rightly.
    pub correct: u32,
    /// Test images.
    pub total: u32,
    /// Whether the group is large enough to be the worst group.
    pub counts: bool,
    /// Right or wrong for each test image of the group, in the order of the test part.
    pub outcomes: Outcomes,
}

impl GroupOutcome {
    /// Share of the group's test images classified rightly.
    pub fn accuracy(&self) -> f64 {
        f64::from(self.correct) / f64::from(self.total.max(1))
    }
}

/// Trains the classifier of one arm with one seed and tests it on the real held-out images.
///
/// `seed` is the job's seed and `number` says which of [`EvidenceConfig::seeds`] this is; the arms of one number share
/// their initial weights.
///
/// # Errors
/// [`Error::Empty`] and its like where the parts do not fit each other; [`Error::Classifier`] where training fails or
/// is interrupted.
pub fn run_arm(
    arm: Arm,
    data: &EvidenceData,
    seed: Seed,
    number: u32,
    config: &EvidenceConfig,
    progress: &dyn Progress,
) -> Result<ArmRun, Error> {
    data.check()?;
    let seed = seed.derive("evidence").index(u64::from(number));
    let joined =
        if arm == Arm::Balanced { Some(join(&without(&data.train, &data.left_out), &data.generated)?) } else { None };
    let train = joined.as_ref().unwrap_or(&data.train);
    let sampling = match arm {
        // Both draw every group equally often, so they differ in the generated images alone.
        Arm::Oversample | Arm::Balanced => Sampling::Weighted(inverse_group_size(train)),
        Arm::AsIs | Arm::Reweight | Arm::Augment => Sampling::Uniform,
    };
    let loss_weights: Option<Vec<f32>> =
        (arm == Arm::Reweight).then(|| inverse_group_size(train).into_iter().map(|weight| weight as f32).collect());
    let head = Head {
        name: LABEL.to_owned(),
        classes: data.classes.clone(),
        labels: train.labels.iter().map(|&label| Some(label)).collect(),
    };
    let classifier_config = ClassifierConfig {
        width: config.width,
        steps: config.steps,
        batch: config.batch,
        learning_rate: config.learning_rate,
        augment: match arm {
            Arm::Augment => Augment { flip: config.flip, ..Augment::standard(train.images.width()) },
            _ => Augment::none(),
        },
        ..ClassifierConfig::default()
    };
    let classifier = Classifier::fit(
        &train.images,
        &[head],
        &sampling,
        loss_weights.as_deref(),
        &classifier_config,
        seed,
        progress,
    )?;
    let predicted = classifier.predict(&data.test.images)?;
    let right: Vec<bool> = match predicted.first() {
        Some(label) => data.test.labels.iter().enumerate().map(|(i, &wanted)| label.argmax(i).0 == wanted).collect(),
        None => Vec::new(),
    };
    Ok(score(arm, number, &right, data, config.smallest_group))
}

/// Group by group what was right, and the figures over the groups.
pub(crate) fn score(arm: Arm, seed: u32, right: &[bool], data: &EvidenceData, smallest_group: u32) -> ArmRun {
    let mut by_group: Vec<Vec<bool>> = vec![Vec::new(); data.groups.len()];
    for (&right, &group) in right.iter().zip(&data.test.groups) {
        by_group[group as usize].push(right);
    }
    let any_large = by_group.iter().any(|outcomes| outcomes.len() >= smallest_group as usize);
    let groups: Vec<GroupOutcome> = data
        .groups
        .iter()
        .zip(by_group)
        .filter(|(_, outcomes)| !outcomes.is_empty())
        .map(|(group, outcomes)| GroupOutcome {
            group: group.clone(),
            correct: outcomes.iter().filter(|&&right| right).count() as u32,
            total: outcomes.len() as u32,
            counts: !any_large || outcomes.len() >= smallest_group as usize,
            outcomes: outcomes.into_iter().collect(),
        })
        .collect();
    let figures = Figures::of(groups.iter().map(|group| (f64::from(group.correct), group.total, group.counts)));
    ArmRun {
        arm,
        seed,
        groups,
        accuracy: figures.accuracy,
        balanced_accuracy: figures.balanced_accuracy,
        worst_group: figures.worst_group,
        gap: figures.gap,
    }
}

/// The figures over all groups of one classifier.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Figures {
    pub(crate) accuracy: f64,
    pub(crate) balanced_accuracy: f64,
    pub(crate) worst_group: f64,
    pub(crate) gap: f64,
}

impl Figures {
    /// From (right, all, whether it counts as a worst group) of every group with test images; zero for no group.
    pub(crate) fn of(groups: impl Iterator<Item = (f64, u32, bool)>) -> Self {
        let (mut correct, mut total, mut sum, mut number) = (0.0, 0.0, 0.0, 0.0);
        let (mut worst, mut best) = (f64::INFINITY, f64::NEG_INFINITY);
        for (group_correct, group_total, counts) in groups {
            let accuracy = group_correct / f64::from(group_total.max(1));
            correct += group_correct;
            total += f64::from(group_total);
            sum += accuracy;
            number += 1.0;
            if counts {
                worst = worst.min(accuracy);
                best = best.max(accuracy);
            }
        }
        if number == 0.0 {
            return Self::default();
        }
        Self { accuracy: correct / total, balanced_accuracy: sum / number, worst_group: worst, gap: best - worst }
    }
}

/// For each row `rows / (groups * rows of its group)`: the groups' sums are equal and the mean over all rows is one.
fn inverse_group_size(part: &Labelled) -> Vec<f64> {
    let mut sizes = std::collections::BTreeMap::<u32, f64>::new();
    for &group in &part.groups {
        *sizes.entry(group).or_default() += 1.0;
    }
    let (rows, groups) = (part.groups.len() as f64, sizes.len() as f64);
    part.groups.iter().map(|group| rows / (groups * sizes.get(group).copied().unwrap_or(1.0))).collect()
}

/// The images that are not left out.
fn without(real: &Labelled, left_out: &[usize]) -> Labelled {
    if left_out.is_empty() {
        return real.clone();
    }
    let left_out: std::collections::HashSet<usize> = left_out.iter().copied().collect();
    let kept: Vec<usize> = (0..real.labels.len()).filter(|place| !left_out.contains(place)).collect();
    let of = |codes: &[u32]| kept.iter().filter_map(|&place| codes.get(place).copied()).collect();
    Labelled { images: real.images.select(kept.iter().copied()), labels: of(&real.labels), groups: of(&real.groups) }
}

/// Real and generated training images in one.
fn join(real: &Labelled, generated: &Labelled) -> Result<Labelled, Error> {
    let mut joined = real.clone();
    if !generated.images.is_empty() {
        joined.images.extend(&generated.images)?;
        joined.labels.extend(&generated.labels);
        joined.groups.extend(&generated.groups);
    }
    Ok(joined)
}

#[cfg(test)]
mod tests {
    use evenset_nn::classifier::ImageSet;

    use super::*;

    fn group(name: &str) -> Group {
        Group::new([("colour", name)]).unwrap()
    }

    fn images(n: usize) -> ImageSet {
        ImageSet::new(8, 8, vec![0; n * 8 * 8 * 3]).unwrap()
    }

    fn part(groups: &[u32]) -> Labelled {
        Labelled { images: images(groups.len()), labels: vec![0; groups.len()], groups: groups.to_vec() }
    }

    #[test]
    fn every_group_weighs_the_same_and_the_mean_weight_is_one() {
        let weights = inverse_group_size(&part(&[0, 0, 0, 1, 2, 2]));
        assert_eq!(weights, [6.0 / 9.0, 6.0 / 9.0, 6.0 / 9.0, 2.0, 1.0, 1.0]);
        assert!((weights.iter().sum::<f64>() / 6.0 - 1.0).abs() < 1e-12);
    }

    #[test]
    fn what_is_left_out_is_left_out_with_its_labels() {
        let mut all = part(&[0, 1, 2, 1]);
        all.labels = vec![5, 6, 7, 8];
        let kept = without(&all, &[0, 2]);
        assert_eq!((kept.images.len(), kept.labels, kept.groups), (2, vec![6, 8], vec![1, 1]));
    }

    #[test]
    fn the_figures_are_what_counting_by_hand_gives() {
        let data = EvidenceData {
            train: part(&[0]),
            left_out: vec![],
            generated: part(&[]),
            test: part(&[0, 0, 0, 0, 1, 1, 2]),
            classes: vec!["a".into(), "b".into()],
            groups: vec![group("red"), group("blue"), group("tiny"), group("untested")],
        };
        let run = score(Arm::AsIs, 3, &[true, true, true, false, false, true, false], &data, 2);
        assert_eq!(run.groups.len(), 3, "a group without test images is not reported");
        assert_eq!(run.groups[0].accuracy(), 0.75);
        assert_eq!((run.accuracy, run.worst_group, run.gap), (4.0 / 7.0, 0.5, 0.25), "tiny does not count as worst");
        assert!((run.balanced_accuracy - 1.25 / 3.0).abs() < 1e-12);
        let all = score(Arm::AsIs, 3, &[true, true, true, false, false, true, false], &data, 100);
        assert_eq!((all.worst_group, all.gap), (0.0, 0.75), "where every group is small, all count");
    }
}
