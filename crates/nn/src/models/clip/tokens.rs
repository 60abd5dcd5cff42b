//! Texts as tokens, as transformers' `CLIPTokenizer` and SigLIP's make them.
//!
//! A folder holds `tokenizer.json`, or CLIP's `vocab.json` and `merges.txt`. Like transformers' `CLIPTokenizer` (5.24),
//! CLIP's takes the words and the pairs from either and builds the rest anew. CLIP's own words come with this crate too.
//! What earlier versions did with `ftfy` where that package was installed (mending text that was decoded wrongly) is not
//! done.

use std::path::{Path, PathBuf};

use serde_json::{Map, Value, json};
use tokenizers::{AddedToken, Tokenizer as Inner, TruncationDirection};

use super::added::{SpecialTokens, missing};
use super::config::Family;
use super::learned::LearnedToken;
use super::vocabulary::Vocabulary;
use crate::error::{Error, Result};

/// The longest file of a tokenizer that is read; the largest published one has 35 MB.
const CAP: u64 = 256 << 20;
/// CLIP's words for the ends of a text.
pub(super) const START: &str = "<|startoftext|>";
pub(super) const END: &str = "<|endoftext|>";
/// Where CLIP's byte-level pairs may not cross; the pattern of transformers' converter.
const PATTERN: &str = r"<\|startoftext\|>|<\|endoftext\|>|'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+";

/// Texts of one length as numbers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tokens {
    /// `[batch][tokens]`.
    pub ids: Vec<Vec<u32>>,
    /// `[batch][tokens]`: false for a token that others must not see. All are seen where a model was trained so.
    pub mask: Vec<Vec<bool>>,
}

impl Tokens {
    /// Texts of one length whose every token is seen.
    pub fn unmasked(ids: Vec<Vec<u32>>) -> Self {
        Self { mask: ids.iter().map(|ids| vec![true; ids.len()]).collect(), ids }
    }
}

/// What fills up short texts for the text encoders of the published Stable Diffusion models.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Filling {
    /// `<|endoftext|>`: Stable Diffusion 1, and the first encoder of XL.
    End,
    /// `!`: Stable Diffusion 2, and the second encoder of XL.
    Exclamation,
}

/// A tokenizer of CLIP or SigLIP.
#[derive(Clone, Debug)]
pub struct Tokenizer {
    inner: Inner,
    family: Family,
    length: usize,
    pad: u32,
    /// What stands around a text, and how much of it before the text.
    ends: (Vec<u32>, usize),
    /// Learned words of several tokens, and those tokens behind one another.
    learned: Vec<(String, String)>,
}

impl Tokenizer {
    /// The tokenizer in `dir`, for texts of `length` tokens: longer ones are cut, shorter ones filled up.
    ///
    /// # Errors
    /// [`Error::Tokenizer`] and [`Error::File`], naming the file, where files are missing, too long or damaged.
    pub fn from_folder(dir: &Path, family: Family, length: usize) -> Result<Self> {
        let whole = dir.join("tokenizer.json");
        let (path, (text, pad)) = match (whole.is_file(), dir.join("vocab.json").is_file()) {
            (true, _) if family == Family::Clip && is_clips_own(dir)? => (whole.clone(), from_whole(dir, &whole)?),
            (true, _) => {
                let pad = pad_token(dir)?.unwrap_or_else(|| default_pad(family).to_owned());
                (whole.clone(), (read(&whole)?, pad))
            }
            (false, true) if family == Family::Clip => (dir.join("vocab.json"), from_vocabulary(dir)?),
            (false, _) => return Err(nothing(dir, family)),
        };
        Self::built(&path, text, &pad, family, length)
    }

    /// CLIP's own tokenizer, for texts of `length` tokens: the one in the folders of Stable Diffusion, for models that come
    /// without.
    ///
    /// # Errors
    /// [`Error::Tokenizer`] for a `length` without room between the ends of a text.
    pub fn clip(filling: Filling, length: usize) -> Result<Self> {
        let path = Path::new("CLIP's own vocabulary");
        let Vocabulary { words, pairs } = Vocabulary::clip()
            .map_err(|error| Error::Tokenizer { path: path.to_owned(), reason: error.to_string() })?;
        let special = SpecialTokens::published(match filling {
            Filling::End => END,
            Filling::Exclamation => "!",
        });
        let description = described(path, words, json!(pairs), &special, Value::Null)?;
        Self::built(path, description, &special.pad, Family::Clip, length)
    }

