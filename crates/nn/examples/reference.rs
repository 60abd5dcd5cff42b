//! This crate beside PyTorch and diffusers, on the same weights and inputs: speed and agreement.
//!
//! ```text
//! cargo run --release -p evenset-nn --example reference -- time DIR WHAT [--dtype float32|float16|bfloat16] [--runs 5]
//! cargo run --release -p evenset-nn --example reference -- check DIR WHAT [--dtype float32|float16|bfloat16]
//! ```
//!
//! `DIR` is a folder with models in diffusers' layout and an `io.safetensors` beside them that holds inputs and PyTorch's
//! outputs: `sd15/{unet,vae,io.safetensors}` and `pixel/{unet,io.safetensors}`. `WHAT` is `sd15-unet` (64x64 latents,
//! batch 2), `sd15-vae` (decoding to 512x512), `pixel` (64 images of 3x32x32) or `pixel-train` (forward, backward and a
//! step of Adam); the timestep is 500 everywhere. `time` prints one JSON line, with the median of the runs; `check` the
//! relative L2 error against PyTorch, or the losses of three steps beside PyTorch's. `THREADS` sets the number of
//! threads, 2 without it.
#![allow(clippy::print_stdout)]

use std::collections::HashMap;
use std::error::Error;
use std::path::{Path, PathBuf};
use std::time::Instant;

use candle_core::{DType, Device, Tensor};
use evenset_nn::models::{AutoencoderKL, Conditions, LoadOptions, UNet2DConditionModel, UNet2DModel};
use evenset_nn::{AdamW, AdamWConfig, Recycler};

type Result<T, E = Box<dyn Error>> = std::result::Result<T, E>;

#[global_allocator]
static MEMORY: Recycler = Recycler::new();

const CPU: &Device = &Device::Cpu;
const TIMESTEP: f32 = 500.0;
const LEARNING_RATE: f64 = 1e-3;

/// A call to measure, which returns what it computed.
type Call = Box<dyn FnMut() -> Result<Tensor>>;

struct Arguments {
    verb: String,
    dir: PathBuf,
    what: String,
    dtype: DType,
    dtype_name: String,
    runs: usize,
}

fn main() -> Result<()> {
    // SAFETY: nothing has run before this line.
    unsafe { evenset_nn::stop_idle_spinning() };
    let threads = std::env::var("THREADS").ok().and_then(|threads| threads.parse().ok()).unwrap_or(2);
    rayon::ThreadPoolBuilder::new().num_threads(threads).build_global()?;
    let arguments = arguments()?;
    match arguments.verb.as_str() {
        "time" => time(&arguments),
        "check" => check(&arguments),
        other => Err(format!("`{other}` is neither `time` nor `check`").into()),
    }
}

fn arguments() -> Result<Arguments> {
    let mut words = std::env::args().skip(1);
    let mut positional = Vec::new();
    let (mut dtype_name, mut runs) = ("float32".to_owned(), 5);
    while let Some(word) = words.next() {
        match word.as_str() {
            "--dtype" => dtype_name = words.next().ok_or("--dtype needs a value")?,
            "--runs" => runs = words.next().ok_or("--runs needs a value")?.parse()?,
            _ => positional.push(word),
        }
    }
    let dtype = match dtype_name.as_str() {
        "float32" => DType::F32,
        "float16" => DType::F16,
        "bfloat16" => DType::BF16,
        other => return Err(format!("--dtype {other} is none of float32, float16 and bfloat16").into()),
    };
    let [verb, dir, what] = <[String; 3]>::try_from(positional)
        .map_err(|_| "usage: reference time|check DIR WHAT [--dtype float32|float16|bfloat16] [--runs N]")?;
    Ok(Arguments { verb, dir: dir.into(), what, dtype, dtype_name, runs })
}

