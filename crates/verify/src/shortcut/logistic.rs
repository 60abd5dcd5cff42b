//! Logistic regression with a penalty, cross-validated: the smallest classifier there is.

use evenset_core::Seed;
use nalgebra::{DMatrix, DVector};
use rand::seq::SliceRandom;

/// Parts that the images are cut into: each is judged by a classifier that learned from the others.
const FOLDS: usize = 5;
/// The penalty on squared weights of cues with deviation 1, as if so many images said that a cue says nothing.
const PENALTY: f64 = 1.0;
/// Newton's method is done after a handful of steps.
const STEPS: usize = 25;

/// How surely a classifier that never saw it takes each image for generated (log odds), of `rows` of cues; `generated` says
/// which are. The same share of both kinds is in every part.
pub(crate) fn cross_validated(rows: &[Vec<f64>], generated: &[bool], seed: Seed) -> Vec<f64> {
    let mut fold = vec![0; rows.len()];
    for (kind, seed) in [(false, seed.derive("real")), (true, seed.derive("generated"))] {
        let mut of_kind: Vec<usize> = (0..rows.len()).filter(|&i| generated[i] == kind).collect();
        of_kind.shuffle(&mut seed.rng());
        of_kind.into_iter().enumerate().for_each(|(place, i)| fold[i] = place % FOLDS);
    }
    let mut odds = vec![0.0; rows.len()];
    for apart in 0..FOLDS {
        let learn: Vec<usize> = (0..rows.len()).filter(|&i| fold[i] != apart).collect();
        let model = Model::fit(rows, generated, &learn);
        for i in (0..rows.len()).filter(|&i| fold[i] == apart) {
            odds[i] = model.odds(&rows[i]);
        }
    }
    odds
}

/// Weights of cues that were brought to mean 0 and deviation 1.
struct Model {
    mean: Vec<f64>,
    deviation: Vec<f64>,
    /// The last one belongs to no cue.
    weights: DVector<f64>,
}

impl Model {
    fn fit(rows: &[Vec<f64>], generated: &[bool], learn: &[usize]) -> Self {
        let width = rows.first().map_or(0, Vec::len);
        let count = learn.len().max(1) as f64;
        let column = |c: usize| learn.iter().map(move |&i| rows[i][c]);
        let mean: Vec<f64> = (0..width).map(|c| column(c).sum::<f64>() / count).collect();
        let variance = |c: usize| column(c).map(|value| (value - mean[c]).powi(2)).sum::<f64>() / count;
        let deviation = (0..width).map(|c| variance(c).sqrt().max(1e-9)).collect();
        let mut model = Self { mean, deviation, weights: DVector::zeros(width + 1) };
        let scaled =
            DMatrix::from_row_iterator(learn.len(), width + 1, learn.iter().flat_map(|&i| model.scaled(&rows[i])));
        let truth: Vec<f64> = learn.iter().map(|&i| f64::from(u8::from(generated[i]))).collect();
        // Both kinds count alike, whatever their numbers.
        let positive = truth.iter().sum::<f64>();
        let weight_of = |truth: f64| count / 2.0 / if truth > 0.5 { positive } else { count - positive }.max(1.0);
        let counts: Vec<f64> = truth.iter().map(|&truth| weight_of(truth)).collect();
        let loss = |weights: &DVector<f64>| -> f64 {
            let odds = &scaled * weights;
            let each = odds.iter().zip(&truth).zip(&counts);
            // ln(1 + e^x) without overflow.
            let sum: f64 = each.map(|((&x, y), c)| c * (x.max(0.0) + (-x.abs()).exp().ln_1p() - y * x)).sum();
            sum + 0.5 * PENALTY * weights.rows(0, width).norm_squared()
        };
        let mut least = loss(&model.weights);
        for _ in 0..STEPS {
            let odds = &scaled * &model.weights;
            let p = odds.map(|x| 1.0 / (1.0 + (-x).exp()));
            let mut gradient = DVector::zeros(width + 1);
            let mut weighted = scaled.clone();
            for i in 0..learn.len() {
                gradient.axpy(counts[i] * (p[i] - truth[i]), &scaled.row(i).transpose(), 1.0);
                let curvature = counts[i] * (p[i] * (1.0 - p[i])).max(1e-12);
                weighted.row_mut(i).scale_mut(curvature);
            }
            let mut hessian = scaled.tr_mul(&weighted);
            for c in 0..=width {
                // Just enough on the last weight to keep the matrix definite.
                let penalty = if c < width { PENALTY } else { 1e-9 };
                hessian[(c, c)] += penalty;
                gradient[c] += penalty * model.weights[c];
            }
            let Some(factors) = hessian.cholesky() else { break };
            let step = factors.solve(&gradient);
            let shorter = (0..20).map(|halvings| &model.weights - &step * 0.5f64.powi(halvings));
            let Some((better, next)) = shorter.map(|next| (loss(&next), next)).find(|(next, _)| *next < least) else {
                break;
            };
            let gained = least - better;
            (least, model.weights) = (better, next);
            if gained < 1e-9 * least.abs().max(1.0) {
                break;
            }
        }
        model
    }

    fn scaled(&self, row: &[f64]) -> Vec<f64> {
        let cues = row.iter().zip(&self.mean).zip(&self.deviation);
        cues.map(|((value, mean), deviation)| (value - mean) / deviation).chain([1.0]).collect()
    }

    fn odds(&self, row: &[f64]) -> f64 {
        self.scaled(row).iter().zip(self.weights.iter()).map(|(value, weight)| value * weight).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows(shift: f64) -> (Vec<Vec<f64>>, Vec<bool>) {
        let draws = Seed(2).normal(3 * 400);
        let generated: Vec<bool> = (0..400).map(|i| i % 4 == 0).collect();
        let row = |i: usize| -> Vec<f64> {
            (0..3).map(|c| f64::from(draws[3 * i + c]) + if generated[i] && c == 1 { shift } else { 0.0 }).collect()
        };
        ((0..400).map(row).collect(), generated)
    }

    #[test]
    fn a_cue_that_differs_is_found_and_one_that_does_not_is_not_learned_by_heart() {
        let auc = |shift: f64| {
            let (rows, generated) = rows(shift);
            let odds = cross_validated(&rows, &generated, Seed(1));
            let of = |kind: bool| (0..400).filter(|&i| generated[i] == kind).map(|i| odds[i]).collect::<Vec<_>>();
            super::super::Auc::of(&of(false), &of(true)).unwrap().value
        };
        assert!(auc(3.0) > 0.95, "{}", auc(3.0));
        assert!((auc(0.0) - 0.5).abs() < 0.1, "{}", auc(0.0));
    }

    #[test]
    fn kinds_that_are_wholly_apart_and_a_cue_that_never_changes_are_no_trouble() {
        let rows: Vec<Vec<f64>> = (0..40).map(|i| vec![f64::from(i), 7.0]).collect();
        let generated: Vec<bool> = (0..40).map(|i| i >= 20).collect();
        let odds = cross_validated(&rows, &generated, Seed(1));
        assert!(odds.iter().all(|odds| odds.is_finite()));
        assert!(odds[0] < 0.0 && odds[39] > 0.0);
    }
}
