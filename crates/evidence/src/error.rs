//! What can go wrong when evidence is gathered.

use crate::Arm;

/// Why evidence could not be gathered.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A set of images and the columns beside it do not have the same number of rows.
    #[error("the {part} images number {images}, but there are {labels} labels and {groups} groups beside them")]
    Rows {
        /// `train`, `generated` or `test`.
        part: &'static str,
        /// Number of images.
        images: usize,
        /// Number of labels.
        labels: usize,
        /// Number of group indices.
        groups: usize,
    },
    /// The images of two parts differ in size.
    #[error("the {part} images are {width}x{height}, the real training images are not; bring all parts to one size")]
    Size {
        /// `generated` or `test`.
        part: &'static str,
        /// Width in pixels.
        width: usize,
        /// Height in pixels.
        height: usize,
    },
    /// A label or a group index points outside the list of names.
    #[error("row {row} of the {part} images has {what} number {index}, but only {known} are named")]
    Index {
        /// `train`, `generated` or `test`.
        part: &'static str,
        /// Row in that part.
        row: usize,
        /// `label` or `group`.
        what: &'static str,
        /// The index found.
        index: u32,
        /// How many names there are.
        known: usize,
    },
    /// There is nothing to train on, or nothing to test on.
    #[error("the {0} part has no images; evidence needs real training images and real test images with labels")]
    Empty(&'static str),
    /// One class cannot be told from another, or there are more than a label can have.
    #[error("the label has {0} classes; evidence needs 2 to 65536 classes to tell apart")]
    Classes(usize),
    /// A training image that is to be left out is not there.
    #[error("training image {place} is to be left out, but there are only {images}")]
    LeftOut {
        /// Its place.
        place: usize,
        /// Number of training images.
        images: usize,
    },
    /// The classifier `linear` has nothing to look at.
    #[error(
        "the {0} images have no feature vectors, which the classifier `linear` is trained on; compute them, or set \
         `evidence.classifier` to `cnn` or `mlp`"
    )]
    NoFeatures(&'static str),
    /// Feature vectors do not belong to their images, or not to those of the other parts.
    #[error(
        "the {images} {part} images have {rows} feature vectors of width {found} where each needs one of width {width}; \
         compute them for all parts with one network"
    )]
    Features {
        /// `train`, `generated`, `validation` or `test`.
        part: &'static str,
        /// Number of images.
        images: usize,
        /// Number of vectors.
        rows: usize,
        /// Width of the training images' vectors.
        width: usize,
        /// Width of these.
        found: usize,
    },
    /// A key of the job's evidence cannot have this value.
    #[error("`evidence.{key}` must be {expected}")]
    Config {
        /// The key.
        key: &'static str,
        /// What can stand there.
        expected: &'static str,
    },
    /// An arm cannot be trained on this data.
    #[error("the arm {arm} cannot be run: {why}")]
    Arm {
        /// The arm.
        arm: Arm,
        /// The reason.
        why: String,
    },
    /// More groups are to be held out than can be.
    #[error(
        "{wanted} groups cannot be held out so that every attribute value still occurs in some other group; the most \
         that can be is {most}"
    )]
    HeldOut {
        /// How many were asked for.
        wanted: usize,
        /// How many there can be.
        most: usize,
    },
    /// The runs do not belong together: they were not tested on the same images.
    #[error("the runs of {arm} with seed {seed} were tested on other images than the first run; run the stage again")]
    OtherTest {
        /// The arm of the run that differs.
        arm: Arm,
        /// Its seed number.
        seed: u32,
    },
    /// Not every arm has been run with every seed.
    #[error("the run of {arm} with seed {seed} is missing; run the stage again to complete it")]
    MissingRun {
        /// The arm without a run.
        arm: Arm,
        /// The seed number without a run.
        seed: u32,
    },
    /// There are no runs, or none of the balanced data.
    #[error("there is no run of the {0} data to judge; run the stage again to complete it")]
    NoRuns(Arm),
    /// The stored predictions of a run are damaged.
    #[error("`{0}` is not a list of predictions (IMAGES:CLASSES:DIGITS); delete the run and run again")]
    Predictions(String),
    /// There is no run of a sweep, or of groups that were held out, to put together.
    #[error("there is no run of the {0} to judge; run the stage again to complete it")]
    Nothing(&'static str),
    /// Training or testing the classifier failed.
    #[error(transparent)]
    Classifier(#[from] evenset_nn::Error),
}
