//! What a target demands of the counts: a rule over cells of groups, in whole numbers.

use std::collections::BTreeMap;
use std::ops::Range;

use evenset_core::Group;

use crate::error::list;
use crate::limits::{Surplus, holds};
use crate::shares::Weights;
use crate::table::{Cell, MOST_IMAGES, Table, sum};
use crate::target::{AtLeast, Independent, Marginal, Marginals, Match, Parity, Ratio, Shares};
use crate::{PlanError, Target};

/// A rule over cells. The target `marginals` makes one for each attribute, every other target one.
#[derive(Clone, Debug)]
pub(crate) struct Demand {
    /// The number of the target.
    pub target: usize,
    /// The cells that the rule is about.
    pub cells: Vec<Cell>,
    /// Whether a group may be in more than one of them. Cells of the same attributes never overlap.
    pub overlapping: bool,
    /// What it asks of them.
    pub rule: Rule,
}

#[derive(Clone, Debug)]
pub(crate) enum Rule {
    /// At least so many images in each cell. The only rule whose cells may overlap.
    Floor(u64),
    /// The same count in all cells of a range.
    Equal(Vec<Range<usize>>),
    /// No cell larger than the smallest times this fraction.
    Ratio(Fraction),
    /// Each cell has its share of the images to within one image.
    Shares(Weights),
}

/// A fraction of whole numbers, 1 or more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Fraction {
    numerator: u128,
    denominator: u128,
}

impl Fraction {
    /// The decimal fraction that is written, to nine places. Beyond 10^12 it is that: no count gets so far.
    fn of(written: f64) -> Self {
        Self { numerator: (written.min(1e12) * 1e9).round() as u128, denominator: 1_000_000_000 }
    }

    /// The fraction as a floating-point number.
    pub fn value(self) -> f64 {
        self.numerator as f64 / self.denominator as f64
    }

    /// The least count that `largest` exceeds at most so many times.
    pub fn smallest_allowed(self, largest: u64) -> u64 {
        (u128::from(largest) * self.denominator).div_ceil(self.numerator) as u64
    }
}

/// Why a rule cannot be met by adding images.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Unreachable {
    /// A cell has images but a share of nothing.
    NoShare(usize),
    /// It would take more images than can be planned with.
    TooMany,
}

impl Demand {
    /// How many images each cell lacks when the rule is met with the fewest images; with it, where that is
    /// not certain, how many it takes at least.
    ///
    /// Where cells overlap the sum may be more than it takes.
    pub fn deficits(&self, counts: &[u64]) -> Result<(Vec<u64>, Option<u64>), Unreachable> {
        let have: Vec<u64> = self.cells.iter().map(|cell| sum(&cell.members, counts)).collect();
        let (want, bound) = match &self.rule {
            Rule::Floor(images) => (vec![*images; have.len()], None),
            Rule::Ratio(at_most) => {
                let largest = have.iter().copied().max().unwrap_or(0);
                (vec![at_most.smallest_allowed(largest); have.len()], None)
            }
            Rule::Equal(strata) => (strata.iter().flat_map(|cells| level(&have[cells.clone()])).collect(), None),
            Rule::Shares(weights) => {
                let over = (0..have.len()).find(|&cell| have[cell] > 0 && weights.each[cell] == 0);
                if let Some(cell) = over {
                    return Err(Unreachable::NoShare(cell));
                }
                let reached = weights.reach(&have, MOST_IMAGES).ok_or(Unreachable::TooMany)?;
                (reached.counts, reached.bound)
            }
        };
        let most = want.iter().zip(&have).try_fold(0u64, |all, (want, have)| all.checked_add(*want.max(have)));
        if !self.overlapping && most.is_none_or(|all| all > MOST_IMAGES) || want.iter().any(|&n| n > MOST_IMAGES) {
            return Err(Unreachable::TooMany);
        }
        Ok((want.into_iter().zip(have).map(|(want, have)| want.saturating_sub(have)).collect(), bound))
    }

    /// How many images the rule takes at least: what it lacks over cells of the same attributes, which do not overlap.
    pub fn least_images(&self, counts: &[u64]) -> u64 {
        let Ok((deficits, None)) = self.deficits(counts) else { return 0 };
        let mut layers: BTreeMap<Vec<&str>, u64> = BTreeMap::new();
        for (cell, deficit) in self.cells.iter().zip(deficits) {
            *layers.entry(cell.values.attributes().collect()).or_default() += deficit;
        }
        layers.into_values().max().unwrap_or(0)
    }

    /// Whether the rule rounds, so that it can be met in more than one way.
    pub fn rounds(&self) -> bool {
        matches!(self.rule, Rule::Shares(_))
    }

