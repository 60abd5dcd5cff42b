//! How fast the kernels and a small UNet run on this machine.
//!
//! `cargo run --release -p evenset-nn --example speed`; with `conv` or `unet` behind `--`, only that part.
#![allow(clippy::print_stdout)]

use std::time::Instant;

use candle_core::{Device, Result, Tensor, Var};
use evenset_core::Seed;
use evenset_nn::{AdamW, AdamWConfig, UNet, UNetConfig, Weights, no_grad, ops};

const CPU: &Device = &Device::Cpu;

fn random(seed: u64, shape: &[usize]) -> Result<Tensor> {
    Tensor::from_vec(Seed(seed).normal(shape.iter().product()), shape, CPU)
}

/// The shortest time of some calls, in seconds: others use the machine too.
fn shortest(calls: usize, mut f: impl FnMut() -> Result<()>) -> Result<f64> {
    f()?;
    let mut times = Vec::new();
    for _ in 0..calls {
        let start = Instant::now();
        f()?;
        times.push(start.elapsed().as_secs_f64());
    }
    times.sort_by(f64::total_cmp);
    Ok(times[0])
}

fn convolution(batch: usize, inputs: usize, outputs: usize, size: usize, kernel: usize, stride: usize) -> Result<()> {
    let x = Var::from_tensor(&random(1, &[batch, inputs, size, size])?)?;
    let weight = Var::from_tensor(&random(2, &[outputs, inputs, kernel, kernel])?)?;
    let bias = Var::from_tensor(&random(3, &[outputs])?)?;
    let run = |x: &Tensor, weight: &Tensor, bias: &Tensor| ops::conv2d(x, weight, Some(bias), stride, kernel / 2);
    let (x_value, weight_value, bias_value) =
        (x.as_detached_tensor(), weight.as_detached_tensor(), bias.as_detached_tensor());
    let forward = shortest(15, || run(&x_value, &weight_value, &bias_value).map(|_| ()))?;
    // The mean keeps the gradient's shape cheap to make; its own cost is part of the time.
    let both = shortest(15, || run(&x, &weight, &bias)?.sum_all()?.backward().map(|_| ()))?;
    let out = size.div_ceil(stride);
    let flop = (2 * batch * inputs * outputs * out * out * kernel * kernel) as f64 * 1e-9;
    println!(
        "conv {inputs:3} -> {outputs:3}  {size}x{size}  k{kernel} s{stride}  batch {batch}:  forward {:6.1} GFLOP/s   \
         forward and backward {:6.1} GFLOP/s",
        flop / forward,
        3.0 * flop / both
    );
    Ok(())
}

fn unet(name: &str, channels: usize, size: usize, widths: &[usize], attention: &[bool]) -> Result<()> {
    let config = UNetConfig {
        in_channels: channels,
        out_channels: channels,
        block_out_channels: widths.to_vec(),
        layers_per_block: 1,
        norm_num_groups: 8,
        attention: attention.to_vec(),
        embedding_dim: 128,
    };
    let weights = Weights::new(Seed(1), CPU);
    let net = UNet::new(&config, &weights.scope(""))?;
    let batch = 64;
    let (x, noise) = (random(1, &[batch, channels, size, size])?, random(2, &[batch])?);
    let inference = shortest(9, || no_grad(|| net.forward(&x, &noise, None)).map(|_| ()))?;
    let mut optimiser = AdamW::new(weights.vars(), AdamWConfig::default());
    let (mut forward, mut backward, mut update) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..10 {
        let start = Instant::now();
        let loss = (net.forward(&x, &noise, None)? - &x)?.sqr()?.mean_all()?;
        forward.push(start.elapsed().as_secs_f64());
        let start = Instant::now();
        let grads = loss.backward()?;
        backward.push(start.elapsed().as_secs_f64());
        let start = Instant::now();
        optimiser.step(&grads, 1e-3, Some(1.0))?;
        update.push(start.elapsed().as_secs_f64());
    }
    let best = |times: Vec<f64>| 1e3 * times.into_iter().fold(f64::INFINITY, f64::min);
    let (forward, backward, update) = (best(forward), best(backward), best(update));
    println!(
        "{name}: {} weights, batch {batch}: inference {:.0} images/s; step {:.0} ms ({:.1} steps/s): forward {forward:.0}, \
         backward {backward:.0}, AdamW {update:.1}",
        weights.count(),
        batch as f64 / inference,
        forward + backward + update,
        1e3 / (forward + backward + update),
    );
    Ok(())
}

fn main() -> Result<()> {
    // SAFETY: no other thread exists yet.
    unsafe { evenset_nn::stop_idle_spinning() };
    let only = std::env::args().nth(1).unwrap_or_default();
    if only != "unet" {
        convolutions()?;
    }
    if only != "conv" {
        unet("28x28 [32, 64, 64]", 3, 28, &[32, 64, 64], &[false, false, true])?;
        unet("14x14 in patches [64, 96]", 12, 14, &[64, 96], &[false, true])?;
    }
    Ok(())
}

fn convolutions() -> Result<()> {
    for (inputs, outputs, size, kernel, stride) in [
        (3, 32, 28, 3, 1),
        (32, 32, 28, 3, 1),
        (64, 32, 28, 3, 1),
        (32, 32, 28, 3, 2),
        (64, 64, 14, 3, 1),
        (128, 64, 14, 3, 1),
        (64, 64, 7, 3, 1),
        (128, 128, 7, 3, 1),
        (96, 96, 14, 3, 1),
        (96, 32, 28, 1, 1),
        (32, 3, 28, 3, 1),
    ] {
        convolution(64, inputs, outputs, size, kernel, stride)?;
    }
    Ok(())
}
