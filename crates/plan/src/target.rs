//! The target grammar: what distribution a plan aims at, as the job file says it.

use std::collections::BTreeMap;
use std::fmt;

use schemars::JsonSchema;
use serde::de::value::{MapAccessDeserializer, SeqAccessDeserializer};
use serde::de::{MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};

use crate::limits::Values;
use crate::{Attributes, PlanError};

/// The distribution a plan aims at.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "type", rename_all = "kebab-case")]
pub enum Target {
    /// Equal counts of one attribute within each value of another, or over all groups.
    Parity(Parity),
    /// At least so many images in every group, or in every pattern.
    AtLeast(AtLeast),
    /// The largest group at most so many times the smallest.
    Ratio(Ratio),
    /// The shares of a reference distribution.
    Match(Match),
    /// Two attributes that say nothing about each other.
    Independent(Independent),
    /// The shares of several attributes at once, each by itself.
    Marginals(Marginals),
    /// A number of images, spent where they raise the smallest groups most.
    Budget(Budget),
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

/// At least `images` images in every group, or in every pattern (coverage; Asudeh, Jin and Jagadish, ICDE 2019).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct AtLeast {
    /// The smallest number of images.
    pub images: u64,
    /// The attribute (or list) whose values are counted; default: all, which are the groups.
    #[serde(default, skip_serializing_if = "no_names")]
    pub of: Attributes,
    /// Instead of full groups, every pattern that fixes up to so many of the attributes; 1 or more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub max_level: Option<u32>,
    /// Only the images with these values, taken together, for example `{garment: coat}`.
    #[serde(default, alias = "where", skip_serializing_if = "Option::is_none")]
    pub pattern: Option<Values>,
}

/// The largest group has at most `at_most` times the images of the smallest.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Ratio {
    /// The largest count over the smallest, 1 or more.
    #[schemars(range(min = 1.0))]
    pub at_most: f64,
    /// The attribute (or list) whose values are counted; default: all, which are the groups.
    #[serde(default, skip_serializing_if = "no_names")]
    pub of: Attributes,
}

/// The shares of a reference distribution, each met to within one image.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Match {
    /// The attribute (or list of attributes) whose shares are matched.
    pub of: Attributes,
    /// The share of every value, together 1: `{f: 0.5, m: 0.5}`, or for several attributes a list of
    /// `{values: {..}, share: ..}`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shares: Option<Shares>,
    /// A table of the population instead: a column for each attribute, and a column `count` (or one line for each).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub file: Option<String>,
}

/// The shares of a reference distribution.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(untagged, expecting = "a map of value to share, or a list of {values, share}")]
pub enum Shares {
    /// For one attribute: the share of each value.
    Values(BTreeMap<String, f64>),
    /// For several attributes: the share of each combination; those that are not listed have none.
    Joint(Vec<JointShare>),
}

/// The share of one combination of values.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct JointShare {
    /// A value for each attribute.
    pub values: Values,
    /// Its share of all images.
    pub share: f64,
}

/// Two attributes made independent: `p(a, y) = p(a) p(y)`, with both margins as the data has them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Independent {
    /// The attribute (or list) that is to say nothing about `from`.
    pub of: Attributes,
    /// The attribute (or list) that it is independent of.
    pub from: Attributes,
}

/// The shares of several attributes at once, with the fewest images in total; each met to within one image.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Marginals {
    /// For each attribute the shares of its values, or `equal`.
    pub shares: BTreeMap<String, Marginal>,
}

/// The shares of one attribute.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(untagged, expecting = "`equal` or a map of value to share")]
pub enum Marginal {
    /// The same share for every value.
    Equal(Equal),
    /// The share of each value, together 1.
    Values(BTreeMap<String, f64>),
}

/// The word `equal`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Equal {
    /// The same share for every value.
    Equal,
}

/// `images` images, spent where they raise the smallest groups most.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Budget {
    /// How many images to generate in all.
    pub images: u64,
}

/// One target or a list of them, all to be reached at once.
#[derive(Clone, Debug, PartialEq, Serialize, JsonSchema)]
#[serde(untagged)]
pub enum Targets {
    /// One target.
    One(Target),
    /// Several targets.
    Many(Vec<Target>),
}

impl<'de> Deserialize<'de> for Targets {
    /// By hand: an untagged enum would hide which key of a target is wrong.
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct OneOrMany;
        impl<'de> Visitor<'de> for OneOrMany {
            type Value = Targets;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a target or a list of targets")
            }
            fn visit_map<M: MapAccess<'de>>(self, map: M) -> Result<Targets, M::Error> {
                Target::deserialize(MapAccessDeserializer::new(map)).map(Targets::One)
            }
            fn visit_seq<S: SeqAccess<'de>>(self, list: S) -> Result<Targets, S::Error> {
                Vec::deserialize(SeqAccessDeserializer::new(list)).map(Targets::Many)
            }
        }
        deserializer.deserialize_any(OneOrMany)
    }
}

impl Default for Targets {
    fn default() -> Self {
        Self::One(Target::default())
    }
}

impl AsRef<[Target]> for Target {
    fn as_ref(&self) -> &[Target] {
        std::slice::from_ref(self)
    }
}

