//! Small dense products, made of [`Outer`]: rows of a result do not depend on the rows beside them.

use super::conv::transpose;
use super::product::{Outer, padded};

/// A matrix whose rows are whole vectors.
pub(crate) struct Rows {
    values: Vec<f32>,
    rows: usize,
    columns: usize,
    width: usize,
}

impl Rows {
    /// From `[rows, columns]`.
    pub(crate) fn new(from: &[f32], rows: usize, columns: usize) -> Self {
        let width = padded(columns);
        let mut values = vec![0.0; rows * width];
        for (to, from) in values.chunks_exact_mut(width).zip(from.chunks_exact(columns)) {
            to[..columns].copy_from_slice(from);
        }
        Self { values, rows, columns, width }
    }

    /// From `[columns, rows]`.
    pub(crate) fn transposed(from: &[f32], rows: usize, columns: usize) -> Self {
        let width = padded(columns);
        let mut values = vec![0.0; rows * width];
        transpose(from, columns, rows, &mut values, width);
        Self { values, rows, columns, width }
    }

    /// `left` `[n, rows]` times this, plus `bias` in every row, into `out` `[n, columns]`.
    pub(crate) fn multiply(&self, left: &[f32], bias: Option<&[f32]>, out: &mut [f32]) {
        let n = left.len() / self.rows;
        let offsets: Vec<usize> = (0..n).map(|i| i * self.rows).collect();
        self.sum(left, &offsets, 1, bias, out);
    }

    /// `left` `[rows, n]`, transposed and of it the columns `first ..`, times this, into `out` `[.., columns]`.
    pub(crate) fn multiply_transposed(&self, left: &[f32], first: usize, out: &mut [f32]) {
        let n = left.len() / self.rows;
        let offsets: Vec<usize> = (first..first + out.len() / self.columns).collect();
        self.sum(left, &offsets, n, None, out);
    }

    fn sum(&self, left: &[f32], offsets: &[usize], step: usize, bias: Option<&[f32]>, out: &mut [f32]) {
        let width = self.width;
        let mut sums = vec![0.0; offsets.len() * width];
        if let Some(bias) = bias {
            sums.chunks_exact_mut(width).for_each(|sums| sums[..self.columns].copy_from_slice(bias));
        }
        let (counts, steps) = ((1, self.rows), (0, step));
        Outer { left, offsets, counts, steps, right: &self.values, out: &mut sums, width }.compute();
        for (out, sums) in out.chunks_exact_mut(self.columns).zip(sums.chunks_exact(width)) {
            out.copy_from_slice(&sums[..self.columns]);
        }
    }
}
