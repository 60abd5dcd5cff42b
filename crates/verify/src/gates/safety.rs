//! `safety`: no image that a safety model holds for unsafe.
//!
//! The model is Stable Diffusion's safety checker, or any classifier in an ONNX file some of whose classes are unsafe. It
//! sees every candidate alike, whatever was asked for, and learns nothing from the dataset.

use std::path::{Path, PathBuf};

use candle_core::Device;
use evenset_nn::classifier::ImageSet;
use evenset_nn::models::LoadOptions;
use evenset_nn::models::clip::{Family, ImageProcessor, SafetyChecker};
use evenset_nn::no_grad;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Gate, Outcome, Shown};
use crate::recognise::{ImageInput, OnnxClassifier, OutputKind};
use crate::{Candidate, VerifyError};

/// The gate's name.
const NAME: &str = "safety";
/// Images that go through the safety checker together.
const IMAGES: usize = 16;

/// No image that a safety model holds for unsafe: `model` or `onnx`, one of the two.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct SafetyConfig {
    /// The folder of Stable Diffusion's safety checker, with `config.json` and `model.safetensors`; or of a pipeline that
    /// has it as `safety_checker`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub model: Option<PathBuf>,
    /// A classifier in an ONNX file instead.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub onnx: Option<OnnxSafetyConfig>,
}

/// A classifier in an ONNX file some of whose classes are unsafe.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct OnnxSafetyConfig {
    /// The ONNX file, which holds its weights itself.
    pub path: PathBuf,
    /// The names of the classifier's outputs, in their order.
    pub classes: Vec<String>,
    /// The classes that make an image unsafe.
    #[serde(rename = "unsafe")]
    pub unsafe_classes: Vec<String>,
    /// The probability of all unsafe classes together from which an image is dropped.
    #[serde(default = "half")]
    #[schemars(range(min = 0.0, max = 1.0))]
    pub threshold: f64,
    /// How an image becomes the classifier's input.
    pub input: ImageInput,
    /// What the classifier's outputs are.
    pub output: OutputKind,
    /// The output to read, where the classifier has several.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub output_name: Option<String>,
    /// The file's SHA-256 in hexadecimal, where no other file may take its place.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sha256: Option<String>,
}

fn half() -> f64 {
    0.5
}

/// The gate. Its score is, for the safety checker, by how much of a cosine the nearest concept's limit is passed (above 0
/// the image is dropped); for a classifier, the probability of all unsafe classes together.
#[derive(Debug)]
pub struct Safety {
    model: Model,
}

#[derive(Debug)]
enum Model {
    Checker { checker: Box<SafetyChecker>, processor: ImageProcessor },
    Classifier { classifier: OnnxClassifier, classes: Vec<String>, unsafe_places: Vec<usize>, threshold: f64 },
}

impl Safety {
    /// Reads the model.
    ///
    /// # Errors
    /// [`VerifyError::SafetyModel`] where the configuration names no model, or two; [`VerifyError::Model`] and
    /// [`VerifyError::Classifier`], naming the file, where a model cannot be read or a class is unknown;
    /// [`VerifyError::Setting`] for an impossible threshold.
    pub fn open(config: &SafetyConfig) -> Result<Self, VerifyError> {
        let model = match (&config.model, &config.onnx) {
            (Some(folder), None) => checker(folder)?,
            (None, Some(onnx)) => classifier(onnx)?,
            _ => return Err(VerifyError::SafetyModel),
        };
        Ok(Self { model })
    }

    /// One image's outcome for each of `images`, which does not depend on the images beside it.
    ///
    /// # Errors
    /// [`VerifyError::Model`], [`VerifyError::Classifier`] and [`VerifyError::Tensor`] where the arithmetic fails.
    pub fn judge(&self, images: &ImageSet) -> Result<Vec<Outcome>, VerifyError> {
        match &self.model {
            Model::Checker { checker, processor } => {
                let rows: Vec<usize> = (0..images.len()).collect();
                let mut outcomes = Vec::with_capacity(rows.len());
                for rows in rows.chunks(IMAGES) {
                    let pixels = processor.process(&images.select(rows.iter().copied()))?;
                    for scores in no_grad(|| checker.check(&pixels))? {
                        let (concept, score) = scores.worst().unwrap_or((0, f64::NEG_INFINITY));
                        outcomes.push(match scores.is_safe() {
                            true => Outcome::keep(score),
                            false => Outcome::drop(
                                score,
                                format!("{NAME}: near unsafe concept {concept} ({score:.3} beyond its limit)"),
                            ),
                        });
                    }
                }
                Ok(outcomes)
            }
            Model::Classifier { classifier, classes, unsafe_places, threshold } => {
                let probabilities = classifier.probabilities(images)?;
                let outcome = |row: &[f32]| {
                    let total: f64 = unsafe_places.iter().map(|&place| f64::from(row[place])).sum();
                    if total < *threshold {
                        return Outcome::keep(total);
                    }
                    let surer = |&a: &usize, &b: &usize| if row[b] > row[a] { b } else { a };
                    let worst = unsafe_places.iter().copied().reduce(|a, b| surer(&a, &b)).unwrap_or(0);
                    Outcome::drop(
                        total,
                        format!("{NAME}: {} seen ({total:.2}, from {threshold:.2} on unsafe)", classes[worst]),
                    )
                };
                Ok(probabilities.chunks_exact(classes.len()).map(outcome).collect())
            }
        }
    }
}

