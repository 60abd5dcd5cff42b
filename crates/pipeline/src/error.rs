//! What can end a run, each with the thing and the remedy.

use std::path::{Path, PathBuf};

use crate::job::JobError;
use crate::stages::hook::HookFailure;

/// Why a run ended early. What was finished is on disk; the same command goes on from there.
#[derive(Debug, thiserror::Error)]
pub enum PipelineError {
    /// The job file, or a value in it that the data contradicts.
    #[error(transparent)]
    Job(#[from] JobError),
    /// Reading or writing a dataset.
    #[error(transparent)]
    Data(#[from] evenset_data::DataError),
    /// Counting.
    #[error("audit: {0}")]
    Audit(#[from] evenset_audit::AuditError),
    /// Planning.
    #[error("plan: {0}")]
    Plan(#[from] evenset_plan::PlanError),
    /// Training the generator or drawing from it.
    #[error("generate: {0}")]
    Diffusion(#[source] Box<evenset_diffusion::DiffusionError>),
    /// Handing images to a network.
    #[error(transparent)]
    Network(#[from] evenset_nn::Error),
    /// Training the verifier or asking its gates.
    #[error("verify: {0}")]
    Verify(#[from] evenset_verify::VerifyError),
    /// Training the downstream classifiers.
    #[error("evidence: {0}")]
    Evidence(#[from] evenset_evidence::Error),
    /// Drawing the report page.
    #[error("report: {0}")]
    Report(#[from] evenset_report::ReportError),
    /// The job's prompts do not fit its groups.
    #[error("plan.prompts: {0}")]
    Prompts(#[from] evenset_plan::PromptError),
    /// No column of a table looks like an attribute.
    #[error("{path}: no column looks like an attribute; name the columns to count by with `--by` ({left_out})")]
    NoAttributes {
        /// The table.
        path: String,
        /// Its columns, each with the reason.
        left_out: String,
    },
    /// A count is no whole number.
    #[error("the column of counts `{column}` holds `{value}`; each row needs a whole number, 0 or more")]
    Count {
        /// The column.
        column: String,
        /// What it holds.
        value: String,
    },
    /// A reference table has none of the attributes.
    #[error("the reference `{}` has none of the attributes as a column; it has {columns}", path.display())]
    NoReference {
        /// The table.
        path: PathBuf,
        /// Its columns.
        columns: String,
    },
    /// An attribute has the name of a column that a table of groups has anyway.
    #[error(
        "`{0}` is a column of every table of groups; give the attribute another name with `derive` to write it with `--parquet`"
    )]
    Reserved(String),
    /// A table of reference shares has shares and not counts.
    #[error(
        "`{}` has a column `share`; a target's file needs counts, in a column `count` (or one line for each). Write shares \
         into the job itself (`shares:`), or multiply them to whole numbers",
        .0.display()
    )]
    ShareColumn(PathBuf),
    /// A table of labels is asked for something that needs images.
    #[error("`{}` is a table of labels without images: `audit` and `plan` work on it, everything else needs the images", .0.display())]
    NoImages(PathBuf),
    /// The gates reject some group far more than the others, and the job says that this ends it.
    #[error("{0}; write `verify.on_bias: warn` to go on all the same, or loosen the gate")]
    BiasedGates(String),
    /// The file system refused.
    #[error("{}: {source}{}", path.display(), remedy(source))]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// A file of the run is not what was written.
    #[error("`{}` is damaged ({why}); remove the folder it is in and run the same command again", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// A run that is not finished, or a folder that is no run.
    #[error(
        "`{}` has no report yet; `evenset report JOB` finishes the job and makes it, and `evenset status` says how far the \
         run is",
        .0.display()
    )]
    NoReport(PathBuf),
    /// The dataset is not what the scan saw.
    #[error("the dataset changed while it was read: {0}; run the same command again to scan it anew")]
    Changed(String),
    /// Another process works in the run folder.
    #[error("another evenset is running in `{}`; wait for it, or give this job another `run:` folder", .0.display())]
    Busy(PathBuf),
    /// There is an output already that this job did not make.
    #[error(
        "`{}` exists and was not made by this job as it stands; choose another `write.out`, or run again with \
         --overwrite to replace it",
        .0.display()
    )]
    OutputExists(PathBuf),
    /// A row is broken and the job says `on_error: fail`.
    #[error("{file}: {reason} (the job says `on_error: fail`; with `reject` the row is left out and the run goes on)")]
    BrokenRow {
        /// The file, or the Parquet file and row.
        file: String,
        /// Why.
        reason: String,
    },
    /// A picture that the user names is no image.
    #[error("{}: {why}; name a whole PNG, JPEG or WebP file", path.display())]
    Picture {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// No training row is usable.
    #[error("no usable training row in `{}`: {rows} rows were read, {rejected} rejected ({reason})", path.display())]
    NoRows {
        /// The dataset.
        path: PathBuf,
        /// Rows read.
        rows: u64,
        /// Rows rejected.
        rejected: u64,
        /// The most frequent reason.
        reason: String,
    },
    /// The user's trainer failed.
    #[error("{0}")]
    Hook(HookFailure),
    /// The system gives no more threads.
    #[error("no threads to train with: {0}; end other programs, or set RAYON_NUM_THREADS to fewer")]
    Threads(String),
    /// The user asked for an end.
    #[error(transparent)]
    Interrupted(#[from] evenset_core::Interrupted),
}

/// A result of this room.
pub type Result<T, E = PipelineError> = std::result::Result<T, E>;

impl From<evenset_diffusion::DiffusionError> for PipelineError {
    fn from(error: evenset_diffusion::DiffusionError) -> Self {
        Self::Diffusion(Box::new(error))
    }
}

impl PipelineError {
    /// Whether the user asked for the end.
    pub fn interrupted(&self) -> bool {
        use evenset_diffusion::DiffusionError;
        use evenset_evidence::Error as EvidenceError;
        use evenset_nn::Error as NetworkError;
        use evenset_verify::VerifyError;
        if let Self::Diffusion(error) = self {
            return matches!(**error, DiffusionError::Interrupted(_));
        }
        matches!(
            self,
            Self::Interrupted(_)
                | Self::Network(NetworkError::Interrupted(_))
                | Self::Verify(VerifyError::Interrupted(_) | VerifyError::Classifier(NetworkError::Interrupted(_)))
                | Self::Evidence(EvidenceError::Classifier(NetworkError::Interrupted(_)))
        )
    }

    /// Whether the job or the command line is wrong, and not the machine or the data's bytes.
    pub fn is_usage(&self) -> bool {
        use evenset_data::DataError as Data;
        use evenset_verify::VerifyError as Verify;
        match self {
            Self::Job(_)
            | Self::OutputExists(_)
            | Self::NoReport(_)
            | Self::Audit(_)
            | Self::Plan(_)
            | Self::Prompts(_) => true,
            Self::NoAttributes { .. }
            | Self::Count { .. }
            | Self::NoReference { .. }
            | Self::NoImages(_)
            | Self::ShareColumn(_)
            | Self::Reserved(_) => true,
            Self::Diffusion(error) => matches!(**error, evenset_diffusion::DiffusionError::Setting { .. }),
            // What the job says of its gates does not fit the machine or the data.
            Self::Verify(error) => matches!(error, Verify::Model { .. } | Verify::CannotStart { .. }),
            Self::Data(error) => matches!(
                error,
                Data::NotFound { .. }
                    | Data::NoTable { .. }
                    | Data::NoSuchColumn { .. }
                    | Data::NotAnAttribute { .. }
                    | Data::Derive { .. }
                    | Data::Filter(_)
                    | Data::NoSplit { .. }
                    | Data::NoSuchRole { .. }
            ),
            _ => false,
        }
    }

    /// A row's image is not the one that was scanned.
    pub(crate) fn other_image(unit: usize, row: usize) -> Self {
        Self::Changed(format!("the image in row {row} of unit {unit} is not the one that was scanned"))
    }

    /// For `map_err`: an I/O error at `path`.
    pub(crate) fn io(path: &Path) -> impl FnOnce(std::io::Error) -> Self + '_ {
        move |source| Self::Io { path: path.to_owned(), source }
    }

    /// For `map_err`: a file of the run that cannot be read back.
    pub(crate) fn damaged<E: std::fmt::Display>(path: &Path) -> impl FnOnce(E) -> Self + '_ {
        move |why| Self::Damaged { path: path.to_owned(), why: why.to_string() }
    }
}

fn remedy(error: &std::io::Error) -> &'static str {
    match error.kind() {
        std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded => {
            " (the disk is full; nothing that was finished is lost: free some space and run the same command again)"
        }
        std::io::ErrorKind::PermissionDenied => " (check who owns the folder)",
        _ => "",
    }
}
