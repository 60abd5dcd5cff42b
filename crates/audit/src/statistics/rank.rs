//! Rank statistics of numbers.

use serde::{Deserialize, Serialize};

use super::Z95;

/// How well a number tells a group from the rest.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Auc {
    /// The probability that the number of a row of the group is larger than that of a row of the rest, ties a half: 0 to
    /// 1, and 0.5 where it says nothing.
    pub value: f64,
    /// Its 95 % interval.
    pub interval: [f64; 2],
}

/// The area under the ROC curve (Mann and Whitney's U over the number of pairs) of the numbers of a group against those
/// of the rest; what is not a number is left out. `None` where one of them has none. O(n log n).
pub fn auc(group: &[f64], rest: &[f64]) -> Option<Auc> {
    let numbers = |list: &[f64]| list.iter().copied().filter(|x| !x.is_nan()).collect::<Vec<_>>();
    let (group, rest) = (numbers(group), numbers(rest));
    let ranks = mid_ranks(&[group.as_slice(), rest.as_slice()].concat());
    auc_of_ranks(ranks.iter().take(group.len()).sum(), group.len() as u64, rest.len() as u64)
}

/// The same from the sum of the group's ranks among all numbers ([`mid_ranks`]) and the two sizes.
pub fn auc_of_ranks(rank_sum: f64, group: u64, rest: u64) -> Option<Auc> {
    if group == 0 || rest == 0 {
        return None;
    }
    let (m, n) = (group as f64, rest as f64);
    let value = ((rank_sum - m * (m + 1.0) / 2.0) / (m * n)).clamp(0.0, 1.0);
    Some(Auc { value, interval: [limit(value, 0.0, m, n), limit(value, 1.0, m, n)] })
}

/// The rank of each number from 1, equal numbers sharing the mean of their ranks.
pub fn mid_ranks(numbers: &[f64]) -> Vec<f64> {
    let at = |i: usize| numbers.get(i).copied().unwrap_or(0.0);
    let mut order: Vec<usize> = (0..numbers.len()).collect();
    order.sort_unstable_by(|&i, &j| at(i).total_cmp(&at(j)));
    let (mut ranks, mut before) = (vec![0.0; numbers.len()], 0.0);
    for ties in order.chunk_by(|&i, &j| at(i) == at(j)) {
        let rank = before + (ties.len() as f64 + 1.0) / 2.0;
        for &i in ties {
            if let Some(place) = ranks.get_mut(i) {
                *place = rank;
            }
        }
        before += ties.len() as f64;
    }
    ranks
}

/// The quantile of ascending values at a share (0 to 1) of them, linearly interpolated between two (type 7 of R. J.
/// Hyndman and Y. Fan, American Statistician 50, 1996; NumPy's); 0 where there are none.
pub fn quantile(sorted: &[f64], at: f64) -> f64 {
    let place = at.clamp(0.0, 1.0) * sorted.len().saturating_sub(1) as f64;
    let value = |i: f64| sorted.get(i as usize).copied().unwrap_or(0.0);
    value(place.floor()) + (value(place.ceil()) - value(place.floor())) * place.fract()
}

/// The variance of the area under the curve of `m` against `n` numbers where its true value is `auc`.
///
/// J. A. Hanley and B. J. McNeil, "The meaning and use of the area under a receiver operating characteristic (ROC)
/// curve", Radiology 143 (1982), equation 2 with Q1 and Q2 of the exponential model.
pub fn hanley_mcneil_variance(auc: f64, m: u64, n: u64) -> f64 {
    variance(auc, m as f64, n as f64)
}

fn variance(auc: f64, m: f64, n: f64) -> f64 {
    let (q1, q2) = (auc / (2.0 - auc), 2.0 * auc * auc / (1.0 + auc));
    let sum = auc * (1.0 - auc) + (m - 1.0) * (q1 - auc * auc) + (n - 1.0) * (q2 - auc * auc);
    (sum / (m * n)).max(0.0)
}

