//! Seeds without coordination.
//!
//! A seed is a hash of what the number is for, so two pieces of work never share one and no piece needs to know which
//! others ran before it. All noise is drawn on the host from [`Seed::rng`], one generator per image, so an image's
//! bytes cannot depend on batch size, thread count, or whether the run was resumed.

use rand::RngExt;
use rand_chacha::ChaCha8Rng;
use rand_distr::{Distribution, StandardNormal};
use serde::{Deserialize, Serialize};

use crate::Group;

/// A 64-bit seed with a purpose behind it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Seed(pub u64);

impl Seed {
    /// The seed of one purpose under this one: `job.derive("verifier")`, `job.derive("epoch").index(3)`.
    pub fn derive(self, purpose: &str) -> Self {
        let mut hasher = blake3::Hasher::new();
        hasher.update(&self.0.to_le_bytes());
        hasher.update(purpose.as_bytes());
        Self(first_eight(&hasher))
    }

    /// The seed of one numbered piece of work under this one.
    pub fn index(self, index: u64) -> Self {
        let mut hasher = blake3::Hasher::new_derive_key("evenset seed index");
        hasher.update(&self.0.to_le_bytes());
        hasher.update(&index.to_le_bytes());
        Self(first_eight(&hasher))
    }

    /// The seed of one request: `hash(job seed, group, round, index, purpose)`.
    pub fn of_request(job: Self, group: &Group, round: u32, index: u64, purpose: &str) -> Self {
        job.derive(&format!("{purpose} of {group}")).index(u64::from(round)).index(index)
    }

    /// A generator for this seed; the same numbers on every machine.
    pub fn rng(self) -> ChaCha8Rng {
        let mut hasher = blake3::Hasher::new_derive_key("evenset seed generator");
        hasher.update(&self.0.to_le_bytes());
        <ChaCha8Rng as rand::SeedableRng>::from_seed(*hasher.finalize().as_bytes())
    }

    /// Puts `items` into a random order: Fisher and Yates' shuffle, from the last place to the first.
    pub fn shuffle<T>(self, items: &mut [T]) {
        let mut rng = self.rng();
        for i in (1..items.len()).rev() {
            items.swap(i, rng.random_range(0..=i));
        }
    }

    /// `n` standard normal numbers.
    pub fn normal(self, n: usize) -> Vec<f32> {
        StandardNormal.sample_iter(self.rng()).take(n).collect()
    }
}

fn first_eight(hasher: &blake3::Hasher) -> u64 {
    let hash = *hasher.finalize().as_bytes();
    u64::from_le_bytes([hash[0], hash[1], hash[2], hash[3], hash[4], hash[5], hash[6], hash[7]])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn different_purposes_groups_rounds_and_indices_get_different_seeds() {
        let (a, b) = (Group::new([("x", "1")]).unwrap(), Group::new([("x", "2")]).unwrap());
        let mut seen = std::collections::BTreeSet::new();
        for group in [&a, &b] {
            for round in 0..3 {
                for index in 0..50 {
                    for purpose in ["noise", "prompt"] {
                        assert!(seen.insert(Seed::of_request(Seed(7), group, round, index, purpose)));
                    }
                }
            }
        }
        assert_eq!(seen.len(), 600);
    }

    #[test]
    fn a_shuffle_keeps_every_item_and_each_comes_first_about_equally_often() {
        let shuffled = |seed: u64| {
            let mut items = [0, 1, 2, 3, 4];
            Seed(seed).shuffle(&mut items);
            items
        };
        let mut first = [0; 5];
        for seed in 0..1000 {
            let mut items = shuffled(seed);
            first[items[0]] += 1;
            items.sort_unstable();
            assert_eq!(items, [0, 1, 2, 3, 4]);
        }
        // Of 1000 draws each fifth has 200, with a standard error of 12.6.
        assert!(first.iter().all(|times| (150..=250).contains(times)), "{first:?}");
        assert_eq!(shuffled(7), [0, 2, 1, 4, 3], "what was drawn with a seed is drawn with it again");
    }

    #[test]
    fn normal_numbers_repeat_and_have_mean_zero_and_variance_one() {
        let n = 100_000;
        let draws = Seed(3).normal(n);
        assert_eq!(draws[..10], Seed(3).normal(10)[..]);
        let mean = draws.iter().map(|&x| f64::from(x)).sum::<f64>() / n as f64;
        let variance = draws.iter().map(|&x| (f64::from(x) - mean).powi(2)).sum::<f64>() / n as f64;
        // Standard errors are 0.0032 and 0.0045: four of each.
        assert!(mean.abs() < 0.0127 && (variance - 1.0).abs() < 0.018, "{mean} {variance}");
    }
}
