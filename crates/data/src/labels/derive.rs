//! Attributes that are made from others: bins of numbers, renamed values, parts of texts.

use std::collections::BTreeMap;

use regex::{Regex, RegexBuilder};
use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, Serialize};

use super::scalar::{Scalar, number};

/// Bytes that a compiled pattern may take.
const MAX_PATTERN_BYTES: usize = 1 << 20;
/// Equal parts that numbers are cut into at most.
const MAX_QUANTILES: u32 = 100;
/// Edges of bins at most.
const MAX_EDGES: usize = 10_000;

/// An attribute made from a column or from another derived attribute, by exactly one of `bins`, `quantiles`, `map` and
/// `regex`. A missing value stays missing.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Derive {
    /// The column or derived attribute that it is made from.
    pub from: String,
    /// The edges of bins, rising: `[18, 30]` makes `<18`, `18 to <30` and `>=30`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bins: Option<Vec<f64>>,
    /// Names of the bins, one more than edges; default: names that say the edges.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub names: Option<Vec<String>>,
    /// Bins with about equally many rows, 2 to 100 of them. The edges are computed from all rows of the data, before
    /// `where`; where many rows have the same number, bins fall together and there are fewer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 2, max = 100))]
    pub quantiles: Option<u32>,
    /// Value to the value that replaces it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub map: Option<BTreeMap<String, Scalar>>,
    /// What values become that `map` does not name; default: they stay as they are. `null`: they become missing.
    #[serde(default, deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<Scalar>")]
    pub otherwise: Option<Option<Scalar>>,
    /// A pattern; the value is what its group of the attribute's name matches, else its first group, else all of it. No
    /// match is a missing value.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub regex: Option<String>,
}

/// A key that is there with `null` differs from one that is not there.
fn present<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Option<Scalar>>, D::Error> {
    Option::deserialize(deserializer).map(Some)
}

/// One way of making a value from another.
#[derive(Clone, Debug)]
pub(crate) enum Step {
    Bins(Bins),
    Map {
        map: BTreeMap<String, Scalar>,
        otherwise: Option<Option<Scalar>>,
    },
    Regex {
        pattern: Regex,
        group: usize,
    },
    /// The role that a split's name stands for.
    Role(BTreeMap<String, String>),
}

/// Half-open intervals and their names.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Bins {
    pub edges: Vec<f64>,
    pub names: Vec<String>,
}

impl Derive {
    /// Checks what can be checked without data.
    ///
    /// # Errors
    /// A text with what is wrong and the remedy.
    pub fn validate(&self, attribute: &str) -> Result<(), String> {
        self.step(attribute, Some(&[0.0])).map(|_| ())
    }

    /// The step that it stands for. `edges` are those of its quantiles, where they are known.
    pub(crate) fn step(&self, attribute: &str, edges: Option<&[f64]>) -> Result<Step, String> {
        self.check_keys()?;
        if let Some(quantiles) = self.quantiles {
            if !(2..=MAX_QUANTILES).contains(&quantiles) {
                return Err(format!("`quantiles` is {quantiles}; use 2 to {MAX_QUANTILES}"));
            }
            let edges = edges.ok_or("its quantiles are not computed")?;
            return Bins::new(edges.to_vec(), None).map(Step::Bins);
        }
        if let Some(edges) = &self.bins {
            return Bins::new(edges.clone(), self.names.clone()).map(Step::Bins);
        }
        if let Some(map) = &self.map {
            return Ok(Step::Map { map: map.clone(), otherwise: self.otherwise.clone() });
        }
        let text = self.regex.as_deref().unwrap_or_default();
        let pattern = RegexBuilder::new(text).size_limit(MAX_PATTERN_BYTES).dfa_size_limit(MAX_PATTERN_BYTES).build();
        let pattern = pattern.map_err(|error| format!("`regex` cannot be read: {error}"))?;
        let named = pattern.capture_names().position(|name| name == Some(attribute));
        let group = named.unwrap_or(usize::from(pattern.captures_len() > 1));
        Ok(Step::Regex { pattern, group })
    }

