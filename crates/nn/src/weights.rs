//! A network's weights: named variables, seeded initial values, files.
//!
//! Every variable's initial values come from `hash(seed, full name)` on the host, so they depend neither on the order
//! in which layers are built nor on the device.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use candle_core::{DType, Device, Tensor, Var};
use evenset_core::Seed;
use rand::RngExt;

use crate::error::{Error, Result};
use crate::files::WeightFiles;
use crate::param::Param;
use crate::store::{self, Stored};

/// How a variable starts.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Init {
    /// All zero.
    Zeros,
    /// All one.
    Ones,
    /// All the same value.
    Const(f32),
    /// Normal with mean zero.
    Normal {
        /// The standard deviation.
        std: f32,
    },
    /// Uniform in `[-bound, bound)`.
    Uniform {
        /// The largest magnitude.
        bound: f32,
    },
    /// Uniform with the bound `1 / sqrt(fan_in)`: what PyTorch gives the weights and biases of its linear layers and
    /// convolutions (Kaiming uniform with `a = sqrt(5)`).
    KaimingUniform {
        /// How many inputs reach one output: input channels times the kernel's area.
        fan_in: usize,
    },
}

impl Init {
    fn values(self, seed: Seed, n: usize) -> Vec<f32> {
        let uniform = |bound: f32| {
            let mut rng = seed.rng();
            (0..n).map(|_| bound * (2.0 * rng.random::<f32>() - 1.0)).collect()
        };
        match self {
            Self::Zeros => vec![0.0; n],
            Self::Ones => vec![1.0; n],
            Self::Const(value) => vec![value; n],
            Self::Normal { std } => seed.normal(n).into_iter().map(|x| std * x).collect(),
            Self::Uniform { bound } => uniform(bound),
            Self::KaimingUniform { fan_in } => uniform(1.0 / (fan_in.max(1) as f32).sqrt()),
        }
    }
}

/// The named variables of one network. Clones share them.
#[derive(Clone, Debug)]
pub struct Weights {
    source: Arc<Source>,
    device: Device,
    entries: Arc<Mutex<BTreeMap<String, Entry>>>,
}

/// Where the values of weights come from.
#[derive(Debug)]
enum Source {
    /// Every variable from `hash(seed, name)`.
    Seed(Seed),
    /// Files; as variables where `trainable`, otherwise as constants that only the layers hold.
    Files {
        files: Box<WeightFiles>,
        /// How the weights of convolutions and linear maps are kept.
        dtype: DType,
        trainable: bool,
    },
}

/// A weight that is held for saving and, where `trained`, for an optimiser.
#[derive(Debug)]
struct Entry {
    var: Var,
    trained: bool,
}

impl Weights {
    /// No weights yet; layers create theirs through a [`Scope`].
    pub fn new(seed: Seed, device: &Device) -> Self {
        Self::from_source(Source::Seed(seed), device)
    }

    /// The weights in `files`: layers that are built through a [`Scope`] find theirs there instead of starting anew.
    pub(crate) fn from_files(files: WeightFiles, device: &Device, dtype: DType, trainable: bool) -> Self {
        Self::from_source(Source::Files { files: Box::new(files), dtype, trainable }, device)
    }

    fn from_source(source: Source, device: &Device) -> Self {
        Self { source: Arc::new(source), device: device.clone(), entries: Arc::default() }
    }

    /// An error where files hold a tensor that no layer has asked for.
    pub(crate) fn finish(&self) -> Result<()> {
        match &*self.source {
            Source::Seed(_) => Ok(()),
            Source::Files { files, .. } => files.finish(),
        }
    }

    /// The number type of activations, biases and normalisations: `f32` on the CPU, where few operations know a shorter
    /// one; elsewhere that of the weights.
    pub(crate) fn compute_dtype(&self) -> DType {
        match &*self.source {
            Source::Files { dtype, .. } if !self.device.is_cpu() => *dtype,
            _ => DType::F32,
        }
    }

    /// The place in which weights have names that start with `prefix` and a dot; `""` is the root.
    pub fn scope(&self, prefix: &str) -> Scope {
        Scope { weights: self.clone(), prefix: prefix.to_owned() }
    }

    /// Where the weights are.
    pub fn device(&self) -> &Device {
        &self.device
    }

    /// Every variable that training moves, sorted by name.
    pub fn vars(&self) -> Vec<(String, Var)> {
        let entries = self.lock();
        entries
            .iter()
            .filter(|(_, entry)| entry.trained)
            .map(|(name, entry)| (name.clone(), entry.var.clone()))
            .collect()
    }

    /// Every weight's tensor (sharing its storage, without gradient), sorted by name.
    pub fn named_tensors(&self) -> Vec<(String, Tensor)> {
        self.lock().iter().map(|(name, entry)| (name.clone(), entry.var.as_detached_tensor())).collect()
    }

    /// How many numbers the weights hold together.
    pub fn count(&self) -> usize {
        self.lock().values().map(|entry| entry.var.elem_count()).sum()
    }

