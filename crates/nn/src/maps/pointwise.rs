//! What touches every value once, on the CPU, channels last.

use candle_core::{CpuStorage, CustomOp1, CustomOp2, D, Layout, Result, Shape, Tensor, bail};
use rayon::prelude::*;

use crate::kernels::{gelu, pixels};
use crate::ops::host::{Values, gradient, output, unfilled, values};

/// Values that one task takes.
const TASK: usize = 1 << 14;

/// Values of a task that transposes: enough pixels that a channel's are more than a few lines of memory.
const TRANSPOSED: usize = 1 << 16;

/// Rows, or pixels, of `width` values that one task takes.
fn per_task(task: usize, width: usize) -> usize {
    (task / width.max(1)).max(1)
}

/// The four dimensions of maps, none of them zero.
fn dims_of(layout: &Layout) -> Result<[usize; 4]> {
    match layout.dims() {
        &[a, b, c, d] if a * b * c * d > 0 => Ok([a, b, c, d]),
        dims => bail!("maps need four dimensions that are not zero, not {dims:?}"),
    }
}

/// `[batch, channels, height, width]` to `[batch, height, width, channels]`.
pub(super) fn nchw_to_nhwc(x: &Tensor) -> Result<Tensor> {
    x.contiguous()?.apply_op1(Reorder::ToLast)
}

/// `[batch, height, width, channels]` to `[batch, channels, height, width]`.
pub(super) fn nhwc_to_nchw(x: &Tensor) -> Result<Tensor> {
    x.contiguous()?.apply_op1(Reorder::ToFirst)
}

/// Another place for the channels.
enum Reorder {
    ToFirst,
    ToLast,
}

impl CustomOp1 for Reorder {
    fn name(&self) -> &'static str {
        "evenset reorder maps"
    }

    fn cpu_fwd(&self, x: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let x = values(x, layout)?;
        let [batch, a, b, c] = dims_of(layout)?;
        match self {
            Self::ToLast => output(to_last(x, a, b * c), (batch, b, c, a)),
            Self::ToFirst => output(to_first(x, c, a * b), (batch, c, a, b)),
        }
    }

    fn bwd(&self, _x: &Tensor, _result: &Tensor, grad: &Tensor) -> Result<Option<Tensor>> {
        match self {
            Self::ToLast => nhwc_to_nchw(grad).map(Some),
            Self::ToFirst => nchw_to_nhwc(grad).map(Some),
        }
    }
}

/// Images `[channels, pixels]` to `[pixels, channels]`.
fn to_last(x: &[f32], channels: usize, count: usize) -> Vec<f32> {
    if channels == 1 || count == 1 {
        return x.to_vec();
    }
    // SAFETY: the pixels of all images are all of the result.
    let mut out = unsafe { unfilled(x.len()) };
    let task = per_task(TRANSPOSED, channels);
    out.par_chunks_exact_mut(channels * count).zip(x.par_chunks_exact(channels * count)).for_each(|(out, x)| {
        out.par_chunks_mut(task * channels).enumerate().for_each(|(i, out)| {
            pixels::columns_to_rows(x, count, i * task, out);
        });
    });
    out
}

/// Images `[pixels, channels]` to `[channels, pixels]`.
fn to_first(x: &[f32], channels: usize, count: usize) -> Vec<f32> {
    if channels == 1 || count == 1 {
        return x.to_vec();
    }
    // SAFETY: the pixels of all images are all of the result.
    let mut out = unsafe { unfilled(x.len()) };
    let task = per_task(TRANSPOSED, channels);
    out.par_chunks_exact_mut(channels * count).zip(x.par_chunks_exact(channels * count)).for_each(|(out, x)| {
        // [tasks, channels]: the pixels of a task lie in a piece of every channel's plane.
        let mut pieces: Vec<Vec<&mut [f32]>> = Vec::new();
        pieces.resize_with(count.div_ceil(task), || Vec::with_capacity(channels));
        for plane in out.chunks_exact_mut(count) {
            for (pieces, piece) in pieces.iter_mut().zip(plane.chunks_mut(task)) {
                pieces.push(piece);
            }
        }
        pieces.par_iter_mut().zip(x.par_chunks(task * channels)).for_each(|(out, x)| pixels::rows_to_columns(x, out));
    });
    out
}

