//! `diversity`: once a group has enough images, one that adds nothing to it is dropped.
//!
//! A generator that draws the same few pictures over and over fills a group without covering it. An image adds nothing if
//! its features lie nearer to those of an image of its group, real or accepted, than real images of a group lie to each
//! other, but for a share of them. Unlike `novelty`, which asks whether an image is a copy, this asks whether it is needed.

use std::collections::BTreeMap;
use std::sync::Arc;

use evenset_core::Group;
use serde::{Deserialize, Serialize};

use super::{Looks, OrderedGate, Outcome, Session, Shown, Wish, wishes};
use crate::nearest::{Points, distance, weighted_quantile};
use crate::{DiversityConfig, VerifyError};

/// Real images of a group whose nearest neighbours are looked up to find the limit.
const MEASURED: usize = 512;

/// How near real images of a group come to each other.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DiversityLimit {
    /// An image whose features lie nearer than this to an image of its group adds nothing; 0 where no group has two real
    /// images.
    pub distance: f32,
}

impl DiversityLimit {
    /// The distance to the nearest other real image of the group that a share of `config.quantile` of the real images fall
    /// below, all groups counting alike; exact copies do not count. `values` are the real images' values of all attributes.
    pub(crate) fn calibrate(
        config: &DiversityConfig,
        features: &Points,
        values: &[Vec<Option<u32>>],
    ) -> Result<Self, VerifyError> {
        let mut groups = BTreeMap::<&[Option<u32>], Vec<usize>>::new();
        for (row, values) in values.iter().enumerate() {
            groups.entry(values).or_default().push(row);
        }
        let mut measured = Vec::new();
        for rows in groups.into_values() {
            let members = features.select(rows.iter().copied());
            let own: Vec<usize> = (0..rows.len()).step_by(rows.len().div_ceil(MEASURED).max(1)).collect();
            let nearest = members.nearest(&members.select(own.iter().copied()), Some(&own))?;
            let distances: Vec<f32> = nearest
                .into_iter()
                .flatten()
                .map(|nearest| nearest.distance)
                .filter(|&distance| distance > 0.0)
                .collect();
            measured.extend(distances.iter().map(|&distance| (distance, 1.0 / distances.len() as f64)));
        }
        Ok(Self { distance: weighted_quantile(&measured, config.quantile).unwrap_or(0.0) })
    }
}

/// The gate. Its score is the distance to the nearest image of the group over the limit: below 1 the image adds nothing;
/// it is 0 where there is nothing to compare with.
#[derive(Debug)]
pub struct Diversity {
    enough: usize,
    limit: DiversityLimit,
    attributes: Arc<Vec<(String, Vec<String>)>>,
    real: Arc<Looks>,
    /// The real images' values of all attributes.
    values: Vec<Vec<Option<u32>>>,
}

impl Diversity {
    pub(crate) fn new(
        config: &DiversityConfig,
        limit: DiversityLimit,
        attributes: Arc<Vec<(String, Vec<String>)>>,
        real: Arc<Looks>,
        values: Vec<Vec<Option<u32>>>,
    ) -> Self {
        Self { enough: config.enough as usize, limit, attributes, real, values }
    }
}

/// The rows of the real images that have all the values wished for.
pub(crate) fn members(wishes: &[Wish], values: &[Vec<Option<u32>>]) -> Vec<usize> {
    let has = |values: &Vec<Option<u32>>, wish: &Wish| match (values.get(wish.head), wish.class) {
        (Some(Some(value)), Some(class)) => *value as usize == class,
        _ => false,
    };
    (0..values.len()).filter(|&row| wishes.iter().all(|wish| has(&values[row], wish))).collect()
}

impl OrderedGate for Diversity {
    fn name(&self) -> &'static str {
        "diversity"
    }

    fn begin<'a>(&'a self, shown: &'a Shown<'a>) -> Result<Box<dyn Session + 'a>, VerifyError> {
        let mut groups = BTreeMap::<&Group, Vec<usize>>::new();
        for (row, candidate) in shown.candidates.iter().enumerate() {
            groups.entry(&candidate.group).or_default().push(row);
        }
        let mut before = vec![None; shown.candidates.len()];
        let mut kept = BTreeMap::new();
        for (group, rows) in groups {
            let wishes = wishes(shown.candidates[rows[0]], &self.attributes)?;
            let real = members(&wishes, &self.values);
            let earlier = shown.earlier_candidates.iter().enumerate();
            let earlier: Vec<usize> =
                earlier.filter(|(_, candidate)| candidate.group == *group).map(|(row, _)| row).collect();
            let mut known = self.real.features.select(real.iter().copied());
            earlier.iter().for_each(|&row| known.push(shown.earlier.features.row(row)));
            kept.insert(group, InGroup { before: real.len() + earlier.len(), rows: Vec::new() });
            let nearest = known.nearest(&shown.looks.features.select(rows.iter().copied()), None)?;
            for (row, nearest) in rows.into_iter().zip(nearest) {
                before[row] = nearest.map(|nearest| nearest.distance);
            }
        }
        Ok(Box::new(Coverage { gate: self, shown, before, kept }))
    }
}

/// The candidates of one call, and the groups they are added to.
struct Coverage<'a> {
    gate: &'a Diversity,
    shown: &'a Shown<'a>,
    /// How near each candidate comes to the real images of its group and the accepted ones of earlier rounds.
    before: Vec<Option<f32>>,
    kept: BTreeMap<&'a Group, InGroup>,
}

/// The images of a group.
struct InGroup {
    /// How many there were before this call.
    before: usize,
    /// The candidates kept so far.
    rows: Vec<usize>,
}

impl Session for Coverage<'_> {
    fn judge(&mut self, row: usize) -> Result<Outcome, VerifyError> {
        let features = &self.shown.looks.features;
        let mut nearest = self.before[row].unwrap_or(f32::INFINITY);
        let mut members = 0;
        if let Some(group) = self.kept.get(&self.shown.candidates[row].group) {
            members = group.before + group.rows.len();
            let kept = group.rows.iter().map(|&other| distance(features.row(row), features.row(other)));
            nearest = kept.fold(nearest, f32::min);
        }
        let limit = self.gate.limit.distance;
        if !nearest.is_finite() || limit <= 0.0 {
            return Ok(Outcome::keep(0.0));
        }
        let score = f64::from(nearest) / f64::from(limit);
        if members < self.gate.enough || nearest >= limit {
            return Ok(Outcome::keep(score));
        }
        let reason = format!(
            "diversity: adds nothing to the {members} images of its group (features {nearest:.4} from the nearest, at least {limit:.4})"
        );
        Ok(Outcome::drop(score, reason))
    }

    fn keep(&mut self, row: usize) {
        if let Some(group) = self.kept.get_mut(&self.shown.candidates[row].group) {
            group.rows.push(row);
        }
    }

    fn restart(&mut self) {
        self.kept.values_mut().for_each(|group| group.rows.clear());
    }
}
