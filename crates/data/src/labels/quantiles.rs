//! The edges of quantiles: exact, from how often each distinct number occurs.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Mutex, PoisonError};

use evenset_core::Progress;

use super::column::LabelColumn;
use super::scalar::number;
use super::table::LabelTable;
use super::view::{Names, ResolvedView};
use crate::error::DataError;

/// Distinct numbers of a column at most: about 200 MB.
const MAX_DISTINCT: usize = 5_000_000;
/// Distinct numbers that a thread keeps for itself.
const MAX_OWN: usize = 1 << 17;

/// Edges by attribute.
pub(crate) type Edges = BTreeMap<String, Vec<f64>>;

/// How often each number occurs, by its bits.
type Counts = HashMap<u64, u64>;

/// The edges of all quantiles that the `wanted` names need, and notes on those that fell together.
pub(crate) fn quantile_edges<'a>(
    table: &LabelTable,
    names: &Names<'_>,
    wanted: impl Iterator<Item = &'a String>,
    progress: &dyn Progress,
) -> Result<(Edges, Vec<String>), DataError> {
    let (mut edges, mut notes) = (Edges::new(), Vec::new());
    for name in wanted {
        let (_, way) = names.chain(name)?;
        for attribute in way {
            let derive = &names.derive[&attribute];
            let Some(quantiles) = derive.quantiles.filter(|_| !edges.contains_key(&attribute)) else { continue };
            // Whatever stands before it on the way has its edges already.
            let mut view = ResolvedView::default();
            let mut from = names.attribute(&derive.from, &edges, &mut view)?;
            from.any_number = true;
            view.attributes.push(from);
            let failed = |problem: String| DataError::Derive { attribute: attribute.clone(), problem };
            let counts = count(table, &view, progress, &failed)?;
            let found = cut(counts, quantiles);
            if found.is_empty() {
                let from = &derive.from;
                return Err(failed(format!(
                    "the numbers in `{from}` are all equal or missing; there is nothing to cut"
                )));
            }
            if found.len() + 1 < quantiles as usize {
                notes.push(format!(
                    "`{attribute}` has {} bins instead of {quantiles}, because many rows have the same number",
                    found.len() + 1
                ));
            }
            edges.insert(attribute, found);
        }
    }
    Ok((edges, notes))
}

fn count(
    table: &LabelTable,
    view: &ResolvedView,
    progress: &dyn Progress,
    failed: &(impl Fn(String) -> DataError + Sync),
) -> Result<Counts, DataError> {
    let total: Mutex<Counts> = Mutex::default();
    let add = |own: &mut Counts, columns: &[LabelColumn]| {
        let Some(column) = columns.first() else { return Ok(()) };
        let mut rows = vec![0u64; column.values.len()];
        column.codes.iter().for_each(|&code| rows[code as usize] += 1);
        for (value, rows) in column.values.iter().zip(rows).filter(|(_, rows)| *rows > 0) {
            let Some(value) = value else { continue };
            match number(value) {
                Some(number) => *own.entry((number + 0.0).to_bits()).or_default() += rows,
                None => return Err(failed(format!("`{value}` is not a number; name the word as missing"))),
            }
        }
        if own.len() > MAX_OWN { merge(&total, own, failed) } else { Ok(()) }
    };
    for mut own in table.fold(view, progress, Counts::new, add)? {
        merge(&total, &mut own, failed)?;
    }
    Ok(total.into_inner().unwrap_or_else(PoisonError::into_inner))
}

fn merge(total: &Mutex<Counts>, own: &mut Counts, failed: impl Fn(String) -> DataError) -> Result<(), DataError> {
    let mut total = total.lock().unwrap_or_else(PoisonError::into_inner);
    for (number, rows) in own.drain() {
        *total.entry(number).or_default() += rows;
    }
    if total.len() > MAX_DISTINCT {
        return Err(failed(format!("there are more than {MAX_DISTINCT} distinct numbers; use `bins` with edges")));
    }
    Ok(())
}

/// The numbers before which a `k`-th of the rows lie. An edge that no row lies below, or that stands there already, is
/// left out.
fn cut(counts: Counts, quantiles: u32) -> Vec<f64> {
    let mut numbers: Vec<(f64, u64)> = counts.into_iter().map(|(bits, rows)| (f64::from_bits(bits), rows)).collect();
    numbers.sort_by(|a, b| a.0.total_cmp(&b.0));
    let total: u64 = numbers.iter().map(|(_, rows)| rows).sum();
    let (mut edges, mut before): (Vec<f64>, u64) = (Vec::new(), 0);
    let mut next = 1;
    for (place, (number, rows)) in numbers.iter().enumerate() {
        let after = before + rows;
        let mut is_edge = false;
        while next < quantiles && u128::from(total) * u128::from(next) < u128::from(after) * u128::from(quantiles) {
            is_edge = true;
            next += 1;
        }
        if is_edge && place > 0 && number.is_finite() {
            edges.push(*number);
        }
        before = after;
    }
    edges
}

#[cfg(test)]
mod tests {
    use super::*;

    fn edges(numbers: &[f64], quantiles: u32) -> Vec<f64> {
        let mut counts = Counts::new();
        numbers.iter().for_each(|number| *counts.entry(number.to_bits()).or_default() += 1);
        cut(counts, quantiles)
    }

    #[test]
    fn bins_have_equally_many_rows_where_numbers_differ() {
        assert_eq!(edges(&[8.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0], 4), [3.0, 5.0, 7.0]);
        assert_eq!(edges(&[1.0, 2.0, 3.0], 2), [2.0]);
    }

    #[test]
    fn ties_fall_together() {
        assert_eq!(edges(&[0.0, 0.0, 0.0, 1.0], 4), [1.0]);
        assert!(edges(&[5.0, 5.0, 5.0], 4).is_empty());
        assert_eq!(edges(&[1.0, 2.0, 2.0, 2.0, 2.0, 3.0], 3), [2.0]);
        assert!(edges(&[], 4).is_empty());
    }
}
