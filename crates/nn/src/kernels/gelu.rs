//! Layers gated by the exact GELU (Hendrycks and Gimpel 2016).

use super::math::exp;
use super::simd::vectorised;

/// `1 / sqrt(2 pi)`: a normal distribution's density at its mean.
const DENSITY: f32 = 0.398_942_3;

/// The share of a normal distribution below `-|x|`, and `exp(-x^2 / 2)`.
///
/// The share is `exp(-x^2 / 2) t p(t)` with `t = 1 / (1 + 0.32 |x|)` and a polynomial `p` of degree nine that was fitted
/// to Mills' ratio at Chebyshev nodes: within 6e-8 of it, relatively, before rounding. The relative error stays small in
/// the tail, where `1 + erf(x / sqrt(2))` keeps nothing of the share.
#[inline(always)]
fn lower_share(x: f32) -> (f32, f32) {
    let t = 1.0 / (1.0 + 0.32 * x.abs());
    let p = -0.021_623_133;
    let p = p * t + 0.097_935_215;
    let p = p * t + -0.151_607_69;
    let p = p * t + 0.070_468_26;
    let p = p * t + -0.012_533_999;
    let p = p * t + 0.059_799_325;
    let p = p * t + 0.087_593_53;
    let p = p * t + 0.114_647_03;
    let p = p * t + 0.127_659_92;
    let p = p * t + 0.127_661_54;
    let bell = exp(-0.5 * x * x);
    (bell * t * p, bell)
}

/// The share of a normal distribution below `x`, and `exp(-x^2 / 2)`.
#[inline(always)]
pub(super) fn share_below(x: f32) -> (f32, f32) {
    let (share, bell) = lower_share(x);
    (if x > 0.0 { 1.0 - share } else { share }, bell)
}

vectorised! {
    /// Rows of `2 width` values to rows of `width`: the first half times the GELU of the second.
    pub(crate) fn geglu(x: &[f32], width: usize, out: &mut [f32]) {
        for (out, x) in out.chunks_exact_mut(width).zip(x.chunks_exact(2 * width)) {
            let (hidden, gate) = x.split_at(width);
            for ((out, hidden), gate) in out.iter_mut().zip(hidden).zip(gate) {
                *out = hidden * gate * share_below(*gate).0;
            }
        }
    }

    /// From the rows that [`geglu`] takes and the gradient of its result, the gradient of the rows.
    pub(crate) fn geglu_gradient(x: &[f32], width: usize, g: &[f32], out: &mut [f32]) {
        let rows = x.chunks_exact(2 * width).zip(g.chunks_exact(width));
        for (out, (x, g)) in out.chunks_exact_mut(2 * width).zip(rows) {
            let (hidden, gate) = x.split_at(width);
            let (hidden_out, gate_out) = out.split_at_mut(width);
            let inputs = hidden.iter().zip(gate).zip(g);
            for ((hidden_out, gate_out), ((hidden, gate), g)) in hidden_out.iter_mut().zip(gate_out).zip(inputs) {
                let (share, bell) = share_below(*gate);
                *hidden_out = g * gate * share;
                *gate_out = g * hidden * (share + gate * bell * DENSITY);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The normal distribution's share below `x`, from the series and the continued fraction of its tail, in `f64`.
    fn exact(x: f64) -> f64 {
        let bell = (-0.5 * x * x).exp() / (2.0 * std::f64::consts::PI).sqrt();
        let size = x.abs();
        let lower = if size < 3.0 {
            let (mut term, mut sum) = (size, size);
            for n in 1..100 {
                term *= size * size / f64::from(2 * n + 1);
                sum += term;
            }
            0.5 - bell * sum
        } else {
            bell / (1..200).rev().fold(size, |tail, n| size + f64::from(n) / tail)
        };
        if x > 0.0 { 1.0 - lower } else { lower }
    }

    #[test]
    fn the_share_of_a_normal_distribution_is_exact_to_single_precision() {
        assert!((exact(-3.0) - exact(-3.0 + 1e-13)).abs() < 1e-12);
        assert!((exact(1.0) - 0.841_344_746_068_542_9).abs() < 1e-14);
        for i in -12_000..12_000 {
            let x = i as f32 / 1000.0;
            let (found, exact) = (f64::from(share_below(x).0), exact(f64::from(x)));
            assert!((found - exact).abs() <= 2e-7, "{x}: {found} {exact}");
            assert!((found - exact).abs() <= (4e-7 + 5e-8 * f64::from(x * x)) * exact, "{x}: {found} {exact}");
        }
        assert!(share_below(f32::NAN).0.is_nan());
        assert_eq!((share_below(f32::INFINITY).0, share_below(f32::NEG_INFINITY).0), (1.0, 0.0));
    }
}
