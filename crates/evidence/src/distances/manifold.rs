//! Precision and recall of generated images (Kynkäänniemi et al. 2019, "Improved Precision and Recall Metric for Assessing
//! Generative Models").

use nalgebra::DMatrix;
use rayon::prelude::*;

/// An image's surroundings reach to its so many-th nearest neighbour in its own set.
pub const NEIGHBOURS: usize = 3;

/// The share of `generated` that lies in the surroundings of a real image, and the share of `real` that lies in those of a
/// generated one, from the rows of matrices `[images, features]`; none where one has no more than [`NEIGHBOURS`] rows.
pub(crate) fn precision_and_recall(real: &DMatrix<f64>, generated: &DMatrix<f64>) -> Option<[f64; 2]> {
    if real.nrows() <= NEIGHBOURS || generated.nrows() <= NEIGHBOURS || real.ncols() != generated.ncols() {
        return None;
    }
    // Images as columns lie together in memory.
    let (real, generated) = (real.transpose(), generated.transpose());
    Some([covered(&generated, &real, &radii(&real)), covered(&real, &generated, &radii(&generated))])
}

/// The squared distance of each column to its third nearest neighbour among the others.
fn radii(set: &DMatrix<f64>) -> Vec<f64> {
    (0..set.ncols())
        .into_par_iter()
        .map(|i| {
            let others = (0..set.ncols()).filter(|&j| j != i);
            let mut distances: Vec<f64> = others.map(|j| distance(set, i, set, j)).collect();
            *distances.select_nth_unstable_by(NEIGHBOURS - 1, f64::total_cmp).1
        })
        .collect()
}

/// The share of the columns of `set` within the radius of a column of `around`.
fn covered(set: &DMatrix<f64>, around: &DMatrix<f64>, radii: &[f64]) -> f64 {
    let inside = |i: &usize| radii.iter().enumerate().any(|(j, &radius)| distance(set, *i, around, j) <= radius);
    (0..set.ncols()).into_par_iter().filter(inside).count() as f64 / set.ncols() as f64
}

/// The squared distance of two columns, in eight sums side by side.
fn distance(a: &DMatrix<f64>, i: usize, b: &DMatrix<f64>, j: usize) -> f64 {
    let column = |of: &DMatrix<f64>, at: usize| at * of.nrows()..(at + 1) * of.nrows();
    let (a, b) = (&a.as_slice()[column(a, i)], &b.as_slice()[column(b, j)]);
    let ((a, a_rest), (b, b_rest)) = (a.as_chunks::<8>(), b.as_chunks::<8>());
    let mut sums = [0.0; 8];
    for (a, b) in a.iter().zip(b) {
        for lane in 0..8 {
            sums[lane] += (a[lane] - b[lane]) * (a[lane] - b[lane]);
        }
    }
    let rest: f64 = a_rest.iter().zip(b_rest).map(|(a, b)| (a - b) * (a - b)).sum();
    sums.iter().sum::<f64>() + rest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn points_on_a_line_are_covered_as_counting_says() {
        // Radii of 0, 1, 2, 3, 4 to their third neighbour: 3, 2, 2, 2, 3. They reach from -3 to 7.
        let real = DMatrix::from_column_slice(5, 1, &[0.0, 1.0, 2.0, 3.0, 4.0]);
        // Radii of -3, 7, 7.5, 30: 33 (to 30), 23, 22.5 and 33: all real points are covered.
        let generated = DMatrix::from_column_slice(4, 1, &[-3.0, 7.0, 7.5, 30.0]);
        assert_eq!(precision_and_recall(&real, &generated), Some([0.5, 1.0]));
        let far = DMatrix::from_column_slice(4, 1, &[90.0, 91.0, 92.0, 93.0]);
        assert_eq!(precision_and_recall(&real, &far), Some([0.0, 0.0]));
        assert!(precision_and_recall(&real, &real.rows(0, 3).into_owned()).is_none());
    }
}
