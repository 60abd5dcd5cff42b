//! CLIP's vocabulary, which all versions of Stable Diffusion share and which models in single files leave out.
//!
//! `vocabulary/merges.txt.gz` is OpenAI's (MIT licence, beside it); `scripts/make-clip-merges.py` made it.

use std::io::Read;

use flate2::read::GzDecoder;
use serde_json::{Map, Value};

use super::tokens::{END, START};

const MERGES: &[u8] = include_bytes!("vocabulary/merges.txt.gz");

/// The words of a byte-level tokenizer with their numbers, and the pairs of pieces that it joins, the first ones first.
pub(super) struct Vocabulary {
    pub(super) words: Map<String, Value>,
    pub(super) pairs: Vec<String>,
}

impl Vocabulary {
    /// CLIP's own, of 49,408 words.
    pub(super) fn clip() -> std::io::Result<Self> {
        let mut text = String::new();
        GzDecoder::new(MERGES).read_to_string(&mut text)?;
        let pairs: Vec<String> = text.lines().map(str::to_owned).collect();
        let signs = alphabet();
        let at_end = signs.iter().map(|sign| format!("{sign}</w>"));
        let joined = pairs.iter().map(|pair| pair.replacen(' ', "", 1));
        let words =
            signs.iter().map(char::to_string).chain(at_end).chain(joined).chain([START, END].map(str::to_owned));
        let words = words.enumerate().map(|(number, word)| (word, number.into())).collect();
        Ok(Self { words, pairs })
    }
}

/// The signs that stand for the 256 bytes: first those that can be seen, as themselves, then the others as the signs
/// from U+0100 on.
fn alphabet() -> Vec<char> {
    let seen = |byte: u8| matches!(byte, b'!'..=b'~' | 0xa1..=0xac | 0xae..=0xff);
    let unseen = (0..=u8::MAX).filter(|byte| !seen(*byte)).count() as u32;
    let others = (0x100..0x100 + unseen).filter_map(char::from_u32);
    (0..=u8::MAX).filter(|byte| seen(*byte)).map(char::from).chain(others).collect()
}
