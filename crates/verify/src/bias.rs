//! Whether the gates reject some groups far more than the others: at equal requests, nothing else undoes a plan so quietly.

use evenset_core::Group;
use serde::{Deserialize, Serialize};

use crate::{Acceptance, GroupShare, Share};

/// Warnings are given where chance explains the difference in fewer than one of so many audits.
const LEVEL: f64 = 0.05;
/// A group is warned about only if its rate is below this part of the others' rate: what is certain may still be small.
const PART: f64 = 0.5;
/// And only if its rate is this much below theirs: where next to nothing of any group is accepted, the gates are not unfair
/// but the images are no good.
const LEAST: f64 = 0.05;

/// A group that is rejected far more than the others.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct BiasWarning {
    /// The group that was asked for.
    pub group: Group,
    /// How many of its candidates were accepted.
    pub share: Share,
    /// How many of all other groups' candidates were accepted.
    pub others: Share,
    /// The probability of so few accepted candidates if groups made no difference, corrected for the number of groups.
    pub p_value: f64,
    /// The gate that explains most of the difference.
    pub gate: Option<String>,
    /// The share of the group's candidates that this gate dropped, in 0..=1.
    pub gate_dropped: f64,
    /// The share of the others' candidates that it dropped, in 0..=1.
    pub gate_dropped_others: f64,
    /// All this in words.
    pub sentence: String,
}

/// The groups that the gates reject far more than the others, in the groups' order.
///
/// Each group is held against all others by Fisher's exact test (one-sided), corrected for the number of groups by Holm's
/// method at 5 %. A warning also needs a rate below half of the others' and at least five points below it, and 95 % intervals (Wilson)
/// that do not touch.
pub fn bias_warnings(acceptance: &Acceptance) -> Vec<BiasWarning> {
    let tables: Vec<(&GroupShare, Share)> = acceptance
        .groups
        .iter()
        .filter(|group| group.share.shown > 0 && group.share.shown < acceptance.total.shown)
        .map(|group| (group, less(&acceptance.total, &group.share)))
        .collect();
    let logs = log_factorials(acceptance.total.shown);
    let p_values: Vec<f64> = tables.iter().map(|(group, others)| fisher(&logs, &group.share, others)).collect();
    let corrected = holm(&p_values);
    let judged = tables.into_iter().zip(corrected);
    judged
        .filter(|((group, others), p_value)| {
            let share = &group.share;
            let far = share.rate < PART * others.rate && others.rate - share.rate >= LEAST;
            *p_value < LEVEL && far && share.interval[1] < others.interval[0]
        })
        .map(|((group, others), p_value)| warning(acceptance, group, others, p_value))
        .collect()
}

fn less(total: &Share, part: &Share) -> Share {
    Share::new(total.kept.saturating_sub(part.kept), total.shown.saturating_sub(part.shown))
}

fn warning(acceptance: &Acceptance, group: &GroupShare, others: Share, p_value: f64) -> BiasWarning {
    let dropped_by = |gate: &str| {
        let of_group = group.dropped.get(gate).copied().unwrap_or(0);
        let of_all: u64 = acceptance.groups.iter().filter_map(|other| other.dropped.get(gate)).sum();
        (of_group as f64 / group.share.shown as f64, (of_all - of_group) as f64 / others.shown as f64)
    };
    let by_gate = group.dropped.keys().map(|gate| (gate, dropped_by(gate)));
    // Of gates that explain as much the first by name.
    let most = by_gate.fold(None, |most: Option<(&String, (f64, f64))>, this| match most {
        Some((_, (a, b))) if a - b >= this.1.0 - this.1.1 => most,
        _ => Some(this),
    });
    let (gate, (gate_dropped, gate_dropped_others)) =
        most.map_or((None, (0.0, 0.0)), |(gate, d)| (Some(gate.clone()), d));
    let percent = |share: f64| format!("{:.0} %", 100.0 * share);
    let told = |share: &Share| {
        let [low, high] = share.interval.map(percent);
        format!("{} of {} ({low} to {high})", percent(share.rate), share.shown)
    };
    let mut sentence =
        format!("{} is accepted in {}, all other groups in {}", group.group, told(&group.share), told(&others));
    if let Some(gate) = &gate {
        let (of_group, of_others) = (percent(gate_dropped), percent(gate_dropped_others));
        sentence += &format!("; most of the difference is `{gate}`, which drops {of_group} against {of_others}");
    }
    BiasWarning {
        group: group.group.clone(),
        share: group.share,
        others,
        p_value,
        gate,
        gate_dropped,
        gate_dropped_others,
        sentence,
    }
}

/// `ln n!` for 0..=n.
fn log_factorials(n: u64) -> Vec<f64> {
    let mut sum = 0.0;
    (0..=n)
        .map(|i| {
            sum += (i.max(1) as f64).ln();
            sum
        })
        .collect()
}