/// The channels of `a`, then those of `b`.
pub(super) fn concat_last(a: &Tensor, b: &Tensor) -> Result<Tensor> {
    let last = a.rank().saturating_sub(1);
    if a.rank() != b.rank() || a.dims()[..last] != b.dims()[..last] || a.elem_count() * b.elem_count() == 0 {
        bail!("maps {:?} and {:?} cannot stand behind one another", a.shape(), b.shape());
    }
    let widths = (a.dim(D::Minus1)?, b.dim(D::Minus1)?);
    a.contiguous()?.apply_op2(&b.contiguous()?, Concat { widths })
}

/// Rows of two widths.
struct Concat {
    widths: (usize, usize),
}

impl CustomOp2 for Concat {
    fn name(&self) -> &'static str {
        "evenset concat of maps"
    }

    fn cpu_fwd(
        &self,
        a: &CpuStorage,
        a_layout: &Layout,
        b: &CpuStorage,
        b_layout: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let (a, b) = (values(a, a_layout)?, values(b, b_layout)?);
        let (left, right) = self.widths;
        let task = per_task(TASK, left + right);
        // SAFETY: the rows are all of the result.
        let mut out = unsafe { unfilled(a.len() + b.len()) };
        let inputs = a.par_chunks(task * left).zip(b.par_chunks(task * right));
        out.par_chunks_mut(task * (left + right)).zip(inputs).for_each(|(out, (a, b))| {
            let rows = a.chunks_exact(left).zip(b.chunks_exact(right));
            for (out, (a, b)) in out.chunks_exact_mut(left + right).zip(rows) {
                out[..left].copy_from_slice(a);
                out[left..].copy_from_slice(b);
            }
        });
        let mut dims = a_layout.dims().to_vec();
        if let Some(last) = dims.last_mut() {
            *last = left + right;
        }
        output(out, dims)
    }

    fn bwd(&self, a: &Tensor, b: &Tensor, _result: &Tensor, grad: &Tensor) -> Result<(Option<Tensor>, Option<Tensor>)> {
        let grad = grad.contiguous()?;
        let grad = Values::of(&grad)?;
        let grad = grad.get()?;
        let (left, right) = self.widths;
        let part = |of: &Tensor, first: usize, width: usize| {
            if !of.track_op() {
                return Ok(None);
            }
            let task = per_task(TASK, width);
            // SAFETY: the rows are all of the gradient.
            let mut out = unsafe { unfilled(of.elem_count()) };
            out.par_chunks_mut(task * width).zip(grad.par_chunks(task * (left + right))).for_each(|(out, grad)| {
                for (out, grad) in out.chunks_exact_mut(width).zip(grad.chunks_exact(left + right)) {
                    out.copy_from_slice(&grad[first..first + width]);
                }
            });
            gradient(out, of)
        };
        Ok((part(a, 0, left)?, part(b, left, right)?))
    }
}

/// Pixel `(y, x)` of the result is pixel `(floor(y old / new), ..)` of `x` `[batch, height, width, channels]`.
pub(super) fn upsample_nearest(x: &Tensor, size: (usize, usize)) -> Result<Tensor> {
    let (batch, _, _, channels) = x.dims4()?;
    let values = [batch, channels, size.0, size.1].into_iter().try_fold(1usize, usize::checked_mul);
    if size.0 == 0 || size.1 == 0 || values.is_none_or(|values| values > isize::MAX as usize / 4) {
        bail!("maps {:?} cannot take the size {}x{}", x.shape(), size.1, size.0);
    }
    x.contiguous()?.apply_op1(Upsample { size })
}

/// To a height and width.
struct Upsample {
    size: (usize, usize),
}

