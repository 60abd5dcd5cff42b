//! The formulas of the audit, on plain counts.

/// The standard normal quantile of two-sided 95 % intervals.
pub const Z95: f64 = 1.959_963_984_540_054;

/// The Wilson score interval of the share `count / total`, at the normal quantile `z`; within 0 and 1, and `[0, 1]`
/// where `total` is 0.
///
/// E. B. Wilson, "Probable inference, the law of succession, and statistical inference", JASA 22 (1927).
pub fn wilson(count: u64, total: u64, z: f64) -> [f64; 2] {
    if total == 0 {
        return [0.0, 1.0];
    }
    let n = total as f64;
    let p = count as f64 / n;
    let spread = z * (p * (1.0 - p) / n + z * z / (4.0 * n * n)).sqrt();
    let centre = p + z * z / (2.0 * n);
    let scale = 1.0 + z * z / n;
    // The bounds are exactly 0 and 1 at the ends; rounding must not move them.
    let low = if count == 0 { 0.0 } else { ((centre - spread) / scale).max(0.0) };
    let high = if count >= total { 1.0 } else { ((centre + spread) / scale).min(1.0) };
    [low, high]
}

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

/// Bias-corrected Cramér's V of a contingency table (rows of equal length): 0 for independent, 1 for one determining
/// the other. `None` where fewer than two rows or columns hold anything, so that nothing can be said.
///
/// W. Bergsma, "A bias-correction for Cramér's V and Tschuprow's T", J. Korean Stat. Soc. 42 (2013), equations 7 to 9.
pub fn cramers_v(table: &[Vec<u64>]) -> Option<f64> {
    let width = table.iter().map(Vec::len).max()?;
    let cell = |row: &Vec<u64>, column: usize| row.get(column).copied().unwrap_or(0) as f64;
    let rows: Vec<f64> = table.iter().map(|row| row.iter().map(|&n| n as f64).sum()).collect();
    let columns: Vec<f64> = (0..width).map(|c| table.iter().map(|row| cell(row, c)).sum()).collect();
    let n: f64 = rows.iter().sum();
    let occupied = |margins: &[f64]| margins.iter().filter(|&&m| m > 0.0).count() as f64;
    let (r, c) = (occupied(&rows), occupied(&columns));
    if r < 2.0 || c < 2.0 {
        return None;
    }
    let mut chi_squared = 0.0;
    for (row, row_total) in table.iter().zip(&rows).filter(|(_, total)| **total > 0.0) {
        for (column, column_total) in columns.iter().enumerate().filter(|(_, total)| **total > 0.0) {
            let expected = row_total * column_total / n;
            chi_squared += (cell(row, column) - expected).powi(2) / expected;
        }
    }
    // Two occupied rows hold at least two observations, so n - 1 is at least 1.
    let phi_squared = (chi_squared / n - (r - 1.0) * (c - 1.0) / (n - 1.0)).max(0.0);
    let corrected = |k: f64| k - (k - 1.0).powi(2) / (n - 1.0);
    let smaller = (corrected(r) - 1.0).min(corrected(c) - 1.0);
    // With one observation for every value the correction leaves nothing to divide by.
    Some(if smaller > 0.0 { (phi_squared / smaller).sqrt().min(1.0) } else { 0.0 })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn close(a: f64, b: f64) {
        assert!((a - b).abs() < 1e-9, "{a} is not {b}");
    }

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
        assert_eq!((cramers_v(&[]), cramers_v(&[vec![0, 0], vec![0, 0]])), (None, None));
    }

    #[test]
    fn cramers_v_follows_bergsma_by_hand() {
        // [[10, 20], [30, 40]]: chi2 = 100 (10*40 - 20*30)^2 / (30*70*40*60) = 0.79365; below its expectation.
        assert_eq!(cramers_v(&[vec![10, 20], vec![30, 40]]), Some(0.0));
        // [[30, 10], [10, 30]]: phi2 = 0.25; corrected 0.25 - 1/79; smaller = 2 - 1/79 - 1.
        let expected = ((0.25 - 1.0 / 79.0) / (1.0 - 1.0 / 79.0f64)).sqrt();
        close(cramers_v(&[vec![30, 10], vec![10, 30]]).unwrap(), expected);
        // 2 x 3, [[20, 0, 10], [0, 20, 10]]: phi2 = 40/60; corrected 2/3 - 2/59; smaller = 2 - 1/59 - 1.
        let expected = ((2.0 / 3.0 - 2.0 / 59.0) / (1.0 - 1.0 / 59.0f64)).sqrt();
        close(cramers_v(&[vec![20, 0, 10], vec![0, 20, 10]]).unwrap(), expected);
    }

    #[test]
    fn cramers_v_is_one_where_one_determines_the_other_and_ignores_empty_values() {
        close(cramers_v(&[vec![50, 0], vec![0, 50]]).unwrap(), 1.0);
        let plain = cramers_v(&[vec![30, 10], vec![10, 30]]);
        assert_eq!(cramers_v(&[vec![30, 0, 10], vec![0, 0, 0], vec![10, 0, 30]]), plain);
        assert_eq!(cramers_v(&[vec![3, 4]]), None);
        assert_eq!(cramers_v(&[vec![1, 0], vec![0, 1]]), Some(0.0));
    }
}
