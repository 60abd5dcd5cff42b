//! What the job says about recognisers: `{type: onnx, path: colour.onnx, attribute: colour, classes: [red, blue], ...}`.

use std::collections::BTreeMap;
use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A model that says which value of an attribute an image shows.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "type", rename_all = "kebab-case")]
pub enum RecogniserConfig {
    /// The classifier that is trained on the job's own real images.
    Trained(TrainedConfig),
    /// A classifier in an ONNX file.
    Onnx(OnnxConfig),
    /// CLIP or SigLIP, asked in words.
    Clip(ZeroShotConfig),
}

/// The classifier that is trained on the job's own real images; it covers every attribute.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TrainedConfig {}

/// A classifier of one attribute in an ONNX file.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct OnnxConfig {
    /// The ONNX file, which holds its weights itself.
    pub path: PathBuf,
    /// The attribute that the classifier recognises.
    pub attribute: String,
    /// The attribute's values in the order of the classifier's outputs.
    pub classes: Vec<String>,
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

/// How an image becomes a network's input: resized (bilinear, as Pillow does), scaled, then normalised.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ImageInput {
    /// Width in pixels to which every image is brought.
    #[schemars(range(min = 1, max = 4096))]
    pub width: usize,
    /// Height in pixels to which every image is brought.
    #[schemars(range(min = 1, max = 4096))]
    pub height: usize,
    /// The order of the dimensions.
    #[serde(default)]
    pub layout: Layout,
    /// The order of the colours, or shades of grey.
    #[serde(default)]
    pub colour: Colour,
    /// What is subtracted from each colour after scaling, in the order of `colour`; 0 by default.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub mean: Vec<f32>,
    /// What each colour is divided by then, in the order of `colour`; 1 by default.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub std: Vec<f32>,
    /// What the values 0 to 255 of a pixel are multiplied with first; 1/255 by default.
    #[serde(default = "one_in_255")]
    pub scale: f32,
}

fn one_in_255() -> f32 {
    1.0 / 255.0
}

/// The order of an input's dimensions.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Layout {
    /// `[batch, colours, height, width]`.
    #[default]
    Nchw,
    /// `[batch, height, width, colours]`.
    Nhwc,
}

/// The colours of an input.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Colour {
    /// Red, green, blue.
    #[default]
    Rgb,
    /// Blue, green, red.
    Bgr,
    /// Brightness alone.
    Grey,
}

impl Colour {
    /// Numbers in a pixel.
    pub fn channels(self) -> usize {
        match self {
            Self::Rgb | Self::Bgr => 3,
            Self::Grey => 1,
        }
    }
}

/// What a classifier's outputs are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum OutputKind {
    /// Any numbers, of which softmax makes probabilities.
    Logits,
    /// Probabilities that sum to one.
    Probabilities,
}

/// CLIP or SigLIP in a local folder as transformers writes it, asked in words.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ZeroShotConfig {
    /// The folder, with `config.json`, `model.safetensors` and a tokenizer.
    pub path: PathBuf,
    /// For each attribute to recognise a sentence with `{value}` in it, or several whose mean counts.
    pub prompts: BTreeMap<String, Prompts>,
    /// For an attribute the words that stand for its values in the sentences, where the values themselves would not do.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub words: BTreeMap<String, BTreeMap<String, String>>,
}

/// A sentence with `{value}` in it, or several.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(untagged, expecting = "neither a sentence nor a list of sentences")]
pub enum Prompts {
    /// One sentence.
    One(String),
    /// Several sentences, whose mean counts.
    Many(Vec<String>),
}

impl Prompts {
    /// The sentences.
    pub fn sentences(&self) -> &[String] {
        match self {
            Self::One(sentence) => std::slice::from_ref(sentence),
            Self::Many(sentences) => sentences,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_recogniser_is_a_map_that_names_its_type() {
        let texts = [
            r#"{"type":"trained"}"#,
            r#"{"type":"clip","path":"clip","prompts":{"colour":"a photo of a {value} object","kind":["a {value}","one {value}"]}}"#,
            r#"{"type":"onnx","path":"a.onnx","attribute":"colour","classes":["red","blue"],"input":{"width":32,"height":24},"output":"logits"}"#,
        ];
        let parsed: Vec<RecogniserConfig> = texts.iter().map(|text| serde_json::from_str(text).unwrap()).collect();
        let RecogniserConfig::Onnx(onnx) = &parsed[2] else { panic!("{parsed:?}") };
        assert_eq!((onnx.input.layout, onnx.input.colour, onnx.input.scale), (Layout::Nchw, Colour::Rgb, 1.0 / 255.0));
        let RecogniserConfig::Clip(clip) = &parsed[1] else { panic!("{parsed:?}") };
        assert_eq!(clip.prompts["kind"].sentences().len(), 2);
        for config in parsed {
            let back: RecogniserConfig = serde_json::from_str(&serde_json::to_string(&config).unwrap()).unwrap();
            assert_eq!(back, config);
        }
    }

    #[test]
    fn a_key_that_nobody_knows_is_refused() {
        for (text, expected) in [
            (r#"{"type":"trained","steps":3}"#, "unknown field `steps`"),
            (r#"{"type":"clip","path":"clip","prompt":{}}"#, "unknown field `prompt`"),
            (r#"{"type":"clips"}"#, "unknown variant `clips`"),
            (r#"{"type":"clip","path":"clip","prompts":{"colour":3}}"#, "neither a sentence nor a list"),
        ] {
            let error = serde_json::from_str::<RecogniserConfig>(text).unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        }
    }

    #[test]
    fn the_schema_has_a_sentence_for_every_key() {
        let schema = serde_json::to_value(schemars::schema_for!(RecogniserConfig)).unwrap().to_string();
        for part in ["The ONNX file", "bilinear", "sentence with", "SHA-256", "additionalProperties"] {
            assert!(schema.contains(part), "{part} in {schema}");
        }
    }
}
