//! Normalisations and cheap operations on maps against candle's own, their gradients, and their bytes in other batches
//! and with other threads.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use candle_core::{DType, Result, Tensor, Var};
use common::{Shapes, assert_close, bytes, random, relative_error, strided, with_threads};
use evenset_nn::gradcheck::check_gradients;
use evenset_nn::maps::{self, Maps};
use evenset_nn::ops::with_candle;

/// Result, and gradients of the inputs when the result, times fixed random numbers, is summed.
fn with_gradients(inputs: &[Tensor], f: impl Fn(&[Tensor]) -> Result<Tensor>) -> Vec<Tensor> {
    let vars: Vec<Var> = inputs.iter().map(|x| Var::from_tensor(&x.copy().unwrap()).unwrap()).collect();
    let tracked: Vec<Tensor> = vars.iter().map(|var| var.as_tensor().clone()).collect();
    let result = f(&tracked).unwrap();
    // Multiplied along another order of dimensions, so that the gradient arrives in memory that is not contiguous.
    let last = result.rank() - 1;
    let turned = result.transpose(0, last).unwrap();
    let grads = turned.mul(&random(77, turned.dims())).unwrap().sum_all().unwrap().backward().unwrap();
    let gradients = vars.iter().map(|var| grads.get(var).unwrap().clone());
    [result.detach()].into_iter().chain(gradients).collect()
}

/// Fails unless result and gradients agree with those of candle's operations, for inputs in any memory, and with finite
/// differences.
fn assert_agrees(name: &str, inputs: &[Tensor], f: impl Fn(&[Tensor]) -> Result<Tensor>) {
    let expected = with_candle(|| with_gradients(inputs, &f));
    for (i, (found, expected)) in with_gradients(inputs, &f).iter().zip(&expected).enumerate() {
        // Sums of gradients over many pixels carry the rounding of all of them.
        assert_close(&format!("{name}, {i}"), found, expected, if i == 0 { 3e-5 } else { 3e-4 });
    }
    for x in strided(&inputs[0]) {
        let inputs: Vec<Tensor> = [x].into_iter().chain(inputs[1..].iter().cloned()).collect();
        assert_close(&format!("{name}, strided"), &f(&inputs).unwrap(), &expected[0], 3e-5);
    }
    if inputs[0].elem_count() < 2000 {
        check_gradients(name, inputs, &f, 2e-2).unwrap();
    }
}

/// Fails unless result and gradients have the same bytes with one thread and two, and every image's result the same
/// alone.
fn assert_independent(name: &str, inputs: &[Tensor], f: impl Fn(&[Tensor]) -> Result<Tensor> + Sync) {
    let together = with_threads(1, || with_gradients(inputs, &f));
    for (one, two) in together.iter().zip(with_threads(2, || with_gradients(inputs, &f))) {
        assert_eq!(bytes(one), bytes(&two), "{name}: threads");
    }
    let batch = inputs[0].dims()[0];
    for i in 0..batch {
        let image = |x: &Tensor| if x.dims()[0] == batch { x.narrow(0, i, 1).unwrap() } else { x.clone() };
        let alone = f(&inputs.iter().map(image).collect::<Vec<_>>()).unwrap();
        assert_eq!(bytes(&alone), bytes(&together[0].narrow(0, i, 1).unwrap()), "{name}: image {i} alone");
    }
}

/// (batch, channels, groups, height, width): odd sizes, single pixels, channels of all remainders, several chunks.
const NORMS: [(usize, usize, usize, usize, usize); 11] = [
    (2, 6, 3, 5, 3),
    (1, 16, 8, 4, 4),
    (3, 32, 32, 1, 1),
    (2, 37, 1, 3, 5),
    (1, 40, 8, 7, 1),
    (3, 2, 2, 5, 9),
    (1, 84, 2, 3, 3),
    (2, 64, 32, 19, 33),
    (3, 32, 8, 32, 33),
    (1, 130, 2, 21, 20),
    (2, 3, 1, 77, 75),
];

