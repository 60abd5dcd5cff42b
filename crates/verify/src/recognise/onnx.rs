//! Classifiers in ONNX files, run by tract.
//!
//! A file is read whole, checked before anything in it is believed, and optimised for a batch of one. Images go through
//! one by one, several at a time in parallel, so that an image's result is the same bytes whatever stands beside it; where
//! a file insists on a larger batch, the image fills it alone.

mod checks;
mod input;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use evenset_nn::classifier::{ImageSet, Prediction};
use rayon::prelude::*;
use tract_onnx::prelude::{
    DatumType, Framework, InferenceFact, InferenceModelExt, IntoRunnable, SymbolValues, TValue, Tensor, TractResult,
    TypedRunnableModel, tvec,
};

use super::classes::{places, values_of};
use super::{ImageInput, OnnxConfig, OutputKind, Recogniser};
use crate::VerifyError;
use checks::Inspected;

/// How far a sum of probabilities may lie from one.
const SUM_TOLERANCE: f64 = 0.01;

/// A classifier in an ONNX file.
pub struct OnnxClassifier {
    path: PathBuf,
    input: ImageInput,
    output: OutputKind,
    classes: usize,
    /// Images that go through together: all of them the same one.
    batch: usize,
    number: DatumType,
    model: Arc<TypedRunnableModel>,
}

impl OnnxClassifier {
    /// The classifier in a file, with `classes` outputs; `output_name` chooses among several outputs, `sha256` (in
    /// hexadecimal) refuses any other file.
    ///
    /// # Errors
    /// [`VerifyError::Model`] and [`VerifyError::File`], naming the file: a damaged file or one with another hash, weights
    /// in other files, operators that cannot be run (all of them are named), inputs or outputs of another shape.
    pub fn open(
        path: &Path,
        classes: usize,
        input: &ImageInput,
        output: OutputKind,
        output_name: Option<&str>,
        sha256: Option<&str>,
    ) -> Result<Self, VerifyError> {
        let failed = |reason: String| VerifyError::Model { path: path.to_owned(), reason };
        input::check(input).map_err(failed)?;
        let bytes = checks::read(path)?;
        checks::hash(&bytes, sha256).map_err(failed)?;
        let inspected = guarded(|| checks::inspect(&bytes, input, classes, output_name)).map_err(failed)?;
        drop(bytes);
        let mut reasons = Vec::new();
        for (batch, ignore_inner) in inspected.attempts() {
            match guarded(|| runnable(&inspected, input, classes, batch, ignore_inner)) {
                Ok(model) => {
                    let Inspected { number, .. } = inspected;
                    return Ok(Self {
                        path: path.to_owned(),
                        input: input.clone(),
                        output,
                        classes,
                        batch,
                        number,
                        model,
                    });
                }
                Err(reason) => reasons.push(reason),
            }
        }
        // The last attempt takes the file at its word, so that its failure says most.
        Err(failed(reasons.pop().unwrap_or_else(|| "it cannot be run".into())))
    }

    /// `[images, classes]`: each row sums to one.
    ///
    /// # Errors
    /// [`VerifyError::Model`] where the network fails, or what comes out are no probabilities though `output` says so.
    pub fn probabilities(&self, images: &ImageSet) -> Result<Vec<f32>, VerifyError> {
        let size = (images.width(), images.height());
        let all: Vec<&[u8]> = images.iter().collect();
        let rows: Vec<Vec<f32>> = all.par_iter().map(|image| self.row(image, size)).collect::<Result<_, _>>()?;
        Ok(rows.concat())
    }

    fn row(&self, image: &[u8], size: (usize, usize)) -> Result<Vec<f32>, VerifyError> {
        let values = input::values(&self.input, image, size)?;
        let run = || {
            let shape = input::shape(&self.input, self.batch);
            let x = Tensor::from_shape(&shape, &values.repeat(self.batch)).map_err(reason)?;
            let x = x.cast_to_dt(self.number).map_err(reason)?.into_owned();
            let out = self.model.run(tvec!(TValue::from(x))).map_err(reason)?;
            let out = out.first().ok_or("it has no output")?.cast_to::<f32>().map_err(reason)?.into_owned();
            let out = out.to_plain_array_view::<f32>().map_err(reason)?;
            let row: Vec<f64> = out.iter().take(self.classes).map(|value| f64::from(*value)).collect();
            self.shares(row)
        };
        guarded(run).map_err(|reason| VerifyError::Model { path: self.path.clone(), reason })
    }

