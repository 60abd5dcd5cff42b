//! A model as a job names it.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use candle_core::{DType, Device};
use evenset_core::Progress;
use evenset_nn::LoraStack;
use evenset_nn::models::Variant;
use evenset_nn::models::clip::LearnedToken;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::components::Additions;
use super::control::{ControlConfig, one};
use super::facts::{ModelFacts, Prediction};
use super::fetch::{Hub, Kind};
use super::files::unusable;
use super::hub::{self, HubCache, HubId};
use super::model::StableDiffusion;
use super::network::{self, NetworkFolder};
use super::prompt::PromptOptions;
use super::settings::{DeepCache, DrawSettings};
use super::single_file::ModelFile;
use super::source::ModelSource;
use crate::error::{DiffusionError, Result};

/// A Stable Diffusion model (1.x, 2.x, XL, their Turbo and latent consistency forms) from weights on this machine.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct StableDiffusionConfig {
    /// Required: a folder in diffusers' layout (with `model_index.json`), a single `.safetensors` file that holds a whole
    /// model, or a model of the Hugging Face hub, `owner/name` or `owner/name@revision`, in the local hub cache.
    pub path: String,
    /// Whether a model, ControlNet or small decoder of the hub that is not in the local cache, or not whole, is fetched.
    /// Default: false.
    pub download: bool,
    /// What the network in a single file predicts: required for Stable Diffusion 2, whose files do not show it. Default: for
    /// 1.x and XL `epsilon`, unless the file itself says `v-prediction`. A folder says it in its `scheduler_config.json`.
    pub prediction: Option<StatedPrediction>,
    /// Whether the `fp16` files are read where the folder has weights twice. Default: false.
    pub fp16_files: bool,
    /// Number type in which weights are kept: `f32`, or `f16` and `bf16` at half the memory. Default: f32.
    pub dtype: Precision,
    /// Width of the images in pixels, a multiple of 8. Default: what the model was trained on.
    pub width: Option<u32>,
    /// Height of the images in pixels, a multiple of 8. Default: what the model was trained on.
    pub height: Option<u32>,
    /// Longest side in pixels at which gates and classifiers look at images. Default: 64.
    #[schemars(range(min = 8, max = 1024))]
    pub resolution: Option<u32>,
    /// LoRAs that are added to the weights, in this order.
    pub loras: Vec<LoraConfig>,
    /// Words by textual inversion.
    pub words: Vec<WordConfig>,
    /// ControlNets: every image follows a picture that belongs to a real image, so the job needs `guides` for every
    /// candidate.
    pub controls: Vec<ControlConfig>,
    /// How prompts are read.
    pub prompts: PromptOptions,
    /// How far guided predictions are brought back to the contrast of unguided ones, 0 to 1. Default: 0.
    #[schemars(range(min = 0.0, max = 1.0))]
    pub guidance_rescale: f64,
    /// Takes the network's deep features from the call before at most calls: faster, and a little coarser. Default: none.
    pub deep_cache: Option<DeepCache>,
    /// A small decoder (diffusers' `AutoencoderTiny`, such as `madebyollin/taesd`) that decodes in place of the model's own,
    /// faster and a little coarser, for previews: a folder, or a model of the Hugging Face hub in the local
    /// cache. Default: none.
    pub small_decoder: Option<String>,
}

/// What the denoising network in a single file predicts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum StatedPrediction {
    /// The noise.
    Epsilon,
    /// The velocity: noise and image, weighted by the noise level.
    VPrediction,
}

impl From<StatedPrediction> for Prediction {
    fn from(stated: StatedPrediction) -> Self {
        match stated {
            StatedPrediction::Epsilon => Self::Epsilon,
            StatedPrediction::VPrediction => Self::V,
        }
    }
}

/// The number type of weights.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Precision {
    /// 32 bits.
    #[default]
    F32,
    /// 16 bits.
    F16,
    /// 16 bits with the range of 32.
    Bf16,
}

impl From<Precision> for DType {
    fn from(precision: Precision) -> Self {
        match precision {
            Precision::F32 => Self::F32,
            Precision::F16 => Self::F16,
            Precision::Bf16 => Self::BF16,
        }
    }
}