    fn check_keys(&self) -> Result<(), String> {
        let ways = [
            ("bins", self.bins.is_some()),
            ("quantiles", self.quantiles.is_some()),
            ("map", self.map.is_some()),
            ("regex", self.regex.is_some()),
        ];
        let given: Vec<&str> = ways.iter().filter(|(_, given)| *given).map(|(name, _)| *name).collect();
        if self.from.is_empty() {
            return Err("`from` is empty; name a column".to_owned());
        }
        match given.as_slice() {
            [] => return Err("says nothing; use one of `bins`, `quantiles`, `map` and `regex`".to_owned()),
            [_] => {}
            several => return Err(format!("has `{}`; use one of them", several.join("` and `"))),
        }
        if self.names.is_some() && self.bins.is_none() {
            return Err("`names` are those of `bins`; there are none".to_owned());
        }
        if self.otherwise.is_some() && self.map.is_none() {
            return Err("`otherwise` belongs to `map`; there is none".to_owned());
        }
        Ok(())
    }
}

impl Bins {
    /// Bins between edges that rise.
    pub fn new(edges: Vec<f64>, names: Option<Vec<String>>) -> Result<Self, String> {
        if edges.is_empty() || edges.len() > MAX_EDGES {
            return Err(format!("`bins` has {} edges; use 1 to {MAX_EDGES}", edges.len()));
        }
        if let Some(edge) = edges.iter().find(|edge| !edge.is_finite()) {
            return Err(format!("the edge {edge} of `bins` is not a finite number"));
        }
        if let Some(pair) = edges.windows(2).find(|pair| pair[0] >= pair[1]) {
            return Err(format!("the edges of `bins` must rise, but {} stands before {}", pair[0], pair[1]));
        }
        let names = names.unwrap_or_else(|| named(&edges));
        if names.len() != edges.len() + 1 {
            return Err(format!(
                "{} edges make {} bins, but there are {} `names`",
                edges.len(),
                edges.len() + 1,
                names.len()
            ));
        }
        Ok(Self { edges, names })
    }

    fn name(&self, number: f64) -> &str {
        &self.names[self.edges.partition_point(|edge| *edge <= number)]
    }
}

/// `<18`, `18 to <30`, `>=30`.
fn named(edges: &[f64]) -> Vec<String> {
    let (first, last) = (edges[0], edges[edges.len() - 1]);
    let between = edges.windows(2).map(|pair| format!("{} to <{}", pair[0], pair[1]));
    std::iter::once(format!("<{first}")).chain(between).chain([format!(">={last}")]).collect()
}

