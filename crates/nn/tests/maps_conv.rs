//! Convolutions and linear maps of channels-last maps against candle's own operations, their gradients, and their bytes in
//! other batches and threads.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use candle_core::{Result, Tensor, Var};
use common::{Shapes, assert_close, assert_independent, bytes, random, relative_error, strided, with_threads};
use evenset_nn::gradcheck::check_gradients;
use evenset_nn::maps::{self, ConvExtras, Padding};
use evenset_nn::ops::with_candle;
use evenset_nn::{Maps, Param};

#[derive(Clone, Copy, Debug)]
struct Case {
    inputs: usize,
    outputs: usize,
    size: (usize, usize),
    kernel: usize,
    stride: usize,
    padding: Padding,
}

/// Every form of the kernel: Winograd's with whole and cut tiles and several chunks and panels, strides, products of
/// rows, few channels, more padding than the kernel needs, padding on one side.
fn cases() -> Vec<Case> {
    let same = |inputs, outputs, size, kernel| Case {
        inputs,
        outputs,
        size,
        kernel,
        stride: 1,
        padding: Padding::all(kernel / 2),
    };
    let strided = |inputs, outputs, size, kernel, stride, padding| Case {
        stride,
        padding,
        ..same(inputs, outputs, size, kernel)
    };
    vec![
        same(16, 16, (8, 8), 3),
        same(17, 33, (7, 9), 3),
        same(70, 130, (13, 6), 3),
        same(128, 20, (4, 4), 3),
        same(32, 32, (32, 32), 3),
        same(3, 40, (9, 11), 3),
        same(40, 3, (9, 11), 3),
        same(1, 1, (1, 1), 3),
        same(20, 70, (6, 5), 1),
        same(300, 65, (3, 3), 1),
        same(5, 6, (9, 8), 5),
        strided(20, 24, (1, 1), 1, 1, Padding { before: 0, after: 2 }),
        strided(20, 24, (9, 8), 3, 2, Padding::all(1)),
        strided(33, 64, (8, 8), 3, 2, Padding { before: 0, after: 1 }),
        strided(4, 5, (11, 10), 5, 3, Padding::all(2)),
        strided(18, 16, (10, 12), 3, 1, Padding::all(0)),
        strided(18, 16, (10, 12), 3, 1, Padding::all(2)),
        strided(6, 7, (9, 9), 1, 2, Padding::all(0)),
        strided(6, 7, (5, 4), 1, 1, Padding::all(1)),
        strided(16, 16, (6, 6), 3, 1, Padding { before: 1, after: 2 }),
        strided(8, 8, (8, 8), 4, 4, Padding::all(0)),
    ]
}

impl Case {
    fn weight(&self) -> Tensor {
        random(1, &[self.outputs, self.inputs, self.kernel, self.kernel])
    }

    fn images(&self, batch: usize) -> Tensor {
        random(3, &[batch, self.inputs, self.size.0, self.size.1])
    }

    fn run(&self, x: &Tensor, weight: &Param, bias: Option<&Tensor>, shift: Option<&Tensor>) -> Result<Tensor> {
        let extras = ConvExtras { bias, shift, residual: None };
        maps::conv2d(&Maps::from_nchw(x)?, weight, self.stride, self.padding, extras)?.to_nchw()
    }
}

#[test]
fn a_convolution_agrees_with_candles_in_any_batch_and_layout() {
    for case in cases() {
        let weight = case.weight();
        let (bias, constant) = (random(2, &[case.outputs]), Param::constant(&weight).unwrap());
        for batch in 1..=3 {
            let (x, shift) = (case.images(batch), random(4, &[batch, case.outputs]));
            let name = format!("{case:?} batch {batch}");
            let run = |x: &Tensor, weight: &Param| {
                [None, Some(&shift)].map(|shift| case.run(x, weight, Some(&bias), shift).unwrap())
            };
            let expected = with_candle(|| run(&x, &Param::new(weight.clone())));
            for x in strided(&x) {
                for weight in [&constant, &Param::new(weight.clone())] {
                    for (found, expected) in run(&x, weight).iter().zip(&expected) {
                        assert_eq!(found.dims(), expected.dims(), "{name}");
                        assert!(relative_error(found, expected) < 6e-6, "{name}: {}", relative_error(found, expected));
                    }
                }
            }
            let residual = random(5, expected[0].dims());
            let found = {
                let residual = Maps::from_nchw(&residual).unwrap();
                let extras = ConvExtras { residual: Some(&residual), ..ConvExtras::default() };
                let x = Maps::from_nchw(&x).unwrap();
                maps::conv2d(&x, &constant, case.stride, case.padding, extras).unwrap().to_nchw().unwrap()
            };
            let expected = (case.run(&x, &constant, None, None).unwrap() + residual).unwrap();
            assert!(relative_error(&found, &expected) < 6e-6, "{name}: with a residual");
        }
    }
}

