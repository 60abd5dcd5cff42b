//! What an audit is asked to look at.

use std::collections::BTreeMap;
use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{AuditError, CoverageConfig};

/// What an audit looks at.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct AuditConfig {
    /// Lists of attributes to count by, e.g. `[[garment], [garment, colour]]`; default: each attribute, each pair, and
    /// all together.
    pub groupings: Option<Vec<Vec<String>>>,
    /// Values that are to be listed though no row may have them, e.g. `{skin_tone: [I, II, III, IV, V, VI]}`.
    pub values: BTreeMap<String, Vec<String>>,
    /// Which combinations of values count as uncovered. Default: fewer than 30 rows, up to two attributes.
    pub coverage: CoverageConfig,
    /// The intervals of shares: `wilson`, each by itself, or `goodman`, all of a grouping at once. Default: wilson.
    pub intervals: Intervals,
    /// The shares that the data should have, inline (`{sex: {female: 0.51, male: 0.49}}`) or a table of them. Default:
    /// equal shares.
    pub reference: Option<ReferenceConfig>,
    /// Whether the images are looked at (size, brightness, near-duplicates, diversity), where there are any. Default: true.
    pub images: Option<bool>,
}

/// Which 95 % intervals the shares of a grouping get.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Intervals {
    /// Wilson's: each holds its share with 95 %.
    #[default]
    Wilson,
    /// Goodman's: together they hold all shares of the grouping with 95 %.
    Goodman,
}

/// Where reference shares come from.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(untagged, expecting = "`{file: PATH, count: COLUMN}` or shares such as `{sex: {female: 0.51, male: 0.49}}`")]
pub enum ReferenceConfig {
    /// A table, for example of a census.
    File(ReferenceFile),
    /// For each attribute the share of each value.
    Shares(BTreeMap<String, BTreeMap<String, f64>>),
}

/// A table that says what the shares should be.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ReferenceFile {
    /// The table, in any format that a dataset may have; its columns have the attributes' names.
    pub file: PathBuf,
    /// Column that says how many people or things a row stands for. Default: one.
    pub count: Option<String>,
}

impl AuditConfig {
    /// Checks what can be checked without data; `known` are the attributes.
    ///
    /// # Errors
    /// [`AuditError::UnknownAttribute`], [`AuditError::Repeated`] and [`AuditError::Value`].
    pub fn validate(&self, known: &[String]) -> Result<(), AuditError> {
        self.coverage.validate()?;
        let inline = match &self.reference {
            Some(ReferenceConfig::Shares(shares)) => Some(shares),
            _ => None,
        };
        let named = self.groupings.iter().flatten().flatten().chain(self.values.keys());
        for name in named.chain(inline.into_iter().flat_map(BTreeMap::keys)) {
            if !known.contains(name) {
                return Err(AuditError::UnknownAttribute { name: name.clone(), known: known.to_vec() });
            }
        }
        for (attribute, shares) in inline.into_iter().flatten() {
            let sum: f64 = shares.values().sum();
            let wrong = shares.values().any(|share| !(0.0..=1.0).contains(share)) || (sum - 1.0).abs() > 1e-6;
            if wrong {
                let found = format!("{sum} when the shares of `{attribute}` are added up");
                return Err(AuditError::Value {
                    key: "audit.reference",
                    found,
                    expected: "shares from 0 to 1 that add up to 1",
                });
            }
        }
        Ok(())
    }
}
