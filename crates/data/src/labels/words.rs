//! The distinct values of a column as they stand in the data, and a batch of rows as codes into them.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

/// An interner is emptied between batches once it holds more words than this, so that a column of ids stays small.
const KEPT_WORDS: usize = 1 << 16;

/// The distinct values of a column. Batches share them as long as they do not change, so whoever works on the values
/// can keep the result while the pointer is the same.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Words {
    /// The texts; `None` stands for a missing value and may stand here more than once.
    pub values: Vec<Option<String>>,
    /// The texts are numbers from a floating-point column: only whole ones can name groups.
    pub measured: bool,
}

/// One column of a batch.
#[derive(Debug, Default)]
pub(crate) struct Cells {
    pub words: Arc<Words>,
    /// One a row; every code is a place in the words.
    pub codes: Vec<u32>,
}

impl Cells {
    /// Forgets the rows.
    pub fn clear(&mut self) {
        self.codes.clear();
    }

    /// The same value in every row.
    pub fn fill(&mut self, value: Option<&str>, rows: usize) {
        if !matches!(self.words.values.as_slice(), [only] if only.as_deref() == value) {
            self.words = Arc::new(Words { values: vec![value.map(str::to_owned)], measured: false });
        }
        self.codes.clear();
        self.codes.resize(rows, 0);
    }
}

/// Gives each distinct text a code.
#[derive(Debug)]
pub(crate) struct Interner {
    places: HashMap<String, u32>,
    missing_place: Option<u32>,
    values: Vec<Option<String>>,
    shared: Arc<Words>,
    /// Whether the values differ from the shared ones.
    grown: bool,
    missing: Arc<HashSet<String>>,
    measured: bool,
}

impl Interner {
    /// `missing` are the texts that stand for no value; `measured` as in [`Words`].
    pub fn new(missing: Arc<HashSet<String>>, measured: bool) -> Self {
        Self {
            places: HashMap::new(),
            missing_place: None,
            values: Vec::new(),
            shared: Arc::new(Words { values: Vec::new(), measured }),
            grown: false,
            missing,
            measured,
        }
    }

    /// To be called before the first row of a batch: codes are good within one batch only.
    pub fn begin(&mut self) {
        if self.values.len() > KEPT_WORDS {
            self.places.clear();
            self.values.clear();
            self.missing_place = None;
            self.grown = true;
        }
    }

    /// The code of a text.
    pub fn code(&mut self, text: Option<&str>) -> u32 {
        let Some(text) = text else { return self.missing_code() };
        if let Some(&place) = self.places.get(text) {
            return place;
        }
        let place = if self.missing.contains(text) { self.missing_code() } else { self.push(Some(text.to_owned())) };
        self.places.insert(text.to_owned(), place);
        place
    }

    fn missing_code(&mut self) -> u32 {
        match self.missing_place {
            Some(place) => place,
            None => {
                let place = self.push(None);
                self.missing_place = Some(place);
                place
            }
        }
    }

    fn push(&mut self, value: Option<String>) -> u32 {
        self.grown = true;
        self.values.push(value);
        self.values.len() as u32 - 1
    }

    /// The words so far. The same pointer as before where no word was added.
    pub fn words(&mut self) -> Arc<Words> {
        if std::mem::take(&mut self.grown) {
            self.shared = Arc::new(Words { values: self.values.clone(), measured: self.measured });
        }
        Arc::clone(&self.shared)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_shared_until_one_is_added_and_missing_words_have_one_code() {
        let missing = Arc::new(HashSet::from(["?".to_owned(), "".to_owned()]));
        let mut interner = Interner::new(missing, false);
        let codes = [Some("a"), Some("?"), None, Some(""), Some("a"), Some("b")].map(|text| interner.code(text));
        assert_eq!(codes, [0, 1, 1, 1, 0, 2]);
        let words = interner.words();
        assert_eq!(words.values, [Some("a".to_owned()), None, Some("b".to_owned())]);
        interner.begin();
        interner.code(Some("b"));
        assert!(Arc::ptr_eq(&words, &interner.words()));
        interner.code(Some("c"));
        assert!(!Arc::ptr_eq(&words, &interner.words()));
    }

    #[test]
    fn a_column_of_ids_does_not_fill_the_memory() {
        let mut interner = Interner::new(Arc::default(), false);
        for batch in 0..4u32 {
            interner.begin();
            for row in 0..60_000u32 {
                interner.code(Some(&(batch * 60_000 + row).to_string()));
            }
        }
        assert!(interner.words().values.len() <= 2 * KEPT_WORDS);
    }
}
