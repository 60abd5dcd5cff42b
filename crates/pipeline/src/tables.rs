//! Results as files: groups as a Parquet table, pages as text.

use std::path::Path;

use arrow_array::{ArrayRef, Float64Array, RecordBatch};
use evenset_audit::{Audit, Comparison};
use evenset_core::Group;
use std::sync::Arc;

use crate::columns::{self, numbers, strings, texts};
use crate::error::{PipelineError, Result};

/// Columns of the tables that are not attributes.
const RESERVED: [&str; 14] = [
    "grouping",
    "rows",
    "share",
    "share_low",
    "share_high",
    "reference",
    "rows_a",
    "rows_b",
    "share_a",
    "share_b",
    "difference",
    "difference_low",
    "difference_high",
    "q",
];

/// Every group of every grouping as a table.
pub struct GroupTable(RecordBatch);

impl GroupTable {
    /// Writes the table as one Parquet file; an existing one is replaced.
    ///
    /// # Errors
    /// Where the file cannot be written.
    pub fn write(&self, path: &Path) -> Result<()> {
        Ok(evenset_data::write_parquet(path, &self.0)?)
    }
}

/// The groups of an audit: `grouping`, one column an attribute (null where it is free), `rows`, `share`, the ends of its
/// interval, and `reference`.
///
/// # Errors
/// Where an attribute has the name of one of these columns.
pub fn audit(audit: &Audit) -> Result<GroupTable> {
    let groups: Vec<_> =
        audit.groupings.iter().flat_map(|g| g.groups.iter().map(|group| (&g.attributes, group))).collect();
    let values: Vec<&Group> = groups.iter().map(|(_, group)| &group.values).collect();
    let attributes = attributes(audit.groupings.iter().map(|grouping| &grouping.attributes))?;
    let float = |value: &dyn Fn(&evenset_audit::GroupCount) -> Option<f64>| -> ArrayRef {
        Arc::new(groups.iter().map(|(_, group)| value(group)).collect::<Float64Array>())
    };
    let mut table = named(&attributes, &values, groups.iter().map(|(attributes, _)| attributes.as_slice()));
    table.push(("rows", numbers(groups.iter().map(|(_, group)| group.count))));
    table.push(("share", float(&|group| Some(group.share))));
    table.push(("share_low", float(&|group| Some(group.interval[0]))));
    table.push(("share_high", float(&|group| Some(group.interval[1]))));
    table.push(("reference", float(&|group| group.reference)));
    Ok(GroupTable(columns::table(table)?))
}

/// The groups of a comparison: `grouping`, one column an attribute, rows and shares of both, the difference of the
/// shares with its interval, and `q`.
///
/// # Errors
/// Where an attribute has the name of one of these columns.
pub fn comparison(found: &Comparison) -> Result<GroupTable> {
    let groups: Vec<_> =
        found.groupings.iter().flat_map(|g| g.groups.iter().map(|group| (&g.attributes, group))).collect();
    let values: Vec<&Group> = groups.iter().map(|(_, group)| &group.values).collect();
    let attributes = attributes(found.groupings.iter().map(|grouping| &grouping.attributes))?;
    let float = |value: &dyn Fn(&evenset_audit::ComparedGroup) -> Option<f64>| -> ArrayRef {
        Arc::new(groups.iter().map(|(_, group)| value(group)).collect::<Float64Array>())
    };
    let mut table = named(&attributes, &values, groups.iter().map(|(attributes, _)| attributes.as_slice()));
    table.push(("rows_a", numbers(groups.iter().map(|(_, group)| group.counts[0]))));
    table.push(("rows_b", numbers(groups.iter().map(|(_, group)| group.counts[1]))));
    table.push(("share_a", float(&|group| Some(group.shares[0]))));
    table.push(("share_b", float(&|group| Some(group.shares[1]))));
    table.push(("difference", float(&|group| Some(group.difference))));
    table.push(("difference_low", float(&|group| Some(group.interval[0]))));
    table.push(("difference_high", float(&|group| Some(group.interval[1]))));
    table.push(("q", float(&|group| group.q)));
    Ok(GroupTable(columns::table(table)?))
}

/// All attributes of some groupings, in the order in which they are first named.
fn attributes<'a>(groupings: impl Iterator<Item = &'a Vec<String>>) -> Result<Vec<String>> {
    let mut all: Vec<String> = Vec::new();
    for name in groupings.flatten() {
        if RESERVED.contains(&name.as_str()) {
            return Err(PipelineError::Reserved(name.clone()));
        }
        if !all.contains(name) {
            all.push(name.clone());
        }
    }
    Ok(all)
}

fn named<'a>(
    attributes: &'a [String],
    groups: &[&Group],
    groupings: impl Iterator<Item = &'a [String]>,
) -> Vec<(&'a str, ArrayRef)> {
    let mut table = vec![("grouping", strings(groupings.map(|names| names.join(","))))];
    for attribute in attributes {
        table.push((attribute.as_str(), texts(groups.iter().map(|group| group.get(attribute)))));
    }
    table
}

/// Writes a text file, whole or not at all; an existing one is replaced.
///
/// # Errors
/// Where the file cannot be written.
pub fn write_text(path: &Path, text: &str) -> Result<()> {
    Ok(evenset_data::atomic::write_file(path, text.as_bytes())?)
}
