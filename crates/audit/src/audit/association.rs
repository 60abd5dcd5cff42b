//! How two attributes go together, and whether a third one turns that around.

use evenset_core::{Group, MISSING, Seed};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use super::pairs;
use crate::statistics::{self, Direction, MantelHaenszel, Method, MutualInformation, Test};
use crate::{AuditError, Cube};

/// Attributes with more values are left out of the search for reversals.
const MOST_VALUES: usize = 50;
/// Tables of more cells are not tested cell by cell.
const MOST_CELLS: usize = 10_000;

/// How strongly two attributes go together, over the rows that have a value for both.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Association {
    /// The two attributes.
    pub attributes: [String; 2],
    /// The rows that have both values.
    pub rows: u64,
    /// Bias-corrected Cramér's V, 0 to 1; none where an attribute has fewer than two values.
    pub cramers_v: Option<f64>,
    /// What one attribute tells of the other, in nats.
    pub mutual_information: Option<MutualInformation>,
    /// The test of independence; none above 10,000 combinations.
    pub test: Option<Test>,
    /// Every combination of two values against all others; empty above 10,000 combinations.
    pub cells: Vec<AssociatedCell>,
}

/// One combination of two values against all others.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct AssociatedCell {
    /// The combination.
    pub values: Group,
    /// Its rows.
    pub count: u64,
    /// The rows it would have if the attributes were independent.
    pub expected: f64,
    /// Whether it has more or fewer.
    pub direction: Direction,
    /// Normalised pointwise mutual information: -1 never together, 0 independent, 1 only together.
    pub npmi: f64,
    /// The odds ratio, a half added to each count.
    pub odds_ratio: f64,
    /// Its 95 % interval.
    pub odds_ratio_interval: [f64; 2],
    /// The p value of the combination's own test.
    pub p: f64,
    /// Where it is from.
    pub method: Method,
    /// Its false discovery rate among the combinations of this pair of attributes.
    pub q: f64,
}

/// How unevenly a value of the label is spread over the values of an attribute.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LabelParity {
    /// The value of the label: `garment=coat`.
    pub label: Group,
    /// The attribute's value with the largest share of it.
    pub highest: Group,
    /// That share, 0 to 1.
    pub highest_share: f64,
    /// The attribute's value with the smallest share of it.
    pub lowest: Group,
    /// That share, 0 to 1.
    pub lowest_share: f64,
    /// The demographic parity difference: the one share minus the other.
    pub difference: f64,
    /// Its 95 % interval (Newcombe's), as if the two values had been named before looking.
    pub interval: [f64; 2],
    /// The demographic parity ratio: the smallest share over the largest.
    pub ratio: f64,
}

/// Two values that go together one way over all rows and the other way within the values of a third attribute.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Reversal {
    /// The two values.
    pub values: Group,
    /// The attribute within whose values the association turns around.
    pub within: String,
    /// Whether the two values go together more or less than by chance over all rows.
    pub marginal_direction: Direction,
    /// Their odds ratio over all rows.
    pub marginal_odds_ratio: f64,
    /// Its 95 % interval.
    pub marginal_interval: [f64; 2],
    /// The false discovery rate of the association over all rows.
    pub marginal_q: f64,
    /// The association within the values of the third attribute.
    pub pooled: MantelHaenszel,
    /// Whether that one is significant too; where not, the third attribute explains the association.
    pub pooled_is_significant: bool,
    /// In how many values of the third attribute it is the other way than over all rows.
    pub strata_reversed: usize,
}

/// A table of two attributes, rows without a value left out.
struct PairTable {
    attributes: [String; 2],
    values: [Vec<String>; 2],
    counts: Vec<Vec<u64>>,
}

impl PairTable {
    fn of(cube: &Cube, a: &str, b: &str) -> Result<Self, AuditError> {
        let attributes = [a.to_owned(), b.to_owned()];
        let tally = cube.tally(&attributes)?;
        let [rows, columns] = [present(cube, a)?, present(cube, b)?];
        let width = tally.sizes.get(1).copied().unwrap_or(0);
        let row = |(i, _): &(usize, String)| columns.iter().map(|(j, _)| tally.counts[i * width + j]).collect();
        let counts = rows.iter().map(row).collect();
        let names = |values: Vec<(usize, String)>| values.into_iter().map(|(_, value)| value).collect();
        Ok(Self { attributes, counts, values: [names(rows), names(columns)] })
    }

    fn group(&self, side: usize, place: usize) -> Group {
        Group::of(&self.attributes[side], &self.values[side][place])
    }

    fn groups(&self, row: usize, column: usize) -> Group {
        self.group(0, row).with(&self.attributes[1], &self.values[1][column])
    }
}

/// The values of an attribute that are not missing, with their places in the listing.
fn present(cube: &Cube, attribute: &str) -> Result<Vec<(usize, String)>, AuditError> {
    let values = cube.values(attribute)?.into_iter().map(str::to_owned).enumerate();
    Ok(values.filter(|(_, value)| value != MISSING).collect())
}

