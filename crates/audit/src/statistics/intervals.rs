//! Confidence intervals of shares and of differences of shares.

use statrs::distribution::{ContinuousCDF, Normal};

use super::Z95;

/// The Wilson score interval of the share `count / total`, at the normal quantile `z`; within 0 and 1, and `[0, 1]`
/// where `total` is 0.
///
/// E. B. Wilson, "Probable inference, the law of succession, and statistical inference", JASA 22 (1927).
pub fn wilson(count: u64, total: u64, z: f64) -> [f64; 2] {
    evenset_core::wilson(count as f64, total as f64, z)
}

/// Simultaneous intervals of all shares of a multinomial sample: with probability `confidence` every one of them holds
/// its share, where each interval of its own ([`wilson`]) misses one share in twenty. One interval for each count,
/// within 0 and 1; `[0, 1]` where nothing was counted.
///
/// They are Wilson's intervals at the normal quantile of `1 - (1 - confidence) / (2 k)`, `k` the number of counts, empty
/// ones included. A `confidence` outside 0 to 1 is taken as the nearer end, and none at all as 1.
///
/// L. A. Goodman, "On simultaneous confidence intervals for multinomial proportions", Technometrics 7 (1965),
/// equations 2.5 and 2.7.
pub fn goodman(counts: &[u64], confidence: f64) -> Vec<[f64; 2]> {
    let total: f64 = counts.iter().map(|&n| n as f64).sum();
    let confidence = if confidence.is_nan() { 1.0 } else { confidence.clamp(0.0, 1.0) };
    let z = normal_quantile((1.0 - confidence) / (2.0 * counts.len().max(1) as f64));
    counts.iter().map(|&n| evenset_core::wilson(n as f64, total, z)).collect()
}

/// The 95 % interval of the difference `a - b` of two independent shares, each given as `(count, total)`; within -1
/// and 1, and as wide as the other share leaves it where a total is 0.
///
/// R. G. Newcombe, "Interval estimation for the difference between independent proportions", Statistics in Medicine 17
/// (1998), method 10: Wilson's intervals of the two shares, squared and added.
pub fn newcombe(a: (u64, u64), b: (u64, u64)) -> [f64; 2] {
    newcombe_of((a.0 as f64, a.1 as f64), (b.0 as f64, b.1 as f64))
}

/// [`newcombe`] on sums of counts, which may be larger than a `u64`.
pub(super) fn newcombe_of(a: (f64, f64), b: (f64, f64)) -> [f64; 2] {
    // Nothing counted says nothing: the middle of its interval [0, 1] stands in for the share.
    let share = |(count, total): (f64, f64)| if total > 0.0 { (count / total).min(1.0) } else { 0.5 };
    let (p, q) = (share(a), share(b));
    let ([p_low, p_high], [q_low, q_high]) = (evenset_core::wilson(a.0, a.1, Z95), evenset_core::wilson(b.0, b.1, Z95));
    let low = p - q - (p - p_low).hypot(q_high - q);
    let high = p - q + (p_high - p).hypot(q - q_low);
    [low.max(-1.0), high.min(1.0)]
}

/// The point that a standard normal number exceeds with probability `upper_tail`.
fn normal_quantile(upper_tail: f64) -> f64 {
    -Normal::standard().inverse_cdf(upper_tail)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wilson_gives_the_published_intervals() {
        // R. G. Newcombe, "Two-sided confidence intervals for the single proportion", Statistics in Medicine 17
        // (1998), table I: score method without continuity correction.
        for (count, total, low, high) in
            [(81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0.0, 0.1611), (1, 29, 0.0061, 0.1718)]
        {
            let [l, h] = wilson(count, total, Z95);
            assert!((l - low).abs() < 5e-5 && (h - high).abs() < 5e-5, "{count}/{total}: {l} {h}");
        }
        assert_eq!(wilson(20, 20, Z95)[1], 1.0);
        assert_eq!(wilson(0, 0, Z95), [0.0, 1.0]);
    }

    #[test]
    fn newcombe_gives_the_published_intervals() {
        // Newcombe (1998), table II, method 10, the examples (a) to (h).
        for (a, b, low, high) in [
            ((56, 70), (48, 80), 0.0524, 0.3339),
            ((9, 10), (3, 10), 0.1705, 0.8090),
            ((6, 7), (2, 7), 0.0582, 0.8062),
            ((5, 56), (0, 29), -0.0381, 0.1926),
            ((0, 10), (0, 20), -0.1611, 0.2775),
            ((0, 10), (0, 10), -0.2775, 0.2775),
            ((10, 10), (0, 20), 0.6791, 1.0),
            ((10, 10), (0, 10), 0.6075, 1.0),
        ] {
            let [l, h] = newcombe(a, b);
            assert!((l - low).abs() < 5e-5 && (h - high).abs() < 5e-5, "{a:?} {b:?}: {l} {h}");
        }
    }

    #[test]
    fn simultaneous_intervals_hold_the_single_ones() {
        let counts = [5, 0, 40, 1];
        let total = counts.iter().sum();
        for (&count, [low, high]) in counts.iter().zip(goodman(&counts, 0.95)) {
            let [l, h] = wilson(count, total, Z95);
            assert!(low <= l && h < high, "{count}: [{low}, {high}] and [{l}, {h}]");
        }
    }

    #[test]
    fn intervals_of_nothing_and_of_everything_stay_within_their_range() {
        assert_eq!(goodman(&[0, 0], 0.95), [[0.0, 1.0]; 2]);
        assert_eq!(goodman(&[], 0.95), Vec::<[f64; 2]>::new());
        assert_eq!(goodman(&[3, 4], 1.0), [[0.0, 1.0]; 2]);
        for confidence in [-1.0, 0.0, 0.5, f64::NAN] {
            for [low, high] in goodman(&[u64::MAX, u64::MAX, 1], confidence) {
                assert!((0.0..=1.0).contains(&low) && low <= high && high <= 1.0, "{confidence}: {low} {high}");
            }
        }
        let [low, high] = newcombe((0, 0), (u64::MAX, u64::MAX));
        assert!(low >= -1.0 && high <= 1.0 && low < high, "{low} {high}");
    }
}
