//! Products of `bf16` values with sums in `f32`, on processors that have them in hardware (AVX-512 BF16).
//!
//! An instruction multiplies two pairs of values and adds both products to a sum: twice the multiplications of `f32`. Both
//! sides are therefore brought into pairs of terms that follow one another.

use std::arch::x86_64::*;

use half::bf16;

use super::gemm::Start;

/// Pairs of values that fill a vector.
const LANES: usize = 16;

/// Rows of a register tile of four vectors.
const TILE_ROWS: usize = 6;

/// Vectors of a row of a register tile.
const TILE_VECTORS: usize = 4;

/// Rounds rows of `f32` values to `bf16` (to the nearest, ties to even), with a zero behind an odd row.
///
/// # Safety
/// The processor has AVX-512 BF16. `from` holds `rows` rows of `terms` values that start `stride` values apart, `to` room
/// for rows of `terms` made even.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512bf16")]
pub(super) unsafe fn round_rows(from: *const f32, stride: usize, rows: usize, terms: usize, to: *mut u16) {
    let wide = terms.next_multiple_of(2);
    for row in 0..rows {
        // SAFETY: the caller's; masked lanes are neither read nor written.
        unsafe {
            let (from, to) = (from.add(row * stride), to.add(row * wide));
            for term in (0..wide).step_by(LANES) {
                let read = mask(terms.saturating_sub(term));
                let values = _mm512_maskz_loadu_ps(read, from.add(term));
                let rounded = std::mem::transmute::<__m256bh, __m256i>(_mm512_cvtneps_pbh(values));
                _mm256_mask_storeu_epi16(to.add(term).cast(), mask(wide - term), rounded);
            }
        }
    }
}

/// Brings rows of a panel into pairs: `[terms, columns]` to `[terms / 2, columns, 2]`, with zeros behind an odd last row.
///
/// # Safety
/// The processor has AVX-512. `columns` is a multiple of 16; `to` has room for `terms` made even.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq")]
pub(super) unsafe fn pair_rows(from: &[bf16], columns: usize, to: *mut u16) {
    let terms = from.len() / columns;
    let from = from.as_ptr().cast::<u16>();
    for pair in 0..terms.div_ceil(2) {
        for column in (0..columns).step_by(LANES) {
            // SAFETY: rows and columns lie inside the panel.
            unsafe {
                let first = _mm256_loadu_si256(from.add(2 * pair * columns + column).cast());
                let second = match 2 * pair + 1 < terms {
                    true => _mm256_loadu_si256(from.add((2 * pair + 1) * columns + column).cast()),
                    false => _mm256_setzero_si256(),
                };
                let (first, second) = (_mm512_cvtepu16_epi32(first), _mm512_cvtepu16_epi32(second));
                let both = _mm512_or_si512(first, _mm512_slli_epi32::<16>(second));
                _mm512_storeu_si512(to.add(2 * (pair * columns + column)).cast(), both);
            }
        }
    }
}

/// A product of pairs: as [`Block`](super::gemm::Block), with `pairs` pairs of terms.
#[derive(Clone, Copy)]
pub(super) struct PairBlock {
    pub(super) rows: usize,
    pub(super) pairs: usize,
    /// Rows of pairs; `a_row` values from one to the next.
    pub(super) a: *const u16,
    pub(super) a_row: usize,
    /// Pairs of rows of `columns` columns.
    pub(super) b: *const u16,
    pub(super) columns: usize,
    pub(super) real: usize,
    pub(super) c: *mut f32,
    pub(super) c_row: usize,
    pub(super) start: Start,
    /// `real` values, or null.
    pub(super) bias: *const f32,
}

impl PairBlock {
    /// # Safety
    /// The processor has AVX-512 BF16; the addresses must be valid for what the fields say, and nobody else may use the
    /// result's.
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512bf16")]
    pub(super) unsafe fn compute(self) {
        for column in (0..self.columns).step_by(TILE_VECTORS * LANES) {
            let vectors = ((self.columns - column) / LANES).min(TILE_VECTORS);
            for row in (0..self.rows).step_by(TILE_ROWS) {
                let rows = (self.rows - row).min(TILE_ROWS);
                macro_rules! tiles {
                    ($($m:literal)*) => {
                        // SAFETY: the caller's; the tile lies inside the block.
                        unsafe {
                            match (rows, vectors) {
                                $(($m, 1) => self.tile::<$m, 1>(row, column),
                                ($m, 2) => self.tile::<$m, 2>(row, column),
                                ($m, 3) => self.tile::<$m, 3>(row, column),
                                ($m, _) => self.tile::<$m, 4>(row, column),)*
                                _ => {}
                            }
                        }
                    };
                }
                tiles!(1 2 3 4 5 6);
            }
        }
    }

    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512bf16")]
    unsafe fn tile<const M: usize, const N: usize>(&self, row: usize, column: usize) {
        // SAFETY: the caller's; masked lanes are neither read nor written.
        unsafe {
            let c = self.c.add(row * self.c_row + column);
            let mut masks = [0; N];
            for j in 0..N {
                masks[j] = mask(self.real.saturating_sub(column + j * LANES));
            }
            let mut sums = [[_mm512_setzero_ps(); N]; M];
            let from = match self.start {
                Start::Zero => None,
                Start::Result => Some((c.cast_const(), self.c_row)),
                Start::Rows(from, stride) => Some((from.add(row * stride + column), stride)),
            };
            if let Some((from, stride)) = from {
                for i in 0..M {
                    for j in 0..N {
                        sums[i][j] = _mm512_maskz_loadu_ps(masks[j], from.add(i * stride + j * LANES));
                    }
                }
            }
            let mut a = self.a.add(row * self.a_row);
            let mut b = self.b.add(2 * column);
            for _ in 0..self.pairs {
                let mut x = [_mm512_setzero_si512(); N];
                for j in 0..N {
                    x[j] = _mm512_loadu_si512(b.add(2 * j * LANES).cast());
                }
                for i in 0..M {
                    let w = _mm512_set1_epi32(a.add(i * self.a_row).cast::<i32>().read_unaligned());
                    for j in 0..N {
                        sums[i][j] = _mm512_dpbf16_ps(sums[i][j], pairs(w), pairs(x[j]));
                    }
                }
                a = a.add(2);
                b = b.add(2 * self.columns);
            }
            if !self.bias.is_null() {
                for j in 0..N {
                    let bias = _mm512_maskz_loadu_ps(masks[j], self.bias.add(column + j * LANES));
                    for i in 0..M {
                        sums[i][j] = _mm512_add_ps(sums[i][j], bias);
                    }
                }
            }
            for i in 0..M {
                for j in 0..N {
                    _mm512_mask_storeu_ps(c.add(i * self.c_row + j * LANES), masks[j], sums[i][j]);
                }
            }
        }
    }
}

/// The same bits as pairs of `bf16`.
#[target_feature(enable = "avx512f,avx512bf16")]
fn pairs(bits: __m512i) -> __m512bh {
    // SAFETY: both are 512 bits, of which every pattern is a value.
    unsafe { std::mem::transmute::<__m512i, __m512bh>(bits) }
}

/// The first `count` of 16 lanes.
fn mask(count: usize) -> __mmask16 {
    if count >= LANES { !0 } else { (1 << count) - 1 }
}
