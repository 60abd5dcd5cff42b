//! From the cells of a batch to the columns of a view: once for each distinct value, then one look-up a row.

use std::collections::HashMap;
use std::sync::Arc;

use super::batch::Batch;
use super::column::LabelColumn;
use super::filter::{Filter, FilterError, Verdict};
use super::view::{Attribute, ResolvedView};
use super::words::Words;
use crate::error::DataError;

impl Attribute {
    /// The value that stands for a word; the error says why it has none.
    fn value(&self, word: &str, measured: bool) -> Result<Option<String>, String> {
        if self.steps.is_empty() && measured && !self.any_number && !is_whole(word) {
            return Err(format!("holds measurements such as {word}; say with `derive` and `bins` how to group them"));
        }
        let mut value = Some(word.to_owned());
        for step in &self.steps {
            match value {
                Some(text) => value = step.apply(&text)?,
                None => break,
            }
        }
        Ok(value)
    }

    fn failed(&self, problem: String) -> DataError {
        if self.steps.is_empty() {
            DataError::NotAnAttribute { column: self.name.clone(), problem }
        } else {
            DataError::Derive { attribute: self.name.clone(), problem }
        }
    }
}

/// Whether a number is written in digits only.
fn is_whole(number: &str) -> bool {
    number.strip_prefix('-').unwrap_or(number).bytes().all(|byte| byte.is_ascii_digit())
}

/// Works on one batch after the other; keeps what it found out about words that do not change.
pub(crate) struct Evaluator<'a> {
    view: &'a ResolvedView,
    filters: Vec<Tested>,
    attributes: Vec<Mapped>,
    keep: Vec<bool>,
    /// The columns of the last batch.
    pub columns: Vec<LabelColumn>,
}

/// What a filter says of each word.
#[derive(Default)]
struct Tested {
    words: Option<Arc<Words>>,
    verdicts: Vec<Option<Verdict>>,
    doubtful: bool,
}

/// What an attribute makes of each word.
#[derive(Default)]
struct Mapped {
    words: Option<Arc<Words>>,
    values: Vec<Option<String>>,
    /// The code of each word's value; none where codes stay as they are.
    codes: Option<Vec<u32>>,
    /// Words without a value, as long as any row has them an error.
    bad: Option<Vec<bool>>,
}

impl<'a> Evaluator<'a> {
    /// Evaluates `view`.
    pub fn new(view: &'a ResolvedView) -> Self {
        Self {
            view,
            filters: view.filters.iter().map(|_| Tested::default()).collect(),
            attributes: view.attributes.iter().map(|_| Mapped::default()).collect(),
            keep: Vec::new(),
            columns: vec![LabelColumn::default(); view.attributes.len()],
        }
    }

    /// Which rows pass the filters.
    pub fn keep(&mut self, batch: &Batch) -> Result<&[bool], DataError> {
        self.keep.clear();
        self.keep.resize(batch.rows, true);
        for (tested, (attribute, filter)) in self.filters.iter_mut().zip(&self.view.filters) {
            let cells = &batch.cells[attribute.source];
            tested.look(&cells.words, attribute, filter);
            if tested.doubtful {
                tested.test_doubtful(batch, attribute, filter, &mut self.keep)?;
                continue;
            }
            for (keep, &code) in self.keep.iter_mut().zip(&cells.codes) {
                *keep &= tested.verdicts[code as usize] == Some(Verdict::Keep);
            }
        }
        Ok(&self.keep)
    }

    /// Fills [`columns`](Self::columns) with the rows that pass the filters. The batch is used up.
    pub fn compact(&mut self, batch: &mut Batch) -> Result<usize, DataError> {
        let filtered = !self.view.filters.is_empty();
        if filtered {
            self.keep(batch)?;
        }
        let rows = if filtered { self.keep.iter().filter(|keep| **keep).count() } else { batch.rows };
        for place in 0..self.view.attributes.len() {
            let attribute = &self.view.attributes[place];
            self.look(place, batch, filtered)?;
            let last_use = self.view.attributes[place + 1..].iter().all(|later| later.source != attribute.source);
            let (mapped, column) = (&self.attributes[place], &mut self.columns[place]);
            let cells = &mut batch.cells[attribute.source];
            if filtered {
                compacted(&cells.codes, &self.keep, &mut column.codes);
            } else if last_use {
                std::mem::swap(&mut cells.codes, &mut column.codes);
            } else {
                column.codes.clone_from(&cells.codes);
            }
            if let Some(codes) = &mapped.codes {
                column.codes.iter_mut().for_each(|code| *code = codes[*code as usize]);
            }
        }
        Ok(rows)
    }

