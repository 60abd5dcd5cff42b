//! What a model is loaded from.

use std::fmt;
use std::path::{Path, PathBuf};

use candle_core::Device;
use evenset_nn::models::clip::{ClipTextEncoder, TextAdditions, Tokenizer};
use evenset_nn::models::{AutoencoderKL, LoadOptions, UNet2DConditionModel};
use evenset_nn::{LoraStack, Part};

use serde_json::{Map, Value};

use super::facts::ModelFacts;
use crate::error::Result;
use crate::scheduler::SchedulerJson;

/// A model on this machine that is whole and of a kind that can be run, as far as that shows before its weights are read:
/// a folder in diffusers' layout ([`ModelFolder`](super::ModelFolder)) or a single file of original names
/// ([`ModelFile`](super::ModelFile)).
///
/// Loading a network gives an error of [`DiffusionError::Network`](crate::DiffusionError::Network), which names the file
/// and the tensor that is missing, one too many or of another shape.
pub trait ModelSource: fmt::Debug + Send + Sync {
    /// The folder or the file: what errors and logs call the model.
    fn path(&self) -> &Path;

    /// What kind of model it is.
    fn facts(&self) -> &ModelFacts;

    /// Every file that makes the model what it is: what a fingerprint of it covers.
    fn files(&self) -> &[PathBuf];

    /// The noise levels that it was trained with, and the solver that it comes with.
    ///
    /// # Errors
    /// Those of [`SchedulerJson::open`]; [`DiffusionError::Model`](crate::DiffusionError::Model) where nobody has said what
    /// the network predicts.
    fn scheduler(&self) -> Result<SchedulerJson>;

    /// diffusers' configuration of the denoising network.
    fn unet_config(&self) -> Result<Map<String, Value>>;

    /// The denoising network, with the changes of `loras`.
    fn unet(&self, device: &Device, options: LoadOptions, loras: &LoraStack) -> Result<UNet2DConditionModel>;

    /// The autoencoder.
    fn vae(&self, device: &Device, options: LoadOptions) -> Result<AutoencoderKL>;

    /// Whether the autoencoder is known to overflow in `F16` (`force_upcast`).
    fn vae_overflows(&self) -> Result<bool>;

    /// The text encoder that `additions` are for.
    fn text_encoder(
        &self,
        device: &Device,
        options: LoadOptions,
        additions: &TextAdditions<'_>,
    ) -> Result<ClipTextEncoder>;

    /// The tokenizer of the text encoder `part`, which has places for `positions` tokens.
    fn tokenizer(&self, part: Part, positions: usize) -> Result<Tokenizer>;

    /// Whether a text encoder asks that what fills texts up is hidden from other tokens (`use_attention_mask`).
    fn hides_filling(&self, part: Part) -> Result<bool>;
}
