//! The values of one attribute and their codes.

use std::cmp::Ordering;
use std::collections::HashMap;

use evenset_core::MISSING;
use evenset_data::LabelColumn;

use crate::AuditError;

/// The most values that one attribute may have. Beyond, the column is a name, a number or free text, and not an
/// attribute that groups can be made of.
pub const MAX_VALUES: usize = 100_000;

/// The values of one attribute in the order they were seen; a value's code is its place.
#[derive(Clone, Debug, Default)]
pub(super) struct Dictionary {
    codes: HashMap<String, u32>,
    values: Vec<String>,
}

impl Dictionary {
    /// The code of a value, which is new where the value was not seen before.
    pub fn code(&mut self, attribute: &str, value: &str) -> Result<u32, AuditError> {
        if let Some(&code) = self.codes.get(value) {
            return Ok(code);
        }
        if self.values.len() >= MAX_VALUES {
            return Err(AuditError::TooManyValues { attribute: attribute.to_owned(), limit: MAX_VALUES });
        }
        let code = self.values.len() as u32;
        self.codes.insert(value.to_owned(), code);
        self.values.push(value.to_owned());
        Ok(code)
    }

    /// The code of each value of a column. A value without a row does not become known; its code is 0, as good as any.
    pub fn codes_of(&mut self, attribute: &str, column: &LabelColumn) -> Result<Vec<u32>, AuditError> {
        let code = |(place, value): (u32, &Option<String>)| {
            let value = value.as_deref().unwrap_or(MISSING);
            match self.find(value) {
                Some(code) => Ok(code),
                None if column.codes.contains(&place) => self.code(attribute, value),
                None => Ok(0),
            }
        };
        (0u32..).zip(&column.values).map(code).collect()
    }

    /// The code of a value that was seen.
    pub fn find(&self, value: &str) -> Option<u32> {
        self.codes.get(value).copied()
    }

    pub fn len(&self) -> usize {
        self.values.len()
    }

    /// The values by their codes.
    pub fn values(&self) -> &[String] {
        &self.values
    }

    /// The codes in the order in which values are listed.
    fn listing(&self) -> Vec<u32> {
        let mut codes: Vec<u32> = (0..self.values.len() as u32).collect();
        codes.sort_unstable_by(|&a, &b| value_order(&self.values[a as usize], &self.values[b as usize]));
        codes
    }

    /// The values in the order in which they are listed.
    pub fn sorted(&self) -> Vec<&str> {
        self.listing().into_iter().map(|code| self.values[code as usize].as_str()).collect()
    }

    /// For each code, the place of its value in the listing.
    pub fn ranks(&self) -> Vec<u32> {
        let mut ranks = vec![0; self.values.len()];
        for (rank, code) in (0u32..).zip(self.listing()) {
            ranks[code as usize] = rank;
        }
        ranks
    }
}

/// The order in which values are listed: numbers by size (`9` before `10`, also inside text), bins from `<` to `>=`,
/// [`MISSING`] last.
pub(crate) fn value_order(a: &str, b: &str) -> Ordering {
    let kind = |value: &str| match value {
        MISSING => 3,
        _ if value.starts_with('<') => 0,
        _ if value.starts_with('>') => 2,
        _ => 1,
    };
    kind(a).cmp(&kind(b)).then_with(|| natural(a, b)).then_with(|| a.cmp(b))
}

/// Runs of digits compare as numbers, everything else by character; a minus before the first number turns it around.
fn natural(a: &str, b: &str) -> Ordering {
    if let (Some(a), Some(b)) = (number(a), number(b)) {
        return a.total_cmp(&b);
    }
    let (mut a, mut b) = (a.as_bytes(), b.as_bytes());
    loop {
        match (a.first(), b.first()) {
            (None, None) => return Ordering::Equal,
            (None, _) => return Ordering::Less,
            (_, None) => return Ordering::Greater,
            (Some(x), Some(y)) if x.is_ascii_digit() && y.is_ascii_digit() => {
                let (m, n) = (digits(&mut a), digits(&mut b));
                let order = m.len().cmp(&n.len()).then_with(|| m.cmp(n));
                if order.is_ne() {
                    return order;
                }
            }
            (Some(x), Some(y)) if x == y => (a, b) = (&a[1..], &b[1..]),
            (Some(x), Some(y)) => return x.cmp(y),
        }
    }
}

fn number(text: &str) -> Option<f64> {
    let plain = text.bytes().all(|b| b.is_ascii_digit() || matches!(b, b'-' | b'.' | b'+' | b'e' | b'E'));
    if plain { text.parse().ok() } else { None }
}

/// Takes a run of digits off the front, without its leading zeros.
fn digits<'a>(text: &mut &'a [u8]) -> &'a [u8] {
    let end = text.iter().position(|b| !b.is_ascii_digit()).unwrap_or(text.len());
    let (run, rest) = text.split_at(end);
    *text = rest;
    let zeros = run.iter().position(|&b| b != b'0').unwrap_or(run.len());
    &run[zeros..]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_listed_as_a_reader_would_list_them() {
        for sorted in [
            &["-2", "-1.5", "0", "9", "10", "1e3", "(missing)"][..],
            &["<18", "18 to <30", "30 to <65", ">=65", "(missing)"],
            &["a", "a2", "a10", "a010b", "b", "ü"],
            &["", "Zebra", "apple"],
        ] {
            let mut values = sorted.to_vec();
            values.reverse();
            values.sort_by(|a, b| value_order(a, b));
            assert_eq!(values, sorted);
        }
    }
}
