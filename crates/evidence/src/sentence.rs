//! The verdict in words.

use crate::{Arm, ArmSummary, Comparison, Verdict};

/// Fewer seeds than this leave a verdict open to luck; the sentence says so.
const SEEDS_FOR_A_CLAIM: usize = 5;

/// The verdict, the figures behind it, and a caution where it rests on little.
pub(crate) fn sentence(
    verdict: Verdict,
    arms: &[ArmSummary],
    best: &Comparison,
    as_is: &Comparison,
    seeds: usize,
) -> String {
    let worst = |arm: Arm| arms.iter().find(|summary| summary.name == arm).map_or(0.0, |summary| summary.worst_group);
    let found = match verdict {
        Verdict::Helped => "Balancing helped",
        Verdict::NoDifference => "There is no difference seen between balancing and the best baseline",
        Verdict::Harmed => "Balancing harmed",
    };
    let mut text = format!(
        "{found}: accuracy in the worst group is {:.3} with the balanced data and {:.3} with {}, the best baseline \
         ({}).",
        worst(Arm::Balanced),
        worst(best.with),
        best.with,
        difference(best),
    );
    if best.with == Arm::AsIs {
        text.push_str(" The best baseline is the data as it was.");
    } else {
        let against = format!(" With the data as it was, it is {:.3} ({}).", worst(Arm::AsIs), difference(as_is));
        text.push_str(&against);
    }
    if seeds < SEEDS_FOR_A_CLAIM {
        let plural = if seeds == 1 { "" } else { "s" };
        let caution = format!(" This rests on {seeds} seed{plural}, too few to rule out luck; run at least five.");
        text.push_str(&caution);
    }
    text
}

/// `+0.081, 95 % interval +0.032 to +0.119`.
fn difference(comparison: &Comparison) -> String {
    let [low, high] = comparison.worst_group_interval;
    format!("{:+.3}, 95 % interval {low:+.3} to {high:+.3}", comparison.worst_group)
}
