//! Requests: the single images that a round generates, and how many of them it asks for.

use evenset_core::{Fingerprint, Group, Seed};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{CheckedPrompts, PlanError};

/// The most images one round may ask for; requests are held in memory.
pub const MAX_REQUESTS: u64 = 10_000_000;

/// One image to be generated.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Request {
    /// Sixteen hexadecimal digits: a hash of the job seed, the group, the round and the index.
    pub id: String,
    /// The group that the image is to belong to.
    pub group: Group,
    /// The round that asks for it, from 0.
    pub round: u32,
    /// Its number among the requests for this group in this round, from 0.
    pub index: u64,
    /// The seed that all of the image's noise comes from.
    pub seed: Seed,
    /// What a text-to-image model is told to draw.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prompt: Option<String>,
    /// What it is told not to draw.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub negative_prompt: Option<String>,
}

/// The requests of one round: the groups in the order of `asks`, each with indices from 0.
///
/// A request depends on the job seed and on its own group, round and index alone, not on what else is asked for.
///
/// # Errors
/// [`PlanError::Inconsistent`] where a group stands twice, [`PlanError::TooManyRequests`] above [`MAX_REQUESTS`].
pub fn requests(job_seed: Seed, round: u32, asks: &[(Group, u64)]) -> Result<Vec<Request>, PlanError> {
    requests_with(job_seed, round, asks, None)
}

/// As [`requests`], each with its prompt where `prompts` are given.
///
/// # Errors
/// As [`requests`], and [`PlanError::Unprompted`] where a group lacks a value that its prompt names.
pub fn requests_with(
    job_seed: Seed,
    round: u32,
    asks: &[(Group, u64)],
    prompts: Option<&CheckedPrompts>,
) -> Result<Vec<Request>, PlanError> {
    let asked: u128 = asks.iter().map(|(_, n)| u128::from(*n)).sum();
    if asked > u128::from(MAX_REQUESTS) {
        return Err(PlanError::TooManyRequests { asked, limit: MAX_REQUESTS });
    }
    refuse_repeats(asks)?;
    let mut requests = Vec::with_capacity(asked as usize);
    for (group, n) in asks {
        let mut prompts = prompts.map(|prompts| prompts.of_group(job_seed, group, round));
        for index in 0..*n {
            let mut request = request(job_seed, group, round, index);
            if let Some(prompts) = &mut prompts {
                let said = prompts.prompt(index)?;
                (request.prompt, request.negative_prompt) = (Some(said.prompt), said.negative);
            }
            requests.push(request);
        }
    }
    Ok(requests)
}

fn request(job_seed: Seed, group: &Group, round: u32, index: u64) -> Request {
    let name = group.to_string();
    let parts: [(&str, &[u8]); 4] = [
        ("job seed", &job_seed.0.to_le_bytes()),
        ("group", name.as_bytes()),
        ("round", &round.to_le_bytes()),
        ("index", &index.to_le_bytes()),
    ];
    let id = Fingerprint::of(parts).as_str().chars().take(16).collect();
    let seed = Seed::of_request(job_seed, group, round, index, "image");
    Request { id, group: group.clone(), round, index, seed, prompt: None, negative_prompt: None }
}

/// How many of the images requested for a group were accepted, over all rounds so far.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Acceptance {
    /// The group.
    pub group: Group,
    /// Images that passed every gate.
    pub accepted: u64,
    /// Images that were requested.
    pub requested: u64,
}

/// How many more images than are missing a round may ask for.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct AskPolicy {
    /// Requests for each missing image as long as nothing is known of a group's acceptance; 1 or more.
    #[schemars(range(min = 1.0))]
    pub over_ask: f64,
    /// Requests for each missing image at most, however few are accepted; 1 or more.
    #[schemars(range(min = 1.0))]
    pub at_most: f64,
}

impl Default for AskPolicy {
    fn default() -> Self {
        Self { over_ask: 1.0, at_most: 10.0 }
    }
}

impl AskPolicy {
    /// Checks the values.
    ///
    /// # Errors
    /// [`PlanError::Value`], naming the key.
    pub fn validate(&self) -> Result<(), PlanError> {
        for (key, factor) in [("over_ask", self.over_ask), ("at_most", self.at_most)] {
            if !(1.0..=1e6).contains(&factor) {
                let expected = "a number from 1 to 1000000";
                return Err(PlanError::Value { key, found: factor.to_string(), expected });
            }
        }
        Ok(())
    }
}

/// How many images the next round asks for, in the order of `deficits`; groups that lack nothing are left out.
///
/// A group's deficit is divided by its acceptance so far, `(accepted + 1) / (requested + 2)` (Laplace's rule of
/// succession, so that neither none nor all of a few counts for certain), and by nothing but
/// [`over_ask`](AskPolicy::over_ask) where none was requested yet. No group asks for more than
/// [`at_most`](AskPolicy::at_most) times its deficit.
///
/// # Errors
/// [`PlanError::Value`] for the policy, [`PlanError::Inconsistent`] where a group stands twice,
/// [`PlanError::Acceptance`] where more images were accepted than requested, [`PlanError::TooManyRequests`] where one
/// group would ask for more than [`MAX_REQUESTS`].
pub fn next_asks(
    deficits: &[(Group, u64)],
    acceptance: &[Acceptance],
    policy: &AskPolicy,
) -> Result<Vec<(Group, u64)>, PlanError> {
    policy.validate()?;
    refuse_repeats(deficits)?;
    let mut asks = Vec::new();
    for (group, deficit) in deficits.iter().filter(|(_, deficit)| *deficit > 0) {
        let mut known = acceptance.iter().filter(|a| a.group == *group && a.requested > 0);
        asks.push((group.clone(), ask(*deficit, known.next(), policy)?));
        if known.next().is_some() {
            return Err(PlanError::Inconsistent(group.clone()));
        }
    }
    Ok(asks)
}

