//! What was thrown away and why: gates, acceptance of every group, groups that were given up, ways to start, rounds.

use minijinja::Value;
use serde::Serialize;

use super::{Folded, ratio, safe, spoken, unbroken, values};
use crate::ReportData;
use crate::charts::{rate_bar, stacked_bar};
use crate::data::{BiasWarning, GroupRow, ReasonCount};
use crate::text::{count, p_value, percent, percent_interval, plural};
use crate::words::gate_explained;

/// What the gates did.
#[derive(Serialize)]
pub struct Checks {
    candidates: String,
    accepted: String,
    rejected: String,
    gates: Vec<GateView>,
    bias: Vec<String>,
    groups: Folded<GroupView>,
    given_up: Folded<GivenUp>,
    guides: Vec<GuideView>,
}

#[derive(Serialize)]
struct GateView {
    gate: String,
    explained: &'static str,
    checked: String,
    dropped: String,
    rate: String,
    reasons: Vec<String>,
    chart: Value,
}

#[derive(Serialize)]
struct GroupView {
    values: Vec<String>,
    drawn: String,
    accepted: String,
    rate: String,
    interval: String,
    reasons: Vec<String>,
    chart: Value,
}

#[derive(Serialize)]
struct GivenUp {
    values: Vec<String>,
    why: String,
}

#[derive(Serialize)]
struct GuideView {
    name: String,
    accepted: String,
    drawn: String,
    rate: String,
    interval: String,
    chart: Value,
}

/// The gates and the acceptance of every group that had candidates, the lowest rate first.
pub fn checks(data: &ReportData) -> Option<Checks> {
    let acceptance = data.acceptance.as_ref()?;
    let gates = acceptance.gates.iter().map(|gate| {
        let rate = ratio(gate.dropped, gate.checked);
        GateView {
            gate: gate.gate.clone(),
            explained: gate_explained(&gate.gate),
            checked: count(gate.checked),
            dropped: count(gate.dropped),
            rate: percent(rate),
            reasons: reasons(&gate.reasons, 6),
            chart: safe(rate_bar(rate, None, "dropped")),
        }
    });
    let mut groups: Vec<&GroupRow> = data.groups.iter().filter(|group| group.generated > 0).collect();
    groups.sort_by(|a, b| ratio(a.accepted, a.generated).total_cmp(&ratio(b.accepted, b.generated)));
    let groups = groups.into_iter().map(|group| {
        let rate = ratio(group.accepted, group.generated);
        GroupView {
            values: values(&group.values),
            drawn: count(group.generated),
            accepted: count(group.accepted),
            rate: percent(rate),
            interval: group.acceptance_interval.map(percent_interval).unwrap_or_default(),
            reasons: reasons(&group.reasons, 3),
            chart: safe(rate_bar(rate, group.acceptance_interval, "made")),
        }
    });
    let given_up = data.groups.iter().filter_map(|group| {
        Some(GivenUp { values: values(&group.values), why: unbroken(group.unreachable.as_ref()?) })
    });
    Some(Checks {
        candidates: count(acceptance.candidates),
        accepted: count(acceptance.accepted),
        rejected: count(acceptance.rejected),
        gates: gates.collect(),
        bias: data.checks.iter().flat_map(|checks| &checks.bias).map(biased).collect(),
        groups: Folded::new(groups.collect(), 16, 8),
        given_up: Folded::new(given_up.collect(), 12, 8),
        guides: guides(data),
    })
}

/// A group that the gates reject far more than the others, in words.
pub fn biased(warning: &BiasWarning) -> String {
    let BiasWarning { group, accepted, others, p, gate, gate_dropped, gate_dropped_others } = warning;
    let rate = |rate: &crate::Rate| {
        let interval = rate.interval.map(|interval| format!(" ({})", percent_interval(interval))).unwrap_or_default();
        format!("{} of {}{interval}", percent(rate.rate()), plural(rate.shown, "candidate", "candidates"))
    };
    let mut text = format!(
        "The checks throw away far more of {} than of the others: {} are accepted, against {} elsewhere ({}).",
        spoken(group),
        rate(accepted),
        rate(others),
        p_value(*p)
    );
    if let Some(gate) = gate {
        text.push_str(&format!(
            " Most of it is the check “{gate}”, which drops {} of them and {} of the others.",
            percent(*gate_dropped),
            percent(*gate_dropped_others)
        ));
    }
    unbroken(&text)
}

/// The ways to start an image, the one with the highest rate first; those that were never tried are last.
fn guides(data: &ReportData) -> Vec<GuideView> {
    let mut guides: Vec<_> = data.checks.iter().flat_map(|checks| &checks.guides).collect();
    guides
        .sort_by(|a, b| b.accepted.rate().total_cmp(&a.accepted.rate()).then(b.accepted.shown.cmp(&a.accepted.shown)));
    let view = |guide: &&crate::GuideRow| {
        let tried = guide.accepted.shown > 0;
        let interval = guide.accepted.interval.filter(|_| tried);
        GuideView {
            name: guide.name.clone(),
            accepted: count(guide.accepted.kept),
            drawn: count(guide.accepted.shown),
            rate: if tried { percent(guide.accepted.rate()) } else { "not tried".to_owned() },
            interval: interval.map(percent_interval).unwrap_or_default(),
            chart: safe(rate_bar(guide.accepted.rate(), interval, "made")),
        }
    };
    guides.iter().map(view).collect()
}

/// The first `most` reasons with their counts, and how many rows the others are.
fn reasons(reasons: &[ReasonCount], most: usize) -> Vec<String> {
    let text = |reason: &ReasonCount| format!("{} ({})", reason.reason, count(reason.count));
    let mut texts: Vec<String> = reasons.iter().take(most).map(text).collect();
    let others: u64 = reasons.iter().skip(most).map(|reason| reason.count).sum();
    if others > 0 {
        texts.push(format!("others ({})", count(others)));
    }
    texts
}

/// One round.
#[derive(Serialize)]
pub struct RoundRow {
    round: u32,
    requested: String,
    accepted: String,
    remaining: String,
    chart: Value,
}

/// The rounds; the mark on each bar is what was drawn, the bar what was accepted.
pub fn rounds(data: &ReportData) -> Vec<RoundRow> {
    let largest = data.rounds.iter().map(|round| round.requested).max().unwrap_or(0);
    data.rounds
        .iter()
        .map(|round| RoundRow {
            round: round.round,
            requested: count(round.requested),
            accepted: count(round.accepted),
            remaining: count(round.remaining),
            chart: safe(stacked_bar(0, round.accepted, Some(round.requested), largest)),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_lists_of_reasons_end_in_how_many_others_there_are() {
        let list: Vec<ReasonCount> =
            (1..=4).map(|n| ReasonCount { reason: format!("reason {n}"), count: n * 1000 }).collect();
        assert_eq!(reasons(&list, 2), ["reason 1 (1,000)", "reason 2 (2,000)", "others (7,000)"]);
    }
}
