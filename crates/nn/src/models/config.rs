//! What the values in a diffusers `config.json` can be, and how a strict reading reports those that cannot.

use std::path::Path;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::error::{Error, Result};

/// The longest configuration that is read; real ones have a few kilobytes.
const CAP: u64 = 1 << 20;

/// A value for all levels, or one for each.
///
/// The list comes first, as a reading takes the first variant that fits: `[1, 2]` for values that may be lists themselves
/// is a value for each of two levels.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(untagged, expecting = "not one value of the right kind, nor a list of them")]
pub enum OneOrMany<T> {
    /// One for each level, from the highest resolution to the lowest.
    Many(Vec<T>),
    /// The same everywhere.
    One(T),
}

impl<T: Clone + Serialize> OneOrMany<T> {
    /// One value for each of `levels` levels.
    pub(super) fn for_levels(&self, key: &'static str, levels: usize) -> Result<Vec<T>> {
        match self {
            Self::One(value) => Ok(vec![value.clone(); levels]),
            Self::Many(values) if values.len() == levels => Ok(values.clone()),
            Self::Many(values) => {
                Err(unsupported(key, values, format!("a list of {levels} values, one for each level")))
            }
        }
    }
}

/// The size of the images a network was trained on. It has no effect on what a network computes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged, expecting = "neither a size nor a list of height and width")]
pub enum SampleSize {
    /// A square.
    Square(usize),
    /// Height and width.
    Rectangle([usize; 2]),
}

/// The activation function.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Activation {
    /// `x * sigmoid(x)`.
    Silu,
    /// Another name of [`Silu`](Self::Silu).
    Swish,
}

/// How the time embedding enters a residual block.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TimeScaleShift {
    /// Added before the second normalisation.
    Default,
    /// As a scale and a shift after it.
    ScaleShift,
}

/// How a timestep becomes a vector.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TimeEmbedding {
    /// Sines and cosines at geometrically spaced frequencies.
    Positional,
    /// Sines and cosines at random frequencies, which are weights.
    Fourier,
    /// A table with a row for each timestep; [`UNet2DModel`](super::UNet2DModel) only.
    Learned,
}

/// How a class label becomes a vector that is added to the time embedding.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ClassEmbedding {
    /// The label is a number like a timestep.
    Timestep,
    /// The label is the vector.
    Identity,
    /// The label is a vector that two linear maps project.
    Projection,
    /// The label is a vector that one linear map projects.
    SimpleProjection,
}

/// What else is added to the time embedding.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AdditionEmbedding {
    /// SDXL's: a pooled text embedding and numbers for sizes and crops.
    TextTime,
}

/// How maps are halved or doubled behind blocks with plain attention.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Resampling {
    /// By a convolution.
    Conv,
    /// By a residual block.
    Resnet,
}

/// A level of a UNet on the way down.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum UNetDownBlock {
    /// Residual blocks.
    #[serde(alias = "UNetResDownBlock2D")]
    DownBlock2D,
    /// Residual blocks; a residual block halves the size too.
    ResnetDownsampleBlock2D,
    /// Residual blocks, each with self-attention.
    #[serde(alias = "UNetResAttnDownBlock2D")]
    AttnDownBlock2D,
    /// Residual blocks, each with a transformer that sees the text.
    CrossAttnDownBlock2D,
}

/// A level of a UNet on the way up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum UNetUpBlock {
    /// Residual blocks.
    #[serde(alias = "UNetResUpBlock2D")]
    UpBlock2D,
    /// Residual blocks; a residual block doubles the size too.
    ResnetUpsampleBlock2D,
    /// Residual blocks, each with self-attention.
    #[serde(alias = "UNetResAttnUpBlock2D")]
    AttnUpBlock2D,
    /// Residual blocks, each with a transformer that sees the text.
    CrossAttnUpBlock2D,
}

/// The middle of a UNet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum MidBlock {
    /// Residual blocks, in a [`UNet2DModel`](super::UNet2DModel) with self-attention between them.
    UNetMidBlock2D,
    /// Residual blocks with a transformer that sees the text between them.
    UNetMidBlock2DCrossAttn,
}

/// A level of an autoencoder's encoder.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum VaeDownBlock {
    /// Residual blocks.
    DownEncoderBlock2D,
    /// Residual blocks, each with self-attention.
    AttnDownEncoderBlock2D,
}

/// A level of an autoencoder's decoder.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum VaeUpBlock {
    /// Residual blocks.
    UpDecoderBlock2D,
    /// Residual blocks, each with self-attention.
    AttnUpDecoderBlock2D,
}

