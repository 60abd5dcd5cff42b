//! Prompts as the job file writes them.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::Values;

/// What a text-to-image model is told.
///
/// In a template `{garment}` stands for the phrase of that attribute, `{a garment}` for it with its article and
/// `{A garment}` for both at the start of a sentence, `{garment:plural}` for its plural, `{place}` for a word of that
/// slot; `{{` and `}}` are braces.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Prompts {
    /// The template, or a list of templates that are used equally often.
    pub template: Texts,
    /// For each attribute and value the phrase that stands for it, or a list of wordings that are used equally often.
    /// A value without a phrase stands for itself.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub phrases: BTreeMap<String, BTreeMap<String, Phrases>>,
    /// Slots of words that have nothing to do with the attributes, such as places; all are used equally often.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub words: BTreeMap<String, Vec<Phrase>>,
    /// What is not to be drawn: a template or a list of them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub negative: Option<Texts>,
    /// Other prompts for some groups; where several fit, the later ones win.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub overrides: Vec<Override>,
}

/// Other prompts for the groups that have some values.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Override {
    /// The values of the groups that this is for.
    #[serde(rename = "where")]
    pub groups: Values,
    /// Instead of `template`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub template: Option<Texts>,
    /// Instead of the phrases of the same attributes and values.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub phrases: BTreeMap<String, BTreeMap<String, Phrases>>,
    /// Instead of the slots of the same names, or beside them.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub words: BTreeMap<String, Vec<Phrase>>,
    /// Instead of `negative`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub negative: Option<Texts>,
}

/// One text or a list of them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(untagged, expecting = "a text or a list of texts")]
pub enum Texts {
    /// One text.
    One(String),
    /// Texts that are used equally often.
    Many(Vec<String>),
}

impl Texts {
    /// The texts.
    pub fn all(&self) -> &[String] {
        match self {
            Self::One(text) => std::slice::from_ref(text),
            Self::Many(texts) => texts,
        }
    }
}

/// One phrase or several wordings of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(untagged, expecting = "a phrase, `{one: .., many: ..}` or a list of these")]
pub enum Phrases {
    /// Wordings that are used equally often. First, or a list of two would read as the two forms of one phrase.
    Many(Vec<Phrase>),
    /// One phrase.
    One(Phrase),
}

impl Phrases {
    /// The wordings.
    pub fn all(&self) -> &[Phrase] {
        match self {
            Self::Many(phrases) => phrases,
            Self::One(phrase) => std::slice::from_ref(phrase),
        }
    }
}

/// A phrase, with its plural where English rules would get it wrong.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(untagged, expecting = "a phrase or `{one: .., many: ..}`")]
pub enum Phrase {
    /// The phrase for one; its plural follows the rules.
    Text(String),
    /// Both forms.
    Forms(Forms),
}

/// A phrase in both numbers.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Forms {
    /// For one.
    pub one: String,
    /// For several.
    pub many: String,
}
