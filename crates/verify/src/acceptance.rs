//! Who got through the gates: shares per group and per gate, with intervals.
//!
//! Filters are biased too: a gate that drops one group more than others undoes what the generator was asked for.

use std::collections::BTreeMap;

use evenset_core::Group;
use serde::{Deserialize, Serialize};

use crate::Verdict;

/// How many of the candidates shown were kept.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Share {
    /// Candidates kept.
    pub kept: u64,
    /// Candidates shown.
    pub shown: u64,
    /// `kept / shown`; 0 where none was shown.
    pub rate: f64,
    /// The 95 % interval of the rate.
    pub interval: [f64; 2],
}

impl Share {
    /// The share of `kept` out of `shown`.
    pub fn new(kept: u64, shown: u64) -> Self {
        let rate = if shown == 0 { 0.0 } else { kept as f64 / shown as f64 };
        Self { kept, shown, rate, interval: wilson(kept, shown) }
    }
}

/// Wilson's 95 % score interval of a share (Wilson 1927); `[0, 1]` where nothing was shown.
pub fn wilson(kept: u64, shown: u64) -> [f64; 2] {
    evenset_core::wilson(kept.min(shown) as f64, shown as f64, evenset_core::Z95)
}

/// Acceptance of one round, or of several together.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Acceptance {
    /// All candidates.
    pub total: Share,
    /// By group, in the groups' order.
    pub groups: Vec<GroupShare>,
    /// By gate, in the order of the cascade; a gate is shown only what the gates before it kept.
    pub gates: Vec<GateShare>,
}

/// Acceptance in one group.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct GroupShare {
    /// The group that was asked for.
    pub group: Group,
    /// How many of its candidates were accepted.
    pub share: Share,
    /// How many each gate dropped; gates that dropped none are left out.
    pub dropped: BTreeMap<String, u64>,
}

/// Acceptance by one gate.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct GateShare {
    /// The gate's name.
    pub gate: String,
    /// How many of the candidates shown to it were kept.
    pub share: Share,
}

impl Acceptance {
    /// Counts verdicts with the group each candidate was asked for. `gates` are the names of the cascade in its order
    /// (see [`Verifier::gate_names`](crate::Verifier::gate_names)).
    pub fn of<'a>(gates: &[&str], verdicts: impl IntoIterator<Item = (&'a Group, &'a Verdict)>) -> Self {
        let mut groups = BTreeMap::<&Group, (u64, u64, BTreeMap<String, u64>)>::new();
        let mut dropped = vec![0u64; gates.len()];
        let (mut kept, mut shown) = (0, 0);
        for (group, verdict) in verdicts {
            let of_group = groups.entry(group).or_default();
            shown += 1;
            of_group.1 += 1;
            if verdict.accepted {
                kept += 1;
                of_group.0 += 1;
            } else if let Some(gate) = &verdict.gate {
                *of_group.2.entry(gate.clone()).or_default() += 1;
                if let Some(at) = gates.iter().position(|name| name == gate) {
                    dropped[at] += 1;
                }
            }
        }
        let groups = groups.into_iter().map(|(group, (kept, shown, dropped))| GroupShare {
            group: group.clone(),
            share: Share::new(kept, shown),
            dropped,
        });
        let mut left = shown;
        let gates = gates.iter().zip(dropped).map(|(gate, dropped)| {
            let share = Share::new(left - dropped, left);
            left -= dropped;
            GateShare { gate: (*gate).to_owned(), share }
        });
        Self { total: Share::new(kept, shown), groups: groups.collect(), gates: gates.collect() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wilson_agrees_with_the_published_formula() {
        // Newcombe 1998, table I: 81 of 263, 15 of 148, 0 of 20, 1 of 29.
        let published = [
            ((81, 263), [0.2553, 0.3662]),
            ((15, 148), [0.0624, 0.1605]),
            ((0, 20), [0.0, 0.1611]),
            ((1, 29), [0.0061, 0.1718]),
        ];
        for ((kept, shown), expected) in published {
            let interval = wilson(kept, shown);
            for (end, expected) in interval.iter().zip(expected) {
                assert!((end - expected).abs() < 6e-5, "{kept} of {shown}: {interval:?}");
            }
        }
        assert_eq!((wilson(5, 5)[1], wilson(0, 0)), (1.0, [0.0, 1.0]));
    }

    #[test]
    fn groups_and_gates_count_what_they_were_shown() {
        let group = |colour: &str| Group::new([("colour", colour)]).unwrap();
        let verdict = |gate: Option<&str>| Verdict {
            accepted: gate.is_none(),
            reject_reason: None,
            gate: gate.map(str::to_owned),
            scores: BTreeMap::new(),
        };
        let rows = [
            (group("red"), verdict(None)),
            (group("red"), verdict(Some("novelty"))),
            (group("blue"), verdict(Some("decode"))),
            (group("red"), verdict(Some("novelty"))),
        ];
        let acceptance = Acceptance::of(&["decode", "novelty"], rows.iter().map(|(group, verdict)| (group, verdict)));
        assert_eq!((acceptance.total.kept, acceptance.total.shown), (1, 4));
        assert_eq!(acceptance.groups[1].group, group("red"));
        assert_eq!((acceptance.groups[1].share.kept, acceptance.groups[1].dropped["novelty"]), (1, 2));
        let gates: Vec<_> = acceptance.gates.iter().map(|gate| (gate.share.kept, gate.share.shown)).collect();
        assert_eq!(gates, [(3, 4), (1, 3)]);
    }
}
