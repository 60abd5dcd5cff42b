//! Adds LoRAs to the weights of one network while these are read.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};

use candle_core::Tensor;

use super::file::{Layer, LoraFile, Place};
use super::{Part, names, refusal};
use crate::error::{Error, Result};
use crate::files::same_weight;
use crate::maps;
use crate::original;
use crate::param::Param;

/// The LoRAs of one network.
#[derive(Debug)]
pub(crate) struct Merger {
    loras: Vec<(Arc<LoraFile>, f64)>,
    part: Part,
    /// Residual blocks of a UNet's level, by which original names are counted.
    unet_layers: usize,
    state: Mutex<State>,
}

/// What has become of the layers.
#[derive(Debug, Default)]
struct State {
    /// Layers that changed a weight, with the number of their file.
    placed: BTreeSet<(usize, Place)>,
    /// Layers of another shape than the weight: the number of the file, the layer, the weight's shape.
    misshapen: Vec<(usize, Layer, Vec<usize>)>,
}

impl Merger {
    pub(super) fn new(loras: Vec<(Arc<LoraFile>, f64)>, part: Part, unet_layers: usize) -> Self {
        Self { loras, part, unet_layers, state: Mutex::default() }
    }

    /// Whether anything is added to the weight `name`.
    pub(crate) fn changes(&self, name: &str) -> bool {
        let places = self.places(name);
        self.loras.iter().any(|(lora, _)| lora.find(&places).is_some())
    }

    /// The weight `name`, `base` in `f32` on the host, with all changes added in the order of the files.
    pub(crate) fn merge(&self, name: &str, base: Tensor) -> Result<Tensor> {
        let places = self.places(name);
        let mut sum = base;
        for (i, (lora, weight)) in self.loras.iter().enumerate() {
            let Some((place, layer)) = lora.find(&places) else { continue };
            let fits = same_weight(&layer.shape, sum.dims());
            let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
            match fits {
                true => drop(state.placed.insert((i, place.clone()))),
                false => state.misshapen.push((i, layer.clone(), sum.dims().to_vec())),
            }
            drop(state);
            if fits {
                sum = add(&sum, lora, layer, *weight)?;
            }
        }
        Ok(sum)
    }

    /// An error where a layer changed no weight.
    pub(crate) fn finish(&self) -> Result<()> {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        for (i, (lora, _)) in self.loras.iter().enumerate() {
            let layers = lora.of(self.part);
            let without_place = |(place, _): &&(&Place, &Layer)| !state.placed.contains(&(i, (*place).clone()));
            let lost: Vec<_> = layers.iter().filter(without_place).collect();
            let Some((_, first)) = lost.first() else { continue };
            let example = match state.misshapen.iter().find(|(of, ..)| *of == i) {
                Some((_, layer, shape)) => format!(
                    "`{}` changes a weight of {:?}, but that of the network is {shape:?}",
                    layer.down, layer.shape
                ),
                None => format!("the network has no layer for `{}` {:?}", first.down, first.shape),
            };
            return Err(another_model(lora, self.part, &example, lost.len(), layers.len()));
        }
        Ok(())
    }

    /// Where the layer of a weight may lie in a file.
    fn places(&self, name: &str) -> Vec<Place> {
        let Some(module) = name.strip_suffix(".weight") else { return Vec::new() };
        let originals = match self.part {
            Part::UNet => original::unet_modules(module, self.unet_layers),
            _ => Vec::new(),
        };
        let modules = std::iter::once(module.to_owned()).chain(originals);
        modules.map(|module| (self.part, names::underscored(self.part, &module))).collect()
    }
}

fn another_model(lora: &LoraFile, part: Part, example: &str, lost: usize, total: usize) -> Error {
    let reason = format!(
        "made for another base model: {example}; {lost} of its {total} layers for {part} found no place. Use the LoRA \
         with the model family it was trained on"
    );
    refusal(lora.path(), reason)
}

/// `base + weight * scale * up down`.
fn add(base: &Tensor, lora: &LoraFile, layer: &Layer, weight: f64) -> Result<Tensor> {
    let (down, up) = lora.matrices(layer)?;
    // This crate's own product: its sums have one order for any number of threads.
    let product = maps::linear(&up, &Param::new(down.t()?.contiguous()?), None, None)?;
    let change = (product * (weight * layer.scale))?.reshape(base.shape())?;
    Ok(base.add(&change)?)
}
