//! Prompts that fit the groups of the data, and the prompt of each request.

use std::collections::{BTreeMap, BTreeSet};

use evenset_core::{Group, MISSING, Seed};

use super::PromptError;
use super::draw::Draws;
use super::english::{article, plural};
use super::template::{Part, Place, Template, with_first};
use super::written::{Override, Phrase, Phrases, Prompts, Texts};
use crate::limits::holds;
use crate::{PlanError, Values};

/// Prompts that were checked against the groups that they are for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CheckedPrompts {
    /// What holds for all groups, then what holds for some of them instead.
    layers: Vec<Layer>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Layer {
    groups: Values,
    templates: Vec<Template>,
    negatives: Vec<Template>,
    /// Phrases by attribute and value.
    phrases: BTreeMap<String, BTreeMap<String, Vec<Wording>>>,
    words: BTreeMap<String, Vec<Wording>>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Wording {
    one: String,
    many: String,
}

/// What a text-to-image model is told for one request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Prompt {
    /// What to draw.
    pub prompt: String,
    /// What not to draw.
    pub negative: Option<String>,
}

impl Prompts {
    /// Checks the prompts against the groups that they are for.
    ///
    /// # Errors
    /// [`PromptError`], with the template and the column, or the key.
    pub fn check<'a>(&self, groups: impl IntoIterator<Item = &'a Group>) -> Result<CheckedPrompts, PromptError> {
        let known = Known::of(groups);
        let slots: Vec<&String> = self.words.keys().collect();
        let base = Override {
            groups: Values::new(),
            template: Some(self.template.clone()),
            phrases: self.phrases.clone(),
            words: self.words.clone(),
            negative: self.negative.clone(),
        };
        let mut layers = vec![known.layer("prompts", &base, &slots)?];
        for (number, other) in self.overrides.iter().enumerate() {
            layers.push(known.layer(&format!("prompts.overrides[{number}]"), other, &slots)?);
        }
        Ok(CheckedPrompts { layers })
    }
}

/// The attributes of the groups and their values.
struct Known<'a> {
    attributes: Vec<String>,
    values: BTreeMap<&'a str, BTreeSet<&'a str>>,
}

impl<'a> Known<'a> {
    fn of(groups: impl IntoIterator<Item = &'a Group>) -> Self {
        let mut known = Self { attributes: Vec::new(), values: BTreeMap::new() };
        for (attribute, value) in groups.into_iter().flat_map(Group::pairs) {
            let values = known.values.entry(attribute).or_insert_with(|| {
                known.attributes.push(attribute.to_owned());
                BTreeSet::new()
            });
            if value != MISSING {
                values.insert(value);
            }
        }
        known
    }

    fn layer(&self, key: &str, written: &Override, slots: &[&String]) -> Result<Layer, PromptError> {
        for (attribute, value) in &written.groups {
            self.check_value(&format!("{key}.where"), attribute, value)?;
        }
        let mut phrases: BTreeMap<String, BTreeMap<String, Vec<Wording>>> = BTreeMap::new();
        for (attribute, values) in &written.phrases {
            for (value, wordings) in values {
                let at = format!("{key}.phrases");
                self.check_value(&at, attribute, value)?;
                let wordings = wordings_of(&format!("{at}.{attribute}.{value}"), Phrases::all(wordings))?;
                phrases.entry(attribute.clone()).or_default().insert(value.clone(), wordings);
            }
        }
        let mut words = BTreeMap::new();
        for (slot, choices) in &written.words {
            let at = format!("{key}.words.{slot}");
            if self.values.contains_key(slot.as_str()) {
                return Err(PromptError::Ambiguous { key: at });
            }
            words.insert(slot.clone(), wordings_of(&at, choices)?);
        }
        let mut names = self.attributes.clone();
        let own = written.words.keys().filter(|slot| !slots.contains(slot));
        names.extend(slots.iter().copied().chain(own).cloned());
        let read = |what: &str, texts: &Option<Texts>| -> Result<Vec<Template>, PromptError> {
            let Some(texts) = texts else { return Ok(Vec::new()) };
            if texts.all().is_empty() || texts.all().iter().any(|text| text.trim().is_empty()) {
                return Err(PromptError::Empty { key: format!("{key}.{what}") });
            }
            texts.all().iter().map(|text| Template::read(text, &names)).collect()
        };
        let (templates, negatives) = (read("template", &written.template)?, read("negative", &written.negative)?);
        Ok(Layer { groups: written.groups.clone(), templates, negatives, phrases, words })
    }

