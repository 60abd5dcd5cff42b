//! The arms and their names.

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
    /// As many real training images of each group, drawn by seed, as the smallest group has.
    Undersample,
    /// The real training images, the loss of each weighted by the inverse size of its group.
    Reweight,
    /// The real training images, the loss of each weighted so that label and attribute look independent:
    /// `p(label) p(attribute) / p(label, attribute)`.
    MatchWeights,
    /// The real training images, changed at random: mirrored, shifted, turned, lighter or darker, partly hidden.
    Augment,
    /// The real training images, mixed in pairs with both labels (Zhang et al. 2018).
    Mixup,
    /// The real training images, the loss weighted towards the groups that are worst at the moment (Sagawa et al. 2020).
    GroupDro,
}

/// A way to use the generated images, beside `balanced`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Variant {
    /// The accepted generated images alone, every group drawn equally often: the classification accuracy score (Ravuri
    /// and Vinyals 2019).
    GeneratedOnly,
    /// Real and generated images, each drawn equally often, the loss weighted by the inverse size of the group.
    BalancedReweight,
    /// As `balanced`, but a generated image weighs less than a real one.
    BalancedDiscount,
    /// As `balanced`, then the last layer alone is trained on real images, every group drawn equally often (Kirichenko et
    /// al. 2023); the last fifth of the steps goes there.
    BalancedLastLayer,
}

/// What a classifier is trained on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Arm {
    /// [`Baseline::AsIs`].
    AsIs,
    /// [`Baseline::Oversample`].
    Oversample,
    /// [`Baseline::Undersample`].
    Undersample,
    /// [`Baseline::Reweight`].
    Reweight,
    /// [`Baseline::MatchWeights`].
    MatchWeights,
    /// [`Baseline::Augment`].
    Augment,
    /// [`Baseline::Mixup`].
    Mixup,
    /// [`Baseline::GroupDro`].
    GroupDro,
    /// [`Variant::GeneratedOnly`].
    GeneratedOnly,
    /// The real training images and the accepted generated ones together, drawn so that every group is seen equally
    /// often: [`Baseline::Oversample`] with generated images.
    Balanced,
    /// [`Variant::BalancedReweight`].
    BalancedReweight,
    /// [`Variant::BalancedDiscount`].
    BalancedDiscount,
    /// [`Variant::BalancedLastLayer`].
    BalancedLastLayer,
}

impl From<Baseline> for Arm {
    fn from(baseline: Baseline) -> Self {
        match baseline {
            Baseline::AsIs => Self::AsIs,
            Baseline::Oversample => Self::Oversample,
            Baseline::Undersample => Self::Undersample,
            Baseline::Reweight => Self::Reweight,
            Baseline::MatchWeights => Self::MatchWeights,
            Baseline::Augment => Self::Augment,
            Baseline::Mixup => Self::Mixup,
            Baseline::GroupDro => Self::GroupDro,
        }
    }
}

impl From<Variant> for Arm {
    fn from(variant: Variant) -> Self {
        match variant {
            Variant::GeneratedOnly => Self::GeneratedOnly,
            Variant::BalancedReweight => Self::BalancedReweight,
            Variant::BalancedDiscount => Self::BalancedDiscount,
            Variant::BalancedLastLayer => Self::BalancedLastLayer,
        }
    }
}

impl Arm {
    /// The name as it is written in jobs and results: `as-is`, `group-dro`, `balanced-last-layer`, ...
    pub fn name(self) -> &'static str {
        match self {
            Self::AsIs => "as-is",
            Self::Oversample => "oversample",
            Self::Undersample => "undersample",
            Self::Reweight => "reweight",
            Self::MatchWeights => "match-weights",
            Self::Augment => "augment",
            Self::Mixup => "mixup",
            Self::GroupDro => "group-dro",
            Self::GeneratedOnly => "generated-only",
            Self::Balanced => "balanced",
            Self::BalancedReweight => "balanced-reweight",
            Self::BalancedDiscount => "balanced-discount",
            Self::BalancedLastLayer => "balanced-last-layer",
        }
    }

    /// Whether it sees no generated image.
    pub fn is_baseline(self) -> bool {
        self < Self::GeneratedOnly
    }
}

impl fmt::Display for Arm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_arm_is_written_by_its_name() {
        let names = "as-is oversample undersample reweight match-weights augment mixup group-dro generated-only balanced \
                     balanced-reweight balanced-discount balanced-last-layer";
        for (i, name) in names.split(' ').enumerate() {
            let arm: Arm = serde_json::from_value(name.into()).unwrap();
            assert_eq!((arm.name(), arm.is_baseline()), (name, i < 8));
        }
    }
}
