//! Typed reading of a scheduler's settings: every refusal names the file, the key, the value and what can stand there.

use std::path::Path;

use serde_json::{Map, Value};

use crate::error::{DiffusionError, Result};

/// The least of what must be positive.
pub(super) const LEAST_POSITIVE: f64 = 1e-6;

/// The settings that a file gives, for one class. A key that is absent has the class's default.
pub(super) struct Settings<'a> {
    pub path: &'a Path,
    pub values: &'a Map<String, Value>,
}

impl Settings<'_> {
    /// A finite number from `least` to `most`.
    pub fn number(&self, key: &str, default: f64, least: f64, most: f64) -> Result<f64> {
        let Some(value) = self.values.get(key) else { return Ok(default) };
        let number = value.as_f64().filter(|number| (least..=most).contains(number));
        number.ok_or_else(|| self.refuse(key, format!("a number from {least} to {most}")))
    }

    /// A positive number, or `null` for none.
    pub fn positive(&self, key: &str) -> Result<Option<f64>> {
        match self.values.get(key) {
            None | Some(Value::Null) => Ok(None),
            Some(_) => self.number(key, 1.0, LEAST_POSITIVE, 1e6).map(Some),
        }
    }

    /// A whole number from `least` to `most`.
    pub fn count(&self, key: &str, default: usize, least: usize, most: usize) -> Result<usize> {
        let Some(value) = self.values.get(key) else { return Ok(default) };
        let count = value.as_u64().and_then(|count| usize::try_from(count).ok());
        count
            .filter(|count| (least..=most).contains(count))
            .ok_or_else(|| self.refuse(key, format!("a whole number from {least} to {most}")))
    }

    /// `true`, `false`, or `null` for `false`.
    pub fn flag(&self, key: &str, default: bool) -> Result<bool> {
        match self.values.get(key) {
            None => Ok(default),
            Some(Value::Null) => Ok(false),
            Some(value) => value.as_bool().ok_or_else(|| self.refuse(key, "true or false")),
        }
    }

    /// One of the named values; the default is one of the names.
    pub fn choice<T: Copy>(&self, key: &str, default: &str, choices: &[(&str, T)]) -> Result<T> {
        let name = match self.values.get(key) {
            None => Some(default),
            Some(value) => value.as_str(),
        };
        let found = choices.iter().find(|(choice, _)| Some(*choice) == name);
        found.map(|(_, value)| *value).ok_or_else(|| {
            let names: Vec<String> = choices.iter().map(|(choice, _)| format!("\"{choice}\"")).collect();
            self.refuse(key, names.join(" or "))
        })
    }

    /// Fails where a setting is on that is not computed here.
    pub fn only_off(&self, keys: &[&str]) -> Result<()> {
        for key in keys {
            if self.flag(key, false)? {
                return Err(self.refuse(key, "false"));
            }
        }
        Ok(())
    }

    /// The error for a value that cannot be computed; `supported` says which can.
    pub fn refuse(&self, key: &str, supported: impl Into<String>) -> DiffusionError {
        let value = self.values.get(key).map_or_else(|| "its default".to_owned(), Value::to_string);
        DiffusionError::SchedulerSetting {
            path: self.path.to_owned(),
            key: shortened(key),
            value: shortened(&value),
            supported: supported.into(),
        }
    }
}

/// A text from a stranger's file, short enough for a message.
pub(super) fn shortened(text: &str) -> String {
    match text.char_indices().nth(200) {
        Some((end, _)) => format!("{}..", text.get(..end).unwrap_or_default()),
        None => text.to_owned(),
    }
}
