//! Layers and the UNet: gradients of every weight, bytes in other batches and threads, names, sizes.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use candle_core::{Result, Tensor};
use common::{CPU, bytes, random, relative_error, values, with_threads};
use evenset_core::Seed;
use evenset_nn::gradcheck::check_gradients;
use evenset_nn::layers::{Embedding, Linear, TimestepEmbedding};
use evenset_nn::ops::with_candle;
use evenset_nn::{UNet, UNetConfig, Weights, no_grad};

fn weights() -> Weights {
    Weights::new(Seed(5), CPU)
}

/// Sets every weight to random values, so that none is hidden behind a zero.
fn shake(weights: &Weights) {
    for (i, (_, var)) in weights.vars().into_iter().enumerate() {
        var.set(&(random(100 + i as u64, var.dims()) * 0.3).unwrap()).unwrap();
    }
}

/// Checks the gradients of `inputs` and of every weight.
fn check_layer(name: &str, weights: &Weights, inputs: &[Tensor], f: impl Fn(&[Tensor]) -> Result<Tensor>) {
    shake(weights);
    check_gradients(name, inputs, &f, 3e-2).unwrap();
    let mask = {
        let output = f(inputs).unwrap();
        random(9, output.dims())
    };
    let loss = || (f(inputs).unwrap() * &mask).unwrap();
    let grads = loss().sum_all().unwrap().backward().unwrap();
    let sum = || values(&loss()).into_iter().map(f64::from).sum::<f64>();
    for (weight, var) in weights.vars() {
        let gradient = values(grads.get(&var).unwrap_or_else(|| panic!("{name}: no gradient for {weight}")));
        let original = values(&var);
        for element in [0, original.len() / 2, original.len() - 1] {
            let at = |offset: f32| {
                let mut moved = original.clone();
                moved[element] += offset;
                var.set(&Tensor::from_vec(moved, var.shape(), CPU).unwrap()).unwrap();
                sum()
            };
            let slope = (at(1e-2) - at(-1e-2)) / 2e-2;
            var.set(&Tensor::from_slice(&original, var.shape(), CPU).unwrap()).unwrap();
            let found = f64::from(gradient[element]);
            assert!(
                (slope - found).abs() < 3e-2 * slope.abs().max(1.0),
                "{name}: {weight} {element}: {found}, not {slope}"
            );
        }
    }
}

#[test]
fn a_linear_layer_has_the_gradients_of_finite_differences() {
    for bias in [true, false] {
        let weights = weights();
        let linear = Linear::with_bias(&weights.scope("layer"), 4, 5, bias).unwrap();
        let inputs = [random(1, &[2, 3, 4]), random(2, &[2, 3, 5])];
        check_layer("Linear", &weights, &inputs, |x| linear.forward(&x[0])?.add(&linear.forward_onto(&x[0], &x[1])?));
    }
}

#[test]
fn embeddings_have_the_gradients_of_finite_differences() {
    let table = weights();
    let embedding = Embedding::new(&table.scope("table"), 3, 4).unwrap();
    let indices = Tensor::new(&[2u32, 0, 2, 1], CPU).unwrap();
    check_layer("Embedding", &table, &[], |_| embedding.forward(&indices));
    assert!(embedding.forward(&Tensor::new(&[3u32], CPU).unwrap()).is_err());

    let time = weights();
    let embedding = TimestepEmbedding::new(&time.scope("time_embedding"), 8, 6).unwrap();
    check_layer("TimestepEmbedding", &time, &[], |_| embedding.forward(&random(1, &[3])));
}

fn config() -> UNetConfig {
    UNetConfig {
        in_channels: 3,
        out_channels: 2,
        block_out_channels: vec![4, 6, 8],
        layers_per_block: 1,
        norm_num_groups: 2,
        attention: vec![false, true, true],
        embedding_dim: 8,
    }
}

#[test]
fn every_weight_of_a_unet_has_the_gradient_of_finite_differences() {
    let weights = weights();
    let config = UNetConfig { block_out_channels: vec![4, 6], attention: vec![false, true], ..config() };
    let net = UNet::new(&config, &weights.scope("")).unwrap();
    let inputs = [random(1, &[2, 3, 4, 6]), random(2, &[2, 8])];
    let noise = Tensor::new(&[-0.7f32, 0.4], CPU).unwrap();
    check_layer("UNet", &weights, &inputs, |x| net.forward(&x[0], &noise, Some(&x[1])));
}

#[test]
fn a_unets_bytes_depend_on_the_image_alone() {
    let weights = weights();
    let net = UNet::new(&config(), &weights.scope("")).unwrap();
    shake(&weights);
    let (x, noise, condition) = (random(1, &[3, 3, 28, 20]), random(2, &[3]), random(3, &[3, 8]));
    let together = with_threads(1, || net.forward(&x, &noise, Some(&condition)).unwrap());
    assert_eq!(together.dims(), [3, 2, 28, 20]);
    assert!(values(&together).iter().any(|x| x.abs() > 1e-3));
    let two = with_threads(2, || no_grad(|| net.forward(&x, &noise, Some(&condition)).unwrap()));
    assert_eq!(bytes(&together), bytes(&two));
    for i in 0..3 {
        let one = |x: &Tensor| x.narrow(0, i, 1).unwrap();
        let alone = net.forward(&one(&x), &one(&noise), Some(&one(&condition))).unwrap();
        assert_eq!(bytes(&alone), bytes(&one(&together)), "image {i}");
    }
}

