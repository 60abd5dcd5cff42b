//! 3x3 convolutions with stride 1 in the transformed domain of Winograd's minimal filtering, F(4x4, 3x3) (Lavin and Gray
//! 2016), over maps `[batch, height, width, channels]`.
//!
//! A tile of 4x4 results needs 6x6 pixels. Those, and the weights, are transformed to 36 values each, between which the
//! convolution is a plain product: 36 products of matrices with a quarter of the multiplications that the convolution
//! has. The transformed weights would be four times as large as the weights; they are made a part at a time, used for all
//! tiles of a block and forgotten.
//!
//! A tile's result depends on its own pixels alone and is added up in one order, whatever block it falls into.

mod gradient;

use std::ops::Range;

use rayon::prelude::*;

use super::gemm::{Block, PANEL, Start};
use super::pack::Packed;
use super::scratch::with_scratch;
use super::simd::{Lanewise, Simd, dispatch_lanes};
use super::slab::{Added, Geometry};
use super::target::{Target, balanced};

pub(crate) use gradient::weight_gradient;

/// Rows and columns of results in a tile.
const TILE: usize = 4;

/// Rows and columns of pixels that a tile needs.
const SIDE: usize = TILE + 2;

/// Values of a transformed tile.
const POINTS: usize = SIDE * SIDE;

/// Channels that are transformed and multiplied before the next ones.
const CHUNK: usize = 64;

/// The most tiles of a block: its sums share the second nearest cache with a part of the weights.
const BLOCK: usize = 60;

/// The fewest tiles of a block where there are more: every block transforms the weights for itself.
const LEAST: usize = 24;

/// Tiles that are transformed in one task where all tiles are transformed before the products.
const TRANSFORM_TASK: usize = 8;

/// Whether the convolution has this form and is faster in it.
pub(crate) fn applies(geometry: &Geometry) -> bool {
    let Geometry { inputs, outputs, kernel, stride, out, .. } = *geometry;
    // Small tiles at an edge are computed whole; what the transformations cost must come back.
    let worth = 12 * out.0.div_ceil(TILE) * out.1.div_ceil(TILE) <= 2 * out.0 * out.1;
    kernel == (3, 3) && stride == 1 && inputs >= 16 && outputs >= 16 && worth
}

/// The tiles of a convolution.
#[derive(Clone, Copy, Debug)]
struct Tiles {
    geometry: Geometry,
    rows: usize,
    columns: usize,
}

impl Tiles {
    fn new(geometry: &Geometry) -> Self {
        Self { geometry: *geometry, rows: geometry.out.0.div_ceil(TILE), columns: geometry.out.1.div_ceil(TILE) }
    }

    /// Tiles of one image.
    fn of_image(&self) -> usize {
        self.rows * self.columns
    }

    /// The image of a tile, and the first row and column of its results.
    fn place(&self, tile: usize) -> (usize, usize, usize) {
        let (image, rest) = (tile / self.of_image(), tile % self.of_image());
        (image, rest / self.columns * TILE, rest % self.columns * TILE)
    }

    /// The addresses of a tile's pixels, from the first channel on; `zeros` where the image has none.
    fn pixels(&self, x: &[f32], tile: usize, zeros: &[f32]) -> [*const f32; POINTS] {
        let Geometry { inputs, height, width, before, .. } = self.geometry;
        let (image, top, left) = self.place(tile);
        std::array::from_fn(|i| {
            let (y, x_of) = (top + i / SIDE, left + i % SIDE);
            let inside = y >= before && x_of >= before && y - before < height && x_of - before < width;
            match inside {
                true => x[((image * height + y - before) * width + x_of - before) * inputs..].as_ptr(),
                false => zeros.as_ptr(),
            }
        })
    }
}

