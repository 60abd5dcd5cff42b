//! What a plan may spend, and whether it may take images away.

use std::collections::BTreeMap;

use evenset_core::Group;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::PlanError;

/// Values of some attributes: a group that has them all is part of the pattern.
pub type Values = BTreeMap<String, String>;

/// What a plan may spend. A limit that is absent does not bind.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Limits {
    /// At most so many generated images in all.
    pub images: Option<u64>,
    /// At most so many generated images for one group.
    pub per_group: Option<u64>,
    /// Generated images over all images afterwards, at most; 0 to 1.
    #[schemars(range(min = 0.0, max = 1.0))]
    pub synthetic_share: Option<f64>,
    /// Patterns that must not be generated, for example `[{garment: coat, colour: blue}]`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub forbid: Vec<Values>,
    /// Groups with fewer real images than this cannot be learned and are not generated.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub min_examples: Option<u64>,
    /// At most so many images taken away in all; counts only where the plan's `surplus` is `remove`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub removed: Option<u64>,
}

/// What becomes of images that a target has too many of.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Surplus {
    /// Every image stays; targets are reached by adding alone.
    #[default]
    Keep,
    /// Images may be left out of the balanced dataset: as few generated images as can be, then as few left out.
    Remove,
}

impl Limits {
    /// Checks the values.
    ///
    /// # Errors
    /// [`PlanError::Value`], naming the key.
    pub fn validate(&self) -> Result<(), PlanError> {
        if let Some(share) = self.synthetic_share
            && !(0.0..=1.0).contains(&share)
        {
            let expected = "a number from 0 to 1";
            return Err(PlanError::Value { key: "limits.synthetic_share", found: share.to_string(), expected });
        }
        if self.forbid.iter().any(Values::is_empty) {
            let expected = "patterns that name at least one attribute";
            return Err(PlanError::Value { key: "limits.forbid", found: "empty in one place".into(), expected });
        }
        Ok(())
    }

    /// The most images that may be generated for a group of `count` real images, and the limit that says so.
    pub(crate) fn room(&self, group: &Group, count: u64) -> Room {
        if self.forbid.iter().any(|pattern| holds(group, pattern)) {
            Room { images: 0, limit: "limits.forbid" }
        } else if self.min_examples.is_some_and(|least| count < least) {
            Room { images: 0, limit: "limits.min_examples" }
        } else {
            Room { images: self.per_group.unwrap_or(u64::MAX), limit: "limits.per_group" }
        }
    }

    /// The most images that may be generated in all, beside `real` ones that stay, and the limit that says so.
    pub(crate) fn budget(&self, real: u64) -> Room {
        let images = Room { images: self.images.unwrap_or(u64::MAX), limit: "limits.images" };
        let share = self
            .synthetic_share
            .map(|share| Room { images: most_generated(share, real), limit: "limits.synthetic_share" });
        share.filter(|share| share.images < images.images).unwrap_or(images)
    }
}

/// A number of images, and the limit that sets it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Room {
    /// The most images.
    pub images: u64,
    /// The key of the limit.
    pub limit: &'static str,
}

/// Whether the group has every value of the pattern.
pub(crate) fn holds(group: &Group, pattern: &Values) -> bool {
    pattern.iter().all(|(attribute, value)| group.get(attribute) == Some(value))
}

/// The most generated images `g` with `g <= share * (real + g)`.
fn most_generated(share: f64, real: u64) -> u64 {
    if share >= 1.0 {
        return u64::MAX;
    }
    // A share such as 0.9 means the decimal fraction: 1e-9 forgives its rounding. The conversion saturates.
    (real as f64 * share / (1.0 - share) * (1.0 + 1e-9)) as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unknown_and_impossible_limits_are_refused_with_the_key() {
        let error = serde_json::from_str::<Limits>(r#"{"image":3}"#).unwrap_err().to_string();
        assert!(error.contains("unknown field `image`"), "{error}");
        for share in [-0.1, 1.1, f64::NAN] {
            let limits = Limits { synthetic_share: Some(share), ..Limits::default() };
            assert!(limits.validate().unwrap_err().to_string().starts_with("`limits.synthetic_share` is"));
        }
        let limits = Limits { forbid: vec![Values::new()], ..Limits::default() };
        assert!(limits.validate().unwrap_err().to_string().starts_with("`limits.forbid` is empty"));
        assert_eq!(Limits::default().validate(), Ok(()));
    }

    #[test]
    fn the_first_reason_not_to_generate_a_group_is_named() {
        let json = r#"{"per_group":9,"forbid":[{"garment":"coat"}],"min_examples":5}"#;
        let limits: Limits = serde_json::from_str(json).unwrap();
        let room = |garment: &str, count| limits.room(&Group::new([("garment", garment)]).unwrap(), count);
        assert_eq!(room("coat", 1), Room { images: 0, limit: "limits.forbid" });
        assert_eq!(room("bag", 4), Room { images: 0, limit: "limits.min_examples" });
        assert_eq!(room("bag", 5), Room { images: 9, limit: "limits.per_group" });
    }
}
