//! `model_index.json`: which of diffusers' pipelines a folder is for, and the class of each of its parts.

use std::path::Path;

use serde_json::{Map, Value};

use super::files::{read_json, unusable};
use crate::error::Result;

/// The pipelines whose parts this crate has, and whether each is XL's.
const PIPELINES: [(&str, bool); 8] = [
    ("StableDiffusionPipeline", false),
    ("StableDiffusionImg2ImgPipeline", false),
    ("StableDiffusionInpaintPipeline", false),
    ("LatentConsistencyModelPipeline", false),
    ("LatentConsistencyModelImg2ImgPipeline", false),
    ("StableDiffusionXLPipeline", true),
    ("StableDiffusionXLImg2ImgPipeline", true),
    ("StableDiffusionXLInpaintPipeline", true),
];

/// Parts and the classes that they can have.
const PARTS: [(&str, &[&str]); 6] = [
    ("vae", &["AutoencoderKL"]),
    ("unet", &["UNet2DConditionModel"]),
    ("text_encoder", &["CLIPTextModel"]),
    ("text_encoder_2", &["CLIPTextModelWithProjection"]),
    ("tokenizer", &["CLIPTokenizer", "CLIPTokenizerFast"]),
    ("tokenizer_2", &["CLIPTokenizer", "CLIPTokenizerFast"]),
];
/// Parts that are only there beside a second text encoder.
const SECOND: [&str; 2] = ["text_encoder_2", "tokenizer_2"];
/// Parts that make no difference to what is drawn.
const BYSTANDERS: [&str; 2] = ["safety_checker", "feature_extractor"];
/// Packages whose classes are meant; anything else is a program that the model brings along.
const LIBRARIES: [&str; 3] = ["diffusers", "transformers", "stable_diffusion"];

/// What the file says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Index {
    /// The pipeline's class.
    pub(super) pipeline: String,
    /// Whether it is XL's, with two text encoders.
    pub(super) xl: bool,
    /// The scheduler's class.
    pub(super) scheduler: String,
    /// Whether a safety checker belongs to it.
    pub(super) safety_checker: bool,
    /// XL: zeros stand for a negative prompt that is not given (`force_zeros_for_empty_prompt`).
    pub(super) zeros_for_no_negative: bool,
}

impl Index {
    /// What that of a published model says, of Stable Diffusion XL or of another version, with these noise levels.
    pub(super) fn published(xl: bool, scheduler: &Map<String, Value>) -> Self {
        let pipeline = if xl { "StableDiffusionXLPipeline" } else { "StableDiffusionPipeline" };
        Self {
            pipeline: pipeline.into(),
            xl,
            scheduler: scheduler.get("_class_name").and_then(Value::as_str).unwrap_or_default().into(),
            safety_checker: false,
            zeros_for_no_negative: xl,
        }
    }

    /// Reads and checks the file: every part is known and of a known class.
    pub(super) fn read(path: &Path) -> Result<Self> {
        let values = read_json(path)?;
        Self::of(&values).map_err(|reason| unusable(path, reason))
    }

    fn of(values: &Map<String, Value>) -> Result<Self, String> {
        let pipeline = values.get("_class_name").and_then(Value::as_str).unwrap_or_default();
        let Some((_, xl)) = PIPELINES.iter().find(|(name, _)| *name == pipeline) else {
            let known: Vec<&str> = PIPELINES.iter().map(|(name, _)| *name).collect();
            return Err(format!("`_class_name` is `{pipeline}`; pipelines that can be run are {}", known.join(", ")));
        };
        let mut index = Self {
            pipeline: pipeline.to_owned(),
            xl: *xl,
            scheduler: String::new(),
            safety_checker: false,
            zeros_for_no_negative: *xl,
        };
        let mut found = Vec::new();
        for (key, value) in values.iter().filter(|(key, _)| !key.starts_with('_')) {
            match value {
                Value::Array(pair) => {
                    if let Some(class) = class_of(key, pair)? {
                        index.take_part(key, class)?;
                        found.push(key.as_str());
                    }
                }
                value => index.take_setting(key, value)?,
            }
        }
        let needed = PARTS.iter().map(|(name, _)| *name).chain(["scheduler"]);
        let absent = |name: &&str| !found.contains(name) && (index.xl || !SECOND.contains(name));
        match needed.filter(absent).collect::<Vec<_>>() {
            absent if absent.is_empty() => Ok(index),
            absent if absent.contains(&"text_encoder") && found.contains(&"text_encoder_2") => {
                Err("it has the second text encoder alone, as XL's refiner does; name the base model".into())
            }
            absent => Err(format!("the pipeline has no part {}; it was saved without", quoted(&absent))),
        }
    }

    fn take_part(&mut self, name: &str, class: &str) -> Result<(), String> {
        match name {
            "scheduler" => self.scheduler = class.to_owned(),
            "safety_checker" => self.safety_checker = true,
            name if BYSTANDERS.contains(&name) => {}
            name => match PARTS.iter().find(|(part, _)| *part == name) {
                Some((part, _)) if SECOND.contains(part) && !self.xl => {
                    return Err(format!("part `{name}` belongs to XL, and the pipeline is `{}`", self.pipeline));
                }
                Some((_, classes)) if classes.contains(&class) => {}
                Some((_, classes)) => {
                    return Err(format!("part `{name}` is `{class}`; it can be {}", quoted(classes)));
                }
                None => {
                    let known: Vec<&str> = PARTS.iter().map(|(name, _)| *name).chain(["scheduler"]).collect();
                    return Err(format!(
                        "part `{name}` (`{class}`) is not supported; supported parts are {} and, without effect, {}",
                        quoted(&known),
                        quoted(&BYSTANDERS)
                    ));
                }
            },
        }
        Ok(())
    }