/// The value between `value` and `end` from which `value` is 1.96 standard errors away, at that value's variance: as
/// Wilson's interval does for a share, this stays within 0 and 1 and has a width where the group and the rest do not
/// overlap at all.
fn limit(value: f64, end: f64, m: f64, n: f64) -> f64 {
    let (mut near, mut far) = (value, end);
    // Sixty halvings leave less than a floating point number's precision.
    for _ in 0..60 {
        let middle = (near + far) / 2.0;
        let is_within = (value - middle).powi(2) <= Z95 * Z95 * variance(middle, m, n);
        (near, far) = if is_within { (middle, far) } else { (near, middle) };
    }
    (near + far) / 2.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_area_is_the_share_of_pairs_in_order() {
        let (group, rest) = ([3.0, 1.0, 2.0, 2.0], [2.0, 0.0, 5.0]);
        let pairs = group.iter().flat_map(|g| rest.iter().map(move |r| (g, r)));
        let won: f64 = pairs
            .map(|(g, r)| {
                if g > r {
                    1.0
                } else if g == r {
                    0.5
                } else {
                    0.0
                }
            })
            .sum();
        assert_eq!(auc(&group, &rest).unwrap().value, won / 12.0);
        assert_eq!(mid_ranks(&[3.0, 1.0, 3.0, 2.0]), [3.5, 1.0, 3.5, 2.0]);
    }

    #[test]
    fn quantiles_are_interpolated() {
        assert_eq!([0.0, 0.25, 0.5, 1.0].map(|at| quantile(&[1.0, 2.0, 4.0, 8.0], at)), [1.0, 1.75, 3.0, 8.0]);
        assert_eq!((quantile(&[], 0.5), quantile(&[3.0], 0.9)), (0.0, 3.0));
    }

    #[test]
    fn the_variance_without_any_difference_is_that_of_the_rank_sum_test() {
        // H. B. Mann and D. R. Whitney, Annals of Mathematical Statistics 18 (1947): U has the variance
        // m n (m + n + 1) / 12.
        for (m, n) in [(1, 1), (51, 58), (3, 1000)] {
            let expected = (m + n + 1) as f64 / (12 * m * n) as f64;
            assert!((hanley_mcneil_variance(0.5, m, n) / expected - 1.0).abs() < 1e-12, "{m} {n}");
        }
    }

    #[test]
    fn the_limits_are_as_far_as_their_own_standard_errors_say() {
        let found = auc_of_ranks(0.893 * 51.0 * 58.0 + 51.0 * 52.0 / 2.0, 51, 58).unwrap();
        for limit in found.interval {
            let error = hanley_mcneil_variance(limit, 51, 58).sqrt();
            assert!(((found.value - limit).abs() / error - Z95).abs() < 1e-9, "{found:?}");
        }
    }

    #[test]
    fn intervals_of_separated_groups_have_a_width_and_those_of_large_ones_are_narrow() {
        let perfect = auc(&[2.0; 20], &[1.0; 20]).unwrap();
        assert_eq!((perfect.value, perfect.interval[1]), (1.0, 1.0));
        assert!(perfect.interval[0] > 0.7 && perfect.interval[0] < 0.99, "{perfect:?}");
        let large = auc_of_ranks(0.7 * 1e12 + 1e6 * (1e6 + 1.0) / 2.0, 1_000_000, 1_000_000).unwrap();
        assert!((large.value - 0.7).abs() < 1e-9 && large.interval[1] - large.interval[0] < 0.002, "{large:?}");
        let (a, b) = (auc(&[1.0, 4.0, 6.0], &[2.0, 3.0]).unwrap(), auc(&[2.0, 3.0], &[1.0, 4.0, 6.0]).unwrap());
        assert!((a.value + b.value - 1.0).abs() < 1e-15);
    }

    #[test]
    fn nothing_to_compare_is_none_and_what_is_not_a_number_is_left_out() {
        assert_eq!((auc(&[], &[1.0]), auc(&[1.0], &[f64::NAN])), (None, None));
        assert_eq!(auc(&[f64::NAN, 2.0], &[1.0]).unwrap().value, 1.0);
        assert_eq!(auc(&[0.0], &[-0.0]).unwrap().value, 0.5);
        assert!(auc_of_ranks(f64::MAX, u64::MAX, u64::MAX).unwrap().value.is_finite());
    }
}
