//! Products of matrices: rows of numbers times a packed right side.
//!
//! Every element of a result is the sum of its terms one after another, in the order of `k` and with one rounding each,
//! wherever in a tile the element falls. So its bytes depend on its own row and column alone, never on how many others
//! are computed beside it, by how many threads, or in what blocks.
//!
//! The right side lies in [panels](PANEL): register tiles read it vector after vector. The left side is read where it
//! lies, one number at a time, through two strides: a transposed left side costs nothing.

use super::simd::{Kernel, Simd, dispatch};

/// Columns of a panel of a right side. The last panel may be narrower, in steps of [`STEP`].
pub(crate) const PANEL: usize = 64;

/// Widths of panels are multiples of this: the lanes of the widest vector.
pub(crate) const STEP: usize = 16;

/// Terms that are added before the sums go back to memory: a panel's part then stays in the nearest caches.
const DEPTH: usize = 256;

/// What the sums start from.
#[derive(Clone, Copy)]
pub(crate) enum Start {
    /// Zero.
    Zero,
    /// What the result holds.
    Result,
    /// Rows at this address, this far apart.
    Rows(*const f32, usize),
}

/// `c[i][j] = start[i][j] + sum over t < k of a[i * a_row + t * a_term] * b[t * b_term + j] (+ bias[j])`.
///
/// `columns` is a multiple of [`STEP`] where `b` and `start` are readable; only `real` of them are stored.
#[derive(Clone, Copy)]
pub(crate) struct Block {
    pub(crate) rows: usize,
    pub(crate) k: usize,
    pub(crate) a: *const f32,
    pub(crate) a_row: usize,
    pub(crate) a_term: usize,
    pub(crate) b: *const f32,
    pub(crate) b_term: usize,
    pub(crate) columns: usize,
    pub(crate) real: usize,
    pub(crate) c: *mut f32,
    pub(crate) c_row: usize,
    pub(crate) start: Start,
    /// `columns` values, or null.
    pub(crate) bias: *const f32,
}

impl Block {
    /// # Safety
    /// The addresses must be valid for what the fields say, and nobody else may use the result's.
    pub(crate) unsafe fn compute(self) {
        // SAFETY: the caller's.
        dispatch(Compute(self));
    }
}

struct Compute(Block);

impl Kernel for Compute {
    type Output = ();

    #[inline(always)]
    unsafe fn run<S: Simd, const M: usize, const N: usize>(self) {
        // SAFETY: the caller's.
        unsafe { block::<S>(self.0) }
    }
}

/// [`Block::compute`] inside a kernel.
///
/// # Safety
/// As there, and the processor must have the instruction set of `S`.
#[inline(always)]
pub(crate) unsafe fn block<S: Simd>(block: Block) {
    // SAFETY: the caller's.
    unsafe {
        if block.columns > block.real {
            return narrow::<S>(block);
        }
        let mut first = 0;
        loop {
            let k = (block.k - first).min(DEPTH);
            let last = first + k == block.k;
            let part = Block {
                k,
                a: block.a.add(first * block.a_term),
                b: block.b.add(first * block.b_term),
                start: if first == 0 { block.start } else { Start::Result },
                bias: if last { block.bias } else { std::ptr::null() },
                ..block
            };
            columns::<S>(part);
            if last {
                return;
            }
            first += k;
        }
    }
}

/// A block whose result has fewer columns than its panel: some rows at a time through a buffer.
#[inline(never)]
unsafe fn narrow<S: Simd>(whole: Block) {
    const ROWS: usize = 24;
    let mut buffer = [0.0f32; ROWS * PANEL];
    let mut biases = [0.0f32; PANEL];
    // SAFETY: the caller's; the buffers hold `ROWS` rows of at most `PANEL` columns.
    unsafe {
        if !whole.bias.is_null() {
            std::ptr::copy_nonoverlapping(whole.bias, biases.as_mut_ptr(), whole.real);
        }
        for first in (0..whole.rows).step_by(ROWS) {
            let rows = (whole.rows - first).min(ROWS);
            let start = match whole.start {
                Start::Zero => Start::Zero,
                Start::Result | Start::Rows(..) => {
                    let (from, row) = match whole.start {
                        Start::Rows(from, row) => (from, row),
                        _ => (whole.c.cast_const(), whole.c_row),
                    };
                    for i in 0..rows {
                        let to = buffer.as_mut_ptr().add(i * PANEL);
                        std::ptr::copy_nonoverlapping(from.add((first + i) * row), to, whole.real);
                    }
                    Start::Result
                }
            };
            Block {
                rows,
                a: whole.a.add(first * whole.a_row),
                real: whole.columns,
                c: buffer.as_mut_ptr(),
                c_row: PANEL,
                start,
                bias: if whole.bias.is_null() { whole.bias } else { biases.as_ptr() },
                ..whole
            }
            .compute();
            for i in 0..rows {
                let to = whole.c.add((first + i) * whole.c_row);
                std::ptr::copy_nonoverlapping(buffer.as_ptr().add(i * PANEL), to, whole.real);
            }
        }
    }
}

