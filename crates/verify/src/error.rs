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
    #[error(
        "the gate `{0}` stands twice; name each gate once, or give the programs of `command` gates different names"
    )]
    Repeated(String),
    /// A setting of a gate is impossible.
    #[error("the gate `{gate}` has {key} {value}; {expected}")]
    Setting {
        /// The gate.
        gate: String,
        /// The key.
        key: &'static str,
        /// What was written.
        value: f64,
        /// What would be possible.
        expected: &'static str,
    },
    /// The gate `attributes` is to check what is no attribute.
    #[error(
        "the gate `attributes` has `only` {name}, and images are asked for by {known}; name those that it should check"
    )]
    Only {
        /// The name.
        name: String,
        /// The attributes that requests fix, the label first.
        known: String,
    },
    /// A command gate names no program.
    #[error("the gate `{0}` has an empty `run`; write the program and its arguments: `run: [program, argument]`")]
    NoProgram(String),
    /// A command gate has the name of another kind of gate, or one that does not fit into a file.
    #[error(
        "a command gate cannot be called `{0}`; give it a `name` of at most 64 letters, digits, `-`, `_` and `.` that no other kind of gate has"
    )]
    GateName(String),
    /// The program of a command gate could not be started, whatever `on_error` says.
    #[error(
        "the program `{program}` of the gate `{gate}` cannot be started ({why}); install it, or write its path into the \
         gate's `run`"
    )]
    CannotStart {
        /// The gate.
        gate: String,
        /// The program and its arguments.
        program: String,
        /// What stands in the way.
        why: String,
    },
    /// The program of a command gate took too long, failed, or gave an answer that is none.
    #[error(
        "the program `{program}` of the gate `{gate}` {what}; mend it, or say with `on_error: keep` or `on_error: drop` what becomes of the images{printed}"
    )]
    Program {
        /// The gate.
        gate: String,
        /// The program and its arguments.
        program: String,
        /// What it did and what was expected.
        what: String,
        /// The end of what it wrote to standard error, on lines of its own; may be empty.
        printed: String,
    },
    /// A folder for the images that a program reads cannot be written.
    #[error("{}: {source}; the gate `command` writes images there for the program to read", path.display())]
    Temporary {
        /// The folder.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
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