#[test]
fn group_norm_agrees_with_candles_and_its_gradients() {
    for (batch, channels, groups, height, width) in NORMS {
        for silu in [false, true] {
            let x = ((random(1, &[batch, channels, height, width]) * 3.0).unwrap() + 0.7).unwrap();
            let inputs = [x, random(2, &[channels]), random(3, &[channels])];
            let f =
                |x: &[Tensor]| maps::group_norm(&Maps::from_nchw(&x[0])?, groups, &x[1], &x[2], 1e-5, silu)?.to_nchw();
            let name = format!("{channels} in {groups} of {width}x{height}, batch {batch}, silu {silu}");
            // A group of one value is its bias, whatever the value: no slope to compare.
            if channels / groups * height * width > 1 {
                assert_agrees(&name, &inputs, f);
            }
            assert_independent(&name, &inputs, f);
        }
    }
}

#[test]
fn group_norm_keeps_a_small_deviation_beside_a_large_mean() {
    let small = random(1, &[1, 32, 40, 40]);
    let x = Maps::from_nchw(&((&small * 0.125).unwrap() + 1000.0).unwrap()).unwrap();
    let (weight, bias) = (random(2, &[32]), random(3, &[32]));
    let found = maps::group_norm(&x, 4, &weight, &bias, 1e-9, false).unwrap().to_nchw().unwrap();
    let small = Maps::from_nchw(&small).unwrap();
    let expected = maps::group_norm(&small, 4, &weight, &bias, 1e-9, false).unwrap().to_nchw().unwrap();
    // 1000 + 0.125 x is rounded to steps of 6e-5.
    assert_close("small deviation", &found, &expected, 3e-3);
}

#[test]
fn normalisations_that_cannot_be_are_refused() {
    let x = Maps::from_nchw(&random(1, &[1, 6, 2, 2])).unwrap();
    let six = random(1, &[6]);
    assert!(maps::group_norm(&x, 4, &six, &six, 1e-5, true).is_err());
    assert!(maps::group_norm(&x, 0, &six, &six, 1e-5, true).is_err());
    assert!(maps::group_norm(&x, 3, &random(2, &[5]), &six, 1e-5, true).is_err());
    assert!(maps::layer_norm(&random(1, &[2, 5]), Some(&six), None, 1e-5).is_err());
    assert!(maps::layer_norm(&random(1, &[2, 5]), None, Some(&six), 1e-5).is_err());
}

#[test]
fn layer_norm_agrees_with_candles_and_its_gradients() {
    for shape in [vec![2, 5], vec![1, 1, 16], vec![3, 7, 33], vec![2, 3, 2, 20], vec![3, 70, 40], vec![2, 90, 320]] {
        let width = shape[shape.len() - 1];
        let x = ((random(1, &shape) * 3.0).unwrap() + 0.7).unwrap();
        let inputs = [x, random(2, &[width]), random(3, &[width])];
        let name = format!("layer norm of {shape:?}");
        for f in [
            |x: &[Tensor]| maps::layer_norm(&x[0], Some(&x[1]), Some(&x[2]), 1e-5),
            |x: &[Tensor]| maps::layer_norm(&x[0], Some(&x[1]), None, 1e-5)?.broadcast_add(&x[2]),
            |x: &[Tensor]| maps::layer_norm(&x[0], None, Some(&x[2]), 1e-5)?.broadcast_mul(&x[1]),
        ] {
            assert_agrees(&name, &inputs, f);
            assert_independent(&name, &inputs, f);
        }
        assert_agrees(&name, &inputs[..1], |x| maps::layer_norm(&x[0], None, None, 1e-5));
    }
}

#[test]
fn geglu_agrees_with_candles_and_its_gradients() {
    for shape in [vec![2, 2], vec![3, 5, 14], vec![2, 1, 64], vec![2, 3, 2, 34], vec![2, 40, 1000]] {
        let inputs = [(random(1, &shape) * 2.0).unwrap()];
        assert_agrees("geglu", &inputs, |x| maps::geglu(&x[0]));
        assert_independent("geglu", &inputs, |x| maps::geglu(&x[0]));
    }
    assert!(maps::geglu(&random(1, &[2, 5])).is_err());
}

