//! The two matrix products that everything is made of.
//!
//! Both add the terms of one result element one after another in a fixed order, whatever part of a tile the element
//! falls into. So its bytes depend on its own row and column alone, never on how many others are computed beside it.
//!
//! - [`Product`] reads its right side through a list of row offsets. A convolution is one: the rows of a kernel's
//!   taps are the same padded image, shifted. No im2col copy is made.
//! - [`Outer`] reads its left side through offsets, one number at a time: gradients of weights, small dense products.

use super::simd::{Kernel, MAX_LANES, MAX_VECTORS, Simd, dispatch, tile_rows};

/// Slack behind a right side, so that the last tile may read beyond the last column.
pub(crate) const SLACK: usize = MAX_LANES * MAX_VECTORS;

/// `n` rounded up to whole vectors of any instruction set.
pub(crate) fn padded(n: usize) -> usize {
    n.next_multiple_of(MAX_LANES)
}

/// A left side `[m, k]`, laid out as the register tiles read it: blocks of rows, `k` by `k`; rows beyond `m` are zero.
pub(crate) struct Packed {
    values: Vec<f32>,
    m: usize,
    k: usize,
    block: usize,
}

impl Packed {
    pub(crate) fn new(m: usize, k: usize, value: impl Fn(usize, usize) -> f32) -> Self {
        Self::in_blocks(tile_rows(), m, k, value)
    }

    fn in_blocks(block: usize, m: usize, k: usize, value: impl Fn(usize, usize) -> f32) -> Self {
        let mut values = vec![0.0; m.div_ceil(block) * block * k];
        for row in 0..m {
            let (first, lane) = (row / block * block * k, row % block);
            for column in 0..k {
                values[first + column * block + lane] = value(row, column);
            }
        }
        Self { values, m, k, block }
    }

    /// Rows including those that fill the last block.
    pub(crate) fn padded_rows(&self) -> usize {
        self.m.div_ceil(self.block) * self.block
    }
}

/// `out[i][j] = sum over k of left[i][k] * right[rows[k] + j]` for `columns` columns.
///
/// `out` has the left side's padded rows, `stride` apart; up to `padded(columns)` columns are written, the ones beyond
/// `columns` with rubbish. `right` needs [`SLACK`] values behind the last one that counts.
pub(crate) struct Product<'a> {
    pub(crate) left: &'a Packed,
    pub(crate) right: &'a [f32],
    pub(crate) rows: &'a [usize],
    pub(crate) columns: usize,
    pub(crate) out: &'a mut [f32],
    pub(crate) stride: usize,
}

impl Product<'_> {
    pub(crate) fn compute(self) {
        let last = self.rows.iter().max().copied().unwrap_or(0);
        assert!(self.rows.len() == self.left.k && last + padded(self.columns) <= self.right.len());
        assert!(self.stride >= padded(self.columns) && self.out.len() >= self.left.padded_rows() * self.stride);
        dispatch(self);
    }
}

impl Kernel for Product<'_> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<S: Simd, const M: usize, const N: usize>(self) {
        let blocks = self.left.values.len() / (M * self.left.k).max(1);
        let mut column = 0;
        while column < self.columns {
            let vectors = tile_vectors((self.columns - column).div_ceil(S::LANES));
            let right = self.right[column..].as_ptr();
            for block in 0..blocks {
                let left = self.left.values[block * M * self.left.k..].as_ptr();
                let out = self.out[block * M * self.stride + column..].as_mut_ptr();
                // SAFETY: `compute` checked that every row's vectors lie inside `right` and the tile inside `out`.
                unsafe {
                    match vectors {
                        1 => product_tile::<S, M, 1>(left, self.rows, right, out, self.stride),
                        2 => product_tile::<S, M, 2>(left, self.rows, right, out, self.stride),
                        _ => product_tile::<S, M, 3>(left, self.rows, right, out, self.stride),
                    }
                }
            }
            column += vectors * S::LANES;
        }
    }
}

/// The vectors of the next tile where `left` are to be done: three, or two where one would be left alone.
#[inline(always)]
fn tile_vectors(left: usize) -> usize {
    match left {
        1 => 1,
        2 | 4 => 2,
        _ => 3,
    }
}

