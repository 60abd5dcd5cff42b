//! What was thrown away and why: gates, acceptance of every group, rounds, and how far the verifier can be trusted.

use minijinja::Value;
use serde::Serialize;

use super::{Folded, ratio, safe, shown, values};
use crate::ReportData;
use crate::charts::{rate_bar, stacked_bar};
use crate::data::{Calibration, GroupRow, ReasonCount};
use crate::text::{count, percent, percent_interval};

/// A matrix of more classes than this is shown as its most frequent confusions.
const LARGEST_MATRIX: usize = 12;

/// What the gates did.
#[derive(Serialize)]
pub struct Checks {
    candidates: String,
    accepted: String,
    rejected: String,
    gates: Vec<GateView>,
    groups: Folded<GroupView>,
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

/// The gates and the acceptance of every group that had candidates, the lowest rate first.
pub fn checks(data: &ReportData) -> Option<Checks> {
    let acceptance = data.acceptance.as_ref()?;
    let gates = acceptance.gates.iter().map(|gate| {
        let rate = ratio(gate.dropped, gate.checked);
        GateView {
            gate: gate.gate.clone(),
            explained: explained(&gate.gate),
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
    Some(Checks {
        candidates: count(acceptance.candidates),
        accepted: count(acceptance.accepted),
        rejected: count(acceptance.rejected),
        gates: gates.collect(),
        groups: Folded::new(groups.collect(), 24, 12),
    })
}

fn explained(gate: &str) -> &'static str {
    match gate {
        "decode" => "the file opens and is not blank",
        "attributes" => "a classifier trained on real images recognises what was asked for",
        "novelty" => "it is no near copy of a training image or of another candidate",
        "in-distribution" => "it looks like the real images of its group",
        _ => "",
    }
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

/// The verifier on one attribute.
#[derive(Serialize)]
pub struct CalibrationView {
    attribute: String,
    accuracy: String,
    images: String,
    classes: Vec<String>,
    rows: Vec<MatrixRow>,
    confusions: Vec<String>,
}

#[derive(Serialize)]
struct MatrixRow {
    name: String,
    cells: Vec<MatrixCell>,
}

#[derive(Serialize)]
struct MatrixCell {
    number: String,
    step: u64,
    diagonal: bool,
}

/// A matrix where it is small, and the most frequent confusions in words.
pub fn calibration(calibration: &Calibration) -> CalibrationView {
    let classes: Vec<String> = calibration.classes.iter().map(|class| shown(class)).collect();
    let rows = if classes.len() > LARGEST_MATRIX { Vec::new() } else { matrix(calibration, &classes) };
    CalibrationView {
        attribute: calibration.attribute.clone(),
        accuracy: percent(calibration.accuracy),
        images: count(calibration.images),
        confusions: confusions(calibration, &classes),
        classes,
        rows,
    }
}

fn matrix(calibration: &Calibration, classes: &[String]) -> Vec<MatrixRow> {
    let row = |(truth, name): (usize, &String)| {
        let counts = calibration.confusion.get(truth).map(Vec::as_slice).unwrap_or_default();
        let total: u64 = counts.iter().sum();
        let cell = |(guess, &n): (usize, &u64)| MatrixCell {
            number: if n == 0 { "·".to_owned() } else { count(n) },
            step: if n == 0 { 0 } else { ((ratio(n, total) * 7.0).ceil() as u64).clamp(1, 7) },
            diagonal: truth == guess,
        };
        MatrixRow { name: name.clone(), cells: counts.iter().take(classes.len()).enumerate().map(cell).collect() }
    };
    classes.iter().enumerate().map(row).collect()
}

/// The five most frequent confusions: `shirt taken for T-shirt (18)`.
fn confusions(calibration: &Calibration, classes: &[String]) -> Vec<String> {
    let mut pairs: Vec<(u64, &String, &String)> = Vec::new();
    for (truth, row) in classes.iter().zip(&calibration.confusion) {
        pairs.extend(
            classes.iter().zip(row).filter(|(guess, n)| *guess != truth && **n > 0).map(|(g, &n)| (n, truth, g)),
        );
    }
    pairs.sort_by_key(|&(n, _, _)| std::cmp::Reverse(n));
    pairs.iter().take(5).map(|(n, truth, guess)| format!("{truth} taken for {guess} ({})", count(*n))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ragged_or_short_matrix_is_shown_as_far_as_it_goes() {
        let view = calibration(&Calibration {
            classes: vec!["a".into(), "b".into()],
            confusion: vec![vec![5, 2, 9]],
            ..Calibration::default()
        });
        assert_eq!((view.rows[0].cells.len(), view.rows[1].cells.len()), (2, 0));
        assert_eq!(view.confusions, ["a taken for b (2)"]);
    }

    #[test]
    fn long_lists_of_reasons_end_in_how_many_others_there_are() {
        let list: Vec<ReasonCount> =
            (1..=4).map(|n| ReasonCount { reason: format!("reason {n}"), count: n * 1000 }).collect();
        assert_eq!(reasons(&list, 2), ["reason 1 (1,000)", "reason 2 (2,000)", "others (7,000)"]);
    }
}
