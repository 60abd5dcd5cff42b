//! Guides: real images that candidates start from, and how the next one is started.
//!
//! Where a group is tiny, a generator that never saw enough of it may do better from a real image of a neighbouring group
//! than from nothing. Which neighbour, how much of the image to leave and how hard to guide differ from group to group,
//! so they are learned while the rounds go on: every choice is an arm of a bandit, and its reward is whether the gates
//! accepted the image. Arms are drawn by Thompson sampling (Thompson 1933; Chapelle and Li 2011): of each arm an
//! acceptance rate is drawn from what is known about it, and the arm with the highest is taken. What is known of a group
//! begins with what is known of the same arm in all groups, worth a few images. All draws come from the request's own
//! seed, so choices depend on the earlier rounds alone.

use std::collections::BTreeMap;
use std::fmt;

use evenset_core::{Group, Seed};
use rand_distr::{Beta, Distribution};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::PlanError;

/// What all other groups know of an arm counts in a group as much as this many images.
const SHARED: f64 = 8.0;

/// Real images that candidates start from (image-to-image).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct GuidesConfig {
    /// Groups with fewer real images than this are drawn from guides. Default: 50.
    pub below: u64,
    /// How much of a guide may be changed, above 0 to 1; each is tried. Default: 0.4, 0.6, 0.8.
    pub strengths: Vec<f64>,
    /// Guidance scales to try. Default: the sampler's alone.
    pub guidances: Vec<f64>,
    /// Where guides come from: `same-group`, `same-label` (another attribute), `same-attributes` (another label); each
    /// is tried. Default: same-group, same-label.
    pub sources: Vec<GuideSource>,
    /// Whether drawing from pure noise is tried beside the guides. Default: true.
    pub noise: bool,
    /// Whether guides are inverted (DDIM inversion) instead of noised: the image changes in what was asked to change and
    /// keeps the rest, even at strength 1. Takes half as long again. Default: false.
    pub inversion: bool,
    /// Noise level (sigma, 0 to 10) at which inversion begins, the nearest of the sampler's; a guide gets that much noise
    /// first. At 0 an image keeps most of its guide. At 0.1 a generator that was trained long draws images more like
    /// real ones, since it was never shown an image without noise. Default: 0.
    pub inversion_noise: f64,
    /// Column of masks that belong to the real images, white where a guide is drawn anew and black where it stays: image
    /// files in the data, or paths of some. Default: all of a guide may change.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mask: Option<String>,
}

impl Default for GuidesConfig {
    fn default() -> Self {
        Self {
            below: 50,
            strengths: vec![0.4, 0.6, 0.8],
            guidances: Vec::new(),
            sources: vec![GuideSource::SameGroup, GuideSource::SameLabel],
            noise: true,
            inversion: false,
            inversion_noise: 0.0,
            mask: None,
        }
    }
}

/// Which real images may guide a candidate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum GuideSource {
    /// Images of the group that is asked for.
    SameGroup,
    /// Images with the group's label and other values of the other attributes.
    SameLabel,
    /// Images with the group's other attributes and another label.
    SameAttributes,
}

impl GuideSource {
    /// The name as it is written in jobs.
    pub fn name(self) -> &'static str {
        match self {
            Self::SameGroup => "same-group",
            Self::SameLabel => "same-label",
            Self::SameAttributes => "same-attributes",
        }
    }

    /// Whether a real image of the group `of` may guide one that is asked to be in `asked`. Without a label the groups
    /// that share a value stand for those that share the label.
    pub fn allows(self, asked: &Group, of: &Group, label: Option<&str>) -> bool {
        let same = |attribute: &str| asked.get(attribute) == of.get(attribute);
        let is_label = |attribute: &&str| label == Some(*attribute);
        match self {
            Self::SameGroup => asked == of,
            Self::SameLabel => match label.filter(|label| asked.get(label).is_some()) {
                Some(label) => same(label) && asked != of,
                None => asked != of && asked.attributes().any(same),
            },
            Self::SameAttributes => asked != of && asked.attributes().filter(|a| !is_label(a)).all(same),
        }
    }
}

