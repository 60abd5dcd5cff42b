//! How even the counts of groups are.

/// The share of each count; all zero where nothing was counted.
pub fn shares(counts: &[u64]) -> Vec<f64> {
    let total: f64 = counts.iter().map(|&n| n as f64).sum();
    counts.iter().map(|&n| if total > 0.0 { n as f64 / total } else { 0.0 }).collect()
}

/// The largest count over the smallest; `None` where the smallest is 0 or there are no counts.
pub fn largest_to_smallest(counts: &[u64]) -> Option<f64> {
    let (smallest, largest) = (*counts.iter().min()?, *counts.iter().max()?);
    (smallest > 0).then(|| largest as f64 / smallest as f64)
}

/// Shannon's entropy of the shares in nats; groups without rows add nothing.
pub fn entropy(counts: &[u64]) -> f64 {
    let terms = shares(counts).into_iter().filter(|&p| p > 0.0).map(|p| -p * p.ln());
    terms.sum::<f64>().max(0.0)
}

/// Entropy over its largest value `ln(groups)`: 1 where all groups are equal, 0 where one group holds everything.
/// A single group is even: 1.
pub fn normalised_entropy(counts: &[u64]) -> f64 {
    if counts.len() < 2 { 1.0 } else { (entropy(counts) / (counts.len() as f64).ln()).min(1.0) }
}

/// `exp(entropy)`: how many equal groups would be as diverse (the Hill number of order 1).
///
/// M. O. Hill, "Diversity and evenness: a unifying notation and its consequences", Ecology 54 (1973).
pub fn effective_groups(counts: &[u64]) -> f64 {
    entropy(counts).exp()
}

/// The total variation distance of the shares to equal shares: the part of the rows that would have to change group
/// to make all groups equal; 0 to 1.
pub fn total_variation(counts: &[u64]) -> f64 {
    if counts.is_empty() {
        return 0.0;
    }
    let equal = 1.0 / counts.len() as f64;
    shares(counts).into_iter().map(|p| (p - equal).abs()).sum::<f64>() / 2.0
}

#[cfg(test)]
mod tests {
    use super::*;

    fn close(a: f64, b: f64) {
        assert!((a - b).abs() < 1e-9, "{a} is not {b}");
    }

    #[test]
    fn evenness_of_a_half_and_two_quarters_is_as_worked_by_hand() {
        let counts = [2, 1, 1];
        close(entropy(&counts), 1.5 * 2f64.ln());
        close(normalised_entropy(&counts), 1.5 * 2f64.ln() / 3f64.ln());
        close(effective_groups(&counts), 8f64.sqrt());
        close(total_variation(&counts), 1.0 / 6.0);
        assert_eq!(largest_to_smallest(&counts), Some(2.0));
    }

    #[test]
    fn equal_groups_are_perfectly_even_and_one_full_group_is_not() {
        close(normalised_entropy(&[5; 7]), 1.0);
        close(effective_groups(&[5; 7]), 7.0);
        close(total_variation(&[5; 7]), 0.0);
        let counts = [9, 0, 0, 0];
        close(normalised_entropy(&counts), 0.0);
        close(effective_groups(&counts), 1.0);
        close(total_variation(&counts), 0.75);
        assert_eq!(largest_to_smallest(&counts), None);
    }

    #[test]
    fn nothing_counted_gives_numbers_and_not_nan() {
        for counts in [&[][..], &[0], &[0, 0]] {
            assert!(entropy(counts).is_finite() && normalised_entropy(counts).is_finite());
            assert!(total_variation(counts).is_finite() && effective_groups(counts).is_finite());
        }
    }
}