    /// Fills [`columns`](Self::columns) with all rows; a row that no filter keeps may be missing where it has no value.
    pub fn all(&mut self, batch: &Batch) -> Result<Vec<bool>, DataError> {
        self.keep(batch)?;
        for place in 0..self.view.attributes.len() {
            self.look(place, batch, true)?;
            let cells = &batch.cells[self.view.attributes[place].source];
            let column = &mut self.columns[place];
            column.codes.clone_from(&cells.codes);
            if let Some(codes) = &self.attributes[place].codes {
                column.codes.iter_mut().for_each(|code| *code = codes[*code as usize]);
            }
        }
        Ok(self.keep.clone())
    }

    /// Brings the values of an attribute up to date with the words of a batch, and refuses rows without a value.
    fn look(&mut self, place: usize, batch: &Batch, filtered: bool) -> Result<(), DataError> {
        let attribute = &self.view.attributes[place];
        let cells = &batch.cells[attribute.source];
        let mapped = &mut self.attributes[place];
        if mapped.words.as_ref().is_none_or(|words| !Arc::ptr_eq(words, &cells.words)) {
            mapped.look(&cells.words, attribute);
            self.columns[place].values.clone_from(&mapped.values);
        }
        let Some(bad) = &mapped.bad else { return Ok(()) };
        let kept = |row: usize| !filtered || self.keep[row];
        let found = cells.codes.iter().enumerate().find(|&(row, &code)| bad[code as usize] && kept(row));
        let Some((row, &code)) = found else { return Ok(()) };
        let word = cells.words.values[code as usize].as_deref().unwrap_or_default();
        let problem = attribute.value(word, cells.words.measured).err().unwrap_or_default();
        let place = format!(" ({}, row {})", batch.address, batch.first_row + row as u64 + 1);
        Err(attribute.failed(problem + &place))
    }
}

/// The codes of the rows that are kept.
fn compacted(codes: &[u32], keep: &[bool], into: &mut Vec<u32>) {
    into.clear();
    into.resize(codes.len(), 0);
    let mut next = 0;
    for (&code, &keep) in codes.iter().zip(keep) {
        into[next] = code;
        next += usize::from(keep);
    }
    into.truncate(next);
}

impl Tested {
    fn look(&mut self, words: &Arc<Words>, attribute: &Attribute, filter: &Filter) {
        if self.words.as_ref().is_some_and(|known| Arc::ptr_eq(known, words)) {
            return;
        }
        let verdict = |word: &Option<String>| match word {
            None => Some(filter.verdict(None)),
            // Numbers of any kind are compared; only what names groups must be whole.
            Some(word) if attribute.steps.is_empty() => Some(filter.verdict(Some(word))),
            Some(word) => attribute.value(word, words.measured).ok().map(|value| filter.verdict(value.as_deref())),
        };
        self.verdicts = words.values.iter().map(verdict).collect();
        self.doubtful = self.verdicts.iter().any(|verdict| matches!(verdict, None | Some(Verdict::NotANumber)));
        self.words = Some(Arc::clone(words));
    }

    /// Row after row, because a word that cannot be tested is an error only where a row that is left has it.
    fn test_doubtful(
        &self,
        batch: &Batch,
        attribute: &Attribute,
        filter: &Filter,
        keep: &mut [bool],
    ) -> Result<(), DataError> {
        let cells = &batch.cells[attribute.source];
        for (row, (keep, &code)) in keep.iter_mut().zip(&cells.codes).enumerate() {
            if !*keep {
                continue;
            }
            let word = || cells.words.values[code as usize].as_deref().unwrap_or_default();
            match self.verdicts[code as usize] {
                Some(Verdict::Keep) => {}
                Some(Verdict::Drop) => *keep = false,
                Some(Verdict::NotANumber) => {
                    return Err(FilterError::NotANumber {
                        column: filter.column.clone(),
                        value: word().to_owned(),
                        address: batch.address.clone(),
                        row: batch.first_row + row as u64 + 1,
                    }
                    .into());
                }
                None => {
                    let problem = attribute.value(word(), cells.words.measured).err().unwrap_or_default();
                    return Err(attribute.failed(problem));
                }
            }
        }
        Ok(())
    }
}

impl Mapped {
    fn look(&mut self, words: &Arc<Words>, attribute: &Attribute) {
        let mut places: HashMap<Option<String>, u32> = HashMap::new();
        let mut bad = vec![false; words.values.len()];
        self.values.clear();
        let mut codes = Vec::with_capacity(words.values.len());
        for (word, bad) in words.values.iter().zip(&mut bad) {
            let value = match word {
                None => None,
                Some(word) => attribute.value(word, words.measured).unwrap_or_else(|_| {
                    *bad = true;
                    None
                }),
            };
            let code = *places.entry(value).or_insert_with_key(|value| {
                self.values.push(value.clone());
                self.values.len() as u32 - 1
            });
            codes.push(code);
        }
        let unchanged = codes.iter().enumerate().all(|(place, &code)| place as u32 == code);
        self.codes = (!unchanged).then_some(codes);
        self.bad = bad.contains(&true).then_some(bad);
        self.words = Some(Arc::clone(words));
    }
}
