//! Every operation against candle's own or a plain loop, its gradients, and its bytes in other batches and threads.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use candle_core::{Device, Result, Tensor};
use evenset_core::Seed;
use evenset_nn::gradcheck::check_gradients;
use evenset_nn::ops;

const CPU: &Device = &Device::Cpu;

fn random(seed: u64, shape: &[usize]) -> Tensor {
    Tensor::from_vec(Seed(seed).normal(shape.iter().product()), shape, CPU).unwrap()
}

fn values(x: &Tensor) -> Vec<f32> {
    x.flatten_all().unwrap().to_vec1().unwrap()
}

fn bytes(x: &Tensor) -> Vec<u32> {
    values(x).into_iter().map(f32::to_bits).collect()
}

fn assert_close(name: &str, found: &Tensor, expected: &Tensor) {
    assert_eq!(found.dims(), expected.dims(), "{name}");
    for (i, (found, expected)) in values(found).iter().zip(values(expected)).enumerate() {
        assert!((found - expected).abs() <= 2e-5 * (1.0 + expected.abs()), "{name}, element {i}: {found} {expected}");
    }
}

/// The same values three times over in memory that is not contiguous.
fn strided(x: &Tensor) -> Vec<Tensor> {
    let last = x.rank() - 1;
    let transposed = x.transpose(0, last).unwrap().contiguous().unwrap().transpose(0, last).unwrap();
    let narrowed = Tensor::cat(&[x, x, x], last).unwrap().narrow(last, x.dims()[last], x.dims()[last]).unwrap();
    vec![x.clone(), transposed, narrowed]
}

fn with_threads<T: Send>(threads: usize, f: impl FnOnce() -> T + Send) -> T {
    rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap().install(f)
}

/// Fails unless the first image's result has the same bytes alone and with two others, and everything the same bytes with
/// one thread and two.
fn assert_independent(name: &str, x: &Tensor, f: impl Fn(&Tensor) -> Result<Tensor> + Sync) {
    let together = with_threads(1, || f(x).unwrap());
    assert_eq!(bytes(&together), bytes(&with_threads(2, || f(x).unwrap())), "{name}: threads");
    for i in 0..x.dims()[0] {
        let alone = f(&x.narrow(0, i, 1).unwrap()).unwrap();
        assert_eq!(bytes(&alone), bytes(&together.narrow(0, i, 1).unwrap()), "{name}: image {i} alone");
    }
}

/// (inputs, outputs, height, width, kernel, stride, padding)
const CONVOLUTIONS: [(usize, usize, usize, usize, usize, usize, usize); 12] = [
    (3, 8, 28, 28, 3, 1, 1),
    (5, 3, 7, 9, 3, 1, 1),
    (33, 17, 7, 7, 3, 1, 1),
    (4, 6, 9, 7, 3, 2, 1),
    (4, 6, 8, 8, 3, 2, 1),
    (4, 70, 6, 5, 1, 1, 0),
    (2, 3, 9, 9, 1, 2, 0),
    (2, 3, 11, 10, 5, 2, 2),
    (2, 3, 11, 10, 5, 3, 1),
    (2, 3, 8, 8, 4, 4, 0),
    (2, 3, 8, 8, 4, 2, 3),
    (1, 1, 3, 3, 3, 1, 0),
];

#[test]
fn a_convolution_agrees_with_candles_in_any_batch_and_layout() {
    for (i, o, h, w, k, stride, padding) in CONVOLUTIONS {
        let (weight, bias) = (random(1, &[o, i, k, k]), random(2, &[o]));
        for batch in 1..=3 {
            let x = random(3, &[batch, i, h, w]);
            let expected = x.conv2d(&weight, padding, stride, 1, 1).unwrap();
            let name = format!("{i} {o} {h}x{w} k{k} s{stride} p{padding} batch {batch}");
            assert_close(&name, &ops::conv2d(&x, &weight, None, stride, padding).unwrap(), &expected);
            let expected = expected.broadcast_add(&bias.reshape((1, o, 1, 1)).unwrap()).unwrap();
            for (x, weight) in strided(&x).iter().zip(strided(&weight)) {
                assert_close(&name, &ops::conv2d(x, &weight, Some(&bias), stride, padding).unwrap(), &expected);
            }
            let rows = bias.broadcast_as((batch, o)).unwrap();
            assert_close(&name, &ops::conv2d(&x, &weight, Some(&rows), stride, padding).unwrap(), &expected);
        }
    }
}

#[test]
fn a_convolution_has_the_gradients_of_finite_differences() {
    for (i, o, h, w, k, stride, padding) in CONVOLUTIONS {
        let name = format!("{i} {o} {h}x{w} k{k} s{stride} p{padding}");
        for (batch, bias) in [(1, random(2, &[o])), (3, random(2, &[3, o]))] {
            let inputs = [random(3, &[batch, i, h, w]), random(1, &[o, i, k, k]), bias];
            let f = |x: &[Tensor]| ops::conv2d(&x[0], &x[1], Some(&x[2]), stride, padding);
            check_gradients(&name, &inputs, f, 2e-2).unwrap();
        }
    }
}

#[test]
fn a_convolutions_bytes_depend_on_its_image_alone() {
    for (i, o, h, w, k, stride, padding) in CONVOLUTIONS {
        let (x, weight) = (random(3, &[3, i, h, w]), random(1, &[o, i, k, k]));
        assert_independent("conv2d", &x, |x| ops::conv2d(x, &weight, None, stride, padding));
    }
}

#[test]
fn gradients_have_the_same_bytes_with_one_thread_and_two() {
    let inputs = [random(1, &[37, 3, 8, 8]), random(2, &[5, 3, 3, 3]), random(3, &[5]), random(4, &[5]), random(5, &[5])];
    let run = || {
        let vars: Vec<_> = inputs.iter().map(|x| candle_core::Var::from_tensor(x).unwrap()).collect();
        let y = ops::conv2d(&vars[0], &vars[1], Some(&vars[2]), 1, 1).unwrap();
        let y = ops::group_norm(&y, 1, &vars[3], &vars[4], 1e-5, true).unwrap();
        let grads = y.sqr().unwrap().sum_all().unwrap().backward().unwrap();
        vars.iter().flat_map(|var| bytes(grads.get(var).unwrap())).collect::<Vec<_>>()
    };
    assert_eq!(with_threads(1, run), with_threads(2, run));
}

#[test]
fn impossible_convolutions_are_refused() {
    let (x, weight) = (random(1, &[2, 3, 4, 4]), random(2, &[5, 3, 3, 3]));
    assert!(ops::conv2d(&x, &random(2, &[5, 4, 3, 3]), None, 1, 1).is_err());
    assert!(ops::conv2d(&x, &weight, None, 0, 1).is_err());
    assert!(ops::conv2d(&x, &random(2, &[5, 3, 7, 7]), None, 1, 1).is_err());
    assert!(ops::conv2d(&x, &weight, Some(&random(3, &[4])), 1, 1).is_err());
    assert!(ops::conv2d(&x, &weight, Some(&random(3, &[3, 5])), 1, 1).is_err());
}
