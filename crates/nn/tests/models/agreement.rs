//! The results: PyTorch's, for any batch and in any number type, and the same bytes for any batch and number of threads.

use std::ops::Range;

use candle_core::DType;
use evenset_nn::models::LoadOptions;
use evenset_nn::no_grad;
use evenset_nn::ops::with_candle;

use crate::{BATCH, GOLDEN, Model, Tensors, bits, golden, images, inputs_and_results, values, with_threads};

/// Of a whole network in `f32`: relative L2.
const TOLERANCE: f64 = 1e-4;
/// With `f16` weights that were stored longer: eleven bits of each weight are left.
const TOLERANCE_F16: f64 = 2e-3;
/// With `bf16` weights: eight bits are left, of activations too where the CPU multiplies `bf16`.
const TOLERANCE_BF16: f64 = 5e-2;

/// The relative L2 error of the worst image of the worst result.
fn error(found: &Tensors, expected: &Tensors) -> f64 {
    assert!(found.keys().eq(expected.keys()));
    let mut worst = 0f64;
    for (name, expected) in expected {
        let found = &found[name];
        assert_eq!(found.dims(), expected.dims(), "{name}");
        let image = expected.elem_count() / expected.dims()[0];
        for (found, expected) in values(found).chunks(image).zip(values(expected).chunks(image)) {
            let square = |x: f32| f64::from(x).powi(2);
            let difference: f64 = found.iter().zip(expected).map(|(a, b)| square(a - b)).sum();
            let error = (difference / expected.iter().map(|x| square(*x)).sum::<f64>()).sqrt();
            assert!(error.is_finite(), "{name}");
            worst = worst.max(error);
        }
    }
    worst
}

/// Fails where an image of a batch of one, two or three is further from PyTorch than `tolerance`, or changes with its
/// batch. Gives the largest error.
fn checked(name: &str, model: &Model, tolerance: f64) -> f64 {
    let (inputs, expected) = inputs_and_results(name);
    let run = |range: &Range<usize>| no_grad(|| model.run(&images(&inputs, range))).unwrap();
    let all = run(&(0..BATCH));
    let mut worst = 0f64;
    for range in [0..1, 1..2, 2..3, 0..2, 1..3, 0..3] {
        let found = run(&range);
        let error = error(&found, &images(&expected, &range));
        assert!(error <= tolerance, "{name}, images {range:?}: {error:.1e}");
        assert_eq!(bits(&found), bits(&images(&all, &range)), "{name}: images {range:?} alone and among all");
        worst = worst.max(error);
    }
    worst
}

#[test]
fn in_f32_every_model_agrees_with_pytorch_at_batch_one_two_and_three() {
    for (name, _) in GOLDEN {
        let model = Model::load(&golden(name), LoadOptions::default()).unwrap();
        println!("{name}: {:.1e}", checked(name, &model, TOLERANCE));
    }
}

#[test]
fn the_path_of_other_devices_agrees_with_pytorch_too() {
    for (name, _) in GOLDEN {
        let model = Model::load(&golden(name), LoadOptions::default()).unwrap();
        let (inputs, expected) = inputs_and_results(name);
        for range in [0..1, 2..3, 0..2, 0..3] {
            let found = no_grad(|| with_candle(|| model.run(&images(&inputs, &range)))).unwrap();
            let error = error(&found, &images(&expected, &range));
            assert!(error <= TOLERANCE, "{name}, images {range:?}: {error:.1e}");
        }
    }
}

#[test]
fn weights_in_a_shorter_number_type_cost_no_more_than_their_lost_bits() {
    for (name, stored) in GOLDEN {
        let exact = Model::load(&golden(name), LoadOptions::default()).unwrap();
        let (inputs, _) = inputs_and_results(name);
        let exact = bits(&no_grad(|| exact.run(&inputs)).unwrap());
        for (dtype, tolerance) in [(DType::F16, TOLERANCE_F16), (DType::BF16, TOLERANCE_BF16)] {
            let short = Model::load(&golden(name), LoadOptions::default().with_dtype(dtype)).unwrap();
            // What is stored in f16 loses nothing, and the arithmetic is f32's.
            let lossless = dtype == DType::F16 && stored == DType::F16;
            println!(
                "{name} as {dtype:?}: {:.1e}",
                checked(name, &short, if lossless { TOLERANCE } else { tolerance })
            );
            if !lossless && stored != dtype {
                let short = bits(&no_grad(|| short.run(&inputs)).unwrap());
                assert_ne!(short, exact, "{name}: {dtype:?} had no effect");
            }
            let slow = no_grad(|| with_candle(|| short.run(&inputs))).unwrap();
            let error = error(&slow, &inputs_and_results(name).1);
            assert!(
                error <= if lossless { TOLERANCE } else { tolerance },
                "{name} as {dtype:?} on candle: {error:.1e}"
            );
        }
    }
}

#[test]
fn the_bytes_are_the_same_with_any_number_of_threads() {
    for (name, _) in GOLDEN {
        for dtype in [DType::F32, DType::F16, DType::BF16] {
            let model = Model::load(&golden(name), LoadOptions::default().with_dtype(dtype)).unwrap();
            let (inputs, _) = inputs_and_results(name);
            let run = |threads| with_threads(threads, || bits(&no_grad(|| model.run(&inputs)).unwrap()));
            let one = run(1);
            assert_eq!(one, run(2), "{name} in {dtype:?}");
            assert_eq!(one, run(3), "{name} in {dtype:?}");
        }
    }
}

#[test]
fn a_model_that_can_be_trained_computes_the_same() {
    for (name, _) in GOLDEN {
        let model = Model::load(&golden(name), LoadOptions::trainable()).unwrap();
        let (inputs, expected) = inputs_and_results(name);
        let recorded = error(&model.run(&inputs).unwrap(), &expected);
        assert!(recorded <= TOLERANCE, "{name}: {recorded:.1e}");
    }
}

#[test]
fn every_condition_has_an_effect_on_its_own_image() {
    for (name, _) in GOLDEN {
        let model = Model::load(&golden(name), LoadOptions::default()).unwrap();
        let (inputs, _) = inputs_and_results(name);
        let before = no_grad(|| model.run(&inputs)).unwrap();
        for key in inputs.keys() {
            // The first image gets the second one's.
            let rows = candle_core::Tensor::new(&[1u32, 1, 2], crate::CPU).unwrap();
            let mut changed = inputs.clone();
            changed.insert(key.clone(), inputs[key].index_select(&rows, 0).unwrap());
            let after = no_grad(|| model.run(&changed)).unwrap();
            let image = |results: &Tensors, i: usize| bits(&images(results, &(i..i + 1)));
            assert_ne!(image(&before, 0), image(&after, 0), "{name}: `{key}` has no effect");
            assert_eq!(image(&before, 1), image(&after, 1), "{name}: `{key}` reaches another image");
            assert_eq!(image(&before, 2), image(&after, 2), "{name}: `{key}` reaches another image");
        }
    }
}
