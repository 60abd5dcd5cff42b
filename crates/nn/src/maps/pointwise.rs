//! What touches every value once, on the CPU, channels last.

use candle_core::{Result, Tensor};

use super::slow;

/// `[batch, channels, height, width]` to `[batch, height, width, channels]`.
pub(super) fn nchw_to_nhwc(x: &Tensor) -> Result<Tensor> {
    x.permute((0, 2, 3, 1))?.contiguous()
}

/// `[batch, height, width, channels]` to `[batch, channels, height, width]`.
pub(super) fn nhwc_to_nchw(x: &Tensor) -> Result<Tensor> {
    x.permute((0, 3, 1, 2))?.contiguous()
}

pub(super) fn concat_last(a: &Tensor, b: &Tensor) -> Result<Tensor> {
    Tensor::cat(&[a, b], 3)
}

pub(super) fn upsample_nearest(x: &Tensor, size: (usize, usize)) -> Result<Tensor> {
    nchw_to_nhwc(&slow::upsample_nearest(&nhwc_to_nchw(x)?, size)?)
}

pub(super) fn avg_pool2x(x: &Tensor) -> Result<Tensor> {
    nchw_to_nhwc(&slow::avg_pool2x(&nhwc_to_nchw(x)?)?)
}

pub(super) fn geglu(x: &Tensor) -> Result<Tensor> {
    slow::geglu(x)
}