impl Step {
    /// The value that a value becomes; the error says why it cannot.
    pub fn apply(&self, value: &str) -> Result<Option<String>, String> {
        match self {
            Self::Bins(bins) => match number(value) {
                Some(number) => Ok(Some(bins.name(number).to_owned())),
                None => Err(format!(
                    "`{value}` is not a number; leave such rows out with a filter (`not: {value}`), or name the word as \
                     missing"
                )),
            },
            Self::Map { map, otherwise } => Ok(match (map.get(value), otherwise) {
                (Some(mapped), _) => Some(mapped.0.clone()),
                (None, None) => Some(value.to_owned()),
                (None, Some(other)) => other.as_ref().map(|other| other.0.clone()),
            }),
            Self::Regex { pattern, group } => {
                let found = pattern.captures(value).and_then(|groups| groups.get(*group));
                Ok(found.map(|part| part.as_str().to_owned()))
            }
            Self::Role(splits) => {
                let named = splits.iter().find(|(_, name)| *name == value).map(|(role, _)| role.clone());
                let usual = || crate::layout::role_of(value).map(str::to_owned);
                Ok(named.or_else(|| usual().filter(|_| splits.is_empty())))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn derive(json: &str) -> Derive {
        serde_json::from_str(json).unwrap()
    }

    fn value(json: &str, value: &str) -> Option<String> {
        derive(json).step("scene", None).unwrap().apply(value).unwrap()
    }

    #[test]
    fn a_number_on_an_edge_belongs_to_the_bin_above() {
        let bins = r#"{"from": "age", "bins": [18, 30, 65.5]}"#;
        for (age, name) in [
            ("17.99", "<18"),
            ("18", "18 to <30"),
            ("29.999", "18 to <30"),
            ("30", "30 to <65.5"),
            (" 65.5 ", ">=65.5"),
            ("inf", ">=65.5"),
            ("-1e300", "<18"),
        ] {
            assert_eq!(value(bins, age).as_deref(), Some(name), "{age}");
        }
        assert_eq!(value(r#"{"from": "a", "bins": [1], "names": ["low", "high"]}"#, "1").as_deref(), Some("high"));
        let error = derive(bins).step("a", None).unwrap().apply("old").unwrap_err();
        assert!(error.contains("`old` is not a number"), "{error}");
    }

    #[test]
    fn a_map_keeps_replaces_or_drops_what_it_does_not_name() {
        let keeps = r#"{"from": "colour", "map": {"black": true}}"#;
        assert_eq!((value(keeps, "black"), value(keeps, "red")), (Some("true".into()), Some("red".into())));
        let replaces = r#"{"from": "colour", "map": {"black": "yes"}, "otherwise": "no"}"#;
        assert_eq!((value(replaces, "black"), value(replaces, "red")), (Some("yes".into()), Some("no".into())));
        let drops = r#"{"from": "colour", "map": {"black": "yes"}, "otherwise": null}"#;
        assert_eq!((value(drops, "black"), value(drops, "red")), (Some("yes".into()), None));
        assert_eq!(derive(&serde_json::to_string(&derive(drops)).unwrap()), derive(drops));
    }

    #[test]
    fn a_pattern_gives_the_group_of_its_name_else_the_first_else_all() {
        assert_eq!(
            value(r#"{"from": "f", "regex": "^(a|b)_(?<scene>[a-z]+)"}"#, "a_street_1").as_deref(),
            Some("street")
        );
        assert_eq!(value(r#"{"from": "f", "regex": "^([a-z]+)_(\\d)"}"#, "street_1").as_deref(), Some("street"));
        assert_eq!(value(r#"{"from": "f", "regex": "\\d+"}"#, "street_12").as_deref(), Some("12"));
        assert_eq!(value(r#"{"from": "f", "regex": "\\d+"}"#, "street"), None);
    }

    #[test]
    fn what_cannot_be_made_is_refused_with_the_remedy() {
        for (json, problem) in [
            (r#"{"from": "a"}"#, "use one of"),
            (r#"{"from": "a", "bins": [1], "map": {}}"#, "`bins` and `map`"),
            (r#"{"from": "a", "bins": [2, 1]}"#, "must rise, but 2 stands before 1"),
            (r#"{"from": "a", "bins": []}"#, "0 edges"),
            (r#"{"from": "a", "bins": [1], "names": ["x"]}"#, "1 edges make 2 bins, but there are 1"),
            (r#"{"from": "a", "quantiles": 1}"#, "use 2 to 100"),
            (r#"{"from": "a", "quantiles": 4, "otherwise": "x"}"#, "belongs to `map`"),
            (r#"{"from": "a", "regex": "("}"#, "unclosed group"),
            (r#"{"from": "a", "regex": "(\\w{1000}){1000}"}"#, "size limit"),
            (r#"{"from": "", "regex": "x"}"#, "name a column"),
        ] {
            let error = derive(json).validate("scene").unwrap_err();
            assert!(error.contains(problem), "{error}");
        }
        assert!(serde_json::from_str::<Derive>(r#"{"from": "a", "cut": [1]}"#).is_err());
    }
}
