//! How many generated images are enough: `balanced` with a share of what the plan adds.

use std::collections::BTreeMap;

use evenset_core::{Progress, Seed};
use serde::{Deserialize, Serialize};

use super::run_with;
use crate::{Arm, ArmRun, Error, EvidenceConfig, EvidenceData, Labelled};

/// One run of `balanced` with a share of the generated images.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ShareRun {
    /// The share of the plan's additions, 0 to 3.
    pub share: f64,
    /// How many images that is.
    pub wanted: u32,
    /// What came of it; it says how many there were.
    pub run: ArmRun,
}

/// Trains `balanced` with a share of what the plan adds to each group: the first images that were accepted, so that a
/// larger share holds a smaller one. Where too few were accepted, and above 1, those there are.
///
/// # Errors
/// As [`run_arm`](crate::run_arm), and [`Error::Config`] for a share outside 0 to 3.
pub fn run_share(
    share: f64,
    data: &EvidenceData,
    seed: Seed,
    number: u32,
    config: &EvidenceConfig,
    progress: &dyn Progress,
) -> Result<ShareRun, Error> {
    EvidenceConfig { sweep: vec![share], ..config.clone() }.check()?;
    let (generated, wanted) = share_of(data, share)?;
    let run = run_with(Arm::Balanced, data, &generated, seed, number, config, progress)?;
    Ok(ShareRun { share, wanted: wanted as u32, run })
}

/// The first images of each group, as many as `share` of what the plan adds to it, and how many they should be.
fn share_of(data: &EvidenceData, share: f64) -> Result<(Labelled, usize), Error> {
    let mut all = data.generated.clone();
    if let Some(further) = &data.further {
        all.extend(further)?;
    }
    let wanted = |group: u32| {
        let planned = data.planned.get(&group).copied().unwrap_or(0);
        (share * planned as f64).round() as usize
    };
    let mut taken: BTreeMap<u32, usize> = BTreeMap::new();
    let takes = |row: &usize| {
        let group = all.groups[*row];
        let taken = taken.entry(group).or_default();
        *taken += 1;
        *taken <= wanted(group)
    };
    let rows: Vec<usize> = (0..all.groups.len()).filter(takes).collect();
    Ok((all.select(&rows), data.planned.keys().map(|&group| wanted(group)).sum()))
}

#[cfg(test)]
mod tests {
    use evenset_nn::classifier::ImageSet;

    use super::*;

    /// Every image has its number as its only grey level.
    fn part(first: u8, groups: &[u32]) -> Labelled {
        let pixels = (0..groups.len()).flat_map(|i| vec![first + i as u8; 8 * 8 * 3]).collect();
        let images = ImageSet::new(8, 8, pixels).unwrap();
        Labelled { images, labels: vec![0; groups.len()], groups: groups.to_vec(), features: None }
    }

    #[test]
    fn shares_are_prefixes_of_each_group_and_nested() {
        let data = EvidenceData {
            train: part(0, &[0]),
            left_out: vec![],
            generated: part(0, &[0, 1, 0, 1, 0, 0]),
            planned: [(0, 4), (1, 4)].into(),
            further: Some(part(100, &[0, 1, 1, 2])),
            validation: None,
            test: part(0, &[0]),
            classes: vec![],
            groups: vec![],
            label: String::new(),
        };
        let numbers = |share: f64| {
            let (part, wanted) = share_of(&data, share).unwrap();
            (part.images.iter().map(|image| image[0]).collect::<Vec<u8>>(), wanted)
        };
        assert_eq!(numbers(0.0), (vec![], 0));
        assert_eq!(numbers(0.5), (vec![0, 1, 2, 3], 4));
        assert_eq!(numbers(0.75), (vec![0, 1, 2, 3, 4, 101], 6), "a share of the plan, not of what was accepted");
        assert_eq!(numbers(1.0), (vec![0, 1, 2, 3, 4, 5, 101, 102], 8));
        assert_eq!(
            numbers(1.5),
            (vec![0, 1, 2, 3, 4, 5, 100, 101, 102], 12),
            "one of group 0 and two of 1 are lacking"
        );
    }
}