fn ask(deficit: u64, known: Option<&Acceptance>, policy: &AskPolicy) -> Result<u64, PlanError> {
    if deficit > MAX_REQUESTS {
        return Err(PlanError::TooManyRequests { asked: u128::from(deficit), limit: MAX_REQUESTS });
    }
    let times = |factor: f64| (deficit as f64 * factor).ceil() as u64;
    let wanted = match known {
        None => times(policy.over_ask),
        Some(Acceptance { group, accepted, requested }) if accepted > requested => {
            let (accepted, requested) = (*accepted, *requested);
            return Err(PlanError::Acceptance { group: group.clone(), accepted, requested });
        }
        Some(Acceptance { accepted, requested, .. }) => {
            let requests = u128::from(deficit) * (u128::from(*requested) + 2);
            u64::try_from(requests.div_ceil(u128::from(*accepted) + 1)).unwrap_or(u64::MAX)
        }
    };
    Ok(wanted.min(times(policy.at_most)).min(MAX_REQUESTS))
}

fn refuse_repeats(groups: &[(Group, u64)]) -> Result<(), PlanError> {
    let mut seen = std::collections::BTreeSet::new();
    match groups.iter().find(|(group, _)| !seen.insert(group)) {
        Some((group, _)) => Err(PlanError::Inconsistent(group.clone())),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn group(value: &str) -> Group {
        Group::new([("colour", value)]).unwrap()
    }

    fn acceptance(value: &str, accepted: u64, requested: u64) -> Acceptance {
        Acceptance { group: group(value), accepted, requested }
    }

    #[test]
    fn requests_stand_in_a_fixed_order_with_unique_ids_and_seeds() {
        let asks = [(group("red"), 40), (group("blue"), 30)];
        let mut all: Vec<Request> = (0..3).flat_map(|round| requests(Seed(7), round, &asks).unwrap()).collect();
        assert_eq!((all.len(), all[0].group.clone(), all[40].group.clone()), (210, group("red"), group("blue")));
        assert_eq!(all[..40].iter().map(|r| r.index).collect::<Vec<_>>(), (0..40).collect::<Vec<_>>());
        assert_eq!((all[70].round, all[0].id.len()), (1, 16));
        let seeds: std::collections::BTreeSet<Seed> = all.iter().map(|r| r.seed).collect();
        all.sort_by(|a, b| a.id.cmp(&b.id));
        all.dedup_by(|a, b| a.id == b.id);
        assert_eq!((all.len(), seeds.len()), (210, 210));
    }

    #[test]
    fn a_request_does_not_depend_on_what_else_is_asked_for() {
        let few = requests(Seed(7), 1, &[(group("blue"), 2)]).unwrap();
        let many = requests(Seed(7), 1, &[(group("red"), 9), (group("blue"), 5)]).unwrap();
        assert_eq!(few[..], many[9..11]);
        assert_ne!(few[0].id, requests(Seed(8), 1, &[(group("blue"), 1)]).unwrap()[0].id);
    }

    #[test]
    fn repeated_groups_and_too_many_requests_are_refused_before_they_are_made() {
        let twice = requests(Seed(7), 0, &[(group("red"), 1), (group("red"), 1)]);
        assert_eq!(twice, Err(PlanError::Inconsistent(group("red"))));
        let many = requests(Seed(7), 0, &[(group("red"), u64::MAX), (group("blue"), u64::MAX)]);
        assert!(many.unwrap_err().to_string().contains("set `limits.images`"));
    }

    #[test]
    fn the_first_round_asks_for_the_deficit_times_the_over_ask() {
        let deficits = [(group("red"), 10), (group("blue"), 0), (group("green"), 3)];
        let asks = next_asks(&deficits, &[], &AskPolicy::default()).unwrap();
        assert_eq!(asks, [(group("red"), 10), (group("green"), 3)]);
        let policy = AskPolicy { over_ask: 1.25, ..AskPolicy::default() };
        assert_eq!(next_asks(&deficits, &[], &policy).unwrap(), [(group("red"), 13), (group("green"), 4)]);
    }

    #[test]
    fn later_rounds_divide_by_the_acceptance_and_never_ask_beyond_the_cap() {
        let deficits = [(group("red"), 10), (group("blue"), 10), (group("green"), 10)];
        let known = [acceptance("red", 49, 98), acceptance("blue", 0, 98), acceptance("green", 98, 98)];
        let asks = next_asks(&deficits, &known, &AskPolicy::default()).unwrap();
        // 10 * 100 / 50, 10 * 10, and 10 * 100 / 99 rounded up.
        assert_eq!(asks, [(group("red"), 20), (group("blue"), 100), (group("green"), 11)]);
    }

    #[test]
    fn impossible_acceptance_and_policies_are_refused() {
        let deficits = [(group("red"), 10)];
        let error = next_asks(&deficits, &[acceptance("red", 3, 2)], &AskPolicy::default()).unwrap_err();
        assert!(error.to_string().starts_with("group `colour=red` has 3 accepted of 2"), "{error}");
        for over_ask in [0.5, f64::NAN, f64::INFINITY] {
            let policy = AskPolicy { over_ask, ..AskPolicy::default() };
            assert!(matches!(next_asks(&deficits, &[], &policy), Err(PlanError::Value { key: "over_ask", .. })));
        }
        let huge = next_asks(&[(group("red"), u64::MAX)], &[], &AskPolicy::default());
        assert!(matches!(huge, Err(PlanError::TooManyRequests { .. })));
    }
}
