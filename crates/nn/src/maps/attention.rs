//! [`attention`](super::attention) on the CPU.

use candle_core::{Result, Tensor};

pub(super) fn attention(q: &Tensor, k: &Tensor, v: &Tensor, heads: usize) -> Result<Tensor> {
    super::slow::attention(q, k, v, heads)
}
