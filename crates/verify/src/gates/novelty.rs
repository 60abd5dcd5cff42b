//! `novelty`: no near copy of a training image, nor of a candidate that was accepted earlier.
//!
//! Tiny groups are where a generator copies its training images (Carlini et al. 2023, "Extracting Training Data from
//! Diffusion Models"). An image is a near copy if by one of five measures it comes nearer to a known image than real images
//! come to each other, but for a small share of them: by its thumbnail, mirrored or not; by its features; by its perceptual
//! hash, mirrored or not; by its middle, mirrored, shifted, enlarged and in any brightness (see [`crate::views`]), as it is
//! and next to how near other images come.
//! Candidates are judged in the order of their requests against those kept before them.

use std::collections::BTreeMap;
use std::sync::Arc;

use evenset_core::SampleId;
use evenset_nn::classifier::ImageSet;
use serde::{Deserialize, Serialize};

use super::copies::{COUNT, Closest, Found, Known, MEASURES, Queries};
use super::{Looks, OrderedGate, Outcome, Session, Shown};
use crate::{NoveltyConfig, VerifyError};

/// Real images whose nearest neighbours are looked up to find the limits.
const MEASURED: usize = 4096;
/// Candidates that are compared with all kept before them at a time, and then one by one with each other.
const CHUNK: usize = 256;

/// How near real images come to each other. The five limits are set together: a share of the gate's `quantile` of the real
/// images falls below one or more of them.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NoveltyLimits {
    /// Thumbnails nearer than this (root mean square over 0..=1) are near copies.
    pub pixels: f32,
    /// Features nearer than this are near copies.
    pub features: f32,
    /// Perceptual hashes that differ in fewer bits than this, of 64, are near copies.
    pub hash: f32,
    /// Middles nearer than this (root mean square, in deviations of their pixels) are near copies.
    pub aligned: f32,
    /// Middles nearer than this part of the mean distance to the next training images around are near copies. Not asked
    /// about candidates: among the first few of a rare group, one is the only one like the next.
    pub next_to_others: f32,
}

impl NoveltyLimits {
    /// Only exact copies are near copies.
    pub(crate) const EXACT: Self = Self { pixels: 0.0, features: 0.0, hash: 0.0, aligned: 0.0, next_to_others: 0.0 };

    /// The limits below which, by any measure, only a share of `config.quantile` of the real images fall. Exact copies among
    /// the real images do not count: they would hide what is normal.
    pub(crate) fn calibrate(config: &NoveltyConfig, real: &Arc<Looks>, images: &ImageSet) -> Result<Self, VerifyError> {
        if config.quantile == 0.0 {
            return Ok(Self::EXACT);
        }
        let step = real.len().div_ceil(MEASURED).max(1);
        let rows: Vec<usize> = (0..real.len()).step_by(step).collect();
        let pixels: Vec<&[u8]> = rows.iter().map(|&row| images.image(row)).collect();
        let size = (images.width(), images.height());
        let closest = Known::new(Arc::clone(real)).closest(&real.select(&rows), &pixels, size, Some(&rows))?;
        let closest: Vec<Closest> = closest.into_iter().filter(|closest| closest.pixels() > 0.0).collect();
        let [pixels, features, hash, aligned, next_to_others] = joint_limits(&closest, config.quantile);
        Ok(Self { pixels, features, hash, aligned, next_to_others })
    }

    fn all(&self) -> [f32; COUNT] {
        [self.pixels, self.features, self.hash, self.aligned, self.next_to_others]
    }
}

