//! `in-distribution`: the image lies where real images of its label lie.
//!
//! The distance to the k-th nearest real image of the same label, in the classifier's features, tells images from outside
//! a distribution from those inside (Sun et al. 2022, "Out-of-Distribution Detection with Deep Nearest Neighbors"). Real
//! images that the classifier was not trained on say how far is normal; groups count alike there, so that the limit is
//! not set by the majority alone.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::{Gate, Looks, Outcome, Shown, wishes};
use crate::nearest::{Neighbour, Points, weighted_quantile};
use crate::{InDistributionConfig, VerifyError};

/// How far real images lie from their like.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct InDistributionLimit {
    /// Images that lie farther away than this are dropped; none where no real image could be held out to measure it.
    pub distance: Option<f32>,
}

/// The gate. Its score is the distance over the limit: above 1 the image is dropped.
#[derive(Debug)]
pub struct InDistribution {
    neighbours: usize,
    limit: InDistributionLimit,
    attributes: Arc<Vec<(String, Vec<String>)>>,
    /// The features of the real images that the classifier learned from, by the value of the label.
    by_label: BTreeMap<u32, Points>,
}

impl InDistribution {
    /// `features` and `labels` are those of the real images that the classifier learned from.
    pub(crate) fn new(
        config: &InDistributionConfig,
        limit: InDistributionLimit,
        attributes: Arc<Vec<(String, Vec<String>)>>,
        features: &Points,
        labels: &[Option<u32>],
    ) -> Self {
        let mut by_label = BTreeMap::<u32, Points>::new();
        for (row, label) in labels.iter().enumerate() {
            if let Some(label) = label {
                let points = by_label.entry(*label).or_insert_with(|| Points::new(Vec::new(), features.width));
                points.push(features.row(row));
            }
        }
        Self { neighbours: config.neighbours as usize, limit, attributes, by_label }
    }

    /// The gate with a limit that all but a share of `config.quantile` of the held-out real images keep, each counting by
    /// its weight.
    pub(crate) fn calibrate(
        mut self,
        config: &InDistributionConfig,
        held_out: &Looks,
        labels: &[Option<u32>],
        weights: &[f64],
    ) -> Result<(Self, InDistributionLimit), VerifyError> {
        let distances = self.distances(&held_out.features, labels)?;
        let measured: Vec<(f32, f64)> =
            distances.iter().zip(weights).filter_map(|(distance, &weight)| Some(((*distance)?, weight))).collect();
        self.limit.distance = weighted_quantile(&measured, 1.0 - config.quantile);
        let limit = self.limit;
        Ok((self, limit))
    }

    /// The distance of each image to its k-th nearest real image of its label, or to the farthest where there are fewer;
    /// none where the label is unknown.
    fn distances(&self, features: &Points, labels: &[Option<u32>]) -> Result<Vec<Option<f32>>, VerifyError> {
        let mut distances = vec![None; labels.len()];
        for (label, real) in &self.by_label {
            let rows: Vec<usize> = (0..labels.len()).filter(|&row| labels[row] == Some(*label)).collect();
            let k = self.neighbours.min(real.len());
            let found = real.kth_nearest(&features.select(rows.iter().copied()), k, None)?;
            for (row, neighbour) in rows.into_iter().zip(found) {
                distances[row] = neighbour.map(|Neighbour { distance, .. }| distance);
            }
        }
        Ok(distances)
    }
}

impl Gate for InDistribution {
    fn name(&self) -> &'static str {
        "in-distribution"
    }

    fn check(&self, shown: &Shown<'_>) -> Result<Vec<Outcome>, VerifyError> {
        let label = |candidate| -> Result<Option<u32>, VerifyError> {
            let label = wishes(candidate, &self.attributes)?.into_iter().find(|wish| wish.head == 0);
            Ok(label.and_then(|wish| wish.class).map(|class| class as u32))
        };
        let labels: Vec<Option<u32>> =
            shown.candidates.iter().map(|candidate| label(candidate)).collect::<Result<_, _>>()?;
        let judge = |distance: Option<f32>| match (distance, self.limit.distance) {
            (Some(distance), Some(limit)) if limit > 0.0 => {
                let score = f64::from(distance) / f64::from(limit);
                if distance <= limit {
                    return Outcome::keep(score);
                }
                let reason =
                    format!("in-distribution: far from real images of its label ({distance:.2}, at most {limit:.2})");
                Outcome::drop(score, reason)
            }
            _ => Outcome::keep(0.0),
        };
        Ok(self.distances(&shown.looks.features, &labels)?.into_iter().map(judge).collect())
    }
}