    /// Writes all weights to a safetensors file, atomically; the same weights give the same bytes.
    ///
    /// # Errors
    /// [`Error::File`] where the file cannot be written, [`Error::Config`] for the constants of a network that was read to
    /// be run, not trained.
    pub fn save(&self, path: &Path) -> Result<()> {
        if let Source::Files { trainable: false, .. } = &*self.source {
            return Err(Error::Config(
                "constants are not saved: their files hold them, or load them as variables".into(),
            ));
        }
        let tensors = self.named_tensors().into_iter().map(|(name, tensor)| stored(name, &tensor));
        store::write(path, tensors.collect::<Result<_>>()?)
    }

    /// Sets all weights from a file that [`save`](Self::save) wrote. Layers that were built before see the values.
    ///
    /// # Errors
    /// Every name and shape must agree: [`Error::Missing`], [`Error::Unexpected`], [`Error::Mismatch`],
    /// [`Error::Malformed`] and [`Error::File`] name the file and the tensor. On an error the weights are as before.
    pub fn load(&self, path: &Path) -> Result<()> {
        let vars: Vec<_> = self.lock().iter().map(|(name, entry)| (name.clone(), entry.var.clone())).collect();
        let expected: Vec<_> = vars.iter().map(|(name, var)| (name.clone(), var.dims().to_vec())).collect();
        for ((_, var), values) in vars.iter().zip(store::read(path, &expected)?) {
            var.set(&Tensor::from_vec(values, var.shape(), &self.device)?)?;
        }
        Ok(())
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, Entry>> {
        // Nothing in a critical section panics half-way through a change.
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A tensor's values on the host under a name.
pub(crate) fn stored(name: String, tensor: &Tensor) -> Result<Stored> {
    let values = tensor.to_dtype(DType::F32)?.flatten_all()?.to_vec1()?;
    Ok(Stored { name, shape: tensor.dims().to_vec(), values })
}

/// A place in the tree of names, as `down_blocks.0.resnets.1`.
#[derive(Clone, Debug)]
pub struct Scope {
    weights: Weights,
    prefix: String,
}

impl Scope {
    /// The scope one name further down; numbers and names alike.
    pub fn sub(&self, name: impl Display) -> Self {
        Self { weights: self.weights.clone(), prefix: self.full(&name.to_string()) }
    }

    /// The scope's own full name; empty at the root.
    pub fn prefix(&self) -> &str {
        &self.prefix
    }

    /// Where the weights are.
    pub fn device(&self) -> &Device {
        self.weights.device()
    }

    /// The weights that this is a place in.
    pub fn weights(&self) -> &Weights {
        &self.weights
    }

    /// Whether the files that weights come from hold `name` in this scope; where they come from a seed, nothing is there
    /// before it is asked for.
    pub(crate) fn has(&self, name: &str) -> bool {
        match &*self.weights.source {
            Source::Seed(_) => false,
            Source::Files { files, .. } => files.has(&self.full(name)),
        }
    }

    /// The number type of activations.
    pub(crate) fn compute_dtype(&self) -> DType {
        self.weights.compute_dtype()
    }

    /// The weight `name` in this scope: created with `init` or read from a file, or the existing variable.
    ///
    /// # Errors
    /// [`Error::Shape`] where it exists with another shape; [`Error::Missing`], [`Error::Mismatch`] and [`Error::File`]
    /// where the weights come from a file.
    pub fn get(&self, name: &str, shape: &[usize], init: Init) -> Result<Tensor> {
        self.weight(name, shape, init, self.weights.compute_dtype(), true)
    }

    /// [`get`](Self::get) for the weight of a convolution or linear map, which may be kept in a shorter number type.
    ///
    /// # Errors
    /// As [`get`](Self::get).
    pub fn param(&self, name: &str, shape: &[usize], init: Init) -> Result<Param> {
        match &*self.weights.source {
            Source::Files { files, dtype, trainable: false, .. } => {
                files.read_param(&self.full(name), shape, *dtype, &self.weights.device)
            }
            _ => Ok(Param::new(self.get(name, shape, init)?)),
        }
    }

    /// [`get`](Self::get) for a weight that is saved with the others but that training leaves alone; in `f32`.
    ///
    /// # Errors
    /// As [`get`](Self::get).
    pub fn constant(&self, name: &str, shape: &[usize], init: Init) -> Result<Tensor> {
        Ok(self.weight(name, shape, init, DType::F32, false)?.detach())
    }

    fn weight(&self, name: &str, shape: &[usize], init: Init, dtype: DType, trained: bool) -> Result<Tensor> {
        let full = self.full(name);
        let mut entries = self.weights.lock();
        if let Some(Entry { var, .. }) = entries.get(&full) {
            if var.dims() != shape {
                return Err(Error::Shape { name: full, expected: shape.to_vec(), found: var.dims().to_vec() });
            }
            return Ok(var.as_tensor().clone());
        }
        let var = match &*self.weights.source {
            Source::Seed(seed) => {
                let values = init.values(seed.derive(&full), shape.iter().product());
                Var::from_vec(values, shape, &self.weights.device)?
            }
            Source::Files { files, trainable, .. } => {
                let tensor = files.read(&full, shape, dtype, &self.weights.device)?;
                if !trainable {
                    return Ok(tensor);
                }
                Var::from_tensor(&tensor)?
            }
        };
        let tensor = var.as_tensor().clone();
        entries.insert(full, Entry { var, trained });
        Ok(tensor)
    }

    fn full(&self, name: &str) -> String {
        if self.prefix.is_empty() { name.to_owned() } else { format!("{}.{name}", self.prefix) }
    }
}
