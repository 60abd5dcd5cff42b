//! Operations on tensors, each with a gradient.
//!
//! On the CPU in `f32` they run this crate's kernels; elsewhere they fall back on candle's own operations. An image's
//! (or row's) result is the same bytes in any batch and with any number of threads.

mod attention;
mod conv2d;
mod elementwise;
mod group_norm;
pub(crate) mod host;
mod linear;
pub(crate) mod parallel;
mod resnet;
mod slow;

use std::cell::Cell;

use candle_core::{DType, Result, Tensor, bail};

/// Convolution: `x` is `[batch, inputs, height, width]`, `weight` `[outputs, inputs, kernel height, kernel width]`, the
/// result `[batch, outputs, height', width']`.
///
/// `bias` is `[outputs]`, or `[batch, outputs]` for one of each image's own (a time embedding costs nothing that way).
/// Zero padding on all four sides.
///
/// # Errors
/// Shapes that do not agree, a zero stride, or a kernel larger than the padded image.
pub fn conv2d(x: &Tensor, weight: &Tensor, bias: Option<&Tensor>, stride: usize, padding: usize) -> Result<Tensor> {
    match fast(&[x, weight]) {
        true => conv2d::conv2d(x, weight, bias, stride, padding),
        false => slow::conv2d(x, weight, bias, stride, padding),
    }
}

/// Group normalisation (Wu and He 2018) over `[batch, channels, ...]`, then SiLU where `silu` is set.
///
/// `weight` and `bias` are `[channels]`; `eps` is added to the variance.
///
/// # Errors
/// Shapes that do not agree, or channels that `groups` does not divide.
pub fn group_norm(x: &Tensor, groups: usize, weight: &Tensor, bias: &Tensor, eps: f64, silu: bool) -> Result<Tensor> {
    match fast(&[x, weight, bias]) {
        true => group_norm::group_norm(x, groups, weight, bias, eps, silu),
        false => slow::group_norm(x, groups, weight, bias, eps, silu),
    }
}

/// `x weight^T + bias`: `x` is `[.., inputs]`, `weight` `[outputs, inputs]`, `bias` `[outputs]`, the result
/// `[.., outputs]`.
///
/// # Errors
/// Shapes that do not agree.
pub fn linear(x: &Tensor, weight: &Tensor, bias: Option<&Tensor>) -> Result<Tensor> {
    match fast(&[x, weight]) {
        true => linear::linear(x, weight, bias),
        false => slow::linear(x, weight, bias),
    }
}

/// Multi-head self-attention over pixels: softmax over all pixels of `q . k / sqrt(channels / heads)`, applied to `v`.
///
/// `q`, `k` and `v` are `[batch, channels, height, width]`, and so is the result; head `i` holds the channels
/// `i * channels / heads ..`. Memory and time grow with the square of the pixels: meant for low resolutions.
///
/// # Errors
/// Shapes that do not agree, or channels that `heads` does not divide.
pub fn attention(q: &Tensor, k: &Tensor, v: &Tensor, heads: usize) -> Result<Tensor> {
    match fast(&[q, k, v]) {
        true => attention::attention(q, k, v, heads),
        false => slow::attention(q, k, v, heads),
    }
}

/// The weights of a [`resnet_block`], each with its bias.
#[derive(Clone, Copy, Debug)]
pub struct ResnetWeights<'a> {
    /// `[inputs]` each.
    pub norm1: (&'a Tensor, &'a Tensor),
    /// `[outputs, inputs, 3, 3]` and `[outputs]`.
    pub conv1: (&'a Tensor, &'a Tensor),
    /// `[outputs]` each.
    pub norm2: (&'a Tensor, &'a Tensor),
    /// `[outputs, outputs, 3, 3]` and `[outputs]`.
    pub conv2: (&'a Tensor, &'a Tensor),
    /// `[outputs, inputs, 1, 1]` and `[outputs]`, where inputs and outputs differ in number.
    pub shortcut: Option<(&'a Tensor, &'a Tensor)>,
    /// Groups of both normalisations.
    pub groups: usize,
    /// What both normalisations add to the variance.
    pub eps: f64,
}

/// A residual block: `conv2(silu(norm2(h))) + shortcut(x)` with `h = conv1(silu(norm1(x))) + shift`.
///
/// `x` is `[batch, inputs, height, width]`, `shift` `[batch, outputs]`, the result `[batch, outputs, height, width]`.
///
/// # Errors
/// Shapes that do not agree.
pub fn resnet_block(x: &Tensor, shift: &Tensor, weights: &ResnetWeights<'_>) -> Result<Tensor> {
    match fast(&[x, shift, weights.conv1.0]) {
        true => resnet::resnet_block(x, shift, weights),
        false => slow::resnet_block(x, shift, weights),
    }
}

/// Every pixel becomes a square of four: `[batch, channels, height, width]` to `[batch, channels, 2 height, 2 width]`.
///
/// # Errors
/// A tensor that has not four dimensions.
pub fn upsample_nearest2x(x: &Tensor) -> Result<Tensor> {
    match fast(&[x]) {
        true => elementwise::upsample_nearest2x(x),
        false => slow::upsample_nearest2x(x),
    }
}

/// Every square of four pixels becomes its mean: `[batch, channels, height, width]` with even height and width to
/// `[batch, channels, height / 2, width / 2]`.
///
/// # Errors
/// A tensor that has not four dimensions, or an odd height or width.
pub fn avg_pool2x(x: &Tensor) -> Result<Tensor> {
    match fast(&[x]) {
        true => elementwise::avg_pool2x(x),
        false => slow::avg_pool2x(x),
    }
}

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

/// `a` and `b` behind one another in the channels: `[batch, channels of a + channels of b, height, width]`.
///
/// # Errors
/// Shapes that differ elsewhere than in the channels.
pub fn concat_channels(a: &Tensor, b: &Tensor) -> Result<Tensor> {
    match fast(&[a, b]) {
        true => elementwise::concat_channels(a, b),
        false => Tensor::cat(&[a, b], 1),
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
    slow::softmax(x)
}

/// Logarithm of the softmax over the last dimension, safe for large values, with a gradient.
///
/// # Errors
/// A tensor without dimensions or of integers.
pub fn log_softmax(x: &Tensor) -> Result<Tensor> {
    slow::log_softmax(x)
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
/// The setting belongs to the calling thread and is restored when `f` returns or panics.
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
