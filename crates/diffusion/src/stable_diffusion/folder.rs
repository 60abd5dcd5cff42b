//! A model's folder in diffusers' layout: is it whole, and what is in it?
//!
//! Everything that can be known without reading weights is checked at once: the pipeline and its parts, their
//! configurations and whether those fit together, that all files are there, and that none is cut off. What remains for
//! loading is whether each tensor has the name and the shape that its configuration says.

use std::path::{Path, PathBuf};

use candle_core::Device;
use evenset_nn::models::clip::{ClipTextEncoder, Family as ClipFamily, TextAdditions, Tokenizer};
use evenset_nn::models::{AutoencoderKL, AutoencoderKLConfig, Layout, LoadOptions, UNet2DConditionModel, Variant};
use evenset_nn::{LoraStack, Part};
use serde_json::{Map, Value};

use super::facts::{Configs, ModelFacts};
use super::files::{Files, read_json, read_text, unusable};
use super::index::Index;
use super::source::ModelSource;
use crate::error::Result;
use crate::scheduler::SchedulerJson;

/// Where a folder keeps its noise levels and the solver.
const SCHEDULER: &str = "scheduler/scheduler_config.json";

/// A folder that holds a whole model.
#[derive(Clone, Debug)]
pub struct ModelFolder {
    dir: PathBuf,
    index: Index,
    facts: ModelFacts,
    variant: Variant,
    files: Vec<PathBuf>,
}

impl ModelFolder {
    /// The folder `dir` with a `model_index.json`; `variant` chooses among files of weights where a part has two.
    ///
    /// # Errors
    /// [`DiffusionError::Incomplete`](crate::DiffusionError::Incomplete) lists all files that are missing;
    /// [`DiffusionError::Model`](crate::DiffusionError::Model) names a file that is damaged, a pickle, or says something
    /// that is not supported, and what to do; [`DiffusionError::Network`](crate::DiffusionError::Network) a
    /// configuration that no network here has.
    pub fn open(dir: &Path, variant: Variant) -> Result<Self> {
        Self::open_within(dir, None, variant)
    }

    /// [`open`](Self::open) where no link may lead out of `within`, a path without links.
    pub(super) fn open_within(dir: &Path, within: Option<&Path>, variant: Variant) -> Result<Self> {
        if !dir.is_dir() {
            let is_file = dir.is_file();
            let reason =
                if is_file { "a file, not a folder with a model_index.json" } else { "there is no such folder" };
            return Err(unusable(dir, reason));
        }
        let mut files = Files::new(dir, within, variant);
        files.need("model_index.json")?;
        if !dir.join("model_index.json").is_file() {
            return Err(no_index(dir));
        }
        let index = Index::read(&dir.join("model_index.json"))?;
        let parts: &[&str] = if index.xl { &["", "_2"] } else { &[""] };
        for part in parts {
            files.need_tokenizer(&format!("tokenizer{part}"))?;
            let encoder = format!("text_encoder{part}");
            files.need(&format!("{encoder}/config.json"))?;
            files.need_weights(&encoder, Layout::Transformers)?;
        }
        for part in ["unet", "vae"] {
            files.need(&format!("{part}/config.json"))?;
            files.need_weights(part, Layout::Diffusers)?;
        }
        files.need(SCHEDULER)?;
        let files = files.finish(remedy(dir, within))?;
        let facts = facts_of(dir, &index)?;
        Ok(Self { dir: dir.to_owned(), index, facts, variant, files })
    }

    /// The class of diffusers' pipeline that the folder was saved from.
    pub fn pipeline(&self) -> &str {
        &self.index.pipeline
    }

    /// The folder of the safety checker, where the model has one and it was copied too.
    pub fn safety_checker(&self) -> Option<PathBuf> {
        let dir = self.dir.join("safety_checker");
        (self.index.safety_checker && dir.join("config.json").is_file()).then_some(dir)
    }

