//! What touches every value once, on the CPU, channels last.

use candle_core::{CpuStorage, CustomOp1, D, Layout, Result, Shape, Tensor, bail};
use rayon::prelude::*;

use super::slow;
use crate::kernels::pixels;
use crate::ops::host::{Values, gradient, output, unfilled, values};

/// Values that one task takes.
const TASK: usize = 1 << 14;

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

/// `[.., 2 n]` to `[.., n]`.
pub(super) fn geglu(x: &Tensor) -> Result<Tensor> {
    let width = x.dim(D::Minus1)?;
    if !width.is_multiple_of(2) || x.elem_count() == 0 {
        bail!("a gated layer needs an even width, not {:?}", x.shape());
    }
    x.contiguous()?.apply_op1(Geglu { width: width / 2 })
}

/// A gated layer of `width` results for each row.
struct Geglu {
    width: usize,
}

impl Geglu {
    /// Results that one task takes.
    fn task(&self) -> usize {
        (TASK / self.width).max(1) * self.width
    }
}

impl CustomOp1 for Geglu {
    fn name(&self) -> &'static str {
        "evenset geglu"
    }

    fn cpu_fwd(&self, x: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let x = values(x, layout)?;
        // SAFETY: the rows are all of the result.
        let mut out = unsafe { unfilled(x.len() / 2) };
        out.par_chunks_mut(self.task())
            .zip(x.par_chunks(2 * self.task()))
            .for_each(|(out, x)| pixels::geglu(x, self.width, out));
        let mut dims = layout.dims().to_vec();
        if let Some(last) = dims.last_mut() {
            *last = self.width;
        }
        output(out, dims)
    }

    fn bwd(&self, x: &Tensor, _result: &Tensor, grad: &Tensor) -> Result<Option<Tensor>> {
        let grad = grad.contiguous()?;
        let (x_values, grad) = (Values::of(x)?, Values::of(&grad)?);
        let (x_values, grad) = (x_values.get()?, grad.get()?);
        // SAFETY: the rows are all of the gradient.
        let mut out = unsafe { unfilled(x_values.len()) };
        out.par_chunks_mut(2 * self.task())
            .zip(x_values.par_chunks(2 * self.task()).zip(grad.par_chunks(self.task())))
            .for_each(|(out, (x, grad))| pixels::geglu_gradient(x, self.width, grad, out));
        gradient(out, x)
    }
}
