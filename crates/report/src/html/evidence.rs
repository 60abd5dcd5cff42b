//! Whether it helped: every arm with its interval, how many images are enough, and every group before and after.

use minijinja::Value;
use serde::Serialize;

use super::{Folded, safe, unbroken, values};
use crate::charts::{Scale, axis, dot_on_interval, paired_dots, sweep_chart};
use crate::data::{Arm, Evidence, Gain, HeldOut, HeldOutGroup, Interval, SkippedArm, Sweep};
use crate::text::{count, number, p_value, percent, percent_interval, plural, points, signed_interval, signed_points};
use crate::words::{arm_explained, sees_generated};

/// Classes without a test image that are named.
const UNTESTED_NAMED: usize = 5;

/// The evidence as it is shown.
#[derive(Serialize)]
pub struct EvidenceView {
    finding: String,
    seeds: u32,
    /// The arms without generated images, then those with them.
    parts: Vec<ArmPart>,
    axis: Value,
    measured: Vec<MeasuredRow>,
    notes: Vec<ArmNote>,
    skipped: Vec<SkippedArm>,
    test_images: String,
    sweep: Option<SweepView>,
    held_out: Option<HeldOutView>,
    groups: Option<Groups>,
}

#[derive(Serialize)]
struct ArmPart {
    title: &'static str,
    made: bool,
    rows: Vec<ArmRow>,
}

#[derive(Serialize)]
struct ArmRow {
    name: String,
    explained: &'static str,
    /// What the reader is to look at: the arm that answers, or the best baseline.
    mark: &'static str,
    worst: String,
    interval: String,
    chart: Value,
    against: String,
    against_interval: String,
    accuracy: String,
    gap: String,
}

#[derive(Serialize)]
struct MeasuredRow {
    name: String,
    /// Accuracy, balanced accuracy, gap, equalised odds, calibration error.
    figures: Vec<Measure>,
    real: String,
    generated: String,
}

#[derive(Serialize)]
struct Measure {
    value: String,
    interval: String,
}

#[derive(Serialize)]
struct ArmNote {
    name: String,
    note: String,
}

#[derive(Serialize)]
struct SweepView {
    sentence: String,
    chart: Option<Value>,
    rows: Vec<SweepRow>,
}

