//! `novelty`: no near copy of a training image, nor of a candidate that was accepted earlier.
//!
//! Tiny groups are where a generator copies its training images (Carlini et al. 2023, "Extracting Training Data from
//! Diffusion Models"). An image is a near copy if its thumbnail, mirrored or not, or its features lie nearer to a known
//! image than real images lie to each other, but for a small share of them. Candidates are judged in the order of their
//! requests against those kept before them, so a verdict does not depend on how candidates are cut into batches.

use std::collections::BTreeMap;
use std::sync::Arc;

use evenset_core::SampleId;
use serde::{Deserialize, Serialize};

use super::looks::mirrored;
use super::{Gate, Looks, Outcome, Shown};
use crate::nearest::{Neighbour, Points, distance, weighted_quantile};
use crate::{NoveltyConfig, VerifyError};

/// Real images whose nearest neighbours are looked up to find the limits.
const MEASURED: usize = 4096;
/// Candidates that are compared with all kept before them at a time, and then one by one with each other.
const CHUNK: usize = 256;

/// How near real images come to each other.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NoveltyLimits {
    /// Thumbnails nearer than this (root mean square over 0..=1) are near copies.
    pub pixels: f32,
    /// Features nearer than this are near copies.
    pub features: f32,
}

impl NoveltyLimits {
    /// The distances to the nearest other real image that only a share of `config.quantile` of them fall below. Exact
    /// copies among the real images do not count: they would hide what is normal.
    pub(crate) fn calibrate(config: &NoveltyConfig, real: &Looks) -> Result<Self, VerifyError> {
        let step = real.len().div_ceil(MEASURED).max(1);
        let rows: Vec<usize> = (0..real.len()).step_by(step).collect();
        let quantile = |nearest: Vec<Option<f32>>| {
            let values: Vec<(f32, f64)> =
                nearest.into_iter().flatten().filter(|&value| value > 0.0).map(|value| (value, 1.0)).collect();
            if config.quantile == 0.0 { 0.0 } else { weighted_quantile(&values, config.quantile).unwrap_or(0.0) }
        };
        let sample = real.select(&rows);
        let features = real.features.nearest(&sample.features, Some(&rows))?;
        Ok(Self {
            pixels: quantile(nearest_either_way(&real.thumbnails, &sample.thumbnails, Some(&rows))?.0),
            features: quantile(features.into_iter().map(|found| Some(found?.distance)).collect()),
        })
    }
}

/// The nearest thumbnail to each of `queries` or its mirror image: distances, and the neighbours' rows.
type NearestRows = (Vec<Option<f32>>, Vec<Option<usize>>);

fn nearest_either_way(points: &Points, queries: &Points, own: Option<&[usize]>) -> Result<NearestRows, VerifyError> {
    let plain = points.nearest(queries, own)?;
    let flipped = points.nearest(&mirrored(queries), own)?;
    let nearer = |(a, b): (Option<Neighbour>, Option<Neighbour>)| match (a, b) {
        (Some(a), Some(b)) => Some(if b.distance < a.distance { b } else { a }),
        (a, b) => a.or(b),
    };
    let nearest: Vec<Option<Neighbour>> = plain.into_iter().zip(flipped).map(nearer).collect();
    Ok((
        nearest.iter().map(|found| found.map(|found| found.distance)).collect(),
        nearest.iter().map(|found| found.map(|found| found.row)).collect(),
    ))
}

/// The gate. Its score is the thumbnail's distance to the nearest known image, in 0..=1.
#[derive(Debug)]
pub struct Novelty {
    limits: NoveltyLimits,
    real: Arc<Looks>,
    ids: BTreeMap<SampleId, usize>,
}

/// Where a near copy was found, and how near.
#[derive(Clone, Copy, Debug)]
struct Closest {
    pixels: f32,
    pixels_row: usize,
    features: f32,
    features_row: usize,
}

impl Closest {
    const NONE: Self = Self { pixels: f32::INFINITY, pixels_row: 0, features: f32::INFINITY, features_row: 0 };

    fn see_pixels(&mut self, distance: f32, row: usize) {
        if distance < self.pixels {
            (self.pixels, self.pixels_row) = (distance, row);
        }
    }

    fn see_features(&mut self, distance: f32, row: usize) {
        if distance < self.features {
            (self.features, self.features_row) = (distance, row);
        }
    }

    /// Why this is a near copy of one of the images called `whose`, if it is.
    fn reason(&self, limits: &NoveltyLimits, name: impl Fn(usize) -> String) -> Option<String> {
        let tell = |row: usize, what: &str, distance: f32, limit: f32| {
            let name = name(row);
            format!("novelty: near copy of {name} ({what} {distance:.4}, real images keep {limit:.4} apart)")
        };
        if self.pixels < limits.pixels {
            return Some(tell(self.pixels_row, "pixels", self.pixels, limits.pixels));
        }
        (self.features < limits.features).then(|| tell(self.features_row, "features", self.features, limits.features))
    }
}

