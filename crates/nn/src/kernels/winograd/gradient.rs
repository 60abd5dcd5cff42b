//! The gradient of a 3x3 weight in the transformed domain.
//!
//! The convolution is `A^T (U * V) A` with transformed weights `U = G g G^T` and pixels `V = B^T d B`. So the gradient of
//! `U` is the sum over tiles of `V` times `A y A^T`, with `y` the tile's gradient of the result: again 36 products of
//! matrices. The weight's own is `G^T U G`.

use rayon::prelude::*;

use super::{CHUNK, POINTS, SIDE, TILE, TRANSFORM_TASK, Tiles, spaced};
use crate::kernels::gemm::{Block, STEP, Start};
use crate::kernels::scratch::with_scratch;
use crate::kernels::simd::{Lanewise, Simd, dispatch_lanes};
use crate::kernels::slab::{Geometry, by_output};
use crate::kernels::target::Target;

/// Values that a block's transformed tiles may have: they pass from one phase to the next in the last cache.
const BLOCK_VALUES: usize = 1 << 21;

/// The gradient of the weight `[outputs, inputs, 9]`, from the images and the gradient of the result.
pub(crate) fn weight_gradient(geometry: &Geometry, x: &[f32], gradient: &[f32]) -> Vec<f32> {
    let Geometry { inputs, outputs, .. } = *geometry;
    let wide = outputs.next_multiple_of(STEP);
    let tiles = Tiles::new(geometry);
    let count = x.len() / geometry.input_size() * tiles.of_image();
    // Depends on the shapes alone: so does the order of the sums.
    let block =
        (BLOCK_VALUES / (POINTS * (inputs + wide))).clamp(TRANSFORM_TASK, 512) / TRANSFORM_TASK * TRANSFORM_TASK;
    let block = block.min(count);
    let (input_chunks, output_chunks) = (inputs.div_ceil(CHUNK), outputs.div_ceil(CHUNK));
    let lengths = [POINTS * block * inputs, POINTS * block * wide, POINTS * inputs * wide];
    with_scratch(lengths, |[pixels, slopes, sums]| {
        for first in (0..count).step_by(block) {
            let rows = block.min(count - first);
            let (pixels_to, slopes_to) = (Target::new(pixels), Target::new(slopes));
            (0..rows.div_ceil(TRANSFORM_TASK)).into_par_iter().for_each(|task| {
                let at = task * TRANSFORM_TASK;
                let end = (at + TRANSFORM_TASK).min(rows);
                // SAFETY: each task writes tiles of its own.
                unsafe {
                    for chunk in 0..input_chunks {
                        tiles.transform(x, first + at..first + end, chunk, pixels_to.at(0), at, rows);
                    }
                    for tile in at..end {
                        tiles.transform_slopes(gradient, first + tile, slopes_to.at(0), tile, rows);
                    }
                }
            });
            let target = Target::new(sums);
            let (pixels, slopes) = (&*pixels, &*slopes);
            (0..POINTS * output_chunks).into_par_iter().for_each(|task| {
                let (point, output) = (task / output_chunks, task % output_chunks);
                let columns = (wide - output * CHUNK).min(CHUNK);
                let b = &slopes[output * CHUNK * POINTS * rows + point * rows * columns..];
                for chunk in 0..input_chunks {
                    let width = tiles.chunk_width(chunk);
                    let a = &pixels[tiles.chunk_start(chunk, rows) + point * rows * width..];
                    // SAFETY: rows and columns lie inside the buffers; each task has sums of its own.
                    unsafe {
                        Block {
                            rows: width,
                            k: rows,
                            a: a.as_ptr(),
                            a_row: 1,
                            a_term: width,
                            b: b.as_ptr(),
                            b_term: columns,
                            columns,
                            real: columns,
                            c: target.at((point * inputs + chunk * CHUNK) * wide + output * CHUNK),
                            c_row: wide,
                            start: if first == 0 { Start::Zero } else { Start::Result },
                            bias: std::ptr::null(),
                        }
                        .compute();
                    }
                }
            });
        }
        let mut taps = vec![0.0; 9 * inputs * wide];
        let transform = TransformWeightGradient { sums, length: inputs * wide, to: taps.as_mut_ptr() };
        // SAFETY: both hold `length` values for each of their points or taps.
        unsafe { dispatch_lanes(transform) };
        let mut weight = by_output(&taps, 9, inputs, wide);
        weight.truncate(outputs * inputs * 9);
        weight
    })
}