#[test]
fn a_convolution_has_the_gradients_of_finite_differences() {
    for case in cases() {
        if case.inputs * case.outputs > 2000 {
            continue; // Sums of so many terms drown differences in rounding; compared with candle's below.
        }
        for batch in [1, 2] {
            let inputs =
                [case.images(batch), case.weight(), random(2, &[case.outputs]), random(4, &[batch, case.outputs])];
            let run = |x: &[Tensor]| case.run(&x[0], &Param::new(x[1].clone()), Some(&x[2]), Some(&x[3]));
            check_gradients(&format!("{case:?}"), &inputs, run, 3e-2).unwrap();
        }
    }
}

#[test]
fn a_convolution_has_candles_gradients() {
    for case in cases() {
        let (x, weight, shift) = (case.images(3), case.weight(), random(4, &[3, case.outputs]));
        let gradients = || {
            let vars = [&x, &weight, &shift].map(|x| Var::from_tensor(x).unwrap());
            let y = case.run(&vars[0], &Param::new(vars[1].as_tensor().clone()), None, Some(&vars[2])).unwrap();
            let mask = random(6, y.dims());
            let grads = y.mul(&mask).unwrap().sum_all().unwrap().backward().unwrap();
            vars.map(|var| grads.get(&var).unwrap().clone())
        };
        for (i, (found, expected)) in gradients().iter().zip(&with_candle(gradients)).enumerate() {
            let error = relative_error(found, expected);
            assert!(error < 1e-5, "{case:?}, input {i}: {error}");
        }
    }
}

#[test]
fn convolutions_of_random_shapes_agree_with_candles_in_results_and_gradients() {
    let mut shapes = Shapes::new(11);
    let mut below = |n| shapes.below(n);
    for i in 0..200 {
        let (inputs, outputs) = ([1 + below(8), 16 + below(90)][below(2)], [1 + below(8), 16 + below(90)][below(2)]);
        let kernel = [(1, 1), (3, 3), (3, 3), (2, 2), (5, 5), (1, 3), (3, 2)][below(7)];
        let size = (1 + below(14), 1 + below(14));
        let (stride, padding) = (1 + below(3), Padding { before: below(3), after: below(3) });
        let fits = |size: usize, kernel: usize| size + padding.before + padding.after >= kernel;
        if !fits(size.0, kernel.0) || !fits(size.1, kernel.1) {
            continue;
        }
        let batch = 1 + below(3);
        let name =
            format!("{i}: {batch} x {inputs} -> {outputs}, {size:?}, kernel {kernel:?}, stride {stride}, {padding:?}");
        let inputs = [
            random(1, &[batch, inputs, size.0, size.1]),
            random(2, &[outputs, inputs, kernel.0, kernel.1]),
            random(3, &[outputs]),
            random(4, &[batch, outputs]),
        ];
        let run = || {
            let vars = inputs.each_ref().map(|x| Var::from_tensor(x).unwrap());
            let [x, weight, bias, shift] = vars.each_ref().map(|var| var.as_tensor().clone());
            let extras = ConvExtras { bias: Some(&bias), shift: Some(&shift), residual: None };
            let y = maps::conv2d(&Maps::from_nchw(&x).unwrap(), &Param::new(weight), stride, padding, extras).unwrap();
            let y = y.to_nchw().unwrap();
            let grads = y.mul(&random(5, y.dims())).unwrap().sum_all().unwrap().backward().unwrap();
            let gradients = vars.iter().map(|var| grads.get(var).unwrap().clone());
            [y.detach()].into_iter().chain(gradients).collect::<Vec<_>>()
        };
        for (part, (found, expected)) in run().iter().zip(&with_candle(run)).enumerate() {
            let error = relative_error(found, expected);
            assert!(error < 1e-5, "{name}, part {part}: {error}");
        }
        let constant = Param::constant(&inputs[1]).unwrap();
        let extras = ConvExtras { bias: Some(&inputs[2]), shift: Some(&inputs[3]), residual: None };
        let y = maps::conv2d(&Maps::from_nchw(&inputs[0]).unwrap(), &constant, stride, padding, extras).unwrap();
        let error = relative_error(&y.to_nchw().unwrap(), &with_candle(run)[0]);
        assert!(error < 1e-5, "{name}, a constant weight: {error}");
    }
}

