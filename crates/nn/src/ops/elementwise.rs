//! Cheap operations on the CPU, in parallel: candle runs them on one thread.

use candle_core::{CpuStorage, CustomOp1, CustomOp2, Layout, Result, Shape, Tensor, bail};
use rayon::prelude::*;

use super::host::{Values, gradient, output, unfilled, values};
use crate::kernels::math::sigmoid;
use crate::kernels::simd::vectorised;

/// Values that one task takes.
const TASK: usize = 1 << 14;

pub(super) fn add(a: &Tensor, b: &Tensor) -> Result<Tensor> {
    if a.shape() != b.shape() {
        bail!("tensors of shapes {:?} and {:?} cannot be added", a.shape(), b.shape());
    }
    a.contiguous()?.apply_op2(&b.contiguous()?, Add)
}

struct Add;

impl CustomOp2 for Add {
    fn name(&self) -> &'static str {
        "evenset add"
    }

    fn cpu_fwd(
        &self,
        a: &CpuStorage,
        a_layout: &Layout,
        b: &CpuStorage,
        b_layout: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let (a, b) = (values(a, a_layout)?, values(b, b_layout)?);
        // SAFETY: the tasks are all of the result.
        let mut out = unsafe { unfilled(a.len()) };
        out.par_chunks_mut(TASK).zip(a.par_chunks(TASK).zip(b.par_chunks(TASK))).for_each(|(out, (a, b))| {
            add_values(out, a, b);
        });
        output(out, a_layout.shape())
    }

    fn bwd(
        &self,
        _a: &Tensor,
        _b: &Tensor,
        _result: &Tensor,
        grad: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>)> {
        Ok((Some(grad.clone()), Some(grad.clone())))
    }
}

pub(super) fn silu(x: &Tensor) -> Result<Tensor> {
    x.contiguous()?.apply_op1(Silu)
}

struct Silu;

impl CustomOp1 for Silu {
    fn name(&self) -> &'static str {
        "evenset silu"
    }

    fn cpu_fwd(&self, x: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let x = values(x, layout)?;
        // SAFETY: the tasks are all of the result.
        let mut out = unsafe { unfilled(x.len()) };
        out.par_chunks_mut(TASK).zip(x.par_chunks(TASK)).for_each(|(out, x)| {
            silu_values(out, x);
        });
        output(out, layout.shape())
    }

    fn bwd(&self, x: &Tensor, _result: &Tensor, grad: &Tensor) -> Result<Option<Tensor>> {
        let grad = grad.contiguous()?;
        let (x_values, grad) = (Values::of(x)?, Values::of(&grad)?);
        let (x_values, grad) = (x_values.get()?, grad.get()?);
        // SAFETY: the tasks are all of the gradient.
        let mut out = unsafe { unfilled(grad.len()) };
        out.par_chunks_mut(TASK).zip(x_values.par_chunks(TASK).zip(grad.par_chunks(TASK))).for_each(
            |(out, (x, grad))| {
                silu_gradient(out, x, grad);
            },
        );
        gradient(out, x)
    }
}

vectorised! {
    fn add_values(out: &mut [f32], a: &[f32], b: &[f32]) {
        out.iter_mut().zip(a.iter().zip(b)).for_each(|(out, (a, b))| *out = a + b);
    }

    fn silu_values(out: &mut [f32], x: &[f32]) {
        out.iter_mut().zip(x).for_each(|(out, x)| *out = x * sigmoid(*x));
    }

    fn silu_gradient(out: &mut [f32], x: &[f32], grad: &[f32]) {
        for (out, (x, grad)) in out.iter_mut().zip(x.iter().zip(grad)) {
            let s = sigmoid(*x);
            *out = grad * (s + x * s * (1.0 - s));
        }
    }
}
