//! A whole model in a single file of original names: what is it, and can it be run?
//!
//! Such a file holds tensors and nothing else. Its names and shapes say which model it is; configurations, noise levels and
//! tokenizers are those of the published models.

use std::path::{Path, PathBuf};

use candle_core::Device;
use evenset_nn::models::clip::{ClipTextEncoder, TextAdditions, TextConfig, Tokenizer};
use evenset_nn::models::{
    AutoencoderKL, AutoencoderKLConfig, AutoencoderKLJson, LoadOptions, SampleSize, UNet2DConditionConfig,
    UNet2DConditionJson, UNet2DConditionModel,
};
use evenset_nn::{Base, Error as NnError, Family as FileFamily, LoraStack, Part, SingleFile};
use serde_json::Value;

use super::facts::{Configs, Family, ModelFacts, Prediction};
use super::files::{is_pickle, unread, unusable};
use super::index::Index;
use super::published;
use super::source::ModelSource;
use crate::error::Result;
use crate::scheduler::SchedulerJson;

/// The shapes of the networks in a single file.
#[derive(Clone, Debug)]
pub struct FileShapes {
    /// The denoising network.
    pub unet: UNet2DConditionJson,
    /// The autoencoder.
    pub vae: AutoencoderKLJson,
    /// The first text encoder.
    pub text: TextConfig,
    /// XL: the second one.
    pub text_2: Option<TextConfig>,
}

impl FileShapes {
    /// Those of a published model; none for XL's refiner, which is no model of its own.
    fn published(family: FileFamily) -> Option<Self> {
        let text_2 = family.text_encoder(Part::TextEncoder2);
        Some(Self { unet: family.unet(), vae: family.vae(), text: family.text_encoder(Part::TextEncoder)?, text_2 })
    }
}

/// A single file with a whole model.
#[derive(Clone, Debug)]
pub struct ModelFile {
    file: SingleFile,
    files: [PathBuf; 1],
    facts: ModelFacts,
    scheduler: SchedulerJson,
    unet: UNet2DConditionConfig,
    vae: AutoencoderKLConfig,
    text: TextConfig,
    text_2: Option<TextConfig>,
}

impl ModelFile {
    /// Whether a path means a file rather than a folder.
    pub fn is_meant(path: &Path) -> bool {
        path.is_file() || is_safetensors(path) && !path.is_dir()
    }

    /// A `.safetensors` file with Stable Diffusion 1, 2 or XL, whose network predicts what is `stated`. What the file
    /// shows need not be stated: that of Stable Diffusion 1 and XL is the noise, unless a tensor says that it is `v`.
    ///
    /// # Errors
    /// [`DiffusionError::Model`](crate::DiffusionError::Model) for a file that is cut off, lacks an autoencoder, is another
    /// model's, or shows another prediction than the stated one;
    /// [`DiffusionError::Network`](crate::DiffusionError::Network) for a pickle and for a model that is not known.
    pub fn open(path: &Path, stated: Option<Prediction>) -> Result<Self> {
        let file = read_header(path)?;
        let family = file.family().map_err(unread)?;
        let Some(mut shapes) = FileShapes::published(family) else {
            let reason =
                "XL's refiner, which only takes the last steps of another model; name the file of the base model";
            return Err(unusable(path, reason));
        };
        // Those of Stable Diffusion 2 that predict noise were trained at 512 pixels, the others at 768.
        if family.base == Base::V2 && stated == Some(Prediction::Epsilon) {
            shapes.unet.sample_size = Some(SampleSize::Square(64));
        }
        Self::of(file, &shapes, stated)
    }

    /// The same for a model of other sizes than the published ones.
    ///
    /// # Errors
    /// As [`open`](Self::open), and for shapes that do not fit together or that no network here has.
    pub fn open_as(path: &Path, shapes: &FileShapes, stated: Option<Prediction>) -> Result<Self> {
        Self::of(read_header(path)?, shapes, stated)
    }

