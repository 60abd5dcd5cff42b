//! Two datasets side by side: before and after, train and test, mine and the census.

use evenset_core::{Group, MISSING, Seed};
use serde::{Deserialize, Serialize};

use super::{AuditConfig, LeftOut, default_groupings};
use crate::statistics::{self, Distances, Method, Test};
use crate::{AuditError, Cube};

/// Two datasets side by side, over the attributes that both have.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Comparison {
    /// How the two are called.
    pub datasets: [String; 2],
    /// Their rows.
    pub rows: [u64; 2],
    /// The groupings in the order asked for.
    pub groupings: Vec<ComparedGrouping>,
    /// Values that only one of them has.
    pub only_in_one: Vec<LonelyValue>,
    /// Attributes that only one of them has, and groupings that have too many groups.
    pub left_out: Vec<LeftOut>,
}

/// A value that only one of two datasets has.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LonelyValue {
    /// The value.
    pub value: Group,
    /// The dataset that has it.
    pub dataset: String,
    /// The rows that have it there.
    pub count: u64,
}

/// One grouping of two datasets.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ComparedGrouping {
    /// The attributes that are counted by.
    pub attributes: Vec<String>,
    /// Every group that one of the two may have.
    pub groups: Vec<ComparedGroup>,
    /// How far the first one's shares are from the second's.
    pub distances: Option<Distances>,
    /// The test of whether both have the same shares.
    pub test: Option<Test>,
}

/// One group of two datasets.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ComparedGroup {
    /// The group.
    pub values: Group,
    /// Its rows in either dataset.
    pub counts: [u64; 2],
    /// Its shares, 0 to 1.
    pub shares: [f64; 2],
    /// The first share minus the second.
    pub difference: f64,
    /// The 95 % interval of the difference (Newcombe's).
    pub interval: [f64; 2],
    /// The false discovery rate among the groups of this grouping; none where both are empty.
    pub q: Option<f64>,
    /// Where the p value behind it is from.
    pub method: Option<Method>,
}

/// Compares two datasets.
///
/// # Errors
/// [`AuditError::Empty`] where one has no rows, [`AuditError::NothingShared`] where they have no attribute in common;
/// for groupings of the configuration as [`audit`](super::audit).
pub fn compare(datasets: [(&str, &Cube); 2], config: &AuditConfig, seed: Seed) -> Result<Comparison, AuditError> {
    let [(a_name, a), (b_name, b)] = datasets;
    if a.rows() == 0 || b.rows() == 0 {
        return Err(AuditError::Empty);
    }
    let shared: Vec<String> = a.attributes().iter().filter(|name| b.attributes().contains(name)).cloned().collect();
    if shared.is_empty() {
        let attributes = |cube: &Cube| super::list(cube.attributes());
        return Err(AuditError::NothingShared { a: attributes(a), b: attributes(b) });
    }
    let (mut a, mut b) = (a.project(&shared)?, b.project(&shared)?);
    let mut found = Comparison {
        datasets: [a_name.to_owned(), b_name.to_owned()],
        rows: [a.rows(), b.rows()],
        groupings: Vec::new(),
        only_in_one: Vec::new(),
        left_out: alone(datasets, &shared),
    };
    for attribute in &shared {
        found.only_in_one.extend(lonely(attribute, &a, &b, a_name)?);
        found.only_in_one.extend(lonely(attribute, &b, &a, b_name)?);
        declare_values(attribute, &b, &mut a)?;
        declare_values(attribute, &a, &mut b)?;
    }
    let asked = config.groupings.is_some();
    for attributes in config.groupings.clone().unwrap_or_else(|| default_groupings(&shared)) {
        match grouping(&a, &b, &attributes, seed) {
            Ok(grouping) => found.groupings.push(grouping),
            Err(error @ AuditError::TooManyGroups { .. }) if !asked => {
                found.left_out.push(LeftOut { attributes, reason: error.to_string() });
            }
            Err(error) => return Err(error),
        }
    }
    Ok(found)
}

fn alone(datasets: [(&str, &Cube); 2], shared: &[String]) -> Vec<LeftOut> {
    let [(a_name, a), (b_name, b)] = datasets;
    let only = |cube: &Cube, name: &str| {
        let lonely: Vec<String> =
            cube.attributes().iter().filter(|attribute| !shared.contains(attribute)).cloned().collect();
        let reason = format!("only in {name}");
        (!lonely.is_empty()).then_some(LeftOut { attributes: lonely, reason })
    };
    [only(a, a_name), only(b, b_name)].into_iter().flatten().collect()
}

fn lonely(attribute: &str, here: &Cube, there: &Cube, name: &str) -> Result<Vec<LonelyValue>, AuditError> {
    let mut found = Vec::new();
    for value in here.values(attribute)? {
        let count = here.count_of(attribute, value)?;
        if count > 0 && value != MISSING && there.count_of(attribute, value)? == 0 {
            found.push(LonelyValue { value: Group::of(attribute, value), dataset: name.to_owned(), count });
        }
    }
    Ok(found)
}

/// Makes the values of one cube known to the other.
fn declare_values(attribute: &str, from: &Cube, to: &mut Cube) -> Result<(), AuditError> {
    from.values(attribute)?.into_iter().try_for_each(|value| to.declare(attribute, value))
}

fn grouping(a: &Cube, b: &Cube, attributes: &[String], seed: Seed) -> Result<ComparedGrouping, AuditError> {
    // Both cubes know the same values, so their tallies list the same groups in the same order.
    let counts = [a.tally(attributes)?.counts, b.tally(attributes)?.counts];
    let shares = counts.each_ref().map(|counts| statistics::shares(counts));
    let seed = attributes.iter().fold(seed.derive("compare"), |seed, attribute| seed.derive(attribute));
    // The first row of the table is the first dataset: its cells are the groups' own tests.
    let table = counts.to_vec();
    let mut tests: Vec<Option<(f64, Method)>> = vec![None; counts[0].len()];
    for cell in statistics::cells(&table).into_iter().filter(|cell| cell.row == 0) {
        tests[cell.column] = Some((cell.p, cell.method));
    }
    let p_values: Vec<f64> = tests.iter().flatten().map(|(p, _)| *p).collect();
    let mut q_values = statistics::benjamini_hochberg(&p_values).into_iter();
    let listing = a.listing(attributes)?;
    let mut groups = Vec::with_capacity(tests.len());
    for (i, test) in tests.into_iter().enumerate() {
        let [count_a, count_b] = [counts[0][i], counts[1][i]];
        let [share_a, share_b] = [shares[0][i], shares[1][i]];
        groups.push(ComparedGroup {
            values: listing.group(i)?,
            counts: [count_a, count_b],
            shares: [share_a, share_b],
            difference: share_a - share_b,
            interval: statistics::newcombe((count_a, a.rows()), (count_b, b.rows())),
            q: test.and_then(|_| q_values.next()),
            method: test.map(|(_, method)| method),
        });
    }
    let few = groups.len() <= 500;
    Ok(ComparedGrouping {
        attributes: attributes.to_vec(),
        distances: few.then(|| statistics::distances_between(&counts[0], &counts[1], seed)).flatten(),
        test: if groups.len() <= 10_000 { statistics::g_test(&table, seed) } else { None },
        groups,
    })
}
