//! What the job says about evidence: which arms, how many seeds, which classifier.

use evenset_nn::classifier::Architecture;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{Arm, Baseline, Error, Variant};

/// The largest share of a sweep.
const LARGEST_SHARE: f64 = 3.0;
/// Hidden layers of the classifier `mlp` at most, and units of each.
const MOST_LAYERS: usize = 16;
const MOST_UNITS: u32 = 4096;

/// The classifier that every arm trains.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum ClassifierKind {
    /// A small convolutional network, as wide as `width` says.
    #[default]
    Cnn,
    /// Fully connected layers on the pixels, as `hidden` says: the network of the Colored MNIST literature.
    Mlp,
    /// One linear layer on feature vectors of the images.
    Linear,
}

/// How the evidence is gathered. Every arm gets the same classifier, the same number of steps and the same seeds.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct EvidenceConfig {
    /// How many classifiers are trained for each arm, each with its own seed. Fewer than five
    /// give no verdict.
    #[schemars(range(min = 1, max = 100))]
    pub seeds: u32,
    /// What is trained: `cnn` and `mlp` look at pixels, `linear` at feature vectors.
    pub classifier: ClassifierKind,
    /// The baselines on real images alone that the balanced data must beat. `as-is` is always run.
    pub baselines: Vec<Baseline>,
    /// Other ways to use the generated images, beside `balanced`, which is always run.
    pub variants: Vec<Variant>,
    /// Gradient steps of each classifier, the same for every arm.
    #[schemars(range(min = 1))]
    pub steps: u32,
    /// Images in one gradient step.
    #[schemars(range(min = 1, max = 4096))]
    pub batch: u32,
    /// Channels of the first stage of the classifier `cnn`, a multiple of four; later stages have more.
    #[schemars(range(min = 4, max = 256))]
    pub width: u32,
    /// Units of each hidden layer of the classifier `mlp`.
    #[schemars(length(min = 1, max = 16))]
    pub hidden: Vec<u32>,
    /// Highest learning rate, reached after a short warm-up; it then falls to zero.
    pub learning_rate: f64,
    /// Whether the training images of every arm are changed at random, as those of the baseline `augment` are, which most
    /// people do in earnest: what balance is worth beside that is then the question.
    pub augment: bool,
    /// Whether a mirrored image keeps its label, where images are changed at random; set it to false for text, digits, or
    /// left and right.
    pub flip: bool,
    /// Groups with fewer test images than this are reported, but do not count as the worst group.
    #[schemars(range(min = 1))]
    pub smallest_group: u32,
    /// Share of each real training group that is held out to choose the best step of each training by the accuracy of its
    /// worst group; 0 keeps the last step. A validation split of the dataset takes its place.
    #[schemars(range(min = 0.0, max = 0.5))]
    pub validation_share: f64,
    /// How fast the weights of the groups follow their losses in the baseline `group-dro`.
    pub group_dro_step: f64,
    /// What a generated image weighs in `balanced-discount`, where a real one weighs 1.
    #[schemars(range(min = 0.0, max = 1.0))]
    pub generated_weight: f64,
    /// Shares of the images that the plan adds to each group, 0 to 3: `balanced` is trained with each, to see how many are
    /// enough.
    pub sweep: Vec<f64>,
    /// Groups that are held out of everything, composed by a generator that never saw them, and judged by themselves: this
    /// trains a second generator. 0 does without.
    pub held_out_groups: u32,
}

impl Default for EvidenceConfig {
    fn default() -> Self {
        Self {
            seeds: 5,
            classifier: ClassifierKind::Cnn,
            baselines: vec![
                Baseline::AsIs,
                Baseline::Oversample,
                Baseline::Undersample,
                Baseline::Reweight,
                Baseline::MatchWeights,
                Baseline::Augment,
                Baseline::GroupDro,
            ],
            variants: vec![Variant::GeneratedOnly, Variant::BalancedDiscount],
            steps: 1000,
            batch: 32,
            width: 8,
            hidden: vec![100, 100, 100],
            learning_rate: 6e-3,
            augment: false,
            flip: true,
            smallest_group: 10,
            validation_share: 0.1,
            group_dro_step: 0.01,
            generated_weight: 0.5,
            sweep: Vec::new(),
            held_out_groups: 0,
        }
    }
}

impl EvidenceConfig {
    /// The arms to run, in the order of the report, each once: `as-is`, the other baselines, and those with generated
    /// images.
    pub fn arms(&self) -> Vec<Arm> {
        let mut arms = vec![Arm::AsIs, Arm::Balanced];
        arms.extend(self.baselines.iter().map(|&baseline| Arm::from(baseline)));
        arms.extend(self.variants.iter().map(|&variant| Arm::from(variant)));
        // Where all arms change images, that one is `as-is`.
        arms.retain(|arm| !(self.augment && *arm == Arm::Augment));
        arms.sort_unstable();
        arms.dedup();
        arms
    }

