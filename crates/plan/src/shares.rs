//! Shares as whole numbers, and the fewest images that reach them.
//!
//! Shares are held as whole weights `w` with sum `W`, so that every comparison is exact. A distribution is reached
//! when each value has its share of the images to within one image: `|n - T w / W| < 1` for every value with `n` of
//! `T` images. That is the quota rule of apportionment; largest remainders keep it, and with it a dataset that was
//! filled to its shares counts as done when it is planned for again.

/// Whole weights that stand for shares.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Weights {
    /// The weight of each cell.
    pub each: Vec<u64>,
    /// Their sum.
    pub whole: u64,
}

/// Decimal places that a written share is read to.
const PLACES: f64 = 1e15;

/// More work than this, in cells looked at, and the fewest total is not searched for below the one that is sure.
const MOST_STEPS: u64 = 1 << 24;

impl Weights {
    /// Weights of written shares; they are divided by their sum, so that 0.33, 0.33, 0.34 and thirds both work.
    pub fn of_shares(shares: &[f64]) -> Self {
        Self::of_counts(&shares.iter().map(|share| (share * PLACES).round() as u128).collect::<Vec<_>>())
    }

    /// Weights in the proportion of these numbers. Where their sum is above 2^60 it is scaled down to it.
    pub fn of_counts(numbers: &[u128]) -> Self {
        let divisor = numbers.iter().fold(0, |a, &b| greatest_common_divisor(a, b)).max(1);
        let sum: u128 = numbers.iter().map(|n| n / divisor).sum();
        let shift = (128 - sum.leading_zeros()).saturating_sub(60);
        let each: Vec<u64> = numbers.iter().map(|n| ((n / divisor) >> shift) as u64).collect();
        Self { whole: each.iter().sum(), each }
    }

    /// The whole part of a cell's share of `total` images, and what is left of it in parts of `whole`.
    fn quota(&self, cell: usize, total: u64) -> (u64, u64) {
        let parts = u128::from(self.each[cell]) * u128::from(total);
        let whole = u128::from(self.whole);
        ((parts / whole) as u64, (parts % whole) as u64)
    }

    /// The share of a cell, as a fraction of 1.
    pub fn share(&self, cell: usize) -> f64 {
        self.each[cell] as f64 / self.whole.max(1) as f64
    }

    /// The counts with the fewest images, none below `counts`, that reach the shares; `None` where a value has images
    /// but no share, or the counts would be larger than `most`.
    pub fn reach(&self, counts: &[u64], most: u64) -> Option<Reached> {
        let total: u64 = counts.iter().sum();
        let (mut least, mut sure) = (u128::from(total), u128::from(total));
        for (&count, &weight) in counts.iter().zip(&self.each).filter(|(count, _)| **count > 0) {
            if weight == 0 {
                return None;
            }
            let (count, weight, whole) = (u128::from(count), u128::from(weight), u128::from(self.whole));
            // Below `least` the value is over its share rounded up; from `sure` on it is not over its share at all.
            least = least.max(whole * (count - 1) / weight + 1);
            sure = sure.max((whole * count).div_ceil(weight));
        }
        let (least, sure) = (u64::try_from(least).ok()?, u64::try_from(sure).unwrap_or(u64::MAX));
        if total == 0 || self.whole == 0 {
            return (total == 0).then(|| Reached { counts: counts.to_vec(), bound: None });
        }
        let steps = MOST_STEPS / counts.len().max(1) as u64;
        let found = (least..=sure.min(least.saturating_add(steps))).find(|&total| self.fits(counts, total));
        let bound = (found.is_none() && least < sure).then(|| least - total);
        let total = found.unwrap_or(sure);
        (total <= most).then(|| Reached { counts: self.apportion(counts, total), bound })
    }

    /// Whether `total` images can be apportioned with no value below its count, each being at most its share rounded up.
    fn fits(&self, counts: &[u64], total: u64) -> bool {
        let mut left = total;
        (0..counts.len()).all(|cell| {
            let needed = self.quota(cell, total).0.max(counts[cell]);
            let fits = needed <= left;
            left = left.saturating_sub(needed);
            fits
        })
    }

