//! Attention of tokens against candle's operations, its gradients, and its bytes in other batches and threads.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use candle_core::{Tensor, Var};
use common::{CPU, Shapes, assert_close, bytes, random, values, with_threads};
use evenset_nn::gradcheck::check_gradients;
use evenset_nn::maps::attention;
use evenset_nn::ops::with_candle;

/// (batch, queries, keys, heads, width of a head)
const SHAPES: [(usize, usize, usize, usize, usize); 16] = [
    (1, 1, 1, 1, 1),
    (2, 1, 5, 3, 1),
    (3, 17, 1, 2, 3),
    (2, 5, 77, 8, 8),
    (1, 64, 64, 4, 8),
    (1, 129, 77, 2, 40),
    (2, 70, 300, 1, 40),
    (1, 300, 96, 3, 16),
    (1, 300, 97, 1, 32),
    (1, 33, 600, 2, 64),
    (2, 200, 193, 1, 80),
    (1, 65, 600, 1, 160),
    (1, 128, 5, 2, 160),
    (3, 256, 256, 2, 24),
    (1, 70, 101, 1, 300),
    (1, 20, 30, 1, 512),
];

/// Queries, keys and values.
fn arguments((batch, queries, keys, heads, width): (usize, usize, usize, usize, usize)) -> [Tensor; 3] {
    let width = heads * width;
    [random(1, &[batch, queries, width]), random(2, &[batch, keys, width]), random(3, &[batch, keys, width])]
}

/// The same values in memory that is not contiguous.
fn strided(x: &Tensor) -> [Tensor; 3] {
    let transposed = x.transpose(1, 2).unwrap().contiguous().unwrap().transpose(1, 2).unwrap();
    let batch_last = x.transpose(0, 2).unwrap().contiguous().unwrap().transpose(0, 2).unwrap();
    let narrowed = Tensor::cat(&[x, x, x], 2).unwrap().narrow(2, x.dims()[2], x.dims()[2]).unwrap();
    [transposed, batch_last, narrowed]
}

#[test]
fn attention_agrees_with_candles_operations() {
    for shape in SHAPES {
        let ([q, k, v], heads) = (arguments(shape), shape.3);
        let expected = with_candle(|| attention(&q, &k, &v, heads)).unwrap();
        assert_close(&format!("{shape:?}"), &attention(&q, &k, &v, heads).unwrap(), &expected, 2e-5);
    }
}

#[test]
fn attention_of_random_shapes_agrees_with_candles_in_results_and_gradients() {
    let mut shapes = Shapes::new(12);
    for _ in 0..80 {
        let mut up_to = |n| 1 + shapes.below(n);
        let shape = (up_to(3), up_to(200), up_to(260), up_to(4), up_to(50));
        let inputs = arguments(shape);
        let run = || {
            let vars = inputs.each_ref().map(|x| Var::from_tensor(x).unwrap());
            let y = attention(&vars[0], &vars[1], &vars[2], shape.3).unwrap();
            let grads = y.mul(&random(5, y.dims())).unwrap().sum_all().unwrap().backward().unwrap();
            let gradients = vars.iter().map(|var| grads.get(var).unwrap().clone());
            [y.detach()].into_iter().chain(gradients).collect::<Vec<_>>()
        };
        for (part, (found, expected)) in run().iter().zip(&with_candle(run)).enumerate() {
            assert_close(&format!("{shape:?}, part {part}"), found, expected, 1e-4);
        }
    }
}

#[test]
fn attention_takes_tokens_that_are_not_contiguous() {
    for shape in [(3, 17, 9, 2, 3), (2, 70, 130, 2, 40)] {
        let ([q, k, v], heads) = (arguments(shape), shape.3);
        let expected = bytes(&attention(&q, &k, &v, heads).unwrap());
        for ((q, k), v) in strided(&q).iter().zip(strided(&k)).zip(strided(&v)) {
            assert_eq!(bytes(&attention(q, &k, &v, heads).unwrap()), expected, "{shape:?}");
        }
        // One tensor of all three, as a fused projection leaves them.
        let tokens = random(4, &[2, 65, 3 * 24]);
        let [q, k, v] = [0, 24, 48].map(|start| tokens.narrow(2, start, 24).unwrap());
        let expected = with_candle(|| attention(&q, &k, &v, 3)).unwrap();
        assert_close("narrowed", &attention(&q, &k, &v, 3).unwrap(), &expected, 2e-5);
    }
}

#[test]
fn attention_is_safe_for_large_scores() {
    for shape in SHAPES {
        let ([q, k, v], heads) = (arguments(shape), shape.3);
        let [q, k] = [(q * 30.0).unwrap(), (k * 30.0).unwrap()];
        let double = |x: &Tensor| x.to_dtype(candle_core::DType::F64).unwrap();
        let expected = attention(&double(&q), &double(&k), &double(&v), heads).unwrap();
        let expected = expected.to_dtype(candle_core::DType::F32).unwrap();
        // Scores in the thousands are rounded to a thousandth or so, and shares with them.
        assert_close(&format!("{shape:?}"), &attention(&q, &k, &v, heads).unwrap(), &expected, 1e-2);
        let huge = attention(&(q * 1e15).unwrap(), &(k * 1e15).unwrap(), &v, heads).unwrap();
        assert!(values(&huge).iter().all(|x| x.is_finite()), "{shape:?}");
    }
}

