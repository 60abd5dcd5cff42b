//! Training: gradients of whole networks against finite differences.

use candle_core::{DType, Result, Tensor};
use evenset_core::Seed;
use evenset_nn::gradcheck::check_gradients;
use evenset_nn::models::LoadOptions;
use evenset_nn::no_grad;
use evenset_nn::ops::with_candle;

use crate::{CPU, GOLDEN, Model, Tensors, golden, images, inputs_and_results, values, with_threads};

/// The networks without kinks: across that of a ReLU, which the smallest step of some weight crosses, a finite difference
/// is not the gradient.
fn smooth() -> impl Iterator<Item = &'static str> {
    GOLDEN.into_iter().map(|(name, _)| name).filter(|name| *name != "vae-tiny")
}

/// A number that depends on every result, and its terms.
fn loss(model: &Model, inputs: &Tensors) -> Result<(Tensor, f64)> {
    let (mut sum, mut exact) = (Tensor::zeros((), DType::F32, CPU)?, 0.0);
    for (i, result) in model.run(inputs)?.values().enumerate() {
        let mask = Tensor::from_vec(Seed(i as u64).normal(result.elem_count()), result.shape(), CPU)?;
        let terms = result.mul(&mask)?;
        exact += values(&terms).into_iter().map(f64::from).sum::<f64>();
        sum = sum.add(&terms.sum_all()?)?;
    }
    Ok((sum, exact))
}

#[test]
fn every_weight_of_every_model_has_the_gradient_of_a_finite_difference() {
    check_weights(1);
}

#[test]
fn the_same_holds_on_the_path_of_other_devices() {
    // Its convolutions are slow.
    with_candle(|| check_weights(9));
}

/// Checks that every weight has a gradient, and one in `every` against the loss.
fn check_weights(every: usize) {
    for name in smooth() {
        let model = Model::load(&golden(name), LoadOptions::trainable()).unwrap();
        let inputs = images(&inputs_and_results(name).0, &(1..3));
        let grads = loss(&model, &inputs).unwrap().0.backward().unwrap();
        let vars = model.weights().vars();
        let stored = model.weights().named_tensors().len();
        // The frequencies of random features are stored but not trained.
        assert_eq!(vars.len(), stored - usize::from(["fourier", "mixed"].contains(&name)), "{name}");
        let (mut moved, mut checked) = (0, 0);
        for (i, (weight, var)) in vars.into_iter().enumerate() {
            let gradient = grads.get(&var).unwrap_or_else(|| panic!("{name}: no gradient for {weight}"));
            assert_eq!(gradient.dims(), var.dims(), "{name}: {weight}");
            let gradient = values(gradient);
            assert!(gradient.iter().all(|x| x.is_finite()), "{name}: {weight}");
            if i % every != 0 {
                continue;
            }
            let norm = gradient.iter().map(|x| f64::from(*x).powi(2)).sum::<f64>().sqrt();
            // Along the gradient the loss rises by its norm. Keys' biases, for one, have none: softmax cancels them.
            let original = values(&var);
            let along = |step: f64| {
                let step = (step / norm.max(1e-6)) as f32;
                let values = original.iter().zip(&gradient).map(|(w, g)| w + step * g).collect();
                var.set(&Tensor::from_vec(values, var.shape(), CPU).unwrap()).unwrap();
                no_grad(|| loss(&model, &inputs)).unwrap().1
            };
            const STEP: f64 = 5e-3;
            let slope = (along(STEP) - along(-STEP)) / (2.0 * STEP);
            var.set(&Tensor::from_vec(original.clone(), var.shape(), CPU).unwrap()).unwrap();
            assert!(
                (slope - norm).abs() <= 0.03 * norm.max(1.0),
                "{name}: {weight}: {norm}, but the loss rises by {slope}"
            );
            moved += usize::from(norm > 1.0);
            checked += 1;
        }
        assert!(3 * moved > checked, "{name}: only {moved} of {checked} weights move the loss");
    }
}

#[test]
fn gradients_reach_images_texts_and_other_conditions() {
    for name in smooth() {
        let model = Model::load(&golden(name), LoadOptions::default()).unwrap();
        let all = images(&inputs_and_results(name).0, &(1..3));
        // Not of timesteps: the waves of the last would turn many times within a step.
        let discrete = |key: &str| ["timesteps", "time_ids"].contains(&key) || all[key].dtype() != DType::F32;
        let smooth: Vec<&String> = all.keys().filter(|key| !discrete(key)).collect();
        let inputs: Vec<Tensor> = smooth.iter().map(|key| all[*key].clone()).collect();
        let f = |moved: &[Tensor]| {
            let mut all = all.clone();
            all.extend(smooth.iter().map(|key| (*key).clone()).zip(moved.iter().cloned()));
            let results: Vec<Tensor> = model.run(&all)?.values().map(|x| x.flatten_all()).collect::<Result<_>>()?;
            Tensor::cat(&results, 0)
        };
        check_gradients(name, &inputs, f, 3e-2).unwrap();
    }
}

#[test]
fn gradients_have_the_same_bytes_with_any_number_of_threads() {
    for (name, _) in GOLDEN {
        let model = Model::load(&golden(name), LoadOptions::trainable()).unwrap();
        let (inputs, _) = inputs_and_results(name);
        let run = |threads| {
            with_threads(threads, || {
                let grads = loss(&model, &inputs).unwrap().0.backward().unwrap();
                let bits = |x: &Tensor| values(x).into_iter().map(f32::to_bits).collect::<Vec<_>>();
                model.weights().vars().iter().map(|(_, var)| bits(grads.get(var).unwrap())).collect::<Vec<_>>()
            })
        };
        let one = run(1);
        assert!(one == run(2) && one == run(3), "{name}");
    }
}