#[derive(Serialize)]
struct SweepRow {
    share: String,
    images: String,
    worst: String,
    interval: String,
    accuracy: String,
    plateau: bool,
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
struct HeldOutView {
    sentence: String,
    rows: Vec<HeldOutRow>,
}

#[derive(Serialize)]
struct HeldOutRow {
    name: String,
    explained: &'static str,
    accuracy: String,
    accuracy_interval: String,
    worst: String,
    worst_interval: String,
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
    let balanced = evidence.balanced()?;
    let best = evidence.best_baseline().map(|arm| arm.name.as_str());
    let ends = |arm: &Arm| arm.worst_group_interval.into_iter().flatten().chain([arm.worst_group]).collect::<Vec<_>>();
    let scale = Scale::of_shares(evidence.arms.iter().flat_map(ends));
    let row = |arm: &Arm| {
        let class = if sees_generated(&arm.name) { "made" } else { "real" };
        let against = arm.against_best.as_ref();
        ArmRow {
            name: arm.name.clone(),
            explained: arm_explained(&arm.name),
            mark: match arm.name.as_str() {
                name if name == balanced.name => "the verdict",
                name if Some(name) == best => "best baseline",
                _ => "",
            },
            worst: percent(arm.worst_group),
            interval: arm.worst_group_interval.map(percent_interval).unwrap_or_default(),
            chart: safe(dot_on_interval(arm.worst_group, arm.worst_group_interval, &scale, class)),
            against: against.map(|gain| signed_points(gain.worst_group)).unwrap_or_default(),
            against_interval: against.map(|gain| signed_interval(gain.interval)).unwrap_or_default(),
            accuracy: percent(arm.accuracy),
            gap: arm.gap.map(points).unwrap_or_default(),
        }
    };
    let part = |title, made| {
        let rows = evidence.arms.iter().filter(|arm| sees_generated(&arm.name) == made).map(row).collect();
        ArmPart { title, made, rows }
    };
    let parts = [part("without generated images", false), part("with generated images", true)];
    let note = |arm: &Arm| Some(ArmNote { name: arm.name.clone(), note: arm.note.clone()? });
    Some(EvidenceView {
        finding: unbroken(&finding(evidence)),
        seeds: evidence.seeds,
        parts: parts.into_iter().filter(|part| !part.rows.is_empty()).collect(),
        axis: safe(axis(&scale, points)),
        measured: evidence.arms.iter().map(measured).collect(),
        notes: evidence.arms.iter().filter_map(note).collect(),
        skipped: evidence.skipped.clone(),
        test_images: test_images(evidence),
        sweep: evidence.sweep.as_ref().map(sweep),
        held_out: evidence.held_out.as_ref().map(held_out_view),
        groups: groups(evidence),
    })
}

/// The comparison that the verdict rests on, in words.
fn finding(evidence: &Evidence) -> String {
    let (Some(gain), Some(balanced)) = (&evidence.gain, evidence.balanced()) else {
        return evidence.sentence.clone();
    };
    let told = |gain: &Gain| {
        let interval = signed_interval(gain.interval);
        format!("{} points in the worst group (95 % interval {interval})", signed_points(gain.worst_group))
    };
    let mut text = format!(
        "What counts is “{}” against “{}”, the best arm without generated images: {}.",
        balanced.name,
        gain.over,
        told(gain)
    );
    if let Some(p) = gain.p {
        text.push_str(&format!(" By the test images alone, leaving out the luck of training: {}.", p_value(p)));
    }
    if let Some(as_is) = evidence.gain_as_is.as_ref().filter(|as_is| as_is.over != gain.over) {
        text.push_str(&format!(" Against the data as it was: {}.", told(as_is)));
    }
    let better = evidence.arms.iter().filter(|arm| sees_generated(&arm.name) && arm.worst_group > balanced.worst_group);
    if let Some(best) = better.max_by(|a, b| a.worst_group.total_cmp(&b.worst_group)) {
        text.push_str(&format!(
            " “{}” reaches {}, but the verdict rests on “{}”, which was chosen beforehand.",
            best.name,
            percent(best.worst_group),
            balanced.name
        ));
    }
    text
}

fn measured(arm: &Arm) -> MeasuredRow {
    let share = |value: Option<f64>, interval: Option<Interval>| Measure {
        value: value.map(percent).unwrap_or_default(),
        interval: interval.map(percent_interval).unwrap_or_default(),
    };
    let difference = |value: Option<f64>, interval: Option<Interval>| Measure {
        value: value.map(points).unwrap_or_default(),
        interval: interval.map(percent_interval).unwrap_or_default(),
    };
    let images = |images: Option<u64>| images.map(count).unwrap_or_default();
    MeasuredRow {
        name: arm.name.clone(),
        figures: vec![
            share(Some(arm.accuracy), arm.accuracy_interval),
            share(arm.balanced_accuracy, arm.balanced_accuracy_interval),
            difference(arm.gap, arm.gap_interval),
            difference(arm.equalised_odds, arm.equalised_odds_interval),
            share(arm.calibration_error, arm.calibration_error_interval),
        ],
        real: images(arm.real_images),
        generated: images(arm.generated_images),
    }
}

/// What must be known of the test images: which no arm was tried on, and what they do not show; empty where there is
/// nothing to say.
pub(crate) fn test_images(evidence: &Evidence) -> String {
    let because = |images: u64, why: &str| {
        (images > 0).then(|| format!("{} left out because {why}", plural(images, "test image was", "test images were")))
    };
    let parts = [
        because(evidence.overlapping, "the same image, or nearly the same, stands in another split too"),
        because(evidence.unlabelled, "a value of the label or of an attribute is missing"),
        because(evidence.unseen, "no training image has the class"),
        untested(&evidence.untested),
        evidence.all_below.map(|limit| {
            format!(
                "No group has {limit} test images (`evidence.smallest_group`), so all of them count as the worst group, \
                 though in so few images it is mostly luck"
            )
        }),
    ];
    parts.into_iter().flatten().map(|part| format!("{part}.")).collect::<Vec<_>>().join(" ")
}

/// That no test image shows these classes.
fn untested(classes: &[String]) -> Option<String> {
    let (first, more) = classes.split_at(classes.len().min(UNTESTED_NAMED));
    let named = first.iter().map(|class| format!("\u{201c}{class}\u{201d}")).collect::<Vec<_>>().join(", ");
    match (first, more) {
        ([], _) => None,
        (_, []) => Some(format!("No test image shows {named}: the figures say nothing of that")),
        _ => Some(format!(
            "No test image shows {named} and {} more classes: the figures say nothing of them",
            more.len()
        )),
    }
}

fn held_out_view(held_out: &HeldOut) -> HeldOutView {
    let row = |arm: &Arm| HeldOutRow {
        name: arm.name.clone(),
        explained: arm_explained(&arm.name),
        accuracy: percent(arm.accuracy),
        accuracy_interval: arm.accuracy_interval.map(percent_interval).unwrap_or_default(),
        worst: percent(arm.worst_group),
        worst_interval: arm.worst_group_interval.map(percent_interval).unwrap_or_default(),
    };
    HeldOutView { sentence: composed(held_out), rows: held_out.arms.iter().map(row).collect() }
}

/// What was held out and what came of it, in words.
pub(crate) fn composed(held_out: &HeldOut) -> String {
    let group = |of: &HeldOutGroup| format!("{} ({} of {} accepted)", of.group, count(of.accepted), count(of.composed));
    let groups: Vec<String> = held_out.groups.iter().map(group).collect();
    let gain = held_out.gain.as_ref().map(|gain| {
        format!(
            " With these images, the worst of these groups changes by {} points ({}) against {}.",
            signed_points(gain.worst_group),
            signed_interval(gain.interval),
            gain.over
        )
    });
    format!(
        "Taken out of everything, composed all the same, and tried on {} real test images of their own: {}.{}",
        count(held_out.test_images),
        groups.join("; "),
        gain.unwrap_or_default()
    )
}

fn sweep(sweep: &Sweep) -> SweepView {
    let rows = sweep.shares.iter().map(|share| SweepRow {
        share: number(share.share, 2),
        images: if share.generated_images == share.wanted {
            count(share.wanted)
        } else {
            format!("{} of {}", count(share.generated_images), count(share.wanted))
        },
        worst: percent(share.worst_group),
        interval: share.worst_group_interval.map(percent_interval).unwrap_or_default(),
        accuracy: percent(share.accuracy),
        plateau: Some(share.share) == sweep.plateau,
    });
    let sentence = plateau(sweep);
    SweepView { rows: rows.collect(), chart: sweep_chart(sweep, &sentence).map(safe), sentence }
}

/// Where more generated images stop helping, in words.
pub(crate) fn plateau(sweep: &Sweep) -> String {
    let at = sweep.shares.iter().find(|share| Some(share.share) == sweep.plateau);
    let largest = sweep.shares.last();
    match (at, largest) {
        (Some(at), Some(last)) if at.share == last.share && sweep.shares.len() > 1 => {
            "The worst group still gains at the largest share that was tried: more images may help.".to_owned()
        }
        (Some(at), _) if at.generated_images == 0 => {
            "No number of generated images that was tried is better in the worst group than none, beyond chance."
                .to_owned()
        }
        (Some(at), _) => format!(
            "From {} on ({} times what the plan adds), more are not better in the worst group beyond chance.",
            plural(at.generated_images, "generated image", "generated images"),
            number(at.share, 2)
        ),
        (None, _) => {
            "Too few numbers of images, or too few trainings of each, were tried to say where more stop helping."
                .to_owned()
        }
    }
}

/// Every group with the data as it was and with the balanced data, the weakest first.
fn groups(evidence: &Evidence) -> Option<Groups> {
    let (first, last) = (evidence.arm("as-is").or(evidence.arms.first())?, evidence.balanced()?);
    let mut pairs: Vec<_> = first
        .groups
        .iter()
        .filter_map(|before| Some((before, last.groups.iter().find(|after| after.values == before.values)?)))
        .filter(|(before, after)| before.accuracy.is_finite() && after.accuracy.is_finite())
        .collect();
    if first.name == last.name || pairs.is_empty() {
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
        rows: Folded::new(rows.collect(), 30, 20),
        axis: safe(axis(&scale, points)),
    })
}

