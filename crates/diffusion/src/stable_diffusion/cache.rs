//! Texts that were encoded a short while ago.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use candle_core::Tensor;

use super::prompt::{LongPrompts, PromptOptions};
use crate::error::Result;

/// How many texts are kept. XL's take 0.6 MB each and window.
const KEPT: usize = 32;

/// A text as one encoder sees it.
#[derive(Clone, Debug)]
pub(super) struct Encoded {
    /// `[1, tokens of a window, width]` each.
    pub(super) windows: Vec<Tensor>,
    /// XL's second encoder: `[1, projection]`, of the first window.
    pub(super) pooled: Option<Tensor>,
}

/// What an encoding depends on, beside the encoder's weights.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Key {
    /// Which encoder.
    pub(super) second: bool,
    pub(super) text: String,
    pub(super) options: PromptOptions,
}

impl Key {
    /// A text without a word, which fills up the shorter of two.
    pub(super) fn empty(second: bool, clip_skip: usize) -> Self {
        let options = PromptOptions { long_prompts: LongPrompts::Cut, emphasis: false, clip_skip };
        Self { second, text: String::new(), options }
    }
}

/// The last texts, so that each is encoded once while a job draws many images of few prompts.
#[derive(Debug, Default)]
pub(super) struct Cache {
    entries: Mutex<VecDeque<(Key, Arc<Encoded>)>>,
}

impl Cache {
    /// What is known for `key`, or what `encode` makes of it.
    pub(super) fn get(&self, key: Key, encode: impl FnOnce(&Key) -> Result<Encoded>) -> Result<Arc<Encoded>> {
        if let Some(known) = self.known(&key) {
            return Ok(known);
        }
        let encoded = Arc::new(encode(&key)?);
        let mut entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        entries.push_back((key, encoded.clone()));
        if entries.len() > KEPT {
            entries.pop_front();
        }
        Ok(encoded)
    }

    /// An entry that is used goes to the end that is kept longest.
    fn known(&self, key: &Key) -> Option<Arc<Encoded>> {
        let mut entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        let at = entries.iter().position(|(known, _)| known == key)?;
        let entry = entries.remove(at)?;
        let encoded = entry.1.clone();
        entries.push_back(entry);
        Some(encoded)
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    fn key(text: &str) -> Key {
        Key { text: text.into(), ..Key::empty(false, 0) }
    }

    #[test]
    fn a_text_is_encoded_once_while_it_is_used() {
        let (cache, count) = (Cache::default(), Cell::new(0));
        let get = |key: Key| {
            cache.get(key, |_| {
                count.set(count.get() + 1);
                Ok(Encoded { windows: Vec::new(), pooled: None })
            })
        };
        for i in 0..3 * KEPT {
            get(key("often")).unwrap();
            get(key(&i.to_string())).unwrap();
        }
        assert_eq!(count.get(), 3 * KEPT + 1);
        get(key("0")).unwrap();
        assert_eq!(count.get(), 3 * KEPT + 2);
        assert!(cache.entries.lock().unwrap().len() <= KEPT);
    }

    #[test]
    fn texts_that_are_read_differently_are_different_entries() {
        let cache = Cache::default();
        let skipped = Key::empty(false, 1);
        let emphasised = Key { options: PromptOptions { emphasis: true, ..key("").options }, ..key("") };
        for (i, key) in [key(""), skipped, emphasised, Key::empty(true, 0), key("a")].into_iter().enumerate() {
            let found = cache.get(key, |_| Ok(Encoded { windows: Vec::with_capacity(i), pooled: None })).unwrap();
            assert_eq!((found.windows.len(), cache.entries.lock().unwrap().len()), (0, i + 1));
        }
    }

    #[test]
    fn an_error_is_not_kept() {
        let cache = Cache::default();
        let failed = cache.get(key("a"), |_| Err(crate::DiffusionError::TrainingSet("no".into())));
        assert!(failed.is_err());
        assert!(cache.get(key("a"), |_| Ok(Encoded { windows: Vec::new(), pooled: None })).is_ok());
    }
}