/// Every pair of attributes. Pairs with too many groups are left out.
pub(super) fn associations(cube: &Cube, seed: Seed) -> Result<Vec<Association>, AuditError> {
    let all: Vec<_> = pairs(cube.attributes()).collect();
    let found = all.into_par_iter().map(|(a, b)| match PairTable::of(cube, a, b) {
        Ok(table) => Ok(Some(association(&table, seed))),
        Err(AuditError::TooManyGroups { .. }) => Ok(None),
        Err(error) => Err(error),
    });
    Ok(found.collect::<Result<Vec<_>, AuditError>>()?.into_iter().flatten().collect())
}

fn association(table: &PairTable, seed: Seed) -> Association {
    let seed = table.attributes.iter().fold(seed.derive("association"), |seed, attribute| seed.derive(attribute));
    let few = table.values[0].len() * table.values[1].len() <= MOST_CELLS;
    let cells = if few { statistics::cells(&table.counts) } else { Vec::new() };
    let cells = cells.into_iter().map(|cell| AssociatedCell {
        values: table.groups(cell.row, cell.column),
        count: cell.count,
        expected: cell.expected,
        direction: cell.direction,
        npmi: cell.npmi,
        odds_ratio: cell.odds_ratio,
        odds_ratio_interval: cell.odds_ratio_interval,
        p: cell.p,
        method: cell.method,
        q: cell.q,
    });
    Association {
        rows: table.counts.iter().flatten().sum(),
        cramers_v: statistics::cramers_v(&table.counts),
        mutual_information: statistics::mutual_information(&table.counts),
        test: if few { statistics::g_test(&table.counts, seed) } else { None },
        cells: cells.collect(),
        attributes: table.attributes.clone(),
    }
}

/// The parity of every value of the label by every other attribute.
pub(super) fn parities(cube: &Cube, label: &str) -> Result<Vec<LabelParity>, AuditError> {
    let mut found = Vec::new();
    for attribute in cube.attributes().iter().filter(|attribute| *attribute != label) {
        let table = match PairTable::of(cube, attribute, label) {
            Ok(table) => table,
            Err(AuditError::TooManyGroups { .. }) => continue,
            Err(error) => return Err(error),
        };
        found.extend(statistics::demographic_parity(&table.counts).into_iter().map(|parity| LabelParity {
            label: table.group(1, parity.label),
            highest: table.group(0, parity.highest),
            highest_share: parity.highest_share,
            lowest: table.group(0, parity.lowest),
            lowest_share: parity.lowest_share,
            difference: parity.difference,
            interval: parity.interval,
            ratio: parity.ratio,
        }));
    }
    Ok(found)
}

/// The reversals of every pair of attributes within every third one.
pub(super) fn reversals(cube: &Cube) -> Result<Vec<Reversal>, AuditError> {
    let mut few = Vec::new();
    for attribute in cube.attributes() {
        let values = present(cube, attribute)?.len();
        if (2..=MOST_VALUES).contains(&values) {
            few.push(attribute.clone());
        }
    }
    let mut triples = Vec::new();
    for (i, a) in few.iter().enumerate() {
        for (j, b) in few.iter().enumerate().skip(i + 1) {
            triples.extend(few.iter().skip(j + 1).map(|c| [a.clone(), b.clone(), c.clone()]));
        }
    }
    let found = triples.into_par_iter().map(|triple| reversals_of(cube, &triple));
    Ok(found.collect::<Result<Vec<_>, AuditError>>()?.into_iter().flatten().collect())
}

/// The reversals of three attributes, each of them in turn the one within whose values the other two are looked at.
fn reversals_of(cube: &Cube, triple: &[String; 3]) -> Result<Vec<Reversal>, AuditError> {
    let tally = match cube.tally(triple) {
        Ok(tally) => tally,
        Err(AuditError::TooManyGroups { .. }) => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    let values = [present(cube, &triple[0])?, present(cube, &triple[1])?, present(cube, &triple[2])?];
    let (height, width) = (tally.sizes[1], tally.sizes[2]);
    let mut found = Vec::new();
    for [a, b, within] in [[0, 1, 2], [0, 2, 1], [1, 2, 0]] {
        let count = |row: usize, column: usize, stratum: usize| {
            let mut places = [0; 3];
            (places[a], places[b], places[within]) = (row, column, stratum);
            tally.counts[(places[0] * height + places[1]) * width + places[2]]
        };
        let strata: Vec<Vec<Vec<u64>>> = values[within]
            .iter()
            .map(|(s, _)| {
                let row = |(r, _): &(usize, String)| values[b].iter().map(|(c, _)| count(*r, *c, *s)).collect();
                values[a].iter().map(row).collect()
            })
            .collect();
        found.extend(statistics::reversals(&strata).into_iter().map(|reversal| Reversal {
            values: Group::of(&triple[a], &values[a][reversal.row].1).with(&triple[b], &values[b][reversal.column].1),
            within: triple[within].clone(),
            marginal_direction: reversal.marginal_direction,
            marginal_odds_ratio: reversal.marginal_odds_ratio,
            marginal_interval: reversal.marginal_interval,
            marginal_q: reversal.marginal_q,
            pooled: reversal.pooled,
            pooled_is_significant: reversal.pooled_is_significant,
            strata_reversed: reversal.strata_reversed,
        }));
    }
    Ok(found)
}
