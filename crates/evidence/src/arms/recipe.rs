//! What each arm is trained on, and how: the whole difference between the arms.

use std::collections::{BTreeMap, BTreeSet};

use evenset_core::Seed;
use evenset_nn::classifier::{Augment, Objective, RandAugment, Sampling};
use rand::RngExt;

use super::weights::{inverse_group_size, matched};
use crate::metrics::attribute_values;
use crate::{Arm, Error, EvidenceConfig, EvidenceData, Labelled};

/// How strongly the arm `mixup` mixes.
const MIXUP_ALPHA: f64 = 0.2;

/// What an arm is trained on, and how.
pub(super) struct Recipe {
    /// The real images, then the generated ones.
    pub(super) train: Labelled,
    /// How many of them are real.
    pub(super) real: usize,
    pub(super) sampling: Sampling,
    pub(super) loss_weights: Option<Vec<f32>>,
    pub(super) augment: Augment,
    pub(super) rand_augment: RandAugment,
    /// The real images on which the last layer is trained afterwards.
    pub(super) last_layer: Option<Labelled>,
    /// What a reader of the run must know.
    pub(super) note: Option<String>,
    arm: Arm,
}

impl Recipe {
    /// The recipe of an arm; the training images at `held_out` are for validation.
    pub(super) fn of(
        arm: Arm,
        data: &EvidenceData,
        generated: &Labelled,
        held_out: &[usize],
        config: &EvidenceConfig,
        seed: Seed,
    ) -> Result<Self, Error> {
        let mut absent: BTreeSet<usize> = held_out.iter().copied().collect();
        if !arm.is_baseline() {
            absent.extend(&data.left_out);
        }
        let mut rows: Vec<usize> = match arm {
            Arm::GeneratedOnly => Vec::new(),
            _ => (0..data.train.labels.len()).filter(|row| !absent.contains(row)).collect(),
        };
        if arm == Arm::Undersample {
            rows = undersampled(&rows, &data.train.groups, seed);
        }
        let mut train = data.train.select(&rows);
        let last_layer = (arm == Arm::BalancedLastLayer).then(|| train.clone());
        let real = rows.len();
        if arm == Arm::GeneratedOnly {
            train = generated.clone();
        } else if !arm.is_baseline() {
            train.extend(generated)?;
        }
        if train.labels.is_empty() {
            let why = match arm {
                Arm::GeneratedOnly => "no generated image was accepted",
                _ => "the plan leaves out all real images and none was generated",
            };
            return Err(Error::Arm { arm, why: why.to_owned() });
        }
        let changed = config.augment || arm == Arm::Augment;
        let short = |weights: Vec<f64>| weights.into_iter().map(|weight| weight as f32).collect();
        Ok(Self {
            sampling: match arm {
                Arm::Oversample
                | Arm::GroupDro
                | Arm::GeneratedOnly
                | Arm::Balanced
                | Arm::BalancedDiscount
                | Arm::BalancedLastLayer => Sampling::Weighted(inverse_group_size(&train)),
                Arm::AsIs
                | Arm::Undersample
                | Arm::Reweight
                | Arm::MatchWeights
                | Arm::Augment
                | Arm::Mixup
                | Arm::BalancedReweight => Sampling::Uniform,
            },
            loss_weights: match arm {
                Arm::Reweight | Arm::BalancedReweight => Some(short(inverse_group_size(&train))),
                Arm::MatchWeights => Some(short(matched(&train, &attribute_values(&data.groups, &data.label).0))),
                Arm::BalancedDiscount => {
                    let weight = |row: usize| if row < real { 1.0 } else { config.generated_weight as f32 };
                    Some((0..train.labels.len()).map(weight).collect())
                }
                _ => None,
            },
            augment: match changed {
                true => Augment { flip: config.flip, ..Augment::standard(train.images.width()) },
                false => Augment::none(),
            },
            rand_augment: if changed { RandAugment::moderate() } else { RandAugment::none() },
            note: if arm == Arm::GeneratedOnly { missing_classes(&train, &data.classes) } else { None },
            last_layer,
            train,
            real,
            arm,
        })
    }

    /// What training makes small.
    pub(super) fn objective(&self, config: &EvidenceConfig) -> Objective<'_> {
        match self.arm {
            Arm::Mixup => Objective::Mixup { alpha: MIXUP_ALPHA },
            Arm::GroupDro => Objective::GroupDro { groups: &self.train.groups, step: config.group_dro_step },
            _ => Objective::Mean,
        }
    }
}

/// As many of the rows of each group as the smallest has, in the order of the rows.
fn undersampled(rows: &[usize], groups: &[u32], seed: Seed) -> Vec<usize> {
    let mut by_group: BTreeMap<u32, Vec<usize>> = BTreeMap::new();
    for &row in rows {
        by_group.entry(groups[row]).or_default().push(row);
    }
    let smallest = by_group.values().map(Vec::len).min().unwrap_or(0);
    let drawn = by_group.iter().flat_map(|(&group, rows)| drawn(rows, smallest, seed.index(group.into())));
    let mut drawn: Vec<usize> = drawn.collect();
    drawn.sort_unstable();
    drawn
}

