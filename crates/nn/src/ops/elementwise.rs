//! Cheap operations on the CPU, in parallel: candle runs them on one thread.

use candle_core::{CpuStorage, CustomOp1, CustomOp2, Layout, Result, Shape, Tensor, bail};
use rayon::prelude::*;

use super::host::{Values, gradient, output, unfilled, values};
use crate::kernels::norm::sigmoid;
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

pub(super) fn upsample_nearest2x(x: &Tensor) -> Result<Tensor> {
    x.dims4()?;
    x.contiguous()?.apply_op1(Spread { factor: 1.0 })
}

/// Every pixel times `factor` to a square of four.
struct Spread {
    factor: f32,
}

impl CustomOp1 for Spread {
    fn name(&self) -> &'static str {
        "evenset spread"
    }

    fn cpu_fwd(&self, x: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let &[batch, channels, height, width] = layout.dims() else {
            bail!("images need four dimensions, not {:?}", layout.shape());
        };
        output(spread(values(x, layout)?, width, self.factor), (batch, channels, 2 * height, 2 * width))
    }

    fn bwd(&self, x: &Tensor, _result: &Tensor, grad: &Tensor) -> Result<Option<Tensor>> {
        let grad = grad.contiguous()?;
        gradient(gather(Values::of(&grad)?.get()?, x.dim(3)?, self.factor), x)
    }
}

pub(super) fn avg_pool2x(x: &Tensor) -> Result<Tensor> {
    let (_, _, height, width) = x.dims4()?;
    if !height.is_multiple_of(2) || !width.is_multiple_of(2) {
        bail!("images of {width}x{height} cannot be halved");
    }
    x.contiguous()?.apply_op1(Gather { factor: 0.25 })
}

/// The sum of every square of four pixels, times `factor`.
struct Gather {
    factor: f32,
}

impl CustomOp1 for Gather {
    fn name(&self) -> &'static str {
        "evenset gather"
    }

    fn cpu_fwd(&self, x: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let &[batch, channels, height, width] = layout.dims() else {
            bail!("images need four dimensions, not {:?}", layout.shape());
        };
        output(gather(values(x, layout)?, width / 2, self.factor), (batch, channels, height / 2, width / 2))
    }

    fn bwd(&self, x: &Tensor, _result: &Tensor, grad: &Tensor) -> Result<Option<Tensor>> {
        let grad = grad.contiguous()?;
        gradient(spread(Values::of(&grad)?.get()?, x.dim(3)? / 2, self.factor), x)
    }
}

/// Rows of `width` small pixels to pairs of rows twice as wide.
fn spread(small: &[f32], width: usize, factor: f32) -> Vec<f32> {
    let mut large = vec![0.0; 4 * small.len()];
    let rows = (TASK / width.max(1)).max(1);
    large.par_chunks_mut((4 * rows * width).max(1)).zip(small.par_chunks((rows * width).max(1))).for_each(
        |(large, small)| {
            for (large, small) in large.chunks_exact_mut(4 * width).zip(small.chunks_exact(width)) {
                let (upper, lower) = large.split_at_mut(2 * width);
                for (pair, value) in upper.as_chunks_mut::<2>().0.iter_mut().zip(small) {
                    *pair = [factor * value; 2];
                }
                lower.copy_from_slice(upper);
            }
        },
    );
    large
}

/// Pairs of rows to rows of `width` small pixels.
fn gather(large: &[f32], width: usize, factor: f32) -> Vec<f32> {
    let mut small = vec![0.0; large.len() / 4];
    let rows = (TASK / width.max(1)).max(1);
    small.par_chunks_mut((rows * width).max(1)).zip(large.par_chunks((4 * rows * width).max(1))).for_each(
        |(small, large)| {
            for (small, large) in small.chunks_exact_mut(width).zip(large.chunks_exact(4 * width)) {
                let (upper, lower) = large.split_at(2 * width);
                let pairs = upper.as_chunks::<2>().0.iter().zip(lower.as_chunks::<2>().0);
                for (value, (upper, lower)) in small.iter_mut().zip(pairs) {
                    *value = factor * ((upper[0] + upper[1]) + (lower[0] + lower[1]));
                }
            }
        },
    );
    small
}

pub(super) fn concat_channels(a: &Tensor, b: &Tensor) -> Result<Tensor> {
    let (a_dims, b_dims) = (a.dims4()?, b.dims4()?);
    if (a_dims.0, a_dims.2, a_dims.3) != (b_dims.0, b_dims.2, b_dims.3) || a.elem_count() * b.elem_count() == 0 {
        bail!("images {:?} and {:?} cannot stand behind one another", a.shape(), b.shape());
    }
    a.contiguous()?.apply_op2(&b.contiguous()?, Concat)
}

struct Concat;

impl CustomOp2 for Concat {
    fn name(&self) -> &'static str {
        "evenset concat"
    }

    fn cpu_fwd(
        &self,
        a: &CpuStorage,
        a_layout: &Layout,
        b: &CpuStorage,
        b_layout: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let (a, b) = (values(a, a_layout)?, values(b, b_layout)?);
        let mut dims = a_layout.dims().to_vec();
        let (a_size, b_size) = (a.len() / dims[0], b.len() / dims[0]);
        let mut out = vec![0.0; a.len() + b.len()];
        let images = a.par_chunks_exact(a_size).zip(b.par_chunks_exact(b_size));
        out.par_chunks_exact_mut(a_size + b_size).zip(images).for_each(|(out, (a, b))| {
            out[..a_size].copy_from_slice(a);
            out[a_size..].copy_from_slice(b);
        });
        dims[1] += b_layout.dims()[1];
        output(out, dims)
    }

    fn bwd(&self, a: &Tensor, b: &Tensor, _result: &Tensor, grad: &Tensor) -> Result<(Option<Tensor>, Option<Tensor>)> {
        let grad = grad.contiguous()?;
        let grad = Values::of(&grad)?;
        let batch = a.dim(0)?;
        let (a_size, b_size) = (a.elem_count() / batch, b.elem_count() / batch);
        let (mut a_out, mut b_out) = (vec![0.0; a.elem_count()], vec![0.0; b.elem_count()]);
        let images = a_out.par_chunks_exact_mut(a_size).zip(b_out.par_chunks_exact_mut(b_size));
        images.zip(grad.get()?.par_chunks_exact(a_size + b_size)).for_each(|((a, b), grad)| {
            a.copy_from_slice(&grad[..a_size]);
            b.copy_from_slice(&grad[a_size..]);
        });
        Ok((gradient(a_out, a)?, gradient(b_out, b)?))
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
