//! Activations of transformers, value by value.

use super::gelu::share_below;
use super::math::sigmoid;
use super::simd::vectorised;

vectorised! {
    /// `x sigmoid(1.702 x)`.
    pub(crate) fn quick_gelu(out: &mut [f32], x: &[f32]) {
        for (out, x) in out.iter_mut().zip(x) {
            *out = x * sigmoid(1.702 * x);
        }
    }

    /// `x` times the share of a normal distribution below it.
    pub(crate) fn gelu_erf(out: &mut [f32], x: &[f32]) {
        for (out, x) in out.iter_mut().zip(x) {
            *out = x * share_below(*x).0;
        }
    }

    /// `x / 2 (1 + tanh(u))` with `u = sqrt(2 / pi) (x + 0.044715 x^3)`, which is `x sigmoid(2 u)`.
    pub(crate) fn gelu_tanh(out: &mut [f32], x: &[f32]) {
        for (out, &x) in out.iter_mut().zip(x) {
            *out = x * sigmoid(1.595_769 * (x + 0.044_715 * x * x * x));
        }
    }
}