    /// The tokenizer that a `tokenizer.json` describes; errors call it `path`.
    fn built(path: &Path, description: Vec<u8>, pad: &str, family: Family, length: usize) -> Result<Self> {
        let unusable = |reason: String| Error::Tokenizer {
            path: path.to_owned(),
            reason: format!("not a usable tokenizer ({reason}); write it again with transformers' save_pretrained"),
        };
        let mut inner = Inner::from_bytes(description).map_err(|error| unusable(error.to_string()))?;
        inner.with_truncation(None).map_err(|error| unusable(error.to_string()))?;
        inner.with_padding(None);
        let Some(pad) = inner.token_to_id(pad) else {
            return Err(unusable(format!("there is no token `{pad}` to fill texts up with")));
        };
        let ends = ends(&inner).map_err(|error| unusable(error.to_string()))?;
        if ends.0.len() >= length {
            return Err(unusable(format!("a text of {length} tokens has no room between the tokens of its ends")));
        }
        Ok(Self { inner, family, length, pad, ends, learned: Vec::new() })
    }

    /// Adds learned words: their tokens get the next numbers, `vocabulary` and on, which is where
    /// [`TextAdditions`](super::TextAdditions) puts the vectors of the same words in the same order.
    ///
    /// # Errors
    /// [`Error::Learned`] for a word that exists, or where the tokenizer's next number is not `vocabulary`: it belongs to
    /// another text encoder.
    pub fn add_learned(&mut self, words: &[LearnedToken], vocabulary: usize) -> Result<()> {
        let mut next = vocabulary;
        for word in words {
            let refusal = |reason: String| Error::Learned { path: word.path().to_owned(), reason };
            let names = word.names();
            for name in &names {
                if self.inner.token_to_id(name).is_some() {
                    return Err(refusal(format!("the token `{name}` exists already; give the word another name")));
                }
                self.inner
                    .add_tokens([AddedToken::from(name.as_str(), false)])
                    .map_err(|error| refusal(format!("`{name}` cannot be a token ({error}); give it another name")))?;
                let id = self.inner.token_to_id(name);
                if id.map(|id| id as usize) != Some(next) {
                    let reason = format!(
                        "its token `{name}` got the number {id:?} where the text encoder has {next}; tokenizer and text \
                         encoder belong to different models"
                    );
                    return Err(refusal(reason));
                }
                next += 1;
            }
            if names.len() > 1 {
                self.learned.push((word.word().to_owned(), names.join(" ")));
            }
        }
        Ok(())
    }

    /// The length of every text in tokens.
    pub fn length(&self) -> usize {
        self.length
    }

    /// The texts with the tokens of their ends, cut and filled up to [`length`](Self::length).
    ///
    /// The filling is masked for CLIP, whose texts do not see it anyway; SigLIP was trained to see it. SigLIP's texts are
    /// in small letters, as in its training.
    ///
    /// # Errors
    /// [`Error::Tokenizer`] where a text holds a piece that the tokenizer has no word for.
    pub fn encode<T: AsRef<str>>(&self, texts: &[T]) -> Result<Tokens> {
        let mut tokens = Tokens { ids: Vec::new(), mask: Vec::new() };
        for text in texts {
            let text = match self.family {
                Family::Clip => text.as_ref().to_owned(),
                Family::Siglip => text.as_ref().to_lowercase(),
            };
            let text = self.spelled(text);
            let encode = || {
                let mut encoding = self.inner.encode_fast(text.as_str(), false)?;
                encoding.truncate(self.room(), 0, TruncationDirection::Right);
                self.inner.post_process(encoding, None, true)
            };
            let mut ids = encode().map_err(|error| unreadable(&text, &error))?.get_ids().to_vec();
            let filled = ids.len();
            ids.resize(self.length, self.pad);
            tokens.mask.push((0..self.length).map(|i| i < filled || self.family == Family::Siglip).collect());
            tokens.ids.push(ids);
        }
        Ok(tokens)
    }