/// `count` of the rows, drawn without replacement.
pub(super) fn drawn(rows: &[usize], count: usize, seed: Seed) -> Vec<usize> {
    let (mut rows, mut rng) = (rows.to_vec(), seed.rng());
    let count = count.min(rows.len());
    for i in 0..count {
        let other = rng.random_range(i..rows.len());
        rows.swap(i, other);
    }
    rows.truncate(count);
    rows
}

/// Says which classes have no image.
fn missing_classes(train: &Labelled, classes: &[String]) -> Option<String> {
    let present: BTreeSet<u32> = train.labels.iter().copied().collect();
    let missing = classes.iter().enumerate().filter(|(class, _)| !present.contains(&(*class as u32)));
    let missing: Vec<&str> = missing.map(|(_, name)| name.as_str()).collect();
    (!missing.is_empty()).then(|| {
        let (few, more) = missing.split_at(missing.len().min(5));
        let more = if more.is_empty() { String::new() } else { format!(" and {} more", more.len()) };
        format!("No image was generated of {}{more}, which this classifier therefore never predicts.", few.join(", "))
    })
}

#[cfg(test)]
mod tests {
    use evenset_core::Group;
    use evenset_nn::classifier::ImageSet;

    use super::*;

    fn part(groups: &[u32]) -> Labelled {
        let images = ImageSet::new(8, 8, vec![0; groups.len() * 8 * 8 * 3]).unwrap();
        Labelled { images, labels: groups.iter().map(|g| g / 2).collect(), groups: groups.to_vec(), features: None }
    }

    fn data() -> EvidenceData {
        let group = |label: &str, colour: &str| Group::new([("label", label), ("colour", colour)]).unwrap();
        EvidenceData {
            train: part(&[0, 0, 0, 0, 0, 1, 1, 3, 3, 3]),
            left_out: vec![0, 9],
            generated: part(&[1, 1]),
            planned: [(1, 2)].into(),
            further: None,
            validation: None,
            test: part(&[0, 1, 3]),
            classes: vec!["a".into(), "b".into()],
            groups: vec![group("a", "red"), group("a", "blue"), group("b", "red"), group("b", "blue")],
            label: "label".into(),
        }
    }

    fn recipe(arm: Arm) -> Recipe {
        let (data, config) = (data(), EvidenceConfig::default());
        Recipe::of(arm, &data, &data.generated, &[1], &config, Seed(3)).unwrap()
    }

    #[test]
    fn each_arm_sees_the_images_it_should() {
        for (arm, real, all) in [
            (Arm::AsIs, 9, 9),
            (Arm::Undersample, 6, 6),
            (Arm::GeneratedOnly, 0, 2),
            (Arm::Balanced, 7, 9),
            (Arm::BalancedLastLayer, 7, 9),
        ] {
            let recipe = recipe(arm);
            assert_eq!((recipe.real, recipe.train.labels.len()), (real, all), "{arm}");
            assert_eq!(recipe.train.images.len(), all);
        }
        assert_eq!(recipe(Arm::BalancedLastLayer).last_layer.unwrap().labels.len(), 7);
        let under = recipe(Arm::Undersample).train.groups;
        assert_eq!(under, [0, 0, 1, 1, 3, 3]);
    }

    #[test]
    fn images_are_changed_for_the_arm_augment_or_for_all() {
        let (data, plain) = (data(), EvidenceConfig { flip: false, ..EvidenceConfig::default() });
        let all = EvidenceConfig { augment: true, ..plain.clone() };
        for (config, arm, changed) in [
            (&plain, Arm::Balanced, false),
            (&plain, Arm::Augment, true),
            (&all, Arm::AsIs, true),
            (&all, Arm::GeneratedOnly, true),
        ] {
            let recipe = Recipe::of(arm, &data, &data.generated, &[], config, Seed(3)).unwrap();
            assert_eq!(recipe.rand_augment != RandAugment::none(), changed, "{arm}");
            assert_eq!(recipe.augment != Augment::none(), changed, "{arm}");
            assert!(!recipe.augment.flip);
        }
    }

    #[test]
    fn weights_and_notes_are_those_of_the_arm() {
        let discount = recipe(Arm::BalancedDiscount).loss_weights.unwrap();
        assert_eq!(discount, [1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 0.5, 0.5]);
        assert!(recipe(Arm::Balanced).loss_weights.is_none());
        let note = recipe(Arm::GeneratedOnly).note.unwrap();
        assert_eq!(note, "No image was generated of b, which this classifier therefore never predicts.");
        assert!(recipe(Arm::Balanced).note.is_none());
        assert_eq!(recipe(Arm::BalancedReweight).sampling, Sampling::Uniform);
        let none = Recipe::of(Arm::GeneratedOnly, &data(), &part(&[]), &[], &EvidenceConfig::default(), Seed(3));
        assert!(none.err().unwrap().to_string().contains("no generated image was accepted"));
    }
}
