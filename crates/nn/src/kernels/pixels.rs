//! Moving, repeating and averaging pixels, `[pixels, channels]`.

use super::simd::{self, vectorised};

/// Rows and columns of a block: a line of memory each.
const BLOCK: usize = 16;

type Block = [[f32; BLOCK]; BLOCK];

#[inline(always)]
fn transposed_plain(block: &Block) -> Block {
    let mut turned = [[0.0; BLOCK]; BLOCK];
    for i in 0..BLOCK {
        for j in 0..BLOCK {
            turned[i][j] = block[j][i];
        }
    }
    turned
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use std::arch::x86_64::*;

    use super::{BLOCK, Block};

    /// The compiler makes single loads and stores of the plain loop; this shuffles squares of eight.
    #[target_feature(enable = "avx2,fma")]
    pub(super) fn transposed(block: &Block) -> Block {
        let mut turned = [[0.0f32; BLOCK]; BLOCK];
        for i in [0, 8] {
            for j in [0, 8] {
                // SAFETY: eight values from column `j` are within a row.
                let row = |k: usize| unsafe { _mm256_loadu_ps(block[i + k].as_ptr().add(j)) };
                let pair =
                    |a: usize, b: usize| (_mm256_unpacklo_ps(row(a), row(b)), _mm256_unpackhi_ps(row(a), row(b)));
                let ((a0, a1), (b0, b1), (c0, c1), (d0, d1)) = (pair(0, 1), pair(2, 3), pair(4, 5), pair(6, 7));
                let upper = [
                    _mm256_shuffle_ps::<0x44>(a0, b0),
                    _mm256_shuffle_ps::<0xee>(a0, b0),
                    _mm256_shuffle_ps::<0x44>(a1, b1),
                    _mm256_shuffle_ps::<0xee>(a1, b1),
                ];
                let lower = [
                    _mm256_shuffle_ps::<0x44>(c0, d0),
                    _mm256_shuffle_ps::<0xee>(c0, d0),
                    _mm256_shuffle_ps::<0x44>(c1, d1),
                    _mm256_shuffle_ps::<0xee>(c1, d1),
                ];
                for k in 0..4 {
                    let low = _mm256_permute2f128_ps::<0x20>(upper[k], lower[k]);
                    let high = _mm256_permute2f128_ps::<0x31>(upper[k], lower[k]);
                    // SAFETY: eight values from column `i` are within a row.
                    unsafe {
                        _mm256_storeu_ps(turned[j + k].as_mut_ptr().add(i), low);
                        _mm256_storeu_ps(turned[j + k + 4].as_mut_ptr().add(i), high);
                    }
                }
            }
        }
        turned
    }
}

fn transposed(block: &Block) -> Block {
    match simd::isa() {
        // SAFETY: whatever `isa` finds beside `Portable` includes AVX2.
        #[cfg(target_arch = "x86_64")]
        simd::Isa::Avx512 | simd::Isa::Avx2 => unsafe { x86::transposed(block) },
        _ => transposed_plain(block),
    }
}

/// Calls `f` with the first row and column and the extent of every block of a matrix.
#[inline(always)]
fn for_blocks(rows: usize, columns: usize, mut f: impl FnMut((usize, usize), (usize, usize))) {
    for row in (0..rows).step_by(BLOCK) {
        for column in (0..columns).step_by(BLOCK) {
            f((row, column), ((rows - row).min(BLOCK), (columns - column).min(BLOCK)));
        }
    }
}

/// Columns `first ..` of `from`, `[rows, columns]`, as the rows of `out`, `[.., rows]`.
pub(crate) fn columns_to_rows(from: &[f32], columns: usize, first: usize, out: &mut [f32]) {
    let rows = from.len() / columns;
    for_blocks(rows, out.len() / rows, |(row, column), (height, width)| {
        let from = &from[row * columns + first + column..];
        let out = &mut out[column * rows + row..];
        if (height, width) == (BLOCK, BLOCK) {
            let mut block = [[0.0f32; BLOCK]; BLOCK];
            for i in 0..BLOCK {
                block[i].copy_from_slice(&from[i * columns..][..BLOCK]);
            }
            for (i, line) in transposed(&block).iter().enumerate() {
                out[i * rows..][..BLOCK].copy_from_slice(line);
            }
        } else {
            for i in 0..width {
                for j in 0..height {
                    out[i * rows + j] = from[j * columns + i];
                }
            }
        }
    });
}

