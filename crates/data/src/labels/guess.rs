//! What a table without a job is probably about: its attributes and its label.

use std::collections::HashMap;

use super::batch::Column;
use super::table::{LabelInfo, LabelKind, LabelTable};
use crate::error::DataError;

/// Rows that are looked at.
const ROWS: usize = 100_000;
/// Distinct values of an attribute at most.
const MAX_VALUES: usize = 50;
/// Attributes at most.
const MAX_ATTRIBUTES: usize = 12;
/// Usual names of the label, the likeliest first.
const LABELS: [&str; 5] = ["label", "class", "target", "category", "y"];

/// The columns of a table that are probably attributes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Guess {
    /// Columns with 2 to 50 distinct values that repeat, in table order; at most twelve, those with the fewest values.
    pub attributes: Vec<String>,
    /// The one of the attributes that is probably the label: by its feature, or by the name.
    pub label: Option<String>,
    /// The other columns, each with the reason.
    pub left_out: Vec<(String, String)>,
}

impl LabelTable {
    /// Guesses the attributes from the first 100,000 rows.
    ///
    /// # Errors
    /// Whatever reading these rows can give.
    pub fn guess(&self) -> Result<Guess, DataError> {
        let readable = |column: &&LabelInfo| {
            matches!(column.kind, LabelKind::Text | LabelKind::Integer | LabelKind::Boolean)
                && !matches!(column.source, Column::ImagePath | Column::Split)
        };
        let read: Vec<&LabelInfo> = self.columns().iter().filter(readable).collect();
        let mut found = self.distinct(&read)?;
        let mut guess = Guess::default();
        let mut candidates: Vec<(&LabelInfo, usize)> = Vec::new();
        let mut split: Option<&LabelInfo> = None;
        // What the table itself does not have is no column to speak of.
        for column in self.columns().iter().filter(|column| column.source != Column::Split) {
            let reason = match column.kind {
                _ if column.source == Column::ImagePath => Some("paths of images".to_owned()),
                LabelKind::Image => Some("images".to_owned()),
                LabelKind::Float => Some("measurements; say with `bins` or `quantiles` how to group them".to_owned()),
                LabelKind::Other => Some("lists, bytes, times or objects cannot name groups".to_owned()),
                _ if column.name.eq_ignore_ascii_case("split") => {
                    split = Some(column);
                    Some("says which split a row belongs to".to_owned())
                }
                _ => found.remove(&column.name).and_then(|seen| match seen.reason() {
                    Some(reason) => Some(reason),
                    None => {
                        candidates.push((column, seen.values));
                        None
                    }
                }),
            };
            guess.left_out.extend(reason.map(|reason| (column.name.clone(), reason)));
        }
        let own_split = split.filter(|column| candidates.is_empty() && matches!(column.source, Column::Own(_)));
        if let Some(column) = own_split {
            let seen = self.distinct(&[column])?.remove(&column.name).unwrap_or_default();
            if seen.reason().is_none() {
                guess.left_out.retain(|(name, _)| *name != column.name);
                candidates.push((column, seen.values));
            }
        }
        self.choose(candidates, &mut guess);
        Ok(guess)
    }

    /// The label, and the attributes with the fewest values.
    fn choose(&self, mut candidates: Vec<(&LabelInfo, usize)>, guess: &mut Guess) {
        let by_feature = candidates.iter().find(|(column, _)| Some(column.name.as_str()) == self.class_label());
        let by_name = || {
            LABELS.iter().find_map(|name| candidates.iter().find(|(column, _)| column.name.eq_ignore_ascii_case(name)))
        };
        guess.label = by_feature.or_else(by_name).map(|(column, _)| column.name.clone());
        let order = candidates.clone();
        let is_label = |column: &LabelInfo| guess.label.as_deref() == Some(&column.name);
        candidates.sort_by_key(|(column, values)| (!is_label(column), *values));
        for (column, values) in candidates.drain(MAX_ATTRIBUTES.min(candidates.len())..) {
            let reason =
                format!("its {values} values are more than those of the {MAX_ATTRIBUTES} attributes with the fewest");
            guess.left_out.push((column.name.clone(), reason));
        }
        let chosen = |column: &LabelInfo| candidates.iter().any(|(own, _)| own.name == column.name);
        guess.attributes =
            order.iter().filter(|(column, _)| chosen(column)).map(|(column, _)| column.name.clone()).collect();
    }

    fn distinct(&self, columns: &[&LabelInfo]) -> Result<HashMap<String, Seen>, DataError> {
        let mut seen: Vec<HashMap<String, u64>> = vec![HashMap::new(); columns.len()];
        let mut present = vec![0; columns.len()];
        let mut total = 0;
        self.first_rows(columns, |batch| {
            for ((cells, seen), present) in batch.cells.iter().zip(&mut seen).zip(&mut present) {
                let mut rows = vec![0u64; cells.words.values.len()];
                let taken = cells.codes.len().min(ROWS - total);
                cells.codes[..taken].iter().for_each(|&code| rows[code as usize] += 1);
                for (word, rows) in cells.words.values.iter().zip(rows).filter(|(_, rows)| *rows > 0) {
                    if let Some(word) = word {
                        *present += rows;
                        *seen.entry(word.clone()).or_default() += rows;
                    }
                }
            }
            total = ROWS.min(total + batch.rows);
            total < ROWS
        })?;
        let named = columns.iter().zip(seen).zip(present);
        Ok(named.map(|((column, seen), rows)| (column.name.clone(), Seen { values: seen.len(), rows })).collect())
    }
}

/// The distinct values of a column, and rows that have one.
#[derive(Clone, Copy, Default)]
struct Seen {
    values: usize,
    rows: u64,
}

impl Seen {
    /// Why a column with these values is no attribute.
    fn reason(self) -> Option<String> {
        match self.values {
            0 => Some("it has no values".to_owned()),
            1 => Some("all rows have the same value".to_owned()),
            values if values as u64 * 2 > self.rows => Some(format!(
                "its {values} values in {} rows hardly repeat: names, numbers of rows or free text",
                self.rows
            )),
            values if values > MAX_VALUES => {
                Some(format!("{values} distinct values are more than {MAX_VALUES}; map or bin them first"))
            }
            _ => None,
        }
    }
}