/// For each measure the distance of the same rank, the largest rank at which at most a share of `quantile` of the images
/// fall below one of the limits.
fn joint_limits(closest: &[Closest], quantile: f64) -> [f32; COUNT] {
    if closest.is_empty() {
        return [0.0; COUNT];
    }
    let sorted: [Vec<f32>; COUNT] = std::array::from_fn(|measure| {
        let mut distances: Vec<f32> = closest.iter().map(|closest| closest.distances[measure]).collect();
        distances.sort_by(f32::total_cmp);
        distances
    });
    // An image falls below the limits of rank `r` if by some measure at most `r` images come as near as it does.
    let rank = |closest: &Closest| {
        let ranks = sorted.iter().zip(closest.distances);
        ranks.map(|(sorted, distance)| sorted.partition_point(|&other| other <= distance)).min().unwrap_or(0)
    };
    let mut ranks: Vec<usize> = closest.iter().map(rank).collect();
    ranks.sort_unstable();
    let allowed = (quantile * closest.len() as f64).floor() as usize;
    let limit = ranks.get(allowed).copied().unwrap_or(closest.len()).saturating_sub(1);
    // A distance that nothing was measured for limits nothing.
    sorted.map(|sorted| sorted.get(limit).copied().filter(|distance| distance.is_finite()).unwrap_or(0.0))
}

/// The gate. Its score is the thumbnail's distance to the nearest known image, in 0..=1.
pub struct Novelty {
    limits: NoveltyLimits,
    real: Known,
    ids: BTreeMap<SampleId, usize>,
    size: (usize, usize),
}

impl Novelty {
    /// `size` is the images' width and height.
    pub(crate) fn new(limits: NoveltyLimits, real: Arc<Looks>, size: (usize, usize)) -> Self {
        // Of equal images the first.
        let ids = real.ids.iter().enumerate().rev().map(|(row, id)| (*id, row)).collect();
        Self { limits, real: Known::new(real), ids, size }
    }

    /// Why an image is a near copy of one of the images that `name` names, if it is.
    fn reason(&self, closest: &Closest, name: impl Fn(usize) -> String) -> Option<String> {
        let measures = MEASURES.iter().zip(closest.distances).zip(closest.rows).zip(self.limits.all());
        let mut near = measures.filter(|(((_, distance), _), limit)| distance < limit);
        near.next().map(|(((what, distance), row), limit)| {
            let name = name(row);
            format!("novelty: near copy of {name} ({what} {distance:.4}, real images keep {limit:.4} apart)")
        })
    }
}

impl OrderedGate for Novelty {
    fn name(&self) -> &'static str {
        "novelty"
    }

    fn begin<'a>(&'a self, shown: &'a Shown<'a>) -> Result<Box<dyn Session + 'a>, VerifyError> {
        let pixels: Vec<&[u8]> = shown.candidates.iter().map(|candidate| candidate.rgb.as_slice()).collect();
        let to_real = self.real.closest(&shown.looks, &pixels, self.size, None)?;
        let earlier = Arc::new(Looks { heads: Vec::new(), ..shown.earlier.clone() });
        let mut session = Comparison {
            gate: self,
            shown,
            to_real,
            kept: Known::new(Arc::clone(&earlier)),
            earlier,
            requests: Vec::new(),
            ids: BTreeMap::new(),
            chunk: None,
        };
        session.restart();
        Ok(Box::new(session))
    }
}

/// The candidates of one call, and what they are compared with.
struct Comparison<'a> {
    gate: &'a Novelty,
    shown: &'a Shown<'a>,
    to_real: Vec<Closest>,
    /// The accepted ones of earlier rounds.
    earlier: Arc<Looks>,
    /// Those, then the ones kept so far.
    kept: Known,
    /// The requests of the ones kept so far.
    requests: Vec<usize>,
    ids: BTreeMap<SampleId, usize>,
    chunk: Option<Chunk<'a>>,
}

/// Candidates that were compared with those kept before all of them.
struct Chunk<'a> {
    start: usize,
    /// How many were kept then.
    before: usize,
    queries: Queries<'a>,
    found: Vec<Found>,
}

