//! `in-distribution`: the image lies where real images of its label lie.
//!
//! The distance to the k-th nearest real image of the same label, in the classifier's features, tells images from outside
//! a distribution from those inside (Sun et al. 2022, "Out-of-Distribution Detection with Deep Nearest Neighbors"). Real
//! images that the classifier was not trained on say how far is normal; groups count alike there, so that the limit is
//! not set by the majority alone. A label has a limit of its own where its held-out images are enough for the quantile,
//! since some labels are more varied than others.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::{Gate, Looks, Outcome, Shown, images_needed, wishes};
use crate::nearest::{Neighbour, Points, weighted_quantile};
use crate::{InDistributionConfig, VerifyError};

/// How far real images lie from their like.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct InDistributionLimit {
    /// Images that lie farther away than this are dropped; none where no real image could be held out to measure it.
    pub distance: Option<f32>,
    /// The limits of labels that have one of their own, by the label's place among its values.
    pub of_label: BTreeMap<u32, f32>,
}

impl InDistributionLimit {
    /// The limit for images of a label.
    fn of(&self, label: Option<u32>) -> Option<f32> {
        label.and_then(|label| self.of_label.get(&label).copied()).or(self.distance)
    }
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

    /// The limits that all but a share of `config.quantile` of the held-out real images keep, all groups counting alike:
    /// over all labels, and for each label whose images are worth as many as that quantile needs.
    pub(crate) fn measure(
        &self,
        config: &InDistributionConfig,
        held_out: &Looks,
        labels: &[Option<u32>],
        groups: &[&[Option<u32>]],
    ) -> Result<InDistributionLimit, VerifyError> {
        let distances = self.distances(&held_out.features, labels)?;
        let mut sizes = BTreeMap::<&[Option<u32>], usize>::new();
        groups.iter().for_each(|group| *sizes.entry(group).or_default() += 1);
        let (mut all, mut by_label) = (Vec::new(), BTreeMap::<u32, Vec<(f32, f64)>>::new());
        for ((distance, label), group) in distances.iter().zip(labels).zip(groups) {
            let (Some(distance), Some(label), Some(&size)) = (distance, label, sizes.get(group)) else { continue };
            let measured = (*distance, 1.0 / size as f64);
            all.push(measured);
            by_label.entry(*label).or_default().push(measured);
        }
        let needed = images_needed(config.quantile) as f64;
        let own = |(label, measured): (u32, Vec<(f32, f64)>)| {
            let enough = effective(&measured) >= needed;
            Some((label, weighted_quantile(&measured, 1.0 - config.quantile).filter(|_| enough)?))
        };
        Ok(InDistributionLimit {
            distance: weighted_quantile(&all, 1.0 - config.quantile),
            of_label: by_label.into_iter().filter_map(own).collect(),
        })
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

/// How many equally weighted measurements these are worth (Kish).
fn effective(measured: &[(f32, f64)]) -> f64 {
    let sum: f64 = measured.iter().map(|(_, weight)| weight).sum();
    let squares: f64 = measured.iter().map(|(_, weight)| weight * weight).sum();
    if squares > 0.0 { sum * sum / squares } else { 0.0 }
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
        let judge = |(distance, label): (Option<f32>, &Option<u32>)| match (distance, self.limit.of(*label)) {
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
        Ok(self.distances(&shown.looks.features, &labels)?.into_iter().zip(&labels).map(judge).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A gate for images with one feature, whose real images all lie at 0, and its limits by held-out images: of each
    /// its group (label and one more attribute) and where it lies.
    fn limit(quantile: f64, held_out: &[([u32; 2], f32)]) -> InDistributionLimit {
        let config = InDistributionConfig { neighbours: 1, quantile };
        let learned = Points::new(vec![0.0; 4], 1);
        let labels = [Some(0), Some(0), Some(1), Some(1)];
        let gate = InDistribution::new(&config, InDistributionLimit::default(), Arc::default(), &learned, &labels);
        let groups: Vec<[Option<u32>; 2]> = held_out.iter().map(|(group, _)| group.map(Some)).collect();
        let looks =
            Looks { features: Points::new(held_out.iter().map(|&(_, at)| at).collect(), 1), ..Looks::default() };
        let labels: Vec<Option<u32>> = groups.iter().map(|group| group[0]).collect();
        let groups: Vec<&[Option<u32>]> = groups.iter().map(<[_; 2]>::as_slice).collect();
        gate.measure(&config, &looks, &labels, &groups).unwrap()
    }

    #[test]
    fn a_group_with_one_held_out_image_counts_as_much_as_one_with_many() {
        let mut held_out: Vec<([u32; 2], f32)> = (0..64).map(|i| ([0, 0], i as f32 / 64.0)).collect();
        held_out.push(([1, 1], 5.0));
        // The one image is half of all weight.
        assert_eq!(limit(0.4, &held_out).distance, Some(5.0));
        assert_eq!(limit(0.75, &held_out).distance, Some(31.0 / 64.0));
    }

    #[test]
    fn a_label_with_enough_images_has_a_limit_of_its_own() {
        let mut held_out: Vec<([u32; 2], f32)> = (0..40).map(|i| ([0, 0], i as f32 / 40.0)).collect();
        held_out.extend((0..10).map(|i| ([1, 0], 10.0 + i as f32)));
        let found = limit(0.05, &held_out);
        assert_eq!(found.of_label.keys().copied().collect::<Vec<_>>(), [0], "ten images are too few for 5 %");
        assert!(found.of(Some(0)) < Some(1.0) && found.of(Some(1)) == found.distance, "{found:?}");
        assert!(found.distance > Some(17.0), "{found:?}");
        // A second, tiny group with the label leaves it worth few images.
        held_out.push(([0, 1], 0.5));
        assert!(limit(0.05, &held_out).of_label.is_empty());
        assert_eq!(limit(0.0, &held_out).of_label.len(), 0);
    }
}
