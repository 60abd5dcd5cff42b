//! What the evidence and the looks at the gates found, as the page shows it.

use evenset_evidence::distances as far;
use evenset_report as page;
use evenset_verify::{AttributeCalibration, Auc, Share, ShortcutFigures};

use crate::stages::checks::Checks;
use crate::stages::evidence::Proof;
use crate::stages::held_out::HeldOut;

/// The evidence, and what came of groups that were held out.
pub fn evidence(proof: &Proof, held_out: Option<&HeldOut>) -> page::Evidence {
    use evenset_evidence::Verdict;
    let evidence = &proof.evidence;
    page::Evidence {
        verdict: match evidence.verdict {
            Verdict::Helped => page::Verdict::Helped,
            Verdict::NoDifference => page::Verdict::NoDifference,
            Verdict::Harmed => page::Verdict::Harmed,
        },
        sentence: evidence.sentence.clone(),
        seeds: small(evidence.seeds),
        test_images: evidence.test_images as u64,
        gain: Some(gain(&evidence.against_best_baseline)),
        gain_as_is: Some(gain(&evidence.against_as_is)),
        arms: evidence.arms.iter().map(arm).collect(),
        skipped: proof
            .skipped
            .iter()
            .map(|(arm, why)| page::SkippedArm { name: arm.to_string(), why: why.clone() })
            .collect(),
        overlapping: proof.overlapping,
        unlabelled: proof.unlabelled,
        unseen: proof.unseen,
        untested: proof.untested.clone(),
        all_below: proof.all_below,
        validation_seen: proof.validation_seen,
        sweep: proof.sweep.as_ref().map(sweep),
        held_out: held_out.map(unseen),
        distances: proof.distances.iter().map(group_distances).collect(),
    }
}

fn unseen(held_out: &HeldOut) -> page::HeldOut {
    let HeldOut { summary, accepted } = held_out;
    let group = |(group, share): &(evenset_core::Group, Share)| page::HeldOutGroup {
        group: group.clone(),
        composed: share.shown,
        accepted: share.kept,
    };
    page::HeldOut {
        groups: accepted.iter().map(group).collect(),
        test_images: summary.test_images as u64,
        arms: summary.arms.iter().map(arm).collect(),
        gain: Some(gain(&summary.against_best_baseline)),
    }
}

fn small(n: usize) -> u32 {
    u32::try_from(n).unwrap_or(u32::MAX)
}

fn gain(comparison: &evenset_evidence::Comparison) -> page::Gain {
    page::Gain {
        over: comparison.with.to_string(),
        worst_group: comparison.worst_group,
        interval: comparison.worst_group_interval,
        p: Some(comparison.worst_group_p),
        accuracy: Some(comparison.accuracy),
        accuracy_interval: Some(comparison.accuracy_interval),
    }
}

fn arm(arm: &evenset_evidence::ArmSummary) -> page::Arm {
    let groups = arm.per_group.iter().map(|group| page::GroupAccuracy {
        values: group.group.clone(),
        accuracy: group.accuracy,
        interval: Some(group.interval),
        images: group.total.into(),
    });
    page::Arm {
        name: arm.name.to_string(),
        accuracy: arm.accuracy,
        accuracy_interval: Some(arm.accuracy_interval),
        worst_group: arm.worst_group,
        worst_group_interval: Some(arm.worst_group_interval),
        gap: Some(arm.gap),
        gap_interval: Some(arm.gap_interval),
        balanced_accuracy: Some(arm.balanced_accuracy),
        balanced_accuracy_interval: Some(arm.balanced_accuracy_interval),
        equalised_odds: Some(arm.equalised_odds),
        equalised_odds_interval: Some(arm.equalised_odds_interval),
        calibration_error: Some(arm.calibration_error),
        calibration_error_interval: Some(arm.calibration_error_interval),
        real_images: Some(arm.real_images.into()),
        generated_images: Some(arm.generated_images.into()),
        against_best: arm.against_best_baseline.as_ref().map(gain),
        note: arm.note.clone(),
        groups: groups.collect(),
    }
}

fn sweep(sweep: &evenset_evidence::SweepSummary) -> page::Sweep {
    let share = |share: &evenset_evidence::ShareSummary| page::SweepShare {
        share: share.share,
        wanted: share.wanted.into(),
        generated_images: share.generated_images.into(),
        accuracy: share.accuracy,
        accuracy_interval: Some(share.accuracy_interval),
        worst_group: share.worst_group,
        worst_group_interval: Some(share.worst_group_interval),
    };
    page::Sweep { seeds: small(sweep.seeds), shares: sweep.shares.iter().map(share).collect(), plateau: sweep.plateau }
}