    /// How many pieces of a text have room beside the tokens of its ends: 75 of CLIP's 77.
    pub fn room(&self) -> usize {
        self.length - self.ends.0.len()
    }

    /// All pieces of a text, however many, without the tokens of its ends.
    ///
    /// # Errors
    /// As [`encode`](Self::encode).
    pub fn pieces(&self, text: &str) -> Result<Vec<u32>> {
        let spelled = self.spelled(text.to_owned());
        let encoding = self.inner.encode_fast(spelled, false).map_err(|error| unreadable(text, &error))?;
        Ok(encoding.get_ids().to_vec())
    }

    /// The text with learned words of several tokens as those tokens.
    fn spelled(&self, text: String) -> String {
        self.learned.iter().fold(text, |text, (word, tokens)| text.replace(word, tokens))
    }

    /// Pieces between the tokens of a text's ends, filled up to [`length`](Self::length); those beyond
    /// [`room`](Self::room) are left out. What [`encode`](Self::encode) makes of a text is this of its
    /// [`pieces`](Self::pieces).
    pub fn framed(&self, pieces: &[u32]) -> Vec<u32> {
        let (ends, before) = &self.ends;
        let (start, end) = ends.split_at(*before);
        let mut ids = [start, pieces.get(..self.room()).unwrap_or(pieces), end].concat();
        ids.resize(self.length, self.pad);
        ids
    }

    /// One more than the highest number that a token can have.
    pub fn words(&self) -> usize {
        let highest = self.inner.get_vocab(true).into_values().max();
        highest.map_or(0, |highest| highest as usize + 1)
    }

    /// How many tokens [`framed`](Self::framed) puts before the pieces: CLIP's one.
    pub fn before(&self) -> usize {
        self.ends.1
    }
}

/// What stands around a text, and how much of it before the text.
fn ends(inner: &Inner) -> tokenizers::Result<(Vec<u32>, usize)> {
    let ids = |text, ends| Ok::<_, tokenizers::Error>(inner.encode_fast(text, ends)?.get_ids().to_vec());
    let (around, piece, whole) = (ids("", true)?, ids("a", false)?, ids("a", true)?);
    let is_start = |at: &usize| [&around[..*at], &piece, &around[*at..]].concat() == whole;
    match (0..=around.len()).find(is_start) {
        Some(before) => Ok((around, before)),
        None => Err("it puts other tokens around one text than around another".into()),
    }
}

fn unreadable(text: &str, error: &tokenizers::Error) -> Error {
    let start: String = text.chars().take(60).collect();
    Error::Tokenizer { path: PathBuf::from("tokenizer"), reason: format!("cannot read {start:?}: {error}") }
}

fn nothing(dir: &Path, family: Family) -> Error {
    let expected = match family {
        Family::Clip => "tokenizer.json, or vocab.json with merges.txt",
        Family::Siglip => "tokenizer.json",
    };
    let remedy = match ["spiece.model", "tokenizer.model"].iter().find(|name| dir.join(name).is_file()) {
        Some(name) => format!(
            " ({name} alone is not read; convert it: python -c \"from transformers import AutoTokenizer; \
             AutoTokenizer.from_pretrained('.', use_fast=True).save_pretrained('.')\")"
        ),
        None => String::new(),
    };
    Error::Tokenizer { path: dir.to_owned(), reason: format!("no tokenizer; expected {expected}{remedy}") }
}

fn default_pad(family: Family) -> &'static str {
    match family {
        Family::Clip => END,
        Family::Siglip => "</s>",
    }
}

fn read(path: &Path) -> Result<Vec<u8>> {
    let failed = |source| Error::File { path: path.to_owned(), source };
    let length = std::fs::metadata(path).map_err(failed)?.len();
    if length > CAP {
        let reason = format!("{length} bytes are too many for a tokenizer's file");
        return Err(Error::Tokenizer { path: path.to_owned(), reason });
    }
    std::fs::read(path).map_err(failed)
}

pub(super) fn read_json(path: &Path) -> Result<Map<String, Value>> {
    serde_json::from_slice(&read(path)?)
        .map_err(|error| Error::Tokenizer { path: path.to_owned(), reason: format!("not a JSON object: {error}") })
}

