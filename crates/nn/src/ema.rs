//! An exponential moving average of a network's weights: what diffusion models sample with.

use std::path::Path;

use candle_core::{DType, Device, Tensor, Var};
use rayon::prelude::*;

use crate::error::{Error, Result};
use crate::optim::{joined, split};
use crate::store::{self, Stored};
use crate::weights::Weights;

/// The average of each variable, on the host.
#[derive(Debug)]
pub struct Ema {
    decay: f64,
    updates: u64,
    averages: Vec<(String, Var, Vec<f32>)>,
}

impl Ema {
    /// Starts from the weights as they are. All layers must exist: later variables are not averaged.
    ///
    /// # Errors
    /// [`Error::Tensor`] where a device's memory cannot be read.
    pub fn new(weights: &Weights, decay: f64) -> Result<Self> {
        let average = |(name, var): (String, Var)| values(&var).map(|values| (name, var, values));
        Ok(Self { decay, updates: 0, averages: weights.vars().into_iter().map(average).collect::<Result<_>>()? })
    }

    /// Moves the averages towards the weights, after each optimiser step. The decay starts low and rises to the one
    /// asked for: `min(decay, (1 + t) / (10 + t))` at update `t`.
    ///
    /// # Errors
    /// [`Error::Tensor`] where a device's memory cannot be read.
    pub fn update(&mut self) -> Result<()> {
        self.updates += 1;
        let t = self.updates as f64;
        let decay = self.decay.min((1.0 + t) / (10.0 + t)) as f32;
        self.averages.par_iter_mut().try_for_each(|(_, var, average)| {
            for (average, value) in average.iter_mut().zip(values(var)?) {
                *average += (1.0 - decay) * (value - *average);
            }
            Ok(())
        })
    }

    /// Sets the variables of `weights`, which may be another instance of the same network, to the averages.
    ///
    /// # Errors
    /// [`Error::Config`] where `weights` lacks one, [`Error::Shape`] where one has another shape.
    pub fn copy_to(&self, weights: &Weights) -> Result<()> {
        let targets = weights.vars();
        for (name, var, average) in &self.averages {
            let Ok(i) = targets.binary_search_by(|(other, _)| other.cmp(name)) else {
                return Err(Error::Config(format!("the averaged weight `{name}` is not part of this network")));
            };
            let target = &targets[i].1;
            if target.shape() != var.shape() {
                let (expected, found) = (var.dims().to_vec(), target.dims().to_vec());
                return Err(Error::Shape { name: name.clone(), expected, found });
            }
            set(target, average)?;
        }
        Ok(())
    }

    /// Exchanges the averages and the weights they were made from: swap, evaluate, swap back.
    ///
    /// # Errors
    /// [`Error::Tensor`] where a device's memory cannot be read or written.
    pub fn swap(&mut self) -> Result<()> {
        for (_, var, average) in &mut self.averages {
            let live = values(var)?;
            set(var, average)?;
            *average = live;
        }
        Ok(())
    }

    /// Writes the averages, under the weights' names after `ema.`, and the count of updates to a safetensors file.
    ///
    /// # Errors
    /// [`Error::File`] where the file cannot be written.
    pub fn save(&self, path: &Path) -> Result<()> {
        let mut tensors = vec![Stored { name: "updates".into(), shape: vec![2], values: split(self.updates).into() }];
        for (name, var, average) in &self.averages {
            let (name, shape) = (format!("ema.{name}"), var.dims().to_vec());
            tensors.push(Stored { name, shape, values: average.clone() });
        }
        store::write(path, tensors)
    }

    /// Reads what [`save`](Self::save) wrote.
    ///
    /// # Errors
    /// As [`Weights::load`]; on an error the averages are as before.
    pub fn load(&mut self, path: &Path) -> Result<()> {
        let mut expected = vec![("updates".to_owned(), vec![2])];
        expected.extend(self.averages.iter().map(|(name, var, _)| (format!("ema.{name}"), var.dims().to_vec())));
        let mut tensors = store::read(path, &expected)?.into_iter();
        self.updates = joined(&tensors.next().unwrap_or_default());
        for ((_, _, average), values) in self.averages.iter_mut().zip(tensors) {
            *average = values;
        }
        Ok(())
    }
}

fn values(var: &Var) -> Result<Vec<f32>> {
    Ok(var.to_device(&Device::Cpu)?.to_dtype(DType::F32)?.flatten_all()?.to_vec1()?)
}

fn set(var: &Var, values: &[f32]) -> Result<()> {
    let host = Tensor::from_slice(values, var.shape(), &Device::Cpu)?;
    Ok(var.set(&host.to_device(var.device())?.to_dtype(var.dtype())?)?)
}
