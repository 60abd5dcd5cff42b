//! Rounds: generate and verify until every target is met by accepted images, or a cap ends it.

use std::collections::BTreeMap;

use evenset_core::Group;
use evenset_plan::{Acceptance, AskPolicy, GuideHistory, PlanError};
use evenset_verify::Verdict;
use serde::{Deserialize, Serialize};

use crate::stages::generate::Candidate;

/// A candidate that passed every gate.
#[derive(Clone, Debug)]
pub struct Accepted {
    /// The candidate.
    pub candidate: Candidate,
    /// What the gates said.
    pub verdict: Verdict,
}

/// How one group stands after some rounds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GroupProgress {
    /// The group.
    pub group: Group,
    /// Images that the plan adds to it.
    pub add: u64,
    /// Images that are asked for in all: more than `add` where a sweep wants them.
    pub wanted: u64,
    /// Different images that its guides can give; none where each candidate has noise of its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub possible: Option<u64>,
    /// Candidates drawn for it.
    pub requested: u64,
    /// Candidates that passed every gate.
    pub accepted: u64,
    /// How many candidates each gate dropped.
    pub dropped: BTreeMap<String, u64>,
    /// Why no more is asked for it, where its acceptance stayed under the floor.
    pub unreachable: Option<String>,
}

impl GroupProgress {
    /// Wilson's 95 % interval of the acceptance rate; `None` before the first candidate.
    pub fn acceptance_interval(&self) -> Option<[f64; 2]> {
        (self.requested > 0).then(|| evenset_verify::wilson(self.accepted, self.requested))
    }

    /// Images that it still misses.
    pub fn remaining(&self) -> u64 {
        self.add.saturating_sub(self.accepted)
    }

    /// Candidates that would not repeat an earlier one; none where there is no bound.
    fn undrawn(&self) -> Option<u64> {
        self.possible.map(|possible| possible.saturating_sub(self.requested))
    }

    /// Images that are still asked for.
    fn open(&self) -> u64 {
        self.wanted.saturating_sub(self.accepted)
    }
}

/// How all groups stand.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Progress {
    /// One entry for each group that the plan adds to, in the plan's order.
    pub groups: Vec<GroupProgress>,
    /// How the ways to start an image fared.
    pub guides: GuideHistory,
}

impl Progress {
    /// Before the first round; `factor` times what the plan adds is asked for.
    pub fn start(plan: &evenset_plan::Plan, factor: f64) -> Self {
        let missing = plan.groups.iter().filter(|group| group.add > 0);
        let start = |group: &evenset_plan::PlannedGroup| GroupProgress {
            group: group.values.clone(),
            add: group.add,
            wanted: (group.add as f64 * factor.max(1.0)).ceil() as u64,
            possible: None,
            requested: 0,
            accepted: 0,
            dropped: BTreeMap::new(),
            unreachable: None,
        };
        Self { groups: missing.map(start).collect(), guides: GuideHistory::default() }
    }

    /// Counts one more round.
    pub fn count(&mut self, candidates: &[Candidate], verdicts: &[Verdict]) {
        let mut places: BTreeMap<Group, &mut GroupProgress> =
            self.groups.iter_mut().map(|entry| (entry.group.clone(), entry)).collect();
        for (candidate, verdict) in candidates.iter().zip(verdicts) {
            let Some(entry) = places.get_mut(&candidate.request.group) else { continue };
            entry.requested += 1;
            entry.accepted += u64::from(verdict.accepted);
            if let Some(gate) = &verdict.gate {
                *entry.dropped.entry(gate.clone()).or_default() += 1;
            }
            if let Some(start) = &candidate.start {
                self.guides.count(&candidate.request.group, start.arm, verdict.accepted);
            }
        }
    }

    /// Gives up groups whose guides have nothing new to give, and groups whose acceptance rate is, by its interval, under the
    /// floor: asking on would cost far more than it brings. A group that has what the plan adds to it is not unreachable; only no more is asked for it.
    pub fn give_up(&mut self, floor: f64) {
        let open = self.groups.iter_mut().filter(|group| group.open() > 0 && group.unreachable.is_none());
        for group in open {
            let used_up = group.undrawn() == Some(0);
            let low = group.acceptance_interval().filter(|[_, high]| *high < floor);
            if group.remaining() == 0 && (used_up || low.is_some()) {
                group.wanted = group.accepted;
                continue;
            }
            if used_up {
                group.unreachable = Some(format!(
                    "{} of {} candidates were accepted, and its guides give no other images; `generate.guides` with \
                     `inversion_noise: 0.1`, more sources or `noise: true` has more",
                    group.accepted, group.requested
                ));
                continue;
            }
            let Some([low, high]) = low else { continue };
            let percent = |share: f64| format!("{:.1} %", 100.0 * share);
            let mut dropped: Vec<(&String, &u64)> = group.dropped.iter().collect();
            dropped.sort_by_key(|(gate, count)| (std::cmp::Reverse(**count), *gate));
            let gates: Vec<String> = dropped.iter().map(|(gate, count)| format!("{gate} {count}")).collect();
            group.unreachable = Some(format!(
                "{} of {} candidates were accepted ({} to {}), under the floor of {}; dropped by {}",
                group.accepted,
                group.requested,
                percent(low),
                percent(high),
                percent(floor),
                gates.join(", ")
            ));
        }
    }

