//! The Vendi score: how many wholly different items would be as diverse as these.
//!
//! D. Friedman and A. B. Dieng, "The Vendi Score: a diversity evaluation metric for machine learning", TMLR (2023).

use nalgebra::{DMatrix, SymmetricEigen};

/// The Vendi score of `n` items from their similarities, [n, n]: symmetric, positive semidefinite, 1 on the diagonal.
/// `exp(-sum l ln l)` over the eigenvalues `l` of the similarities divided by `n` (definition 3.1): 1 where all items are
/// the same, `n` where no two are alike. `None` where there are no items, the matrix is not `n` by `n`, or an entry is
/// not a finite number.
///
/// Eigenvalues that rounding makes negative count as 0, and the rest is scaled to sum 1. O(n^3).
pub fn vendi_score(similarities: &[f64], n: usize) -> Option<f64> {
    if n == 0 || n.checked_mul(n) != Some(similarities.len()) || similarities.iter().any(|s| !s.is_finite()) {
        return None;
    }
    score(DMatrix::from_row_slice(n, n, similarities), n)
}

/// The Vendi score of `n` embeddings of the same length, [n, length], with their inner products as similarities; each is
/// scaled to unit length, and those of length 0 are left out. `None` where none is left, the list is not `n` embeddings
/// long, or a number is not finite.
///
/// The smaller of the two matrices of inner products, of the items or of the dimensions, has the same eigenvalues other
/// than 0. O(n d min(n, d)) for dimension d.
pub fn vendi_of_embeddings(embeddings: &[f32], n: usize) -> Option<f64> {
    if n == 0
        || embeddings.is_empty()
        || !embeddings.len().is_multiple_of(n)
        || embeddings.iter().any(|x| !x.is_finite())
    {
        return None;
    }
    let mut units: Vec<f64> = Vec::with_capacity(embeddings.len());
    let length = embeddings.len() / n;
    for embedding in embeddings.chunks_exact(length) {
        let norm = embedding.iter().map(|&x| f64::from(x).powi(2)).sum::<f64>().sqrt();
        if norm > 0.0 {
            units.extend(embedding.iter().map(|&x| f64::from(x) / norm));
        }
    }
    let items = units.len() / length;
    if items == 0 {
        return None;
    }
    let columns = DMatrix::from_vec(length, items, units); // an embedding a column
    let products = if items <= length { columns.tr_mul(&columns) } else { &columns * columns.transpose() };
    score(products, items)
}

/// From a matrix with the eigenvalues of `items` similarities.
fn score(similarities: DMatrix<f64>, items: usize) -> Option<f64> {
    let eigen = SymmetricEigen::try_new(similarities, f64::EPSILON, 100_000)?;
    let positive: Vec<f64> = eigen.eigenvalues.iter().copied().filter(|&l| l > 0.0).collect();
    let sum: f64 = positive.iter().sum();
    if sum <= 0.0 {
        return None;
    }
    let entropy: f64 = positive.iter().map(|l| l / sum).map(|l| -l * l.ln()).sum();
    Some(entropy.exp().clamp(1.0, items as f64))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn three_pairs_of_equal_items_score_three() {
        // The example of the authors' implementation: numbers with the similarity exp(-|a - b|).
        let numbers = [0.0f64, 0.0, 10.0, 10.0, 20.0, 20.0];
        let similarities: Vec<f64> =
            numbers.iter().flat_map(|a| numbers.iter().map(move |b| (-(a - b).abs()).exp())).collect();
        let score = vendi_score(&similarities, 6).unwrap();
        assert!(score > 2.9999 && score < 3.0, "{score}"); // they print 2.9999
    }

    #[test]
    fn equal_items_score_one_and_orthogonal_ones_their_number() {
        assert!((vendi_score(&[1.0; 16], 4).unwrap() - 1.0).abs() < 1e-9);
        let identity: Vec<f64> = (0..25).map(|i| f64::from(u8::from(i % 6 == 0))).collect();
        assert!((vendi_score(&identity, 5).unwrap() - 5.0).abs() < 1e-9);
    }

    #[test]
    fn both_matrices_of_inner_products_give_the_score_of_the_similarities() {
        for (n, length) in [(3, 8), (9, 4), (5, 5)] {
            let embeddings: Vec<f32> = evenset_core::Seed(9).normal(n * length);
            let unit = |i: usize| -> Vec<f64> {
                let of = &embeddings[i * length..(i + 1) * length];
                let norm = of.iter().map(|&x| f64::from(x).powi(2)).sum::<f64>().sqrt();
                of.iter().map(|&x| f64::from(x) / norm).collect()
            };
            let product = |i, j| unit(i).iter().zip(unit(j)).map(|(a, b)| a * b).sum::<f64>();
            let similarities: Vec<f64> = (0..n * n).map(|at| product(at / n, at % n)).collect();
            let expected = vendi_score(&similarities, n).unwrap();
            let found = vendi_of_embeddings(&embeddings, n).unwrap();
            assert!((found - expected).abs() < 1e-9, "{n} x {length}: {found} {expected}");
        }
    }

    #[test]
    fn nothing_and_no_numbers_have_no_score() {
        assert_eq!((vendi_score(&[], 0), vendi_score(&[1.0; 3], 2), vendi_score(&[f64::NAN], 1)), (None, None, None));
        assert_eq!((vendi_of_embeddings(&[], 0), vendi_of_embeddings(&[0.0; 6], 2)), (None, None));
        assert_eq!(vendi_of_embeddings(&[0.0, 0.0, 3.0, 4.0], 2), Some(1.0));
    }
}