/// (batch, channels, height, width)
const MAPS: [[usize; 4]; 8] = [
    [2, 3, 5, 7],
    [1, 1, 4, 4],
    [3, 16, 2, 2],
    [2, 20, 3, 8],
    [1, 33, 16, 17],
    [3, 40, 9, 2],
    [2, 32, 40, 33],
    [1, 4, 150, 130],
];

#[test]
fn a_change_of_order_and_back_changes_nothing() {
    for shape in MAPS {
        let x = random(1, &shape);
        for strided in strided(&x) {
            let maps = Maps::from_nchw(&strided).unwrap();
            assert_eq!(bytes(&maps.to_nchw().unwrap()), bytes(&x), "{shape:?}");
            let tokens = x.flatten_from(2).unwrap().transpose(1, 2).unwrap();
            assert_eq!(bytes(&maps.to_tokens().unwrap()), bytes(&tokens), "{shape:?}");
        }
        let inputs = [x];
        assert_agrees("order", &inputs, |x| Maps::from_nchw(&x[0])?.to_nchw());
        assert_agrees("order", &inputs, |x| Maps::from_nchw(&x[0])?.to_tokens());
        assert_independent("order", &inputs, |x| Maps::from_nchw(&x[0])?.to_tokens());
    }
}

#[test]
fn maps_behind_one_another_agree_with_candles_and_their_gradients() {
    for ([batch, channels, height, width], others) in MAPS.into_iter().zip([2, 1, 16, 5, 7, 40, 64, 1]) {
        let inputs = [random(1, &[batch, channels, height, width]), random(2, &[batch, others, height, width])];
        let f = |x: &[Tensor]| Maps::from_nchw(&x[0])?.concat_channels(&Maps::from_nchw(&x[1])?)?.to_nchw();
        assert_agrees("concat", &inputs, f);
        assert_independent("concat", &inputs, f);
    }
    let (a, b) = (random(1, &[1, 2, 3, 4]), random(2, &[1, 2, 4, 3]));
    assert!(Maps::from_nchw(&a).unwrap().concat_channels(&Maps::from_nchw(&b).unwrap()).is_err());
}

#[test]
fn enlarged_maps_agree_with_candles_and_their_gradients() {
    for shape in MAPS {
        let [_, _, height, width] = shape;
        for size in [(2 * height, 2 * width), (2 * height + 1, 3 * width - 1), (height, width), (1, width.div_ceil(2))]
        {
            let inputs = [random(1, &shape)];
            let f = |x: &[Tensor]| Maps::from_nchw(&x[0])?.upsample_nearest(size)?.to_nchw();
            assert_agrees(&format!("{shape:?} to {size:?}"), &inputs, f);
            assert_independent("upsample", &inputs, f);
        }
    }
    assert!(Maps::from_nchw(&random(1, &[1, 2, 3, 4])).unwrap().upsample_nearest((0, 4)).is_err());
}

#[test]
fn halved_maps_agree_with_candles_and_their_gradients() {
    for shape in MAPS {
        let inputs = [random(1, &shape)];
        let f = |x: &[Tensor]| Maps::from_nchw(&x[0])?.avg_pool2x()?.to_nchw();
        assert_agrees(&format!("{shape:?}"), &inputs, f);
        assert_independent("avg_pool", &inputs, f);
    }
    assert!(Maps::from_nchw(&random(1, &[1, 2, 1, 4])).unwrap().avg_pool2x().is_err());
}

#[test]
fn scaled_and_shifted_maps_agree_with_candles_and_their_gradients() {
    for shape in MAPS {
        for silu in [false, true] {
            let inputs = [random(1, &shape), random(2, &[shape[0], 2 * shape[1]])];
            let f = |x: &[Tensor]| maps::scale_shift(&Maps::from_nchw(&x[0])?, &x[1], silu)?.to_nchw();
            assert_agrees(&format!("{shape:?} silu {silu}"), &inputs, f);
            assert_independent("scale_shift", &inputs, f);
        }
    }
    let x = random(1, &[2, 3, 2, 2]);
    for refused in [random(2, &[2, 3]), random(2, &[1, 6])] {
        assert!(maps::scale_shift(&Maps::from_nchw(&x).unwrap(), &refused, true).is_err());
        assert!(with_candle(|| maps::scale_shift(&Maps::from_nchw(&x).unwrap(), &refused, true)).is_err());
    }
}