#[inline(always)]
unsafe fn columns<S: Simd>(block: Block) {
    let mut column = 0;
    while column < block.columns {
        let vectors = ((block.columns - column) / S::LANES).min(S::TILE_VECTORS);
        // SAFETY: the caller's; `column` and the vectors behind it lie inside the block.
        unsafe {
            let part = Block {
                b: block.b.add(column),
                c: block.c.add(column),
                start: match block.start {
                    Start::Rows(from, row) => Start::Rows(from.add(column), row),
                    other => other,
                },
                bias: if block.bias.is_null() { block.bias } else { block.bias.add(column) },
                ..block
            };
            match vectors {
                4 if S::TILE_VECTORS >= 4 => rows::<S, 4>(part),
                3 if S::TILE_VECTORS >= 3 => rows::<S, 3>(part),
                2 => rows::<S, 2>(part),
                _ => rows::<S, 1>(part),
            }
            column += vectors.max(1) * S::LANES;
        }
    }
}

#[inline(always)]
unsafe fn rows<S: Simd, const N: usize>(block: Block) {
    let most = S::tile_rows(N);
    let mut row = 0;
    while row < block.rows {
        let count = (block.rows - row).min(most);
        // SAFETY: the caller's; the rows lie inside the block.
        unsafe {
            let a = block.a.add(row * block.a_row);
            let c = block.c.add(row * block.c_row);
            let start = match block.start {
                Start::Rows(from, stride) => Start::Rows(from.add(row * stride), stride),
                other => other,
            };
            macro_rules! tiles {
                ($($m:literal)*) => {
                    match count {
                        $($m if $m <= most => tile::<S, $m, N>(&block, a, c, start),)*
                        _ => unreachable!("a tile has at most twelve rows"),
                    }
                };
            }
            tiles!(1 2 3 4 5 6 7 8 9 10 11 12);
        }
        row += count;
    }
}

#[inline(always)]
unsafe fn tile<S: Simd, const M: usize, const N: usize>(block: &Block, a: *const f32, c: *mut f32, start: Start) {
    // SAFETY: the caller's.
    unsafe {
        let mut sums = [[S::splat(0.0); N]; M];
        let from = match start {
            Start::Zero => None,
            Start::Result => Some((c.cast_const(), block.c_row)),
            Start::Rows(from, row) => Some((from, row)),
        };
        if let Some((from, row)) = from {
            for i in 0..M {
                for j in 0..N {
                    sums[i][j] = S::load(from.add(i * row + j * S::LANES));
                }
            }
        }
        let (a_row, a_term, b_term) = (block.a_row, block.a_term, block.b_term);
        let (mut a, mut b) = (a, block.b);
        for _ in 0..block.k {
            let mut x = [S::splat(0.0); N];
            for j in 0..N {
                x[j] = S::load(b.add(j * S::LANES));
            }
            for i in 0..M {
                let w = S::splat(*a.add(i * a_row));
                for j in 0..N {
                    sums[i][j] = S::fma(w, x[j], sums[i][j]);
                }
            }
            a = a.add(a_term);
            b = b.add(b_term);
        }
        if !block.bias.is_null() {
            for j in 0..N {
                let bias = S::load(block.bias.add(j * S::LANES));
                for i in 0..M {
                    sums[i][j] = S::add(sums[i][j], bias);
                }
            }
        }
        for i in 0..M {
            for j in 0..N {
                S::store(c.add(i * block.c_row + j * S::LANES), sums[i][j]);
            }
        }
    }
}
