//! Units: the smallest piece of a map stage that is retried as a whole.
//!
//! A unit's output is one Parquet file and one manifest, written last. Units that have a manifest are skipped, so a
//! killed stage loses at most the unit in flight.

use std::path::{Path, PathBuf};

use arrow_array::RecordBatch;
use evenset_core::Fingerprint;
use serde::{Deserialize, Serialize};

use crate::error::{PipelineError, Result};
use crate::run::{Context, StageReport, read_json, remove, write_json};

/// The manifest of a unit.
#[derive(Debug, Serialize, Deserialize)]
struct UnitManifest {
    /// What the unit was made from.
    fingerprint: Fingerprint,
    /// SHA-256 of the Parquet file.
    sha256: String,
    /// What the unit did.
    report: StageReport,
}

fn paths(folder: &Path, index: usize) -> (PathBuf, PathBuf) {
    let units = folder.join("units");
    (units.join(format!("{index:05}.parquet")), units.join(format!("{index:05}.json")))
}

/// Runs `work` for every unit that is not done, in order.
///
/// `units` gives each unit's fingerprint and size in rows; `work` turns a unit's index into rows and a report, and reports
/// a step of progress for each row.
pub(crate) fn map(
    folder: &Path,
    task: &str,
    units: &[(Fingerprint, u64)],
    context: &Context<'_>,
    mut work: impl FnMut(usize) -> Result<(RecordBatch, StageReport)>,
) -> Result<StageReport> {
    let units_folder = folder.join("units");
    std::fs::create_dir_all(&units_folder).map_err(PipelineError::io(&units_folder))?;
    let mut total = StageReport::default();
    context.progress.begin(task, units.iter().map(|(_, rows)| rows).sum());
    for (index, (fingerprint, rows)) in units.iter().enumerate() {
        let (parquet, manifest) = paths(folder, index);
        let done: Option<UnitManifest> = read_json(&manifest)?;
        let report = match done {
            Some(done) if done.fingerprint == *fingerprint && parquet.is_file() => {
                context.progress.advance(*rows);
                done.report
            }
            _ => {
                context.progress.check()?;
                let (batch, report) = work(index)?;
                remove(&manifest)?;
                evenset_data::write_parquet(&parquet, &batch)?;
                let sha256 = evenset_data::sha256_file(&parquet)?;
                write_json(&manifest, &UnitManifest { fingerprint: fingerprint.clone(), sha256, report })?;
                report
            }
        };
        total = total + report;
    }
    context.progress.end();
    Ok(total)
}

/// The units of a finished stage, in order, until there are `rows` rows. They may be of another size than this job's, and an
/// earlier try with smaller ones may have left more of them.
pub(crate) fn read(folder: &Path, rows: usize) -> Result<Vec<RecordBatch>> {
    let (mut batches, mut unit, mut found) = (Vec::new(), 0, 0);
    while found < rows {
        let read = read_one(folder, unit)?;
        found += read.iter().map(RecordBatch::num_rows).sum::<usize>();
        batches.extend(read);
        unit += 1;
    }
    Ok(batches)
}

/// The rows of one unit of a finished stage.
pub(crate) fn read_one(folder: &Path, index: usize) -> Result<Vec<RecordBatch>> {
    let (parquet, _) = paths(folder, index);
    Ok(evenset_data::read_parquet(&parquet)?)
}
