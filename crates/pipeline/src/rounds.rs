//! Rounds: generate and verify until every target is met by accepted images, or a cap ends it.

use evenset_core::Group;
use evenset_plan::{Acceptance, AskPolicy, PlanError};
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
    /// Candidates drawn for it.
    pub requested: u64,
    /// Candidates that passed every gate.
    pub accepted: u64,
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
}

/// How all groups stand.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Progress {
    /// One entry for each group that the plan adds to, in the plan's order.
    pub groups: Vec<GroupProgress>,
}

impl Progress {
    /// Before the first round.
    pub fn start(plan: &evenset_plan::Plan) -> Self {
        let missing = plan.groups.iter().filter(|group| group.add > 0);
        let start = |group: &evenset_plan::PlannedGroup| GroupProgress {
            group: group.values.clone(),
            add: group.add,
            requested: 0,
            accepted: 0,
        };
        Self { groups: missing.map(start).collect() }
    }

    /// Counts one more candidate.
    pub fn count(&mut self, group: &Group, accepted: bool) {
        if let Some(entry) = self.groups.iter_mut().find(|entry| entry.group == *group) {
            entry.requested += 1;
            entry.accepted += u64::from(accepted);
        }
    }

    /// The accepted candidates that fill the plan: of each group the first that it needs, in the order given.
    pub fn fill(&self, accepted: Vec<Accepted>) -> Vec<Accepted> {
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
        accepted.into_iter().filter(|accepted| needed(accepted)).collect()
    }

    /// Images still missing over all groups.
    pub fn remaining(&self) -> u64 {
        self.groups.iter().map(GroupProgress::remaining).sum()
    }
}

/// What the next round asks for.
///
/// # Errors
/// Where it would be more than can be held in memory.
pub fn asks(progress: &Progress) -> Result<Vec<(Group, u64)>, PlanError> {
    let remaining: Vec<(Group, u64)> = progress.groups.iter().map(|g| (g.group.clone(), g.remaining())).collect();
    let acceptance: Vec<Acceptance> = progress
        .groups
        .iter()
        .map(|g| Acceptance { group: g.group.clone(), accepted: g.accepted, requested: g.requested })
        .collect();
    evenset_plan::next_asks(&remaining, &acceptance, &AskPolicy::default())
}
