//! A value as a job file writes it: text, a number or yes/no, compared as text with the cells of a table.

use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, Serialize};

use super::arrays::number_text;

/// A text, number, `true` or `false`; the text that such a cell has. `18`, `18.0` and `"18"` are the same.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(transparent)]
pub struct Scalar(pub String);

impl Scalar {
    /// Its text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl From<&str> for Scalar {
    fn from(text: &str) -> Self {
        Self(text.to_owned())
    }
}

impl fmt::Display for Scalar {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What may stand for a scalar.
#[derive(Deserialize)]
#[serde(untagged, expecting = "a text, a number, true or false")]
enum Written {
    Text(String),
    Boolean(bool),
    Integer(i64),
    Large(u64),
    Number(f64),
}

impl<'de> Deserialize<'de> for Scalar {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Ok(Self(match Written::deserialize(deserializer)? {
            Written::Text(text) => text,
            Written::Boolean(flag) => flag.to_string(),
            Written::Integer(number) => number.to_string(),
            Written::Large(number) => number.to_string(),
            Written::Number(number) => number_text(number).unwrap_or_else(|| "NaN".to_owned()),
        }))
    }
}

impl JsonSchema for Scalar {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Scalar".into()
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({
            "description": "A text, a number, true or false.",
            "type": ["string", "number", "boolean"]
        })
    }
}

/// One scalar or a list of them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct Scalars(pub Vec<Scalar>);

impl Scalars {
    /// Whether a text is among them.
    pub fn contains(&self, text: &str) -> bool {
        self.0.iter().any(|scalar| scalar.0 == text)
    }
}

#[derive(Deserialize, JsonSchema)]
#[serde(untagged, expecting = "a value or a list of values")]
enum OneOrMany {
    One(Scalar),
    Many(Vec<Scalar>),
}

impl<'de> Deserialize<'de> for Scalars {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Ok(match OneOrMany::deserialize(deserializer)? {
            OneOrMany::One(scalar) => Self(vec![scalar]),
            OneOrMany::Many(scalars) => Self(scalars),
        })
    }
}

impl JsonSchema for Scalars {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Scalars".into()
    }

    fn json_schema(generator: &mut schemars::SchemaGenerator) -> schemars::Schema {
        OneOrMany::json_schema(generator)
    }
}

/// The number that a text reads as; NaN is none.
pub(crate) fn number(text: &str) -> Option<f64> {
    text.trim().parse::<f64>().ok().filter(|number| !number.is_nan())
}