impl Tiles {
    /// `A y A^T` of a tile's gradients: `[chunk of outputs][POINTS][count][columns]`, this tile the one at `at`.
    ///
    /// # Safety
    /// As for [`transform`](Self::transform). Columns beyond the last output are not written: their sums are not used.
    unsafe fn transform_slopes(&self, gradient: &[f32], tile: usize, to: *mut f32, at: usize, count: usize) {
        let Geometry { outputs, out: (height, width), .. } = self.geometry;
        let zeros = [0.0; CHUNK];
        let (image, top, left) = self.place(tile);
        for first in (0..outputs).step_by(CHUNK) {
            let real = (outputs - first).min(CHUNK);
            let columns = real.next_multiple_of(STEP);
            let slopes: [*const f32; TILE * TILE] = std::array::from_fn(|i| {
                let (y, x) = (top + i / TILE, left + i % TILE);
                match y < height && x < width {
                    true => gradient[((image * height + y) * width + x) * outputs + first..].as_ptr(),
                    false => zeros.as_ptr(),
                }
            });
            // SAFETY: the caller's; every pixel has `real` values from here on.
            unsafe {
                let to = to.add(first * POINTS * count + at * columns);
                dispatch_lanes(TransformSlopes { slopes: &slopes, real, to, point: count * columns });
            }
        }
    }
}

struct TransformSlopes<'a> {
    slopes: &'a [*const f32; TILE * TILE],
    real: usize,
    to: *mut f32,
    /// From one point of the result to the next.
    point: usize,
}

impl Lanewise for TransformSlopes<'_> {
    #[inline(always)]
    fn width(&self) -> usize {
        self.real
    }

    #[inline(always)]
    unsafe fn lanes<S: Simd>(&self, column: usize) {
        // SAFETY: the caller's.
        unsafe {
            let mut half = [[S::splat(0.0); TILE]; SIDE];
            for j in 0..TILE {
                let mut slopes = [S::splat(0.0); TILE];
                for i in 0..TILE {
                    slopes[i] = S::load(self.slopes[i * TILE + j].add(column));
                }
                let points = slope_points::<S>(slopes);
                for i in 0..SIDE {
                    half[i][j] = points[i];
                }
            }
            for i in 0..SIDE {
                let points = slope_points::<S>(half[i]);
                for j in 0..SIDE {
                    S::store(self.to.add((i * SIDE + j) * self.point + column), points[j]);
                }
            }
        }
    }
}

/// `A y`.
#[inline(always)]
unsafe fn slope_points<S: Simd>(y: [S::V; TILE]) -> [S::V; SIDE] {
    // SAFETY: the caller has the instruction set.
    unsafe {
        let (two, four) = (S::splat(2.0), S::splat(4.0));
        let (even, odd) = (S::add(y[0], y[2]), S::add(y[1], y[3]));
        let (far_even, far_odd) = (S::fma(four, y[2], y[0]), S::mul(two, S::fma(four, y[3], y[1])));
        [y[0], S::add(even, odd), S::sub(even, odd), S::add(far_even, far_odd), S::sub(far_even, far_odd), y[3]]
    }
}

/// `G^T u G` of every weight: `[POINTS, length]` to `[9, length]`.
struct TransformWeightGradient<'a> {
    sums: &'a [f32],
    length: usize,
    to: *mut f32,
}

impl Lanewise for TransformWeightGradient<'_> {
    #[inline(always)]
    fn width(&self) -> usize {
        self.length
    }

    #[inline(always)]
    unsafe fn lanes<S: Simd>(&self, i: usize) {
        // SAFETY: the caller's.
        unsafe {
            let mut half = [[S::splat(0.0); SIDE]; 3];
            for j in 0..SIDE {
                let from = self.sums.as_ptr().add(j * self.length + i);
                let taps = weight_taps::<S>(spaced::<S, SIDE>(from, SIDE * self.length));
                for k in 0..3 {
                    half[k][j] = taps[k];
                }
            }
            for k in 0..3 {
                let taps = weight_taps::<S>(half[k]);
                for j in 0..3 {
                    S::store(self.to.add((3 * k + j) * self.length + i), taps[j]);
                }
            }
        }
    }
}

/// `G^T u`.
#[inline(always)]
unsafe fn weight_taps<S: Simd>(u: [S::V; SIDE]) -> [S::V; 3] {
    // SAFETY: the caller has the instruction set.
    unsafe {
        let sixth = S::splat(1.0 / 6.0);
        let near = S::mul(sixth, S::add(u[1], u[2]));
        let far = S::add(u[3], u[4]);
        [
            S::sub(S::fma(S::splat(0.25), u[0], S::mul(S::splat(1.0 / 24.0), far)), near),
            S::fma(S::splat(1.0 / 12.0), S::sub(u[3], u[4]), S::mul(sixth, S::sub(u[2], u[1]))),
            S::add(S::sub(S::mul(sixth, far), near), u[5]),
        ]
    }
}