#[test]
fn what_is_not_a_number_stays_visible() {
    let [q, k, v] = arguments((1, 70, 130, 1, 8));
    let poison = |x: &Tensor, at: usize| {
        let mut values = values(x);
        values[at] = f32::NAN;
        Tensor::from_vec(values, x.shape(), CPU).unwrap()
    };
    let poisoned = |y: Tensor| values(&y).iter().filter(|x| x.is_nan()).count();
    assert_eq!(poisoned(attention(&poison(&q, 8 * 69), &k, &v, 1).unwrap()), 8);
    assert_eq!(poisoned(attention(&q, &poison(&k, 8 * 50), &v, 1).unwrap()), 70 * 8);
    assert_eq!(poisoned(attention(&q, &k, &poison(&v, 8 * 129), 1).unwrap()), 70);
}

#[test]
fn attentions_bytes_depend_on_its_image_alone() {
    for shape in SHAPES {
        let ([q, k, v], heads) = (arguments(shape), shape.3);
        let run = |q: &Tensor, k: &Tensor, v: &Tensor| bytes(&attention(q, k, v, heads).unwrap());
        let together = with_threads(1, || run(&q, &k, &v));
        assert_eq!(together, with_threads(2, || run(&q, &k, &v)), "{shape:?}: threads");
        for (i, expected) in together.chunks(together.len() / shape.0).enumerate() {
            let [q, k, v] = [&q, &k, &v].map(|x| x.narrow(0, i, 1).unwrap());
            assert_eq!(run(&q, &k, &v), expected, "{shape:?}: image {i} alone");
        }
        // Nor on the other queries.
        let last = shape.1 - 1;
        let alone = attention(&q.narrow(1, last, 1).unwrap(), &k, &v, heads).unwrap();
        let expected = attention(&q, &k, &v, heads).unwrap().narrow(1, last, 1).unwrap();
        assert_eq!(bytes(&alone), bytes(&expected), "{shape:?}: the last query alone");
    }
}

#[test]
fn attention_has_the_gradients_of_finite_differences() {
    for (batch, queries, keys, heads, width) in
        [(1, 1, 1, 1, 1), (2, 5, 3, 3, 1), (2, 17, 5, 2, 3), (1, 70, 9, 1, 8), (1, 9, 110, 2, 20)]
    {
        let inputs = arguments((batch, queries, keys, heads, width));
        let f = |x: &[Tensor]| attention(&x[0], &x[1], &x[2], heads);
        check_gradients(&format!("{queries} {keys} {heads} {width}"), &inputs, f, 2e-2).unwrap();
    }
    // The same tensor three times: its gradients add up.
    let f = |x: &[Tensor]| attention(&x[0], &x[0], &x[0], 2);
    check_gradients("of itself", &[random(1, &[2, 11, 8])], f, 2e-2).unwrap();
}

/// The gradients of the arguments for a gradient of the result that is no constant.
fn gradients(inputs: &[Tensor; 3], heads: usize) -> [Tensor; 3] {
    let vars = inputs.each_ref().map(|x| Var::from_tensor(x).unwrap());
    let y = attention(&vars[0], &vars[1], &vars[2], heads).unwrap();
    let grads = y.mul(&random(4, y.dims())).unwrap().sum_all().unwrap().backward().unwrap();
    vars.each_ref().map(|var| grads.get(var).unwrap().clone())
}

#[test]
fn attention_has_the_gradients_of_candles_operations() {
    for shape in SHAPES {
        let inputs = arguments(shape);
        let expected = with_candle(|| gradients(&inputs, shape.3));
        for (i, (found, expected)) in gradients(&inputs, shape.3).iter().zip(&expected).enumerate() {
            assert_close(&format!("{shape:?}, input {i}"), found, expected, 5e-5);
        }
    }
}

#[test]
fn gradients_bytes_depend_on_their_image_alone() {
    for shape in SHAPES {
        let inputs = arguments(shape);
        let together = with_threads(1, || gradients(&inputs, shape.3));
        let threads = with_threads(2, || gradients(&inputs, shape.3));
        assert_eq!(together.each_ref().map(bytes), threads.each_ref().map(bytes), "{shape:?}: threads");
    }
    // Constant gradients of the result, so that every image gets the same.
    let shape = (3, 150, 110, 2, 24);
    let inputs = arguments(shape);
    let run = |inputs: [Tensor; 3]| {
        let vars = inputs.map(|x| Var::from_tensor(&x).unwrap());
        let y = attention(&vars[0], &vars[1], &vars[2], shape.3).unwrap();
        let grads = y.sum_all().unwrap().backward().unwrap();
        vars.map(|var| grads.get(&var).unwrap().clone())
    };
    let together = run(inputs.clone());
    for i in 0..shape.0 {
        let alone = run(inputs.each_ref().map(|x| x.narrow(0, i, 1).unwrap()));
        let image = together.each_ref().map(|x| x.narrow(0, i, 1).unwrap());
        assert_eq!(alone.each_ref().map(bytes), image.each_ref().map(bytes), "image {i} alone");
    }
}

#[test]
fn impossible_attentions_are_refused() {
    let [q, k, v] = arguments((2, 5, 7, 2, 3));
    assert!(attention(&q, &k, &v, 4).is_err());
    assert!(attention(&q, &k, &v, 0).is_err());
    assert!(attention(&q, &k, &q, 2).is_err());
    assert!(attention(&q.narrow(0, 0, 1).unwrap(), &k, &v, 2).is_err());
    assert!(attention(&q, &k.narrow(2, 0, 3).unwrap(), &v.narrow(2, 0, 3).unwrap(), 1).is_err());
    assert!(attention(&q.narrow(1, 0, 0).unwrap(), &k, &v, 2).is_err());
    assert!(attention(&q.squeeze(0).unwrap().flatten_all().unwrap(), &k, &v, 2).is_err());
}