/// The error for a value that no network of this crate has.
pub(super) fn unsupported(key: &'static str, value: &(impl Serialize + ?Sized), supported: impl Into<String>) -> Error {
    let value = serde_json::to_string(value).unwrap_or_default();
    Error::Unsupported { key: key.into(), value: shortened(value), supported: supported.into() }
}

/// Fails unless `value` is among `supported`.
pub(super) fn only<T: PartialEq + Serialize>(key: &'static str, value: &T, supported: &[T]) -> Result<()> {
    match supported.contains(value) {
        true => Ok(()),
        false => {
            let list: Vec<String> =
                supported.iter().map(|value| serde_json::to_string(value).unwrap_or_default()).collect();
            Err(unsupported(key, value, list.join(" or ")))
        }
    }
}

/// Fails unless `value` lies in `1..=most`.
pub(super) fn in_range(key: &'static str, value: usize, most: usize) -> Result<usize> {
    match (1..=most).contains(&value) {
        true => Ok(value),
        false => Err(unsupported(key, &value, format!("1 to {most}"))),
    }
}

/// The state of a moving average that diffusers writes into `config.json`.
const MOVING_AVERAGE: [&str; 7] =
    ["decay", "min_decay", "optimization_step", "update_after_step", "use_ema_warmup", "inv_gamma", "power"];

/// A configuration of `class` from a file.
pub(super) fn read<T: DeserializeOwned>(path: &Path, class: &str) -> Result<T> {
    let failed = |source| Error::File { path: path.to_owned(), source };
    let length = std::fs::metadata(path).map_err(failed)?.len();
    let located = |error: Error| Error::InFile { path: path.to_owned(), source: Box::new(error) };
    if length > CAP {
        return Err(located(Error::Config(format!("{length} bytes are too many for a configuration"))));
    }
    parse(&std::fs::read_to_string(path).map_err(failed)?, class).map_err(located)
}

/// A configuration of `class` from the text of a `config.json`.
///
/// Keys that start with `_` say who wrote the file; of those only `_class_name` is looked at. diffusers' moving average of
/// weights (`EMAModel.save_pretrained`) leaves its own state among the keys, which says nothing of the network.
pub(super) fn parse<T: DeserializeOwned>(text: &str, class: &str) -> Result<T> {
    let mut values: Map<String, Value> =
        serde_json::from_str(text).map_err(|error| Error::Config(format!("not a JSON object: {error}")))?;
    if let Some(found) = values.get("_class_name").filter(|found| found.as_str() != Some(class)) {
        return Err(Error::Unsupported {
            key: "_class_name".into(),
            value: shortened(found.to_string()),
            supported: format!("\"{class}\""),
        });
    }
    values.retain(|key, _| !key.starts_with('_') && !MOVING_AVERAGE.contains(&key.as_str()));
    let whole = Value::Object(values);
    serde_path_to_error::deserialize(&whole).map_err(|error| {
        let path = error.path().to_string();
        let key = path.split(['.', '[']).next().unwrap_or_default().to_owned();
        let value = whole.get(&key).map(Value::to_string).unwrap_or_default();
        Error::Unsupported { key, value: shortened(value), supported: error.into_inner().to_string() }
    })
}

fn shortened(mut value: String) -> String {
    if let Some((end, _)) = value.char_indices().nth(200) {
        value.truncate(end);
        value.push_str("..");
    }
    value
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Example {
        #[serde(default)]
        act_fn: Option<Activation>,
        #[serde(default)]
        layers: Option<OneOrMany<usize>>,
    }

    fn message(text: &str) -> String {
        parse::<Example>(text, "Example").unwrap_err().to_string()
    }

    #[test]
    fn names_key_and_value_that_are_not_supported() {
        let gelu = message(r#"{"act_fn": "gelu"}"#);
        assert!(gelu.contains("act_fn") && gelu.contains("gelu") && gelu.contains("silu"), "{gelu}");
        let layers = message(r#"{"layers": "two"}"#);
        assert!(layers.contains("layers") && layers.contains("two"), "{layers}");
        let unknown = message(r#"{"colour": 3}"#);
        assert!(unknown.contains("colour") && unknown.contains('3') && unknown.contains("act_fn"), "{unknown}");
        let class = message(r#"{"_class_name": "Other"}"#);
        assert!(class.contains("_class_name") && class.contains("Other") && class.contains("Example"), "{class}");
        assert!(message("[1]").contains("JSON object"));
    }

    #[test]
    fn ignores_keys_that_start_with_an_underscore() {
        let text = r#"{"_class_name": "Example", "_diffusers_version": "0.1", "_name_or_path": "x", "layers": [1, 2]}"#;
        let example: Example = parse(text, "Example").unwrap();
        assert_eq!((example.act_fn, example.layers), (None, Some(OneOrMany::Many(vec![1, 2]))));
    }
}