/// The convolution of all images of `x`, for geometries that [`applies`] to.
pub(crate) fn convolve(geometry: &Geometry, x: &[f32], weight: &Packed, added: Added<'_>, out: &mut [f32]) {
    let batch = x.len() / geometry.input_size();
    let sizes = weight.sizes;
    assert!(sizes.taps == 9 && sizes.inputs == geometry.inputs && sizes.outputs == geometry.outputs);
    assert!(x.len() == batch * geometry.input_size() && out.len() == batch * geometry.output_size());
    assert!(added.residual.is_none_or(|residual| residual.len() == out.len()));
    let biases = if added.bias_of_image { batch } else { 1 };
    assert!(added.bias.is_none_or(|bias| bias.len() == biases * sizes.outputs));
    let tiles = Tiles::new(geometry);
    let convolution = Convolution { tiles, x, weight, added, out: Target::new(out) };
    let (threads, count) = (rayon::current_num_threads(), batch * tiles.of_image());
    let blocks: Vec<_> = balanced(count, LEAST..=BLOCK, threads).collect();
    if blocks.len() >= 2 * threads {
        blocks.into_par_iter().for_each(|block| convolution.whole_block(block));
        return;
    }
    // Few tiles, many channels: the threads share the transformed pixels and split the outputs.
    with_scratch([POINTS * count * geometry.inputs], |[pixels]| {
        let target = Target::new(pixels);
        let chunks = geometry.inputs.div_ceil(CHUNK);
        let groups = count.div_ceil(TRANSFORM_TASK);
        (0..chunks * groups).into_par_iter().for_each(|task| {
            let (chunk, first) = (task / groups, task % groups * TRANSFORM_TASK);
            // SAFETY: each task writes tiles and channels of its own.
            unsafe {
                tiles.transform(x, first..(first + TRANSFORM_TASK).min(count), chunk, target.at(0), first, count)
            };
        });
        (0..blocks.len() * sizes.panels()).into_par_iter().for_each(|task| {
            let (panel, block) = (task / blocks.len(), blocks[task % blocks.len()].clone());
            convolution.panel(block.clone(), panel, pixels, block.start, count);
        });
    });
}

impl Tiles {
    /// Where the transformed pixels of a chunk start among those of `count` tiles.
    fn chunk_start(&self, chunk: usize, count: usize) -> usize {
        chunk * CHUNK * POINTS * count
    }

    /// Channels of a chunk.
    fn chunk_width(&self, chunk: usize) -> usize {
        (self.geometry.inputs - chunk * CHUNK).min(CHUNK)
    }

    /// Transforms a chunk of the channels of some tiles: `[chunk][POINTS][count][channels]`, the first tile at `at`.
    ///
    /// # Safety
    /// `to` is the start of memory for `count` tiles in all channels, and nobody else uses these tiles' part of it.
    unsafe fn transform(&self, x: &[f32], tiles: Range<usize>, chunk: usize, to: *mut f32, at: usize, count: usize) {
        let zeros = [0.0; CHUNK];
        let width = self.chunk_width(chunk);
        for (i, tile) in tiles.enumerate() {
            let mut pixels = self.pixels(x, tile, &zeros);
            for pixel in &mut pixels {
                if *pixel != zeros.as_ptr() {
                    // SAFETY: the channel lies inside the pixel.
                    *pixel = unsafe { pixel.add(chunk * CHUNK) };
                }
            }
            // SAFETY: the caller's; every pixel has the chunk's channels.
            unsafe {
                let to = to.add(self.chunk_start(chunk, count) + (at + i) * width);
                dispatch_lanes(TransformPixels { pixels: &pixels, width, to, point: count * width });
            }
        }
    }
}

struct Convolution<'a> {
    tiles: Tiles,
    x: &'a [f32],
    weight: &'a Packed,
    added: Added<'a>,
    out: Target,
}