    /// `options` with this folder's preference among files.
    fn options(&self, options: LoadOptions) -> LoadOptions {
        options.with_variant(self.variant)
    }
}

/// What the configurations in `dir` say of the model.
pub(super) fn facts_of(dir: &Path, index: &Index) -> Result<ModelFacts> {
    let scheduler = dir.join(SCHEDULER);
    Configs::read(dir, index)?.facts(index, &scheduler, &read_json(&scheduler)?)
}

impl ModelSource for ModelFolder {
    fn path(&self) -> &Path {
        &self.dir
    }

    fn facts(&self) -> &ModelFacts {
        &self.facts
    }

    fn files(&self) -> &[PathBuf] {
        &self.files
    }

    fn scheduler(&self) -> Result<SchedulerJson> {
        SchedulerJson::open(&self.dir.join(SCHEDULER))
    }

    fn unet_config(&self) -> Result<Map<String, Value>> {
        read_json(&self.dir.join("unet/config.json"))
    }

    fn unet(&self, device: &Device, options: LoadOptions, loras: &LoraStack) -> Result<UNet2DConditionModel> {
        let dir = self.dir.join("unet");
        Ok(UNet2DConditionModel::from_pretrained_with(&dir, device, self.options(options), loras)?)
    }

    fn vae(&self, device: &Device, options: LoadOptions) -> Result<AutoencoderKL> {
        Ok(AutoencoderKL::from_pretrained(&self.dir.join("vae"), device, self.options(options))?)
    }

    fn vae_overflows(&self) -> Result<bool> {
        let text = read_text(&self.dir.join("vae/config.json"))?;
        Ok(AutoencoderKLConfig::from_json(&text)?.force_upcast())
    }

    fn text_encoder(
        &self,
        device: &Device,
        options: LoadOptions,
        additions: &TextAdditions<'_>,
    ) -> Result<ClipTextEncoder> {
        let dir = self.dir.join(additions.part.to_string());
        Ok(ClipTextEncoder::from_pretrained_with(&dir, device, self.options(options), additions)?)
    }

    fn tokenizer(&self, part: Part, positions: usize) -> Result<Tokenizer> {
        let dir = self.dir.join(if part == Part::TextEncoder2 { "tokenizer_2" } else { "tokenizer" });
        let length = positions.min(model_max_length(&dir)?.unwrap_or(positions));
        Ok(Tokenizer::from_folder(&dir, ClipFamily::Clip, length)?)
    }

    fn hides_filling(&self, part: Part) -> Result<bool> {
        let config = read_json(&self.dir.join(part.to_string()).join("config.json"))?;
        Ok(config.get("use_attention_mask").and_then(Value::as_bool) == Some(true))
    }
}

/// The length of texts that a tokenizer's own file says.
fn model_max_length(dir: &Path) -> Result<Option<usize>> {
    let path = dir.join("tokenizer_config.json");
    if !path.is_file() {
        return Ok(None);
    }
    let length = read_json(&path)?.get("model_max_length").and_then(Value::as_u64);
    Ok(length.and_then(|length| usize::try_from(length).ok()))
}

/// What a folder without `model_index.json` may be.
fn no_index(dir: &Path) -> crate::DiffusionError {
    let there = |name: &str| dir.join(name).exists();
    let reason = match (there("config.json"), there("unet")) {
        (true, _) => "this is one part of a model (it has a config.json); name the folder above it",
        (_, true) => "model_index.json is missing beside its parts; copy it from where the model comes from",
        _ => {
            "no model_index.json, so no model in diffusers' layout; where a single .safetensors file in it is a whole model, \
             name that file"
        }
    };
    unusable(dir, reason)
}

fn remedy(dir: &Path, within: Option<&Path>) -> String {
    match within {
        Some(_) => "fetch them with `hf download` and the model's name".to_owned(),
        None => {
            format!("copy them from where the model comes from (`hf download NAME --local-dir {}`)", dir.display())
        }
    }
}