fn summary(changes: &[f64]) -> String {
    let of = |keep: fn(&f64) -> bool| changes.iter().copied().filter(keep).count() as u64;
    let (better, worse) = (of(|change| *change > 0.0), of(|change| *change < 0.0));
    let worse = if worse == 0 { "none".to_owned() } else { count(worse) };
    format!(
        "{} of {} groups do better, {worse} worse. Single groups change by chance, too: read how many change, and not which \
         change most.",
        count(better),
        count(changes.len() as u64)
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::SweepShare;

    #[test]
    fn the_summary_counts_gains_and_losses() {
        let text = summary(&[0.2, 0.05, -0.03, 0.0]);
        assert!(text.starts_with("2 of 4 groups do better, 1 worse. Single groups change by chance"), "{text}");
        assert!(summary(&[0.1]).starts_with("1 of 1 groups do better, none worse."));
        assert!(!text.contains("20"), "the luckiest group is not quoted");
    }

    #[test]
    fn the_finding_names_the_comparison_that_counts_and_a_better_arm_that_does_not() {
        let arm = |name: &str, worst_group: f64| Arm { name: name.into(), worst_group, ..Arm::default() };
        let gain = |over: &str, by: f64, p| Gain {
            over: over.into(),
            worst_group: by,
            interval: [by - 0.1, by],
            p,
            ..Gain::default()
        };
        let mut evidence = Evidence {
            gain: Some(gain("mixup", 0.2, Some(0.0001))),
            gain_as_is: Some(gain("as-is", 0.3, None)),
            arms: vec![arm("as-is", 0.3), arm("mixup", 0.4), arm("balanced", 0.6), arm("balanced-discount", 0.62)],
            ..Evidence::default()
        };
        assert_eq!(
            finding(&evidence),
            "What counts is “balanced” against “mixup”, the best arm without generated images: +20 points in the \
             worst group (95 % interval +10 to +20). By the test images alone, leaving out the luck of training: p < \
             0.001. Against the data as it was: +30 points in the worst group (95 % interval +20 to +30). \
             “balanced-discount” reaches 62 %, but the verdict rests on “balanced”, which was chosen beforehand."
        );
        evidence.gain_as_is = Some(gain("mixup", 0.2, None));
        evidence.arms.pop();
        assert!(finding(&evidence).ends_with("training: p < 0.001."), "the same comparison is not told twice");
    }

    #[test]
    fn the_plateau_is_told_wherever_it_lies() {
        let share =
            |share: f64| SweepShare { share, generated_images: (share * 100.0) as u64, ..SweepShare::default() };
        let shares = [0.0, 0.5, 1.0].map(share).to_vec();
        let at = |place| plateau(&Sweep { seeds: 5, shares: shares.clone(), plateau: place });
        assert!(at(Some(0.0)).starts_with("No number of generated images"));
        assert!(at(Some(0.5)).starts_with("From 50 generated images on (0.5 times what the plan adds)"));
        assert!(at(Some(1.0)).starts_with("The worst group still gains"));
        assert!(at(None).starts_with("Too few numbers of images"));
    }
}
