//! How well a number tells two kinds of images apart: the area under the curve, with its interval.

use evenset_core::Z95;
use serde::{Deserialize, Serialize};

/// The probability that a generated image has a higher value than a real one, ties counting half.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Auc {
    /// 0.5 where nothing tells the images apart, 1 where everything does.
    pub value: f64,
    /// The 95 % interval.
    pub interval: [f64; 2],
}

impl Auc {
    /// Of the values of real and of generated images; none where either are missing.
    pub(crate) fn of(real: &[f64], generated: &[f64]) -> Option<Self> {
        if real.is_empty() || generated.is_empty() {
            return None;
        }
        let mut all: Vec<(f64, bool)> =
            real.iter().map(|&v| (v, false)).chain(generated.iter().map(|&v| (v, true))).collect();
        all.sort_by(|a, b| a.0.total_cmp(&b.0));
        let (mut wins, mut below) = (0.0, 0.0);
        for tied in all.chunk_by(|a, b| a.0 == b.0) {
            let generated = tied.iter().filter(|(_, generated)| *generated).count() as f64;
            let real = tied.len() as f64 - generated;
            wins += generated * (below + real / 2.0);
            below += real;
        }
        let value = wins / (real.len() as f64 * generated.len() as f64);
        Some(Self { value, interval: interval(value, real.len() as f64, generated.len() as f64) })
    }

    /// The same figure if the values were turned round.
    pub(crate) fn turned(self) -> Self {
        let Self { value, interval: [low, high] } = self;
        Self { value: 1.0 - value, interval: [1.0 - high, 1.0 - low] }
    }
}

/// All values `t` that lie within 1.96 standard errors of the one found, where the standard error is that of `t` itself
/// (Hanley and McNeil 1982; Newcombe 2006, "Confidence intervals for an effect size measure based on the Mann-Whitney
/// statistic, part 2", method 5): unlike an interval around the value found it is no point at 0 and 1.
fn interval(value: f64, m: f64, n: f64) -> [f64; 2] {
    let star = (m + n) / 2.0 - 1.0;
    let variance = |t: f64| t * (1.0 - t) * (1.0 + star * (1.0 - t) / (2.0 - t) + star * t / (1.0 + t)) / (m * n);
    let inside = |t: f64| (value - t).powi(2) <= Z95 * Z95 * variance(t);
    // `value` itself is inside, and the end of the scale is not, unless it is the value.
    let search = |mut outside: f64| {
        let mut at = value;
        for _ in 0..60 {
            let middle = (at + outside) / 2.0;
            if inside(middle) { at = middle } else { outside = middle }
        }
        at
    };
    [search(0.0), search(1.0)]
}

#[cfg(test)]
mod tests {
    use evenset_core::Seed;

    use super::*;

    #[test]
    fn the_area_counts_pairs_and_ties_half() {
        let auc = Auc::of(&[1.0, 2.0, 3.0], &[2.0, 4.0]).unwrap();
        // Pairs won: 1 < 2, 2 = 2 (half), 1, 2, 3 < 4.
        assert!((auc.value - 4.5 / 6.0).abs() < 1e-12);
        assert!((auc.turned().value - 1.5 / 6.0).abs() < 1e-12);
        assert_eq!(Auc::of(&[], &[1.0]), None);
        let apart = Auc::of(&[0.0; 30], &[1.0; 30]).unwrap();
        assert!(
            apart.value == 1.0 && apart.interval[1] == 1.0 && (0.85..0.97).contains(&apart.interval[0]),
            "{apart:?}"
        );
    }

    #[test]
    fn the_interval_holds_the_truth_nineteen_times_in_twenty() {
        // Normal values a deviation apart: the area is 0.7602.
        let held = (0..400u64)
            .filter(|&i| {
                let draws: Vec<f64> = Seed(7).index(i).normal(80).iter().map(|&x| f64::from(x)).collect();
                let generated: Vec<f64> = draws[40..].iter().map(|x| x + 1.0).collect();
                let [low, high] = Auc::of(&draws[..40], &generated).unwrap().interval;
                low <= 0.7602 && 0.7602 <= high
            })
            .count();
        // 380 are expected; a binomial's deviation is 4.4.
        assert!((362..=396).contains(&held), "{held} of 400");
    }
}
