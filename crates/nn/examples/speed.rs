//! How fast the kernels and a small UNet run on this machine.
//!
//! `cargo run --release -p evenset-nn --example speed`; with `conv`, `linear`, `attention`, `maps` or `unet` behind `--`, only that part.
#![allow(clippy::print_stdout)]

use std::time::Instant;

use candle_core::{DType, Device, Result, Tensor, Var};
use evenset_core::Seed;
use evenset_nn::maps::{self, ConvExtras, Maps, Padding};
use evenset_nn::{AdamW, AdamWConfig, Param, Recycler, UNet, UNetConfig, Weights, no_grad};

#[global_allocator]
static MEMORY: Recycler = Recycler::new();

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
    let x = Var::from_tensor(&random(1, &[batch, size * size, inputs])?)?;
    let weight = Var::from_tensor(&random(2, &[outputs, inputs, kernel, kernel])?)?;
    let bias = Var::from_tensor(&random(3, &[outputs])?)?;
    let run = |x: &Tensor, weight: &Tensor, bias: &Tensor| {
        let extras = ConvExtras { bias: Some(bias), ..ConvExtras::default() };
        let x = Maps::from_tokens(x, (size, size))?;
        maps::conv2d(&x, &Param::new(weight.clone()), stride, Padding::all(kernel / 2), extras)?.to_tokens()
    };
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
    let wanted = |part| only.is_empty() || only == part;
    if wanted("conv") {
        convolutions()?;
    }
    if wanted("linear") {
        linear_maps()?;
    }
    if wanted("attention") {
        attentions()?;
    }
    if wanted("maps") {
        cheap_operations()?;
    }
    if wanted("unet") {
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

/// (name, batch, queries, keys, heads, width of a head)
const ATTENTIONS: [(&str, usize, usize, usize, usize, usize); 9] = [
    ("UNet 64x64", 2, 4096, 4096, 8, 40),
    ("UNet 32x32", 2, 1024, 1024, 8, 80),
    ("UNet 16x16", 2, 256, 256, 8, 160),
    ("UNet 64x64 to text", 2, 4096, 77, 8, 40),
    ("UNet 32x32 to text", 2, 1024, 77, 8, 80),
    ("UNet 16x16 to text", 2, 256, 77, 8, 160),
    ("autoencoder 64x64", 1, 4096, 4096, 1, 512),
    ("pixels 16x16", 64, 256, 256, 4, 32),
    ("pixels 8x8", 64, 64, 64, 4, 8),
];

/// Attention of tokens.
fn attentions() -> Result<()> {
    for (name, batch, queries, keys, heads, width) in ATTENTIONS {
        let random = |seed, tokens| {
            let values = Seed(seed).normal(batch * tokens * heads * width);
            Var::from_tensor(&Tensor::from_vec(values, (batch, tokens, heads * width), &Device::Cpu)?)
        };
        let vars = [random(1, queries)?, random(2, keys)?, random(3, keys)?];
        let [q, k, v] = vars.each_ref().map(|var| var.as_detached_tensor());
        let flop = (4 * batch * heads * queries * keys * width) as f64 * 1e-9;
        let calls = (20.0 / flop) as usize;
        let forward = shortest(calls.clamp(5, 100), || maps::attention(&q, &k, &v, heads).map(drop))?;
        print!("{name:20} {batch:2} x {queries:4} x {keys:4}, {heads} x {width:3}:  ");
        print!("forward {:8.2} ms {:6.1} GFLOP/s", forward * 1e3, flop / forward);
        let both = shortest(calls.clamp(2, 30), || {
            let [q, k, v] = &vars;
            maps::attention(q, k, v, heads)?.sum_all()?.backward().map(drop)
        })?;
        println!("   and backward {:8.2} ms {:6.1} GFLOP/s", both * 1e3, 3.5 * flop / both);
    }
    Ok(())
}

/// The linear maps of Stable Diffusion 1.5.
fn linear_maps() -> Result<()> {
    for (rows, inputs, outputs) in [
        (8192, 320, 320),
        (8192, 320, 2560),
        (8192, 1280, 320),
        (2048, 640, 5120),
        (512, 1280, 10240),
        (154, 768, 1280),
    ] {
        let (x, weight) = (random(1, &[rows, inputs])?, random(2, &[outputs, inputs])?);
        let flop = (2 * rows * inputs * outputs) as f64 * 1e-9;
        let speed = |dtype: DType| -> Result<f64> {
            let weight = Param::constant(&weight.to_dtype(dtype)?)?;
            Ok(flop / shortest(15, || maps::linear(&x, &weight, None, None).map(drop))?)
        };
        let [f32, f16, bf16] = [speed(DType::F32)?, speed(DType::F16)?, speed(DType::BF16)?];
        println!("linear {rows} x {inputs} -> {outputs}: f32 {f32:.0} GFLOP/s, f16 {f16:.0}, bf16 {bf16:.0}");
    }
    Ok(())
}

/// Operations on maps whose time is that of reading and writing memory: GB/s of what they must read and write at least
/// once, inputs and results.
fn cheap_operations() -> Result<()> {
    gradients()?;
    for shape in [[64, 32, 32, 32], [1, 128, 512, 512]] {
        let bytes = 4.0 * shape.iter().product::<usize>() as f64;
        let [_, channels, height, width] = shape;
        let name = format!("{shape:?}");
        let planes = random(1, &shape)?;
        let x = Maps::from_nchw(&planes)?;
        let (weight, bias) = (random(2, &[channels])?, random(3, &[channels])?);
        let time = random(4, &[shape[0], 2 * channels])?;
        let print = |operation: &str, passes: f64, f: &dyn Fn() -> Result<()>| -> Result<()> {
            let seconds = shortest(9, f)?;
            println!("{name} {operation:28} {:6.2} ms {:6.1} GB/s", 1e3 * seconds, passes * bytes / seconds * 1e-9);
            Ok(())
        };
        // Large results last: beside them the allocator keeps fewer of the others' blocks.
        print("copy", 2.0, &|| x.to_tokens()?.copy().map(drop))?;
        print("group norm", 2.0, &|| maps::group_norm(&x, 32, &weight, &bias, 1e-5, false).map(drop))?;
        print("group norm, silu", 2.0, &|| maps::group_norm(&x, 32, &weight, &bias, 1e-5, true).map(drop))?;
        print("scale and shift, silu", 2.0, &|| maps::scale_shift(&x, &time, true).map(drop))?;
        print("silu", 2.0, &|| x.silu().map(drop))?;
        print("scale", 2.0, &|| x.scale(0.5).map(drop))?;
        print("add", 3.0, &|| x.add(&x).map(drop))?;
        print("channels last", 2.0, &|| Maps::from_nchw(&planes).map(drop))?;
        print("channels first", 2.0, &|| x.to_nchw().map(drop))?;
        print("avg pool 2x", 1.25, &|| x.avg_pool2x().map(drop))?;
        print("concat", 4.0, &|| x.concat_channels(&x).map(drop))?;
        print("upsample 2x", 5.0, &|| x.upsample_nearest((2 * height, 2 * width)).map(drop))?;
    }
    Ok(())
}

/// The backward passes alone: a graph is built once and its gradients are asked for again and again.
fn gradients() -> Result<()> {
    let print = |name: &str, bytes: usize, result: Tensor| -> Result<()> {
        // The gradient of a product arrives in memory of its own; the time of the product's own is subtracted.
        let grad = random(9, result.dims())?;
        let alone = Var::from_tensor(&result.detach().copy()?)?;
        let loss = |x: &Tensor| x.mul(&grad)?.sum_all();
        let (with, without) = (loss(&result)?, loss(&alone)?);
        let seconds = shortest(9, || with.backward().map(drop))? - shortest(9, || without.backward().map(drop))?;
        println!("{name:50} {:6.2} ms {:6.1} GB/s", 1e3 * seconds, bytes as f64 / seconds * 1e-9);
        Ok(())
    };
    let x = Var::from_tensor(&random(1, &[64, 32 * 32, 32])?)?;
    let x = Maps::from_tokens(&x, (32, 32))?;
    let (weight, bias) = (Var::from_tensor(&random(2, &[32])?)?, Var::from_tensor(&random(3, &[32])?)?);
    let bytes = 12 * x.to_tokens()?.elem_count();
    print("group norm, silu, gradient", bytes, maps::group_norm(&x, 8, &weight, &bias, 1e-5, true)?.to_tokens()?)?;
    let x = Var::from_tensor(&random(1, &[2 * 4096, 2560])?)?;
    let forward = shortest(9, || maps::geglu(&x.as_detached_tensor()).map(drop))?;
    let bytes = 4 * x.elem_count();
    println!("geglu {:51.2} ms {:6.1} GB/s", 1e3 * forward, 1.5 * bytes as f64 / forward * 1e-9);
    print("geglu, gradient", bytes / 2 * 5, maps::geglu(&x)?)?;
    let x = Var::from_tensor(&random(1, &[2 * 4096, 320])?)?;
    let (weight, bias) = (random(2, &[320])?, random(3, &[320])?);
    let norm = |x: &Tensor| maps::layer_norm(x, Some(&weight), Some(&bias), 1e-5);
    let forward = shortest(9, || norm(&x.as_detached_tensor()).map(drop))?;
    let bytes = 4 * x.elem_count();
    println!("layer norm {:46.2} ms {:6.1} GB/s", 1e3 * forward, 2.0 * bytes as f64 / forward * 1e-9);
    print("layer norm, gradient", 3 * bytes, norm(&x)?)
}
