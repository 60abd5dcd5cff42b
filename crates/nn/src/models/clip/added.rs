//! The tokens that a CLIP tokenizer looks for in a text before it cuts the rest into pieces: its special ones.
//!
//! Up to four files of a folder say which they are. transformers (5.24, `PreTrainedTokenizerBase._from_pretrained` and
//! `TokenizersBackend.__init__`) lets the later ones win and adds a token twice where two files describe it differently,
//! the second time counting. That shows: of Stable Diffusion 1's tokenizer `<|ENDOFTEXT|>` in a prompt is eleven letters
//! and two signs, of Stable Diffusion 2's it is the end of the text; and where `!` fills texts up, as in Stable Diffusion 2
//! and XL, every `!` of a prompt is that filling.

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::{Map, Value, json};

use super::tokens::{END, START, read_json};
use crate::error::{Error, Result};

/// The places that a special token can have, in the order in which transformers adds them.
const PLACES: [&str; 7] = ["bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token"];
/// Lists of further ones, under the name of today and that of yesterday.
const LISTS: [&str; 2] = ["extra_special_tokens", "additional_special_tokens"];
/// The most tokens that are taken from a folder's files.
const MOST: usize = 1 << 16;

/// A token and how it is looked for.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Added {
    content: String,
    /// In the text in small letters, rather than in the text as it was written.
    normalized: bool,
    lstrip: bool,
    rstrip: bool,
    single_word: bool,
    special: bool,
    /// Written as a string alone.
    plain: bool,
}

/// The special tokens of a folder.
#[derive(Debug)]
pub(super) struct SpecialTokens {
    /// In the form of a `tokenizer.json`, in the order in which they are added; of two with one content the last counts.
    pub(super) added: Vec<Value>,
    /// The tokens of a text's ends, and those for the unknown and for filling up.
    pub(super) start: String,
    pub(super) end: String,
    pub(super) unknown: String,
    pub(super) pad: String,
}

impl SpecialTokens {
    /// Those that the files of `dir` name; `inside` are those of its `tokenizer.json`, where it has one.
    pub(super) fn read(dir: &Path, inside: &[Value]) -> Result<Self> {
        let config = optional(dir, "tokenizer_config.json")?;
        let mut places: BTreeMap<&str, Added> = BTreeMap::new();
        for (place, content) in [("bos_token", START), ("eos_token", END), ("unk_token", END), ("pad_token", END)] {
            places.insert(place, Added::plain(content));
        }
        place(&mut places, &config);
        let mut further = list(&config);
        let mut numbered: BTreeMap<u64, Added> = BTreeMap::new();
        match config.get("added_tokens_decoder") {
            Some(Value::Object(tokens)) => {
                let numbers = tokens.iter().filter_map(|(id, token)| Some((id.parse().ok()?, Added::of(token, None)?)));
                numbered.extend(numbers.take(MOST));
            }
            _ => {
                let map = optional(dir, "special_tokens_map.json")?;
                place(&mut places, &map);
                further.extend(list(&map));
                let special: Vec<String> = places.values().chain(&further).map(|token| token.content.clone()).collect();
                for (content, id) in optional(dir, "added_tokens.json")?.into_iter().take(MOST) {
                    let special = special.contains(&content);
                    let token = Added { normalized: !special, special, plain: false, ..Added::plain(&content) };
                    numbered.extend(id.as_u64().map(|id| (id, token)));
                }
                let number = |token: &Value| Some((token.get("id")?.as_u64()?, Added::of(token, None)?));
                numbered.extend(inside.iter().take(MOST).filter_map(number));
            }
        }
        Ok(Self::gather(places, further, numbered))
    }

    /// Those of the published Stable Diffusion models, whose texts are filled up with `pad`.
    pub(super) fn published(pad: &str) -> Self {
        let described = |content| Added { normalized: true, plain: false, ..Added::plain(content) };
        let ends = [("bos_token", START), ("eos_token", END), ("unk_token", END)];
        let mut places: BTreeMap<&str, Added> = ends.map(|(place, content)| (place, described(content))).into();
        places.insert("pad_token", Added::plain(pad));
        Self::gather(places, Vec::new(), BTreeMap::new())
    }

