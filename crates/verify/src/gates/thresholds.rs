//! How sure the recogniser must be of each value, so that only a stated share of wrong images passes.
//!
//! An image passes as `colour=blue` where blue is the recogniser's first choice and its probability is at least the
//! value's threshold. Held-out real images of *other* colours say where that threshold lies: with `n` of them, at most
//! `floor(a (n + 1)) - 1` may pass for a false-accept rate of `a`. For images like the held-out ones this bounds the
//! expected rate by `a` whatever the recogniser is worth (split conformal prediction; Vovk, Gammerman and Shafer 2005,
//! "Algorithmic Learning in a Random World"); a weak recogniser passes fewer right images instead.
//!
//! Errors differ between groups: what passes as a blue coat is, above all, whatever else is blue. So where the images that
//! share all other values with a group are enough to calibrate, the group has a threshold of its own.

use std::collections::BTreeMap;

use evenset_core::Group;
use evenset_nn::classifier::Prediction;
use serde::{Deserialize, Serialize};

use crate::Share;

/// How sure the recogniser must be of one value.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Threshold {
    /// The least probability, 0 to 1, at which the value passes; it must be the first choice besides. Above 1 nothing
    /// passes.
    pub least: f32,
    /// Whether it was calibrated. It is the job's own or stands in where there were too few images.
    pub calibrated: bool,
    /// Held-out real images with another value: what it is calibrated on.
    pub others: u64,
    /// Of held-out real images with another value, those that pass. Each half of them is judged by the threshold that
    /// the other half gives, so no image is judged by a threshold that it helped to set. Nothing is shown where a half is
    /// too small to give one: images that set a threshold pass it as often as they are allowed to, whatever it is worth.
    pub false_accept: Share,
    /// Of held-out real images with the value, those that pass.
    pub recall: Share,
}

/// The thresholds of one attribute.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Thresholds {
    /// The share of wrong images that they let pass; none where the job names the threshold itself.
    pub aim: Option<f64>,
    /// One for each value, in the values' order.
    pub values: Vec<Threshold>,
    /// For groups where the images that differ in this attribute alone are enough to calibrate.
    pub groups: Vec<GroupThreshold>,
}

/// The threshold of one value among images that share their other values.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GroupThreshold {
    /// The group: all attributes, this one's value among them.
    pub group: Group,
    /// How sure the recogniser must be.
    pub threshold: Threshold,
}

/// One held-out real image with a value of the attribute.
#[derive(Clone, Debug)]
pub(crate) struct Seen {
    /// Its value.
    pub(crate) truth: usize,
    /// What the recogniser takes it for.
    pub(crate) first: usize,
    /// The probability of that.
    pub(crate) probability: f32,
    /// All its attributes but this one.
    pub(crate) rest: Group,
}

/// What thresholds are to reach.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Aim {
    /// The share of wrong images that may pass.
    pub(crate) false_accept: f64,
    /// The job's own threshold, which is then not calibrated.
    pub(crate) fixed: Option<f64>,
}

/// Held-out images that a share of them needs before a limit can be set that no more than this share passes, for example
/// images of other values for a false-accept rate.
pub fn images_needed(false_accept: f64) -> u64 {
    (1.0 / false_accept).ceil() as u64 - 1
}

/// The threshold where calibration is impossible: more likely than everything else together.
pub(crate) const UNCALIBRATED: f32 = 0.5;

impl Thresholds {
    /// From held-out images and the values' names.
    pub(crate) fn calibrate(attribute: &str, values: &[String], seen: &[Seen], aim: Aim) -> Self {
        let all: Vec<&Seen> = seen.iter().collect();
        let of_values = (0..values.len()).map(|value| threshold(&all, value, aim)).collect();
        let mut contexts = BTreeMap::<&Group, Vec<&Seen>>::new();
        for image in seen {
            contexts.entry(&image.rest).or_default().push(image);
        }
        let mut groups = Vec::new();
        // With one attribute there is no context: every group is a value.
        contexts.retain(|rest, _| !rest.is_empty());
        for (rest, images) in contexts.iter().filter(|_| aim.fixed.is_none()) {
            for (value, name) in values.iter().enumerate() {
                let threshold = threshold(images, value, aim);
                let pairs = rest.pairs().chain([(attribute, name.as_str())]);
                if let (true, Ok(group)) = (threshold.calibrated, Group::new(pairs)) {
                    groups.push(GroupThreshold { group, threshold });
                }
            }
        }
        groups.sort_by(|a, b| a.group.cmp(&b.group));
        Self { aim: aim.fixed.is_none().then_some(aim.false_accept), values: of_values, groups }
    }