impl Comparison<'_> {
    fn name(&self, kept: usize) -> String {
        match kept.checked_sub(self.earlier.len()).and_then(|kept| self.requests.get(kept)) {
            Some(request) => format!("candidate {request}"),
            None => "an image accepted in an earlier round".to_owned(),
        }
    }

    /// Compares the candidates from `start` on with those kept so far.
    fn open(&mut self, start: usize) -> Result<(), VerifyError> {
        let rows: Vec<usize> = (start..self.shown.candidates.len().min(start + CHUNK)).collect();
        let pixels = rows.iter().map(|&row| self.shown.candidates[row].rgb.as_slice()).collect();
        let queries = Queries::new(self.shown.looks.select(&rows), pixels, self.gate.size);
        let found = self.kept.search(&queries, None)?;
        self.chunk = Some(Chunk { start, before: self.kept.len(), queries, found });
        Ok(())
    }

    /// How near the candidate in row `row` comes to those kept.
    fn held_against_kept(&mut self, row: usize) -> Result<Option<Closest>, VerifyError> {
        if self.chunk.as_ref().is_none_or(|chunk| !(chunk.start..chunk.start + chunk.queries.len()).contains(&row)) {
            self.open(row)?;
        }
        let Some(chunk) = &self.chunk else { return Ok(None) };
        let image = row - chunk.start;
        let mut found = chunk.found[image].clone();
        for other in chunk.before..self.kept.len() {
            self.kept.see(other, &chunk.queries, image, &mut found);
        }
        Ok(Some(self.kept.finish(&found, &chunk.queries, image, false)))
    }
}

impl Session for Comparison<'_> {
    fn judge(&mut self, row: usize) -> Result<Outcome, VerifyError> {
        let training = |row: usize| format!("training image {row}");
        let to_kept = self.held_against_kept(row)?;
        let to_real = self.to_real[row];
        let exact = self.shown.looks.ids.get(row).and_then(|id| {
            let real = self.gate.ids.get(id).map(|&row| training(row));
            real.or_else(|| self.ids.get(id).map(|&kept| self.name(kept)))
        });
        let reason = match exact {
            Some(name) => Some(format!("novelty: exact copy of {name}")),
            None => self
                .gate
                .reason(&to_real, training)
                .or_else(|| to_kept.and_then(|to_kept| self.gate.reason(&to_kept, |kept| self.name(kept)))),
        };
        // With nothing to compare with, nothing is nearer than the farthest possible.
        let nearest = to_kept.map_or(1.0, |to_kept| to_kept.pixels()).min(to_real.pixels());
        let score = f64::from(nearest.min(1.0));
        Ok(match reason {
            Some(reason) => Outcome::drop(score, reason),
            None => Outcome::keep(score),
        })
    }

    fn keep(&mut self, row: usize) {
        let Some(chunk) = &self.chunk else { return };
        if let Some(id) = self.shown.looks.ids.get(row) {
            self.ids.entry(*id).or_insert(self.kept.len());
        }
        self.kept.push(&chunk.queries, row - chunk.start);
        self.requests.push(self.shown.candidates.get(row).map_or(0, |candidate| candidate.request_index));
    }

    fn restart(&mut self) {
        self.kept = Known::new(Arc::clone(&self.earlier));
        self.ids = self.earlier.ids.iter().enumerate().rev().map(|(row, id)| (*id, row)).collect();
        self.requests.clear();
        self.chunk = None;
    }
}

#[cfg(test)]
mod tests {
    use evenset_core::Seed;

    use super::*;

    #[test]
    fn limits_are_set_jointly_so_that_the_wanted_share_falls_below_one_of_them() {
        let draws = Seed(1).normal(COUNT * 5000);
        let closest: Vec<Closest> = draws
            .chunks_exact(COUNT)
            .map(|d| {
                // One of the measures is whole numbers.
                let distances = std::array::from_fn(|i| if i == 2 { (d[i].abs() * 8.0).round() } else { d[i].abs() });
                Closest { distances, rows: [0; COUNT] }
            })
            .collect();
        let limits = joint_limits(&closest, 0.02);
        let below = closest.iter().filter(|c| c.distances.iter().zip(limits).any(|(d, limit)| *d < limit)).count();
        assert!((80..=100).contains(&below), "{below} of 5000 below {limits:?}");
        let few = joint_limits(&closest[..40], 0.02);
        let below = closest[..40].iter().filter(|c| c.distances.iter().zip(few).any(|(d, limit)| *d < limit)).count();
        assert_eq!(below, 0, "one in fifty of forty images is none");
        assert_eq!(joint_limits(&[], 0.1), [0.0; COUNT]);
    }
}
