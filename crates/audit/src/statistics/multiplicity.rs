//! Many tests at once.

/// The false discovery rate at which each test would be a discovery (its q value), in the order of `p_values`; 0 to 1,
/// never below its p value. Equal p values get equal q values. What is not a number counts as 1.
///
/// Y. Benjamini and Y. Hochberg, "Controlling the false discovery rate", Journal of the Royal Statistical Society B 57
/// (1995): the smallest `m p / rank` over all p values that are as large or larger.
pub fn benjamini_hochberg(p_values: &[f64]) -> Vec<f64> {
    let p = |i: usize| p_values.get(i).filter(|p| !p.is_nan()).map_or(1.0, |p| p.clamp(0.0, 1.0));
    let mut order: Vec<usize> = (0..p_values.len()).collect();
    order.sort_by(|&i, &j| p(i).total_cmp(&p(j)));
    let mut q_values = vec![1.0; p_values.len()];
    let mut smallest = 1.0f64;
    for (rank, &i) in order.iter().enumerate().rev() {
        smallest = smallest.min(p(i) * (p_values.len() as f64 / (rank + 1) as f64));
        if let Some(q) = q_values.get_mut(i) {
            *q = smallest;
        }
    }
    q_values
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_published_example_is_followed() {
        // Benjamini and Hochberg (1995), section 3.2: at a rate of 0.05 the four smallest of these are discoveries.
        let p = [
            0.0001, 0.0004, 0.0019, 0.0095, 0.0201, 0.0278, 0.0298, 0.0344, 0.0459, 0.3240, 0.4262, 0.5719, 0.6528,
            0.7590, 1.0,
        ];
        let q = benjamini_hochberg(&p);
        assert_eq!(q.iter().filter(|&&q| q <= 0.05).count(), 4);
        assert!((q[3] - 0.0095 * 15.0 / 4.0).abs() < 1e-15);
    }

    #[test]
    fn q_values_are_as_defined_whatever_the_order_and_the_ties() {
        let p = [0.04, 0.2, 0.04, 0.01, 0.9, 0.04, 0.9, 0.0, 1.0, 0.2];
        let m = p.len() as f64;
        for (i, q) in benjamini_hochberg(&p).into_iter().enumerate() {
            // The smallest rate whose step-up procedure discovers test i: some p at or above p[i] passes its line.
            let rank = |t: f64| p.iter().filter(|&&other| other <= t).count() as f64;
            let by_definition = p.iter().filter(|&&t| t >= p[i]).map(|&t| m * t / rank(t)).fold(1.0, f64::min);
            assert!((q - by_definition).abs() < 1e-15, "{i}: {q} {by_definition}");
        }
    }

    #[test]
    fn no_test_and_no_number_are_no_discovery() {
        assert!(benjamini_hochberg(&[]).is_empty());
        assert_eq!(benjamini_hochberg(&[f64::NAN, 0.01]), [1.0, 0.02]);
    }
}
