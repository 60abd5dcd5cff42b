//! The counts in the order of the groups, so that nothing depends on the order in which they were listed.

use std::collections::{BTreeMap, BTreeSet};

use evenset_core::Group;

use crate::PlanError;

/// Counts up to here are exact as floating-point numbers, and their sums fit.
pub(crate) const MOST_IMAGES: u64 = 1 << 53;

/// Groups that a target counts together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Cell {
    /// What the groups have in common.
    pub values: Group,
    /// Rows of the table.
    pub members: Vec<usize>,
}

/// The groups that have a value for every attribute, sorted.
pub(crate) struct Table<'a> {
    /// The attributes of the groups, in their order.
    pub attributes: Vec<String>,
    /// The groups, sorted.
    pub groups: Vec<&'a Group>,
    /// Their counts.
    pub counts: Vec<u64>,
    /// Where each stands in the list of counts.
    pub places: Vec<usize>,
    /// All images, those of groups without a value too.
    pub images: u64,
    /// For each group the number of its value of each attribute; values are numbered in their order.
    codes: Vec<Vec<u32>>,
}

impl<'a> Table<'a> {
    /// The table of `counts`, after a check that they fit together.
    pub fn new(counts: &'a [(Group, u64)]) -> Result<Self, PlanError> {
        let images = total(counts)?;
        let attributes: Vec<String> =
            counts.first().map(|(g, _)| g.attributes().map(str::to_owned).collect()).unwrap_or_default();
        let mut places: Vec<usize> = (0..counts.len()).filter(|&i| counts[i].0.is_complete()).collect();
        places.sort_by_key(|&i| &counts[i].0);
        if places.is_empty() {
            return Err(PlanError::NoGroups);
        }
        let groups: Vec<&Group> = places.iter().map(|&i| &counts[i].0).collect();
        let mut numbers: Vec<BTreeMap<&str, u32>> = vec![BTreeMap::new(); attributes.len()];
        for group in &groups {
            numbers.iter_mut().zip(group.values()).for_each(|(values, value)| {
                values.insert(value, 0);
            });
        }
        for values in &mut numbers {
            (0u32..).zip(values.values_mut()).for_each(|(n, number)| *number = n);
        }
        let code = |group: &&Group| group.values().zip(&numbers).map(|(v, n)| n[v]).collect();
        let codes = groups.iter().map(code).collect();
        Ok(Self { attributes, counts: places.iter().map(|&i| counts[i].1).collect(), groups, places, images, codes })
    }

    /// How many groups there are.
    pub fn len(&self) -> usize {
        self.groups.len()
    }

    /// The cells of these attributes, sorted: one for each combination of their values that has a group.
    pub fn cells(&self, names: &[String]) -> Result<Vec<Cell>, PlanError> {
        let columns: Vec<usize> = names.iter().map(|name| self.column(name)).collect::<Result<_, _>>()?;
        let mut cells: BTreeMap<Vec<u32>, Vec<usize>> = BTreeMap::new();
        for (row, codes) in self.codes.iter().enumerate() {
            cells.entry(columns.iter().map(|&c| codes[c]).collect()).or_default().push(row);
        }
        let cell = |members: Vec<usize>| Cell { values: self.groups[members[0]].project(names), members };
        Ok(cells.into_values().map(cell).collect())
    }

    fn column(&self, name: &str) -> Result<usize, PlanError> {
        let unknown = || PlanError::UnknownAttribute { name: name.to_owned(), known: self.attributes.clone() };
        self.attributes.iter().position(|attribute| attribute == name).ok_or_else(unknown)
    }
}

/// The sum over the members of a cell.
pub(crate) fn sum(members: &[usize], counts: &[u64]) -> u64 {
    members.iter().map(|&i| counts[i]).sum()
}

/// The sum of the counts, after a check that they fit together.
fn total(counts: &[(Group, u64)]) -> Result<u64, PlanError> {
    let (first, _) = counts.first().ok_or(PlanError::NoGroups)?;
    let (mut seen, mut total) = (BTreeSet::new(), 0u64);
    for (group, count) in counts {
        if !group.attributes().eq(first.attributes()) || !seen.insert(group) {
            return Err(PlanError::Inconsistent(group.clone()));
        }
        let sum = total.checked_add(*count).filter(|&sum| sum <= MOST_IMAGES);
        total = sum.ok_or(PlanError::Overflow { limit: MOST_IMAGES })?;
    }
    Ok(total)
}
