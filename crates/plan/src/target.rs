//! The target grammar: what distribution a plan aims at and what it may spend, as the job file says it.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::PlanError;

/// The distribution a plan aims at.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "type", rename_all = "kebab-case")]
pub enum Target {
    /// Equal counts of one attribute within each value of another, or over all groups.
    Parity(Parity),
    /// At least so many images in every group.
    AtLeast(AtLeast),
    /// The largest group at most so many times the smallest.
    Ratio(Ratio),
    /// The shares of a reference distribution.
    Match(Match),
}

impl Default for Target {
    /// Every group as large as the largest.
    fn default() -> Self {
        Self::Parity(Parity::default())
    }
}

/// Equal counts: every value of `of` gets as many images as the most frequent one has, within each value of `within`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Parity {
    /// The attribute (or list of attributes) whose values are to be equally frequent; default: all that are not in
    /// `within`.
    pub of: Attributes,
    /// The attribute (or list) within each value of which they are; default: none, over all images.
    pub within: Attributes,
}

/// At least `images` images in every group.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct AtLeast {
    /// The smallest number of images in a group.
    pub images: u64,
}

/// The largest group has at most `at_most` times the images of the smallest.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Ratio {
    /// The largest count over the smallest, 1 or more.
    #[schemars(range(min = 1.0))]
    pub at_most: f64,
}

/// The shares of a reference distribution, reached by adding images only.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Match {
    /// The attribute whose shares are matched.
    pub of: String,
    /// For each of its values the share to reach; together 1.
    pub shares: BTreeMap<String, f64>,
}

/// One attribute or a list of them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(from = "OneOrMany", into = "OneOrMany")]
#[schemars(with = "OneOrMany")]
pub struct Attributes(pub Vec<String>);

#[derive(Serialize, Deserialize, JsonSchema)]
#[serde(untagged, expecting = "an attribute or a list of attributes")]
enum OneOrMany {
    One(String),
    Many(Vec<String>),
}

impl From<OneOrMany> for Attributes {
    fn from(names: OneOrMany) -> Self {
        match names {
            OneOrMany::One(name) => Self(vec![name]),
            OneOrMany::Many(names) => Self(names),
        }
    }
}

impl From<Attributes> for OneOrMany {
    fn from(Attributes(mut names): Attributes) -> Self {
        match names.pop() {
            Some(name) if names.is_empty() => Self::One(name),
            Some(name) => {
                names.push(name);
                Self::Many(names)
            }
            None => Self::Many(names),
        }
    }
}

impl From<&str> for Attributes {
    fn from(name: &str) -> Self {
        Self(vec![name.to_owned()])
    }
}

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
}

impl Target {
    /// The name of the target's type in the job file.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Parity(_) => "parity",
            Self::AtLeast(_) => "at-least",
            Self::Ratio(_) => "ratio",
            Self::Match(_) => "match",
        }
    }

    /// The attributes that the target names.
    pub fn attributes(&self) -> Vec<&str> {
        match self {
            Self::Parity(Parity { of, within }) => of.0.iter().chain(&within.0).map(String::as_str).collect(),
            Self::Match(Match { of, .. }) => vec![of],
            Self::AtLeast(_) | Self::Ratio(_) => Vec::new(),
        }
    }

    /// Checks what can be checked without counts.
    ///
    /// # Errors
    /// [`PlanError::Repeated`] and [`PlanError::Value`], naming the key.
    pub fn validate(&self) -> Result<(), PlanError> {
        let names = self.attributes();
        for (i, name) in names.iter().enumerate() {
            if names[..i].contains(name) {
                return Err(PlanError::Repeated((*name).to_owned()));
            }
        }
        match self {
            Self::AtLeast(AtLeast { images: 0 }) => {
                Err(PlanError::Value { key: "target.images", found: "0".into(), expected: "1 or more" })
            }
            Self::Ratio(Ratio { at_most }) if !at_most.is_finite() || *at_most < 1.0 => Err(PlanError::Value {
                key: "target.at_most",
                found: at_most.to_string(),
                expected: "a number, 1 or more",
            }),
            Self::Match(Match { shares, .. }) => validate_shares(shares),
            _ => Ok(()),
        }
    }
}

fn validate_shares(shares: &BTreeMap<String, f64>) -> Result<(), PlanError> {
    if let Some((value, share)) = shares.iter().find(|(_, share)| !(0.0..=1.0).contains(*share)) {
        let found = format!("{share} for `{value}`");
        return Err(PlanError::Value { key: "target.shares", found, expected: "0 to 1 for every value" });
    }
    let sum: f64 = shares.values().sum();
    if (sum - 1.0).abs() > 1e-6 {
        let found = format!("{sum} when added up");
        return Err(PlanError::Value { key: "target.shares", found, expected: "shares that add up to 1" });
    }
    Ok(())
}

