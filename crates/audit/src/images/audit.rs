//! The audit of a dataset's images.

use evenset_core::Seed;
use serde::{Deserialize, Serialize};

use super::appearance::Appearance;
use super::duplicates::{Cluster, NearDuplicates};
use super::groups::{ImageGroup, group_images};
use super::predictors::{TrivialPredictor, trivial_predictors};
use super::statistics::ImageStatistics;

/// What is kept of one image.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ImageRecord {
    /// Its statistics.
    pub statistics: ImageStatistics,
    /// What it looks like.
    pub appearance: Appearance,
    /// The codes of its attribute values, in the order of the attributes.
    pub codes: Vec<u32>,
}

/// What the pixels of a dataset say.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ImageAudit {
    /// The groups that have images, sorted by their codes.
    pub groups: Vec<ImageGroup>,
    /// How many images have a near-duplicate anywhere in the dataset.
    pub near_duplicates: u64,
    /// The clusters of near-duplicates over the whole dataset, the largest first.
    pub clusters: Vec<Cluster>,
    /// How many clusters have images of more than one split.
    pub clusters_across_splits: u64,
    /// The images, by their places, that have a near-duplicate in another split.
    pub across_splits: Vec<usize>,
    /// Statistics that give an attribute's value away, the most telling first.
    pub trivial_predictors: Vec<TrivialPredictor>,
}

/// Audits the images of a dataset: grouped by the attributes at the places `attributes` in [`ImageRecord::codes`], with
/// the code of each image's split (empty where there are none). The same for the same input, whatever the threads.
pub fn audit_images(records: &[ImageRecord], attributes: &[usize], splits: &[u32], seed: Seed) -> ImageAudit {
    let duplicates = NearDuplicates::find(records.iter().map(|record| &record.appearance));
    let clusters = duplicates.clusters(splits);
    ImageAudit {
        groups: group_images(records, &duplicates, attributes, seed),
        near_duplicates: clusters.iter().map(|cluster| cluster.images.len() as u64).sum(),
        clusters_across_splits: clusters.iter().filter(|cluster| cluster.splits.len() > 1).count() as u64,
        clusters,
        across_splits: duplicates.across(splits),
        trivial_predictors: trivial_predictors(records),
    }
}