/// Rows of `from`, `[rows, columns]`, as columns: `out` holds a slice of `rows` values for each column.
pub(crate) fn rows_to_columns(from: &[f32], out: &mut [&mut [f32]]) {
    let columns = out.len();
    for_blocks(from.len() / columns, columns, |(row, column), (height, width)| {
        let from = &from[row * columns + column..];
        let out = &mut out[column..];
        if (height, width) == (BLOCK, BLOCK) {
            let mut block = [[0.0f32; BLOCK]; BLOCK];
            for i in 0..BLOCK {
                block[i].copy_from_slice(&from[i * columns..][..BLOCK]);
            }
            for (out, line) in out.iter_mut().zip(&transposed(&block)) {
                out[row..row + BLOCK].copy_from_slice(line);
            }
        } else {
            for (i, out) in out[..width].iter_mut().enumerate() {
                for j in 0..height {
                    out[row + j] = from[j * columns + i];
                }
            }
        }
    });
}

vectorised! {
    /// A row of pixels to a longer or shorter one: each takes the pixel before it in proportion.
    pub(crate) fn stretch(from: &[f32], channels: usize, out: &mut [f32]) {
        let (old, new) = (from.len() / channels, out.len() / channels);
        for (i, out) in out.chunks_exact_mut(channels).enumerate() {
            out.copy_from_slice(&from[i * old / new * channels..][..channels]);
        }
    }

    /// Adds to every pixel those that [`stretch`] would make of it.
    pub(crate) fn add_stretched(from: &[f32], channels: usize, to: &mut [f32]) {
        let (old, new) = (to.len() / channels, from.len() / channels);
        for (i, from) in from.chunks_exact(channels).enumerate() {
            let to = &mut to[i * old / new * channels..][..channels];
            to.iter_mut().zip(from).for_each(|(to, from)| *to += from);
        }
    }

    /// The means of squares of four pixels of two rows.
    pub(crate) fn average(upper: &[f32], lower: &[f32], channels: usize, out: &mut [f32]) {
        let squares = upper.chunks_exact(2 * channels).zip(lower.chunks_exact(2 * channels));
        for (out, (upper, lower)) in out.chunks_exact_mut(channels).zip(squares) {
            let ((a, b), (c, d)) = (upper.split_at(channels), lower.split_at(channels));
            for ((out, (a, b)), (c, d)) in out.iter_mut().zip(a.iter().zip(b)).zip(c.iter().zip(d)) {
                *out = 0.25 * ((a + b) + (c + d));
            }
        }
    }

    /// A row of pixels of which each is a quarter of the one that it belongs to; a last one alone is zero.
    pub(crate) fn spread_quarters(from: &[f32], channels: usize, out: &mut [f32]) {
        let (pairs, rest) = out.split_at_mut(2 * from.len());
        for (pair, from) in pairs.chunks_exact_mut(2 * channels).zip(from.chunks_exact(channels)) {
            let (left, right) = pair.split_at_mut(channels);
            for ((left, right), from) in left.iter_mut().zip(right).zip(from) {
                (*left, *right) = (0.25 * from, 0.25 * from);
            }
        }
        rest.fill(0.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_block_is_transposed() {
        let block: Block = std::array::from_fn(|i| std::array::from_fn(|j| (100 * i + j) as f32));
        let turned: Block = std::array::from_fn(|i| std::array::from_fn(|j| (100 * j + i) as f32));
        assert_eq!(transposed(&block), turned);
        assert_eq!(transposed_plain(&block), turned);
    }
}
