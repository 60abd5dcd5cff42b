//! What training makes small: the mean loss, the loss of mixed images, or that of the worst groups.

use candle_core::Tensor;
use evenset_core::Seed;
use rand::RngExt;

use super::Head;
use crate::Result;

/// What training makes small.
#[derive(Clone, Copy, Debug)]
pub enum Objective<'a> {
    /// The (weighted) mean loss.
    Mean,
    /// The loss of images mixed in pairs, with both labels (Zhang et al. 2018, "mixup: Beyond Empirical Risk
    /// Minimization"): one share a batch, drawn from Beta(alpha, alpha).
    Mixup {
        /// Above 0, at most 1; small ones mix little.
        alpha: f64,
    },
    /// The groups' losses weighted by how bad they are (Sagawa et al. 2020, "Distributionally Robust Neural Networks for
    /// Group Shifts", algorithm 1). Groups are to be drawn equally often.
    GroupDro {
        /// For each input the number of its group.
        groups: &'a [u32],
        /// How fast the weights follow the losses; above 0.
        step: f64,
    },
}

impl Objective<'_> {
    /// Why it cannot be used on so many inputs.
    pub(super) fn obstacle(&self, rows: usize) -> Option<String> {
        match *self {
            Self::Mixup { alpha } if !(alpha > 0.0 && alpha <= 1.0) => {
                Some(format!("alpha of mixup is above 0 and at most 1, not {alpha}"))
            }
            Self::GroupDro { groups, .. } if groups.len() != rows => {
                Some(format!("{rows} images have {} groups", groups.len()))
            }
            Self::GroupDro { step, .. } if !(step > 0.0 && step.is_finite()) => {
                Some(format!("the step of the group weights is above 0, not {step}"))
            }
            _ => None,
        }
    }
}

/// An objective with what it has learned so far.
pub(super) struct Steering<'a> {
    objective: Objective<'a>,
    /// The weight of each group; they sum to one. Empty for other objectives.
    group_weights: Vec<f64>,
    seed: Seed,
}

impl<'a> Steering<'a> {
    pub(super) fn new(objective: Objective<'a>, seed: Seed) -> Self {
        let group_weights = match objective {
            Objective::GroupDro { groups, .. } => {
                let present: std::collections::BTreeSet<u32> = groups.iter().copied().collect();
                let number = present.last().map_or(0, |&last| last as usize + 1);
                let share = 1.0 / present.len().max(1) as f64;
                (0..number as u32).map(|group| if present.contains(&group) { share } else { 0.0 }).collect()
            }
            _ => Vec::new(),
        };
        Self { objective, group_weights, seed }
    }

    /// For each row of a batch the place of its partner, and the share of the row itself.
    pub(super) fn mix(&self, step: u32, rows: usize) -> Option<(Vec<usize>, f64)> {
        let Objective::Mixup { alpha } = self.objective else {
            return None;
        };
        let seed = self.seed.index(step.into());
        let mut partners: Vec<usize> = (0..rows).collect();
        seed.derive("partners").shuffle(&mut partners);
        Some((partners, beta(alpha, seed.derive("share"))))
    }

    /// The weights of a batch's rows, from the weights they have by themselves and the losses of this step.
    pub(super) fn weights(
        &mut self,
        weights: Vec<f32>,
        rows: &[usize],
        heads: &[Head],
        logits: &[Tensor],
    ) -> Result<Vec<f32>> {
        let Objective::GroupDro { groups, step } = self.objective else {
            return Ok(weights);
        };
        let mut sums = vec![(0.0, 0.0); self.group_weights.len()];
        for (&row, loss) in rows.iter().zip(row_losses(heads, logits, rows)?) {
            let (sum, count) = &mut sums[groups[row] as usize];
            *sum += loss;
            *count += 1.0;
        }
        update(&mut self.group_weights, &sums, step);
        // The loss of a batch is a sum over rows divided by their number: times that number, and over the group's.
        let weight = |(&row, weight): (&usize, f32)| {
            let group = groups[row] as usize;
            weight * (self.group_weights[group] * rows.len() as f64 / sums[group].1) as f32
        };
        Ok(rows.iter().zip(weights).map(weight).collect())
    }
}

