//! The keys of a job that make sense for a table of labels which no job file speaks of.

use std::collections::BTreeMap;

use evenset_audit::AuditConfig;
use evenset_data::{Derive, Filter};
use serde::Deserialize;

use super::JobError;
use super::resolved::deserialise;
use super::tree::Node;

/// What `--set` may say of a table on its own: the same keys as in a job file.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct TableJob {
    /// Seed of what is drawn at random.
    pub seed: u64,
    /// Attributes made from columns.
    pub derive: BTreeMap<String, Derive>,
    /// Which rows.
    #[serde(rename = "where")]
    pub filters: Vec<Filter>,
    /// What is looked at.
    pub audit: AuditConfig,
}

impl TableJob {
    /// Reads assignments such as `audit.intervals=goodman`.
    ///
    /// # Errors
    /// [`JobError`], naming the assignment and what was expected.
    pub fn read(set: &[String]) -> Result<Self, JobError> {
        let mut tree = Node::empty();
        for assignment in set {
            tree.set(assignment)?;
        }
        deserialise(&tree)
    }
}
