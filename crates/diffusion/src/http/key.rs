//! The key: only the name of its environment variable is ever written, shown or stored.

use std::fmt;

use reqwest::header::HeaderValue;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::error::{DiffusionError, Result};

/// Beginnings of keys that well-known services give out.
const KEY_BEGINNINGS: [&str; 14] =
    ["sk-", "sk_", "pk-", "hf_", "r8_", "gsk_", "key-", "xai-", "nvapi-", "fw_", "tgp_", "ghp_", "AIza", "Bearer "];
/// A run of so many letters and digits, with both in it, is a key and not a word.
const RANDOM_RUN: usize = 16;
/// Shorter keys are stand-ins for servers that ask for none, and such a word must not be struck from messages.
const SHORTEST_SECRET: usize = 4;
/// Stands in for the key in whatever a server says.
const STRUCK: &str = "[key]";

/// The name of an environment variable. What looks like a key itself is refused while it is read, and is not repeated in
/// the message.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(try_from = "String", into = "String")]
#[schemars(with = "String")]
pub struct KeyVariable(String);

impl KeyVariable {
    /// The variable's name.
    pub fn name(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for KeyVariable {
    type Error = &'static str;

    fn try_from(name: String) -> Result<Self, Self::Error> {
        if looks_like_key(&name) {
            return Err("this looks like a key and not like the name of an environment variable; revoke the key, put \
                        another one into a variable, for example OPENAI_API_KEY, and give the variable's name here");
        }
        let letters = name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
        if !letters || name.len() > 128 || !name.starts_with(|first: char| first.is_ascii_alphabetic() || first == '_')
        {
            return Err("this is not the name of an environment variable (letters, digits and `_`, at most 128, no \
                        digit first), for example OPENAI_API_KEY");
        }
        Ok(Self(name))
    }
}

impl From<KeyVariable> for String {
    fn from(variable: KeyVariable) -> Self {
        variable.0
    }
}

/// Whether a text is more likely a key than a name: it begins like one, or holds a long run of letters and digits mixed.
pub(super) fn looks_like_key(text: &str) -> bool {
    let random = |run: &str| {
        run.len() >= RANDOM_RUN
            && run.bytes().any(|byte| byte.is_ascii_digit())
            && run.bytes().any(|byte| byte.is_ascii_alphabetic())
    };
    KEY_BEGINNINGS.iter().any(|beginning| text.starts_with(beginning))
        || text.split(|character: char| !character.is_ascii_alphanumeric()).any(random)
}

/// The key itself.
pub(super) struct Key {
    text: String,
    header: HeaderValue,
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(STRUCK)
    }
}

impl Key {
    /// The key in a variable, without the line break that a file's content ends with.
    pub fn read(variable: &KeyVariable, environment: &dyn Fn(&str) -> Option<String>) -> Result<Self> {
        let fail = |reason| DiffusionError::Key { variable: variable.0.clone(), reason };
        let text = environment(&variable.0).ok_or_else(|| fail("it is not set; export it with the server's key"))?;
        let text = text.trim();
        if text.is_empty() {
            return Err(fail("it is empty; export it with the server's key"));
        }
        let mut header = HeaderValue::try_from(format!("Bearer {text}"))
            .map_err(|_| fail("it holds characters that cannot be in a key, such as a line break; export it again"))?;
        header.set_sensitive(true);
        Ok(Self { text: text.to_owned(), header })
    }

    /// The value of `Authorization`.
    pub fn header(&self) -> HeaderValue {
        self.header.clone()
    }

    /// A server's text without the key, which some servers repeat.
    pub fn strike(&self, text: String) -> String {
        match self.text.len() >= SHORTEST_SECRET && text.contains(&self.text) {
            true => text.replace(&self.text, STRUCK),
            false => text,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn variable(text: &str) -> Result<KeyVariable, &'static str> {
        KeyVariable::try_from(text.to_owned())
    }

    #[test]
    fn names_of_variables_are_taken() {
        for name in ["OPENAI_API_KEY", "key", "_K", "my_provider_api_key_2", "AZURE_OPENAI_KEY_EASTUS2"] {
            assert_eq!(variable(name).unwrap().name(), name);
        }
    }

    #[test]
    fn what_looks_like_a_key_is_refused_without_being_repeated() {
        let keys = [
            "sk-proj-abcdefghijklmnop",
            "sk_live_abc",
            "hf_abcdefghijklmnopqrstuv",
            "AIzaSyExample",
            "0123456789abcdef0123456789abcdef",
            "d41d8cd98f00b204e9800998ecf8427e",
            "AKIAIOSFODNN7EXAMPLE",
            "MyKey_Zm9vYmFyMTIzNDU2",
        ];
        for key in keys {
            let said = variable(key).unwrap_err();
            assert!(said.contains("looks like a key") && !said.contains(key), "{key}: {said}");
        }
    }

    #[test]
    fn other_texts_are_no_names_of_variables() {
        for name in ["", "2KEY", "MY KEY", "KEY=x", "$KEY", "Schlüssel"] {
            assert!(variable(name).unwrap_err().contains("not the name of an environment variable"), "{name}");
        }
    }

    #[test]
    fn a_key_is_struck_from_texts_and_from_debug_output() {
        let read = |value: &str| Key::read(&variable("K").unwrap(), &|_| Some(value.to_owned()));
        let key = read("secret-value\n").unwrap();
        assert_eq!(key.strike("bad key secret-value, go".into()), "bad key [key], go");
        assert_eq!(format!("{key:?} {:?}", key.header()), "[key] Sensitive");
        assert_eq!(key.header().to_str().unwrap(), "Bearer secret-value");
        assert_eq!(read("x").unwrap().strike("an example".into()), "an example");
    }

    #[test]
    fn a_variable_that_is_unset_empty_or_torn_is_named() {
        let said = |value: Option<&str>| {
            let value = value.map(str::to_owned);
            Key::read(&variable("MY_KEY").unwrap(), &|_| value.clone()).unwrap_err().to_string()
        };
        assert!(said(None).contains("`MY_KEY`") && said(None).contains("not set"), "{}", said(None));
        assert!(said(Some(" \n")).contains("empty"));
        let torn = said(Some("sec\nret"));
        assert!(torn.contains("line break") && !torn.contains("sec"), "{torn}");
    }
}
