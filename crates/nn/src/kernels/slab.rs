//! Convolutions of any kernel and stride over maps `[batch, height, width, channels]`, as products of matrices.
//!
//! A task copies the rows of an image that its results need, with the zeros around them, into a slab. The pixels under a
//! row of the kernel then lie beside one another: they are a row of the left side, and the next result's row begins
//! `stride` pixels further. No pixel is copied once for each tap.

use rayon::prelude::*;

use super::gemm::{Block, PANEL, STEP, Start};
use super::pack::Packed;
use super::rows::{DEPTH, widened};
use super::scratch::with_scratch;
use super::target::Target;
use crate::ops::parallel::sum_parts;

/// What a convolution does, apart from its weight.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Geometry {
    pub(crate) inputs: usize,
    pub(crate) outputs: usize,
    pub(crate) height: usize,
    pub(crate) width: usize,
    /// Height and width.
    pub(crate) kernel: (usize, usize),
    pub(crate) stride: usize,
    /// Zeros above and to the left.
    pub(crate) before: usize,
    /// Height and width of the result.
    pub(crate) out: (usize, usize),
}

/// What is added to a result.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Added<'a> {
    /// `[outputs]`, or `[batch, outputs]`.
    pub(crate) bias: Option<&'a [f32]>,
    /// Which of the two.
    pub(crate) bias_of_image: bool,
    /// Shaped as the result.
    pub(crate) residual: Option<&'a [f32]>,
}

impl Geometry {
    pub(crate) fn taps(&self) -> usize {
        self.kernel.0 * self.kernel.1
    }

    /// Values of an image.
    pub(crate) fn input_size(&self) -> usize {
        self.inputs * self.height * self.width
    }

    /// Values of an image's result.
    pub(crate) fn output_size(&self) -> usize {
        self.outputs * self.out.0 * self.out.1
    }

    /// Columns of a slab.
    fn slab_width(&self) -> usize {
        (self.out.1 - 1) * self.stride + self.kernel.1
    }

    /// Values of the slab for `rows` rows of the result.
    pub(super) fn slab_size(&self, rows: usize) -> usize {
        ((rows - 1) * self.stride + self.kernel.0) * self.slab_width() * self.inputs
    }

    /// Rows of the result that a task takes: as many as keep the slab small.
    pub(super) fn rows_per_task(&self) -> usize {
        const MOST: usize = 1 << 17;
        let mut rows = self.out.0.min(32);
        while rows > 1 && self.slab_size(rows) > MOST {
            rows = rows.div_ceil(2);
        }
        rows
    }

    /// Copies what the rows `first ..` of an image's result need.
    pub(super) fn fill(&self, image: &[f32], first: usize, rows: usize, slab: &mut [f32]) {
        let row = self.slab_width() * self.inputs;
        let pixels = self.before * self.inputs;
        for (i, to) in slab[..self.slab_size(rows)].chunks_exact_mut(row).enumerate() {
            let y = first * self.stride + i;
            if y < self.before || y - self.before >= self.height {
                to.fill(0.0);
                continue;
            }
            let from = &image[(y - self.before) * self.width * self.inputs..][..self.width * self.inputs];
            let (left, rest) = to.split_at_mut(pixels.min(row));
            let copied = from.len().min(rest.len());
            left.fill(0.0);
            rest[..copied].copy_from_slice(&from[..copied]);
            rest[copied..].fill(0.0);
        }
    }

    /// Where in a slab the pixels under row `ky` of the kernel lie for row `y` of the slab's results.
    pub(super) fn slab_offset(&self, y: usize, ky: usize) -> usize {
        (y * self.stride + ky) * self.slab_width() * self.inputs
    }
}

/// The convolution of all images of `x`.
pub(crate) fn convolve(geometry: &Geometry, x: &[f32], weight: &Packed, added: Added<'_>, out: &mut [f32]) {
    let (sizes, outputs) = (weight.sizes, geometry.outputs);
    let batch = x.len() / geometry.input_size();
    assert!(out.len() == batch * geometry.output_size() && sizes.rows() == geometry.taps() * geometry.inputs);
    assert!(added.residual.is_none_or(|residual| residual.len() == out.len()));
    let per_task = geometry.rows_per_task();
    let blocks = geometry.out.0.div_ceil(per_task);
    let groups = (4 * rayon::current_num_threads()).div_ceil(batch * blocks).min(sizes.panels());
    let target = Target::new(out);
    let (row_terms, out_row) = (geometry.kernel.1 * geometry.inputs, geometry.out.1 * outputs);
    (0..batch * blocks * groups).into_par_iter().for_each(|task| {
        let (image, block, group) = (task / groups / blocks, task / groups % blocks, task % groups);
        let first = block * per_task;
        let rows = per_task.min(geometry.out.0 - first);
        let bias =
            added.bias.map(|bias| if bias.len() == outputs { bias } else { &bias[image * outputs..][..outputs] });
        let panels = group * sizes.panels() / groups..(group + 1) * sizes.panels() / groups;
        let buffer = if weight.is_half() { DEPTH * PANEL } else { 0 };
        with_scratch([geometry.slab_size(rows), buffer], |[slab, buffer]| {
            geometry.fill(&x[image * geometry.input_size()..][..geometry.input_size()], first, rows, slab);
            for panel in panels {
                for ky in 0..geometry.kernel.0 {
                    for part in (0..row_terms).step_by(DEPTH) {
                        let terms = part..(part + DEPTH).min(row_terms);
                        let last = ky + 1 == geometry.kernel.0 && terms.end == row_terms;
                        let b = weight.rows(panel, ky * row_terms + terms.start..ky * row_terms + terms.end, buffer);
                        for y in 0..rows {
                            let offset = image * geometry.output_size() + (first + y) * out_row + panel * PANEL;
                            let start = match (ky + part, added.residual) {
                                (0, None) => Start::Zero,
                                (0, Some(residual)) => Start::Rows(residual[offset..].as_ptr(), outputs),
                                _ => Start::Result,
                            };
                            // SAFETY: the slab holds all pixels under the kernel, and each task has rows or columns of
                            // the result of its own.
                            unsafe {
                                Block {
                                    rows: geometry.out.1,
                                    k: terms.len(),
                                    a: slab.as_ptr().add(geometry.slab_offset(y, ky) + part),
                                    a_row: geometry.stride * geometry.inputs,
                                    a_term: 1,
                                    b: b.as_ptr(),
                                    b_term: sizes.columns(panel),
                                    columns: sizes.columns(panel),
                                    real: sizes.real_columns(panel),
                                    c: target.at(offset),
                                    c_row: outputs,
                                    start,
                                    bias: match bias {
                                        Some(bias) if last => bias[panel * PANEL..].as_ptr(),
                                        _ => std::ptr::null(),
                                    },
                                }
                                .compute();
                            }
                        }
                    }
                }
            }
        });
    });
}

