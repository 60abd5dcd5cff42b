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

/// The order in which values are listed: bins from `<` to `>=`, numbers by size, text with its runs of digits by size
/// (`a9` before `a10`), [`MISSING`] last. Values of different kinds are never compared by their contents, so that this is
/// one order whatever the values are.
pub(crate) fn value_order(a: &str, b: &str) -> Ordering {
    let kinds = kind(a).cmp(&kind(b));
    kinds
        .then_with(|| match (number(a), number(b)) {
            (Some(x), Some(y)) => x.total_cmp(&y),
            _ => natural(a, b),
        })
        .then_with(|| a.cmp(b))
}

fn kind(value: &str) -> u8 {
    match value {
        MISSING => 4,
        _ if value.starts_with('<') => 0,
        _ if value.starts_with('>') => 3,
        _ if number(value).is_some() => 1,
        _ => 2,
    }
}

/// Runs of digits compare by size, everything else byte by byte; a digit comes before anything else.
fn natural(a: &str, b: &str) -> Ordering {
    let (mut a, mut b) = (a.as_bytes(), b.as_bytes());
    loop {
        match (a.first(), b.first()) {
            (None, None) => return Ordering::Equal,
            (None, _) => return Ordering::Less,
            (_, None) => return Ordering::Greater,
            (Some(x), Some(y)) => match (x.is_ascii_digit(), y.is_ascii_digit()) {
                (true, true) => {
                    let (m, n) = (digits(&mut a), digits(&mut b));
                    let order = m.len().cmp(&n.len()).then_with(|| m.cmp(n));
                    if order.is_ne() {
                        return order;
                    }
                }
                (true, false) => return Ordering::Less,
                (false, true) => return Ordering::Greater,
                (false, false) if x == y => (a, b) = (&a[1..], &b[1..]),
                (false, false) => return x.cmp(y),
            },
        }
    }
}

/// The number that a value is, where nothing but a number stands there.
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
    fn the_order_is_one_order_of_all_values() {
        let values = [
            "1.9", "1.9a", "1.10", "-2", "-1", "-1a", "5", "1e3", "3x", "", "<1", ">=2", MISSING, "a1", "a01", "a-1",
            "1 to <3", "+5", "05", "5.0", "e", "-", "é", "a10b", "a9c", "1e400", "10", "9",
        ];
        for a in values {
            for b in values {
                assert_eq!(value_order(a, b), value_order(b, a).reverse(), "{a} {b}");
                for c in values {
                    if value_order(a, b).is_le() && value_order(b, c).is_le() {
                        assert!(value_order(a, c).is_le(), "{a} {b} {c}");
                    }
                }
            }
        }
    }

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