#[inline(always)]
unsafe fn product_tile<S: Simd, const M: usize, const N: usize>(
    left: *const f32,
    rows: &[usize],
    right: *const f32,
    out: *mut f32,
    stride: usize,
) {
    // SAFETY: the caller's.
    unsafe {
        let mut sums = [[S::splat(0.0); N]; M];
        let mut left = left;
        for &row in rows {
            let right = right.add(row);
            let mut x = [S::splat(0.0); N];
            for j in 0..N {
                x[j] = S::load(right.add(j * S::LANES));
            }
            for i in 0..M {
                let w = S::splat(*left.add(i));
                for j in 0..N {
                    sums[i][j] = S::fma(w, x[j], sums[i][j]);
                }
            }
            left = left.add(M);
        }
        for i in 0..M {
            for j in 0..N {
                S::store(out.add(i * stride + j * S::LANES), sums[i][j]);
            }
        }
    }
}

/// `out[i][j] += sum over y, x of left[offsets[i] + y * steps.0 + x * steps.1] * right[y * counts.1 + x][j]`.
///
/// `right` is `[counts.0 * counts.1, width]` and `out` `[offsets.len(), width]`; `width` is a multiple of
/// [`MAX_LANES`]. The terms are added to what `out` holds, one after another.
pub(crate) struct Outer<'a> {
    pub(crate) left: &'a [f32],
    pub(crate) offsets: &'a [usize],
    pub(crate) counts: (usize, usize),
    pub(crate) steps: (usize, usize),
    pub(crate) right: &'a [f32],
    pub(crate) out: &'a mut [f32],
    pub(crate) width: usize,
}

impl Outer<'_> {
    pub(crate) fn compute(self) {
        let Self { counts, steps, width, .. } = self;
        if counts.0 * counts.1 == 0 {
            return;
        }
        let last = self.offsets.iter().max().copied().unwrap_or(0);
        assert!(last + (counts.0 - 1) * steps.0 + (counts.1 - 1) * steps.1 < self.left.len());
        assert!(width % MAX_LANES == 0 && counts.0 * counts.1 * width <= self.right.len());
        assert!(self.offsets.len() * width <= self.out.len());
        dispatch(self);
    }
}

impl Kernel for Outer<'_> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<S: Simd, const M: usize, const N: usize>(self) {
        let Self { left, offsets, counts, steps, right, out, width } = self;
        let mut column = 0;
        while column < width {
            let vectors = tile_vectors((width - column) / S::LANES);
            let right = right[column..].as_ptr();
            for (block, offsets) in offsets.chunks(M).enumerate() {
                // A last block that is not full repeats its first row; only the rows that exist are stored.
                let mut rows = [left[offsets[0]..].as_ptr(); M];
                for (row, &offset) in rows.iter_mut().zip(offsets) {
                    *row = left[offset..].as_ptr();
                }
                let tile = OuterTile { rows, real: offsets.len(), counts, steps, right, width };
                let out = out[block * M * width + column..].as_mut_ptr();
                // SAFETY: `compute` checked that all reads lie inside `left` and `right` and the tile inside `out`.
                unsafe {
                    match vectors {
                        1 => tile.add_to::<S, 1>(out),
                        2 => tile.add_to::<S, 2>(out),
                        _ => tile.add_to::<S, 3>(out),
                    }
                }
            }
            column += vectors * S::LANES;
        }
    }
}

struct OuterTile<const M: usize> {
    rows: [*const f32; M],
    real: usize,
    counts: (usize, usize),
    steps: (usize, usize),
    right: *const f32,
    width: usize,
}