fn group_distances(row: &far::GroupDistances) -> page::GroupDistances {
    let distances = |of: &far::Distances| page::Distances {
        real: of.real as u64,
        others: of.others as u64,
        frechet: of.frechet,
        kernel: of
            .kernel
            .map(|kernel| page::KernelDistance { value: kernel.value, standard_error: kernel.standard_error }),
        precision: of.precision,
        recall: of.recall,
    };
    page::GroupDistances {
        group: row.group.clone(),
        generated: row.generated.as_ref().map(distances),
        floor: row.floor.as_ref().map(distances),
    }
}

fn rate(share: &Share) -> page::Rate {
    page::Rate { kept: share.kept, shown: share.shown, interval: Some(share.interval) }
}

/// How far to trust the verifier on one attribute.
pub fn calibration(attribute: &AttributeCalibration) -> page::Calibration {
    let thresholds = attribute.thresholds.iter().flat_map(|thresholds| {
        attribute.classes.iter().zip(&thresholds.values).map(|(value, threshold)| {
            let of_value = thresholds.groups.iter().filter(|own| own.group.get(&attribute.attribute) == Some(value));
            page::Threshold {
                value: value.clone(),
                least: f64::from(threshold.least),
                calibrated: threshold.calibrated,
                false_accept: rate(&threshold.false_accept),
                recall: rate(&threshold.recall),
                groups: of_value.count() as u64,
            }
        })
    });
    page::Calibration {
        attribute: attribute.attribute.clone(),
        accuracy: attribute.accuracy,
        images: attribute.images,
        classes: attribute.classes.clone(),
        confusion: attribute.confusion.clone(),
        group_accuracy: Some(attribute.group_accuracy),
        thresholds: thresholds.collect(),
    }
}

/// The looks at the gates.
pub fn checks(checks: &Checks) -> page::Checks {
    let bias = checks.bias.iter().map(|warning| page::BiasWarning {
        group: warning.group.clone(),
        accepted: rate(&warning.share),
        others: rate(&warning.others),
        p: warning.p_value,
        gate: warning.gate.clone(),
        gate_dropped: warning.gate_dropped,
        gate_dropped_others: warning.gate_dropped_others,
    });
    let corrected = checks.corrected.iter().map(|(attribute, values)| page::CorrectedAttribute {
        attribute: attribute.clone(),
        values: values
            .iter()
            .map(|count| page::CorrectedCount {
                value: count.value.clone(),
                accepted: count.accepted,
                corrected: count.corrected,
                interval: count.interval,
            })
            .collect(),
    });
    let diversity = checks.diversity.iter().map(|group| page::Diversity {
        group: group.group.clone(),
        compared: group.compared as u64,
        real_score: group.real_score,
        accepted_score: group.accepted_score,
    });
    page::Checks {
        bias: bias.collect(),
        corrected: corrected.collect(),
        shortcut: checks.shortcut.as_ref().map(shortcut),
        diversity: diversity.collect(),
        guides: checks
            .guides
            .iter()
            .map(|(name, share)| page::GuideRow { name: name.clone(), accepted: rate(share) })
            .collect(),
    }
}

fn shortcut(report: &evenset_verify::ShortcutReport) -> page::Shortcut {
    let auc = |auc: &Auc| page::Auc { value: auc.value, interval: auc.interval };
    let figures = |figures: &ShortcutFigures| page::ShortcutFigures {
        real: figures.real as u64,
        generated: figures.generated as u64,
        auc: auc(&figures.auc),
        best: page::Cue {
            cue: figures.best.cue.clone(),
            more_in_generated: figures.best.more_in_generated,
            auc: auc(&figures.best.auc),
        },
        found: figures.found,
    };
    let group = |group: &evenset_verify::GroupShortcut| page::GroupShortcut {
        group: group.group.clone(),
        figures: figures(&group.figures),
    };
    let small = &report.small;
    page::Shortcut {
        found: report.found,
        limit: report.limit,
        overall: report.overall.as_ref().map(figures),
        groups: report.groups.iter().map(group).collect(),
        small: page::SmallGroups {
            smallest: small.smallest as u64,
            groups: small.groups as u64,
            generated: small.generated as u64,
            counted: small.counted as u64,
        },
        features: report.features.as_ref().map(auc),
    }
}