    /// Each value's share of `total` rounded down, or its count; what is left goes to the largest remainders.
    fn apportion(&self, counts: &[u64], total: u64) -> Vec<u64> {
        let quotas: Vec<(u64, u64)> = (0..counts.len()).map(|cell| self.quota(cell, total)).collect();
        let mut wants: Vec<u64> = quotas.iter().zip(counts).map(|(quota, &count)| quota.0.max(count)).collect();
        let left = total - wants.iter().sum::<u64>();
        let mut open: Vec<usize> =
            (0..counts.len()).filter(|&cell| wants[cell] == quotas[cell].0 && quotas[cell].1 > 0).collect();
        open.sort_by_key(|&cell| std::cmp::Reverse(quotas[cell].1));
        for cell in open.into_iter().take(left as usize) {
            wants[cell] += 1;
        }
        wants
    }
}

/// Counts that reach the shares.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Reached {
    /// The counts.
    pub counts: Vec<u64>,
    /// How many images must be added at least, where a smaller sum that reaches the shares is not ruled out.
    pub bound: Option<u64>,
}

fn greatest_common_divisor(a: u128, b: u128) -> u128 {
    if b == 0 { a } else { greatest_common_divisor(b, a % b) }
}

#[cfg(test)]
mod tests {
    use evenset_core::Seed;

    use super::*;

    /// Whether the counts keep the quota rule, straight from its definition.
    fn keeps_quota(weights: &Weights, counts: &[u64]) -> bool {
        let total: u64 = counts.iter().sum();
        counts.iter().zip(&weights.each).all(|(&n, &w)| (n * weights.whole).abs_diff(total * w) < weights.whole.max(1))
    }

    #[test]
    fn no_smaller_total_keeps_the_quota_rule() {
        for case in 0..300u64 {
            let mut numbers = Seed(3).index(case).normal(6).into_iter().map(|x| (x.abs() * 4.0) as u64);
            let counts: Vec<u64> = numbers.by_ref().take(3).collect();
            let weights = Weights::of_counts(&numbers.map(|n| u128::from(n) + 1).collect::<Vec<_>>());
            let reached = weights.reach(&counts, 1 << 20).unwrap();
            assert!(
                keeps_quota(&weights, &reached.counts) && reached.bound.is_none(),
                "{counts:?} {weights:?} {reached:?}"
            );
            assert!(reached.counts.iter().zip(&counts).all(|(want, count)| want >= count));
            let more: u64 = reached.counts.iter().sum::<u64>() - counts.iter().sum::<u64>();
            for a in 0..more {
                for b in 0..more - a {
                    for c in 0..more - a - b {
                        let fewer = [counts[0] + a, counts[1] + b, counts[2] + c];
                        assert!(!keeps_quota(&weights, &fewer), "{counts:?} {weights:?} {fewer:?}");
                    }
                }
            }
            assert_eq!(weights.reach(&reached.counts, 1 << 20).unwrap().counts, reached.counts);
        }
    }

    #[test]
    fn written_shares_mean_the_decimal_fraction() {
        assert_eq!(Weights::of_shares(&[0.6, 0.4]), Weights { each: vec![3, 2], whole: 5 });
        let thirds = Weights::of_shares(&[1.0 / 3.0; 3]);
        assert_eq!(thirds, Weights { each: vec![1; 3], whole: 3 });
        assert_eq!(Weights::of_shares(&[1.0, 0.0]).reach(&[4, 1], 100), None);
        let huge = Weights::of_counts(&[1 << 100, 1 << 99]);
        assert!((huge.share(0) - 2.0 / 3.0).abs() < 1e-15);
        assert_eq!(Weights::of_shares(&[1e-12, 1.0 - 1e-12]).reach(&[1 << 50, 1], 1 << 53), None);
    }
}
