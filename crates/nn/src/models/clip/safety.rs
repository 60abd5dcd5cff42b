//! The safety checker of Stable Diffusion: an image is unsafe where it lies near a concept that nobody wants.
//!
//! diffusers' `StableDiffusionSafetyChecker`: CLIP's image embedding is compared with seventeen concepts, each with its own
//! limit; being near one of three others that need special care tightens the limits.

use std::path::Path;

use candle_core::{Device, Result, Tensor, bail};

use super::config::VisionConfig;
use super::load;
use super::model::cosines;
use super::text::Projection;
use super::vision::VisionModel;
use crate::error::{Error, Result as NnResult};
use crate::models::load::LoadOptions;
use crate::weights::{Init, Scope};

/// What an image's limits are tightened by where it needs special care.
const SPECIAL_CARE: f64 = 0.01;
/// How many concepts there are; no configuration says it.
const CONCEPTS: usize = 17;
/// How many of them need special care.
const SPECIAL_CONCEPTS: usize = 3;

/// The checker.
#[derive(Clone, Debug)]
pub struct SafetyChecker {
    config: VisionConfig,
    vision: VisionModel,
    projection: Projection,
    concepts: Concepts,
    special_care: Concepts,
}

/// Places in the space of images, and how near is too near.
#[derive(Clone, Debug)]
struct Concepts {
    /// `[concepts, projection]`.
    embeds: Tensor,
    /// Cosines.
    limits: Vec<f64>,
}

/// What the checker says about one image.
#[derive(Clone, Debug, PartialEq)]
pub struct SafetyScores {
    /// By how much of a cosine each concept's limit is passed, to three decimals; above 0 the image is unsafe.
    pub concepts: Vec<f64>,
    /// The same for the concepts that need special care. Where one is above 0, those behind it and all of `concepts`
    /// have been raised by 0.01.
    pub special_care: Vec<f64>,
}

impl SafetyScores {
    /// The concept whose limit is passed by most, and by how much; none without concepts.
    pub fn worst(&self) -> Option<(usize, f64)> {
        let scores = self.concepts.iter().copied().enumerate();
        scores.reduce(|worst, other| if other.1 > worst.1 { other } else { worst })
    }

    /// Whether no limit is passed.
    pub fn is_safe(&self) -> bool {
        self.concepts.iter().all(|score| *score <= 0.0)
    }
}

impl SafetyChecker {
    /// The checker in a folder with `config.json` and `model.safetensors`.
    ///
    /// # Errors
    /// A key or value in the configuration that is not supported; a tensor that is missing, unexpected or misshapen;
    /// weights that are a pickle. Each names the file.
    pub fn from_pretrained(dir: &Path, device: &Device, options: LoadOptions) -> NnResult<Self> {
        let config = VisionConfig::read(&dir.join("config.json"))?;
        load::weights(dir, device, options, |scope| Self::new(&config, scope))
    }

    fn new(config: &VisionConfig, scope: &Scope) -> NnResult<Self> {
        let (width, projection) = (config.transformer.width, config.projection);
        let concepts = |name: &str, limits: &str, count: usize| {
            let embeds = scope.constant(name, &[count, projection], Init::Ones)?;
            let limits = scope.constant(limits, &[count], Init::Ones)?.to_vec1::<f32>()?;
            Ok::<_, Error>(Concepts { embeds, limits: limits.into_iter().map(f64::from).collect() })
        };
        Ok(Self {
            config: *config,
            vision: VisionModel::new(config, &load::inner(&scope.sub("vision_model"), "vision_model"))?,
            projection: Projection::new(&scope.sub("visual_projection"), width, projection)?,
            concepts: concepts("concept_embeds", "concept_embeds_weights", CONCEPTS)?,
            special_care: concepts("special_care_embeds", "special_care_embeds_weights", SPECIAL_CONCEPTS)?,
        })
    }

    /// The image transformer's shape.
    pub fn config(&self) -> &VisionConfig {
        &self.config
    }

    /// `images` `[batch, 3, image, image]`, normalised as the checker's feature extractor says.
    ///
    /// # Errors
    /// Images of another size.
    pub fn check(&self, images: &Tensor) -> Result<Vec<SafetyScores>> {
        let Some(pooled) = self.vision.forward(images)?.pooled else {
            bail!("the safety checker's image transformer has no pooled output");
        };
        let embeds = self.projection.forward(&pooled)?;
        let (special, concepts) = (self.special_care.cosines(&embeds)?, self.concepts.cosines(&embeds)?);
        let scores = |(special, concepts): (&Vec<f32>, &Vec<f32>)| {
            let mut adjustment = 0.0;
            let mut special_care = Vec::with_capacity(special.len());
            for (cosine, limit) in special.iter().zip(&self.special_care.limits) {
                let score = rounded(f64::from(*cosine) - limit + adjustment);
                if score > 0.0 {
                    adjustment = SPECIAL_CARE;
                }
                special_care.push(score);
            }
            let beyond = |(cosine, limit): (&f32, &f64)| rounded(f64::from(*cosine) - limit + adjustment);
            SafetyScores { concepts: concepts.iter().zip(&self.concepts.limits).map(beyond).collect(), special_care }
        };
        Ok(special.iter().zip(&concepts).map(scores).collect())
    }
}

impl Concepts {
    /// `[images][concepts]`.
    fn cosines(&self, embeds: &Tensor) -> Result<Vec<Vec<f32>>> {
        cosines(embeds, &self.embeds)?.to_vec2()
    }
}

/// To three decimals, as diffusers' `round(score, 3)`.
fn rounded(score: f64) -> f64 {
    (score * 1000.0).round_ties_even() / 1000.0
}