impl AsRef<[Target]> for Targets {
    fn as_ref(&self) -> &[Target] {
        match self {
            Self::One(target) => std::slice::from_ref(target),
            Self::Many(targets) => targets,
        }
    }
}

impl Targets {
    /// The attributes that any of the targets names, each once.
    pub fn attributes(&self) -> Vec<&str> {
        let mut names: Vec<&str> = Vec::new();
        for name in self.as_ref().iter().flat_map(Target::attributes) {
            if !names.contains(&name) {
                names.push(name);
            }
        }
        names
    }

    /// Whether some target names no attribute: it is about the groups of all attributes that there are.
    pub fn needs_all_attributes(&self) -> bool {
        self.as_ref().iter().any(|target| target.attributes().is_empty())
    }

    /// Checks every target.
    ///
    /// # Errors
    /// [`PlanError::Repeated`] and [`PlanError::Value`], naming the key; [`PlanError::Value`] for an empty list.
    pub fn validate(&self) -> Result<(), PlanError> {
        if self.as_ref().is_empty() {
            return Err(value("target", "an empty list", "one target or more"));
        }
        self.as_ref().iter().try_for_each(Target::validate)
    }
}

impl Target {
    /// The name of the target's type in the job file.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Parity(_) => "parity",
            Self::AtLeast(_) => "at-least",
            Self::Ratio(_) => "ratio",
            Self::Match(_) => "match",
            Self::Independent(_) => "independent",
            Self::Marginals(_) => "marginals",
            Self::Budget(_) => "budget",
        }
    }

    /// The attributes that the target names.
    pub fn attributes(&self) -> Vec<&str> {
        match self {
            Self::Parity(Parity { of, within }) => of.0.iter().chain(&within.0).map(String::as_str).collect(),
            Self::Independent(Independent { of, from }) => of.0.iter().chain(&from.0).map(String::as_str).collect(),
            Self::AtLeast(AtLeast { of, pattern, .. }) => {
                let fixed = pattern.iter().flat_map(Values::keys);
                of.0.iter().chain(fixed).map(String::as_str).collect()
            }
            Self::Match(Match { of, .. }) | Self::Ratio(Ratio { of, .. }) => of.0.iter().map(String::as_str).collect(),
            Self::Marginals(Marginals { shares }) => shares.keys().map(String::as_str).collect(),
            Self::Budget(_) => Vec::new(),
        }
    }

    /// Checks what can be checked without counts.
    ///
    /// # Errors
    /// [`PlanError::Repeated`] and [`PlanError::Value`], naming the key.
    pub fn validate(&self) -> Result<(), PlanError> {
        let names = self.attributes();
        if let Some((_, name)) = names.iter().enumerate().find(|(i, name)| names[..*i].contains(name)) {
            return Err(PlanError::Repeated((*name).to_owned()));
        }
        match self {
            Self::Parity(_) => Ok(()),
            Self::AtLeast(target) => target.validate(),
            Self::Ratio(Ratio { at_most, .. }) if !at_most.is_finite() || *at_most < 1.0 => {
                Err(value("target.at_most", at_most, "a number, 1 or more"))
            }
            Self::Ratio(_) => Ok(()),
            Self::Match(target) => target.validate(),
            Self::Independent(Independent { of, from }) if of.0.is_empty() || from.0.is_empty() => {
                Err(value("target.of", "empty, or `target.from` is", "at least one attribute in both"))
            }
            Self::Independent(_) => Ok(()),
            Self::Marginals(Marginals { shares }) if shares.is_empty() => {
                Err(value("target.shares", "empty", "shares for at least one attribute"))
            }
            Self::Marginals(Marginals { shares }) => shares.values().try_for_each(|marginal| match marginal {
                Marginal::Equal(_) => Ok(()),
                Marginal::Values(shares) => validate_shares(shares.iter().map(|(v, &share)| (v.clone(), share))),
            }),
            Self::Budget(Budget { images: 0 }) => Err(value("target.images", 0, "1 or more")),
            Self::Budget(_) => Ok(()),
        }
    }
}

impl AtLeast {
    fn validate(&self) -> Result<(), PlanError> {
        if self.images == 0 {
            return Err(value("target.images", 0, "1 or more"));
        }
        if self.max_level == Some(0) {
            return Err(value("target.max_level", 0, "1 or more"));
        }
        match &self.pattern {
            Some(pattern) if pattern.is_empty() => {
                Err(value("target.pattern", "empty", "a value for at least one attribute"))
            }
            Some(_) if self.max_level.is_some() || !self.of.0.is_empty() => {
                Err(value("target.pattern", "given beside `of` or `max_level`", "alone: it is one pattern"))
            }
            _ => Ok(()),
        }
    }
}