#[test]
fn operations_on_random_shapes_agree_with_candles_and_their_gradients() {
    let mut shapes = Shapes::new(13);
    for _ in 0..60 {
        let mut up_to = |n| 1 + shapes.below(n);
        let (batch, groups, height, width) = (up_to(3), up_to(8), up_to(13), up_to(13));
        let channels = groups * up_to(9);
        let (x, weight, bias) =
            (random(1, &[batch, channels, height, width]), random(2, &[channels]), random(3, &[channels]));
        let (other, size) = (random(4, &[batch, up_to(40), height, width]), (up_to(20), up_to(20)));
        let time = random(5, &[batch, 2 * channels]);
        let name = format!("{batch} x {channels} x {height} x {width}, {groups} groups, to {size:?}");
        let maps = |x: &Tensor| Maps::from_nchw(x);
        if height * width * channels > groups {
            // The deviation of a single value is no more than rounding.
            let inputs = [x.clone(), weight.clone(), bias.clone()];
            let norm = |x: &[Tensor]| maps::group_norm(&maps(&x[0])?, groups, &x[1], &x[2], 1e-2, true)?.to_nchw();
            assert_agrees(&name, &inputs, norm);
        }
        let tokens = x.flatten_from(2).unwrap().transpose(1, 2).unwrap();
        let norm = |x: &[Tensor]| maps::layer_norm(&x[0], Some(&x[1]), Some(&x[2]), 1e-2);
        assert_agrees(&name, &[tokens, weight, bias], norm);
        assert_agrees(&name, &[x.clone(), other], |x| maps(&x[0])?.concat_channels(&maps(&x[1])?)?.to_nchw());
        assert_agrees(&name, &[x.clone(), time], |x| maps::scale_shift(&maps(&x[0])?, &x[1], true)?.to_nchw());
        assert_agrees(&name, std::slice::from_ref(&x), |x| maps(&x[0])?.upsample_nearest(size)?.to_nchw());
        if height > 1 && width > 1 {
            assert_agrees(&name, &[x], |x| maps(&x[0])?.avg_pool2x()?.to_nchw());
        }
    }
}

#[test]
fn a_map_used_twice_receives_both_gradients() {
    let inputs = [random(1, &[2, 6, 5, 3])];
    assert_agrees("twice", &inputs, |x| {
        let x = Maps::from_nchw(&x[0])?;
        x.concat_channels(&x)?.upsample_nearest((10, 6))?.avg_pool2x()?.add(&x.concat_channels(&x.silu()?)?)?.to_nchw()
    });
}

#[test]
fn candles_path_normalises_half_precision_in_single() {
    // What other devices run: 122,880 squares of a group do not fit `f16`.
    let (x, weight, bias) = (random(1, &[1, 960, 64, 64]), random(2, &[960]), random(3, &[960]));
    let norm = |x: &Tensor| maps::group_norm(&Maps::from_nchw(x)?, 32, &weight, &bias, 1e-5, true)?.to_nchw();
    let tokens = random(4, &[64, 1280]);
    for (dtype, tolerance) in [(DType::F16, 2e-3), (DType::BF16, 2e-2)] {
        let half = |x: &Tensor| x.to_dtype(dtype).unwrap();
        let single = |x: Result<Tensor>| x.unwrap().to_dtype(DType::F32).unwrap();
        let error = relative_error(&single(norm(&half(&x))), &norm(&x).unwrap());
        assert!(error < tolerance, "group norm {dtype:?}: {error}");
        let layer = |x: &Tensor| maps::layer_norm(x, None, None, 1e-5);
        let error = relative_error(&single(layer(&half(&tokens))), &layer(&tokens).unwrap());
        assert!(error < tolerance, "layer norm {dtype:?}: {error}");
    }
}
