//! The shapes of CLIP's and SigLIP's transformers, from the `config.json` that transformers writes.
//!
//! transformers fills these files with keys of its base class that say nothing of the network, and with others in every
//! release: unknown keys are passed over. What decides the network is read and checked, and every tensor's shape is
//! checked against it afterwards.

use std::path::Path;

use serde::Deserialize;
use serde_json::{Map, Value};

use super::activation::Activation;
use crate::error::{Error, Result};
use crate::models::config::{in_range, only, read, unsupported};

/// Bounds on sizes: far above every published model, far below what memory could not hold.
const WIDEST: usize = 1 << 14;
const DEEPEST: usize = 256;
const LARGEST_VOCABULARY: usize = 1 << 20;
const MOST_POSITIONS: usize = 1 << 14;
const LARGEST_IMAGE: usize = 4096;

/// Which of the two kinds of models.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    /// Radford et al. 2021: a causal text transformer read at its end token, a class token among the image's patches,
    /// softmax over texts.
    Clip,
    /// Zhai et al. 2023: a text transformer without a mask read at its last token, attention pooling over the patches, a
    /// sigmoid for each pair of image and text.
    Siglip,
}

/// The layers of a transformer.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct TransformerConfig {
    /// Numbers in a token.
    pub width: usize,
    /// Numbers in a feed-forward layer.
    pub hidden: usize,
    /// Layers.
    pub layers: usize,
    /// Heads of attention in a layer; divides `width`.
    pub heads: usize,
    /// Between the two maps of a feed-forward layer.
    pub activation: Activation,
    /// Added to variances in normalisations.
    pub eps: f64,
}

/// A text transformer.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct TextConfig {
    /// Its kind.
    pub family: Family,
    /// Its layers.
    pub transformer: TransformerConfig,
    /// Number of tokens that have an embedding.
    pub vocabulary: usize,
    /// The most tokens in a text.
    pub positions: usize,
    /// The token at which a CLIP text is read: the first one with this number, or where it is 2 (as old files say, whatever
    /// the vocabulary) the first one with the highest number.
    pub eos: u32,
    /// Numbers in a text's embedding.
    pub projection: usize,
}

/// An image transformer.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct VisionConfig {
    /// Its kind.
    pub family: Family,
    /// Its layers.
    pub transformer: TransformerConfig,
    /// Colours of an image.
    pub channels: usize,
    /// Height and width of an image in pixels.
    pub image: usize,
    /// Height and width of a patch in pixels.
    pub patch: usize,
    /// Numbers in an image's embedding.
    pub projection: usize,
    /// Whether a SigLIP model pools its tokens by attention; without, it has no pooled output.
    pub head: bool,
}

impl VisionConfig {
    /// Patches of an image.
    pub fn patches(&self) -> usize {
        (self.image / self.patch).pow(2)
    }
}

/// Both transformers.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ClipConfig {
    /// The text transformer.
    pub text: TextConfig,
    /// The image transformer.
    pub vision: VisionConfig,
}

/// A `config.json` of either transformer; what is not written is a default of its class.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Written {
    vocab_size: Option<usize>,
    hidden_size: Option<usize>,
    intermediate_size: Option<usize>,
    projection_dim: Option<usize>,
    projection_size: Option<usize>,
    num_hidden_layers: Option<usize>,
    num_attention_heads: Option<usize>,
    max_position_embeddings: Option<usize>,
    num_channels: Option<usize>,
    image_size: Option<usize>,
    patch_size: Option<usize>,
    hidden_act: Option<String>,
    layer_norm_eps: Option<f64>,
    eos_token_id: Option<u32>,
    vision_use_head: Option<bool>,
}

impl Written {
    fn parse(values: Value) -> Result<Self> {
        serde_path_to_error::deserialize(&values).map_err(|error| Error::Unsupported {
            key: error.path().to_string(),
            value: "a value of another kind".into(),
            supported: error.into_inner().to_string(),
        })
    }

