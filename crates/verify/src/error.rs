//! What can go wrong when candidates are verified.

use std::path::PathBuf;

/// Why a verifier could not be trained, loaded or asked.
#[derive(Debug, thiserror::Error)]
pub enum VerifyError {
    /// There are too few real images to learn from and to keep some apart.
    #[error("{0} real images are too few to train a verifier; it needs at least {min}", min = crate::real::SMALLEST)]
    TooFew(usize),
    /// No attribute is known, or not for every row.
    #[error(
        "{images} real images come with {labels} values of `{attribute}`; every image needs one, if only a missing one"
    )]
    Rows {
        /// Number of images.
        images: usize,
        /// Number of values.
        labels: usize,
        /// The attribute.
        attribute: String,
    },
    /// There is no attribute to recognise.
    #[error("the real images have no attribute; name the label and the attributes in the job's `dataset`")]
    NoAttributes,
    /// A candidate was asked for with an attribute that no real image has.
    #[error(
        "candidate {request} was asked for with attribute `{attribute}`, which the real images do not have; name it in the job's `dataset`"
    )]
    UnknownAttribute {
        /// The candidate's request.
        request: usize,
        /// The attribute.
        attribute: String,
    },
    /// The same gate stands twice.
    #[error("the gate `{0}` stands twice; name each gate once")]
    Repeated(&'static str),
    /// A setting of a gate is impossible.
    #[error("the gate `{gate}` has {key} {value}; {expected}")]
    Setting {
        /// The gate.
        gate: &'static str,
        /// The key.
        key: &'static str,
        /// What was written.
        value: f64,
        /// What would be possible.
        expected: &'static str,
    },
    /// A file of a trained verifier cannot be read or written.
    #[error("{}: {source}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// A file of a trained verifier is damaged.
    #[error("{}: not part of a trained verifier ({reason}); delete the folder and run again", path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// A recogniser's model cannot be used.
    #[error("{}: {reason}", path.display())]
    Model {
        /// The file or folder.
        path: PathBuf,
        /// What is wrong with it, and what to do about it.
        reason: String,
    },
    /// A recogniser of type `trained` was to be opened.
    #[error("a recogniser of type `trained` is trained on the job's real images and not opened from a file")]
    Untrained,
    /// The gate `safety` has no model, or two.
    #[error("the gate `safety` needs one model: write `model` (a folder) or `onnx` (a classifier), one of the two")]
    SafetyModel,
    /// Recognisers cannot be asked together.
    #[error("recognisers of `{attribute}`: {reason}")]
    Vote {
        /// The attribute.
        attribute: String,
        /// What is wrong.
        reason: String,
    },
    /// The classifier failed.
    #[error(transparent)]
    Classifier(#[from] evenset_nn::Error),
    /// A tensor operation failed.
    #[error(transparent)]
    Tensor(#[from] candle_core::Error),
    /// An end was asked for.
    #[error(transparent)]
    Interrupted(#[from] evenset_core::Interrupted),
}