/// The token that fills texts up, as the files beside a tokenizer name it.
fn pad_token(dir: &Path) -> Result<Option<String>> {
    for name in ["tokenizer_config.json", "special_tokens_map.json"] {
        let path = dir.join(name);
        if !path.is_file() {
            continue;
        }
        let token = match read_json(&path)?.remove("pad_token") {
            Some(Value::String(token)) => Some(token),
            Some(Value::Object(token)) => token.get("content").and_then(Value::as_str).map(str::to_owned),
            _ => None,
        };
        if token.is_some() {
            return Ok(token);
        }
    }
    Ok(None)
}

/// Whether transformers reads the folder as a CLIP tokenizer, of whose `tokenizer.json` it takes the words and the pairs
/// alone.
fn is_clips_own(dir: &Path) -> Result<bool> {
    let path = dir.join("tokenizer_config.json");
    if !path.is_file() {
        return Ok(true);
    }
    let class = read_json(&path)?.remove("tokenizer_class");
    Ok(class.is_none_or(|class| class.as_str().is_none_or(|class| class.starts_with("CLIPTokenizer"))))
}

/// CLIP's tokenizer from a `tokenizer.json`, and the token that fills texts up.
fn from_whole(dir: &Path, path: &Path) -> Result<(Vec<u8>, String)> {
    let mut whole = read_json(path)?;
    let mut part = |key: &str| whole.remove(key).unwrap_or_default();
    let (mut model, added, processor) = (part("model"), part("added_tokens"), part("post_processor"));
    let special = SpecialTokens::read(dir, added.as_array().map_or(&[], Vec::as_slice))?;
    let mut of_model = |key: &str| model.get_mut(key).map(Value::take).unwrap_or_default();
    let (Value::Object(words), pairs @ Value::Array(_)) = (of_model("vocab"), of_model("merges")) else {
        let reason = "no words and pairs of a byte-level tokenizer in it; copy the file of a CLIP model again";
        return Err(Error::Tokenizer { path: path.to_owned(), reason: reason.into() });
    };
    let description = described(path, words, pairs, &special, processor)?;
    Ok((description, special.pad))
}

/// The same from its words and the pairs that are joined.
fn from_vocabulary(dir: &Path) -> Result<(Vec<u8>, String)> {
    let (vocabulary, merges) = (dir.join("vocab.json"), dir.join("merges.txt"));
    let words = read_json(&vocabulary)?;
    let pairs = String::from_utf8(read(&merges)?)
        .map_err(|_| Error::Tokenizer { path: merges.clone(), reason: "not UTF-8 text; copy the file again".into() })?;
    let pairs: Vec<&str> =
        pairs.lines().filter(|line| !line.trim().is_empty() && !line.starts_with("#version")).collect();
    let special = SpecialTokens::read(dir, &[])?;
    let description = described(&vocabulary, words, json!(pairs), &special, Value::Null)?;
    Ok((description, special.pad))
}

/// What `CLIPTokenizer.__init__` builds.
fn described(
    path: &Path,
    words: Map<String, Value>,
    pairs: Value,
    special: &SpecialTokens,
    processor: Value,
) -> Result<Vec<u8>> {
    let id = |token: &str| words.get(token).and_then(Value::as_u64).ok_or_else(|| missing(path, token));
    let (start, end) = (id(&special.start)?, id(&special.end)?);
    let processor = match processor.is_object() {
        true => processor,
        false => json!({"type": "RobertaProcessing", "sep": [special.end, end], "cls": [special.start, start],
                        "trim_offsets": false, "add_prefix_space": false}),
    };
    let description = json!({
        "version": "1.0",
        "added_tokens": special.added,
        "normalizer": {"type": "Sequence", "normalizers": [
            {"type": "NFC"},
            {"type": "Replace", "pattern": {"Regex": r"\s+"}, "content": " "},
            {"type": "Lowercase"},
        ]},
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": [
            {"type": "Split", "pattern": {"Regex": PATTERN}, "behavior": "Removed", "invert": true},
            {"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true},
        ]},
        "post_processor": processor,
        "model": {"type": "BPE", "unk_token": special.unknown, "continuing_subword_prefix": "",
                  "end_of_word_suffix": "</w>", "fuse_unk": false, "vocab": words, "merges": pairs},
    });
    Ok(description.to_string().into_bytes())
}
