//! The Fréchet distance between the normal distributions of two sets of features (Heusel et al. 2017, "GANs Trained by a
//! Two Time-Scale Update Rule Converge to a Local Nash Equilibrium").

use nalgebra::{DMatrix, DVector, SymmetricEigen};

/// A side needs at least so many images for each feature, or its covariance is too poor: the distance of few images is
/// far too large, and says more of their number than of the images.
pub const IMAGES_PER_FEATURE: usize = 2;

/// `|m_a - m_b|^2 + tr(A) + tr(B) - 2 tr((A B)^(1/2))` with the means and the (unbiased) covariances of the rows of two
/// matrices `[images, features]`; none where one has fewer than [`IMAGES_PER_FEATURE`] rows a column.
///
/// The last trace is the sum of the singular values of `R_a R_b^T` with `A = R_a^T R_a` and `B = R_b^T R_b`: no root of an
/// unsymmetric matrix is taken, and covariances without full rank do no harm.
pub(crate) fn frechet(a: &DMatrix<f64>, b: &DMatrix<f64>) -> Option<f64> {
    let enough = |x: &DMatrix<f64>| x.nrows() >= (IMAGES_PER_FEATURE * x.ncols()).max(2);
    if !enough(a) || !enough(b) || a.ncols() != b.ncols() {
        return None;
    }
    let ((mean_a, cov_a), (mean_b, cov_b)) = (moments(a), moments(b));
    let traces = cov_a.trace() + cov_b.trace();
    let between: f64 = (root(cov_a) * root(cov_b).transpose()).singular_values().sum();
    // Rounding may leave a little less than nothing.
    Some(((mean_a - mean_b).norm_squared() + traces - 2.0 * between).max(0.0))
}

/// Mean and covariance of the rows.
fn moments(x: &DMatrix<f64>) -> (DVector<f64>, DMatrix<f64>) {
    let mean = x.row_mean().transpose();
    let mut centred = x.clone();
    centred.row_iter_mut().for_each(|mut row| row -= mean.transpose());
    let covariance = centred.transpose() * &centred / (x.nrows() as f64 - 1.0);
    (mean, covariance)
}

/// `R` with `R^T R` the covariance, which has no negative eigenvalues but by rounding.
fn root(covariance: DMatrix<f64>) -> DMatrix<f64> {
    let eigen = SymmetricEigen::new(covariance);
    let mut root = eigen.eigenvectors.transpose();
    for (mut row, value) in root.row_iter_mut().zip(&eigen.eigenvalues) {
        row *= value.max(0.0).sqrt();
    }
    root
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Rows whose sample mean and covariance are exactly these: two rows a feature, one standard deviation (and a bit,
    /// for the unbiased covariance) to either side.
    fn rows(mean: &[f64], deviations: &[f64]) -> DMatrix<f64> {
        let (n, rows) = (mean.len(), 2 * mean.len());
        DMatrix::from_fn(rows, n, |row, column| {
            let side = if row % 2 == 0 { 1.0 } else { -1.0 };
            let at = if row / 2 == column { side * ((rows - 1) as f64 / 2.0).sqrt() } else { 0.0 };
            mean[column] + deviations[column] * at
        })
    }

    #[test]
    fn normal_distributions_with_known_moments_have_the_distance_of_the_formula() {
        // Diagonal covariances commute: the distance is |m|^2 + sum (s_a - s_b)^2.
        let (a, b) = (rows(&[0.0, 1.0, 2.0], &[1.0, 2.0, 0.0]), rows(&[1.0, 1.0, 0.0], &[3.0, 0.5, 1.0]));
        let expected = 1.0 + 4.0 + 4.0 + 2.25 + 1.0;
        assert!((frechet(&a, &b).unwrap() - expected).abs() < 1e-9);
        assert!(frechet(&a, &a).unwrap() < 1e-9);
        // Turning both changes nothing.
        let turn = DMatrix::from_row_slice(3, 3, &[0.6, -0.8, 0.0, 0.8, 0.6, 0.0, 0.0, 0.0, 1.0]);
        assert!((frechet(&(&a * &turn), &(&b * &turn)).unwrap() - expected).abs() < 1e-9);
    }

    #[test]
    fn too_few_images_have_no_distance() {
        let a = rows(&[0.0, 1.0], &[1.0, 1.0]);
        assert!(frechet(&a, &a.rows(0, 3).into_owned()).is_none());
    }
}
