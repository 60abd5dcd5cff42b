//! Student's t: how much wider an interval must be where its spread is estimated from a few values.

/// The normal distribution's upper 2.5 % point.
const NORMAL: f64 = 1.959_964;
/// Student's upper 2.5 % point for 1, 2, 3, ... degrees of freedom.
const T: [f64; 10] = [12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228];

/// Student's upper 2.5 % point over the normal one; from eleven degrees of freedom on by the expansion of Cornish and
/// Fisher (Abramowitz and Stegun 26.7.5), right to three digits.
pub(crate) fn t_to_normal(degrees: usize) -> f64 {
    if let Some(t) = degrees.checked_sub(1).and_then(|place| T.get(place)) {
        return t / NORMAL;
    }
    let (n, z) = (degrees as f64, NORMAL);
    let first = (z.powi(3) + z) / (4.0 * n);
    let second = (5.0 * z.powi(5) + 16.0 * z.powi(3) + 3.0 * z) / (96.0 * n * n);
    (z + first + second) / z
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn few_degrees_of_freedom_are_paid_for_as_the_tables_say() {
        for (degrees, t) in [(1, 12.706), (4, 2.776), (11, 2.201), (19, 2.093), (30, 2.042), (99, 1.984)] {
            assert!((t_to_normal(degrees) * NORMAL - t).abs() < 0.003, "{degrees}");
        }
    }
}
