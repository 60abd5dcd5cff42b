//! The run folder: one execution of a job, which resumes.
//!
//! ```text
//! runs/fashion/
//!   job.yaml                     the resolved job
//!   scan-1f0c3a…/                one folder a stage, named by its fingerprint
//!     units/00000.parquet, .json a unit and its manifest
//!     manifest.json              written last: the stage is done
//!   classifiers/                 what each training of the evidence gave, named by what it saw
//!   hosted/, spent.json          of a hosted model: what may have been paid for, and what was spent
//! ```
//!
//! A stage whose folder is finished is skipped; another configuration has another fingerprint and so another folder, so
//! nothing is ever overwritten and going back to an earlier job finds its work still there. Fingerprints know this version,
//! not each change of its code: who changes the code starts with an empty folder.

use std::fs::{File, TryLockError};
use std::path::{Path, PathBuf};

use evenset_core::{Fingerprint, Progress};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::error::{PipelineError, Result};
use crate::job::Job;

/// The name of the file that says a stage is done.
pub const MANIFEST: &str = "manifest.json";

/// A run folder that this process holds.
#[derive(Debug)]
pub struct Run {
    /// The folder.
    pub root: PathBuf,
    _lock: File,
}

impl Run {
    /// Opens or creates the job's run folder, takes its lock, and saves the resolved job in it.
    ///
    /// # Errors
    /// [`PipelineError::Busy`] where another process holds it.
    pub fn open(job: &Job) -> Result<Self> {
        let root = job.run.clone();
        std::fs::create_dir_all(&root).map_err(PipelineError::io(&root))?;
        let path = root.join(".lock");
        let lock = File::create(&path).map_err(PipelineError::io(&path))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(PipelineError::Busy(root)),
            Err(TryLockError::Error(source)) => return Err(PipelineError::Io { path, source }),
        }
        evenset_data::atomic::write_file(&root.join("job.yaml"), job.to_yaml().as_bytes())?;
        Ok(Self { root, _lock: lock })
    }
}

/// What every stage may use.
pub struct Context<'a> {
    /// The job.
    pub job: &'a Job,
    /// Its run folder.
    pub run: &'a Run,
    /// Where progress goes and stops come from.
    pub progress: &'a dyn Progress,
    /// Whether an output that another job made may be replaced.
    pub overwrite: bool,
}

/// One stage: built from its part of the job and from what it reads, so that it knows its fingerprint before any work.
pub trait Stage {
    /// What the stages after it read.
    type Output;

    /// Its name in the run folder: `scan`, `generate-2`.
    fn name(&self) -> String;

    /// Its own configuration, the fingerprints of what it reads, and hashes of outside inputs.
    fn fingerprint(&self) -> Fingerprint;

    /// Whether what a finished stage put outside its folder is still there.
    fn intact(&self, _folder: &Path) -> bool {
        true
    }

    /// Does the work into `folder`, which may hold what an interrupted run left there.
    fn run(&self, folder: &Path, context: &Context<'_>) -> Result<StageReport>;

    /// Reads a finished folder.
    fn load(&self, folder: &Path) -> Result<Self::Output>;
}

/// What a stage did; parts add up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct StageReport {
    /// Rows (images, requests, candidates) that came out.
    pub rows: u64,
    /// Rows that were dropped, with their reasons on disk.
    pub rejected: u64,
}

impl std::ops::Add for StageReport {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self { rows: self.rows + other.rows, rejected: self.rejected + other.rejected }
    }
}

impl std::iter::Sum for StageReport {
    fn sum<I: Iterator<Item = Self>>(reports: I) -> Self {
        reports.fold(Self::default(), |a, b| a + b)
    }
}

/// The file that says a stage is done. It holds no clock, so that two runs give the same bytes.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Manifest {
    /// The stage's name.
    pub stage: String,
    /// Its fingerprint.
    pub fingerprint: Fingerprint,
    /// The version that did it.
    pub evenset: String,
    /// What it did.
    pub report: StageReport,
}

/// A finished stage.
#[derive(Debug)]
pub struct Done<T> {
    /// What it gives.
    pub output: T,
    /// Its folder.
    pub folder: PathBuf,
    /// Its fingerprint, for the stages that read it.
    pub fingerprint: Fingerprint,
    /// What it did.
    pub report: StageReport,
}

