//! Verifier: the gates, trained and calibrated on real training images only.

use std::path::Path;

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
        fingerprint("verifier", &(self.gates, self.seed, self.frame, self.grouping), &[&self.scan.fingerprint])
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

/// Images and attribute values of real rows, as classifiers take them.
pub(crate) fn real_images(
    dataset: &Dataset,
    scan: &Scan,
    rows: &[&Row],
    frame: Frame,
    grouping: &[String],
) -> Result<RealImages> {
    let columns: Vec<usize> = grouping.iter().filter_map(|name| scan.column(name)).collect();
    let values: Vec<Vec<String>> = columns.iter().map(|&column| vocabulary(rows, column)).collect();
    let labels = rows
        .iter()
        .map(|row| {
            let code = |(&column, values): (&usize, &Vec<String>)| {
                row.values[column].as_ref().and_then(|value| values.iter().position(|v| v == value)).map(|i| i as u32)
            };
            columns.iter().zip(&values).map(code).collect()
        })
        .collect();
    let images = frame.image_set(images::load(dataset, rows, frame)?)?;
    Ok(RealImages { images, attributes: grouping.iter().cloned().zip(values).collect(), labels })
}
