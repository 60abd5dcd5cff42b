//! diffusers' models, read from the files that diffusers writes, against what PyTorch computed: `tests/golden` has small
//! ones of every kind, and `make.py` there says what each of them covers.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout)]

mod agreement;
mod damage;
mod gradients;

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::path::{Path, PathBuf};

use candle_core::{DType, Device, Result, Tensor};
use evenset_nn::Weights;
use evenset_nn::models::{AutoencoderKL, AutoencoderTiny, Conditions, LoadOptions, UNet2DConditionModel, UNet2DModel};

const CPU: &Device = &Device::Cpu;
/// How many images every golden folder has.
const BATCH: usize = 3;

/// The folders, and the number type in which each keeps its weights.
const GOLDEN: [(&str, DType); 13] = [
    ("classes", DType::F16),
    ("fourier", DType::F16),
    ("learned", DType::F32),
    ("level", DType::F16),
    ("mixed", DType::F16),
    ("pixel", DType::F32),
    ("sd1", DType::F16),
    ("sd2", DType::F16),
    ("sdxl", DType::BF16),
    ("upscaler", DType::F16),
    ("vae", DType::F16),
    ("vae-early", DType::F16),
    ("vae-tiny", DType::F16),
];

/// Inputs and results by name.
type Tensors = BTreeMap<String, Tensor>;

/// Any of the networks.
enum Model {
    Condition(Box<UNet2DConditionModel>),
    Pixels(Box<UNet2DModel>),
    Autoencoder(Box<AutoencoderKL>),
    Tiny(Box<AutoencoderTiny>),
}

impl Model {
    /// The network in `dir`, of the class that its configuration names.
    fn load(dir: &Path, options: LoadOptions) -> evenset_nn::Result<Self> {
        let config = std::fs::read_to_string(dir.join("config.json")).unwrap_or_default();
        Ok(if config.contains("\"AutoencoderKL\"") {
            Self::Autoencoder(Box::new(AutoencoderKL::from_pretrained(dir, CPU, options)?))
        } else if config.contains("\"AutoencoderTiny\"") {
            Self::Tiny(Box::new(AutoencoderTiny::from_pretrained(dir, CPU, options)?))
        } else if config.contains("\"UNet2DModel\"") {
            Self::Pixels(Box::new(UNet2DModel::from_pretrained(dir, CPU, options)?))
        } else {
            Self::Condition(Box::new(UNet2DConditionModel::from_pretrained(dir, CPU, options)?))
        })
    }

    fn weights(&self) -> &Weights {
        match self {
            Self::Condition(net) => net.weights(),
            Self::Pixels(net) => net.weights(),
            Self::Autoencoder(net) => net.weights(),
            Self::Tiny(net) => net.weights(),
        }
    }

    /// Everything that PyTorch's results are there for, under the same names.
    fn run(&self, inputs: &Tensors) -> Result<Tensors> {
        let optional = |name: &str| inputs.get(name);
        let results = match self {
            Self::Condition(net) => {
                let conditions = Conditions {
                    text: optional("text"),
                    class: optional("class"),
                    pooled_text: optional("pooled_text"),
                    time_ids: optional("time_ids"),
                    timestep: optional("timestep_cond"),
                };
                vec![("out", net.forward(&inputs["x"], &inputs["timesteps"], &conditions)?)]
            }
            Self::Pixels(net) => vec![("out", net.forward(&inputs["x"], &inputs["timesteps"], optional("class"))?)],
            Self::Autoencoder(net) => {
                let posterior = net.encode(&inputs["image"])?;
                let decoded = net.decode(&inputs["z"])?;
                vec![("mean", posterior.mean), ("logvar", posterior.logvar), ("decoded", decoded)]
            }
            Self::Tiny(net) => {
                vec![("latents", net.encode(&inputs["image"])?), ("decoded", net.decode(&inputs["z"])?)]
            }
        };
        Ok(results.into_iter().map(|(name, tensor)| (name.to_owned(), tensor)).collect())
    }
}

fn golden(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden").join(name)
}

/// The inputs and PyTorch's results in a golden folder.
fn inputs_and_results(name: &str) -> (Tensors, Tensors) {
    let io = candle_core::safetensors::load(golden(name).join("io.safetensors"), CPU).unwrap();
    io.into_iter().partition(|(name, _)| !["out", "mean", "logvar", "latents", "decoded"].contains(&name.as_str()))
}

/// Some of the images.
fn images(all: &Tensors, range: &Range<usize>) -> Tensors {
    all.iter().map(|(name, x)| (name.clone(), x.narrow(0, range.start, range.len()).unwrap())).collect()
}

fn values(x: &Tensor) -> Vec<f32> {
    x.flatten_all().unwrap().to_vec1().unwrap()
}

fn bits(tensors: &Tensors) -> Vec<u32> {
    tensors.values().flat_map(values).map(f32::to_bits).collect()
}

fn with_threads<T: Send>(threads: usize, f: impl FnOnce() -> T + Send) -> T {
    rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap().install(f)
}

#[test]
fn every_golden_folder_is_tested() {
    let entries = std::fs::read_dir(golden("")).unwrap().map(|entry| entry.unwrap());
    // Folders with a configuration are networks; other rooms keep their golden files beside them.
    let folders = entries.filter(|entry| entry.path().join("config.json").is_file());
    let found: BTreeSet<String> = folders.map(|entry| entry.file_name().into_string().unwrap()).collect();
    assert_eq!(found, GOLDEN.iter().map(|(name, _)| (*name).to_owned()).collect());
    for (name, _) in GOLDEN {
        let (inputs, results) = inputs_and_results(name);
        assert!(inputs.values().chain(results.values()).all(|x| x.dims()[0] == BATCH), "{name}");
    }
}