impl CustomOp1 for Upsample {
    fn name(&self) -> &'static str {
        "evenset upsample maps"
    }

    fn cpu_fwd(&self, x: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let [batch, old_height, old_width, channels] = dims_of(layout)?;
        let x = values(x, layout)?;
        let ((height, width), row) = (self.size, old_width * channels);
        // SAFETY: the rows of all images are all of the result.
        let mut out = unsafe { unfilled(batch * height * width * channels) };
        out.par_chunks_exact_mut(width * channels).enumerate().for_each(|(i, out)| {
            let (image, y) = (i / height, i % height);
            let from = image * old_height + y * old_height / height;
            pixels::stretch(&x[from * row..][..row], channels, out);
        });
        output(out, (batch, height, width, channels))
    }

    fn bwd(&self, x: &Tensor, _result: &Tensor, grad: &Tensor) -> Result<Option<Tensor>> {
        let grad = grad.contiguous()?;
        let grad = Values::of(&grad)?;
        let grad = grad.get()?;
        let (_, old_height, old_width, channels) = x.dims4()?;
        let (height, row) = (self.size.0, self.size.1 * channels);
        // Sums over the pixels that a pixel became.
        let mut out = vec![0.0; x.elem_count()];
        out.par_chunks_exact_mut(old_width * channels).enumerate().for_each(|(i, out)| {
            let (image, y) = (i / old_height, i % old_height);
            let from = (y * height).div_ceil(old_height)..((y + 1) * height).div_ceil(old_height);
            for from in from {
                pixels::add_stretched(&grad[(image * height + from) * row..][..row], channels, out);
            }
        });
        gradient(out, x)
    }
}

/// `[batch, height, width, channels]` to half of height and width, rounded down.
pub(super) fn avg_pool2x(x: &Tensor) -> Result<Tensor> {
    let (_, height, width, _) = x.dims4()?;
    if height < 2 || width < 2 {
        bail!("maps of {width}x{height} cannot be halved");
    }
    x.contiguous()?.apply_op1(Average)
}

struct Average;

impl CustomOp1 for Average {
    fn name(&self) -> &'static str {
        "evenset average maps"
    }

    fn cpu_fwd(&self, x: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let [batch, old_height, old_width, channels] = dims_of(layout)?;
        let x = values(x, layout)?;
        let (height, width, row) = (old_height / 2, old_width / 2, old_width * channels);
        // SAFETY: the rows of all images are all of the result.
        let mut out = unsafe { unfilled(batch * height * width * channels) };
        out.par_chunks_exact_mut(width * channels).enumerate().for_each(|(i, out)| {
            let (image, y) = (i / height, i % height);
            let (upper, lower) = x[(image * old_height + 2 * y) * row..][..2 * row].split_at(row);
            pixels::average(upper, lower, channels, out);
        });
        output(out, (batch, height, width, channels))
    }

    fn bwd(&self, x: &Tensor, _result: &Tensor, grad: &Tensor) -> Result<Option<Tensor>> {
        let grad = grad.contiguous()?;
        let grad = Values::of(&grad)?;
        let grad = grad.get()?;
        let (_, old_height, old_width, channels) = x.dims4()?;
        let (height, row) = (old_height / 2, old_width / 2 * channels);
        // SAFETY: the rows of all images are all of the gradient.
        let mut out = unsafe { unfilled(x.elem_count()) };
        out.par_chunks_exact_mut(old_width * channels).enumerate().for_each(|(i, out)| {
            let (image, y) = (i / old_height, i % old_height / 2);
            match y < height {
                true => pixels::spread_quarters(&grad[(image * height + y) * row..][..row], channels, out),
                false => out.fill(0.0),
            }
        });
        gradient(out, x)
    }
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
            .for_each(|(out, x)| gelu::geglu(x, self.width, out));
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
            .for_each(|(out, (x, grad))| gelu::geglu_gradient(x, self.width, grad, out));
        gradient(out, x)
    }
}
