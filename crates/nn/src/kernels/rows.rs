//! Rows of numbers times a packed weight: linear maps and 1x1 convolutions.

use std::borrow::Cow;

use rayon::prelude::*;

use super::gemm::{Block, PANEL, STEP, Start};
use super::math::add_to;
use super::pack::Packed;
use super::scratch::with_scratch;
use super::target::{Target, balanced};
#[cfg(target_arch = "x86_64")]
use super::{bf16, pack::Bf16Panels, simd};

/// Terms of a panel that are used for all rows of a task before the next ones: they stay in the second nearest cache.
pub(super) const DEPTH: usize = 256;

/// The most rows of a task: with [`DEPTH`] terms of each they share that cache with the panel.
const ROWS: usize = 192;

/// `out = x weight + bias + residual`: `x` is `[rows, inputs]`, `out` and `residual` are `[rows, outputs]`.
///
/// With a weight in `bf16`, `x` is rounded to `bf16` too where the processor multiplies `bf16`; sums are `f32`.
pub(crate) fn multiply(x: &[f32], weight: &Packed, bias: Option<&[f32]>, residual: Option<&[f32]>, out: &mut [f32]) {
    let sizes = weight.sizes;
    let (inputs, outputs) = (sizes.rows(), sizes.outputs);
    let rows = x.len() / inputs;
    assert!(
        out.len() == rows * outputs
            && bias.is_none_or(|bias| bias.len() == outputs)
            && residual.is_none_or(|residual| residual.len() == out.len())
    );
    let threads = rayon::current_num_threads();
    let blocks: Vec<_> = balanced(rows, 48..=ROWS, threads).collect();
    // Few rows: the panels are split among the threads too.
    let groups = (4 * threads).div_ceil(blocks.len()).min(sizes.panels());
    let target = Target::new(out);
    (0..blocks.len() * groups).into_par_iter().for_each(|task| {
        let (block, group) = (&blocks[task / groups], task % groups);
        let panels = group * sizes.panels() / groups..(group + 1) * sizes.panels() / groups;
        #[cfg(target_arch = "x86_64")]
        if let Some(weight) = weight.bf16().filter(|_| simd::has_bf16()) {
            // SAFETY: the processor has the instructions; each task has rows or columns of its own.
            unsafe { multiply_pairs(x, weight, bias, residual, target, block.clone(), panels) };
            return;
        }
        with_scratch([if weight.is_half() { DEPTH * PANEL } else { 0 }], |[buffer]| {
            for panel in panels {
                let column = panel * PANEL;
                for first in (0..inputs).step_by(DEPTH) {
                    let terms = first..(first + DEPTH).min(inputs);
                    let start = match (first, residual) {
                        (0, None) => Start::Zero,
                        (0, Some(residual)) => {
                            Start::Rows(residual[block.start * outputs + column..].as_ptr(), outputs)
                        }
                        _ => Start::Result,
                    };
                    // SAFETY: rows and columns lie inside the matrices, and each task has rows or columns of its own.
                    unsafe {
                        Block {
                            rows: block.len(),
                            k: terms.len(),
                            a: x.as_ptr().add(block.start * inputs + first),
                            a_row: inputs,
                            a_term: 1,
                            b_term: sizes.columns(panel),
                            columns: sizes.columns(panel),
                            real: sizes.real_columns(panel),
                            c: target.at(block.start * outputs + column),
                            c_row: outputs,
                            start,
                            bias: match bias {
                                Some(bias) if terms.end == inputs => bias[column..].as_ptr(),
                                _ => std::ptr::null(),
                            },
                            b: weight.rows(panel, terms, buffer).as_ptr(),
                        }
                        .compute();
                    }
                }
            }
        });
    });
}

