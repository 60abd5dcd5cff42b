//! Fields that a job adds to every request: quality, style, and whatever else a server takes.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::key::looks_like_key;

/// Fields that have keys of their own, or would turn the answer into something else.
const RESERVED: [&str; 9] = ["image", "image[]", "mask", "model", "n", "prompt", "size", "stream", "partial_images"];
/// The most fields of one job, and the longest text in one.
const MOST: usize = 64;
const LONGEST: usize = 4096;

/// A field's value: a form has no others.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(untagged, expecting = "expected a text, a number, true or false")]
pub enum FieldValue {
    /// `true` or `false`.
    Switch(bool),
    /// A whole number.
    Whole(i64),
    /// Any other number.
    Number(f64),
    /// A text.
    Text(String),
}

impl FieldValue {
    /// As it stands in JSON.
    pub(super) fn json(&self) -> Value {
        match self {
            Self::Switch(on) => Value::from(*on),
            Self::Whole(number) => Value::from(*number),
            Self::Number(number) => Value::from(*number),
            Self::Text(text) => Value::from(text.as_str()),
        }
    }
}

/// Says which field is impossible. `seed_field` is the field that seeds go into.
pub(super) fn check(fields: &BTreeMap<String, FieldValue>, seed_field: Option<&str>) -> Result<(), String> {
    if fields.len() > MOST {
        return Err(format!("{} fields are more than {MOST}", fields.len()));
    }
    for (name, value) in fields {
        check_name(name)?;
        if Some(name.as_str()) == seed_field {
            return Err(format!("`{name}` is where `seed_field` puts each image's own seed; leave it out of `fields`"));
        }
        match value {
            FieldValue::Text(text) if looks_like_key(text) => {
                return Err(format!(
                    "`{name}` holds what looks like a key; a key is given by `key_env` alone, the name of its variable"
                ));
            }
            FieldValue::Text(text) if text.len() > LONGEST => {
                return Err(format!("`{name}` holds {} bytes, more than {LONGEST}", text.len()));
            }
            FieldValue::Number(number) if !number.is_finite() => {
                return Err(format!("`{name}` is {number}, which JSON cannot hold"));
            }
            _ => {}
        }
    }
    Ok(())
}

/// Says why a name cannot be that of a field. It stands in the header of a form's part, so it is plain.
pub(super) fn check_name(name: &str) -> Result<(), String> {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"_-.[]".contains(&byte);
    if name.is_empty() || name.len() > 64 || !name.bytes().all(plain) {
        return Err(format!("`{}` is not 1 to 64 letters, digits and `_-.[]`", name.escape_default()));
    }
    match RESERVED.contains(&name) {
        true => Err(format!("`{name}` is set by this program; model and size have keys of their own")),
        false => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn checked(name: &str, value: FieldValue) -> Result<(), String> {
        check(&BTreeMap::from([(name.to_owned(), value)]), Some("seed"))
    }

    #[test]
    fn values_are_read_as_what_they_are() {
        let read = |text: &str| serde_json::from_str::<FieldValue>(text);
        assert_eq!(read("true").unwrap(), FieldValue::Switch(true));
        assert_eq!(read("30").unwrap().json().to_string(), "30");
        assert_eq!(read("7.5").unwrap().json().to_string(), "7.5");
        assert_eq!(read("\"hd\"").unwrap(), FieldValue::Text("hd".into()));
        assert!(read("[1]").unwrap_err().to_string().contains("expected a text, a number, true or false"));
    }

    #[test]
    fn impossible_fields_are_named() {
        let text = |text: &str| FieldValue::Text(text.into());
        assert_eq!(checked("quality", text("hd")), Ok(()));
        assert!(checked("prompt", text("a")).unwrap_err().contains("`prompt` is set by"));
        assert!(checked("seed", FieldValue::Whole(1)).unwrap_err().contains("seed_field"));
        assert!(checked("a\"\r\nb", text("a")).unwrap_err().contains("letters, digits"));
        assert!(checked("x", FieldValue::Number(f64::NAN)).unwrap_err().contains("NaN"));
        let said = checked("api_key", text("sk-abcdef")).unwrap_err();
        assert!(said.contains("looks like a key") && !said.contains("abcdef"), "{said}");
    }
}