/// The gradient of the weight `[outputs, inputs, taps]`, from the images and the gradient of the result.
pub(crate) fn weight_gradient(geometry: &Geometry, x: &[f32], gradient: &[f32]) -> Vec<f32> {
    let Geometry { inputs, outputs, kernel, .. } = *geometry;
    let gradient = widened(gradient, outputs);
    let wide = outputs.next_multiple_of(STEP);
    let batch = x.len() / geometry.input_size();
    let (per_task, row_terms) = (geometry.rows_per_task(), kernel.1 * inputs);
    let blocks = geometry.out.0.div_ceil(per_task);
    let sums = sum_parts(batch * blocks, geometry.taps() * inputs * outputs, |blocks_of_images, sums| {
        with_scratch([geometry.slab_size(per_task)], |[slab]| {
            for i in blocks_of_images {
                let (image, first) = (i / blocks, i % blocks * per_task);
                let rows = per_task.min(geometry.out.0 - first);
                geometry.fill(&x[image * geometry.input_size()..][..geometry.input_size()], first, rows, slab);
                for ky in 0..kernel.0 {
                    for column in (0..outputs).step_by(PANEL) {
                        let real = (outputs - column).min(PANEL);
                        for y in 0..rows {
                            let row = ((image * geometry.out.0 + first + y) * geometry.out.1) * wide;
                            // SAFETY: the slab holds all pixels under the kernel; the sums are this task's own.
                            unsafe {
                                Block {
                                    rows: row_terms,
                                    k: geometry.out.1,
                                    a: slab.as_ptr().add(geometry.slab_offset(y, ky)),
                                    a_row: 1,
                                    a_term: geometry.stride * inputs,
                                    b: gradient[row + column..].as_ptr(),
                                    b_term: wide,
                                    columns: real.next_multiple_of(STEP),
                                    real,
                                    c: sums.as_mut_ptr().add(ky * row_terms * outputs + column),
                                    c_row: outputs,
                                    start: Start::Result,
                                    bias: std::ptr::null(),
                                }
                                .compute();
                            }
                        }
                    }
                }
            }
        });
    });
    by_output(&sums, geometry.taps(), inputs, outputs)
}

/// `[taps, inputs, outputs]` as `[outputs, inputs, taps]`.
pub(super) fn by_output(sums: &[f32], taps: usize, inputs: usize, outputs: usize) -> Vec<f32> {
    let mut weight = vec![0.0; sums.len()];
    weight.par_chunks_mut(inputs * taps).enumerate().for_each(|(output, to)| {
        for (i, to) in to.iter_mut().enumerate() {
            *to = sums[(i % taps * inputs + i / taps) * outputs + output];
        }
    });
    weight
}

/// The results' gradients `stride` pixels apart with zeros between them: `[batch, height, width, outputs]` to
/// `[batch, (height - 1) stride + 1, (width - 1) stride + 1, outputs]`.
pub(crate) fn spread(geometry: &Geometry, gradient: &[f32]) -> Vec<f32> {
    let Geometry { outputs, out: (height, width), stride, .. } = *geometry;
    let wide = |size: usize| (size - 1) * stride + 1;
    let row = wide(width) * outputs;
    let mut out = vec![0.0; gradient.len() / geometry.output_size() * wide(height) * row];
    out.par_chunks_mut(wide(height) * row).zip(gradient.par_chunks(geometry.output_size())).for_each(|(out, image)| {
        for (y, from) in image.chunks_exact(width * outputs).enumerate() {
            for (x, from) in from.chunks_exact(outputs).enumerate() {
                out[y * stride * row + x * stride * outputs..][..outputs].copy_from_slice(from);
            }
        }
    });
    out
}