    fn of(file: SingleFile, shapes: &FileShapes, stated: Option<Prediction>) -> Result<Self> {
        let path = file.path().to_owned();
        if !file.has_vae() {
            let reason =
                "there is no autoencoder in it; take the file of this model that comes with one (\"baked VAE\")";
            return Err(unusable(&path, reason));
        }
        let vae = shapes.vae.resolve()?;
        let configs = Configs {
            unet: (path.clone(), json_of(&path, &shapes.unet)?),
            vae: vae.clone(),
            text: (path.clone(), shapes.text),
            text_2: shapes.text_2.map(|text| (path.clone(), text)),
        };
        let family = configs.family();
        let prediction = predicted(&file, family, stated)?;
        let scheduler = published::scheduler(family, prediction, file.says_zero_terminal_snr());
        let index = Index::published(family == Family::Xl, &scheduler);
        let facts = ModelFacts { prediction, ..configs.facts(&index, &path, &scheduler)? };
        Ok(Self {
            scheduler: SchedulerJson::parse(&Value::Object(scheduler).to_string(), &path)?,
            unet: shapes.unet.resolve()?,
            text: shapes.text,
            text_2: shapes.text_2,
            files: [path],
            file,
            facts,
            vae,
        })
    }
}

impl ModelSource for ModelFile {
    fn path(&self) -> &Path {
        self.file.path()
    }

    fn facts(&self) -> &ModelFacts {
        &self.facts
    }

    fn files(&self) -> &[PathBuf] {
        &self.files
    }

    fn scheduler(&self) -> Result<SchedulerJson> {
        match self.facts.prediction {
            Some(_) => Ok(self.scheduler.clone()),
            None => Err(unusable(
                self.path(),
                "a single file of Stable Diffusion 2 does not show what its network predicts; say it as `prediction`: \
                 `v-prediction` for models trained at 768 pixels (2.0-v, 2.1), `epsilon` for those at 512 (base, inpainting)",
            )),
        }
    }

    fn unet(&self, device: &Device, options: LoadOptions, loras: &LoraStack) -> Result<UNet2DConditionModel> {
        Ok(UNet2DConditionModel::from_single_file(&self.file, &self.unet, device, options, loras)?)
    }

    fn vae(&self, device: &Device, options: LoadOptions) -> Result<AutoencoderKL> {
        Ok(AutoencoderKL::from_single_file(&self.file, &self.vae, device, options)?)
    }

    fn vae_overflows(&self) -> Result<bool> {
        Ok(self.vae.force_upcast())
    }

    fn text_encoder(
        &self,
        device: &Device,
        options: LoadOptions,
        additions: &TextAdditions<'_>,
    ) -> Result<ClipTextEncoder> {
        let second = self.text_2.as_ref().filter(|_| additions.part == Part::TextEncoder2);
        let config = second.unwrap_or(&self.text);
        Ok(ClipTextEncoder::from_single_file(&self.file, config, device, options, additions)?)
    }

    fn tokenizer(&self, part: Part, positions: usize) -> Result<Tokenizer> {
        Ok(Tokenizer::clip(published::filling(self.facts.family, part), positions)?)
    }

    fn hides_filling(&self, _: Part) -> Result<bool> {
        Ok(false)
    }
}

/// The names and shapes in a file.
fn read_header(path: &Path) -> Result<SingleFile> {
    if !path.is_file() {
        return Err(unusable(path, "there is no such file"));
    }
    if is_pickle(path) {
        return Err(NnError::Pickle { path: path.to_owned() }.into());
    }
    if !is_safetensors(path) {
        let reason =
            "not a model; name a `.safetensors` file that holds a whole one, or a folder with a model_index.json";
        return Err(unusable(path, reason));
    }
    SingleFile::open(path).map_err(unread)
}

fn is_safetensors(path: &Path) -> bool {
    path.extension().is_some_and(|end| end.eq_ignore_ascii_case("safetensors"))
}

/// A configuration as diffusers writes it.
fn json_of(path: &Path, config: &UNet2DConditionJson) -> Result<serde_json::Map<String, Value>> {
    match serde_json::to_value(config) {
        Ok(Value::Object(values)) => Ok(values),
        Ok(_) => Ok(serde_json::Map::new()),
        Err(error) => Err(unusable(path, format!("its shape cannot be written down ({error})"))),
    }
}

/// What the network predicts, by the file, by what is stated, or by what all published models of its family do.
fn predicted(file: &SingleFile, family: Family, stated: Option<Prediction>) -> Result<Option<Prediction>> {
    match (file.says_v_prediction(), stated, family) {
        (true, None | Some(Prediction::V), _) => Ok(Some(Prediction::V)),
        (true, Some(_), _) => {
            Err(unusable(file.path(), "its tensor `v_pred` says that its network predicts v; remove `prediction`"))
        }
        (false, Some(stated), _) => Ok(Some(stated)),
        (false, None, Family::Sd2) => Ok(None),
        (false, None, Family::Sd1 | Family::Xl) => Ok(Some(Prediction::Epsilon)),
    }
}