/// A LoRA.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct LoraConfig {
    /// A `.safetensors` file in diffusers', PEFT's or kohya's naming.
    pub path: PathBuf,
    /// What its effect is multiplied with. Default: 1.
    #[serde(default = "one")]
    pub weight: f64,
}

/// A word that was learned from images.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct WordConfig {
    /// A `.safetensors` file such as `learned_embeds.safetensors`.
    pub path: PathBuf,
    /// The word in prompts. Default: the one that it was learned under.
    pub word: Option<String>,
}

impl StableDiffusionConfig {
    /// The model in this folder or file, or of this name in the hub's cache, with all defaults.
    pub fn at(path: impl Into<String>) -> Self {
        Self { path: path.into(), ..Self::default() }
    }

    /// Says which setting is impossible before any file is opened.
    ///
    /// # Errors
    /// [`DiffusionError::Setting`].
    pub fn validate(&self) -> Result<()> {
        let fail = |key, reason: String| Err(DiffusionError::Setting { key, reason });
        if self.path.is_empty() {
            let reason =
                "missing; name a folder in diffusers' layout, a .safetensors file or a hub id such as owner/name";
            return fail("path", reason.into());
        }
        if let Some(side) = self.resolution.filter(|side| !(8..=1024).contains(side)) {
            return fail("resolution", format!("{side} is not between 8 and 1024"));
        }
        if !(0.0..=1.0).contains(&self.guidance_rescale) {
            return fail("guidance_rescale", format!("{} is not between 0 and 1", self.guidance_rescale));
        }
        self.deep_cache.iter().try_for_each(DeepCache::validate)?;
        self.controls.iter().try_for_each(ControlConfig::validate)
    }

    /// How its images are drawn where nothing else is said.
    pub fn settings(&self, facts: &ModelFacts) -> DrawSettings {
        let default = DrawSettings::of(facts);
        let side = |side: Option<u32>, default: usize| side.map_or(default, |side| side as usize);
        DrawSettings {
            height: side(self.height, default.height),
            width: side(self.width, default.width),
            guidance_rescale: self.guidance_rescale,
            deep_cache: self.deep_cache,
            prompts: self.prompts,
            controls: self.controls.iter().map(ControlConfig::settings).collect(),
            ..default
        }
    }

    /// The folder or file, checked to be whole, without reading its weights.
    ///
    /// # Errors
    /// Those of [`hub::open`], [`ModelFile::open`] and [`ModelSource::scheduler`]; a `prediction` for a folder.
    pub fn source(&self) -> Result<Box<dyn ModelSource>> {
        let path = Path::new(&self.path);
        let source: Box<dyn ModelSource> = match (ModelFile::is_meant(path), self.prediction) {
            (true, stated) => Box::new(ModelFile::open(path, stated.map(Prediction::from))?),
            (false, stated) => {
                let folder = hub::open(&self.path, cache().as_ref(), self.variant())?;
                if stated.is_some() {
                    let reason = "`prediction` is for single files; a folder's scheduler/scheduler_config.json says what \
                                  its network predicts; remove it";
                    return Err(unusable(folder.path(), reason));
                }
                Box::new(folder)
            }
        };
        source.scheduler()?;
        Ok(source)
    }

    /// With `download`, fetches what is missing of a model of the hub, of its ControlNets and of its small decoder.
    ///
    /// # Errors
    /// Those of [`Hub::from_environment`] and [`Hub::fetch`].
    pub fn fetch(&self, progress: &dyn Progress) -> Result<()> {
        let (true, Some(cache)) = (self.download, cache()) else { return Ok(()) };
        let fetch = |path: &str, kind: Kind, missing: bool| match HubId::parse(path).filter(|_| missing) {
            Some(id) if !Path::new(path).exists() => {
                Hub::from_environment(environment)?.fetch(&id, kind, self.variant(), &cache, progress)
            }
            _ => Ok(()),
        };
        fetch(&self.path, Kind::Pipeline, self.source().is_err_and(|error| error.is_missing()))?;
        let Ok(source) = self.source() else { return Ok(()) };
        for control in &self.controls {
            let missing =
                control.open(source.as_ref(), Some(&cache), self.variant()).is_err_and(|error| error.is_missing());
            fetch(&control.path, Kind::Network, missing)?;
        }
        if let Some(small) = &self.small_decoder {
            let missing = self.small_decoder_folder(source.facts()).is_err_and(|error| error.is_missing());
            fetch(small, Kind::Network, missing)?;
        }
        Ok(())
    }

