//! The distribution that the data is held against.

use std::collections::BTreeMap;

use evenset_core::MISSING;

use crate::audit::list;
use crate::cube::Tally;
use crate::{AuditError, Cube};

/// The distribution that the data is held against.
#[derive(Clone, Debug)]
pub enum Reference {
    /// Shares of single attributes.
    Shares(BTreeMap<String, BTreeMap<String, f64>>),
    /// Counts of a population, such as a census; taken as known without error.
    Population {
        /// How it is called in results.
        name: String,
        /// The counts.
        cube: Cube,
    },
}

impl Reference {
    /// How it is called in results.
    pub fn name(&self) -> &str {
        match self {
            Self::Shares(_) => "the given shares",
            Self::Population { name, .. } => name,
        }
    }

    /// The attributes that it knows.
    pub fn attributes(&self) -> Vec<&str> {
        match self {
            Self::Shares(shares) => shares.keys().map(String::as_str).collect(),
            Self::Population { cube, .. } => cube.attributes().iter().map(String::as_str).collect(),
        }
    }

    /// Makes the values that the reference gives a share known to a cube, so that those without a row are listed.
    ///
    /// # Errors
    /// [`AuditError::Reference`] where the data has a value to which the reference gives no share, or they share none.
    pub fn declare(&self, cube: &mut Cube) -> Result<(), AuditError> {
        let attributes: Vec<String> = cube.attributes().to_vec();
        for attribute in attributes.iter().filter(|attribute| self.attributes().contains(&attribute.as_str())) {
            let expected: Vec<String> = match self {
                Self::Shares(shares) => shares.get(attribute).into_iter().flatten().map(|(v, _)| v.clone()).collect(),
                Self::Population { cube, .. } => cube.values(attribute)?.into_iter().map(str::to_owned).collect(),
            };
            let known = cube.values(attribute)?;
            let unknown: Vec<String> = known
                .iter()
                .filter(|value| **value != MISSING && !expected.iter().any(|known| known == *value))
                .map(|&value| value.to_owned())
                .collect();
            if !unknown.is_empty() {
                return Err(AuditError::Reference {
                    attribute: attribute.clone(),
                    unknown: list(&unknown),
                    known: list(&expected),
                });
            }
            for value in expected.iter().filter(|value| *value != MISSING) {
                cube.declare(attribute, value)?;
            }
        }
        Ok(())
    }

    /// The share of each group of a grouping of `cube`, in the order of its tally; `None` where the reference does not
    /// know all of the attributes. Groups with a missing value have the share 0, as nobody should be missing.
    pub(crate) fn shares(
        &self,
        cube: &Cube,
        attributes: &[String],
        tally: &Tally,
    ) -> Result<Option<Vec<f64>>, AuditError> {
        if attributes.iter().any(|attribute| !self.attributes().contains(&attribute.as_str())) {
            return Ok(None);
        }
        match self {
            Self::Shares(shares) => {
                let [attribute] = attributes else { return Ok(None) };
                let Some(shares) = shares.get(attribute) else { return Ok(None) };
                let values = cube.values(attribute)?;
                Ok(Some(values.iter().map(|value| shares.get(*value).copied().unwrap_or(0.0)).collect()))
            }
            Self::Population { cube: population, .. } => {
                let groups: BTreeMap<_, _> = population.roll_up(attributes)?.into_iter().collect();
                let listing = cube.listing(attributes)?;
                let share = |index: usize| {
                    let group = listing.group(index)?;
                    let counted = group.is_complete();
                    Ok(groups.get(&group).filter(|_| counted).map_or(0.0, |&count| count as f64))
                };
                (0..tally.counts.len()).map(share).collect::<Result<_, _>>().map(Some)
            }
        }
    }
}
