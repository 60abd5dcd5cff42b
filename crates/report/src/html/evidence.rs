//! Whether it helped: every arm with its interval, and every group under the first arm and the last.

use minijinja::Value;
use serde::Serialize;

use super::{Folded, safe, unbroken, values};
use crate::charts::{Scale, axis, dot_on_interval, paired_dots};
use crate::data::{Arm, Evidence, Interval};
use crate::text::{count, percent, percent_interval, points, signed_points};

/// The evidence as it is shown.
#[derive(Serialize)]
pub struct EvidenceView {
    sentence: String,
    seeds: u32,
    arms: Vec<ArmRow>,
    axis: Value,
    groups: Option<Groups>,
}

#[derive(Serialize)]
struct ArmRow {
    name: String,
    explained: &'static str,
    made: bool,
    worst: Measure,
    overall: Measure,
    gap: String,
}

#[derive(Serialize)]
struct Measure {
    value: String,
    interval: String,
    chart: Value,
}

#[derive(Serialize)]
struct Groups {
    before: String,
    after: String,
    summary: String,
    rows: Folded<PairRow>,
    axis: Value,
}

#[derive(Serialize)]
struct PairRow {
    values: Vec<String>,
    before: String,
    after: String,
    change: String,
    worse: bool,
    chart: Value,
}

/// The view of the evidence; `None` without arms.
pub fn evidence(evidence: &Evidence) -> Option<EvidenceView> {
    let last = evidence.arms.len().checked_sub(1)?;
    let scale = Scale::of_shares(evidence.arms.iter().flat_map(|arm| {
        let ends = [arm.worst_group_interval, arm.accuracy_interval].into_iter().flatten().flatten();
        ends.chain([arm.worst_group, arm.accuracy])
    }));
    let row = |(i, arm): (usize, &Arm)| {
        let made = i == last && last > 0;
        ArmRow {
            name: arm.name.clone(),
            explained: explained(&arm.name),
            made,
            worst: measure(arm.worst_group, arm.worst_group_interval, &scale, made),
            overall: measure(arm.accuracy, arm.accuracy_interval, &scale, made),
            gap: arm.gap.map(points).unwrap_or_default(),
        }
    };
    Some(EvidenceView {
        sentence: unbroken(&evidence.sentence),
        seeds: evidence.seeds,
        arms: evidence.arms.iter().enumerate().map(row).collect(),
        axis: safe(axis(&scale, points)),
        groups: groups(evidence),
    })
}

fn explained(arm: &str) -> &'static str {
    match arm {
        "as-is" => "real data, unchanged",
        "oversample" => "rare groups drawn more often",
        "reweight" => "rare groups weighted up",
        "augment" => "rare groups varied",
        "balanced" => "real and generated images",
        _ => "",
    }
}

fn measure(value: f64, interval: Option<Interval>, scale: &Scale, made: bool) -> Measure {
    Measure {
        value: percent(value),
        interval: interval.map(percent_interval).unwrap_or_default(),
        chart: safe(dot_on_interval(value, interval, scale, if made { "made" } else { "real" })),
    }
}

/// Every group under the first arm and the last, the weakest first.
fn groups(evidence: &Evidence) -> Option<Groups> {
    let (first, last) = (evidence.arms.first()?, evidence.arms.last()?);
    let mut pairs: Vec<_> = first
        .groups
        .iter()
        .filter_map(|before| Some((before, last.groups.iter().find(|after| after.values == before.values)?)))
        .filter(|(before, after)| before.accuracy.is_finite() && after.accuracy.is_finite())
        .collect();
    if evidence.arms.len() < 2 || pairs.is_empty() {
        return None;
    }
    pairs.sort_by(|(a, _), (b, _)| a.accuracy.total_cmp(&b.accuracy));
    let scale = Scale::of_shares(pairs.iter().flat_map(|(before, after)| [before.accuracy, after.accuracy]));
    let rows = pairs.iter().map(|(before, after)| PairRow {
        values: values(&before.values),
        before: percent(before.accuracy),
        after: percent(after.accuracy),
        change: signed_points(after.accuracy - before.accuracy),
        worse: after.accuracy < before.accuracy,
        chart: safe(paired_dots(before.accuracy, after.accuracy, &scale)),
    });
    let changes: Vec<f64> = pairs.iter().map(|(before, after)| after.accuracy - before.accuracy).collect();
    Some(Groups {
        before: first.name.clone(),
        after: last.name.clone(),
        summary: summary(&changes),
        rows: Folded::new(rows.collect(), 60, 40),
        axis: safe(axis(&scale, points)),
    })
}

fn summary(changes: &[f64]) -> String {
    let of = |keep: fn(&f64) -> bool| changes.iter().copied().filter(keep).collect::<Vec<_>>();
    let (better, worse) = (of(|change| *change > 0.0), of(|change| *change < 0.0));
    let mut text = format!("{} of {} groups do better", count(better.len() as u64), count(changes.len() as u64));
    if let Some(most) = better.iter().copied().reduce(f64::max) {
        text.push_str(&format!(" (by up to {} points)", points(most)));
    }
    match worse.iter().copied().reduce(f64::min) {
        Some(most) => {
            text.push_str(&format!(", {} worse (by up to {} points).", count(worse.len() as u64), points(-most)))
        }
        None => text.push_str(", none worse."),
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_summary_counts_gains_and_losses() {
        let text = summary(&[0.2, 0.05, -0.03, 0.0]);
        assert_eq!(text, "2 of 4 groups do better (by up to 20 points), 1 worse (by up to 3 points).");
        assert_eq!(summary(&[0.1]), "1 of 1 groups do better (by up to 10 points), none worse.");
    }
}