impl Novelty {
    pub(crate) fn new(limits: NoveltyLimits, real: Arc<Looks>) -> Self {
        // Of equal images the first.
        let ids = real.ids.iter().enumerate().rev().map(|(row, id)| (*id, row)).collect();
        Self { limits, real, ids }
    }

    /// What is nearest to each of `looks` among `known`.
    fn closest(known: &Looks, looks: &Looks) -> Result<Vec<Closest>, VerifyError> {
        let mut closest = vec![Closest::NONE; looks.len()];
        let (distances, rows) = nearest_either_way(&known.thumbnails, &looks.thumbnails, None)?;
        let features = known.features.nearest(&looks.features, None)?;
        for (i, closest) in closest.iter_mut().enumerate() {
            if let (Some(distance), Some(row)) = (distances[i], rows[i]) {
                closest.see_pixels(distance, row);
            }
            if let Some(found) = features[i] {
                closest.see_features(found.distance, found.row);
            }
        }
        Ok(closest)
    }
}

/// The candidates kept so far: the accepted ones of earlier rounds, then those of this one.
struct Kept {
    looks: Looks,
    names: Vec<String>,
    ids: BTreeMap<SampleId, usize>,
}

impl Kept {
    fn new(earlier: &Looks) -> Self {
        let names = vec!["an image accepted in an earlier round".to_owned(); earlier.len()];
        let ids = earlier.ids.iter().enumerate().rev().map(|(row, id)| (*id, row)).collect();
        let looks = Looks { heads: Vec::new(), ..earlier.clone() };
        Self { looks, names, ids }
    }

    fn push(&mut self, looks: &Looks, row: usize, name: String) {
        for (kept, seen) in
            [(&mut self.looks.features, &looks.features), (&mut self.looks.thumbnails, &looks.thumbnails)]
        {
            kept.width = seen.width;
            kept.push(seen.row(row));
        }
        if let Some(id) = looks.ids.get(row) {
            self.looks.ids.push(*id);
            self.ids.entry(*id).or_insert(self.names.len());
        }
        self.names.push(name);
    }
}

impl Gate for Novelty {
    fn name(&self) -> &'static str {
        "novelty"
    }

    fn check(&self, shown: &Shown<'_>) -> Result<Vec<Outcome>, VerifyError> {
        let training = |row: usize| format!("training image {row}");
        let looks = &shown.looks;
        let flipped = mirrored(&looks.thumbnails);
        let to_real = Self::closest(&self.real, looks)?;
        let mut kept = Kept::new(shown.earlier);
        let mut outcomes = Vec::with_capacity(looks.len());
        for start in (0..looks.len()).step_by(CHUNK) {
            let rows: Vec<usize> = (start..looks.len().min(start + CHUNK)).collect();
            let before = kept.names.len();
            let to_kept = Self::closest(&kept.looks, &looks.select(&rows))?;
            for (&row, mut to_kept) in rows.iter().zip(to_kept) {
                for other in before..kept.names.len() {
                    let thumbnail = kept.looks.thumbnails.row(other);
                    to_kept.see_pixels(distance(looks.thumbnails.row(row), thumbnail), other);
                    to_kept.see_pixels(distance(flipped.row(row), thumbnail), other);
                    to_kept.see_features(distance(looks.features.row(row), kept.looks.features.row(other)), other);
                }
                let candidate = |other: usize| kept.names[other].clone();
                let exact = looks.ids.get(row).and_then(|id| {
                    let real = self.ids.get(id).map(|&row| training(row));
                    real.or_else(|| kept.ids.get(id).map(|&other| candidate(other)))
                });
                let reason = match exact {
                    Some(name) => Some(format!("novelty: exact copy of {name}")),
                    None => {
                        to_real[row].reason(&self.limits, training).or_else(|| to_kept.reason(&self.limits, candidate))
                    }
                };
                // With nothing to compare with, nothing is nearer than the farthest possible.
                let score = f64::from(to_real[row].pixels.min(to_kept.pixels).min(1.0));
                outcomes.push(match reason {
                    Some(reason) => Outcome::drop(score, reason),
                    None => {
                        let request = shown.candidates.get(row).map_or(0, |candidate| candidate.request_index);
                        kept.push(looks, row, format!("candidate {request}"));
                        Outcome::keep(score)
                    }
                });
            }
        }
        Ok(outcomes)
    }
}