impl<const M: usize> OuterTile<M> {
    #[inline(always)]
    unsafe fn add_to<S: Simd, const N: usize>(self, out: *mut f32) {
        let Self { rows, real, counts, steps, mut right, width } = self;
        // SAFETY: the caller's.
        unsafe {
            let mut sums = [[S::splat(0.0); N]; M];
            for i in 0..M {
                for j in 0..N {
                    if i < real {
                        sums[i][j] = S::load(out.add(i * width + j * S::LANES));
                    }
                }
            }
            for y in 0..counts.0 {
                let mut at = y * steps.0;
                for _ in 0..counts.1 {
                    let mut x = [S::splat(0.0); N];
                    for j in 0..N {
                        x[j] = S::load(right.add(j * S::LANES));
                    }
                    for i in 0..M {
                        let w = S::splat(*rows[i].add(at));
                        for j in 0..N {
                            sums[i][j] = S::fma(w, x[j], sums[i][j]);
                        }
                    }
                    at += steps.1;
                    right = right.add(width);
                }
            }
            for i in 0..M {
                for j in 0..N {
                    if i < real {
                        S::store(out.add(i * width + j * S::LANES), sums[i][j]);
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use evenset_core::Seed;

    use super::super::simd::Portable;
    use super::*;

    /// Runs a kernel with every instruction set that this processor has.
    macro_rules! on_every_processor {
        ($kernel:expr, $rows:ident, $check:expr) => {{
            let mut results = Vec::new();
            {
                let $rows = 4;
                // SAFETY: these need no instruction set.
                results.push($kernel(&|kernel| unsafe { kernel.run::<Portable, 4, 3>() }, $rows));
            }
            #[cfg(target_arch = "x86_64")]
            {
                use super::super::simd::{Isa, isa, run_avx2, run_avx512};
                if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") {
                    let $rows = 4;
                    // SAFETY: the instruction set was found.
                    results.push($kernel(&|kernel| unsafe { run_avx2(kernel) }, $rows));
                }
                if isa() == Isa::Avx512 {
                    let $rows = 8;
                    // SAFETY: the instruction set was found.
                    results.push($kernel(&|kernel| unsafe { run_avx512(kernel) }, $rows));
                }
            }
            results.into_iter().for_each($check);
        }};
    }

    #[test]
    fn a_product_reads_its_rows_where_the_offsets_say_on_every_processor() {
        for (m, k, columns) in [(1, 1, 1), (3, 5, 17), (9, 7, 64), (17, 2, 81)] {
            let left = Seed(1).normal(m * k);
            let right = Seed(2).normal(3 * k + columns + SLACK);
            let rows: Vec<usize> = (0..k).map(|k| 3 * k + 1).collect();
            let stride = padded(columns);
            let compute = |run: &dyn Fn(Product<'_>), block: usize| {
                let packed = Packed::in_blocks(block, m, k, |i, j| left[i * k + j]);
                let mut out = vec![f32::NAN; packed.padded_rows() * stride];
                run(Product { left: &packed, right: &right, rows: &rows, columns, out: &mut out, stride });
                out
            };
            on_every_processor!(compute, block, |out: Vec<f32>| {
                for i in 0..m {
                    for j in 0..columns {
                        let expected: f32 = (0..k).map(|k_| left[i * k + k_] * right[rows[k_] + j]).sum();
                        assert!((out[i * stride + j] - expected).abs() < 1e-5, "{m} {k} {columns}: {i} {j}");
                    }
                }
            });
        }
    }

    #[test]
    fn an_outer_product_adds_to_what_is_there_on_every_processor() {
        let (counts, steps, width) = ((2, 3), (7, 2), 64);
        let left = Seed(1).normal(40);
        let right = Seed(2).normal(6 * width);
        let offsets: Vec<usize> = (0..13).collect();
        let compute = |run: &dyn Fn(Outer<'_>), _: usize| {
            let mut out = vec![1.0; offsets.len() * width];
            run(Outer { left: &left, offsets: &offsets, counts, steps, right: &right, out: &mut out, width });
            out
        };
        on_every_processor!(compute, block, |out: Vec<f32>| {
            for i in 0..offsets.len() {
                for j in 0..width {
                    let term = |y: usize, x: usize| left[offsets[i] + 7 * y + 2 * x] * right[(3 * y + x) * width + j];
                    let expected: f32 = 1.0 + (0..2).flat_map(|y| (0..3).map(move |x| term(y, x))).sum::<f32>();
                    assert!((out[i * width + j] - expected).abs() < 1e-5, "{i} {j}");
                }
            }
        });
    }
}
