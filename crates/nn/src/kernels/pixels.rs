//! Moving, repeating and averaging pixels, `[pixels, channels]`.

use super::simd::vectorised;

/// Rows and columns of a block that is transposed in registers.
const BLOCK: usize = 16;

type Block = [[f32; BLOCK]; BLOCK];

/// `a[0], b[0], a[1], b[1], ..`
#[inline(always)]
fn interleaved(a: &[f32; BLOCK], b: &[f32; BLOCK]) -> [[f32; BLOCK]; 2] {
    let mut both = [[0.0; BLOCK]; 2];
    for i in 0..BLOCK / 2 {
        both[0][2 * i] = a[i];
        both[0][2 * i + 1] = b[i];
        both[1][2 * i] = a[BLOCK / 2 + i];
        both[1][2 * i + 1] = b[BLOCK / 2 + i];
    }
    both
}

/// Interleaving the halves of a block moves the highest bit of a row's number to the lowest of the column's: as often as
/// there are bits, rows and columns have changed places.
#[inline(always)]
fn transposed(mut block: Block) -> Block {
    for _ in 0..BLOCK.ilog2() {
        let mut next = [[0.0; BLOCK]; BLOCK];
        for i in 0..BLOCK / 2 {
            [next[2 * i], next[2 * i + 1]] = interleaved(&block[i], &block[BLOCK / 2 + i]);
        }
        block = next;
    }
    block
}

vectorised! {
    /// Columns `first ..` of `from`, `[rows, columns]`, as the rows of `out`, `[.., rows]`.
    pub(crate) fn columns_to_rows(from: &[f32], columns: usize, first: usize, out: &mut [f32]) {
        let rows = from.len() / columns;
        let count = out.len() / rows;
        let mut row = 0;
        while row < rows {
            let height = (rows - row).min(BLOCK);
            let mut column = 0;
            while column < count {
                let width = (count - column).min(BLOCK);
                let mut block = [[0.0f32; BLOCK]; BLOCK];
                let at = row * columns + first + column;
                if (height, width) == (BLOCK, BLOCK) {
                    for i in 0..BLOCK {
                        block[i].copy_from_slice(&from[at + i * columns..][..BLOCK]);
                    }
                    let block = transposed(block);
                    for i in 0..BLOCK {
                        out[(column + i) * rows + row..][..BLOCK].copy_from_slice(&block[i]);
                    }
                } else {
                    for i in 0..width {
                        for j in 0..height {
                            out[(column + i) * rows + row + j] = from[at + j * columns + i];
                        }
                    }
                }
                column += BLOCK;
            }
            row += BLOCK;
        }
    }

    /// Rows `[rows, columns]` as columns: `out` holds a slice of `rows` values for each column.
    pub(crate) fn rows_to_columns(from: &[f32], out: &mut [&mut [f32]]) {
        let columns = out.len();
        let rows = from.len() / columns;
        let mut row = 0;
        while row < rows {
            let height = (rows - row).min(BLOCK);
            let mut column = 0;
            while column < columns {
                let width = (columns - column).min(BLOCK);
                let mut block = [[0.0f32; BLOCK]; BLOCK];
                let at = row * columns + column;
                if (height, width) == (BLOCK, BLOCK) {
                    for i in 0..BLOCK {
                        block[i].copy_from_slice(&from[at + i * columns..][..BLOCK]);
                    }
                    let block = transposed(block);
                    for i in 0..BLOCK {
                        out[column + i][row..row + BLOCK].copy_from_slice(&block[i]);
                    }
                } else {
                    for i in 0..width {
                        for j in 0..height {
                            out[column + i][row + j] = from[at + j * columns + i];
                        }
                    }
                }
                column += BLOCK;
            }
            row += BLOCK;
        }
    }

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
        assert_eq!(transposed(block), std::array::from_fn(|i| std::array::from_fn(|j| (100 * j + i) as f32)));
    }
}
