//! The same operations from candle's own: for devices and number types that the fast kernels do not cover.
//!
//! Every one keeps its gradient: candle's fused softmax and norms have none, and the gradient of its nearest-neighbour
//! upsampling overwrites where it should add, so those are spelled out from basic operations.

use candle_core::{D, Result, Tensor};

use super::ResnetWeights;

pub(super) fn conv2d(
    x: &Tensor,
    weight: &Tensor,
    bias: Option<&Tensor>,
    stride: usize,
    padding: usize,
) -> Result<Tensor> {
    let y = x.contiguous()?.conv2d(&weight.contiguous()?, padding, stride, 1, 1)?;
    match bias {
        None => Ok(y),
        Some(bias) if bias.rank() == 1 => y.broadcast_add(&bias.reshape((1, (), 1, 1))?),
        Some(bias) => y.broadcast_add(&bias.unsqueeze(2)?.unsqueeze(3)?),
    }
}

pub(super) fn group_norm(
    x: &Tensor,
    groups: usize,
    weight: &Tensor,
    bias: &Tensor,
    eps: f64,
    silu: bool,
) -> Result<Tensor> {
    let (batch, channels) = (x.dim(0)?, x.dim(1)?);
    let grouped = x.contiguous()?.reshape((batch, groups, ()))?;
    let centred = grouped.broadcast_sub(&grouped.mean_keepdim(2)?)?;
    let scale = (centred.sqr()?.mean_keepdim(2)? + eps)?.sqrt()?;
    let normal = centred.broadcast_div(&scale)?.reshape((batch, channels, ()))?;
    let column = (1, channels, 1);
    let y = normal.broadcast_mul(&weight.reshape(column)?)?.broadcast_add(&bias.reshape(column)?)?;
    let y = y.reshape(x.shape())?;
    if silu { y.silu() } else { Ok(y) }
}

pub(super) fn linear(x: &Tensor, weight: &Tensor, bias: Option<&Tensor>) -> Result<Tensor> {
    let (outputs, inputs) = weight.dims2()?;
    let mut shape = x.dims().to_vec();
    if let Some(last) = shape.last_mut() {
        *last = outputs;
    }
    // One plain product: candle folds a batch wrongly where the left side is not row-major.
    let rows = x.contiguous()?.reshape(((), inputs))?;
    let y = rows.matmul(&weight.t()?.contiguous()?)?;
    let y = match bias {
        Some(bias) => y.broadcast_add(bias)?,
        None => y,
    };
    y.reshape(shape)
}

pub(super) fn resnet_block(x: &Tensor, shift: &Tensor, weights: &ResnetWeights<'_>) -> Result<Tensor> {
    let ResnetWeights { norm1, conv1, norm2, conv2, shortcut, groups, eps } = *weights;
    let h = group_norm(x, groups, norm1.0, norm1.1, eps, true)?;
    let h = conv2d(&h, conv1.0, Some(&shift.broadcast_add(conv1.1)?), 1, 1)?;
    let h = group_norm(&h, groups, norm2.0, norm2.1, eps, true)?;
    let h = conv2d(&h, conv2.0, Some(conv2.1), 1, 1)?;
    match shortcut {
        Some((weight, bias)) => conv2d(x, weight, Some(bias), 1, 0)?.add(&h),
        None => x.add(&h),
    }
}

pub(super) fn upsample_nearest2x(x: &Tensor) -> Result<Tensor> {
    let (b, c, h, w) = x.dims4()?;
    let spread = x.contiguous()?.reshape((b, c, h, 1, w, 1))?.broadcast_as((b, c, h, 2, w, 2))?;
    spread.contiguous()?.reshape((b, c, 2 * h, 2 * w))
}

pub(super) fn avg_pool2x(x: &Tensor) -> Result<Tensor> {
    let (b, c, h, w) = x.dims4()?;
    x.contiguous()?.reshape((b, c, h / 2, 2, w / 2, 2))?.mean((3, 5))
}

/// Softmax over the last dimension.
pub(super) fn softmax(x: &Tensor) -> Result<Tensor> {
    let exponents = x.broadcast_sub(&x.detach().max_keepdim(D::Minus1)?)?.exp()?;
    exponents.broadcast_div(&exponents.sum_keepdim(D::Minus1)?)
}

/// Logarithm of the softmax over the last dimension.
pub(super) fn log_softmax(x: &Tensor) -> Result<Tensor> {
    let shifted = x.broadcast_sub(&x.detach().max_keepdim(D::Minus1)?)?;
    shifted.broadcast_sub(&shifted.exp()?.sum_keepdim(D::Minus1)?.log()?)
}

pub(super) fn attention(q: &Tensor, k: &Tensor, v: &Tensor, heads: usize) -> Result<Tensor> {
    let (b, c, h, w) = q.dims4()?;
    // [batch, heads, width of a head, pixels]
    let split = |x: &Tensor| x.contiguous()?.reshape((b, heads, c / heads, h * w));
    let (q, k, v) = (split(q)?, split(k)?, split(v)?);
    let scale = 1.0 / ((c / heads) as f64).sqrt();
    let scores = (q.transpose(2, 3)?.contiguous()?.matmul(&k)? * scale)?;
    let mixed = v.matmul(&softmax(&scores)?.transpose(2, 3)?.contiguous()?)?;
    mixed.reshape((b, c, h, w))
}