    fn variant(&self) -> Variant {
        if self.fp16_files { Variant::Fp16 } else { Variant::Whole }
    }

    /// The folders of the ControlNets, checked to be whole and to belong to the model.
    fn control_folders(&self, model: &dyn ModelSource) -> Result<Vec<NetworkFolder>> {
        let cache = cache();
        self.controls.iter().map(|control| control.open(model, cache.as_ref(), self.variant())).collect()
    }

    /// The folder of the small decoder, checked likewise.
    fn small_decoder_folder(&self, facts: &ModelFacts) -> Result<Option<NetworkFolder>> {
        let open = |name: &String| network::small_decoder(name, facts, cache().as_ref(), self.variant());
        self.small_decoder.as_ref().map(open).transpose()
    }

    /// Every file that the images depend on: the model's, ControlNets', the small decoder's, LoRAs and learned words.
    ///
    /// # Errors
    /// As [`source`](Self::source), of a ControlNet and a small decoder too; [`DiffusionError::Model`] for one of another base
    /// model.
    pub fn files(&self) -> Result<Vec<PathBuf>> {
        let source = self.source()?;
        let mut files = source.files().to_vec();
        files.extend(self.control_folders(source.as_ref())?.into_iter().flat_map(|control| control.files));
        files.extend(self.small_decoder_folder(source.facts())?.into_iter().flat_map(|decoder| decoder.files));
        files.extend(self.loras.iter().map(|lora| lora.path.clone()));
        files.extend(self.words.iter().map(|word| word.path.clone()));
        Ok(files)
    }

    /// The model with its ControlNets, small decoder, LoRAs and words.
    ///
    /// # Errors
    /// Those of [`StableDiffusion::load`] and [`files`](Self::files), of LoRAs and of learned words.
    pub fn load(&self, device: &Device) -> Result<StableDiffusion> {
        let source = self.source()?;
        let controls = self.control_folders(source.as_ref())?.into_iter().map(|control| control.dir).collect();
        let small_decoder = self.small_decoder_folder(source.facts())?.map(|decoder| decoder.dir);
        let word = |word: &WordConfig| LearnedToken::read(&word.path, word.word.as_deref());
        let additions = Additions {
            loras: LoraStack::open(self.loras.iter().map(|lora| (lora.path.clone(), lora.weight)))?,
            learned: self.words.iter().map(word).collect::<evenset_nn::Result<_>>()?,
            controls,
            small_decoder,
            variant: self.variant(),
        };
        StableDiffusion::load(source, &additions, device, self.dtype.into())
    }

    /// A short name for provenance columns: the hub id or the folder's or file's name, with those of a small decoder, LoRAs and
    /// ControlNets, and the interval and branch of reused features.
    pub fn id(&self) -> String {
        let stem = |path: &Path| path.file_stem().map_or_else(String::new, |stem| stem.to_string_lossy().into_owned());
        let loras = self.loras.iter().map(|lora| (stem(&lora.path), lora.weight));
        let controls = self.controls.iter().map(|control| (short(&control.path), control.weight));
        let small = self.small_decoder.iter().map(|path| short(path));
        let deep = self.deep_cache.iter().map(|deep| format!("DeepCache {}/{}", deep.interval, deep.branch));
        let base = small.chain(deep).fold(short(&self.path), |name, other| format!("{name} + {other}"));
        loras.chain(controls).fold(base, |name, (other, weight)| format!("{name} + {other} x {weight}"))
    }
}

/// A folder's or file's own name, or the hub id.
fn short(model: &str) -> String {
    let path = Path::new(model);
    let name = match (path.is_dir(), path.is_file()) {
        (true, _) => path.file_name(),
        (_, true) => path.file_stem(),
        _ => None,
    };
    name.map_or_else(|| model.to_owned(), |name| name.to_string_lossy().into_owned())
}

/// The hub's cache on this machine.
fn cache() -> Option<HubCache> {
    HubCache::from_environment(environment)
}

fn environment(name: &str) -> Option<OsString> {
    std::env::var_os(name)
}