/// Fisher's exact test, one-sided: the probability that of all kept candidates at most as many fall into the group.
fn fisher(logs: &[f64], group: &Share, others: &Share) -> f64 {
    let log = |n: u64| logs.get(n as usize).copied().unwrap_or(f64::INFINITY);
    let choose = |n: u64, k: u64| log(n) - log(k) - log(n - k);
    let (kept, shown) = (group.kept + others.kept, group.shown + others.shown);
    let all = choose(shown, kept);
    let fewest = kept.saturating_sub(others.shown);
    let terms = (fewest..=group.kept).map(|k| (choose(group.shown, k) + choose(others.shown, kept - k) - all).exp());
    terms.sum::<f64>().min(1.0)
}

/// Holm's step-down correction, in the order of the values (Holm 1979).
fn holm(p_values: &[f64]) -> Vec<f64> {
    let mut order: Vec<usize> = (0..p_values.len()).collect();
    order.sort_by(|&a, &b| p_values[a].total_cmp(&p_values[b]));
    let mut corrected = vec![0.0; p_values.len()];
    let mut largest = 0.0f64;
    for (rank, i) in order.into_iter().enumerate() {
        largest = largest.max((p_values[i] * (p_values.len() - rank) as f64).min(1.0));
        corrected[i] = largest;
    }
    corrected
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use evenset_core::Seed;
    use rand::RngExt;

    use super::*;

    /// A group's name, how many were kept and shown, and how many each gate dropped.
    type Row<'a> = (&'a str, u64, u64, &'a [(&'a str, u64)]);

    fn acceptance(groups: &[Row<'_>]) -> Acceptance {
        let group = |&(name, kept, shown, dropped): &Row<'_>| GroupShare {
            group: Group::of("colour", name),
            share: Share::new(kept, shown),
            dropped: dropped.iter().map(|&(gate, count)| (gate.to_owned(), count)).collect::<BTreeMap<_, _>>(),
        };
        let total = groups.iter().fold((0, 0), |sum, group| (sum.0 + group.1, sum.1 + group.2));
        Acceptance {
            total: Share::new(total.0, total.1),
            groups: groups.iter().map(group).collect(),
            gates: Vec::new(),
        }
    }

    #[test]
    fn a_group_that_one_gate_rejects_is_named_with_the_gate() {
        let found = bias_warnings(&acceptance(&[
            ("blue", 12, 100, &[("attributes", 80), ("novelty", 8)]),
            ("green", 70, 100, &[("attributes", 10), ("novelty", 20)]),
            ("red", 74, 100, &[("attributes", 10), ("novelty", 16)]),
        ]));
        assert_eq!(found.len(), 1);
        let warning = &found[0];
        assert_eq!((warning.group.to_string().as_str(), warning.gate.as_deref()), ("colour=blue", Some("attributes")));
        assert_eq!((warning.gate_dropped, warning.gate_dropped_others), (0.8, 0.1));
        assert_eq!(
            warning.sentence,
            "colour=blue is accepted in 12 % of 100 (7 % to 20 %), all other groups in 72 % of 200 (65 % to 78 %); most of the difference is `attributes`, which drops 80 % against 10 %"
        );
    }

    #[test]
    fn a_certain_but_small_difference_and_a_large_but_uncertain_one_are_no_warning() {
        assert_eq!(bias_warnings(&acceptance(&[("blue", 6000, 10_000, &[]), ("red", 9000, 10_000, &[])])), []);
        assert_eq!(bias_warnings(&acceptance(&[("blue", 0, 3, &[]), ("red", 70, 100, &[])])), []);
        assert_eq!(bias_warnings(&acceptance(&[("blue", 0, 50, &[])])), [], "nothing to compare with");
        assert_eq!(bias_warnings(&Acceptance::default()), []);
    }

    #[test]
    fn equal_groups_are_hardly_ever_warned_about() {
        let mut rng = Seed(1).rng();
        let mut warned = 0;
        for _ in 0..300 {
            let names: Vec<String> = (0..20).map(|i| i.to_string()).collect();
            let groups: Vec<Row<'_>> = names
                .iter()
                .map(|name| (name.as_str(), (0..30).filter(|_| rng.random_bool(0.4)).count() as u64, 30, &[][..]))
                .collect();
            warned += u32::from(!bias_warnings(&acceptance(&groups)).is_empty());
        }
        assert!(warned <= 15, "{warned} of 300 audits of equal groups");
    }

    #[test]
    fn fisher_and_holm_agree_with_published_figures() {
        // Fisher's tea: 3 of 4 guessed right has p = 0.243; the lower tail of 1 of 4 is the same.
        let logs = log_factorials(8);
        let p = fisher(&logs, &Share::new(1, 4), &Share::new(3, 4));
        assert!((p - 17.0 / 70.0).abs() < 1e-12, "{p}");
        let corrected = holm(&[0.01, 0.04, 0.03, 0.005]);
        for (found, expected) in corrected.iter().zip([0.03, 0.06, 0.06, 0.02]) {
            assert!((found - expected).abs() < 1e-12, "{corrected:?}");
        }
    }
}
