//! Runs for tests, from what a classifier said.

use evenset_core::Group;

use crate::{Arm, ArmRun, GroupOutcome, Predictions};

/// A group's (attribute, value) pairs, and class, predicted class and confidence of each of its images.
pub(crate) type Said<'a> = (&'a [(&'a str, &'a str)], &'a [(u32, u32, f32)]);

/// A run of `as-is` with seed 0 whose label is `label`; every group counts.
pub(crate) fn run(groups: &[Said<'_>]) -> ArmRun {
    let classes = groups.iter().flat_map(|(_, rows)| rows.iter()).map(|(a, b, _)| a.max(b) + 1).max().unwrap_or(1);
    let outcome = |(pairs, rows): &Said<'_>| {
        let mut predictions = Predictions::new(classes as usize);
        rows.iter().for_each(|&(label, predicted, confidence)| predictions.push(label, predicted, confidence));
        GroupOutcome { group: Group::new(pairs.iter().copied()).unwrap(), counts: true, predictions }
    };
    ArmRun::new(Arm::AsIs, 0, "label", groups.iter().map(outcome).collect())
}