    fn check_value(&self, key: &str, attribute: &str, value: &str) -> Result<(), PromptError> {
        let Some(values) = self.values.get(attribute) else {
            let known = self.attributes.clone();
            return Err(PromptError::UnknownAttribute { key: key.to_owned(), name: attribute.to_owned(), known });
        };
        if values.contains(value) {
            return Ok(());
        }
        Err(PromptError::UnknownValue {
            key: key.to_owned(),
            attribute: attribute.to_owned(),
            value: value.to_owned(),
            known: values.iter().map(|&value| value.to_owned()).collect(),
        })
    }
}

fn wordings_of(key: &str, phrases: &[Phrase]) -> Result<Vec<Wording>, PromptError> {
    let wording = |phrase: &Phrase| match phrase {
        Phrase::Text(one) => Wording { one: one.clone(), many: plural(one) },
        Phrase::Forms(forms) => Wording { one: forms.one.clone(), many: forms.many.clone() },
    };
    let wordings: Vec<Wording> = phrases.iter().map(wording).collect();
    let blank = |wording: &Wording| wording.one.trim().is_empty() || wording.many.trim().is_empty();
    if wordings.is_empty() || wordings.iter().any(blank) {
        return Err(PromptError::Empty { key: key.to_owned() });
    }
    Ok(wordings)
}

impl CheckedPrompts {
    /// The prompt of one request. It depends on the arguments alone.
    ///
    /// # Errors
    /// [`PlanError::Unprompted`] where the group lacks a value that its template names.
    pub fn prompt(&self, job_seed: Seed, group: &Group, round: u32, index: u64) -> Result<Prompt, PlanError> {
        self.of_group(job_seed, group, round).prompt(index)
    }

    /// The prompts of one group in one round.
    pub(crate) fn of_group<'a>(&'a self, job_seed: Seed, group: &'a Group, round: u32) -> GroupPrompts<'a> {
        // The last one that says something wins.
        let layers: Vec<&Layer> = self.layers.iter().rev().filter(|layer| holds(group, &layer.groups)).collect();
        let texts = |of: fn(&Layer) -> &[Template]| {
            layers.iter().map(|layer| of(layer)).find(|texts| !texts.is_empty()).unwrap_or(&[])
        };
        GroupPrompts {
            group,
            draws: Draws::new(job_seed, group, round),
            templates: texts(|layer| &layer.templates),
            negatives: texts(|layer| &layer.negatives),
            layers,
        }
    }
}

/// What is said for one group in one round.
pub(crate) struct GroupPrompts<'a> {
    group: &'a Group,
    draws: Draws<'a>,
    templates: &'a [Template],
    negatives: &'a [Template],
    layers: Vec<&'a Layer>,
}

impl GroupPrompts<'_> {
    /// The prompt of the request with this index.
    pub fn prompt(&mut self, index: u64) -> Result<Prompt, PlanError> {
        let (templates, negatives) = (self.templates, self.negatives);
        let chosen = self.draws.pick("template", templates.len(), index);
        let prompt = self.fill(&templates[chosen], index)?;
        let chosen = self.draws.pick("negative", negatives.len(), index);
        let negative = negatives.get(chosen).map(|negative| self.fill(negative, index)).transpose()?;
        Ok(Prompt { prompt, negative })
    }

    fn fill(&mut self, Template(parts): &Template, index: u64) -> Result<String, PlanError> {
        let mut text = String::new();
        for part in parts {
            match part {
                Part::Text(plain) => text.push_str(plain),
                Part::Place(place) => text.push_str(&self.say(place, index)?),
            }
        }
        Ok(text)
    }

    fn say(&mut self, place: &Place, index: u64) -> Result<String, PlanError> {
        let wording = self.wording(&place.name, index)?;
        let phrase = if place.plural { wording.many } else { wording.one };
        let said = match place.article {
            // There is no article before several.
            true if !place.plural => format!("{} {phrase}", article(&phrase)),
            _ => phrase,
        };
        Ok(if place.capital { with_first(&said, |first| first.to_uppercase().collect()) } else { said })
    }

    /// The wording that this request uses for an attribute or a word slot, wherever it stands in the template.
    fn wording(&mut self, name: &str, index: u64) -> Result<Wording, PlanError> {
        if let Some(words) = self.layers.iter().find_map(|layer| layer.words.get(name)) {
            return Ok(words[self.draws.pick(&format!("words {name}"), words.len(), index)].clone());
        }
        let value = self.group.get(name).filter(|value| *value != MISSING);
        let missing = || PlanError::Unprompted { group: self.group.clone(), attribute: name.to_owned() };
        let value = value.ok_or_else(missing)?;
        let phrases = self.layers.iter().find_map(|layer| layer.phrases.get(name)?.get(value));
        match phrases {
            Some(phrases) => Ok(phrases[self.draws.pick(&format!("phrases {name}"), phrases.len(), index)].clone()),
            None => Ok(Wording { one: value.to_owned(), many: plural(value) }),
        }
    }
}