/// A task of [`multiply`] for a weight in `bf16`, on a processor that multiplies `bf16`.
///
/// # Safety
/// The processor must; nobody else may use these rows and panels of the result.
#[cfg(target_arch = "x86_64")]
unsafe fn multiply_pairs(
    x: &[f32],
    weight: Bf16Panels<'_>,
    bias: Option<&[f32]>,
    residual: Option<&[f32]>,
    target: Target,
    block: std::ops::Range<usize>,
    panels: std::ops::Range<usize>,
) {
    let sizes = weight.sizes;
    let (inputs, outputs) = (sizes.rows(), sizes.outputs);
    let wide = inputs.next_multiple_of(2);
    // Two `bf16` values take the room of one `f32`.
    with_scratch([block.len() * wide / 2, DEPTH * PANEL / 2], |[rows, panel_rows]| {
        let (rows, pairs) = (rows.as_mut_ptr().cast::<u16>(), panel_rows.as_mut_ptr().cast::<u16>());
        // SAFETY: rows and columns lie inside the matrices and buffers; the rest is the caller's.
        unsafe {
            bf16::round_rows(x.as_ptr().add(block.start * inputs), inputs, block.len(), inputs, rows);
            for panel in panels {
                let (column, columns) = (panel * PANEL, sizes.columns(panel));
                for first in (0..inputs).step_by(DEPTH) {
                    let terms = first..(first + DEPTH).min(inputs);
                    bf16::pair_rows(weight.rows(panel, terms.clone()), columns, pairs);
                    bf16::PairBlock {
                        rows: block.len(),
                        pairs: terms.len().div_ceil(2),
                        a: rows.add(first),
                        a_row: wide,
                        b: pairs,
                        columns,
                        real: sizes.real_columns(panel),
                        c: target.at(block.start * outputs + column),
                        c_row: outputs,
                        start: match (first, residual) {
                            (0, None) => Start::Zero,
                            (0, Some(residual)) => {
                                Start::Rows(residual[block.start * outputs + column..].as_ptr(), outputs)
                            }
                            _ => Start::Result,
                        },
                        bias: match bias {
                            Some(bias) if terms.end == inputs => bias[column..].as_ptr(),
                            _ => std::ptr::null(),
                        },
                    }
                    .compute();
                }
            }
        }
    });
}

/// The gradient of a weight `[outputs, inputs]`: `gradient^T x`, with `x` `[rows, inputs]` and `gradient`
/// `[rows, outputs]`.
pub(crate) fn weight_gradient(x: &[f32], inputs: usize, gradient: &[f32], outputs: usize) -> Vec<f32> {
    // Rows of the result that a task takes: the panel of `x` is read once for all of them.
    const TASK: usize = 48;
    let x = widened(x, inputs);
    let wide = inputs.next_multiple_of(STEP);
    let rows = gradient.len() / outputs;
    assert!(x.len() == rows * wide && gradient.len() == rows * outputs);
    let mut out = vec![0.0; outputs * inputs];
    let target = Target::new(&mut out);
    let (blocks, panels) = (outputs.div_ceil(TASK), inputs.div_ceil(PANEL));
    (0..blocks * panels).into_par_iter().for_each(|task| {
        let (first, column) = (task / panels * TASK, task % panels * PANEL);
        let real = (inputs - column).min(PANEL);
        // SAFETY: rows and columns lie inside the matrices; each task has a part of the result of its own.
        unsafe {
            Block {
                rows: (outputs - first).min(TASK),
                k: rows,
                a: gradient.as_ptr().add(first),
                a_row: 1,
                a_term: outputs,
                b: x.as_ptr().add(column),
                b_term: wide,
                columns: real.next_multiple_of(STEP),
                real,
                c: target.at(first * inputs + column),
                c_row: inputs,
                start: Start::Zero,
                bias: std::ptr::null(),
            }
            .compute();
        }
    });
    out
}

/// Rows as wide as the kernels read them: as they are, or copied with zeros at the end of each.
pub(super) fn widened(values: &[f32], columns: usize) -> Cow<'_, [f32]> {
    let wide = columns.next_multiple_of(STEP);
    if wide == columns {
        return Cow::Borrowed(values);
    }
    let mut out = vec![0.0; values.len() / columns * wide];
    out.par_chunks_mut(wide).zip(values.par_chunks(columns)).with_min_len(256).for_each(|(to, from)| {
        to[..columns].copy_from_slice(from);
    });
    Cow::Owned(out)
}

/// The sums over the rows of each of `parts` equal parts of a matrix: `[parts, columns]`.
pub(crate) fn column_sums(values: &[f32], columns: usize, parts: usize) -> Vec<f32> {
    // Rows that are added up by one task; a fixed number, so that sums do not depend on the threads.
    const ROWS: usize = 256;
    let rows = values.len() / columns / parts.max(1);
    let mut sums = vec![0.0; parts * columns];
    sums.par_chunks_mut(columns).zip(values.par_chunks((rows * columns).max(1))).for_each(|(sums, values)| {
        let parts: Vec<Vec<f32>> = values
            .par_chunks(ROWS * columns)
            .map(|values| {
                let mut sums = vec![0.0; columns];
                values.chunks_exact(columns).for_each(|row| add_to(&mut sums, row));
                sums
            })
            .collect();
        parts.iter().for_each(|part| add_to(sums, part));
    });
    sums
}
