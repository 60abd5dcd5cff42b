//! Recognisers: models that say which value of an attribute an image shows.
//!
//! A job may trust more than the classifier that is trained on its own images: a network in an ONNX file, or CLIP or
//! SigLIP, which are asked in words. Each covers some attributes; [`combine`] says what several of them see together.

mod classes;
mod config;
#[cfg(feature = "onnx")]
mod onnx;
#[cfg(not(feature = "onnx"))]
#[path = "without_onnx.rs"]
mod onnx;
mod vote;
mod zero_shot;

use evenset_nn::classifier::{ImageSet, Prediction};

pub use config::{
    Colour, ImageInput, Layout, OnnxConfig, OutputKind, Prompts, RecogniserConfig, TrainedConfig, ZeroShotConfig,
};
pub use onnx::OnnxClassifier;
pub use vote::{Agreement, Vote, combine};
pub use zero_shot::ZeroShot;

use crate::VerifyError;

/// A model that says which value of an attribute an image shows.
pub trait Recogniser: Send + Sync {
    /// The recogniser's kind, as `type` names it in jobs.
    fn name(&self) -> &'static str;

    /// One prediction for each attribute that the recogniser covers, always in the same order; its classes are the job's
    /// values of the attribute in the job's order. An image's probabilities do not depend on the images beside it.
    ///
    /// # Errors
    /// [`VerifyError::Model`], [`VerifyError::Classifier`] and [`VerifyError::Tensor`] where the arithmetic fails.
    fn recognise(&self, images: &ImageSet) -> Result<Vec<Prediction>, VerifyError>;
}

/// Opens a recogniser for the job's `attributes`: their names, each with its values.
///
/// # Errors
/// [`VerifyError::Model`], naming the file and what is wrong with it, where a model cannot be read, does not fit its
/// description, or knows other classes than the attribute has values; [`VerifyError::Untrained`] for a `trained`
/// recogniser, which no file holds.
pub fn open(
    config: &RecogniserConfig,
    attributes: &[(String, Vec<String>)],
) -> Result<Box<dyn Recogniser>, VerifyError> {
    match config {
        RecogniserConfig::Trained(_) => Err(VerifyError::Untrained),
        RecogniserConfig::Onnx(config) => Ok(Box::new(onnx::OnnxRecogniser::open(config, attributes)?)),
        RecogniserConfig::Clip(config) => Ok(Box::new(ZeroShot::open(config, attributes)?)),
    }
}