#[test]
fn a_batch_of_no_images_is_a_result_of_none() {
    let x =
        Maps::from_tokens(&Tensor::zeros((0, 16, 4), candle_core::DType::F32, common::CPU).unwrap(), (4, 4)).unwrap();
    let weight = Param::new(random(1, &[70, 4, 3, 3]));
    let y = maps::conv2d(&x, &weight, 1, Padding::all(1), ConvExtras::default()).unwrap();
    assert_eq!(y.dims(), (0, 70, 4, 4));
    let rows = Tensor::zeros((0, 8), candle_core::DType::F32, common::CPU).unwrap();
    let y = maps::linear(&rows, &Param::new(random(1, &[70, 8])), None, None).unwrap();
    assert_eq!(y.dims(), [0, 70]);
}

#[test]
fn bytes_depend_neither_on_the_batch_nor_on_the_threads() {
    for case in cases() {
        let weight = Param::constant(&case.weight()).unwrap();
        let half = Param::constant(&case.weight().to_dtype(candle_core::DType::BF16).unwrap()).unwrap();
        let shift = random(4, &[1, case.outputs]);
        for weight in [&weight, &half] {
            assert_independent(&format!("{case:?}"), &case.images(3), |x| {
                case.run(x, weight, None, Some(&shift.repeat((x.dims()[0], 1))?))
            });
        }
        let (x, weight) = (case.images(5), case.weight());
        let gradients = || {
            let vars = [&x, &weight].map(|x| Var::from_tensor(x).unwrap());
            let y = case.run(&vars[0], &Param::new(vars[1].as_tensor().clone()), None, None).unwrap();
            let grads = y.sqr().unwrap().sum_all().unwrap().backward().unwrap();
            vars.map(|var| bytes(grads.get(&var).unwrap()))
        };
        assert_eq!(with_threads(1, gradients), with_threads(2, gradients), "{case:?}");
    }
}

#[test]
fn weights_in_half_precision_give_what_their_values_give() {
    for case in cases() {
        for dtype in [candle_core::DType::F16, candle_core::DType::BF16] {
            let half = case.weight().to_dtype(dtype).unwrap();
            let rounded = half.to_dtype(candle_core::DType::F32).unwrap();
            let (half, whole) = (Param::constant(&half).unwrap(), Param::constant(&rounded).unwrap());
            assert_eq!(half.dtype(), dtype);
            assert_eq!(bytes(&half.tensor().unwrap().to_dtype(candle_core::DType::F32).unwrap()), bytes(&rounded));
            let x = case.images(2);
            // With values that `bf16` can hold, even a processor that rounds images to `bf16` computes the same.
            let x = x.to_dtype(dtype).unwrap().to_dtype(candle_core::DType::F32).unwrap();
            let run = |weight: &Param| case.run(&x, weight, None, None).unwrap();
            let error = relative_error(&run(&half), &run(&whole));
            assert!(error < 1e-6, "{case:?} {dtype:?}: {error}");
        }
    }
}

#[test]
fn a_linear_map_in_bf16_is_as_good_as_its_rounding() {
    for (rows, inputs, outputs) in [(1, 1, 1), (5, 3, 70), (300, 64, 64), (37, 301, 33), (700, 520, 200)] {
        let (x, bias) = (random(1, &[rows, inputs]), random(3, &[outputs]));
        let weight = random(2, &[outputs, inputs]).to_dtype(candle_core::DType::BF16).unwrap();
        let rounded = weight.to_dtype(candle_core::DType::F32).unwrap();
        let residual = random(4, &[rows, outputs]);
        let run = |weight: &Tensor, x: &Tensor| {
            maps::linear(x, &Param::constant(weight).unwrap(), Some(&bias), Some(&residual)).unwrap()
        };
        let error = relative_error(&run(&weight, &x), &run(&rounded, &x));
        assert!(error < 4e-3, "{rows} {inputs} {outputs}: {error}");
        let held = x.to_dtype(candle_core::DType::BF16).unwrap().to_dtype(candle_core::DType::F32).unwrap();
        let error = relative_error(&run(&weight, &held), &run(&rounded, &held));
        assert!(error < 1e-6, "{rows} {inputs} {outputs}: {error}");
        let constant = Param::constant(&weight).unwrap();
        let images = x.narrow(0, 0, rows.min(8)).unwrap().unsqueeze(1).unwrap();
        assert_independent("bf16", &images, |x| maps::linear(x, &constant, Some(&bias), None));
    }
}