    fn gather(mut places: BTreeMap<&str, Added>, further: Vec<Added>, numbered: BTreeMap<u64, Added>) -> Self {
        for token in places.values_mut() {
            if let Some(described) = numbered.values().find(|numbered| numbered.content == token.content) {
                *token = described.clone();
            }
        }
        let named: Vec<String> = places.values().map(|token| token.content.clone()).collect();
        let known: Vec<String> = numbered.values().map(|token| token.content.clone()).collect();
        let mut added: Vec<Added> = numbered.into_values().collect();
        let in_order = PLACES.iter().filter_map(|place| places.get(place)).chain(&further);
        for token in in_order {
            if !known.contains(&token.content) && !added.contains(token) {
                added.push(token.clone());
            }
        }
        let content = |place: &str| places.get(place).map_or_else(|| END.to_owned(), |token| token.content.clone());
        Self {
            start: content("bos_token"),
            end: content("eos_token"),
            unknown: content("unk_token"),
            pad: content("pad_token"),
            added: added.into_iter().map(|token| token.described(&named)).collect(),
        }
    }
}

impl Added {
    /// As transformers takes a bare string.
    fn plain(content: &str) -> Self {
        Self {
            content: content.to_owned(),
            normalized: false,
            lstrip: false,
            rstrip: false,
            single_word: false,
            special: true,
            plain: true,
        }
    }

    /// A string, or a map of a token's properties; `special` where the file's place says it.
    fn of(value: &Value, special: Option<bool>) -> Option<Self> {
        if let Some(content) = value.as_str() {
            return Some(Self::plain(content));
        }
        let flag = |name: &str| value.get(name).and_then(Value::as_bool);
        let special = special.or_else(|| flag("special")).unwrap_or(false);
        Some(Self {
            content: value.get("content")?.as_str()?.to_owned(),
            normalized: flag("normalized").unwrap_or(!special),
            lstrip: flag("lstrip").unwrap_or(false),
            rstrip: flag("rstrip").unwrap_or(false),
            single_word: flag("single_word").unwrap_or(false),
            special,
            plain: false,
        })
    }

    /// As `tokenizer.json` has it. The number is given by the vocabulary.
    fn described(self, named: &[String]) -> Value {
        let special = self.special || named.contains(&self.content);
        json!({"id": 0, "content": self.content, "single_word": self.single_word, "lstrip": self.lstrip,
               "rstrip": self.rstrip, "normalized": self.normalized, "special": special})
    }
}

/// The tokens in their places, over those that are there already.
fn place(places: &mut BTreeMap<&'static str, Added>, file: &Map<String, Value>) {
    // In a map of `special_tokens_map.json` a token is special whatever is written; of `tokenizer_config.json` it becomes so.
    let tokens = PLACES.iter().filter_map(|place| Some((*place, Added::of(file.get(*place)?, Some(true))?)));
    places.extend(tokens);
}

fn list(file: &Map<String, Value>) -> Vec<Added> {
    let values = LISTS.iter().filter_map(|name| file.get(*name)?.as_array()).flatten();
    values.take(MOST).filter_map(|value| Added::of(value, Some(true))).collect()
}

/// A file that need not be there.
fn optional(dir: &Path, name: &str) -> Result<Map<String, Value>> {
    match dir.join(name) {
        path if path.is_file() => read_json(&path),
        _ => Ok(Map::new()),
    }
}

/// The error for a token of a text's ends that the vocabulary lacks.
pub(super) fn missing(vocabulary: &Path, token: &str) -> Error {
    Error::Tokenizer {
        path: vocabulary.to_owned(),
        reason: format!("the word `{token}` is missing; this is not the vocabulary of a CLIP model"),
    }
}
