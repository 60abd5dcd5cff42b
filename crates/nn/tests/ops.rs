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
    let inputs =
        [random(1, &[37, 3, 8, 8]), random(2, &[5, 3, 3, 3]), random(3, &[5]), random(4, &[5]), random(5, &[5])];
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

#[test]
fn group_norm_agrees_with_the_definition_with_and_without_silu() {
    for (channels, groups, height, width) in [(8, 2, 5, 7), (6, 6, 3, 3), (4, 1, 28, 28), (3, 3, 1, 2)] {
        let (weight, bias) = (random(1, &[channels]), random(2, &[channels]));
        for batch in 1..=3 {
            let x = (random(3, &[batch, channels, height, width]) * 3.0).unwrap();
            let grouped = x.reshape((batch, groups, ())).unwrap();
            let centred = grouped.broadcast_sub(&grouped.mean_keepdim(2).unwrap()).unwrap();
            let deviation = (centred.sqr().unwrap().mean_keepdim(2).unwrap() + 1e-5).unwrap().sqrt().unwrap();
            let normal = centred.broadcast_div(&deviation).unwrap().reshape(x.shape()).unwrap();
            let column = |x: &Tensor| x.reshape((1, channels, 1, 1)).unwrap();
            let plain = normal.broadcast_mul(&column(&weight)).unwrap().broadcast_add(&column(&bias)).unwrap();
            for x in strided(&x) {
                let name = format!("{channels} in {groups}, batch {batch}");
                assert_close(&name, &ops::group_norm(&x, groups, &weight, &bias, 1e-5, false).unwrap(), &plain);
                let silu = plain.silu().unwrap();
                assert_close(&name, &ops::group_norm(&x, groups, &weight, &bias, 1e-5, true).unwrap(), &silu);
            }
        }
    }
}

#[test]
fn group_norm_has_the_gradients_of_finite_differences() {
    for silu in [false, true] {
        let inputs = [random(1, &[2, 6, 5, 3]), random(2, &[6]), random(3, &[6])];
        check_gradients("group_norm", &inputs, |x| ops::group_norm(&x[0], 3, &x[1], &x[2], 1e-5, silu), 2e-2).unwrap();
    }
}

#[test]
fn group_norm_bytes_depend_on_their_image_alone() {
    let (x, weight, bias) = (random(1, &[3, 8, 7, 9]), random(2, &[8]), random(3, &[8]));
    assert_independent("group_norm", &x, |x| ops::group_norm(x, 4, &weight, &bias, 1e-5, true));
    assert!(ops::group_norm(&x, 3, &weight, &bias, 1e-5, true).is_err());
    assert!(ops::group_norm(&x, 4, &random(2, &[7]), &bias, 1e-5, true).is_err());
}

#[test]
fn linear_agrees_with_a_plain_loop_for_any_rank_and_layout() {
    for (inputs, outputs) in [(5, 3), (16, 33), (70, 1)] {
        let (weight, bias) = (random(1, &[outputs, inputs]), random(2, &[outputs]));
        for shape in [vec![inputs], vec![3, inputs], vec![2, 19, inputs], vec![2, 1, 3, inputs]] {
            let x = random(3, &shape);
            let (rows, w, b) = (values(&x), values(&weight), values(&bias));
            let mut expected = Vec::new();
            for row in rows.chunks(inputs) {
                for o in 0..outputs {
                    expected.push(b[o] + (0..inputs).map(|i| row[i] * w[o * inputs + i]).sum::<f32>());
                }
            }
            let shape = [&shape[..shape.len() - 1], &[outputs]].concat();
            let expected = Tensor::from_vec(expected, shape, CPU).unwrap();
            for (x, weight) in strided(&x).iter().zip(strided(&weight)) {
                assert_close("linear", &ops::linear(x, &weight, Some(&bias)).unwrap(), &expected);
            }
        }
    }
    assert!(ops::linear(&random(1, &[2, 4]), &random(2, &[3, 5]), None).is_err());
    assert!(ops::linear(&random(1, &[2, 5]), &random(2, &[3, 5]), Some(&random(3, &[4]))).is_err());
}

#[test]
fn linear_has_the_gradients_of_finite_differences_and_rows_of_their_own() {
    for rows in [1, 3, 40] {
        let inputs = [random(1, &[rows, 2, 7]), random(2, &[20, 7]), random(3, &[20])];
        check_gradients("linear", &inputs, |x| ops::linear(&x[0], &x[1], Some(&x[2])), 2e-2).unwrap();
        assert_independent("linear", &inputs[0], |x| ops::linear(x, &inputs[1], Some(&inputs[2])));
    }
}

#[test]
fn attention_agrees_with_a_plain_loop() {
    for (batch, heads, width, height, columns) in [(1, 1, 4, 2, 2), (2, 2, 3, 3, 5), (3, 1, 8, 7, 7)] {
        let shape = [batch, heads * width, height, columns];
        let (q, k, v) = (random(1, &shape), random(2, &shape), random(3, &shape));
        let pixels = height * columns;
        let (qs, ks, vs) = (values(&q), values(&k), values(&v));
        let mut expected = vec![0.0f32; qs.len()];
        for head in 0..batch * heads {
            let at = |channel: usize, pixel: usize| (head * width + channel) * pixels + pixel;
            for i in 0..pixels {
                let score = |j: usize| (0..width).map(|c| qs[at(c, i)] * ks[at(c, j)]).sum::<f32>();
                let shares: Vec<f32> = (0..pixels).map(|j| (score(j) / (width as f32).sqrt()).exp()).collect();
                for c in 0..width {
                    let sum = (0..pixels).map(|j| shares[j] * vs[at(c, j)]).sum::<f32>();
                    expected[at(c, i)] = sum / shares.iter().sum::<f32>();
                }
            }
        }
        let expected = Tensor::from_vec(expected, &shape, CPU).unwrap();
        for ((q, k), v) in strided(&q).iter().zip(strided(&k)).zip(strided(&v)) {
            assert_close("attention", &ops::attention(q, &k, &v, heads).unwrap(), &expected);
        }
    }
}

