//! One attribute or a list of them, as a job file writes it.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

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

impl Attributes {
    /// These names, or `otherwise` where there are none.
    pub(crate) fn or<'a>(&'a self, otherwise: &'a [String]) -> &'a [String] {
        if self.0.is_empty() { otherwise } else { &self.0 }
    }
}