/// The exponentiated gradient step: each weight times `exp(step * mean loss)`, then all divided by their sum. `sums` has
/// the sum of the losses and the number of rows of each group; a group without rows keeps its weight before the division.
fn update(weights: &mut [f64], sums: &[(f64, f64)], step: f64) {
    for (weight, (sum, count)) in weights.iter_mut().zip(sums) {
        if *count > 0.0 {
            // A loss large enough to overflow says no more than this one.
            *weight *= (step * sum / count).min(50.0).exp();
        }
    }
    let total: f64 = weights.iter().sum();
    weights.iter_mut().for_each(|weight| *weight /= total);
}

/// The cross-entropy of each row, summed over the heads that have a label for it.
fn row_losses(heads: &[Head], logits: &[Tensor], rows: &[usize]) -> Result<Vec<f64>> {
    let mut losses = vec![0.0; rows.len()];
    for (head, logits) in heads.iter().zip(logits) {
        let logits = logits.detach().to_vec2::<f32>()?;
        for ((loss, &row), logits) in losses.iter_mut().zip(rows).zip(&logits) {
            if let Some(label) = head.labels[row] {
                let largest = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
                let sum: f64 = logits.iter().map(|&logit| f64::from(logit - largest).exp()).sum();
                *loss += sum.ln() - f64::from(logits[label as usize] - largest);
            }
        }
    }
    Ok(losses)
}

/// A draw from Beta(alpha, alpha) for `alpha` up to 1, by rejection (Jöhnk 1964).
fn beta(alpha: f64, seed: Seed) -> f64 {
    let mut rng = seed.rng();
    loop {
        let [x, y] = [rng.random::<f64>(), rng.random::<f64>()].map(|u| u.powf(1.0 / alpha));
        if x + y <= 1.0 && x + y > 0.0 {
            return x / (x + y);
        }
    }
}

#[cfg(test)]
mod tests {
    use candle_core::Device;

    use super::*;

    #[test]
    fn shares_have_the_mean_and_variance_of_the_beta_distribution() {
        let draws: Vec<f64> = (0..20_000).map(|i| beta(0.2, Seed(4).index(i))).collect();
        let mean = draws.iter().sum::<f64>() / 20_000.0;
        let variance = draws.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / 20_000.0;
        // Variance 1 / (4 (2 alpha + 1)) = 0.1786; the mean's standard error is 0.003.
        assert!((mean - 0.5).abs() < 0.012 && (variance - 0.1786).abs() < 0.005, "{mean} {variance}");
    }

    #[test]
    fn group_weights_move_by_the_exponent_of_the_loss() {
        let mut weights = vec![0.5, 0.25, 0.25];
        update(&mut weights, &[(4.0, 2.0), (0.0, 0.0), (1.0, 1.0)], 0.1);
        let expected = [0.5 * 0.2f64.exp(), 0.25, 0.25 * 0.1f64.exp()];
        let sum: f64 = expected.iter().sum();
        for (weight, expected) in weights.iter().zip(expected) {
            assert!((weight - expected / sum).abs() < 1e-12);
        }
    }

    #[test]
    fn a_row_weighs_its_groups_weight_over_the_groups_rows() {
        let head = Head { name: "a".into(), classes: vec!["x".into(), "y".into()], labels: vec![Some(0); 4] };
        // Losses ln 2 everywhere: the weights stay 1/2 and 1/2.
        let logits = Tensor::zeros((4, 2), candle_core::DType::F32, &Device::Cpu).unwrap();
        let groups = [0, 0, 0, 2];
        let mut steering = Steering::new(Objective::GroupDro { groups: &groups, step: 0.01 }, Seed(1));
        let (heads, logits) = (&[head][..], &[logits][..]);
        let weights = steering.weights(vec![1.0; 4], &[0, 1, 2, 3], heads, logits).unwrap();
        let expected = [4.0 / 6.0, 4.0 / 6.0, 4.0 / 6.0, 2.0];
        assert!(weights.iter().zip(expected).all(|(weight, expected): (&f32, f32)| (weight - expected).abs() < 1e-6));
        let losses = row_losses(heads, logits, &[0]).unwrap();
        assert!((losses[0] - 2f64.ln()).abs() < 1e-9);
    }
}