    /// What one training follows: the settings without those that say which trainings there are.
    #[must_use]
    pub fn of_one_training(&self) -> Self {
        Self {
            seeds: 1,
            baselines: Vec::new(),
            variants: Vec::new(),
            sweep: Vec::new(),
            held_out_groups: 0,
            ..self.clone()
        }
    }

    /// The shares of the sweep, from the smallest, each once.
    pub fn shares(&self) -> Vec<f64> {
        let mut shares = self.sweep.clone();
        shares.sort_by(f64::total_cmp);
        shares.dedup();
        shares
    }

    /// Checks what a schema cannot say.
    ///
    /// # Errors
    /// [`Error::Config`], naming the key.
    pub fn check(&self) -> Result<(), Error> {
        let refuse = |key: &'static str, expected: &'static str| Err(Error::Config { key, expected });
        let positive = |value: f64| value > 0.0 && value.is_finite();
        if !(1..=100).contains(&self.seeds) {
            return refuse("seeds", "a whole number from 1 to 100");
        }
        if self.steps == 0 {
            return refuse("steps", "a whole number from 1");
        }
        if !(1..=4096).contains(&self.batch) {
            return refuse("batch", "a whole number from 1 to 4096");
        }
        let whole = self.classifier != ClassifierKind::Cnn || self.width.is_multiple_of(4);
        if !(4..=256).contains(&self.width) || !whole {
            return refuse("width", "a multiple of 4 from 4 to 256");
        }
        let layers_fit = (1..=MOST_LAYERS).contains(&self.hidden.len());
        if !layers_fit || !self.hidden.iter().all(|units| (1..=MOST_UNITS).contains(units)) {
            return refuse("hidden", "a list of 1 to 16 whole numbers, each from 1 to 4096");
        }
        if !positive(self.learning_rate) || self.learning_rate > 1.0 {
            return refuse("learning_rate", "a number above 0, at most 1");
        }
        if self.augment && self.classifier == ClassifierKind::Linear {
            return refuse("augment", "false with the classifier `linear`, which sees feature vectors and no pixels");
        }
        if self.smallest_group == 0 {
            return refuse("smallest_group", "a whole number from 1");
        }
        if !(0.0..=0.5).contains(&self.validation_share) {
            return refuse("validation_share", "a number from 0 to 0.5");
        }
        if !positive(self.group_dro_step) {
            return refuse("group_dro_step", "a number above 0");
        }
        if !(0.0..=1.0).contains(&self.generated_weight) {
            return refuse("generated_weight", "a number from 0 to 1");
        }
        if self.sweep.iter().any(|share| !(0.0..=LARGEST_SHARE).contains(share)) {
            return refuse("sweep", "a list of numbers from 0 to 3");
        }
        Ok(())
    }

    /// What the classifier is made of.
    pub(crate) fn architecture(&self) -> Architecture {
        match self.classifier {
            ClassifierKind::Cnn => Architecture::Cnn,
            ClassifierKind::Mlp => Architecture::Mlp(self.hidden.clone()),
            ClassifierKind::Linear => Architecture::Linear,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_data_as_it_was_is_always_an_arm_and_no_arm_runs_twice() {
        let text = r#"{"baselines":["reweight","reweight"],"variants":["balanced-reweight"]}"#;
        let config: EvidenceConfig = serde_json::from_str(text).unwrap();
        assert_eq!(config.arms(), [Arm::AsIs, Arm::Reweight, Arm::Balanced, Arm::BalancedReweight]);
        let all_change = EvidenceConfig { augment: true, ..EvidenceConfig::default() };
        assert!(!all_change.arms().contains(&Arm::Augment) && all_change.arms().contains(&Arm::Oversample));
        assert_eq!((config.seeds, config.steps), (5, EvidenceConfig::default().steps));
        assert!(serde_json::from_str::<EvidenceConfig>(r#"{"sedes":3}"#).is_err());
    }

    #[test]
    fn impossible_values_are_refused_by_their_key() {
        let refuse = |text: &str| {
            let config: EvidenceConfig = serde_json::from_str(text).unwrap();
            config.check().unwrap_err().to_string()
        };
        assert!(EvidenceConfig::default().check().is_ok());
        assert!(refuse(r#"{"sweep":[0.5,4]}"#).contains("`evidence.sweep`"));
        assert!(refuse(r#"{"validation_share":0.9}"#).contains("from 0 to 0.5"));
        assert!(refuse(r#"{"generated_weight":-1}"#).contains("generated_weight"));
        assert!(refuse(r#"{"group_dro_step":0}"#).contains("group_dro_step"));
        assert!(refuse(r#"{"steps":0}"#).contains("steps"));
        assert!(refuse(r#"{"width":10}"#).contains("a multiple of 4"));
        assert!(refuse(r#"{"hidden":[]}"#).contains("`evidence.hidden`"));
        assert!(refuse(r#"{"hidden":[100,0]}"#).contains("from 1 to 4096"));
        assert!(refuse(r#"{"smallest_group":0}"#).contains("smallest_group"));
        assert!(refuse(r#"{"augment":true,"classifier":"linear"}"#).contains("sees feature vectors"));
    }
}
