//! What can go wrong in this room, each with its remedy.

use std::path::{Path, PathBuf};

use evenset_core::Interrupted;

/// An error of configurations, training data, requests or model files.
#[derive(Debug, thiserror::Error)]
pub enum DiffusionError {
    /// A tensor operation failed: memory, or shapes that do not agree.
    #[error(transparent)]
    Tensor(#[from] candle_core::Error),
    /// A network, optimiser or weights file is not usable.
    #[error(transparent)]
    Network(#[from] evenset_nn::Error),
    /// A setting has an impossible value.
    #[error("`{key}`: {reason}")]
    Setting {
        /// The setting's key.
        key: &'static str,
        /// What it must be.
        reason: String,
    },
    /// A key of a `scheduler_config.json`, or its value, is none that can be computed.
    #[error("{}: `{key}`: {value} is not supported; supported: {supported}", path.display())]
    SchedulerSetting {
        /// The file.
        path: PathBuf,
        /// The key.
        key: String,
        /// The value, as JSON.
        value: String,
        /// What can stand there.
        supported: String,
    },
    /// A file is not a `scheduler_config.json`.
    #[error("{}: not a scheduler's configuration ({reason}); copy it from the model again", path.display())]
    SchedulerFile {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// The images or labels to train on do not fit together.
    #[error("training set: {0}")]
    TrainingSet(String),
    /// A request names an attribute that the model was not trained with.
    #[error("the model has no attribute `{attribute}`; it was trained with {known}")]
    UnknownAttribute {
        /// The attribute that is asked for.
        attribute: String,
        /// The model's attributes.
        known: String,
    },
    /// A request names a value that the model has never seen.
    #[error("the model has never seen `{attribute}={value}`; values of `{attribute}` are {known}")]
    UnknownValue {
        /// The attribute.
        attribute: String,
        /// The value that is asked for.
        value: String,
        /// The values that the model knows.
        known: String,
    },
    /// A file cannot be read or written.
    #[error("{}: {source}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// A file of a model or checkpoint is not what was written.
    #[error("{}: damaged ({reason}); remove this folder to train again: {}", path.display(), folder.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// The folder whose removal starts over.
        folder: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// The folder holds the training of other data, settings or another seed.
    #[error("{}: holds a model or checkpoint of other data, settings or seed; train into another folder", .0.display())]
    OtherTraining(PathBuf),
    /// The loss or gradient was infinite or not a number for many steps in a row.
    #[error(
        "training diverged: at step {step} the loss was not finite for {in_a_row} steps in a row; \
         lower `learning_rate`"
    )]
    Diverged {
        /// The last step that was tried.
        step: u64,
        /// How many in a row failed.
        in_a_row: u64,
    },
    /// A file of somebody's model is damaged, or says something that is not supported.
    #[error("{}: {reason}", path.display())]
    Model {
        /// The file or folder.
        path: PathBuf,
        /// What is wrong with it, and what to do about it.
        reason: String,
    },
    /// A model's folder lacks files.
    #[error("{}: the model is not whole, it lacks {}; {remedy}", dir.display(), missing.join(", "))]
    Incomplete {
        /// The folder.
        dir: PathBuf,
        /// The files, relative to it.
        missing: Vec<String>,
        /// Where to get them.
        remedy: String,
    },
    /// A model is not in the hub's local cache.
    #[error(
        "model `{id}` (revision `{revision}`) is not in the local cache {}; fetch it with `download: true` \
         (`--download`) or `hf download {id} --revision {revision}`, or name a folder", cache.display()
    )]
    NotInCache {
        /// The model's name, `owner/name`.
        id: String,
        /// The branch, tag or commit.
        revision: String,
        /// The cache.
        cache: PathBuf,
    },
    /// A model cannot be fetched from the hub.
    #[error("{what}: {problem}")]
    Fetch {
        /// The model, or its file.
        what: String,
        /// What stands in the way, and the remedy.
        problem: String,
    },
    /// A prompt cannot be read.
    #[error("prompt {start:?}: {reason}")]
    Prompt {
        /// How it starts.
        start: String,
        /// What is wrong with it, and what to do about it.
        reason: String,
    },
    /// An image file or a file of a run cannot be written.
    #[error(transparent)]
    Data(#[from] evenset_data::DataError),
    /// The server of a hosted model cannot be reached, turns the job away, or answers with what is not its API.
    #[error("{address}: {problem}")]
    Server {
        /// The address that was asked, without its query.
        address: String,
        /// What came, and the remedy.
        problem: String,
    },
    /// The budget of a hosted model does not pay for the next image.
    #[error(
        "budget: spent {spent} of {limit}, which does not pay for the next image; what was drawn is kept; raise \
         `budget` to go on"
    )]
    Budget {
        /// What was spent.
        spent: String,
        /// What may be.
        limit: String,
    },
    /// The environment variable that should hold a hosted model's key does not.
    #[error("environment variable `{variable}` (`key_env`): {reason}")]
    Key {
        /// The variable.
        variable: String,
        /// What is wrong with it, and the remedy.
        reason: &'static str,
    },
    /// The file that says what was spent is not one.
    #[error(
        "{}: not a count of what was spent ({reason}); write it again by the server's bill, as \
         {{\"images\": 3, \"millionths\": 120000, \"currency\": \"USD\"}}",
        path.display()
    )]
    Ledger {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// No HTTP client can be made on this machine.
    #[error("no HTTP client: {0}; where certificates are missing, install the system's (`ca-certificates`)")]
    HttpClient(String),
    /// The user asked for an end; what is finished is on disk.
    #[error(transparent)]
    Interrupted(#[from] Interrupted),
}

/// A result of this room.
pub type Result<T, E = DiffusionError> = std::result::Result<T, E>;

impl DiffusionError {
    /// Whether a model is not there, or not all of it.
    pub fn is_missing(&self) -> bool {
        matches!(self, Self::NotInCache { .. } | Self::Incomplete { .. })
    }

    /// For `map_err`: an I/O error at `path`.
    pub(crate) fn file(path: &Path) -> impl FnOnce(std::io::Error) -> Self + '_ {
        move |source| Self::File { path: path.to_owned(), source }
    }
}