#[test]
fn attention_has_the_gradients_of_finite_differences_and_images_of_their_own() {
    let inputs = [random(1, &[3, 6, 3, 5]), random(2, &[3, 6, 3, 5]), random(3, &[3, 6, 3, 5])];
    check_gradients("attention", &inputs, |x| ops::attention(&x[0], &x[1], &x[2], 2), 2e-2).unwrap();
    assert_independent("attention", &inputs[0], |x| ops::attention(x, x, x, 2));
    assert!(ops::attention(&inputs[0], &inputs[1], &inputs[2], 4).is_err());
    let large = (&inputs[0] * 1e3).unwrap();
    assert!(values(&ops::attention(&large, &large, &large, 2).unwrap()).iter().all(|x| x.is_finite()));
}

#[test]
fn cheap_operations_agree_with_candles_in_any_layout() {
    for shape in [[1, 2, 4, 6], [3, 1, 2, 2], [2, 5, 6, 8]] {
        let (a, b) = (random(1, &shape), random(2, &shape));
        let (height, width) = (shape[2], shape[3]);
        for (x, y) in strided(&a).iter().zip(strided(&b)) {
            assert_close("add", &ops::add(x, &y).unwrap(), &a.add(&b).unwrap());
            assert_close("silu", &ops::silu(x).unwrap(), &a.silu().unwrap());
            assert_close("concat", &ops::concat_channels(x, &y).unwrap(), &Tensor::cat(&[&a, &b], 1).unwrap());
            let up = a.upsample_nearest2d(2 * height, 2 * width).unwrap();
            assert_close("upsample", &ops::upsample_nearest2x(x).unwrap(), &up);
            assert_close("avg_pool", &ops::avg_pool2x(x).unwrap(), &a.avg_pool2d(2).unwrap());
        }
    }
    assert!(ops::avg_pool2x(&random(1, &[1, 1, 3, 4])).is_err());
    assert!(ops::add(&random(1, &[2]), &random(1, &[3])).is_err());
    assert!(ops::concat_channels(&random(1, &[1, 2, 2, 2]), &random(1, &[2, 2, 2, 2])).is_err());
}

#[test]
fn cheap_operations_have_the_gradients_of_finite_differences() {
    let (a, b) = (random(1, &[2, 3, 4, 6]), random(2, &[2, 5, 4, 6]));
    let one = std::slice::from_ref(&a);
    check_gradients("silu", one, |x| ops::silu(&x[0]), 2e-2).unwrap();
    check_gradients("upsample", one, |x| ops::upsample_nearest2x(&x[0]), 2e-2).unwrap();
    check_gradients("avg_pool", one, |x| ops::avg_pool2x(&x[0]), 2e-2).unwrap();
    check_gradients("concat", &[a.clone(), b], |x| ops::concat_channels(&x[0], &x[1]), 2e-2).unwrap();
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

#[test]
fn operations_in_other_number_types_fall_back_and_agree() {
    let double = |x: &Tensor| x.to_dtype(candle_core::DType::F64).unwrap();
    let single = |x: Tensor| x.to_dtype(candle_core::DType::F32).unwrap();
    let (x, w, b) = (random(1, &[2, 4, 6, 6]), random(2, &[4, 4, 3, 3]), random(3, &[4]));
    let (x64, w64, b64) = (double(&x), double(&w), double(&b));
    let rows = random(4, &[5, 4]);
    let pairs = [
        (ops::conv2d(&x, &w, Some(&b), 2, 1), ops::conv2d(&x64, &w64, Some(&b64), 2, 1)),
        (ops::group_norm(&x, 2, &b, &b, 1e-5, true), ops::group_norm(&x64, 2, &b64, &b64, 1e-5, true)),
        (ops::linear(&rows, &rows, None), ops::linear(&double(&rows), &double(&rows), None)),
        (ops::attention(&x, &x, &x, 2), ops::attention(&x64, &x64, &x64, 2)),
        (ops::upsample_nearest2x(&x), ops::upsample_nearest2x(&x64)),
        (ops::avg_pool2x(&x), ops::avg_pool2x(&x64)),
    ];
    for (found, expected) in pairs {
        assert_close("f64", &found.unwrap(), &single(expected.unwrap()));
    }
    // The fallbacks' gradients are those of other devices.
    let f = |x: &[Tensor]| single64(ops::upsample_nearest2x(&double_tracked(&x[0])?)?);
    check_gradients("upsample in f64", std::slice::from_ref(&x), f, 2e-2).unwrap();
    let f = |x: &[Tensor]| {
        let x = double_tracked(&x[0])?;
        single64(ops::attention(&x, &x, &x, 2)?)
    };
    check_gradients("attention in f64", &[random(5, &[1, 4, 2, 3])], f, 2e-2).unwrap();
}

fn double_tracked(x: &Tensor) -> Result<Tensor> {
    x.to_dtype(candle_core::DType::F64)
}

fn single64(x: Tensor) -> Result<Tensor> {
    x.to_dtype(candle_core::DType::F32)
}