    fn transformer(&self, family: Family, [width, hidden, heads]: [usize; 3]) -> Result<TransformerConfig> {
        let (activation, eps) = match family {
            Family::Clip => ("quick_gelu", 1e-5),
            Family::Siglip => ("gelu_pytorch_tanh", 1e-6),
        };
        let width = in_range("hidden_size", self.hidden_size.unwrap_or(width), WIDEST)?;
        let heads = in_range("num_attention_heads", self.num_attention_heads.unwrap_or(heads), width)?;
        if !width.is_multiple_of(heads) {
            return Err(unsupported("num_attention_heads", &heads, format!("a divisor of `hidden_size` {width}")));
        }
        let eps = self.layer_norm_eps.unwrap_or(eps);
        if !(eps > 0.0 && eps < 1.0) {
            return Err(unsupported("layer_norm_eps", &eps, "a small positive number"));
        }
        Ok(TransformerConfig {
            width,
            hidden: in_range("intermediate_size", self.intermediate_size.unwrap_or(hidden), 8 * WIDEST)?,
            layers: in_range("num_hidden_layers", self.num_hidden_layers.unwrap_or(12), DEEPEST)?,
            heads,
            activation: Activation::named(self.hidden_act.as_deref().unwrap_or(activation))?,
            eps,
        })
    }

    fn text(&self, family: Family, projection: Option<usize>) -> Result<TextConfig> {
        let (sizes, vocabulary, positions) = match family {
            Family::Clip => ([512, 2048, 8], 49_408, 77),
            Family::Siglip => ([768, 3072, 12], 32_000, 64),
        };
        let transformer = self.transformer(family, sizes)?;
        let projection = match family {
            Family::Clip => projection.or(self.projection_dim).unwrap_or(512),
            Family::Siglip => self.projection_size.unwrap_or(transformer.width),
        };
        Ok(TextConfig {
            family,
            transformer,
            vocabulary: in_range("vocab_size", self.vocab_size.unwrap_or(vocabulary), LARGEST_VOCABULARY)?,
            positions: in_range(
                "max_position_embeddings",
                self.max_position_embeddings.unwrap_or(positions),
                MOST_POSITIONS,
            )?,
            eos: self.eos_token_id.unwrap_or(49_407),
            projection: in_range("projection_dim", projection, WIDEST)?,
        })
    }

    fn vision(&self, family: Family, projection: Option<usize>) -> Result<VisionConfig> {
        let transformer = self.transformer(family, [768, 3072, 12])?;
        let patch = match family {
            Family::Clip => 32,
            Family::Siglip => 16,
        };
        let image = in_range("image_size", self.image_size.unwrap_or(224), LARGEST_IMAGE)?;
        let projection = match family {
            Family::Clip => projection.or(self.projection_dim).unwrap_or(512),
            Family::Siglip => transformer.width,
        };
        let channels = self.num_channels.unwrap_or(3);
        only("num_channels", &channels, &[3])?;
        let config = VisionConfig {
            family,
            transformer,
            channels,
            image,
            patch: in_range("patch_size", self.patch_size.unwrap_or(patch), image)?,
            projection: in_range("projection_dim", projection, WIDEST)?,
            head: self.vision_use_head.unwrap_or(true),
        };
        in_range("image_size / patch_size squared", config.patches(), 4 * MOST_POSITIONS)?;
        Ok(config)
    }
}

/// A part of a configuration: `text_config`, over which old files write `text_config_dict`.
fn part(whole: &Map<String, Value>, name: &'static str) -> Result<Written> {
    let mut values = match whole.get(name) {
        None | Some(Value::Null) => Map::new(),
        Some(Value::Object(values)) => values.clone(),
        Some(other) => return Err(unsupported(name, other, "a map")),
    };
    if let Some(Value::Object(over)) = whole.get(&format!("{name}_dict")) {
        values.extend(over.clone());
    }
    Written::parse(Value::Object(values))
}

/// A part that must be there: without it this would be any file's configuration.
fn written_part(whole: &Map<String, Value>, name: &'static str) -> Result<Written> {
    match whole.get(name) {
        None => Err(Error::Config(format!("`{name}` is missing; the configuration of a `CLIPModel` has it"))),
        Some(_) => part(whole, name),
    }
}

/// The map in a file.
fn whole(path: &Path) -> Result<Map<String, Value>> {
    read(path, "CLIPModel")
}

