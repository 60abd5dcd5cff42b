//! Audit: counts the training rows once; every grouping is a roll-up of those counts.

use std::path::Path;

use evenset_audit::{Audit, AuditConfig, Cube};
use evenset_core::Fingerprint;

use super::scan::Scan;
use crate::error::Result;
use crate::job::Role;
use crate::run::{Context, Done, Stage, StageReport, fingerprint, read_json_of, write_json};

const AUDIT: &str = "audit.json";
const CUBE: &str = "cube.json";

/// Counts who is there.
pub struct AuditStage<'a> {
    /// The part of the job that it follows.
    pub config: &'a AuditConfig,
    /// The scanned rows.
    pub scan: &'a Done<Scan>,
}

/// What the audit gives.
#[derive(Debug)]
pub struct Counts {
    /// All counts of the training rows.
    pub cube: Cube,
    /// What they say.
    pub audit: Audit,
}

impl Stage for AuditStage<'_> {
    type Output = Counts;

    fn name(&self) -> String {
        "audit".into()
    }

    fn fingerprint(&self) -> Fingerprint {
        fingerprint("audit", self.config, &[&self.scan.fingerprint])
    }

    fn run(&self, folder: &Path, _context: &Context<'_>) -> Result<StageReport> {
        let scan = &self.scan.output;
        let mut cube = Cube::new(scan.columns.clone())?;
        for row in scan.role(Role::Train) {
            let values: Vec<Option<&str>> = row.values.iter().map(Option::as_deref).collect();
            cube.add(&values)?;
        }
        write_json(&folder.join(AUDIT), &evenset_audit::audit(&cube, self.config)?)?;
        write_json(&folder.join(CUBE), &cube)?;
        Ok(StageReport { rows: cube.rows(), rejected: 0 })
    }

    fn load(&self, folder: &Path) -> Result<Counts> {
        Ok(Counts { cube: read_json_of(&folder.join(CUBE))?, audit: read_json_of(&folder.join(AUDIT))? })
    }
}
