//! What stands in for ONNX where the program was built without it: an error that says how to get it.

use std::convert::Infallible;
use std::path::Path;

use evenset_nn::classifier::{ImageSet, Prediction};

use super::{ImageInput, OnnxConfig, OutputKind, Recogniser};
use crate::VerifyError;

/// A classifier in an ONNX file; there is none in this build.
#[derive(Debug)]
pub struct OnnxClassifier(Infallible);

impl OnnxClassifier {
    /// Always the error of a build without the feature `onnx`.
    ///
    /// # Errors
    /// [`VerifyError::Model`].
    pub fn open(
        path: &Path,
        _classes: usize,
        _input: &ImageInput,
        _output: OutputKind,
        _output_name: Option<&str>,
        _sha256: Option<&str>,
    ) -> Result<Self, VerifyError> {
        let reason = "this build reads no ONNX files; build evenset with `--features onnx`";
        Err(VerifyError::Model { path: path.to_owned(), reason: reason.into() })
    }

    /// Never called.
    ///
    /// # Errors
    /// None.
    pub fn probabilities(&self, _images: &ImageSet) -> Result<Vec<f32>, VerifyError> {
        match self.0 {}
    }
}

pub(super) struct OnnxRecogniser(Infallible);

impl OnnxRecogniser {
    pub(super) fn open(config: &OnnxConfig, _attributes: &[(String, Vec<String>)]) -> Result<Self, VerifyError> {
        OnnxClassifier::open(&config.path, 0, &config.input, config.output, None, None)
            .map(|classifier| Self(classifier.0))
    }
}

impl Recogniser for OnnxRecogniser {
    fn name(&self) -> &'static str {
        match self.0 {}
    }

    fn recognise(&self, _images: &ImageSet) -> Result<Vec<Prediction>, VerifyError> {
        match self.0 {}
    }
}
