//! Schedulers against what diffusers computed (`tests/golden/make_schedulers.py`), their properties, and what they refuse.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout)]

mod agreement;
mod properties;
mod refusals;

use std::path::Path;

use candle_core::{DType, Device, Tensor};
use evenset_diffusion::scheduler::{Scheduler, SchedulerJson, SchedulerKind, Walk};
use evenset_diffusion::{DiffusionError, Result};

/// What the tests call the files that they make up.
const FILE: &str = "model/scheduler/scheduler_config.json";

/// Stable Diffusion's table of noise levels.
const STABLE: &str = r#""beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear", "steps_offset": 1"#;

/// A scheduler of `class` with Stable Diffusion's table and these settings, each `"key": value`.
fn try_scheduler(class: &str, settings: &[&str]) -> Result<Scheduler> {
    let mut lines = vec![format!(r#""_class_name": "{class}""#), STABLE.to_owned()];
    lines.extend(settings.iter().map(|setting| (*setting).to_owned()));
    SchedulerJson::parse(&format!("{{{}}}", lines.join(", ")), Path::new(FILE))?.scheduler(None)
}

fn scheduler(class: &str, settings: &[&str]) -> Scheduler {
    try_scheduler(class, settings).unwrap()
}

/// The formula that stands in for a model.
fn model(x: &Tensor, timestep: f64) -> Result<Tensor> {
    let channels = x.dim(1)?;
    let waves: Vec<f32> = (0..channels).map(|c| (0.3 * (timestep / 100.0 + c as f64).sin()) as f32).collect();
    let waves = Tensor::from_vec(waves, (1, channels, 1, 1), x.device())?;
    Ok((x.tanh()? * 0.7)?.broadcast_add(&waves)?)
}

/// Standard normal values that depend on the seed alone.
fn normal(seed: u64, images: usize) -> Tensor {
    let values: Vec<f32> =
        (0..images as u64).flat_map(|image| evenset_core::Seed(1000 * seed + image).normal(4 * 6 * 5)).collect();
    Tensor::from_vec(values, (images, 4, 6, 5), &Device::Cpu).unwrap()
}

/// The last image of a walk from noise with the formula; draw `i` is `draw(i)`.
fn walked(walk: &Walk<'_>, x: &Tensor, draw: impl Fn(usize) -> Tensor) -> Result<Tensor> {
    walk.run(x, &mut |x, t| model(x, t), &mut |i| Ok(draw(i)), &mut |_, x| Ok(x))
}

fn values(tensor: &Tensor) -> Vec<f32> {
    tensor.to_dtype(DType::F32).unwrap().flatten_all().unwrap().to_vec1().unwrap()
}

/// The names of all solvers, as a job writes them.
fn kinds() -> Vec<SchedulerKind> {
    SchedulerKind::ALL.to_vec()
}

fn message(result: Result<impl Sized>) -> String {
    let error: DiffusionError = result.err().expect("it was accepted");
    error.to_string()
}