impl Limits {
    /// Checks the values.
    ///
    /// # Errors
    /// [`PlanError::Value`], naming the key.
    pub fn validate(&self) -> Result<(), PlanError> {
        match self.synthetic_share {
            Some(share) if !(0.0..=1.0).contains(&share) => Err(PlanError::Value {
                key: "limits.synthetic_share",
                found: share.to_string(),
                expected: "a number from 0 to 1",
            }),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(json: &str) -> Result<Target, String> {
        serde_json::from_str(json).map_err(|error| error.to_string())
    }

    #[test]
    fn targets_read_from_the_words_of_the_job_file_and_write_the_same_words() {
        for (json, target) in [
            (
                r#"{"type":"parity","of":"colour","within":"garment"}"#,
                Target::Parity(Parity { of: "colour".into(), within: "garment".into() }),
            ),
            (
                r#"{"type":"parity","of":["a","b"],"within":[]}"#,
                Target::Parity(Parity { of: Attributes(vec!["a".into(), "b".into()]), within: Attributes::default() }),
            ),
            (r#"{"type":"at-least","images":200}"#, Target::AtLeast(AtLeast { images: 200 })),
            (r#"{"type":"ratio","at_most":2.5}"#, Target::Ratio(Ratio { at_most: 2.5 })),
            (
                r#"{"type":"match","of":"sex","shares":{"f":0.5,"m":0.5}}"#,
                Target::Match(Match { of: "sex".into(), shares: [("f".into(), 0.5), ("m".into(), 0.5)].into() }),
            ),
        ] {
            assert_eq!(read(json).as_ref(), Ok(&target));
            assert_eq!(serde_json::to_string(&target).unwrap(), json);
            assert!(json.contains(&format!(r#""{}""#, target.name())));
        }
        assert_eq!(read(r#"{"type":"parity"}"#), Ok(Target::default()));
    }

    #[test]
    fn unknown_keys_types_and_wrong_kinds_are_refused() {
        for (json, what) in [
            (r#"{"type":"parity","off":"colour"}"#, "unknown field `off`"),
            (r#"{"type":"at-least","images":2,"of":"x"}"#, "unknown field `of`"),
            (r#"{"type":"ratio","at_most":2,"most":3}"#, "unknown field `most`"),
            (r#"{"type":"match","of":"x","shares":{},"file":"y"}"#, "unknown field `file`"),
            (r#"{"type":"even"}"#, "unknown variant `even`"),
            (r#"{"of":"colour"}"#, "missing field `type`"),
            (r#"{"type":"at-least"}"#, "missing field `images`"),
            (r#"{"type":"at-least","images":-1}"#, "invalid value"),
            (r#"{"type":"parity","of":7}"#, "an attribute or a list of attributes"),
        ] {
            let error = read(json).unwrap_err();
            assert!(error.contains(what), "{json}: {error}");
        }
        let error = serde_json::from_str::<Limits>(r#"{"image":3}"#).unwrap_err().to_string();
        assert!(error.contains("unknown field `image`"), "{error}");
    }

    #[test]
    fn impossible_values_are_refused_with_the_key() {
        for (json, message) in [
            (r#"{"type":"at-least","images":0}"#, "`target.images` is 0; it must be 1 or more"),
            (r#"{"type":"ratio","at_most":0.5}"#, "`target.at_most` is 0.5; it must be a number, 1 or more"),
            (r#"{"type":"match","of":"x","shares":{"a":0.5}}"#, "`target.shares` is 0.5 when added up"),
            (r#"{"type":"match","of":"x","shares":{"a":-0.5,"b":1.5}}"#, "`target.shares` is -0.5 for `a`"),
            (r#"{"type":"parity","of":"a","within":"a"}"#, "the target names `a` twice"),
        ] {
            let error = read(json).unwrap().validate().unwrap_err().to_string();
            assert!(error.starts_with(message), "{error}");
        }
        for share in [-0.1, 1.1, f64::NAN] {
            let limits = Limits { synthetic_share: Some(share), ..Limits::default() };
            assert!(limits.validate().unwrap_err().to_string().starts_with("`limits.synthetic_share` is"));
        }
        assert_eq!(Limits::default().validate(), Ok(()));
    }

    #[test]
    fn the_schema_refuses_unknown_keys_and_has_a_line_for_every_key() {
        let schema = serde_json::to_value(schemars::schema_for!(Target)).unwrap();
        for kind in schema["oneOf"].as_array().unwrap() {
            assert_eq!(kind["additionalProperties"], false, "{kind}");
            for (key, property) in kind["properties"].as_object().unwrap() {
                assert!(key == "type" || property["description"].is_string(), "{key}: {property}");
            }
        }
    }
}