    /// Whether images in one cell change what the others need.
    pub fn is_about_all(&self) -> bool {
        !matches!(self.rule, Rule::Floor(_))
    }

    /// Whether the counts meet the rule.
    pub fn is_met(&self, counts: &[u64]) -> bool {
        self.deficits(counts).is_ok_and(|(deficits, _)| deficits.iter().all(|&deficit| deficit == 0))
    }
}

fn level(have: &[u64]) -> Vec<u64> {
    vec![have.iter().copied().max().unwrap_or(0); have.len()]
}

/// The demands of one target; `budget` makes none.
pub(crate) fn demands(
    table: &Table<'_>,
    number: usize,
    target: &Target,
    surplus: Surplus,
) -> Result<Vec<Demand>, PlanError> {
    let demand = |cells, rule| Demand { target: number, cells, overlapping: false, rule };
    let one = |cells, rule| Ok(vec![demand(cells, rule)]);
    match target {
        Target::Budget(_) => Ok(Vec::new()),
        Target::Parity(target) => {
            let (cells, strata) = strata(table, target)?;
            one(cells, Rule::Equal(strata))
        }
        Target::AtLeast(target) => {
            let overlapping = target.max_level.is_some();
            let demand = demand(patterns(table, target)?, Rule::Floor(target.images));
            Ok(vec![Demand { overlapping, ..demand }])
        }
        Target::Ratio(Ratio { at_most, of }) => {
            one(table.cells(of.or(&table.attributes))?, Rule::Ratio(Fraction::of(*at_most)))
        }
        Target::Match(Match { of, shares, .. }) => {
            let expected = "read into shares before planning";
            let missing = || PlanError::Value { key: "target.file", found: "not read".into(), expected };
            let cells = table.cells(&of.0)?;
            let weights = match shares.as_ref().ok_or_else(missing)? {
                Shares::Values(shares) => {
                    let share = |cell: &Group| cell.values().next().and_then(|value| shares.get(value)).copied();
                    let asked = shares.iter().map(|(value, &share)| (value.clone(), share));
                    weights(&of.0, &cells, asked, share)?
                }
                Shares::Joint(joint) => {
                    let find = |cell: &Group| joint.iter().find(|joint| holds(cell, &joint.values));
                    let share = |cell: &Group| Some(find(cell).map_or(0.0, |joint| joint.share));
                    let named = |joint: &crate::JointShare| {
                        let values: Vec<&str> =
                            of.0.iter().filter_map(|name| joint.values.get(name)).map(String::as_str).collect();
                        (values.join(" & "), joint.share)
                    };
                    weights(&of.0, &cells, joint.iter().map(named), share)?
                }
            };
            refuse_images_without_share(&of.0, &cells, &weights, &table.counts, surplus)?;
            one(cells, Rule::Shares(weights))
        }
        Target::Independent(Independent { of, from }) => {
            let (cells, weights) = product(table, &of.0, &from.0)?;
            one(cells, Rule::Shares(weights))
        }
        Target::Marginals(Marginals { shares }) => {
            let mut demands = Vec::new();
            for (name, marginal) in shares {
                let names = std::slice::from_ref(name);
                let cells = table.cells(names)?;
                let weights = match marginal {
                    Marginal::Equal(_) => Weights::of_counts(&vec![1; cells.len()]),
                    Marginal::Values(shares) => {
                        let share = |cell: &Group| cell.values().next().and_then(|value| shares.get(value)).copied();
                        let asked = shares.iter().map(|(value, &share)| (value.clone(), share));
                        weights(names, &cells, asked, share)?
                    }
                };
                refuse_images_without_share(names, &cells, &weights, &table.counts, surplus)?;
                demands.push(demand(cells, Rule::Shares(weights)));
            }
            Ok(demands)
        }
    }
}

/// The values of `of` within each value of `within`, and which of them belong together.
fn strata(table: &Table<'_>, Parity { of, within }: &Parity) -> Result<(Vec<Cell>, Vec<Range<usize>>), PlanError> {
    let rest: Vec<String> = table.attributes.iter().filter(|a| !within.0.contains(a)).cloned().collect();
    let names: Vec<String> = within.0.iter().chain(of.or(&rest)).cloned().collect();
    let cells = table.cells(&names)?;
    let mut strata: Vec<Range<usize>> = Vec::new();
    for (i, cell) in cells.iter().enumerate() {
        match strata.last_mut() {
            Some(stratum) if cells[stratum.start].values.project(&within.0) == cell.values.project(&within.0) => {
                stratum.end = i + 1;
            }
            _ => strata.push(i..i + 1),
        }
    }
    Ok((cells, strata))
}

