//! What the pixels of a dataset say, by name: groups, files and splits in place of codes and places.

use std::collections::BTreeMap;

use evenset_core::{Group, MISSING};
use serde::{Deserialize, Serialize};

use super::audit::ImageAudit;
use super::statistics::Statistic;

/// Clusters of near-duplicates that are listed.
const MOST_CLUSTERS: usize = 200;
/// Images of a cluster that are named.
const MOST_NAMED: usize = 20;

/// What the pixels of a dataset say.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ImageReport {
    /// How many images were looked at.
    pub images: u64,
    /// The groups that have images.
    pub groups: Vec<ImageGroupReport>,
    /// How many images have a near-duplicate anywhere in the dataset.
    pub near_duplicates: u64,
    /// How many clusters of near-duplicates have images of more than one split: one split gives another away.
    pub clusters_across_splits: u64,
    /// The largest clusters of near-duplicates, at most 200.
    pub clusters: Vec<ClusterReport>,
    /// Statistics that alone tell a value from the others of its attribute, the most telling first.
    pub trivial_predictors: Vec<PredictorReport>,
}

/// The images of one group.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ImageGroupReport {
    /// The group.
    pub values: Group,
    /// Its images.
    pub count: u64,
    /// For each statistic its lower quartile, median and upper quartile.
    pub statistics: BTreeMap<Statistic, [f64; 3]>,
    /// How many wholly different images would be as diverse (Vendi score).
    pub vendi: Option<f64>,
    /// How many images that score is of; compare groups only where this is the same.
    pub vendi_images: u64,
    /// Images that have a near-duplicate in the group.
    pub near_duplicates: u64,
    /// Their share.
    pub near_duplicate_share: f64,
    /// Its 95 % interval (Wilson's).
    pub near_duplicate_interval: [f64; 2],
}

/// Images that are nearly the same.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClusterReport {
    /// How many.
    pub count: u64,
    /// The files of the first twenty.
    pub files: Vec<String>,
    /// The splits that they are in.
    pub splits: Vec<String>,
}

/// A statistic that alone tells a value from the others.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PredictorReport {
    /// The statistic.
    pub statistic: Statistic,
    /// The value.
    pub value: Group,
    /// Images that have the value.
    pub images: u64,
    /// The probability that the statistic is larger for an image with the value than for one without, 0 to 1.
    pub auc: f64,
    /// Its 95 % interval.
    pub interval: [f64; 2],
}

/// The names behind the codes of an [`ImageAudit`].
pub struct ImageNames<'a> {
    /// The attributes behind [`ImageRecord::codes`](super::ImageRecord::codes) with their values.
    pub attributes: &'a [(String, Vec<String>)],
    /// The places of the attributes that groups are made of.
    pub grouping: &'a [usize],
    /// The file of each image.
    pub files: &'a [String],
    /// The name of each split.
    pub splits: &'a [String],
}

impl ImageAudit {
    /// This audit by name.
    pub fn named(&self, names: &ImageNames<'_>) -> ImageReport {
        let groups = self.groups.iter().map(|group| {
            let pairs = names.grouping.iter().zip(&group.codes);
            let values = pairs.fold(Group::default(), |values, (&place, &code)| names.value(values, place, code));
            let middle = |s: &super::groups::Summary| (s.statistic, [s.quartiles[0], s.median, s.quartiles[1]]);
            ImageGroupReport {
                values,
                count: group.count,
                statistics: group.statistics.iter().map(middle).collect(),
                vendi: group.vendi,
                vendi_images: group.vendi_images,
                near_duplicates: group.near_duplicates,
                near_duplicate_share: group.near_duplicate_share,
                near_duplicate_interval: group.near_duplicate_interval,
            }
        });
        let clusters = self.clusters.iter().take(MOST_CLUSTERS).map(|cluster| ClusterReport {
            count: cluster.images.len() as u64,
            files: cluster.images.iter().take(MOST_NAMED).filter_map(|&i| names.files.get(i).cloned()).collect(),
            splits: cluster.splits.iter().filter_map(|&split| names.splits.get(split as usize).cloned()).collect(),
        });
        let predictors = self.trivial_predictors.iter().map(|predictor| PredictorReport {
            statistic: predictor.statistic,
            value: names.value(Group::default(), predictor.attribute, predictor.code),
            images: predictor.images,
            auc: predictor.auc,
            interval: predictor.interval,
        });
        ImageReport {
            images: names.files.len() as u64,
            groups: groups.collect(),
            near_duplicates: self.near_duplicates,
            clusters_across_splits: self.clusters_across_splits,
            clusters: clusters.collect(),
            trivial_predictors: predictors.collect(),
        }
    }
}

impl ImageNames<'_> {
    fn value(&self, group: Group, attribute: usize, code: u32) -> Group {
        let Some((name, values)) = self.attributes.get(attribute) else { return group };
        group.with(name, values.get(code as usize).map_or(MISSING, String::as_str))
    }
}
