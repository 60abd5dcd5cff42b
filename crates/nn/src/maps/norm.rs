//! [`group_norm`](super::group_norm) and [`layer_norm`](super::layer_norm) on the CPU, channels last.

use candle_core::{Result, Tensor};

use super::pointwise::{nchw_to_nhwc, nhwc_to_nchw};
use super::slow;

pub(super) fn group_norm(
    x: &Tensor,
    groups: usize,
    weight: &Tensor,
    bias: &Tensor,
    eps: f64,
    silu: bool,
) -> Result<Tensor> {
    nchw_to_nhwc(&crate::ops::group_norm(&nhwc_to_nchw(x)?, groups, weight, bias, eps, silu)?)
}

pub(super) fn layer_norm(x: &Tensor, weight: Option<&Tensor>, bias: Option<&Tensor>, eps: f64) -> Result<Tensor> {
    slow::layer_norm(x, weight, bias, eps)
}
