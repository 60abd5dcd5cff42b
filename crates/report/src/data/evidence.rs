//! Whether it helped, and how near the generated images come to real ones.

use evenset_core::Group;
use serde::{Deserialize, Serialize};

use super::Interval;

/// Whether it helped: classifiers trained with and without the generated images, tried on real held-out images.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Evidence {
    /// The answer.
    pub verdict: Verdict,
    /// The answer in one sentence, with numbers and their intervals.
    pub sentence: String,
    /// How many times each arm was trained, with different seeds.
    pub seeds: u32,
    /// How many real test images they were tried on.
    pub test_images: u64,
    /// The difference that the verdict rests on: `balanced` against the best arm without generated images.
    pub gain: Option<Gain>,
    /// `balanced` against the data as it was.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gain_as_is: Option<Gain>,
    /// Training sets that were compared: the data as it was first, the other baselines, then those with generated images.
    pub arms: Vec<Arm>,
    /// Arms that could not be run.
    pub skipped: Vec<SkippedArm>,
    /// Test images left out because they stand, exactly or nearly, in another split too.
    pub overlapping: u64,
    /// Test images left out because they lack a value of the label or of an attribute.
    pub unlabelled: u64,
    /// Test images left out because no training image has their class.
    pub unseen: u64,
    /// Classes that are trained on and that no test image shows.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub untested: Vec<String>,
    /// How many test images a group needs to count as the worst one, where no group has as many: then all count.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub all_below: Option<u32>,
    /// Whether the best step of each training was chosen by training images, which generator and gates learned from.
    pub validation_seen: bool,
    /// How `balanced` fares with fewer or more generated images, where the job asks for it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sweep: Option<Sweep>,
    /// What came of groups that were held out of everything, where the job asks for it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub held_out: Option<HeldOut>,
    /// How far generated images lie from real ones: all images first (without a group), then group by group.
    pub distances: Vec<GroupDistances>,
}

/// Groups that generator, gates and classifiers never saw in training: the generator composed them all the same, and
/// classifiers with and without these images were tried on their real test images alone.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct HeldOut {
    /// The groups, and how many of the images composed for each the gates accepted.
    pub groups: Vec<HeldOutGroup>,
    /// Real test images of these groups.
    pub test_images: u64,
    /// The arms, tried on these images alone.
    pub arms: Vec<Arm>,
    /// `balanced` against the best arm without generated images.
    pub gain: Option<Gain>,
}

/// One group that was held out.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct HeldOutGroup {
    /// The group.
    pub group: Group,
    /// Images that were composed.
    pub composed: u64,
    /// Those that the gates accepted.
    pub accepted: u64,
}

/// The answer to "did it help?".
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Verdict {
    /// Better than the strongest arm without generated images, beyond chance.
    Helped,
    /// No difference beyond chance.
    #[default]
    NoDifference,
    /// Worse, beyond chance.
    Harmed,
}

/// A paired difference in accuracy of the worst group and overall, in points from -1 to 1.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Gain {
    /// The arm that is compared with.
    pub over: String,
    /// Worst-group accuracy of the arm minus that of the other.
    pub worst_group: f64,
    /// 95 % interval of it.
    pub interval: Interval,
    /// The probability of so large a difference if the two arms did not differ (two-sided).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub p: Option<f64>,
    /// Accuracy over all test images of the arm minus that of the other.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub accuracy: Option<f64>,
    /// 95 % interval of it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub accuracy_interval: Option<Interval>,
}

/// One training set and how the classifier trained on it does on the real test split. Shares are from 0 to 1.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Arm {
    /// `as-is`, `oversample`, `reweight`, `balanced`, ...
    pub name: String,
    /// Accuracy over all test images, mean over the seeds.
    pub accuracy: f64,
    /// 95 % interval of it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub accuracy_interval: Option<Interval>,
    /// Accuracy in the group that it does worst on, mean over the seeds.
    pub worst_group: f64,
    /// 95 % interval of it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub worst_group_interval: Option<Interval>,
    /// Accuracy in the best group minus accuracy in the worst.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gap: Option<f64>,
    /// 95 % interval of it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gap_interval: Option<Interval>,
    /// Mean of the groups' accuracies.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub balanced_accuracy: Option<f64>,
    /// 95 % interval of it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub balanced_accuracy_interval: Option<Interval>,
    /// How far the groups are apart in what is found of a class and in what is wrongly taken for it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub equalised_odds: Option<f64>,
    /// 95 % interval of it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub equalised_odds_interval: Option<Interval>,
    /// How far the classifier's certainty is from how often it is right.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub calibration_error: Option<f64>,
    /// 95 % interval of it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub calibration_error_interval: Option<Interval>,
    /// Real images that it was trained on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub real_images: Option<u64>,
    /// Generated images that it was trained on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub generated_images: Option<u64>,
    /// This arm less the best arm without generated images; none for that one itself.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub against_best: Option<Gain>,
    /// What a reader must know to read the figures rightly.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
    /// Accuracy of every group.
    pub groups: Vec<GroupAccuracy>,
}

