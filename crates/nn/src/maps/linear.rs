//! [`linear`](super::linear) on the CPU.

use candle_core::{Result, Tensor};

use crate::param::Param;

pub(super) fn linear(x: &Tensor, weight: &Param, bias: Option<&Tensor>, residual: Option<&Tensor>) -> Result<Tensor> {
    super::slow::linear(x, weight, bias, residual)
}
