//! The audit: what the groupings of a cube say about who is missing.

mod association;
mod comparison;
mod config;
mod grouping;
mod reference;

use evenset_core::{MISSING, Seed};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use crate::images::ImageReport;
use crate::{AuditError, Coverage, Cube, coverage};
use association::{associations, parities, reversals};
use grouping::grouping;

pub use association::{AssociatedCell, Association, LabelParity, Reversal};
pub use comparison::{ComparedGroup, ComparedGrouping, Comparison, LonelyValue, compare};
pub use config::{AuditConfig, Intervals, ReferenceConfig, ReferenceFile};
pub use grouping::{GroupCount, Grouping, ReferenceDistance};
pub use reference::Reference;

/// The groups of all groupings of the default together.
const MOST_GROUPS: u64 = 2_000_000;

/// What an audit found.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Audit {
    /// How many rows were counted.
    pub rows: u64,
    /// For each attribute, how many rows have no value.
    pub missing: Vec<MissingCount>,
    /// The groupings in the order asked for.
    pub groupings: Vec<Grouping>,
    /// The combinations of values that too few rows have.
    pub coverage: Coverage,
    /// For each pair of attributes, how strongly they go together.
    pub associations: Vec<Association>,
    /// How unevenly each value of the label is spread over the values of the other attributes.
    pub parity: Vec<LabelParity>,
    /// Values that go together one way over all rows and the other way within the values of a third attribute.
    pub reversals: Vec<Reversal>,
    /// What the pixels say, where images were looked at.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub images: Option<ImageReport>,
    /// Groupings of the default that have too many groups to list.
    pub left_out: Vec<LeftOut>,
}

/// How many rows have no value for an attribute.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MissingCount {
    /// The attribute.
    pub attribute: String,
    /// Rows without a value for it.
    pub count: u64,
}

/// Something of the default that was not looked at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeftOut {
    /// The attributes.
    pub attributes: Vec<String>,
    /// Why.
    pub reason: String,
}

/// Audits a cube. `label` is the attribute that a model is to learn, where there is one; intervals and tests that draw at
/// random draw from `seed`.
///
/// A grouping named in the configuration that cannot be made is an error; one of the default that has too many groups
/// is listed in [`Audit::left_out`].
///
/// # Errors
/// [`AuditError::Empty`] where no row was counted; [`AuditError::Reference`] where the reference has not the data's
/// values; for what the configuration names, [`AuditError::UnknownAttribute`], [`AuditError::Repeated`],
/// [`AuditError::TooManyGroups`] and [`AuditError::Value`].
pub fn audit(
    cube: &Cube,
    config: &AuditConfig,
    label: Option<&str>,
    reference: Option<&Reference>,
    seed: Seed,
) -> Result<Audit, AuditError> {
    if cube.rows() == 0 {
        return Err(AuditError::Empty);
    }
    config.validate(cube.attributes())?;
    let mut known = cube.clone();
    for (attribute, values) in &config.values {
        for value in values {
            known.declare(attribute, value)?;
        }
    }
    if let Some(reference) = reference {
        reference.declare(&mut known)?;
    }
    let cube = &known;
    let asked = config.groupings.is_some();
    let wanted = config.groupings.clone().unwrap_or_else(|| default_groupings(cube.attributes()));
    // Each grouping has its own limit; of the default there is one for all of them together, too.
    let (mut room, mut left_out) = (MOST_GROUPS, Vec::new());
    let mut chosen = Vec::new();
    for attributes in wanted {
        let groups = groups_of(cube, &attributes)?;
        if asked || groups <= room {
            room = room.saturating_sub(groups);
            chosen.push(attributes);
        } else {
            let reason =
                format!("it would make {groups} groups more than can be listed; name fewer attributes with `--by`");
            left_out.push(LeftOut { attributes, reason });
        }
    }
    let made = chosen.into_par_iter().map(|attributes| {
        let made = grouping(cube, &attributes, config.intervals, reference, seed);
        (attributes, made)
    });
    let made: Vec<_> = made.collect();
    let mut groupings = Vec::new();
    for (attributes, made) in made {
        match made {
            Ok(grouping) => groupings.push(grouping),
            Err(error @ AuditError::TooManyGroups { .. }) if !asked => {
                left_out.push(LeftOut { attributes, reason: error.to_string() });
            }
            Err(error) => return Err(error),
        }
    }
    Ok(Audit {
        rows: cube.rows(),
        missing: cube.attributes().iter().map(|a| missing(cube, a)).collect::<Result<_, _>>()?,
        groupings,
        coverage: coverage(cube, &config.coverage)?,
        associations: associations(cube, seed)?,
        parity: label.map(|label| parities(cube, label)).transpose()?.unwrap_or_default(),
        reversals: reversals(cube)?,
        images: None,
        left_out,
    })
}

/// How many groups a grouping has.
fn groups_of(cube: &Cube, attributes: &[String]) -> Result<u64, AuditError> {
    let mut groups = 1u64;
    for attribute in attributes {
        groups = groups.saturating_mul(cube.values(attribute)?.len() as u64);
    }
    Ok(groups)
}

/// Each attribute, each pair, and all together.
pub(crate) fn default_groupings(attributes: &[String]) -> Vec<Vec<String>> {
    let mut groupings: Vec<Vec<String>> = attributes.iter().map(|a| vec![a.clone()]).collect();
    groupings.extend(pairs(attributes).map(|(a, b)| vec![a.clone(), b.clone()]));
    if attributes.len() > 2 {
        groupings.push(attributes.to_vec());
    }
    groupings
}

fn pairs(attributes: &[String]) -> impl Iterator<Item = (&String, &String)> {
    attributes.iter().enumerate().flat_map(|(i, a)| attributes.iter().skip(i + 1).map(move |b| (a, b)))
}

fn missing(cube: &Cube, attribute: &str) -> Result<MissingCount, AuditError> {
    Ok(MissingCount { attribute: attribute.to_owned(), count: cube.count_of(attribute, MISSING)? })
}

/// Some values in one text, the first ten by name.
fn list(values: &[String]) -> String {
    let mut text = values.iter().take(10).map(|value| format!("`{value}`")).collect::<Vec<_>>().join(", ");
    if values.len() > 10 {
        text.push_str(&format!(" and {} more", values.len() - 10));
    }
    text
}
