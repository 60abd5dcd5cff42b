//! The fully connected trunk: layers of units with ReLU, as the Colored MNIST literature uses it (three of 100 units on
//! the pixels; Kim et al. 2019, "Learning Not to Learn"; Nam et al. 2020, "Learning from Failure").

use candle_core::{Result, Tensor};

use crate::layers::Linear;
use crate::{Error, Scope};

/// More hidden layers, or wider ones, are a mistake upstream.
const MOST_LAYERS: usize = 16;
const WIDEST: u32 = 1 << 14;

/// The hidden layers; what the last one gives are the features.
#[derive(Debug)]
pub(super) struct Mlp {
    layers: Vec<Linear>,
    pub(super) feature_width: usize,
}

impl Mlp {
    /// On `inputs` numbers; `hidden` are the layers' units.
    pub(super) fn new(scope: &Scope, inputs: usize, hidden: &[u32]) -> crate::Result<Self> {
        if hidden.is_empty() || hidden.len() > MOST_LAYERS || hidden.iter().any(|units| !(1..=WIDEST).contains(units)) {
            return Err(Error::Config(format!(
                "the hidden layers {hidden:?} are none that a classifier can have; name 1 to {MOST_LAYERS} layers of 1 \
                 to {WIDEST} units, as [100, 100, 100]"
            )));
        }
        let mut feature_width = inputs;
        let mut layers = Vec::with_capacity(hidden.len());
        for (i, &units) in hidden.iter().enumerate() {
            let units = units as usize;
            layers.push(Linear::new(&scope.sub("hidden").sub(i), feature_width, units)?);
            feature_width = units;
        }
        Ok(Self { layers, feature_width })
    }

    /// `[batch, inputs]` to `[batch, feature_width]`.
    pub(super) fn features(&self, x: &Tensor) -> Result<Tensor> {
        self.layers.iter().try_fold(x.clone(), |x, layer| layer.forward(&x)?.relu())
    }
}

#[cfg(test)]
mod tests {
    use candle_core::Device;
    use evenset_core::Seed;

    use super::*;
    use crate::Weights;
    use crate::gradcheck::check_gradients;
    use crate::{Param, maps};

    fn random(seed: u64, shape: &[usize]) -> Tensor {
        Tensor::from_vec(Seed(seed).normal(shape.iter().product()), shape, &Device::Cpu).unwrap()
    }

    #[test]
    fn the_features_are_what_candle_makes_of_the_same_layers() {
        let weights = Weights::new(Seed(3), &Device::Cpu);
        let mlp = Mlp::new(&weights.scope(""), 30, &[7, 5]).unwrap();
        let named: std::collections::BTreeMap<String, Tensor> = weights.named_tensors().into_iter().collect();
        for batch in 1..=3 {
            let x = random(1, &[batch, 30]);
            let mut expected = x.clone();
            for layer in 0..2 {
                let weight = &named[&format!("hidden.{layer}.weight")];
                let bias = &named[&format!("hidden.{layer}.bias")];
                expected = expected.matmul(&weight.t().unwrap()).unwrap().broadcast_add(bias).unwrap().relu().unwrap();
            }
            let (expected, found) = (expected.to_vec2::<f32>().unwrap(), mlp.features(&x).unwrap());
            for (found, expected) in found.to_vec2::<f32>().unwrap().concat().iter().zip(expected.concat()) {
                assert!((found - expected).abs() < 1e-5, "{found} {expected}");
            }
        }
    }

    #[test]
    fn gradients_agree_with_finite_differences_in_batches_of_one_two_and_three() {
        let shapes: [&[usize]; 4] = [&[6, 9], &[6], &[4, 6], &[4]];
        let weights: Vec<Tensor> = shapes.iter().enumerate().map(|(i, shape)| random(10 + i as u64, shape)).collect();
        for batch in 1..=3 {
            let x = random(5, &[batch, 9]);
            let run = |w: &[Tensor]| {
                let hidden = maps::linear(&x, &Param::new(w[0].clone()), Some(&w[1]), None)?.relu()?;
                maps::linear(&hidden, &Param::new(w[2].clone()), Some(&w[3]), None)?.relu()
            };
            check_gradients("mlp", &weights, run, 2e-2).unwrap();
        }
    }

    #[test]
    fn impossible_layers_are_refused() {
        let weights = Weights::new(Seed(3), &Device::Cpu);
        for hidden in [&[][..], &[0], &[1 << 20], &[1; 17]] {
            let error = Mlp::new(&weights.scope(""), 30, hidden).unwrap_err().to_string();
            assert!(error.contains("as [100, 100, 100]"), "{error}");
        }
    }
}
