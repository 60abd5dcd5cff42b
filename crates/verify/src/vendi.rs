//! The Vendi score: how many wholly different images would be as diverse as these.
//!
//! D. Friedman and A. B. Dieng, "The Vendi Score: a diversity evaluation metric for machine learning", TMLR (2023).

use nalgebra::{DMatrix, SymmetricEigen};

use crate::nearest::Points;

/// `exp(-sum l ln l)` over the eigenvalues `l` of the similarities divided by their number (definition 3.1), where two
/// images are as similar as the cosine between their features: 1 where all images are the same, their number where no two
/// are alike. None where there is no image with features other than 0.
///
/// The products of the dimensions have the same eigenvalues as those of the images; the smaller matrix is used.
pub(crate) fn vendi_score(features: &Points) -> Option<f64> {
    let mut units: Vec<f64> = Vec::with_capacity(features.values.len());
    for row in 0..features.len() {
        let row = features.row(row);
        let norm = row.iter().map(|&x| f64::from(x).powi(2)).sum::<f64>().sqrt();
        if norm > 0.0 && norm.is_finite() {
            units.extend(row.iter().map(|&x| f64::from(x) / norm));
        }
    }
    let (width, items) = (features.width, units.len() / features.width.max(1));
    if items == 0 {
        return None;
    }
    let columns = DMatrix::from_vec(width, items, units); // an image a column
    let products = if items <= width { columns.tr_mul(&columns) } else { &columns * columns.transpose() };
    let eigen = SymmetricEigen::try_new(products, f64::EPSILON, 100_000)?;
    let positive: Vec<f64> = eigen.eigenvalues.iter().copied().filter(|&l| l > 0.0).collect();
    let sum: f64 = positive.iter().sum();
    let entropy: f64 = positive.iter().map(|l| l / sum).map(|l| -l * l.ln()).sum();
    Some(entropy.exp().clamp(1.0, items as f64))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_images_score_one_and_orthogonal_ones_their_number() {
        let equal = Points::new([3.0, 4.0].repeat(5), 2);
        assert!((vendi_score(&equal).unwrap() - 1.0).abs() < 1e-9);
        let unlike = Points::new((0..16).map(|i| f32::from(u8::from(i % 5 == 0))).collect(), 4);
        assert!((vendi_score(&unlike).unwrap() - 4.0).abs() < 1e-9);
        // Two images twice each, in more dimensions than images and in fewer.
        let pairs = Points::new([[1.0, 0.0], [0.0, 1.0], [1.0, 0.0], [0.0, 1.0]].concat(), 2);
        assert!((vendi_score(&pairs).unwrap() - 2.0).abs() < 1e-9);
        assert_eq!(vendi_score(&Points::new(vec![0.0; 6], 3)), None);
    }
}
