//! AdamW (Loshchilov and Hutter 2019) that updates weights in place, and saves and loads its state.

use std::cell::RefCell;
use std::path::Path;

use candle_core::backprop::GradStore;
use candle_core::{CpuStorage, DType, InplaceOp1, Layout, Storage, Tensor, Var, bail};
use rayon::prelude::*;

use crate::error::{Error, Result};
use crate::store::{self, Stored};

/// Numbers that one thread takes at a time. Partial sums of the norm are formed over these, whatever the thread count.
const CHUNK: usize = 1 << 14;

/// The settings of [`AdamW`]; the defaults are PyTorch's.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct AdamWConfig {
    /// The learning rate for callers that have no schedule of their own.
    pub lr: f64,
    /// Decay of the mean of the gradient.
    pub beta1: f64,
    /// Decay of the mean of its square.
    pub beta2: f64,
    /// Added to the root of the mean square.
    pub eps: f64,
    /// Share of a weight that is taken off at each step, times the learning rate.
    pub weight_decay: f64,
}

impl Default for AdamWConfig {
    fn default() -> Self {
        Self { lr: 1e-3, beta1: 0.9, beta2: 0.999, eps: 1e-8, weight_decay: 1e-2 }
    }
}

/// One variable and the running means of its gradient and of the gradient's square.
#[derive(Debug)]
struct Slot {
    name: String,
    var: Var,
    mean: Vec<f32>,
    square: Vec<f32>,
}

/// The optimiser: its state lives on the host.
#[derive(Debug)]
pub struct AdamW {
    config: AdamWConfig,
    slots: Vec<Slot>,
    steps: u64,
}

impl AdamW {
    /// An optimiser of `vars` that has made no step.
    pub fn new(vars: Vec<(String, Var)>, config: AdamWConfig) -> Self {
        let slot = |(name, var): (String, Var)| {
            let n = var.elem_count();
            Slot { name, var, mean: vec![0.0; n], square: vec![0.0; n] }
        };
        Self { config, slots: vars.into_iter().map(slot).collect(), steps: 0 }
    }

    /// The settings.
    pub fn config(&self) -> &AdamWConfig {
        &self.config
    }

    /// How many steps were made.
    pub fn steps(&self) -> u64 {
        self.steps
    }

    /// Moves every variable that has a gradient, with learning rate `lr`, and returns the gradient's global norm (before
    /// clipping). With `clip_norm`, a longer gradient is scaled down to that norm.
    ///
    /// # Errors
    /// [`Error::NonFiniteGradient`]: nothing was changed; the caller may go on with the next batch.
    pub fn step(&mut self, grads: &GradStore, lr: f64, clip_norm: Option<f64>) -> Result<f64> {
        let gradients = self.slots.iter().map(|slot| grads.get(&slot.var).map(host).transpose());
        let gradients: Vec<Option<Tensor>> = gradients.collect::<Result<_>>()?;
        let mut sum = 0.0;
        for gradient in gradients.iter().flatten() {
            sum += with_slice(gradient, sum_of_squares)?;
        }
        let norm = sum.sqrt();
        if !norm.is_finite() {
            return Err(Error::NonFiniteGradient { norm });
        }
        self.steps += 1;
        let AdamWConfig { beta1, beta2, eps, weight_decay, .. } = self.config;
        let steps = self.steps.min(1 << 30) as i32;
        let update = Update {
            scale: clip_norm.map_or(1.0, |limit| (limit / norm.max(1e-12)).min(1.0)) as f32,
            keep: (1.0 - lr * weight_decay) as f32,
            rate: (lr / (1.0 - beta1.powi(steps))) as f32,
            root: (1.0 / (1.0 - beta2.powi(steps)).sqrt()) as f32,
            beta1: beta1 as f32,
            beta2: beta2 as f32,
            eps: eps as f32,
        };
        for (slot, gradient) in self.slots.iter_mut().zip(&gradients) {
            if let Some(gradient) = gradient {
                with_slice(gradient, |gradient| update.apply(slot, gradient))??;
            }
        }
        Ok(norm)
    }

    /// Writes the state to a safetensors file: `exp_avg.NAME`, `exp_avg_sq.NAME` and `step`.
    ///
    /// # Errors
    /// [`Error::File`] where the file cannot be written.
    pub fn save(&self, path: &Path) -> Result<()> {
        let mut tensors = vec![Stored { name: "step".into(), shape: vec![2], values: split(self.steps).into() }];
        for slot in &self.slots {
            let shape = slot.var.dims().to_vec();
            let (name, mean, square) = (&slot.name, slot.mean.clone(), slot.square.clone());
            tensors.push(Stored { name: format!("exp_avg.{name}"), shape: shape.clone(), values: mean });
            tensors.push(Stored { name: format!("exp_avg_sq.{name}"), shape, values: square });
        }
        store::write(path, tensors)
    }

