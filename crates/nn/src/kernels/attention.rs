//! Attention of one head of one image, forward and backward.
//!
//! Queries, keys and values are `[width of the head, pixels]`, as a convolution leaves them. Scores are kept with the
//! queries in columns, so that the softmax runs down whole vectors and no operand needs to be transposed on the way.

use super::conv::transpose;
use super::norm::exp;
use super::product::{Outer, padded};
use super::scratch::with_scratch;
use super::simd::vectorised;

/// The sizes of one head.
#[derive(Clone, Copy)]
pub(crate) struct Head {
    /// Channels.
    pub(crate) width: usize,
    pub(crate) pixels: usize,
}

/// The gradients of a head's three arguments.
pub(crate) struct Gradients<'a> {
    pub(crate) q: &'a mut [f32],
    pub(crate) k: &'a mut [f32],
    pub(crate) v: &'a mut [f32],
}

impl Head {
    fn scale(self) -> f32 {
        1.0 / (self.width as f32).sqrt()
    }

    /// Columns of a row of scores, in whole vectors.
    fn row(self) -> usize {
        padded(self.pixels)
    }

    pub(crate) fn forward(self, q: &[f32], k: &[f32], v: &[f32], out: &mut [f32]) {
        let (square, flat) = (self.pixels * self.row(), self.width * self.row());
        with_scratch([square, flat, flat], |[shares, queries, mixed]| {
            self.shares(q, k, queries, shares);
            self.by_channel(v, self.pixels, shares, mixed);
            self.unpad(mixed, 1.0, out);
        });
    }

    pub(crate) fn backward(self, [q, k, v]: [&[f32]; 3], gradient: &[f32], out: Gradients<'_>) {
        let (pixels, row) = (self.pixels, self.row());
        let (square, flat) = (pixels * row, self.width * row);
        with_scratch([square, square, square, flat, flat, flat], |[shares, slopes, turned, queries, grads, result]| {
            self.shares(q, k, queries, shares);
            self.pad(gradient, 1.0, grads);

            // The share of value j in result i passes the gradient of result i on to value j.
            transpose_square(shares, pixels, row, turned);
            self.by_channel(grads, row, turned, result);
            self.unpad(result, 1.0, out.v);

            // slopes: the gradient of the scores, through the softmax of each column.
            self.by_pixel(v, grads, slopes);
            softmax_backward(shares, slopes, row);
            self.by_channel(k, pixels, slopes, result);
            self.unpad(result, self.scale(), out.q);
            transpose_square(slopes, pixels, row, turned);
            self.by_channel(queries, row, turned, result);
            self.unpad(result, 1.0, out.k);
        });
    }

    /// `shares[j][i]`: how much of value j goes into result i. Leaves the scaled queries in `queries`.
    fn shares(self, q: &[f32], k: &[f32], queries: &mut [f32], shares: &mut [f32]) {
        self.pad(q, self.scale(), queries);
        self.by_pixel(k, queries, shares);
        let row = self.row();
        softmax_columns(shares, row);
    }

    /// `out[j][i] = sum over channels of left[channel][j] * right[channel][i]`.
    fn by_pixel(self, left: &[f32], right: &[f32], out: &mut [f32]) {
        let offsets: Vec<usize> = (0..self.pixels).collect();
        out.fill(0.0);
        let (counts, steps) = ((1, self.width), (0, self.pixels));
        Outer { left, offsets: &offsets, counts, steps, right, out, width: self.row() }.compute();
    }

    /// `out[channel][i] = sum over pixels j of left[channel][j] * right[j][i]`; `left` has rows of `left_row`.
    fn by_channel(self, left: &[f32], left_row: usize, right: &[f32], out: &mut [f32]) {
        let offsets: Vec<usize> = (0..self.width).map(|channel| channel * left_row).collect();
        out.fill(0.0);
        let (counts, steps) = ((1, self.pixels), (0, 1));
        Outer { left, offsets: &offsets, counts, steps, right, out, width: self.row() }.compute();
    }

    fn pad(self, from: &[f32], scale: f32, to: &mut [f32]) {
        for (to, from) in to.chunks_exact_mut(self.row()).zip(from.chunks_exact(self.pixels)) {
            let (values, rest) = to.split_at_mut(self.pixels);
            values.iter_mut().zip(from).for_each(|(to, from)| *to = scale * from);
            rest.fill(0.0);
        }
    }

    fn unpad(self, from: &[f32], scale: f32, to: &mut [f32]) {
        for (to, from) in to.chunks_exact_mut(self.pixels).zip(from.chunks_exact(self.row())) {
            to.iter_mut().zip(from).for_each(|(to, from)| *to = scale * from);
        }
    }
}

fn transpose_square(from: &[f32], pixels: usize, row: usize, to: &mut [f32]) {
    // The padding of a row becomes rows beyond the square, which do not exist in `to`: copy row by row blocks only.
    to.fill(0.0);
    with_scratch([pixels * pixels], |[square]| {
        for (square, from) in square.chunks_exact_mut(pixels).zip(from.chunks_exact(row)) {
            square.copy_from_slice(&from[..pixels]);
        }
        transpose(square, pixels, pixels, to, row);
    });
}

/// Columns are processed in strips of this many.
const STRIP: usize = 16;

vectorised! {
    /// Softmax down every column of a matrix with rows of `row`.
    fn softmax_columns(scores: &mut [f32], row: usize) {
        for strip in (0..row).step_by(STRIP) {
            let mut largest = [f32::NEG_INFINITY; STRIP];
            for scores in scores.chunks_exact(row) {
                for (largest, score) in largest.iter_mut().zip(&scores[strip..strip + STRIP]) {
                    *largest = if *score > *largest { *score } else { *largest };
                }
            }
            let mut sums = [0.0f32; STRIP];
            for scores in scores.chunks_exact_mut(row) {
                for ((score, sum), largest) in scores[strip..strip + STRIP].iter_mut().zip(&mut sums).zip(&largest) {
                    *score = exp(*score - largest);
                    *sum += *score;
                }
            }
            let factors = sums.map(|sum| 1.0 / sum);
            for scores in scores.chunks_exact_mut(row) {
                scores[strip..strip + STRIP].iter_mut().zip(&factors).for_each(|(score, factor)| *score *= factor);
            }
        }
    }

    /// From the gradient of the shares, in `slopes`, that of the scores.
    fn softmax_backward(shares: &[f32], slopes: &mut [f32], row: usize) {
        for strip in (0..row).step_by(STRIP) {
            let mut dots = [0.0f32; STRIP];
            for (shares, slopes) in shares.chunks_exact(row).zip(slopes.chunks_exact(row)) {
                let lines = shares[strip..strip + STRIP].iter().zip(&slopes[strip..strip + STRIP]);
                dots.iter_mut().zip(lines).for_each(|(dot, (share, slope))| *dot += share * slope);
            }
            for (shares, slopes) in shares.chunks_exact(row).zip(slopes.chunks_exact_mut(row)) {
                let lines = shares[strip..strip + STRIP].iter().zip(&dots);
                let slopes = slopes[strip..strip + STRIP].iter_mut();
                slopes.zip(lines).for_each(|(slope, (share, dot))| *slope = share * (*slope - dot));
            }
        }
    }
}
