//! The verdict in words.

use crate::summary::SEEDS_FOR_A_VERDICT;
use crate::{Arm, ArmSummary, Comparison, Interval, Verdict};

/// A gain counts above these; where one was not run, the sentence says so.
const STRONG_BASELINES: [Arm; 2] = [Arm::Oversample, Arm::Reweight];

/// What was found where no generated image was accepted, or none was missing.
const NOTHING_MADE: &str = "No generated image is among the balanced data, which are real images drawn evenly, so there is \
                            nothing to measure";

/// The verdict, the figures behind it, what it costs, and a caution where it rests on little.
pub(crate) fn sentence(
    verdict: Verdict,
    arms: &[ArmSummary],
    best: &Comparison,
    as_is: &Comparison,
    seeds: usize,
) -> String {
    let made = arms.iter().any(|summary| summary.name == Arm::Balanced && summary.generated_images > 0);
    let worst = |arm: Arm| arms.iter().find(|summary| summary.name == arm).map_or(0.0, |summary| summary.worst_group);
    let mut text = format!(
        "{}: accuracy in the worst group is {:.3} with the balanced data and {:.3} with {}, the best baseline ({}).",
        if made { found(verdict, best, as_is, seeds) } else { NOTHING_MADE.to_owned() },
        worst(Arm::Balanced),
        worst(best.with),
        best.with,
        difference(best.worst_group, best.worst_group_interval),
    );
    if best.with == Arm::AsIs {
        text.push_str(" The best baseline is the data as it was.");
    } else {
        let compared = difference(as_is.worst_group, as_is.worst_group_interval);
        text.push_str(&format!(" With the data as it was, it is {:.3} ({compared}).", worst(Arm::AsIs)));
    }
    text.extend(lost_overall(arms, best, as_is));
    if verdict == Verdict::Helped {
        text.extend(not_shown_above(arms));
    }
    text.extend(caution(seeds).filter(|_| made));
    text
}

/// What was found, as the beginning of a sentence.
fn found(verdict: Verdict, best: &Comparison, as_is: &Comparison, seeds: usize) -> String {
    match verdict {
        Verdict::NoDifference if seeds < SEEDS_FOR_A_VERDICT => "No verdict, with so few seeds".to_owned(),
        Verdict::Helped => "Balancing helped".to_owned(),
        Verdict::NoDifference => "There is no difference seen between balancing and the best baseline".to_owned(),
        Verdict::Harmed if as_is.worst_group > 0.0 => format!("Balancing is worse than {}", best.with),
        Verdict::Harmed => "Balancing harmed".to_owned(),
    }
}

/// Says that accuracy over all test images fell, where its interval lies below zero: against the data as it was, or else
/// against the best baseline.
fn lost_overall(arms: &[ArmSummary], best: &Comparison, as_is: &Comparison) -> Option<String> {
    let fell = [as_is, best].into_iter().find(|comparison| comparison.accuracy_interval[1] < 0.0)?;
    let accuracy = |arm: Arm| arms.iter().find(|summary| summary.name == arm).map_or(0.0, |summary| summary.accuracy);
    Some(format!(
        " Over all test images accuracy fell: {:.3} with the balanced data and {:.3} with {} ({}).",
        accuracy(Arm::Balanced),
        accuracy(fell.with),
        fell.with,
        difference(fell.accuracy, fell.accuracy_interval)
    ))
}

/// Names the strong baselines that were not run.
fn not_shown_above(arms: &[ArmSummary]) -> Option<String> {
    let missing = STRONG_BASELINES.iter().filter(|arm| !arms.iter().any(|summary| summary.name == **arm));
    let missing: Vec<&str> = missing.map(|arm| arm.name()).collect();
    (!missing.is_empty()).then(|| {
        let names = missing.join(" or ");
        format!(" The gain is not shown above {names}, since `evidence.baselines` leaves it out.")
    })
}

/// What so few seeds cannot carry.
fn caution(seeds: usize) -> Option<String> {
    (seeds < SEEDS_FOR_A_VERDICT).then(|| {
        format!(" So few seeds ({seeds}) cannot carry a verdict: the luck of training is not known; run at least five.")
    })
}

/// `+0.081, 95 % interval +0.032 to +0.119`.
fn difference(value: f64, [low, high]: Interval) -> String {
    format!("{value:+.3}, 95 % interval {low:+.3} to {high:+.3}")
}