/// An error of `path`'s contents.
pub(super) fn located<T>(path: &Path, result: Result<T>) -> Result<T> {
    result.map_err(|error| Error::InFile { path: path.to_owned(), source: Box::new(error) })
}

fn kind(whole: &Map<String, Value>) -> &str {
    whole.get("model_type").and_then(Value::as_str).unwrap_or("clip")
}

fn projection(whole: &Map<String, Value>) -> Result<Option<usize>> {
    match whole.get("projection_dim") {
        None | Some(Value::Null) => Ok(None),
        Some(value) => match value.as_u64().and_then(|value| usize::try_from(value).ok()) {
            Some(value) => Ok(Some(value)),
            None => Err(unsupported("projection_dim", value, "a whole number")),
        },
    }
}

impl ClipConfig {
    /// From the `config.json` of a `CLIPModel` or `SiglipModel`.
    ///
    /// # Errors
    /// A file that cannot be read, or a key whose value no such model has; both name the file.
    pub fn read(path: &Path) -> Result<Self> {
        let whole = whole(path)?;
        let parse = || {
            let family = match kind(&whole) {
                "clip" => Family::Clip,
                "siglip" => Family::Siglip,
                other => return Err(unsupported("model_type", other, "\"clip\" or \"siglip\"")),
            };
            let projection = projection(&whole)?;
            let text = part(&whole, "text_config")?.text(family, Some(projection.unwrap_or(512)))?;
            let vision = part(&whole, "vision_config")?.vision(family, Some(projection.unwrap_or(512)))?;
            if text.projection != vision.projection {
                let supported = format!("{}, the width of an image's embedding", vision.projection);
                return Err(unsupported("projection_size", &text.projection, supported));
            }
            Ok(Self { text, vision })
        };
        located(path, parse())
    }
}

impl TextConfig {
    /// The first text encoder of Stable Diffusion 1 and XL: OpenAI's CLIP ViT-L/14.
    pub(crate) fn vit_l() -> Self {
        Self::published([768, 3072, 12, 12], Activation::QuickGelu, 768)
    }

    /// The text encoder of Stable Diffusion 2: OpenCLIP's ViT-H/14 without its last layer.
    pub(crate) fn open_vit_h() -> Self {
        Self::published([1024, 4096, 23, 16], Activation::Gelu, 512)
    }

    /// The second text encoder of Stable Diffusion XL: OpenCLIP's ViT-bigG/14.
    pub(crate) fn open_vit_big_g() -> Self {
        Self::published([1280, 5120, 32, 20], Activation::Gelu, 1280)
    }

    fn published([width, hidden, layers, heads]: [usize; 4], activation: Activation, projection: usize) -> Self {
        Self {
            family: Family::Clip,
            transformer: TransformerConfig { width, hidden, layers, heads, activation, eps: 1e-5 },
            vocabulary: 49_408,
            positions: 77,
            eos: 2,
            projection,
        }
    }

    /// From the `config.json` of a `CLIPTextModel`, as diffusers keeps it in `text_encoder`, or of a whole `CLIPModel`.
    ///
    /// # Errors
    /// As [`ClipConfig::read`].
    pub fn read(path: &Path) -> Result<Self> {
        let whole = whole(path)?;
        let parse = || match kind(&whole) {
            "clip_text_model" => Written::parse(Value::Object(whole.clone()))?.text(Family::Clip, None),
            "clip" => written_part(&whole, "text_config")?.text(Family::Clip, Some(projection(&whole)?.unwrap_or(512))),
            other => Err(unsupported("model_type", other, "\"clip_text_model\" or \"clip\"")),
        };
        located(path, parse())
    }
}

impl VisionConfig {
    /// From the `config.json` of a model with a CLIP image transformer: a `CLIPModel`, a `StableDiffusionSafetyChecker`.
    ///
    /// # Errors
    /// As [`ClipConfig::read`].
    pub fn read(path: &Path) -> Result<Self> {
        let whole = whole(path)?;
        let parse = || match kind(&whole) {
            "clip" => {
                written_part(&whole, "vision_config")?.vision(Family::Clip, Some(projection(&whole)?.unwrap_or(512)))
            }
            other => Err(unsupported("model_type", other, "\"clip\"")),
        };
        located(path, parse())
    }
}