    /// Outputs as probabilities.
    fn shares(&self, row: Vec<f64>) -> Result<Vec<f32>, String> {
        if row.len() != self.classes || !row.iter().all(|value| value.is_finite()) {
            return Err(
                "its outputs are not finite numbers; check `mean`, `std` and `scale`, or the file's weights".into()
            );
        }
        let row = match self.output {
            OutputKind::Logits => {
                let largest = row.iter().copied().fold(f64::NEG_INFINITY, f64::max);
                row.iter().map(|value| (value - largest).exp()).collect()
            }
            OutputKind::Probabilities => row,
        };
        let total: f64 = row.iter().sum();
        if self.output == OutputKind::Probabilities
            && ((total - 1.0).abs() > SUM_TOLERANCE || row.iter().any(|share| *share < -SUM_TOLERANCE))
        {
            return Err(format!(
                "its outputs are not probabilities (one image's sum is {total:.3}); write `output: logits` if softmax is to \
                 make them"
            ));
        }
        Ok(row.into_iter().map(|share| (share.max(0.0) / total) as f32).collect())
    }
}

/// The network at a batch of `batch`, with what the file says about values inside it taken or left.
fn runnable(
    inspected: &Inspected,
    input: &ImageInput,
    classes: usize,
    batch: usize,
    ignore_inner: bool,
) -> Result<Arc<TypedRunnableModel>, String> {
    let framework = tract_onnx::onnx().with_ignore_value_info(ignore_inner);
    let shape = input::shape(input, batch);
    let build = || -> TractResult<_> {
        let model = framework.model_for_proto_model(&inspected.proto)?;
        let fact = InferenceFact::dt_shape(inspected.number, shape.as_slice());
        model.with_input_fact(0, fact)?.into_optimized()
    };
    let model = build().map_err(reason)?;
    let fact = model.output_fact(0).map_err(reason)?;
    let found = fact.shape.eval_to_usize(&SymbolValues::default()).map_err(reason)?.to_vec();
    // [batch, classes], or with empty dimensions of pixels behind them.
    let fits = found.len() >= 2 && found[..2] == [batch, classes] && found[2..].iter().all(|size| *size == 1);
    if !fits {
        return Err(format!(
            "its output is {found:?}, which is not [{batch}, {classes}] for {classes} classes; name as many classes as the \
             model has outputs, or another output in `output_name`"
        ));
    }
    model.into_runnable().map_err(reason)
}

/// An error of tract with its causes.
fn reason(error: impl Into<tract_onnx::prelude::TractError>) -> String {
    format!("it cannot be run: {:#}", error.into())
}

/// Runs `f`, where a panic inside tract, which a damaged file can cause, is an error like others.
fn guarded<T>(f: impl FnOnce() -> Result<T, String>) -> Result<T, String> {
    catch_unwind(AssertUnwindSafe(f)).unwrap_or_else(|_| {
        Err("the file is damaged, or the runtime cannot run it; check it with `python -m onnx.checker`, or export it again".into())
    })
}

impl std::fmt::Debug for OnnxClassifier {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("OnnxClassifier")
            .field("path", &self.path)
            .field("classes", &self.classes)
            .finish_non_exhaustive()
    }
}

/// An ONNX file as a recogniser of one attribute.
#[derive(Debug)]
pub(super) struct OnnxRecogniser {
    classifier: OnnxClassifier,
    attribute: String,
    /// For each of the job's values its place among the outputs.
    places: Vec<usize>,
}

impl OnnxRecogniser {
    pub(super) fn open(config: &OnnxConfig, attributes: &[(String, Vec<String>)]) -> Result<Self, VerifyError> {
        let OnnxConfig { path, attribute, classes, input, output, output_name, sha256 } = config;
        let places = places(path, attribute, classes, values_of(path, attribute, attributes)?)?;
        let (name, sha256) = (output_name.as_deref(), sha256.as_deref());
        let classifier = OnnxClassifier::open(path, classes.len(), input, *output, name, sha256)?;
        Ok(Self { classifier, attribute: attribute.clone(), places })
    }
}

impl Recogniser for OnnxRecogniser {
    fn name(&self) -> &'static str {
        "onnx"
    }

    fn recognise(&self, images: &ImageSet) -> Result<Vec<Prediction>, VerifyError> {
        let found = self.classifier.probabilities(images)?;
        let classes = self.places.len();
        let row = |row: &[f32]| self.places.iter().map(|&place| row[place]).collect::<Vec<f32>>();
        let probabilities = found.chunks_exact(classes.max(1)).flat_map(row).collect();
        Ok(vec![Prediction { name: self.attribute.clone(), classes, probabilities }])
    }
}
