//! What the columns of text files hold, by their first rows.

use std::collections::HashSet;

use super::arrays::number_text;
use super::delimited::Delimited;
use super::file::LabelFile;
use super::json_lines::{Lines, Value};
use super::scalar::number;
use super::table::{LabelInfo, LabelKind};
use crate::error::DataError;

/// Rows of the first file that are looked at, and of each other JSONL file.
const FIRST_ROWS: usize = 10_000;
const OTHER_ROWS: usize = 1_000;
/// Columns at most.
pub(super) const MAX_COLUMNS: usize = 10_000;

/// What has been seen in a column.
#[derive(Clone, Copy, Debug, Default)]
struct Seen {
    text: bool,
    boolean: bool,
    whole: bool,
    fraction: bool,
    nested: bool,
}

impl Seen {
    fn kind(self) -> LabelKind {
        let number = self.whole || self.fraction;
        match self {
            Self { nested: true, .. } => LabelKind::Other,
            Self { text: true, .. } => LabelKind::Text,
            Self { boolean: true, .. } if number => LabelKind::Text,
            Self { boolean: true, .. } => LabelKind::Boolean,
            Self { fraction: true, .. } => LabelKind::Float,
            Self { whole: true, .. } => LabelKind::Integer,
            _ => LabelKind::Text,
        }
    }

    fn number(&mut self, text: &str) {
        match text.bytes().all(|byte| byte.is_ascii_digit() || byte == b'-') {
            true => self.whole = true,
            false => self.fraction = true,
        }
    }
}

/// The columns of a CSV file by its first rows. Cells stay text; the kinds say what they read as.
pub(crate) fn of_delimited(
    file: &LabelFile,
    header: &[String],
    missing: &HashSet<String>,
) -> Result<Vec<LabelInfo>, DataError> {
    let mut seen = vec![Seen::default(); header.len()];
    let mut rows = Delimited::open(file)?;
    for _ in 0..FIRST_ROWS {
        if rows.next_row()?.is_none() {
            break;
        }
        for (place, seen) in seen.iter_mut().enumerate() {
            match rows.text(place)? {
                cell if missing.contains(cell) => {}
                "true" | "True" | "TRUE" | "false" | "False" | "FALSE" => seen.boolean = true,
                cell if has_leading_zero(cell) => seen.text = true,
                cell => match number(cell) {
                    Some(_) => seen.number(cell),
                    None => seen.text = true,
                },
            }
        }
    }
    Ok(header.iter().zip(seen).map(|(name, seen)| LabelInfo::own(name.clone(), seen.kind())).collect())
}

/// `007` is a name made of digits.
fn has_leading_zero(cell: &str) -> bool {
    cell.len() > 1 && cell.starts_with('0') && cell.bytes().all(|byte| byte.is_ascii_digit())
}

/// The keys of the first rows of each file, in the order in which they appear.
pub(crate) fn of_json(files: &[LabelFile]) -> Result<Vec<LabelInfo>, DataError> {
    let mut columns: Vec<(String, Seen)> = Vec::new();
    for (place, file) in files.iter().enumerate() {
        let mut lines = Lines::open(file)?;
        for _ in 0..if place == 0 { FIRST_ROWS } else { OTHER_ROWS } {
            if !lines.advance()? {
                break;
            }
            let mut values: Vec<(usize, Value<'_>)> = Vec::new();
            let key = |key: &str| match columns.iter().position(|(name, _)| name == key) {
                Some(place) => Some(place),
                None if columns.len() < MAX_COLUMNS => {
                    columns.push((key.to_owned(), Seen::default()));
                    Some(columns.len() - 1)
                }
                None => None,
            };
            lines.read(key, |place, value| values.push((place, value)))?;
            for (place, value) in values {
                let seen = &mut columns[place].1;
                match value {
                    Value::Missing => {}
                    Value::Text(_) => seen.text = true,
                    Value::Boolean(_) => seen.boolean = true,
                    Value::Integer(_) => seen.whole = true,
                    Value::Float(number) => seen.number(&number_text(number).unwrap_or_default()),
                    Value::Nested => seen.nested = true,
                }
            }
        }
    }
    Ok(columns.into_iter().map(|(name, seen)| LabelInfo::own(name, seen.kind())).collect())
}
