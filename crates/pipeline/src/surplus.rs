//! Which real images a plan leaves out of the balanced dataset, where its job lets it.

use std::collections::{BTreeMap, BTreeSet};

use evenset_core::{Fingerprint, Group, Seed};
use evenset_plan::Plan;

use crate::job::Role;
use crate::stages::scan::{Row, Scan};

/// Training rows by unit and place.
pub(crate) type LeftOut = BTreeSet<(usize, usize)>;

/// Of each group as many training rows as the plan takes away. Which ones is drawn by the seed and the image's id alone,
/// so it depends neither on the order of the rows nor on other groups.
pub(crate) fn left_out(scan: &Scan, plan: &Plan, grouping: &[String], seed: Seed) -> LeftOut {
    let removes: BTreeMap<&Group, u64> =
        plan.groups.iter().filter(|group| group.remove > 0).map(|group| (&group.values, group.remove)).collect();
    if removes.is_empty() {
        return LeftOut::new();
    }
    let mut drawn: BTreeMap<Group, Vec<(Fingerprint, &Row)>> = BTreeMap::new();
    let seed = seed.derive("surplus").0.to_le_bytes();
    for row in scan.role(Role::Train) {
        if let Some(group) = scan.group(row, grouping).filter(|group| removes.contains_key(group)) {
            let lot = Fingerprint::of([("seed", &seed[..]), ("id", &row.id.as_bytes()[..])]);
            drawn.entry(group).or_default().push((lot, row));
        }
    }
    let mut left_out = LeftOut::new();
    for (group, mut rows) in drawn {
        rows.sort_by(|(a, x), (b, y)| a.cmp(b).then((x.unit, x.row).cmp(&(y.unit, y.row))));
        let count = removes.get(&group).copied().unwrap_or(0);
        let taken = rows.into_iter().take(usize::try_from(count).unwrap_or(usize::MAX));
        left_out.extend(taken.map(|(_, row)| (row.unit, row.row)));
    }
    left_out
}