    fn take_setting(&mut self, key: &str, value: &Value) -> Result<(), String> {
        match (key, value) {
            ("force_zeros_for_empty_prompt", Value::Bool(zeros)) if self.xl => self.zeros_for_no_negative = *zeros,
            ("requires_safety_checker", Value::Bool(_)) | ("requires_aesthetics_score", Value::Bool(false)) => {}
            ("requires_aesthetics_score", Value::Bool(true)) => {
                return Err("`requires_aesthetics_score` is true: this is XL's refiner; name the base model".into());
            }
            (_, Value::Null) => {}
            (key, value) => {
                let mut value = value.to_string();
                value.truncate(value.floor_char_boundary(80));
                return Err(format!("`{key}`: {value} is not supported"));
            }
        }
        Ok(())
    }
}

/// The class in `["diffusers", "AutoencoderKL"]`; none for a part that was left out, `[null, null]`.
fn class_of<'a>(key: &str, pair: &'a [Value]) -> Result<Option<&'a str>, String> {
    match pair {
        [Value::Null, Value::Null] => Ok(None),
        [Value::String(library), Value::String(class)] if LIBRARIES.contains(&library.as_str()) => Ok(Some(class)),
        [Value::String(library), Value::String(class)] => Err(format!(
            "part `{key}` is `{class}` of `{library}`, a program of its own, which is never run; classes of {} are known",
            quoted(&LIBRARIES)
        )),
        _ => Err(format!("part `{key}` is not a pair of a library and a class; copy the file again")),
    }
}

fn quoted(names: &[&str]) -> String {
    names.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn sd() -> Value {
        json!({
            "_class_name": "StableDiffusionPipeline", "_diffusers_version": "0.42.1", "_name_or_path": "x",
            "vae": ["diffusers", "AutoencoderKL"], "unet": ["diffusers", "UNet2DConditionModel"],
            "text_encoder": ["transformers", "CLIPTextModel"], "tokenizer": ["transformers", "CLIPTokenizer"],
            "scheduler": ["diffusers", "PNDMScheduler"], "image_encoder": [null, null],
            "safety_checker": ["stable_diffusion", "StableDiffusionSafetyChecker"],
            "feature_extractor": ["transformers", "CLIPImageProcessor"], "requires_safety_checker": true,
        })
    }

    fn with(changes: &Value) -> Result<Index, String> {
        let mut values = sd();
        for (key, value) in changes.as_object().unwrap() {
            values[key] = value.clone();
        }
        Index::of(values.as_object().unwrap())
    }

    #[test]
    fn the_parts_of_a_pipeline_are_read() {
        let index = with(&json!({})).unwrap();
        assert_eq!((index.xl, index.scheduler.as_str(), index.safety_checker), (false, "PNDMScheduler", true));
        let xl = json!({
            "_class_name": "StableDiffusionXLPipeline", "tokenizer_2": ["transformers", "CLIPTokenizer"],
            "text_encoder_2": ["transformers", "CLIPTextModelWithProjection"], "safety_checker": [null, null],
            "force_zeros_for_empty_prompt": false,
        });
        let index = with(&xl).unwrap();
        assert_eq!((index.xl, index.safety_checker, index.zeros_for_no_negative), (true, false, false));
    }

    #[test]
    fn what_no_pipeline_here_has_is_refused_by_its_name() {
        for (changes, expected) in [
            (json!({"_class_name": "StableDiffusion3Pipeline"}), "StableDiffusion3Pipeline"),
            (json!({"_class_name": null}), "_class_name"),
            (json!({"text_encoder_3": ["transformers", "T5EncoderModel"]}), "`text_encoder_3` (`T5EncoderModel`)"),
            (json!({"text_encoder": ["transformers", "T5EncoderModel"]}), "`T5EncoderModel`; it can be"),
            (json!({"image_encoder": ["transformers", "CLIPVisionModelWithProjection"]}), "`image_encoder`"),
            (json!({"controlnet": ["diffusers", "ControlNetModel"]}), "`controlnet`"),
            (json!({"vae": ["diffusers", "AutoencoderTiny"]}), "`AutoencoderTiny`"),
            (json!({"unet": ["my_unet", "MyUNet"]}), "`my_unet`, a program"),
            (json!({"unet": [null, null]}), "no part `unet`"),
            (json!({"vae": "AutoencoderKL"}), "`vae`: \"AutoencoderKL\" is not supported"),
            (json!({"vae": ["AutoencoderKL"]}), "not a pair"),
            (json!({"text_encoder_2": ["transformers", "CLIPTextModelWithProjection"]}), "belongs to XL"),
            (json!({"requires_aesthetics_score": true}), "refiner"),
            (json!({"colour": 3}), "`colour`: 3"),
        ] {
            let error = with(&changes).unwrap_err();
            assert!(error.contains(expected), "{changes}: {error}");
        }
        let refiner = json!({
            "_class_name": "StableDiffusionXLImg2ImgPipeline", "tokenizer_2": ["transformers", "CLIPTokenizer"],
            "text_encoder_2": ["transformers", "CLIPTextModelWithProjection"], "text_encoder": [null, null],
            "tokenizer": [null, null],
        });
        assert!(with(&refiner).unwrap_err().contains("refiner"));
    }
}
