//! One grouping: its groups, how uneven they are, and how far from a reference.

use evenset_core::{Group, Seed};
use serde::{Deserialize, Serialize};

use super::{Intervals, Reference};
use crate::statistics::{
    self, Distance, Distances, Z95, effective_groups, largest_to_smallest, normalised_entropy, shares, wilson,
};
use crate::{AuditError, Cube};

/// Groupings of more groups get no bootstrap: it would take longer than the count.
const MOST_RESAMPLED: usize = 500;

/// The groups of one grouping and how uneven they are.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Grouping {
    /// The attributes that are counted by.
    pub attributes: Vec<String>,
    /// Every group of the cross product of known values, empty groups included.
    pub groups: Vec<GroupCount>,
    /// The largest count over the smallest; none where a group is empty.
    pub largest_to_smallest: Option<f64>,
    /// 1 where all groups are equal, 0 where one holds everything.
    pub normalised_entropy: f64,
    /// How many equal groups would be as diverse.
    pub effective_groups: f64,
    /// How far the shares are from the reference; none where the reference does not know the attributes.
    pub distance: Option<ReferenceDistance>,
}

/// How far the shares of a grouping are from a reference.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ReferenceDistance {
    /// What they are held against: `uniform`, or the reference's name.
    pub reference: String,
    /// The distances.
    #[serde(flatten)]
    pub distances: Distances,
}

/// One group of a grouping.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct GroupCount {
    /// The group.
    pub values: Group,
    /// Its rows.
    pub count: u64,
    /// Its rows over all rows.
    pub share: f64,
    /// The 95 % interval of the share.
    pub interval: [f64; 2],
    /// The share that the reference gives it, where there is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reference: Option<f64>,
}

pub(super) fn grouping(
    cube: &Cube,
    attributes: &[String],
    intervals: Intervals,
    reference: Option<&Reference>,
    seed: Seed,
) -> Result<Grouping, AuditError> {
    let tally = cube.tally(attributes)?;
    let counts = &tally.counts;
    let known = reference.map(|reference| reference.shares(cube, attributes, &tally)).transpose()?.flatten();
    let name = reference.filter(|_| known.is_some()).map_or("uniform", Reference::name);
    let total: f64 = known.iter().flatten().sum();
    let expected: Option<Vec<f64>> = known.map(|known| known.into_iter().map(|share| share / total).collect());
    let interval = match intervals {
        Intervals::Wilson => counts.iter().map(|&count| wilson(count, cube.rows(), Z95)).collect(),
        Intervals::Goodman => statistics::goodman(counts, 0.95),
    };
    let listing = cube.listing(attributes)?;
    let mut groups = Vec::with_capacity(counts.len());
    for (index, ((&count, share), interval)) in counts.iter().zip(shares(counts)).zip(interval).enumerate() {
        let reference = expected.as_ref().map(|expected| expected[index]);
        groups.push(GroupCount { values: listing.group(index)?, count, share, interval, reference });
    }
    let expected = expected.unwrap_or_else(|| uniform(&groups));
    let seed = attributes.iter().fold(seed.derive("distance"), |seed, attribute| seed.derive(attribute));
    let distances = distances(counts, &expected, seed);
    Ok(Grouping {
        attributes: attributes.to_vec(),
        largest_to_smallest: largest_to_smallest(counts),
        normalised_entropy: normalised_entropy(counts),
        effective_groups: effective_groups(counts),
        distance: distances.map(|distances| ReferenceDistance { reference: name.to_owned(), distances }),
        groups,
    })
}

/// Equal shares of all groups. Rows without a value are no group that should have a share.
fn uniform(groups: &[GroupCount]) -> Vec<f64> {
    let complete = |group: &GroupCount| group.values.is_complete();
    let all = groups.iter().all(|group| !complete(group));
    groups.iter().map(|group| f64::from(u8::from(all || complete(group)))).collect()
}

/// With intervals where the groups are few enough for a bootstrap.
fn distances(counts: &[u64], expected: &[f64], seed: Seed) -> Option<Distances> {
    if counts.len() <= MOST_RESAMPLED {
        return statistics::distances_to(counts, expected, seed);
    }
    let total: f64 = expected.iter().sum();
    if counts.iter().all(|&count| count == 0) || total <= 0.0 {
        return None;
    }
    let expected: Vec<f64> = expected.iter().map(|share| share / total).collect();
    let shares = shares(counts);
    let plain = |value| Distance { value, interval: None, by_chance: None };
    Some(Distances {
        total_variation: plain(statistics::total_variation_between(&shares, &expected)),
        kullback_leibler: statistics::kullback_leibler(&shares, &expected).map(plain),
        jensen_shannon: plain(statistics::jensen_shannon(&shares, &expected)),
    })
}