impl Convolution<'_> {
    /// All outputs of a block of tiles.
    fn whole_block(&self, block: Range<usize>) {
        let inputs = self.tiles.geometry.inputs;
        let count = block.len();
        with_scratch([POINTS * count * inputs], |[pixels]| {
            for chunk in 0..inputs.div_ceil(CHUNK) {
                // SAFETY: the memory is this task's own.
                unsafe { self.tiles.transform(self.x, block.clone(), chunk, pixels.as_mut_ptr(), 0, count) };
            }
            for panel in 0..self.weight.sizes.panels() {
                self.panel(block.clone(), panel, pixels, 0, count);
            }
        });
    }

    /// A panel of outputs of a block of tiles, from the transformed pixels of `count` tiles, the block's `at` onwards.
    fn panel(&self, block: Range<usize>, panel: usize, pixels: &[f32], at: usize, count: usize) {
        let sizes = self.weight.sizes;
        let columns = sizes.columns(panel);
        let rows = block.len();
        let half = if self.weight.is_half() { 9 * CHUNK * columns } else { 0 };
        with_scratch([POINTS * CHUNK * columns, POINTS * rows * columns, half], |[weights, sums, buffer]| {
            for chunk in 0..sizes.inputs.div_ceil(CHUNK) {
                let width = self.tiles.chunk_width(chunk);
                self.transform_weights(panel, chunk * CHUNK..chunk * CHUNK + width, weights, buffer);
                let pixels = &pixels[self.tiles.chunk_start(chunk, count)..];
                for point in 0..POINTS {
                    // SAFETY: all rows and columns lie inside the buffers.
                    unsafe {
                        Block {
                            rows,
                            k: width,
                            a: pixels.as_ptr().add((point * count + at) * width),
                            a_row: width,
                            a_term: 1,
                            b: weights.as_ptr().add(point * CHUNK * columns),
                            b_term: columns,
                            columns,
                            real: columns,
                            c: sums.as_mut_ptr().add(point * rows * columns),
                            c_row: columns,
                            start: if chunk == 0 { Start::Zero } else { Start::Result },
                            bias: std::ptr::null(),
                        }
                        .compute();
                    }
                }
            }
            self.transform_back(block, panel, sums);
        });
    }

    fn transform_weights(&self, panel: usize, inputs: Range<usize>, weights: &mut [f32], buffer: &mut [f32]) {
        let columns = self.weight.sizes.columns(panel);
        let length = inputs.len() * columns;
        let mut buffers = buffer.chunks_exact_mut(length.max(1));
        let taps: [*const f32; 9] = std::array::from_fn(|tap| {
            let first = tap * self.weight.sizes.inputs;
            let buffer = buffers.next().unwrap_or_default();
            self.weight.rows(panel, first + inputs.start..first + inputs.end, buffer).as_ptr()
        });
        // SAFETY: `weights` holds `POINTS` times as many rows as a chunk has, each tap the rows asked for.
        unsafe { dispatch_lanes(TransformWeights { taps, length, to: weights.as_mut_ptr(), point: CHUNK * columns }) };
    }

    fn transform_back(&self, block: Range<usize>, panel: usize, sums: &[f32]) {
        let Geometry { outputs, out: (height, width), .. } = self.tiles.geometry;
        let (columns, real) = (self.weight.sizes.columns(panel), self.weight.sizes.real_columns(panel));
        let rows = block.len();
        for (i, tile) in block.enumerate() {
            let (image, top, left) = self.tiles.place(tile);
            let bias = self.added.bias.map_or(std::ptr::null(), |bias| {
                let first = if self.added.bias_of_image { image * outputs } else { 0 };
                bias[first + panel * PANEL..].as_ptr()
            });
            let offset = ((image * height + top) * width + left) * outputs + panel * PANEL;
            let residual = self.added.residual.map_or(std::ptr::null(), |residual| residual[offset..].as_ptr());
            let transform = TransformBack {
                sums: sums[i * columns..].as_ptr(),
                point: rows * columns,
                real,
                bias,
                residual,
                // SAFETY: the tile's first pixel lies inside the result.
                to: unsafe { self.out.at(offset) },
                row: width * outputs,
                pixel: outputs,
                size: ((height - top).min(TILE), (width - left).min(TILE)),
            };
            // SAFETY: the tile's results inside the maps are this task's own; its sums and what is added are there.
            unsafe { dispatch_lanes(transform) };
        }
    }
}

/// `B^T d B` of a tile, every channel by itself.
struct TransformPixels<'a> {
    pixels: &'a [*const f32; POINTS],
    width: usize,
    to: *mut f32,
    /// From one point of the result to the next.
    point: usize,
}

impl Lanewise for TransformPixels<'_> {
    #[inline(always)]
    fn width(&self) -> usize {
        self.width
    }

    #[inline(always)]
    unsafe fn lanes<S: Simd>(&self, channel: usize) {
        // SAFETY: the caller's.
        unsafe {
            let mut half = [[S::splat(0.0); SIDE]; SIDE];
            for j in 0..SIDE {
                let mut column = [S::splat(0.0); SIDE];
                for i in 0..SIDE {
                    column[i] = S::load(self.pixels[i * SIDE + j].add(channel));
                }
                let column = to_points::<S>(column);
                for i in 0..SIDE {
                    half[i][j] = column[i];
                }
            }
            for i in 0..SIDE {
                let row = to_points::<S>(half[i]);
                for j in 0..SIDE {
                    S::store(self.to.add((i * SIDE + j) * self.point + channel), row[j]);
                }
            }
        }
    }
}

/// `N` vectors that lie `space` values apart. (A loop: closures would not be compiled for the instruction set.)
#[inline(always)]
unsafe fn spaced<S: Simd, const N: usize>(from: *const f32, space: usize) -> [S::V; N] {
    // SAFETY: the caller's.
    unsafe {
        let mut vectors = [S::splat(0.0); N];
        for i in 0..N {
            vectors[i] = S::load(from.add(i * space));
        }
        vectors
    }
}

