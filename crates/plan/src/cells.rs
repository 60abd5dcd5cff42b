//! What a target asks of the counts: cells of groups, each with the count it is to reach.
//!
//! Every target comes down to the same form. For `at-least` and `ratio` a cell is one group; for `parity` it is one
//! value of `of` within one value of `within`; for `match` it is one value of the attribute. Where groups are finer
//! than cells, the images of a cell go to its smallest groups first.

use std::collections::BTreeMap;

use evenset_core::{Group, MISSING};

use crate::error::list;
use crate::target::{AtLeast, Match, Parity, Ratio};
use crate::{PlanError, Target};

/// Counts up to here are exact as floating-point numbers, and their sums fit.
pub(crate) const MOST_IMAGES: u64 = 1 << 53;

/// Groups that together are to reach a count.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Cell {
    /// Places of the groups in the list of counts, in the order of the groups.
    pub members: Vec<usize>,
    /// The images the members have together.
    pub count: u64,
    /// The images they are to have together; never less than `count`.
    pub want: u64,
}

impl Cell {
    fn new(members: Vec<usize>, counts: &[(Group, u64)]) -> Self {
        let count = members.iter().filter_map(|&i| counts.get(i)).map(|(_, n)| n).sum();
        Self { members, count, want: count }
    }

    fn raise(&mut self, want: u64) {
        self.want = self.count.max(want);
    }

    /// How many images the cell lacks.
    pub fn deficit(&self) -> u64 {
        self.want - self.count
    }
}

/// Whether images of this group can be asked for: it has a value for every attribute.
pub(crate) fn is_complete(group: &Group) -> bool {
    group.values().all(|value| value != MISSING)
}

/// The cells of a target, with the fewest images that reach it. Groups without a value for an attribute are in none.
///
/// `counts` hold each group once, all with the same attributes, and add up to at most [`MOST_IMAGES`].
pub(crate) fn cells(counts: &[(Group, u64)], target: &Target) -> Result<Vec<Cell>, PlanError> {
    let known: Vec<String> =
        counts.first().map(|(g, _)| g.attributes().map(str::to_owned).collect()).unwrap_or_default();
    for name in target.attributes() {
        if !known.iter().any(|attribute| attribute == name) {
            return Err(PlanError::UnknownAttribute { name: name.to_owned(), known });
        }
    }
    let mut places: Vec<usize> = (0..counts.len()).filter(|&i| is_complete(&counts[i].0)).collect();
    places.sort_by_key(|&i| &counts[i].0);
    if places.is_empty() {
        return Err(PlanError::NoGroups);
    }
    let cells = match target {
        Target::Parity(Parity { of, within }) => {
            let rest = || known.iter().filter(|a| !within.0.contains(a)).cloned().collect();
            let of = if of.0.is_empty() { rest() } else { of.0.clone() };
            parity(counts, &places, &of, &within.0)
        }
        Target::AtLeast(AtLeast { images }) => singles(counts, &places, *images),
        Target::Ratio(Ratio { at_most }) => {
            let largest = places.iter().map(|&i| counts[i].1).max().unwrap_or(0);
            singles(counts, &places, smallest_allowed(largest, *at_most))
        }
        Target::Match(target) => reference(counts, &places, target)?,
    };
    let total = cells.iter().try_fold(0u64, |total, cell| total.checked_add(cell.want));
    match total {
        Some(total) if total <= MOST_IMAGES => Ok(cells),
        _ => Err(PlanError::Overflow { limit: MOST_IMAGES }),
    }
}

fn singles(counts: &[(Group, u64)], places: &[usize], want: u64) -> Vec<Cell> {
    let mut cells: Vec<Cell> = places.iter().map(|&i| Cell::new(vec![i], counts)).collect();
    cells.iter_mut().for_each(|cell| cell.raise(want));
    cells
}

/// The least count that `largest` exceeds at most `ratio` times.
fn smallest_allowed(largest: u64, ratio: f64) -> u64 {
    let allowed = |n: u64| n as f64 * ratio >= largest as f64;
    let mut n = (largest as f64 / ratio).ceil() as u64;
    // Division rounds; the product decides.
    while n > 0 && allowed(n - 1) {
        n -= 1;
    }
    while !allowed(n) {
        n += 1;
    }
    n
}

