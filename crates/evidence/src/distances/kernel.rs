//! The kernel distance between two sets of features (Binkowski et al. 2018, "Demystifying MMD GANs").

use nalgebra::DMatrix;
use serde::{Deserialize, Serialize};

/// The kernel distance and how sure it is.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct KernelDistance {
    /// The unbiased estimate; below zero by chance where the sets are alike.
    pub value: f64,
    /// Its standard error, by leaving out one image at a time.
    pub standard_error: f64,
}

/// The unbiased squared maximum mean discrepancy with the kernel `(x . y / features + 1)^3` between the rows of two
/// matrices `[images, features]`; none where one has fewer than three rows.
///
/// The standard error is the jackknife's for two samples (Arvesen 1969, "Jackknifing U-Statistics"), which needs nothing
/// but each image's mean kernel with the others.
pub(crate) fn kernel_distance(a: &DMatrix<f64>, b: &DMatrix<f64>) -> Option<KernelDistance> {
    if a.nrows() < 3 || b.nrows() < 3 || a.ncols() != b.ncols() || a.ncols() == 0 {
        return None;
    }
    let (within_a, within_b, across) = (kernel(a, a), kernel(b, b), kernel(a, b));
    let (m, n) = (a.nrows() as f64, b.nrows() as f64);
    // For each image the sum over the other images of its own set, and over those of the other set.
    let others = |within: &DMatrix<f64>| -> Vec<f64> {
        (0..within.nrows()).map(|i| within.column(i).sum() - within[(i, i)]).collect()
    };
    let (others_a, others_b) = (others(&within_a), others(&within_b));
    let across_a: Vec<f64> = across.row_iter().map(|row| row.sum()).collect();
    let across_b: Vec<f64> = across.column_iter().map(|column| column.sum()).collect();
    let (sum_a, sum_b, sum_across): (f64, f64, f64) =
        (others_a.iter().sum(), others_b.iter().sum(), across_a.iter().sum());
    let value = sum_a / (m * (m - 1.0)) + sum_b / (n * (n - 1.0)) - 2.0 * sum_across / (m * n);

    let without_a = |i: usize| {
        let own = (sum_a - 2.0 * others_a[i]) / ((m - 1.0) * (m - 2.0));
        own + sum_b / (n * (n - 1.0)) - 2.0 * (sum_across - across_a[i]) / ((m - 1.0) * n)
    };
    let without_b = |i: usize| {
        let own = (sum_b - 2.0 * others_b[i]) / ((n - 1.0) * (n - 2.0));
        own + sum_a / (m * (m - 1.0)) - 2.0 * (sum_across - across_b[i]) / ((n - 1.0) * m)
    };
    let variance = jackknife((0..a.nrows()).map(without_a)) + jackknife((0..b.nrows()).map(without_b));
    Some(KernelDistance { value, standard_error: variance.sqrt() })
}

/// `(x . y / features + 1)^3` of every pair of rows.
fn kernel(a: &DMatrix<f64>, b: &DMatrix<f64>) -> DMatrix<f64> {
    let features = a.ncols() as f64;
    (a * b.transpose()).map(|product| (product / features + 1.0).powi(3))
}

/// `(n - 1) / n` times the sum of squares about the mean.
fn jackknife(values: impl Iterator<Item = f64>) -> f64 {
    let values: Vec<f64> = values.collect();
    let n = values.len() as f64;
    let mean = values.iter().sum::<f64>() / n;
    (n - 1.0) / n * values.iter().map(|value| (value - mean).powi(2)).sum::<f64>()
}

#[cfg(test)]
mod tests {
    use evenset_core::Seed;

    use super::*;

    fn normal(seed: u64, rows: usize, shift: f64) -> DMatrix<f64> {
        let values = Seed(seed).normal(rows * 3);
        DMatrix::from_fn(rows, 3, |row, column| f64::from(values[row * 3 + column]) + shift)
    }

    /// Pair by pair, as the definition says.
    fn by_hand(a: &DMatrix<f64>, b: &DMatrix<f64>) -> f64 {
        let kernel = |x: &DMatrix<f64>, i: usize, y: &DMatrix<f64>, j: usize| {
            (x.row(i).dot(&y.row(j)) / x.ncols() as f64 + 1.0).powi(3)
        };
        let mean = |x: &DMatrix<f64>, y: &DMatrix<f64>, same: bool| {
            let (mut sum, mut pairs) = (0.0, 0.0);
            for i in 0..x.nrows() {
                for j in (0..y.nrows()).filter(|j| !same || i != *j) {
                    sum += kernel(x, i, y, j);
                    pairs += 1.0;
                }
            }
            sum / pairs
        };
        mean(a, a, true) + mean(b, b, true) - 2.0 * mean(a, b, false)
    }

    #[test]
    fn the_distance_and_its_error_are_those_of_all_pairs() {
        let (a, b) = (normal(1, 9, 0.0), normal(2, 7, 0.4));
        let found = kernel_distance(&a, &b).unwrap();
        assert!((found.value - by_hand(&a, &b)).abs() < 1e-10);
        let leave_a = (0..9).map(|i| by_hand(&a.clone().remove_row(i), &b));
        let leave_b = (0..7).map(|i| by_hand(&a, &b.clone().remove_row(i)));
        let variance = jackknife(leave_a) + jackknife(leave_b);
        assert!((found.standard_error - variance.sqrt()).abs() < 1e-10);
        assert!(kernel_distance(&a, &b.rows(0, 2).into_owned()).is_none());
    }

    #[test]
    fn the_standard_error_is_the_spread_over_new_samples() {
        let found: Vec<KernelDistance> =
            (0..200).map(|i| kernel_distance(&normal(2 * i, 60, 0.0), &normal(2 * i + 1, 40, 0.6)).unwrap()).collect();
        let mean = found.iter().map(|d| d.value).sum::<f64>() / 200.0;
        let spread = (found.iter().map(|d| (d.value - mean).powi(2)).sum::<f64>() / 199.0).sqrt();
        let error = found.iter().map(|d| d.standard_error).sum::<f64>() / 200.0;
        assert!((error / spread - 1.0).abs() < 0.25, "{error} {spread}");
    }
}
