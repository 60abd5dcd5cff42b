//! What can be wrong with a job file. Every variant ends a run before any work, with exit code 2.

use std::path::PathBuf;

use super::tree::Position;

/// A job that cannot be run, with the place and the remedy.
#[derive(Debug, thiserror::Error)]
pub enum JobError {
    /// The file cannot be opened or is not text.
    #[error("cannot read job file `{}`: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The file is far too large for a job.
    #[error("`{}` has {bytes} bytes; a job file has at most {most}. Is it the right file?", path.display())]
    TooLarge {
        /// The file.
        path: PathBuf,
        /// Its size.
        bytes: u64,
        /// The cap.
        most: u64,
    },
    /// The text is not YAML.
    #[error("{at}: {message}")]
    Yaml {
        /// Where.
        at: Position,
        /// What the parser says.
        message: String,
    },
    /// A key is unknown, or a value has the wrong type or an impossible value.
    #[error("{at}: `{path}`: {message}")]
    Invalid {
        /// Where.
        at: Position,
        /// The key's path, for example `plan.target.of`.
        path: String,
        /// What was found and what was expected.
        message: String,
    },
    /// A `--set` flag cannot be read.
    #[error("--set {assignment}: {why}")]
    Set {
        /// The flag as given.
        assignment: String,
        /// What is wrong.
        why: String,
    },
}
