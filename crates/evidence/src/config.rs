//! What the job says about evidence: which baselines, how many seeds, how large a classifier.

use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A usual remedy for unbalanced data that needs no generated image. A generator is worth its cost only above these.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Baseline {
    /// The real training images, each drawn equally often.
    AsIs,
    /// The real training images, drawn so that every group is seen equally often.
    Oversample,
    /// The real training images, the loss of each weighted by the inverse size of its group.
    Reweight,
    /// The real training images, mirrored and shifted at random.
    Augment,
}

/// What a classifier is trained on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Arm {
    /// [`Baseline::AsIs`].
    AsIs,
    /// [`Baseline::Oversample`].
    Oversample,
    /// [`Baseline::Reweight`].
    Reweight,
    /// [`Baseline::Augment`].
    Augment,
    /// The real training images and the accepted generated ones together, drawn so that every group is seen equally
    /// often: [`Baseline::Oversample`] with generated images.
    Balanced,
}

impl From<Baseline> for Arm {
    fn from(baseline: Baseline) -> Self {
        match baseline {
            Baseline::AsIs => Self::AsIs,
            Baseline::Oversample => Self::Oversample,
            Baseline::Reweight => Self::Reweight,
            Baseline::Augment => Self::Augment,
        }
    }
}

impl Arm {
    /// The name as it is written in jobs and results: `as-is`, `oversample`, `reweight`, `augment`, `balanced`.
    pub fn name(self) -> &'static str {
        match self {
            Self::AsIs => "as-is",
            Self::Oversample => "oversample",
            Self::Reweight => "reweight",
            Self::Augment => "augment",
            Self::Balanced => "balanced",
        }
    }
}

impl fmt::Display for Arm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// How the evidence is gathered. Every arm gets the same classifier, the same number of steps and the same seeds.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct EvidenceConfig {
    /// How many classifiers are trained for each arm, each with its own seed. At least five for a claim.
    #[schemars(range(min = 1, max = 100))]
    pub seeds: u32,
    /// The baselines that the balanced data must beat. `as-is` is always run.
    pub baselines: Vec<Baseline>,
    /// Gradient steps of each classifier, the same for every arm.
    #[schemars(range(min = 1))]
    pub steps: u32,
    /// Images in one gradient step.
    #[schemars(range(min = 1, max = 4096))]
    pub batch: u32,
    /// Channels of the classifier's first stage; later stages have more.
    #[schemars(range(min = 4, max = 256))]
    pub width: u32,
    /// Highest learning rate, reached after a short warm-up; it then falls to zero.
    pub learning_rate: f64,
    /// Whether a mirrored image keeps its label, for the baseline `augment`; set it to false for text, digits, or left and
    /// right.
    pub flip: bool,
    /// Groups with fewer test images than this are reported, but do not count as the worst group.
    #[schemars(range(min = 1))]
    pub smallest_group: u32,
}

impl Default for EvidenceConfig {
    fn default() -> Self {
        Self {
            seeds: 5,
            baselines: vec![Baseline::AsIs, Baseline::Oversample, Baseline::Reweight, Baseline::Augment],
            steps: 1000,
            batch: 32,
            width: 8,
            learning_rate: 6e-3,
            flip: true,
            smallest_group: 10,
        }
    }
}

impl EvidenceConfig {
    /// The arms to run, in the order of the report: `as-is` first, the other baselines as named, `balanced` last.
    pub fn arms(&self) -> Vec<Arm> {
        let mut arms = vec![Arm::AsIs];
        for arm in self.baselines.iter().map(|&baseline| Arm::from(baseline)) {
            if !arms.contains(&arm) {
                arms.push(arm);
            }
        }
        arms.push(Arm::Balanced);
        arms
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_data_as_it_was_is_always_an_arm_and_no_arm_runs_twice() {
        let config: EvidenceConfig = serde_json::from_str(r#"{"baselines":["reweight","reweight"]}"#).unwrap();
        assert_eq!(config.arms(), [Arm::AsIs, Arm::Reweight, Arm::Balanced]);
        assert_eq!((config.seeds, config.steps), (5, EvidenceConfig::default().steps));
        assert!(serde_json::from_str::<EvidenceConfig>(r#"{"sedes":3}"#).is_err());
    }
}