/// The cells of `at-least`. A pattern that fixes fewer attributes is a union of those that fix `max_level` of them.
fn patterns(table: &Table<'_>, target: &AtLeast) -> Result<Vec<Cell>, PlanError> {
    if let Some(pattern) = &target.pattern {
        let names: Vec<String> = pattern.keys().cloned().collect();
        let cell = table.cells(&names)?.into_iter().find(|cell| holds(&cell.values, pattern));
        let unknown = || PlanError::Share {
            attribute: list(&names),
            value: crate::target::words(pattern),
            problem: "is a pattern that no group has".to_owned(),
        };
        return Ok(vec![cell.ok_or_else(unknown)?]);
    }
    let names = target.of.or(&table.attributes);
    let Some(level) = target.max_level else { return table.cells(names) };
    let mut cells = Vec::new();
    for names in choose(names, level as usize) {
        cells.append(&mut table.cells(&names)?);
    }
    Ok(cells)
}

/// Every choice of `k` names in their order; all names where there are not so many.
fn choose(names: &[String], k: usize) -> Vec<Vec<String>> {
    if k == 0 {
        return vec![Vec::new()];
    }
    let Some((first, rest)) = names.split_first().filter(|_| k < names.len()) else { return vec![names.to_vec()] };
    let with = choose(rest, k - 1).into_iter().map(|mut names| {
        names.insert(0, first.clone());
        names
    });
    with.chain(choose(rest, k)).collect()
}

/// The weight of each cell, after a check that the reference and the dataset have the same values.
fn weights(
    names: &[String],
    cells: &[Cell],
    asked: impl Iterator<Item = (String, f64)>,
    share: impl Fn(&Group) -> Option<f64>,
) -> Result<Weights, PlanError> {
    let name = |cell: &Cell| cell.values.values().collect::<Vec<_>>().join(" & ");
    let known: Vec<String> = cells.iter().map(name).collect();
    let wrong =
        |value: &str, problem| PlanError::Share { attribute: names.join(" & "), value: value.to_owned(), problem };
    for (value, share) in asked {
        if share > 0.0 && !known.contains(&value) {
            return Err(wrong(&value, format!("has a share but no group; the dataset has {}", list(&known))));
        }
    }
    let missing = "has images but no share; give it one (0 if it has no images)";
    let shares: Vec<f64> = cells
        .iter()
        .map(|cell| share(&cell.values).ok_or_else(|| wrong(&name(cell), missing.to_owned())))
        .collect::<Result<_, _>>()?;
    Ok(Weights::of_shares(&shares))
}

/// Where images stay, one that has no share keeps the target out of reach for ever.
fn refuse_images_without_share(
    names: &[String],
    cells: &[Cell],
    weights: &Weights,
    counts: &[u64],
    surplus: Surplus,
) -> Result<(), PlanError> {
    for (cell, &weight) in cells.iter().zip(&weights.each) {
        let images = sum(&cell.members, counts);
        if surplus == Surplus::Keep && images > 0 && weight == 0 {
            let problem = format!("has {images} images but a share of 0, which adding images cannot reach");
            return Err(PlanError::Share {
                attribute: names.join(" & "),
                value: cell.values.values().collect::<Vec<_>>().join(" & "),
                problem: format!("{problem}; give it a share, or leave its rows out with `where`"),
            });
        }
    }
    Ok(())
}

/// The cells of two lists of attributes with the products of their margins as weights.
fn product(table: &Table<'_>, of: &[String], from: &[String]) -> Result<(Vec<Cell>, Weights), PlanError> {
    let (rows, columns) = (table.cells(of)?, table.cells(from)?);
    let names: Vec<String> = of.iter().chain(from).cloned().collect();
    let cells = table.cells(&names)?;
    let count = |cell: &Cell| u128::from(sum(&cell.members, &table.counts));
    let mut weights = Vec::with_capacity(cells.len());
    // Cells are sorted by `of`, then by `from`: they stand in the order of the products.
    let mut listed = cells.iter().peekable();
    for row in &rows {
        for column in &columns {
            let weight = count(row) * count(column);
            let here =
                |cell: &&Cell| cell.values.project(of) == row.values && cell.values.project(from) == column.values;
            match listed.next_if(here) {
                Some(_) => weights.push(weight),
                None if weight == 0 => {}
                None => {
                    return Err(PlanError::Share {
                        attribute: row.values.to_string(),
                        value: column.values.to_string(),
                        problem: "would need images, but no group is listed for it; list empty groups too".to_owned(),
                    });
                }
            }
        }
    }
    Ok((cells, Weights::of_counts(&weights)))
}
