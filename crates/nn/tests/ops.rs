//! Operations on tensors of any shape against candle's own and their definitions, and their gradients.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use candle_core::Tensor;
use common::{CPU, assert_close, random, strided, values};
use evenset_nn::gradcheck::check_gradients;
use evenset_nn::ops;

#[test]
fn cheap_operations_agree_with_candles_in_any_layout() {
    for shape in [[1, 2, 4, 6], [3, 1, 2, 2], [2, 5, 6, 8]] {
        let (a, b) = (random(1, &shape), random(2, &shape));
        for (x, y) in strided(&a).iter().zip(strided(&b)) {
            assert_close("add", &ops::add(x, &y).unwrap(), &a.add(&b).unwrap(), 2e-5);
            assert_close("silu", &ops::silu(x).unwrap(), &a.silu().unwrap(), 2e-5);
        }
    }
    assert!(ops::add(&random(1, &[2]), &random(1, &[3])).is_err());
}

#[test]
fn operations_have_the_gradients_of_finite_differences() {
    let a = random(1, &[2, 3, 4, 6]);
    let one = std::slice::from_ref(&a);
    check_gradients("silu", one, |x| ops::silu(&x[0]), 2e-2).unwrap();
    check_gradients("add", &[a.clone(), random(3, a.dims())], |x| ops::add(&x[0], &x[1]), 2e-2).unwrap();
    // The same tensor twice: its gradients add up.
    check_gradients("x + x", one, |x| ops::add(&x[0], &x[0]), 2e-2).unwrap();
    check_gradients("softmax", one, |x| ops::softmax(&x[0]), 2e-2).unwrap();
    check_gradients("log_softmax", one, |x| ops::log_softmax(&x[0]), 2e-2).unwrap();
}

#[test]
fn softmax_is_safe_for_large_values() {
    let x = Tensor::new(&[[1000.0f32, 1000.0], [-1000.0, 1000.0]], CPU).unwrap();
    assert_eq!(values(&ops::softmax(&x).unwrap()), [0.5, 0.5, 0.0, 1.0]);
    let logarithms = values(&ops::log_softmax(&x).unwrap());
    assert_eq!(logarithms[2..], [-2000.0, 0.0]);
}

#[test]
fn cross_entropy_is_the_mean_or_weighted_mean_of_the_rows() {
    let logits = random(1, &[3, 4]);
    let rows = values(&ops::log_softmax(&logits).unwrap());
    let losses = [-rows[2], -rows[4], -rows[11]];
    let loss =
        |weights: Option<&[f32]>| ops::cross_entropy(&logits, &[2, 0, 3], weights).unwrap().to_scalar::<f32>().unwrap();
    assert!((loss(None) - (losses[0] + losses[1] + losses[2]) / 3.0).abs() < 1e-6);
    let weighted = (losses[0] + 3.0 * losses[2]) / 4.0;
    assert!((loss(Some(&[1.0, 0.0, 3.0])) - weighted).abs() < 1e-6);
    for weights in [None, Some(&[1.0f32, 0.5, 3.0][..])] {
        let f = |x: &[Tensor]| ops::cross_entropy(&x[0], &[2, 0, 3], weights);
        check_gradients("cross_entropy", std::slice::from_ref(&logits), f, 1e-2).unwrap();
    }
    assert!(ops::cross_entropy(&logits, &[2, 0, 4], None).is_err());
    assert!(ops::cross_entropy(&logits, &[2, 0], None).is_err());
    assert!(ops::cross_entropy(&logits, &[2, 0, 1], Some(&[0.0, 0.0, 0.0])).is_err());
}
