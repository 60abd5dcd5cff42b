//! What a run folder holds, read from outside: works while the run goes on.

use std::path::Path;

use serde::Serialize;

use crate::error::{PipelineError, Result};
use crate::run::{MANIFEST, Manifest, StageReport, read_json};

/// The order in which stages run.
const ORDER: [&str; 14] = [
    "scan", "looks", "audit", "plan", "model", "verifier", "generate", "verify", "checks", "write", "evidence",
    "held-out", "hook", "report",
];

/// One stage of a run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct StageStatus {
    /// Its name: `scan`, `generate-2`.
    pub stage: String,
    /// Its folder in the run.
    pub folder: String,
    /// Whether its manifest is there.
    pub done: bool,
    /// Units that are done, for a stage that has units.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub units: Option<usize>,
    /// What it did, once it is done.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub report: Option<StageReport>,
}

/// The stages of the run in `root`, in their order.
///
/// # Errors
/// Where `root` is no run folder or cannot be read.
pub fn status(root: &Path) -> Result<Vec<StageStatus>> {
    if !root.join("job.yaml").is_file() {
        let not_a_run = std::io::Error::new(std::io::ErrorKind::NotFound, "not a run folder (it has no job.yaml)");
        return Err(PipelineError::Io { path: root.to_owned(), source: not_a_run });
    }
    let mut stages = Vec::new();
    for entry in std::fs::read_dir(root).map_err(PipelineError::io(root))? {
        let entry = entry.map_err(PipelineError::io(root))?;
        let folder = entry.file_name().to_string_lossy().into_owned();
        let Some((stage, _)) = folder.rsplit_once('-') else { continue };
        let Some(place) = place(stage) else { continue };
        let manifest: Option<Manifest> = read_json(&entry.path().join(MANIFEST))?;
        let units = std::fs::read_dir(entry.path().join("units")).ok().map(|units| {
            units.flatten().filter(|unit| unit.path().extension().is_some_and(|extension| extension == "json")).count()
        });
        let status = StageStatus {
            stage: stage.to_owned(),
            done: manifest.is_some(),
            units,
            report: manifest.map(|manifest| manifest.report),
            folder,
        };
        stages.push((place, status));
    }
    stages.sort_by(|(a, left), (b, right)| a.cmp(b).then_with(|| left.folder.cmp(&right.folder)));
    Ok(stages.into_iter().map(|(_, status)| status).collect())
}

/// Where a stage stands in the run: rounds alternate between generate and verify.
fn place(stage: &str) -> Option<(usize, u32, usize)> {
    let (name, round) = match stage.rsplit_once('-') {
        Some((name, round)) => (name, round.parse().ok()?),
        None => (stage, 0),
    };
    let place = ORDER.iter().position(|known| *known == name)?;
    let rounds = matches!(name, "generate" | "verify");
    Some(if rounds { (5, round, place) } else { (place, 0, place) })
}
