//! The price of a plan: how many candidates have to be drawn, how long that takes, and how much memory.

use evenset_core::Group;
use serde::{Deserialize, Serialize};

use crate::{Acceptance, Plan, PlanError};

/// What one machine does.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Rates {
    /// Seconds of training before the first image.
    pub training_seconds: f64,
    /// Images drawn and checked in a second; above 0.
    pub images_per_second: f64,
    /// Bytes of memory that generating takes.
    pub memory_bytes: u64,
}

/// What a plan is expected to cost.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Price {
    /// The groups that get images, in the plan's order.
    pub groups: Vec<GroupPrice>,
    /// Candidates expected in all.
    pub candidates: f64,
    /// Candidates if every group is accepted as often, and as seldom, as its interval allows. The upper end is absent
    /// where a group's acceptance may be 0 or is unknown.
    pub candidates_range: (f64, Option<f64>),
    /// Seconds expected: training and drawing.
    pub seconds: f64,
    /// Seconds at the ends of the range of candidates.
    pub seconds_range: (f64, Option<f64>),
    /// Bytes of memory, as given.
    pub memory_bytes: u64,
}

/// What one group is expected to cost.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct GroupPrice {
    /// The group.
    pub values: Group,
    /// Images that the plan adds to it.
    pub add: u64,
    /// Candidates expected for them.
    pub candidates: f64,
    /// The share of candidates that is expected to be accepted.
    pub acceptance: f64,
    /// Wilson's 95 % interval of it, where candidates of the group were counted.
    pub interval: Option<[f64; 2]>,
    /// Where the acceptance comes from.
    pub known: Known,
}

/// Where an acceptance comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Known {
    /// Candidates of the group itself.
    Group,
    /// Candidates of all other groups together.
    Pooled,
    /// No candidate was counted: every one is taken to be accepted.
    Unknown,
}

/// Prices the images of `plan`.
///
/// A group's acceptance is `(accepted + 1) / (requested + 2)` (Laplace's rule of succession, as in
/// [`next_asks`](crate::next_asks)); a group of which nothing is known takes the same of all groups pooled, and 1 where
/// nothing is known at all.
///
/// # Errors
/// [`PlanError::Value`] for rates that are not numbers above 0, [`PlanError::Acceptance`] where more images were
/// accepted than requested.
pub fn price(plan: &Plan, acceptance: &[Acceptance], rates: &Rates) -> Result<Price, PlanError> {
    check(acceptance, rates)?;
    let (accepted, requested) = acceptance.iter().fold((0u64, 0u64), |(accepted, requested), known| {
        (accepted.saturating_add(known.accepted), requested.saturating_add(known.requested))
    });
    let asked = plan.groups.iter().filter(|group| group.add > 0);
    let groups: Vec<GroupPrice> = asked
        .map(|group| {
            let own = acceptance.iter().find(|known| known.group == group.values && known.requested > 0);
            let (share, interval, known) = match own {
                Some(own) => {
                    let interval = wilson(own.accepted, own.requested);
                    (laplace(own.accepted, own.requested), Some(interval), Known::Group)
                }
                None if requested > 0 => (laplace(accepted, requested), None, Known::Pooled),
                None => (1.0, None, Known::Unknown),
            };
            let candidates = group.add as f64 / share;
            GroupPrice { values: group.values.clone(), add: group.add, candidates, acceptance: share, interval, known }
        })
        .collect();
    let pooled = (requested > 0).then(|| wilson(accepted, requested));
    let end = |pick: fn([f64; 2]) -> f64| -> Option<f64> {
        groups.iter().map(|group| times(group.add, group.interval.or(pooled).map(pick))).sum()
    };
    let range = (end(|[_, high]| high).unwrap_or(plan.images as f64), end(|[low, _]| low));
    let candidates: f64 = groups.iter().map(|group| group.candidates).sum();
    let seconds = |candidates: f64| rates.training_seconds + candidates / rates.images_per_second;
    Ok(Price {
        candidates,
        candidates_range: range,
        seconds: seconds(candidates),
        seconds_range: (seconds(range.0), range.1.map(seconds)),
        memory_bytes: rates.memory_bytes,
        groups,
    })
}