/// One way to start an image.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GuideArm {
    /// Where the guide comes from and how much of it may be changed; none starts from pure noise.
    pub guide: Option<(GuideSource, f64)>,
    /// The guidance scale; none is the sampler's.
    pub guidance: Option<f64>,
}

impl fmt::Display for GuideArm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.guide {
            Some((source, strength)) => write!(f, "{} at strength {strength}", source.name())?,
            None => f.write_str("from noise")?,
        }
        self.guidance.map_or(Ok(()), |guidance| write!(f, ", guidance {guidance}"))
    }
}

impl GuidesConfig {
    /// Checks the values.
    ///
    /// # Errors
    /// [`PlanError::Value`], naming the key.
    pub fn validate(&self) -> Result<(), PlanError> {
        let wrong = |key, found: String, expected| Err(PlanError::Value { key, found, expected });
        if let Some(strength) = self.strengths.iter().find(|&&strength| !(strength > 0.0 && strength <= 1.0)) {
            return wrong("strengths", strength.to_string(), "numbers above 0, at most 1");
        }
        if let Some(guidance) = self.guidances.iter().find(|&&guidance| !(0.0..=100.0).contains(&guidance)) {
            return wrong("guidances", guidance.to_string(), "numbers from 0 to 100");
        }
        if !(0.0..=10.0).contains(&self.inversion_noise) {
            return wrong("inversion_noise", self.inversion_noise.to_string(), "a number from 0 to 10");
        }
        if self.arms().is_empty() {
            return wrong("strengths", "none".into(), "at least one strength and one source, or `noise: true`");
        }
        if self.arms().len() > 256 {
            return wrong("strengths", format!("{} ways to start an image", self.arms().len()), "at most 256 in all");
        }
        Ok(())
    }

    /// Every way to start an image, in a fixed order; pure noise first.
    pub fn arms(&self) -> Vec<GuideArm> {
        let noise = self.noise.then_some(None);
        let guided = self.sources.iter().flat_map(|&source| self.strengths.iter().map(move |&s| Some((source, s))));
        let guidances: Vec<Option<f64>> =
            if self.guidances.is_empty() { vec![None] } else { self.guidances.iter().copied().map(Some).collect() };
        let mut arms: Vec<GuideArm> = Vec::new();
        for guide in noise.into_iter().chain(guided) {
            for &guidance in &guidances {
                let arm = GuideArm { guide, guidance };
                if !arms.contains(&arm) {
                    arms.push(arm);
                }
            }
        }
        arms
    }
}

/// How the arms fared so far: for each group and arm how many images were accepted, of how many.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct GuideHistory {
    groups: BTreeMap<Group, BTreeMap<usize, (u64, u64)>>,
}

impl GuideHistory {
    /// Counts one more image that was started by the arm with this number.
    pub fn count(&mut self, group: &Group, arm: usize, accepted: bool) {
        let entry = self.groups.entry(group.clone()).or_default().entry(arm).or_default();
        entry.0 += u64::from(accepted);
        entry.1 += 1;
    }

    /// Accepted and all images of an arm in a group.
    pub fn of(&self, group: &Group, arm: usize) -> (u64, u64) {
        self.groups.get(group).and_then(|arms| arms.get(&arm)).copied().unwrap_or_default()
    }

    /// Accepted and all images of an arm over all groups.
    pub fn overall(&self, arm: usize) -> (u64, u64) {
        let of_arm = self.groups.values().filter_map(|arms| arms.get(&arm));
        of_arm.fold((0, 0), |(kept, all), &(k, a)| (kept + k, all + a))
    }

    /// The groups that images were started for.
    pub fn groups(&self) -> impl Iterator<Item = &Group> {
        self.groups.keys()
    }