    /// The accepted candidates that fill the plan (of each group the first that it needs, in the order given), and the
    /// others.
    pub fn fill(&self, accepted: Vec<Accepted>) -> (Vec<Accepted>, Vec<Accepted>) {
        let mut open: Vec<(&Group, u64)> = self.groups.iter().map(|entry| (&entry.group, entry.add)).collect();
        let mut needed = |accepted: &Accepted| {
            let group = &accepted.candidate.request.group;
            match open.iter_mut().find(|(g, _)| *g == group) {
                Some((_, left)) if *left > 0 => {
                    *left -= 1;
                    true
                }
                _ => false,
            }
        };
        accepted.into_iter().partition(|accepted| needed(accepted))
    }

    /// Images still missing over all groups.
    pub fn remaining(&self) -> u64 {
        self.groups.iter().map(GroupProgress::remaining).sum()
    }

    /// Images that can still be asked for: those of groups that have not been given up.
    pub fn reachable(&self) -> u64 {
        self.groups.iter().filter(|group| group.unreachable.is_none()).map(GroupProgress::open).sum()
    }
}

/// What the next round asks for.
///
/// # Errors
/// Where it would be more than can be held in memory.
pub fn asks(progress: &Progress, policy: &AskPolicy) -> Result<Vec<(Group, u64)>, PlanError> {
    let open = progress.groups.iter().filter(|group| group.unreachable.is_none());
    let remaining: Vec<(Group, u64)> = open.map(|g| (g.group.clone(), g.open())).collect();
    let acceptance: Vec<Acceptance> = progress
        .groups
        .iter()
        .map(|g| Acceptance { group: g.group.clone(), accepted: g.accepted, requested: g.requested })
        .collect();
    let mut asks = evenset_plan::next_asks(&remaining, &acceptance, policy)?;
    let undrawn: BTreeMap<&Group, u64> =
        progress.groups.iter().filter_map(|entry| Some((&entry.group, entry.undrawn()?))).collect();
    for (group, images) in &mut asks {
        *images = undrawn.get(group).map_or(*images, |undrawn| *undrawn.min(images));
    }
    asks.retain(|(_, images)| *images > 0);
    Ok(asks)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn progress(requested: u64, accepted: u64) -> Progress {
        let group = GroupProgress {
            group: Group::of("colour", "red"),
            add: 100,
            wanted: 100,
            possible: None,
            requested,
            accepted,
            dropped: [("novelty".to_owned(), 3), ("attributes".to_owned(), 290)].into(),
            unreachable: None,
        };
        Progress { groups: vec![group], guides: GuideHistory::default() }
    }

    #[test]
    fn a_group_is_given_up_only_where_its_interval_lies_under_the_floor() {
        let given_up = |requested, accepted, floor| {
            let mut progress = progress(requested, accepted);
            progress.give_up(floor);
            progress.groups.remove(0).unreachable
        };
        // Wilson's upper ends: 3.5 % for 3 of 250, 8.8 % for 0 of 40 (Newcombe 1998 gives 16.1 % for 0 of 20).
        assert!(given_up(250, 3, 0.02).is_none());
        assert!(given_up(40, 0, 0.05).is_none());
        let why = given_up(300, 1, 0.02).unwrap();
        assert!(why.contains("1 of 300") && why.contains("dropped by attributes 290, novelty 3"), "{why}");
        assert!(given_up(300, 1, 0.0).is_none(), "a floor of 0 gives nothing up");
    }

    #[test]
    fn a_group_that_has_what_the_plan_adds_is_not_unreachable_and_only_its_surplus_is_given_up() {
        let mut progress = progress(5000, 100);
        progress.groups[0].wanted = 300;
        progress.give_up(0.05);
        assert_eq!((progress.groups[0].unreachable.as_ref(), progress.remaining(), progress.reachable()), (None, 0, 0));
        assert!(asks(&progress, &AskPolicy::default()).unwrap().is_empty());
    }

    #[test]
    fn no_more_is_asked_of_guides_than_they_have_different_images() {
        let mut progress = progress(280, 90);
        let asked = |progress: &Progress| asks(progress, &AskPolicy::default()).unwrap();
        assert_eq!(asked(&progress)[0].1, 31, "ten are missing, and a third is accepted");
        progress.groups[0].possible = Some(300);
        assert_eq!(asked(&progress)[0].1, 20);
        progress.groups[0].requested = 300;
        progress.give_up(0.0);
        assert!(progress.groups[0].unreachable.as_ref().unwrap().contains("its guides give no other images"));
        assert!(asked(&progress).is_empty());
    }

    #[test]
    fn nothing_more_is_asked_for_a_group_that_was_given_up() {
        let mut progress = progress(300, 1);
        assert_eq!(asks(&progress, &AskPolicy::default()).unwrap()[0].1, 990);
        progress.give_up(0.02);
        assert!(asks(&progress, &AskPolicy::default()).unwrap().is_empty());
        assert_eq!((progress.remaining(), progress.reachable()), (99, 0));
    }
}