fn parity(counts: &[(Group, u64)], places: &[usize], of: &[String], within: &[String]) -> Vec<Cell> {
    let mut strata: BTreeMap<Group, BTreeMap<Group, Vec<usize>>> = BTreeMap::new();
    for &i in places {
        let group = &counts[i].0;
        strata.entry(group.project(within)).or_default().entry(group.project(of)).or_default().push(i);
    }
    let mut cells = Vec::new();
    for stratum in strata.into_values() {
        let mut stratum: Vec<Cell> = stratum.into_values().map(|members| Cell::new(members, counts)).collect();
        let largest = stratum.iter().map(|cell| cell.count).max().unwrap_or(0);
        stratum.iter_mut().for_each(|cell| cell.raise(largest));
        cells.append(&mut stratum);
    }
    cells
}

/// The fewest additions after which no value has more than its share: the total is the largest `count / share`, and
/// the wanted counts are the shares of it, rounded by the largest remainder.
fn reference(counts: &[(Group, u64)], places: &[usize], target: &Match) -> Result<Vec<Cell>, PlanError> {
    let mut values: BTreeMap<&str, Vec<usize>> = BTreeMap::new();
    for &i in places {
        values.entry(counts[i].0.get(&target.of).unwrap_or(MISSING)).or_default().push(i);
    }
    let wrong = |value: &str, problem: String| {
        Err(PlanError::Share { attribute: target.of.clone(), value: value.to_owned(), problem })
    };
    if let Some((value, _)) = target.shares.iter().find(|(v, share)| **share > 0.0 && !values.contains_key(v.as_str()))
    {
        let known: Vec<String> = values.keys().map(|&v| v.to_owned()).collect();
        return wrong(value, format!("has a share but no group; the dataset has {}", list(&known)));
    }
    let sum: f64 = target.shares.values().sum();
    let (mut cells, mut shares, mut total) = (Vec::new(), Vec::new(), 0.0f64);
    for (value, members) in values {
        let cell = Cell::new(members, counts);
        let share = match target.shares.get(value) {
            Some(&share) => share / sum,
            None => return wrong(value, "has images but no share; give it one (0 if it has no images)".to_owned()),
        };
        if cell.count > 0 {
            if share <= 0.0 {
                let problem = format!("has {} images but a share of 0, which adding images cannot reach", cell.count);
                return wrong(value, format!("{problem}; give it a share, or leave its rows out with `where`"));
            }
            total = total.max(ceil(cell.count as f64 / share));
        }
        cells.push(cell);
        shares.push(share);
    }
    if total > MOST_IMAGES as f64 {
        return Err(PlanError::Overflow { limit: MOST_IMAGES });
    }
    let quotas: Vec<f64> = shares.iter().map(|share| share * total).collect();
    let whole: Vec<u64> = quotas.iter().map(|&quota| floor(quota) as u64).collect();
    let left = (total as u64).saturating_sub(whole.iter().sum());
    let mut by_remainder: Vec<usize> = (0..cells.len()).collect();
    by_remainder.sort_by(|&a, &b| (quotas[b] - floor(quotas[b])).total_cmp(&(quotas[a] - floor(quotas[a]))));
    for (place, i) in (0u64..).zip(by_remainder) {
        cells[i].raise(whole[i] + u64::from(place < left));
    }
    Ok(cells)
}

/// Shares are decimal fractions: a product within a billionth of a whole number is that number.
const NEAR: f64 = 1e-9;

fn ceil(x: f64) -> f64 {
    (x * (1.0 - NEAR)).ceil()
}

fn floor(x: f64) -> f64 {
    (x * (1.0 + NEAR)).floor()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_smallest_allowed_count_is_the_least_that_keeps_the_ratio() {
        for largest in 0..200u64 {
            for ratio in [1.0, 1.1, 1.5, 2.0, 3.0, 7.3, 1e9] {
                let n = smallest_allowed(largest, ratio);
                assert!(n as f64 * ratio >= largest as f64);
                assert!(n == 0 || ((n - 1) as f64 * ratio) < largest as f64);
            }
        }
    }

    #[test]
    fn decimal_fractions_round_to_the_whole_number_they_mean() {
        assert_eq!((ceil(0.7 / 0.1), floor(0.1 * 3.0 * 10.0)), (7.0, 3.0));
        assert_eq!((ceil(7.1), floor(2.9)), (8.0, 2.0));
    }
}
