//! What the pixels say: statistics of each image, its appearance, near-duplicates, and whether a number as simple as
//! brightness gives a label away.
//!
//! Each image is looked at once ([`ImageStatistics::of`], [`Appearance::of`]); everything after is about the records of
//! all images ([`audit_images`]).

mod appearance;
mod audit;
mod colour;
mod duplicates;
mod groups;
mod pixels;
mod predictors;
mod report;
mod statistics;

pub use appearance::{Appearance, COLOUR_DIFFERENCE, EMBEDDING_LENGTH, HASH_DISTANCE};
pub use audit::{ImageAudit, ImageRecord, audit_images};
pub use duplicates::{Cluster, NearDuplicates};
pub use groups::{ImageGroup, Summary, VENDI_IMAGES, group_images};
pub use predictors::{FEWEST_IMAGES, TELLING_AUC, TrivialPredictor, trivial_predictors};
pub use report::{ClusterReport, ImageGroupReport, ImageNames, ImageReport, PredictorReport};
pub use statistics::{ImageStatistics, Statistic};