/// `B^T d`.
#[inline(always)]
unsafe fn to_points<S: Simd>(d: [S::V; SIDE]) -> [S::V; SIDE] {
    // SAFETY: the caller has the instruction set.
    unsafe {
        let (two, four, five) = (S::splat(2.0), S::splat(4.0), S::splat(-5.0));
        let minus = S::splat(-4.0);
        let (a, b) = (S::fma(minus, d[2], d[4]), S::fma(minus, d[1], d[3]));
        let (c, e) = (S::sub(d[4], d[2]), S::mul(two, S::sub(d[3], d[1])));
        [
            S::fma(four, d[0], S::fma(five, d[2], d[4])),
            S::add(a, b),
            S::sub(a, b),
            S::add(c, e),
            S::sub(c, e),
            S::fma(four, d[1], S::fma(five, d[3], d[5])),
        ]
    }
}

/// `G g G^T` of every weight.
struct TransformWeights {
    taps: [*const f32; 9],
    length: usize,
    to: *mut f32,
    point: usize,
}

impl Lanewise for TransformWeights {
    #[inline(always)]
    fn width(&self) -> usize {
        self.length
    }

    #[inline(always)]
    unsafe fn lanes<S: Simd>(&self, i: usize) {
        // SAFETY: the caller's.
        unsafe {
            let mut half = [[S::splat(0.0); 3]; SIDE];
            for j in 0..3 {
                let mut column = [S::splat(0.0); 3];
                for k in 0..3 {
                    column[k] = S::load(self.taps[3 * k + j].add(i));
                }
                let column = weight_points::<S>(column);
                for k in 0..SIDE {
                    half[k][j] = column[k];
                }
            }
            for k in 0..SIDE {
                let row = weight_points::<S>(half[k]);
                for j in 0..SIDE {
                    S::store(self.to.add((k * SIDE + j) * self.point + i), row[j]);
                }
            }
        }
    }
}

/// `G g`.
#[inline(always)]
unsafe fn weight_points<S: Simd>(g: [S::V; 3]) -> [S::V; SIDE] {
    // SAFETY: the caller has the instruction set.
    unsafe {
        let (sixth, twelfth) = (S::splat(1.0 / 6.0), S::splat(1.0 / 12.0));
        let outer = S::mul(S::splat(-1.0 / 6.0), S::add(g[0], g[2]));
        let inner = S::mul(sixth, g[1]);
        let far = S::fma(S::splat(1.0 / 24.0), g[0], S::mul(sixth, g[2]));
        let near = S::mul(twelfth, g[1]);
        [
            S::mul(S::splat(0.25), g[0]),
            S::sub(outer, inner),
            S::add(outer, inner),
            S::add(far, near),
            S::sub(far, near),
            g[2],
        ]
    }
}

/// `A^T m A` of a tile's sums, with what is added to them.
struct TransformBack {
    sums: *const f32,
    point: usize,
    real: usize,
    /// `real` values, or null.
    bias: *const f32,
    /// Laid out as the result, or null.
    residual: *const f32,
    to: *mut f32,
    row: usize,
    pixel: usize,
    /// Rows and columns that lie inside the result.
    size: (usize, usize),
}

impl Lanewise for TransformBack {
    #[inline(always)]
    fn width(&self) -> usize {
        self.real
    }

    #[inline(always)]
    unsafe fn lanes<S: Simd>(&self, column: usize) {
        // SAFETY: the caller's.
        unsafe {
            let mut half = [[S::splat(0.0); SIDE]; TILE];
            for j in 0..SIDE {
                let points = spaced::<S, SIDE>(self.sums.add(j * self.point + column), SIDE * self.point);
                let results = to_results::<S>(points);
                for i in 0..TILE {
                    half[i][j] = results[i];
                }
            }
            let bias = if self.bias.is_null() { S::splat(0.0) } else { S::load(self.bias.add(column)) };
            for i in 0..self.size.0 {
                let results = to_results::<S>(half[i]);
                for j in 0..self.size.1 {
                    let at = i * self.row + j * self.pixel + column;
                    let mut result = S::add(results[j], bias);
                    if !self.residual.is_null() {
                        result = S::add(result, S::load(self.residual.add(at)));
                    }
                    S::store(self.to.add(at), result);
                }
            }
        }
    }
}

/// `A^T m`.
#[inline(always)]
unsafe fn to_results<S: Simd>(m: [S::V; SIDE]) -> [S::V; TILE] {
    // SAFETY: the caller has the instruction set.
    unsafe {
        let (near, near_difference) = (S::add(m[1], m[2]), S::sub(m[1], m[2]));
        let (far, far_difference) = (S::add(m[3], m[4]), S::sub(m[3], m[4]));
        [
            S::add(S::add(m[0], near), far),
            S::fma(S::splat(2.0), far_difference, near_difference),
            S::fma(S::splat(4.0), far, near),
            S::add(S::fma(S::splat(8.0), far_difference, near_difference), m[5]),
        ]
    }
}
