//! Verifier: the gates, trained and calibrated on real training images only.

use std::path::{Path, PathBuf};

use evenset_core::{Fingerprint, Seed};
use evenset_data::Dataset;
use evenset_verify::{GateConfig, RealImages, Verifier};

use super::model::vocabulary;
use super::scan::{Row, Scan};
use crate::error::Result;
use crate::images::{self, Frame};
use crate::job::Role;
use crate::run::{Context, Done, Stage, StageReport, fingerprint};

/// Trains the gates.
pub struct VerifierStage<'a> {
    /// The gates in order.
    pub gates: &'a [GateConfig],
    /// The files outside the job that the gates read, each with its SHA-256 (see [`outside`]).
    pub outside: Vec<(PathBuf, String)>,
    /// The job's seed.
    pub seed: Seed,
    /// The images.
    pub dataset: &'a Dataset,
    /// The scanned rows.
    pub scan: &'a Done<Scan>,
    /// The size that images are looked at.
    pub frame: Frame,
    /// The attributes that requests fix.
    pub grouping: &'a [String],
}

impl Stage for VerifierStage<'_> {
    type Output = Verifier;

    fn name(&self) -> String {
        "verifier".into()
    }

    fn fingerprint(&self) -> Fingerprint {
        let config = (self.gates, &self.outside, self.seed, self.frame, self.grouping);
        fingerprint("verifier", &config, &[&self.scan.fingerprint])
    }

    fn run(&self, folder: &Path, context: &Context<'_>) -> Result<StageReport> {
        let rows: Vec<&Row> = self.scan.output.role(Role::Train).collect();
        let real = real_images(self.dataset, &self.scan.output, &rows, self.frame, self.grouping)?;
        let seed = self.seed.derive("verifier");
        Verifier::train(&real, self.gates, seed, Some(folder), context.progress)?;
        Ok(StageReport { rows: rows.len() as u64, rejected: 0 })
    }

    fn load(&self, folder: &Path) -> Result<Verifier> {
        Ok(Verifier::load(folder)?)
    }
}

/// The files outside the job that the gates read, each with its SHA-256: a verdict depends on them.
///
/// # Errors
/// Where one cannot be read.
pub fn outside(gates: &[GateConfig]) -> Result<Vec<(PathBuf, String)>> {
    hashed(gates.iter().flat_map(GateConfig::outside_files))
}

/// Files, each with its SHA-256.
pub(super) fn hashed(files: impl Iterator<Item = PathBuf>) -> Result<Vec<(PathBuf, String)>> {
    let hashed = |path: PathBuf| evenset_data::sha256_file(&path).map(|sha256| (path, sha256));
    Ok(files.map(hashed).collect::<std::result::Result<_, _>>()?)
}

/// Whether the gates can be used on the scanned training rows, before anything is trained.
///
/// # Errors
/// What [`Verifier::preflight`] says.
pub fn preflight(gates: &[GateConfig], scan: &Scan, grouping: &[String]) -> Result<()> {
    let rows: Vec<&Row> = scan.role(Role::Train).collect();
    Ok(Verifier::preflight(gates, &attributes(scan, &rows, grouping))?)
}

/// The attributes that requests fix, each with its values in these rows.
fn attributes(scan: &Scan, rows: &[&Row], grouping: &[String]) -> Vec<(String, Vec<String>)> {
    let known = grouping.iter().filter_map(|name| Some((name.clone(), vocabulary(rows, scan.column(name)?))));
    known.collect()
}

/// Images and attribute values of real rows, as classifiers take them.
pub(crate) fn real_images(
    dataset: &Dataset,
    scan: &Scan,
    rows: &[&Row],
    frame: Frame,
    grouping: &[String],
) -> Result<RealImages> {
    let columns: Vec<usize> = grouping.iter().filter_map(|name| scan.column(name)).collect();
    let attributes = attributes(scan, rows, grouping);
    let labels = rows
        .iter()
        .map(|row| {
            let code = |(&column, (_, values)): (&usize, &(String, Vec<String>))| {
                row.values[column].as_ref().and_then(|value| values.iter().position(|v| v == value)).map(|i| i as u32)
            };
            columns.iter().zip(&attributes).map(code).collect()
        })
        .collect();
    let images = frame.image_set(images::load(dataset, rows, frame)?)?;
    Ok(RealImages { images, attributes, labels })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_script_that_changes_changes_what_the_gates_were_made_from() {
        let folder = tempfile::tempdir().unwrap();
        let script = folder.path().join("judge.py");
        let gate = serde_json::json!([{"type": "command", "run": ["python3", script, "--strict"]}]);
        let gates: Vec<GateConfig> = serde_json::from_value(gate).unwrap();
        assert!(outside(&gates).unwrap().is_empty(), "what is not there is said when it is started");
        std::fs::write(&script, "keep all").unwrap();
        let first = outside(&gates).unwrap();
        assert_eq!((first.len(), &first[0].0), (1, &script));
        std::fs::write(&script, "drop all").unwrap();
        let second = outside(&gates).unwrap();
        assert_ne!(first, second);
    }
}