#[test]
fn a_unets_gradients_have_the_same_bytes_with_one_thread_and_two() {
    let weights = weights();
    let net = UNet::new(&config(), &weights.scope("")).unwrap();
    shake(&weights);
    let (x, noise) = (random(1, &[19, 3, 8, 8]), random(2, &[19]));
    let run = || {
        let grads = net.forward(&x, &noise, None).unwrap().sqr().unwrap().mean_all().unwrap().backward().unwrap();
        weights.vars().iter().flat_map(|(_, var)| bytes(grads.get(var).unwrap())).collect::<Vec<_>>()
    };
    assert_eq!(with_threads(1, run), with_threads(2, run));
}

#[test]
fn a_unet_follows_noise_level_and_condition_of_each_image() {
    let weights = weights();
    let net = UNet::new(&config(), &weights.scope("")).unwrap();
    shake(&weights);
    let x = random(1, &[1, 3, 8, 8]).broadcast_as((3, 3, 8, 8)).unwrap();
    let noise = Tensor::new(&[0.1f32, 0.1, 0.9], CPU).unwrap();
    let condition = Tensor::cat(&[random(1, &[1, 8]), random(2, &[1, 8]), random(1, &[1, 8])], 0).unwrap();
    let y = net.forward(&x, &noise, Some(&condition)).unwrap();
    let image = |i| bytes(&y.narrow(0, i, 1).unwrap());
    assert!(image(0) != image(1) && image(0) != image(2) && image(1) != image(2));
}

#[test]
fn a_unet_starts_at_zero_and_has_the_names_of_diffusers() {
    let weights = weights();
    let net = UNet::new(&config(), &weights.scope("unet")).unwrap();
    let y = net.forward(&random(1, &[1, 3, 4, 4]), &random(2, &[1]), None).unwrap();
    assert!(values(&y).iter().all(|y| *y == 0.0));
    let names: Vec<String> = weights.vars().into_iter().map(|(name, _)| name).collect();
    for name in [
        "conv_in.weight",
        "time_embedding.linear_1.bias",
        "down_blocks.0.resnets.0.norm1.weight",
        "down_blocks.0.resnets.0.time_emb_proj.weight",
        "down_blocks.0.downsamplers.0.conv.weight",
        "down_blocks.1.resnets.0.conv_shortcut.weight",
        "down_blocks.2.attentions.0.to_out.0.weight",
        "mid_block.attentions.0.group_norm.bias",
        "mid_block.resnets.1.conv2.bias",
        "up_blocks.0.resnets.1.conv1.weight",
        "up_blocks.1.upsamplers.0.conv.bias",
        "conv_norm_out.weight",
        "conv_out.bias",
    ] {
        assert!(names.contains(&format!("unet.{name}")), "{name}");
    }
    assert!(!names.contains(&"unet.down_blocks.2.downsamplers.0.conv.weight".to_owned()));
}

#[test]
fn images_and_configurations_that_do_not_fit_are_refused_with_a_reason() {
    let net = UNet::new(&config(), &weights().scope("")).unwrap();
    assert_eq!(config().size_multiple(), 4);
    let error = net.forward(&random(1, &[1, 3, 28, 30]), &random(2, &[1]), None).unwrap_err().to_string();
    assert!(error.contains("multiples of 4"), "{error}");
    assert!(net.forward(&random(1, &[2, 3, 8, 8]), &random(2, &[1]), None).is_err());
    for (config, word) in [
        (UNetConfig { attention: vec![true], ..config() }, "attention"),
        (UNetConfig { norm_num_groups: 4, ..config() }, "norm_num_groups"),
        (UNetConfig { norm_num_groups: 0, ..config() }, "norm_num_groups"),
        (UNetConfig { block_out_channels: vec![], attention: vec![], ..config() }, "levels"),
        (UNetConfig { layers_per_block: 0, ..config() }, "layers_per_block"),
        (UNetConfig { in_channels: 0, ..config() }, "width"),
        (UNetConfig { embedding_dim: usize::MAX, ..config() }, "width"),
    ] {
        let error = UNet::new(&config, &weights().scope("")).unwrap_err().to_string();
        assert!(error.contains(word), "{error}");
    }
}

#[test]
fn without_gradients_nothing_is_recorded() {
    let weights = weights();
    let net = UNet::new(&config(), &weights.scope("")).unwrap();
    shake(&weights);
    let (x, noise) = (random(1, &[1, 3, 4, 4]), random(2, &[1]));
    assert!(!no_grad(|| net.forward(&x, &noise, None).unwrap()).track_op());
    assert!(net.forward(&x, &noise, None).unwrap().track_op());
    let caught = std::panic::catch_unwind(|| no_grad(|| panic!("on purpose")));
    assert!(caught.is_err() && net.forward(&x, &noise, None).unwrap().track_op());
}

#[test]
fn a_unet_of_candles_operations_agrees() {
    // As on devices that this crate's kernels do not cover.
    let weights = weights();
    let net = UNet::new(&config(), &weights.scope("")).unwrap();
    shake(&weights);
    let (x, noise, condition) = (random(1, &[3, 3, 12, 8]), random(2, &[3]), random(3, &[3, 8]));
    let run = || {
        let y = net.forward(&x, &noise, Some(&condition)).unwrap();
        let grads = y.sqr().unwrap().mean_all().unwrap().backward().unwrap();
        let gradients = weights.vars().into_iter().map(|(name, var)| (name, grads.get(&var).unwrap().clone()));
        (y.detach(), gradients.collect::<Vec<_>>())
    };
    let ((found, gradients), (expected, others)) = (run(), with_candle(run));
    assert!(relative_error(&found, &expected) < 1e-5);
    for ((name, found), (_, expected)) in gradients.iter().zip(&others) {
        if name.ends_with("to_k.bias") {
            continue; // It moves all scores of a query alike: its gradient is nothing but rounding.
        }
        assert!(relative_error(found, expected) < 1e-4, "{name}");
    }
}
