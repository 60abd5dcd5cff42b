//! The interval of a share, which every room that counts successes needs.

/// The standard normal quantile of two-sided 95 % intervals.
pub const Z95: f64 = 1.959_963_984_540_054;

/// The Wilson score interval of the share `count / total`, at the normal quantile `z`; within 0 and 1, and `[0, 1]`
/// where `total` is 0.
///
/// E. B. Wilson, "Probable inference, the law of succession, and statistical inference", JASA 22 (1927).
pub fn wilson(count: f64, total: f64, z: f64) -> [f64; 2] {
    if total <= 0.0 || !z.is_finite() {
        return [0.0, 1.0];
    }
    let p = (count / total).min(1.0);
    let spread = z * (p * (1.0 - p) / total + z * z / (4.0 * total * total)).sqrt();
    let centre = p + z * z / (2.0 * total);
    let scale = 1.0 + z * z / total;
    // The bounds are exactly 0 and 1 at the ends; rounding must not move them.
    let low = if count <= 0.0 { 0.0 } else { ((centre - spread) / scale).max(0.0) };
    let high = if count >= total { 1.0 } else { ((centre + spread) / scale).min(1.0) };
    [low, high]
}
