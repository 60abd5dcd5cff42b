//! Audit: counts the training rows once; every grouping is a roll-up of those counts.

use std::path::Path;

use evenset_audit::{Audit, Cube};
use evenset_core::Fingerprint;
use evenset_data::{LabelTable, ResolvedView};

use super::looks::Looked;
use super::scan::Scan;
use crate::error::{PipelineError, Result};
use crate::job::{Job, Role};
use crate::labels;
use crate::run::{Context, Done, Stage, StageReport, fingerprint, read_json_of, write_json};

const AUDIT: &str = "audit.json";
const CUBE: &str = "cube.json";

/// Counts who is there.
pub struct AuditStage<'a> {
    /// The job.
    pub job: &'a Job,
    /// The rows.
    pub rows: Rows<'a>,
    /// What the pixels say, where images were looked at.
    pub images: Option<&'a Done<Looked>>,
    /// The fingerprint of the reference table, where the audit has one.
    pub reference: Option<Fingerprint>,
}

/// Where the rows that are counted come from.
pub enum Rows<'a> {
    /// The usable rows of a dataset with images.
    Scan(&'a Done<Scan>),
    /// A table of labels, by its fingerprint.
    Table(&'a LabelTable, &'a ResolvedView, Fingerprint),
}

/// What the audit gives.
#[derive(Debug)]
pub struct Counts {
    /// All counts of the training rows.
    pub cube: Cube,
    /// What they say.
    pub audit: Audit,
    /// The fingerprint of the counts alone: what else an audit is asked for makes no other plan.
    pub counted: Fingerprint,
}

impl Stage for AuditStage<'_> {
    type Output = Counts;

    fn name(&self) -> String {
        "audit".into()
    }

    fn fingerprint(&self) -> Fingerprint {
        let config = (&self.job.audit, &self.job.dataset.label, self.job.seed, &self.reference);
        match &self.rows {
            Rows::Scan(scan) => {
                let images = self.images.map(|images| &images.fingerprint);
                fingerprint("audit", &config, &[&scan.fingerprint].into_iter().chain(images).collect::<Vec<_>>())
            }
            Rows::Table(_, _, table) => {
                let dataset = &self.job.dataset;
                let what = (config, self.job.view(), &dataset.count, &dataset.missing, &dataset.splits);
                fingerprint("audit", &what, &[table])
            }
        }
    }

    fn run(&self, folder: &Path, context: &Context<'_>) -> Result<StageReport> {
        let cube = match &self.rows {
            Rows::Scan(scan) => count_scan(&scan.output)?,
            Rows::Table(table, view, _) => {
                labels::count(table, view, self.job.dataset.count.is_some(), context.progress)?
            }
        };
        let reference = labels::reference(&self.job.audit, cube.attributes(), context.progress)?;
        let label = self.job.dataset.label.as_deref();
        let mut audit = evenset_audit::audit(&cube, &self.job.audit, label, reference.as_ref(), self.job.seed)?;
        audit.images = self.images.map(|images| images.output.report.clone());
        write_json(&folder.join(AUDIT), &audit)?;
        write_json(&folder.join(CUBE), &cube)?;
        Ok(StageReport { rows: cube.rows(), rejected: 0 })
    }

    fn load(&self, folder: &Path) -> Result<Counts> {
        let path = folder.join(CUBE);
        let cube = std::fs::read(&path).map_err(PipelineError::io(&path))?;
        Ok(Counts {
            counted: Fingerprint::of([("cube", cube.as_slice())]),
            cube: serde_json::from_slice(&cube).map_err(PipelineError::damaged(&path))?,
            audit: read_json_of(&folder.join(AUDIT))?,
        })
    }
}

fn count_scan(scan: &Scan) -> Result<Cube> {
    let mut cube = Cube::new(scan.columns.clone())?;
    for row in scan.role(Role::Train) {
        let values: Vec<Option<&str>> = row.values.iter().map(Option::as_deref).collect();
        cube.add(&values)?;
    }
    Ok(cube)
}