fn check(acceptance: &[Acceptance], rates: &Rates) -> Result<(), PlanError> {
    let wrong = |key, found: f64, expected| Err(PlanError::Value { key, found: found.to_string(), expected });
    if !(rates.images_per_second > 0.0 && rates.images_per_second.is_finite()) {
        return wrong("rates.images_per_second", rates.images_per_second, "a number above 0");
    }
    if !(rates.training_seconds >= 0.0 && rates.training_seconds.is_finite()) {
        return wrong("rates.training_seconds", rates.training_seconds, "a number, 0 or more");
    }
    match acceptance.iter().find(|known| known.accepted > known.requested) {
        Some(Acceptance { group, accepted, requested }) => {
            Err(PlanError::Acceptance { group: group.clone(), accepted: *accepted, requested: *requested })
        }
        None => Ok(()),
    }
}

/// Candidates for `add` images at this share; none where the share is unknown or 0.
fn times(add: u64, share: Option<f64>) -> Option<f64> {
    share.filter(|&share| share > 0.0).map(|share| add as f64 / share)
}

fn laplace(accepted: u64, requested: u64) -> f64 {
    (accepted as f64 + 1.0) / (requested as f64 + 2.0)
}

/// The 95 % interval of an acceptance.
fn wilson(accepted: u64, requested: u64) -> [f64; 2] {
    evenset_core::wilson(accepted as f64, requested as f64, evenset_core::Z95)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{AtLeast, Limits, Target, plan};

    fn group(value: &str) -> Group {
        Group::new([("colour", value)]).unwrap()
    }

    fn rates() -> Rates {
        Rates { training_seconds: 60.0, images_per_second: 2.0, memory_bytes: 7 }
    }

    fn ten_of_each() -> Plan {
        let target = Target::AtLeast(AtLeast { images: 10, ..AtLeast::default() });
        plan(&[(group("red"), 0), (group("blue"), 0), (group("green"), 12)], &target, &Limits::default()).unwrap()
    }

    #[test]
    fn known_groups_use_their_own_acceptance_and_others_the_pooled_one() {
        let known = [Acceptance { group: group("red"), accepted: 49, requested: 98 }];
        let price = price(&ten_of_each(), &known, &rates()).unwrap();
        assert_eq!(price.groups.len(), 2);
        assert_eq!((price.groups[0].candidates, price.groups[0].known), (20.0, Known::Group));
        assert_eq!((price.groups[1].candidates, price.groups[1].known), (20.0, Known::Pooled));
        assert_eq!((price.candidates, price.seconds, price.memory_bytes), (40.0, 80.0, 7));
        let [low, high] = price.groups[0].interval.unwrap();
        assert!((low - 0.4029).abs() < 1e-3 && (high - 0.5971).abs() < 1e-3, "{low} {high}");
        let (least, most) = price.candidates_range;
        assert!((least - 20.0 / high).abs() < 1e-9 && (most.unwrap() - 20.0 / low).abs() < 1e-9);
        let json = serde_json::to_string(&price).unwrap();
        assert_eq!(serde_json::from_str::<Price>(&json).unwrap().groups[0].known, Known::Group);
    }

    #[test]
    fn without_candidates_the_price_is_the_least_and_has_no_upper_end() {
        let price = price(&ten_of_each(), &[], &rates()).unwrap();
        assert_eq!((price.groups[0].known, price.candidates), (Known::Unknown, 20.0));
        assert_eq!((price.candidates_range, price.seconds_range), ((20.0, None), (70.0, None)));
        let none = [Acceptance { group: group("red"), accepted: 0, requested: 5 }];
        assert_eq!(super::price(&ten_of_each(), &none, &rates()).unwrap().candidates_range.1, None);
    }

    #[test]
    fn impossible_rates_and_acceptance_are_refused() {
        let slow = Rates { images_per_second: 0.0, ..rates() };
        let error = price(&ten_of_each(), &[], &slow).unwrap_err().to_string();
        assert!(error.starts_with("`rates.images_per_second` is 0"), "{error}");
        let known = [Acceptance { group: group("red"), accepted: 3, requested: 2 }];
        assert!(matches!(price(&ten_of_each(), &known, &rates()), Err(PlanError::Acceptance { .. })));
    }
}