    /// The threshold of a value for an image that was asked to be in `group`.
    pub(crate) fn of(&self, value: usize, group: &Group) -> Option<&Threshold> {
        let own = self.groups.binary_search_by(|known| known.group.cmp(group)).ok();
        own.map(|place| &self.groups[place].threshold).or_else(|| self.values.get(value))
    }
}

/// The threshold of `value` by these images.
fn threshold(images: &[&Seen], value: usize, aim: Aim) -> Threshold {
    // What the recogniser gives the value, in images that it takes for the value; nothing in all others.
    let score = |image: &&Seen| if image.first == value { image.probability } else { 0.0 };
    let wrong: Vec<f32> = images.iter().filter(|image| image.truth != value).map(score).collect();
    let right: Vec<f32> = images.iter().filter(|image| image.truth == value).map(score).collect();
    let passes = |scores: &[f32], least: f32| scores.iter().filter(|&&score| score > 0.0 && score >= least).count();
    let share = |scores: &[f32], least: f32| Share::new(passes(scores, least) as u64, scores.len() as u64);
    let calibrated = aim.fixed.is_none().then(|| least(&wrong, aim.false_accept)).flatten();
    let least_of = |limit: f32, false_accept: Share| Threshold {
        least: limit,
        calibrated: calibrated.is_some(),
        others: wrong.len() as u64,
        false_accept,
        recall: share(&right, limit),
    };
    match calibrated {
        Some(limit) => {
            let halves = [0, 1].map(|half| -> Vec<f32> { wrong.iter().skip(half).step_by(2).copied().collect() });
            let judged = |half: usize| Some(passes(&halves[half], least(&halves[1 - half], aim.false_accept)?));
            let passed = judged(0).zip(judged(1)).map(|(first, second)| (first + second) as u64);
            least_of(limit, passed.map_or(Share::new(0, 0), |passed| Share::new(passed, wrong.len() as u64)))
        }
        None => {
            let limit = aim.fixed.map_or(UNCALIBRATED, |fixed| fixed as f32);
            least_of(limit, share(&wrong, limit))
        }
    }
}

/// The smallest threshold that few enough of the wrong images pass; none where they are too few.
fn least(wrong: &[f32], false_accept: f64) -> Option<f32> {
    let n = wrong.len();
    if (n as u64) < images_needed(false_accept) {
        return None;
    }
    let allowed = ((false_accept * (n + 1) as f64).floor() as usize).saturating_sub(1);
    let mut scores = wrong.to_vec();
    scores.sort_by(|a, b| b.total_cmp(a));
    // Just above the best score that may not pass.
    Some(scores.get(allowed).map_or(0.0, |&score| if score > 0.0 { score.next_up() } else { 0.0 }))
}

/// What a prediction says about an image of known value.
pub(crate) fn seen(prediction: &Prediction, row: usize, truth: u32, rest: Group) -> Seen {
    let (first, probability) = prediction.argmax(row);
    // Where recognisers do not agree, nothing is seen.
    let first = if probability > 0.0 { first as usize } else { usize::MAX };
    Seen { truth: truth as usize, first, probability, rest }
}

#[cfg(test)]
mod tests {
    use evenset_core::Seed;
    use rand::RngExt;

    use super::*;

    fn image(truth: usize, first: usize, probability: f32, rest: &str) -> Seen {
        Seen { truth, first, probability, rest: Group::new([("colour", rest)]).unwrap() }
    }

    fn names(n: usize) -> Vec<String> {
        (0..n).map(|i| i.to_string()).collect()
    }

    const AIM: Aim = Aim { false_accept: 0.05, fixed: None };