impl Match {
    fn validate(&self) -> Result<(), PlanError> {
        if self.of.0.is_empty() {
            return Err(value("target.of", "empty", "at least one attribute"));
        }
        match (&self.shares, &self.file) {
            (Some(_), Some(_)) => Err(value("target.file", "given beside `shares`", "one of the two")),
            (None, None) => Err(value("target.shares", "missing", "given, or `file` instead")),
            (None, Some(_)) => Ok(()),
            (Some(Shares::Values(_)), None) if self.of.0.len() > 1 => {
                Err(value("target.shares", "a map", "a list of {values, share}, as `of` names several attributes"))
            }
            (Some(Shares::Values(shares)), None) => {
                validate_shares(shares.iter().map(|(value, &share)| (value.clone(), share)))
            }
            (Some(Shares::Joint(shares)), None) => self.validate_joint(shares),
        }
    }

    fn validate_joint(&self, shares: &[JointShare]) -> Result<(), PlanError> {
        for (i, JointShare { values, .. }) in shares.iter().enumerate() {
            if values.len() != self.of.0.len() || self.of.0.iter().any(|name| !values.contains_key(name)) {
                let expected = "a value for each attribute of `of`, and no other";
                return Err(value("target.shares", format!("{} in one place", words(values)), expected));
            }
            if shares[..i].iter().any(|earlier| earlier.values == *values) {
                return Err(value("target.shares", format!("{} twice", words(values)), "each combination once"));
            }
        }
        validate_shares(shares.iter().map(|joint| (words(&joint.values), joint.share)))
    }
}

fn validate_shares(shares: impl Iterator<Item = (String, f64)> + Clone) -> Result<(), PlanError> {
    if let Some((name, share)) = shares.clone().find(|(_, share)| !(0.0..=1.0).contains(share)) {
        return Err(value("target.shares", format!("{share} for `{name}`"), "0 to 1 for every value"));
    }
    let sum: f64 = shares.map(|(_, share)| share).sum();
    if (sum - 1.0).abs() > 1e-6 {
        return Err(value("target.shares", format!("{sum} when added up"), "shares that add up to 1"));
    }
    Ok(())
}

fn value(key: &'static str, found: impl ToString, expected: &'static str) -> PlanError {
    PlanError::Value { key, found: found.to_string(), expected }
}

/// `garment=coat & colour=blue`.
pub(crate) fn words(values: &Values) -> String {
    values.iter().map(|(attribute, value)| format!("{attribute}={value}")).collect::<Vec<_>>().join(" & ")
}

fn no_names(names: &Attributes) -> bool {
    names.0.is_empty()
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
            (r#"{"type":"at-least","images":200}"#, Target::AtLeast(AtLeast { images: 200, ..AtLeast::default() })),
            (r#"{"type":"ratio","at_most":2.5}"#, Target::Ratio(Ratio { at_most: 2.5, ..Ratio::default() })),
            (
                r#"{"type":"match","of":"sex","shares":{"f":0.5,"m":0.5}}"#,
                Target::Match(Match {
                    of: "sex".into(),
                    shares: Some(Shares::Values([("f".into(), 0.5), ("m".into(), 0.5)].into())),
                    file: None,
                }),
            ),
            (
                r#"{"type":"match","of":["a","b"],"shares":[{"values":{"a":"x","b":"y"},"share":1.0}]}"#,
                Target::Match(Match {
                    of: Attributes(vec!["a".into(), "b".into()]),
                    shares: Some(Shares::Joint(vec![JointShare {
                        values: [("a".into(), "x".into()), ("b".into(), "y".into())].into(),
                        share: 1.0,
                    }])),
                    file: None,
                }),
            ),
            (
                r#"{"type":"match","of":"sex","file":"census.csv"}"#,
                Target::Match(Match { of: "sex".into(), shares: None, file: Some("census.csv".into()) }),
            ),
            (
                r#"{"type":"independent","of":"a","from":"b"}"#,
                Target::Independent(Independent { of: "a".into(), from: "b".into() }),
            ),
            (
                r#"{"type":"marginals","shares":{"a":"equal","b":{"x":1.0}}}"#,
                Target::Marginals(Marginals {
                    shares: [
                        ("a".to_owned(), Marginal::Equal(Equal::Equal)),
                        ("b".to_owned(), Marginal::Values([("x".to_owned(), 1.0)].into())),
                    ]
                    .into(),
                }),
            ),
            (r#"{"type":"budget","images":9}"#, Target::Budget(Budget { images: 9 })),
            (
                r#"{"type":"at-least","images":5,"of":"a","max_level":2}"#,
                Target::AtLeast(AtLeast { images: 5, of: "a".into(), max_level: Some(2), pattern: None }),
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
            (r#"{"type":"at-least","images":2,"off":"x"}"#, "unknown field `off`"),
            (r#"{"type":"ratio","at_most":2,"most":3}"#, "unknown field `most`"),
            (r#"{"type":"match","of":"x","shares":{},"files":"y"}"#, "unknown field `files`"),
            (r#"{"type":"even"}"#, "unknown variant `even`"),
            (r#"{"of":"colour"}"#, "missing field `type`"),
            (r#"{"type":"at-least"}"#, "missing field `images`"),
            (r#"{"type":"at-least","images":-1}"#, "invalid value"),
            (r#"{"type":"parity","of":7}"#, "an attribute or a list of attributes"),
        ] {
            let error = read(json).unwrap_err();
            assert!(error.contains(what), "{json}: {error}");
        }
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