/// The call, and what PyTorch computed.
fn job(dir: &Path, what: &str, dtype: DType) -> Result<(Call, Tensor)> {
    let folder = dir.join(what.split('-').next().unwrap_or_default());
    let mut io = candle_core::safetensors::load(folder.join("io.safetensors"), CPU)?;
    let mut take = |name: &str| take(&mut io, name);
    let options = LoadOptions::default().with_dtype(dtype);
    match what {
        "sd15-unet" => {
            let unet = UNet2DConditionModel::from_pretrained(&folder.join("unet"), CPU, options)?;
            let (latents, text, expected) = (take("latents")?, take("text")?, take("unet")?);
            let timesteps = timesteps(&latents)?;
            Ok((Box::new(move || Ok(unet.forward(&latents, &timesteps, &Conditions::text(&text))?)), expected))
        }
        "sd15-vae" => {
            let vae = AutoencoderKL::from_pretrained(&folder.join("vae"), CPU, options)?;
            let (z, expected) = (take("z")?, take("image")?);
            Ok((Box::new(move || Ok(vae.decode(&z)?)), expected))
        }
        "pixel" => {
            let unet = UNet2DModel::from_pretrained(&folder.join("unet"), CPU, options)?;
            let (x, expected) = (take("x")?, take("out")?);
            let timesteps = timesteps(&x)?;
            Ok((Box::new(move || Ok(unet.forward(&x, &timesteps, None)?)), expected))
        }
        "pixel-train" => {
            let options = LoadOptions { dtype, ..LoadOptions::trainable() };
            let unet = UNet2DModel::from_pretrained(&folder.join("unet"), CPU, options)?;
            let (x, target, expected) = (take("x")?, take("target")?, take("losses")?);
            let timesteps = timesteps(&x)?;
            let config = AdamWConfig { lr: LEARNING_RATE, weight_decay: 0.0, ..AdamWConfig::default() };
            let mut adam = AdamW::new(unet.weights().vars(), config);
            let step = move || {
                let loss = unet.forward(&x, &timesteps, None)?.sub(&target)?.sqr()?.mean_all()?;
                adam.step(&loss.backward()?, LEARNING_RATE, None)?;
                Ok(loss.detach())
            };
            Ok((Box::new(step), expected))
        }
        other => Err(format!("`{other}` is none of sd15-unet, sd15-vae, pixel and pixel-train").into()),
    }
}

fn take(io: &mut HashMap<String, Tensor>, name: &str) -> Result<Tensor> {
    io.remove(name).ok_or_else(|| format!("io.safetensors holds no `{name}`").into())
}

fn timesteps(images: &Tensor) -> Result<Tensor> {
    Ok(Tensor::full(TIMESTEP, images.dim(0)?, CPU)?)
}

/// Billions of operations in products and convolutions, as PyTorch's `FlopCounterMode` counts those of these models.
fn gflop(what: &str) -> f64 {
    match what {
        "sd15-unet" => 1606.1,
        "sd15-vae" => 2514.7,
        "pixel" => 46.9,
        _ => 140.6,
    }
}

fn time(arguments: &Arguments) -> Result<()> {
    let Arguments { dir, what, dtype, dtype_name, runs, .. } = arguments;
    let (mut call, _) = job(dir, what, *dtype)?;
    call()?;
    let mut seconds = Vec::new();
    for _ in 0..(*runs).max(1) {
        let start = Instant::now();
        call()?;
        seconds.push(start.elapsed().as_secs_f64());
    }
    let mut sorted = seconds.clone();
    sorted.sort_by(f64::total_cmp);
    let half = sorted.len() / 2;
    let median = if sorted.len() % 2 == 1 { sorted[half] } else { (sorted[half - 1] + sorted[half]) / 2.0 };
    let rounded = |value: f64, places: i32| (value * 10f64.powi(places)).round() / 10f64.powi(places);
    let line = serde_json::json!({
        "what": what,
        "dtype": dtype_name,
        "seconds": rounded(median, 4),
        "gflop": gflop(what),
        "gflops": rounded(gflop(what) / median, 1),
        "runs": seconds.iter().map(|seconds| rounded(*seconds, 4)).collect::<Vec<_>>(),
        "peak_mb": peak_mb(),
    });
    println!("{line}");
    Ok(())
}

/// The most memory that this process had, where the system says so.
fn peak_mb() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    let kilobytes: u64 = line.split_whitespace().next()?.parse().ok()?;
    Some(kilobytes / 1024)
}

fn check(arguments: &Arguments) -> Result<()> {
    let Arguments { dir, what, dtype, dtype_name, .. } = arguments;
    let (mut call, expected) = job(dir, what, *dtype)?;
    if what == "pixel-train" {
        let expected: Vec<f32> = expected.to_vec1()?;
        let losses = expected.iter().map(|_| Ok(call()?.to_scalar()?)).collect::<Result<Vec<f32>>>()?;
        let worst = losses.iter().zip(&expected).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        let line = serde_json::json!({
            "what": what, "dtype": dtype_name, "losses": losses, "torch": expected, "largest_difference": worst,
        });
        println!("{line}");
        return Ok(());
    }
    let found = call()?;
    let norm = |x: &Tensor| -> Result<f64> { Ok(x.to_dtype(DType::F64)?.sqr()?.sum_all()?.to_scalar::<f64>()?.sqrt()) };
    let error = norm(&found.sub(&expected)?)? / norm(&expected)?;
    println!("{}", serde_json::json!({ "what": what, "dtype": dtype_name, "relative_l2": error }));
    Ok(())
}
