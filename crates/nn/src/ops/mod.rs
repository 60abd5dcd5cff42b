//! Operations on tensors of any shape, each with a gradient; [`maps`](crate::maps) has those on feature maps and tokens.
//!
//! On the CPU in `f32` the expensive ones run this crate's kernels; elsewhere they fall back on candle's own operations
//! (whose fused softmax has no gradient: it is spelled out here). An image's (or row's) result is the same bytes in any
//! batch and with any number of threads.

mod elementwise;
pub(crate) mod host;
pub(crate) mod parallel;

use std::cell::Cell;

use candle_core::{D, DType, Result, Tensor, bail};

/// The sum of two tensors of one shape.
///
/// # Errors
/// Shapes that differ.
pub fn add(a: &Tensor, b: &Tensor) -> Result<Tensor> {
    match fast(&[a, b]) {
        true => elementwise::add(a, b),
        false => a.add(b),
    }
}

/// `x * sigmoid(x)` of every element.
///
/// # Errors
/// A tensor of integers.
pub fn silu(x: &Tensor) -> Result<Tensor> {
    match fast(&[x]) {
        true => elementwise::silu(x),
        false => x.silu(),
    }
}

/// Softmax over the last dimension, safe for large values, with a gradient.
///
/// # Errors
/// A tensor without dimensions or of integers.
pub fn softmax(x: &Tensor) -> Result<Tensor> {
    let exponents = x.broadcast_sub(&x.detach().max_keepdim(D::Minus1)?)?.exp()?;
    exponents.broadcast_div(&exponents.sum_keepdim(D::Minus1)?)
}

/// Logarithm of the softmax over the last dimension, safe for large values, with a gradient.
///
/// # Errors
/// A tensor without dimensions or of integers.
pub fn log_softmax(x: &Tensor) -> Result<Tensor> {
    let shifted = x.broadcast_sub(&x.detach().max_keepdim(D::Minus1)?)?;
    shifted.broadcast_sub(&shifted.exp()?.sum_keepdim(D::Minus1)?.log()?)
}

/// Cross-entropy of `logits` `[batch, classes]` against `labels` (one class index a row): the mean over the rows, or
/// with `weights` (one a row, not negative) the weighted mean, `sum(w l) / sum(w)`. A scalar.
///
/// # Errors
/// Lengths that differ, a label beyond the classes, or weights whose sum is not positive.
pub fn cross_entropy(logits: &Tensor, labels: &[u32], weights: Option<&[f32]>) -> Result<Tensor> {
    let (batch, classes) = logits.dims2()?;
    if labels.len() != batch || weights.is_some_and(|weights| weights.len() != batch) || batch == 0 {
        bail!("{batch} rows of logits need as many labels ({}) and weights", labels.len());
    }
    if let Some(label) = labels.iter().find(|label| **label as usize >= classes) {
        bail!("label {label} is beyond the {classes} classes of the logits");
    }
    let weights = match weights {
        Some(weights) => weights.to_vec(),
        None => vec![1.0; batch],
    };
    let total: f64 = weights.iter().map(|weight| f64::from(*weight)).sum();
    if !(total > 0.0 && total.is_finite()) {
        bail!("the weights of a cross-entropy sum to {total}; they must sum to a positive number");
    }
    let labels = Tensor::from_slice(labels, (batch, 1), logits.device())?;
    let weights = Tensor::from_vec(weights, (batch, 1), logits.device())?.to_dtype(logits.dtype())?;
    let picked = log_softmax(logits)?.gather(&labels, 1)?;
    picked.mul(&weights)?.sum_all()? * (-1.0 / total)
}

/// Whether the kernels of this crate apply: on the CPU, in `f32`.
pub(crate) fn fast(tensors: &[&Tensor]) -> bool {
    !CANDLE_ONLY.get() && tensors.iter().all(|tensor| tensor.device().is_cpu() && tensor.dtype() == DType::F32)
}

thread_local! {
    static CANDLE_ONLY: Cell<bool> = const { Cell::new(false) };
}

/// Runs `f` without the kernels of this crate, as on a device that they do not cover: what tests compare them with.
///
/// The setting belongs to the calling thread, with the same caution as for [`no_grad`](crate::no_grad).
pub fn with_candle<T>(f: impl FnOnce() -> T) -> T {
    struct Restore(bool);
    impl Drop for Restore {
        fn drop(&mut self) {
            CANDLE_ONLY.set(self.0);
        }
    }
    let _restore = Restore(CANDLE_ONLY.replace(true));
    f()
}