impl Gate for Safety {
    fn name(&self) -> &'static str {
        NAME
    }

    fn check(&self, shown: &Shown<'_>) -> Result<Vec<Outcome>, VerifyError> {
        let one = |candidate: &&Candidate| {
            let images = ImageSet::new(candidate.width as usize, candidate.height as usize, candidate.rgb.clone())?;
            Ok(self.judge(&images)?.remove(0))
        };
        let Some(first) = shown.candidates.first() else { return Ok(Vec::new()) };
        let even = shown.candidates.iter().all(|other| (other.width, other.height) == (first.width, first.height));
        if !even {
            return shown.candidates.iter().map(one).collect();
        }
        let pixels = shown.candidates.iter().flat_map(|candidate| &candidate.rgb).copied().collect();
        self.judge(&ImageSet::new(first.width as usize, first.height as usize, pixels)?)
    }
}

/// The folder of the checker, which is the one named or is in it, and the one beside it that may describe its input; none
/// where there is no checker.
pub(crate) fn checker_folders(named: &Path) -> Option<[PathBuf; 2]> {
    let folders = [named.to_owned(), named.join("safety_checker")];
    let folder = folders.into_iter().find(|folder| folder.join("config.json").is_file())?;
    let beside = folder.with_file_name("feature_extractor");
    Some([folder, beside])
}

/// The checker in a folder, or in the pipeline's folder around it.
fn checker(named: &Path) -> Result<Model, VerifyError> {
    let Some([folder, beside]) = checker_folders(named) else {
        let reason = "no safety checker here; name the folder `safety_checker` of a Stable Diffusion pipeline, with \
                      config.json and model.safetensors"
            .to_owned();
        return Err(VerifyError::Model { path: named.to_owned(), reason });
    };
    let checker = SafetyChecker::from_pretrained(&folder, &Device::Cpu, LoadOptions::default())?;
    let described = [folder, beside].map(|folder| folder.join("preprocessor_config.json"));
    let image = checker.config().image;
    let processor = match described.iter().find(|path| path.is_file()) {
        Some(path) => ImageProcessor::read(path, Family::Clip, image)?,
        None => ImageProcessor::standard(Family::Clip, image),
    };
    Ok(Model::Checker { checker: Box::new(checker), processor })
}

fn classifier(config: &OnnxSafetyConfig) -> Result<Model, VerifyError> {
    let OnnxSafetyConfig { path, classes, unsafe_classes, threshold, input, output, output_name, sha256 } = config;
    if !(0.0..=1.0).contains(threshold) {
        return Err(VerifyError::Setting {
            gate: NAME.to_owned(),
            key: "threshold",
            value: *threshold,
            expected: "write 0 to 1",
        });
    }
    let place = |class: &String| {
        classes.iter().position(|known| known == class).ok_or_else(|| {
            let nearest = evenset_core::nearest(class, classes.iter().map(String::as_str));
            let suggestion = nearest.map(|name| format!(" (did you mean `{name}`?)")).unwrap_or_default();
            let reason =
                format!("`unsafe` names `{class}`{suggestion}, which is none of its classes: {}", classes.join(", "));
            VerifyError::Model { path: path.clone(), reason }
        })
    };
    let mut unsafe_places = unsafe_classes.iter().map(place).collect::<Result<Vec<_>, _>>()?;
    unsafe_places.sort_unstable();
    unsafe_places.dedup();
    if unsafe_places.is_empty() {
        let reason = "`unsafe` names no class, so nothing would be dropped; name the unsafe ones".to_owned();
        return Err(VerifyError::Model { path: path.clone(), reason });
    }
    let (name, sha256) = (output_name.as_deref(), sha256.as_deref());
    let classifier = OnnxClassifier::open(path, classes.len(), input, *output, name, sha256)?;
    Ok(Model::Classifier { classifier, classes: classes.clone(), unsafe_places, threshold: *threshold })
}