/// How an arm does on one group.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct GroupAccuracy {
    /// The group.
    pub values: Group,
    /// Accuracy on the group's test images, mean over the seeds.
    pub accuracy: f64,
    /// 95 % interval of it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub interval: Option<Interval>,
    /// The group's test images.
    pub images: u64,
}

/// An arm that could not be run.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct SkippedArm {
    /// The arm.
    pub name: String,
    /// Why, in words.
    pub why: String,
}

/// How the balanced data fares with fewer or more generated images.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Sweep {
    /// How many times the classifier was trained for each share.
    pub seeds: u32,
    /// The shares, from the smallest.
    pub shares: Vec<SweepShare>,
    /// The smallest share from which no larger one is better in the worst group beyond chance; none where too few shares
    /// or trainings were tried to say.
    pub plateau: Option<f64>,
}

/// One share of the generated images.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct SweepShare {
    /// The share of what the plan adds; 1 is the plan.
    pub share: f64,
    /// How many images that is.
    pub wanted: u64,
    /// How many there were.
    pub generated_images: u64,
    /// Accuracy over all test images, mean over the seeds.
    pub accuracy: f64,
    /// 95 % interval of it.
    pub accuracy_interval: Option<Interval>,
    /// Accuracy in the group that it does worst on, mean over the seeds.
    pub worst_group: f64,
    /// 95 % interval of it.
    pub worst_group_interval: Option<Interval>,
}

/// How far the generated images of one group, or all of them, lie from the real ones.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct GroupDistances {
    /// The group; none for all images.
    pub group: Option<Group>,
    /// Real training images to generated ones.
    pub generated: Option<Distances>,
    /// The floor: real training images to real test images.
    pub floor: Option<Distances>,
}

/// Distances between real training images and others; what so few images cannot give is none.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Distances {
    /// Real training images.
    pub real: u64,
    /// The other images.
    pub others: u64,
    /// Frechet distance.
    pub frechet: Option<f64>,
    /// Kernel distance.
    pub kernel: Option<KernelDistance>,
    /// Share of the others that look like a real training image.
    pub precision: Option<f64>,
    /// Share of the real training images that look like one of the others.
    pub recall: Option<f64>,
}

/// A kernel distance and how sure it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct KernelDistance {
    /// The estimate; below zero by chance where the images are alike.
    pub value: f64,
    /// Its standard error.
    pub standard_error: f64,
}

impl Evidence {
    /// The arm with this name.
    pub fn arm(&self, name: &str) -> Option<&Arm> {
        self.arms.iter().find(|arm| arm.name == name)
    }

    /// The arm that answers the question: `balanced`, else the last one.
    pub fn balanced(&self) -> Option<&Arm> {
        self.arm("balanced").or(self.arms.last())
    }

    /// The difference in accuracy over all test images, where it lies below zero beyond chance: to the data as it was, or
    /// else to the best arm without generated images.
    pub fn lost_overall(&self) -> Option<&Gain> {
        let fell = |gain: &&Gain| gain.accuracy_interval.is_some_and(|[_, high]| high < 0.0);
        [&self.gain_as_is, &self.gain].into_iter().flatten().find(fell)
    }

    /// Whether the balanced data does better than the data as it was, though not than the best arm.
    pub fn better_than_as_is(&self) -> bool {
        self.gain_as_is.as_ref().is_some_and(|gain| gain.worst_group > 0.0)
    }

    /// Strong arms without generated images that were not tried, so that no gain is shown above them.
    pub fn untried_baselines(&self) -> Vec<&'static str> {
        ["oversample", "reweight"].into_iter().filter(|name| self.arm(name).is_none()).collect()
    }

    /// The arm that the verdict compares with: the one that the gain names, else the data as it was.
    pub fn best_baseline(&self) -> Option<&Arm> {
        let over = self.gain.as_ref().and_then(|gain| self.arm(&gain.over));
        over.or(self.arms.first().filter(|_| self.arms.len() > 1))
    }
}