    /// Reads what [`save`](Self::save) wrote for the same variables.
    ///
    /// # Errors
    /// As [`Weights::load`](crate::Weights::load); on an error the state is as before.
    pub fn load(&mut self, path: &Path) -> Result<()> {
        let mut expected = vec![("step".to_owned(), vec![2])];
        for slot in &self.slots {
            let shape = slot.var.dims();
            expected.push((format!("exp_avg.{}", slot.name), shape.to_vec()));
            expected.push((format!("exp_avg_sq.{}", slot.name), shape.to_vec()));
        }
        let mut tensors = store::read(path, &expected)?.into_iter();
        self.steps = joined(&tensors.next().unwrap_or_default());
        for slot in &mut self.slots {
            if let (Some(mean), Some(square)) = (tensors.next(), tensors.next()) {
                (slot.mean, slot.square) = (mean, square);
            }
        }
        Ok(())
    }
}

/// A count as two `f32` that are exact up to 2^44.
pub(crate) fn split(count: u64) -> [f32; 2] {
    [(count >> 20) as f32, (count & 0xf_ffff) as f32]
}

/// The count that [`split`] took apart.
pub(crate) fn joined(parts: &[f32]) -> u64 {
    match parts {
        [high, low] => ((high.max(0.0) as u64) << 20) + low.max(0.0) as u64,
        _ => 0,
    }
}

/// The tensor on the host, contiguous, in `f32`.
fn host(tensor: &Tensor) -> Result<Tensor> {
    Ok(tensor.to_device(&candle_core::Device::Cpu)?.to_dtype(DType::F32)?.contiguous()?)
}

/// Calls `f` with the values of a tensor from [`host`].
fn with_slice<T>(tensor: &Tensor, f: impl FnOnce(&[f32]) -> T) -> candle_core::Result<T> {
    let (storage, layout) = tensor.storage_and_layout();
    match (&*storage, layout.contiguous_offsets()) {
        (Storage::Cpu(storage), Some((start, end))) => Ok(f(&storage.as_slice()?[start..end])),
        _ => bail!("a gradient is not contiguous on the host"),
    }
}

fn sum_of_squares(values: &[f32]) -> f64 {
    let chunk = |chunk: &[f32]| chunk.iter().map(|x| f64::from(*x) * f64::from(*x)).sum::<f64>();
    let sums: Vec<f64> = values.par_chunks(CHUNK).map(chunk).collect();
    sums.iter().sum()
}

/// The numbers of one step.
#[derive(Clone, Copy)]
struct Update {
    scale: f32,
    keep: f32,
    rate: f32,
    root: f32,
    beta1: f32,
    beta2: f32,
    eps: f32,
}

impl Update {
    fn apply(&self, slot: &mut Slot, gradient: &[f32]) -> candle_core::Result<()> {
        let Slot { var, mean, square, .. } = slot;
        if var.device().is_cpu() && var.dtype() == DType::F32 {
            let op = InPlace { update: *self, gradient, moments: RefCell::new((mean, square)) };
            return var.inplace_op1(&op);
        }
        let mut values: Vec<f32> =
            var.to_device(&candle_core::Device::Cpu)?.to_dtype(DType::F32)?.flatten_all()?.to_vec1()?;
        self.run(&mut values, gradient, mean, square);
        let moved = Tensor::from_vec(values, var.shape(), &candle_core::Device::Cpu)?;
        var.set(&moved.to_device(var.device())?.to_dtype(var.dtype())?)
    }

    fn run(&self, values: &mut [f32], gradient: &[f32], mean: &mut [f32], square: &mut [f32]) {
        let Self { scale, keep, rate, root, beta1, beta2, eps } = *self;
        values
            .par_chunks_mut(CHUNK)
            .zip(gradient.par_chunks(CHUNK))
            .zip(mean.par_chunks_mut(CHUNK).zip(square.par_chunks_mut(CHUNK)))
            .for_each(|((values, gradient), (mean, square))| {
                for (((x, g), m), s) in values.iter_mut().zip(gradient).zip(mean).zip(square) {
                    let g = scale * g;
                    *m = beta1 * *m + (1.0 - beta1) * g;
                    *s = beta2 * *s + (1.0 - beta2) * g * g;
                    *x = keep * *x - rate * *m / (root * s.sqrt() + eps);
                }
            });
    }
}

/// [`Update::run`] on a variable's own storage.
struct InPlace<'a> {
    update: Update,
    gradient: &'a [f32],
    moments: RefCell<(&'a mut Vec<f32>, &'a mut Vec<f32>)>,
}

impl InplaceOp1 for InPlace<'_> {
    fn name(&self) -> &'static str {
        "adamw"
    }

    fn cpu_fwd(&self, storage: &mut CpuStorage, layout: &Layout) -> candle_core::Result<()> {
        let mut moments = self.moments.borrow_mut();
        let (mean, square) = &mut *moments;
        match (storage, layout.contiguous_offsets()) {
            (CpuStorage::F32(values), Some((start, end))) => {
                self.update.run(&mut values[start..end], self.gradient, mean, square);
                Ok(())
            }
            _ => bail!("a variable must be contiguous to be updated in place"),
        }
    }
}