    #[test]
    fn as_many_wrong_images_pass_as_the_rate_allows() {
        // 99 wrong images, all taken for the value, with probabilities 0.01 to 0.99: floor(0.05 * 100) - 1 = 4 may pass.
        let wrong: Vec<f32> = (1..100).map(|i| i as f32 / 100.0).collect();
        let limit = least(&wrong, 0.05).unwrap();
        assert_eq!(wrong.iter().filter(|&&p| p >= limit).count(), 4);
        assert_eq!(images_needed(0.05), 19);
        assert!(least(&wrong[..18], 0.05).is_none() && least(&wrong[..19], 0.05).is_some());
        assert_eq!(least(&[0.0; 40], 0.05), Some(0.0), "nothing is confused: the first choice is enough");
    }

    #[test]
    fn new_wrong_images_pass_at_most_at_the_stated_rate_on_average() {
        let mut rng = Seed(5).rng();
        let mut draw = |n: usize| -> Vec<f32> { (0..n).map(|_| rng.random::<f32>().powi(2)).collect() };
        let mut passed = 0.0;
        for _ in 0..400 {
            let limit = least(&draw(50), 0.1).unwrap();
            passed += draw(200).iter().filter(|&&p| p >= limit).count() as f64 / 200.0;
        }
        let rate = passed / 400.0;
        // floor(0.1 * 51) - 1 = 4 of 50 lie at or above: the next image does with probability 4.. 5 of 51.
        assert!((0.06..=0.1).contains(&rate), "{rate}");
    }

    #[test]
    fn a_group_with_enough_images_has_a_threshold_of_its_own() {
        // In red, images of 1 are taken for 0 with confidence; elsewhere never.
        let mut seen: Vec<Seen> = (0..40).map(|i| image(1, 0, 0.6 + 0.005 * i as f32, "red")).collect();
        seen.extend((0..400).map(|_| image(1, 1, 0.9, "blue")));
        seen.extend((0..10).map(|_| image(0, 0, 0.95, "green")));
        let thresholds = Thresholds::calibrate("digit", &names(2), &seen, AIM);
        let group = |colour: &str| Group::new([("colour", colour), ("digit", "0")]).unwrap();
        let (red, blue) = (thresholds.of(0, &group("red")).unwrap(), thresholds.of(0, &group("blue")).unwrap());
        assert!(red.calibrated && red.least > 0.78, "{red:?}");
        assert_eq!((blue.calibrated, blue.least), (true, 0.0));
        let green = thresholds.of(0, &group("green")).unwrap();
        assert_eq!(green, &thresholds.values[0], "ten images are too few: the value's own threshold");
        assert_eq!((green.recall.kept, green.recall.shown), (10, 10));
    }

    #[test]
    fn a_threshold_of_the_job_is_kept_and_too_few_images_are_said_so() {
        let seen: Vec<Seen> = (0..30).map(|_| image(1, 0, 0.7, "red")).collect();
        let fixed = Thresholds::calibrate("digit", &names(2), &seen, Aim { fixed: Some(0.6), ..AIM });
        assert_eq!((fixed.values[0].least, fixed.values[0].calibrated, fixed.groups.len()), (0.6, false, 0));
        assert_eq!(fixed.values[0].false_accept.rate, 1.0);
        let few = Thresholds::calibrate("digit", &names(2), &seen[..5], AIM);
        assert_eq!((few.values[0].least, few.values[0].calibrated, few.values[0].others), (0.5, false, 5));
        assert_eq!((fixed.aim, few.aim), (None, Some(0.05)));
    }

    #[test]
    fn no_image_is_judged_by_a_threshold_that_it_helped_to_set() {
        let wrong = |n: usize| -> Vec<Seen> { (0..n).map(|i| image(1, 0, 0.3 + 0.01 * i as f32, "red")).collect() };
        let of = |n: usize| Thresholds::calibrate("digit", &names(2), &wrong(n), AIM).values.remove(0);
        let (few, enough) = (of(30), of(40));
        assert!(few.calibrated && few.false_accept.shown == 0, "halves of 15 images give no threshold: {few:?}");
        assert_eq!((enough.others, enough.false_accept.shown), (40, 40));
        // Each half of 20 gives its largest probability but none above it: the largest of all passes the other half's.
        assert_eq!(enough.false_accept.kept, 1, "{enough:?}");
    }
}