#[test]
fn a_linear_map_agrees_with_candles_and_has_its_gradients() {
    for (rows, inputs, outputs) in [(1, 1, 1), (5, 3, 70), (300, 64, 64), (37, 300, 33), (700, 20, 200)] {
        let (x, weight, bias) = (random(1, &[rows, inputs]), random(2, &[outputs, inputs]), random(3, &[outputs]));
        let residual = random(4, &[rows, outputs]);
        let name = format!("{rows} {inputs} {outputs}");
        let constant = Param::constant(&weight).unwrap();
        let run = |x: &[Tensor]| maps::linear(&x[0], &Param::new(x[1].clone()), Some(&x[2]), Some(&x[3]));
        let inputs_of = [x.clone(), weight.clone(), bias.clone(), residual.clone()];
        let expected = with_candle(|| run(&inputs_of)).unwrap();
        for x in strided(&x) {
            assert_close(&name, &maps::linear(&x, &constant, Some(&bias), Some(&residual)).unwrap(), &expected, 2e-5);
        }
        assert_close(&name, &run(&inputs_of).unwrap(), &expected, 2e-5);
        check_gradients(&name, &inputs_of, run, 2e-2).unwrap();
        let images = x.unsqueeze(1).unwrap();
        assert_independent(&name, &images.narrow(0, 0, rows.min(8)).unwrap(), |x| {
            maps::linear(x, &constant, None, None)
        });
        let gradient = || {
            let vars = [&x, &weight].map(|x| Var::from_tensor(x).unwrap());
            let y = maps::linear(&vars[0], &Param::new(vars[1].as_tensor().clone()), None, None).unwrap();
            let grads = y.sqr().unwrap().sum_all().unwrap().backward().unwrap();
            vars.map(|var| bytes(grads.get(&var).unwrap()))
        };
        assert_eq!(with_threads(1, gradient), with_threads(2, gradient), "{name}");
    }
}

#[test]
fn shapes_that_do_not_agree_are_errors() {
    let x = Maps::from_nchw(&random(1, &[1, 4, 3, 3])).unwrap();
    let conv = |weight: &[usize], stride, extras| {
        maps::conv2d(&x, &Param::new(random(2, weight)), stride, Padding::all(0), extras).map(|_| ())
    };
    assert!(conv(&[2, 5, 3, 3], 1, ConvExtras::default()).is_err());
    assert!(conv(&[2, 4, 4, 4], 1, ConvExtras::default()).is_err());
    assert!(conv(&[2, 4, 3, 3], 0, ConvExtras::default()).is_err());
    assert!(conv(&[2, 4, 3], 1, ConvExtras::default()).is_err());
    let bias = random(3, &[3]);
    assert!(conv(&[2, 4, 3, 3], 1, ConvExtras { bias: Some(&bias), ..ConvExtras::default() }).is_err());
    let shift = random(3, &[2, 2]);
    assert!(conv(&[2, 4, 3, 3], 1, ConvExtras { shift: Some(&shift), ..ConvExtras::default() }).is_err());
    let padding = Padding { before: usize::MAX - 1, after: 5 };
    assert!(maps::conv2d(&x, &Param::new(random(2, &[2, 4, 3, 3])), 1, padding, ConvExtras::default()).is_err());
    assert!(x.upsample_nearest((3, usize::MAX / 3 * 2 + 1)).is_err());
    let first = with_candle(|| Maps::from_nchw(&random(1, &[1, 4, 3, 3]))).unwrap();
    assert!(x.add(&first).is_err() && x.concat_channels(&first).is_err());
    assert!(conv(&[2, 4, 3, 3], 1, ConvExtras { residual: Some(&x), ..ConvExtras::default() }).is_err());
    assert!(maps::linear(&random(1, &[2, 3]), &Param::new(random(2, &[4, 5])), None, None).is_err());
}
