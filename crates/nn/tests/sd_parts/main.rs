//! What Stable Diffusion's networks are given beside their weights, against diffusers, peft and transformers:
//! `tests/golden/sd-parts` has the files, and `make_sd_parts.py` beside it made them.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout)]

mod assemble;
mod control;
mod deep;
mod lora;
mod single;
mod tiles;
mod words;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use candle_core::{DType, Device, Tensor};
use evenset_nn::models::clip::{ClipTextEncoder, Tokens};
use evenset_nn::models::{Conditions, UNet2DConditionModel};
use evenset_nn::no_grad;

const CPU: &Device = &Device::Cpu;
/// Relative L2 of every result, in `f32`.
const TOLERANCE: f64 = 1e-4;

/// Tensors by name.
type Tensors = BTreeMap<String, Tensor>;

fn golden(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden").join(name)
}

fn parts(name: &str) -> PathBuf {
    golden("sd-parts").join(name)
}

fn tensors(path: &Path) -> Tensors {
    candle_core::safetensors::load(path, CPU).unwrap().into_iter().collect()
}

fn values(x: &Tensor) -> Vec<f32> {
    x.to_dtype(DType::F32).unwrap().flatten_all().unwrap().to_vec1().unwrap()
}

fn bits(x: &Tensor) -> Vec<u32> {
    values(x).into_iter().map(f32::to_bits).collect()
}

fn distance(found: &Tensor, expected: &Tensor) -> f64 {
    assert_eq!(found.dims(), expected.dims());
    let square = |x: f32| f64::from(x).powi(2);
    let (found, expected) = (values(found), values(expected));
    let difference: f64 = found.iter().zip(&expected).map(|(a, b)| square(a - b)).sum();
    (difference / expected.iter().map(|x| square(*x)).sum::<f64>()).sqrt()
}

fn assert_near(name: &str, found: &Tensor, expected: &Tensor) {
    let error = distance(found, expected);
    println!("{name}: {error:.1e}");
    assert!(error <= TOLERANCE, "{name}: {error:.1e}");
}

/// The conditions in a golden folder of a UNet.
fn conditions(io: &Tensors) -> Conditions<'_> {
    Conditions {
        text: io.get("text"),
        pooled_text: io.get("pooled_text"),
        time_ids: io.get("time_ids"),
        ..Conditions::default()
    }
}

fn denoised(unet: &UNet2DConditionModel, io: &Tensors) -> Tensor {
    no_grad(|| unet.forward(&io["x"], &io["timesteps"], &conditions(io))).unwrap()
}

fn ids(folder: &str) -> Tokens {
    let io = tensors(&golden(folder).join("io.safetensors"));
    Tokens::unmasked(io["ids"].to_dtype(DType::U32).unwrap().to_vec2().unwrap())
}

fn encoded(encoder: &ClipTextEncoder, tokens: &Tokens) -> Tensor {
    no_grad(|| encoder.model().encode(tokens, 0)).unwrap()
}