    /// The number of the arm that starts the request with this seed; `open` are the arms that have guides for the group.
    pub fn choose(&self, group: &Group, open: &[usize], seed: Seed) -> Option<usize> {
        let mut rng = seed.derive("guide").rng();
        let mut best: Option<(usize, f64)> = None;
        for &arm in open {
            let (kept, all) = self.of(group, arm);
            let (shared_kept, shared_all) = self.overall(arm);
            // The rest of the groups, worth at most a few images, on top of an even start.
            let (kept_there, all_there) = ((shared_kept - kept) as f64, (shared_all - all) as f64);
            let worth = if all_there > 0.0 { SHARED.min(all_there) / all_there } else { 0.0 };
            let right = 1.0 + kept as f64 + worth * kept_there;
            let wrong = 1.0 + (all - kept) as f64 + worth * (all_there - kept_there);
            let drawn = Beta::new(right, wrong).map_or(0.0, |beta| beta.sample(&mut rng));
            if best.is_none_or(|(_, highest)| drawn > highest) {
                best = Some((arm, drawn));
            }
        }
        best.map(|(arm, _)| arm)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn group(text: &str) -> Group {
        text.parse().unwrap()
    }

    #[test]
    fn arms_are_every_combination_once() {
        let config = GuidesConfig { strengths: vec![0.5, 0.5, 0.8], guidances: vec![1.5, 2.0], ..Default::default() };
        let arms = config.arms();
        assert_eq!(arms.len(), 2 * (1 + 2 * 2));
        assert_eq!(arms[0].to_string(), "from noise, guidance 1.5");
        assert_eq!(arms[2].to_string(), "same-group at strength 0.5, guidance 1.5");
        assert_eq!(GuidesConfig::default().arms()[0], GuideArm { guide: None, guidance: None });
        let none = GuidesConfig { strengths: vec![], noise: false, ..Default::default() };
        assert!(none.validate().unwrap_err().to_string().contains("strengths"));
        for (inversion_noise, fits) in [(0.0, true), (10.0, true), (-0.1, false), (11.0, false), (f64::NAN, false)] {
            let config = GuidesConfig { inversion_noise, ..Default::default() };
            assert_eq!(config.validate().is_ok(), fits, "{inversion_noise}");
        }
        let wrong = GuidesConfig { strengths: vec![0.0], ..Default::default() };
        assert!(wrong.validate().is_err() && GuidesConfig::default().validate().is_ok());
    }

    #[test]
    fn guides_come_from_where_they_may() {
        let asked = group("digit=3 & colour=red");
        let allowed = |source: GuideSource, of: &str| source.allows(&asked, &group(of), Some("digit"));
        assert!(allowed(GuideSource::SameGroup, "digit=3 & colour=red"));
        assert!(!allowed(GuideSource::SameGroup, "digit=3 & colour=blue"));
        assert!(allowed(GuideSource::SameLabel, "digit=3 & colour=blue"));
        assert!(!allowed(GuideSource::SameLabel, "digit=3 & colour=red"));
        assert!(!allowed(GuideSource::SameLabel, "digit=4 & colour=blue"));
        assert!(allowed(GuideSource::SameAttributes, "digit=4 & colour=red"));
        assert!(!allowed(GuideSource::SameAttributes, "digit=4 & colour=blue"));
    }

    #[test]
    fn the_better_arm_is_found_and_the_same_seed_chooses_the_same() {
        let rates = [0.2, 0.7, 0.4];
        let red = group("digit=3 & colour=red");
        let mut history = GuideHistory::default();
        let mut chosen = [0u32; 3];
        for i in 0..600u64 {
            let seed = Seed(8).index(i);
            let arm = history.choose(&red, &[0, 1, 2], seed).unwrap();
            assert_eq!(history.choose(&red, &[0, 1, 2], seed), Some(arm));
            chosen[arm] += 1;
            let lucky = (seed.derive("luck").0 % 1000) as f64 / 1000.0;
            history.count(&red, arm, lucky < rates[arm]);
        }
        assert!(chosen[1] > 480, "{chosen:?}");
        // Another group begins with what this one found out, and a closed arm is never chosen.
        let blue = group("digit=3 & colour=blue");
        let first: Vec<usize> = (0..200).filter_map(|i| history.choose(&blue, &[0, 1, 2], Seed(9).index(i))).collect();
        assert!(first.iter().filter(|&&arm| arm == 1).count() > 120);
        assert_eq!(history.choose(&blue, &[2], Seed(1)), Some(2));
        assert_eq!(history.choose(&blue, &[], Seed(1)), None);
    }
}