impl Context<'_> {
    /// The folder of a stage in this run.
    pub fn folder<S: Stage>(&self, stage: &S) -> PathBuf {
        self.run.root.join(format!("{}-{}", stage.name(), stage.fingerprint().short()))
    }

    /// Whether a stage is finished.
    pub fn finished<S: Stage>(&self, stage: &S) -> Result<bool> {
        let folder = self.folder(stage);
        let manifest = read_json::<Manifest>(&folder.join(MANIFEST))?;
        Ok(manifest.is_some_and(|manifest| manifest.fingerprint == stage.fingerprint()) && stage.intact(&folder))
    }

    /// Finishes a stage, or finds that it is finished, and reads what it gives.
    pub fn complete<S: Stage>(&self, stage: &S) -> Result<Done<S::Output>> {
        let (name, fingerprint, folder) = (stage.name(), stage.fingerprint(), self.folder(stage));
        let path = folder.join(MANIFEST);
        let manifest = match read_json::<Manifest>(&path)? {
            Some(manifest) if manifest.fingerprint == fingerprint && stage.intact(&folder) => {
                tracing::info!(stage = name, folder = %folder.display(), "done already");
                manifest
            }
            _ => {
                let _span = tracing::info_span!("stage", name).entered();
                self.progress.check()?;
                std::fs::create_dir_all(&folder).map_err(PipelineError::io(&folder))?;
                let start = std::time::Instant::now();
                let report = stage.run(&folder, self)?;
                let manifest = Manifest {
                    stage: name.clone(),
                    fingerprint: fingerprint.clone(),
                    evenset: crate::VERSION.into(),
                    report,
                };
                write_json(&path, &manifest)?;
                let seconds = start.elapsed().as_secs_f64();
                tracing::info!(stage = name, rows = report.rows, rejected = report.rejected, seconds, "done");
                manifest
            }
        };
        Ok(Done { output: stage.load(&folder)?, folder, fingerprint, report: manifest.report })
    }
}

/// Reads a JSON file of the run; `None` where there is none.
pub(crate) fn read_json<T: DeserializeOwned>(path: &Path) -> Result<Option<T>> {
    let text = match std::fs::read(path) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(source) => return Err(PipelineError::Io { path: path.to_owned(), source }),
    };
    serde_json::from_slice(&text).map(Some).map_err(PipelineError::damaged(path))
}

/// Reads a JSON file that a finished stage must have.
pub(crate) fn read_json_of<T: DeserializeOwned>(path: &Path) -> Result<T> {
    read_json(path)?.ok_or_else(|| PipelineError::damaged(path)("it is missing"))
}

/// Removes a file of the run, where it is there: what it says must not outlive what it speaks of.
pub(crate) fn remove(path: &Path) -> Result<()> {
    match std::fs::remove_file(path) {
        Err(source) if source.kind() != std::io::ErrorKind::NotFound => {
            Err(PipelineError::Io { path: path.to_owned(), source })
        }
        _ => Ok(()),
    }
}

/// Writes a JSON file of the run, whole or not at all.
pub(crate) fn write_json<T: Serialize>(path: &Path, value: &T) -> Result<()> {
    let mut text = serde_json::to_vec_pretty(value).map_err(PipelineError::damaged(path))?;
    text.push(b'\n');
    Ok(evenset_data::atomic::write_file(path, &text)?)
}

/// The fingerprint of a stage: its name, this version, its configuration, and what it reads.
pub(crate) fn fingerprint<C: Serialize>(stage: &str, configuration: &C, reads: &[&Fingerprint]) -> Fingerprint {
    // A configuration is plain data; one that did not serialise would only share a folder with itself.
    let configuration = serde_json::to_vec(configuration).unwrap_or_default();
    let fixed = [("stage", stage.as_bytes()), ("evenset", crate::VERSION.as_bytes()), ("job", &configuration)];
    Fingerprint::of(fixed.into_iter().chain(reads.iter().map(|read| ("reads", read.as_str().as_bytes()))))
}
