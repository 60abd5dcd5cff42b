//! How strong a LoRA was trained to be: `alpha / rank`, where alpha stands in one of four places.

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::{Map, Value};

use super::{Part, refusal};
use crate::error::{Error, Result};

/// The key under which diffusers stores PEFT's configuration in a file.
const ADAPTER: &str = "lora_adapter_metadata";
/// The longest configuration that is read.
const CAP: u64 = 1 << 20;

/// What PEFT's configuration says of one network.
#[derive(Clone, Debug, Default, PartialEq)]
struct Config {
    alpha: Option<f64>,
    /// Ends of layers' names that have an alpha of their own.
    patterns: Vec<(String, f64)>,
    /// Whether the scale is `alpha / sqrt(rank)` (Kalajdzievski 2023).
    by_root: bool,
}

/// The scales of a file's layers.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Scales {
    /// For one network, or (under `None`) for all others.
    configs: BTreeMap<Option<Part>, Config>,
}

impl Scales {
    /// From a file's metadata, or from PEFT's `adapter_config.json` beside an `adapter_model.safetensors`.
    pub(super) fn read(path: &Path, metadata: &BTreeMap<String, String>) -> Result<Self> {
        let wrong = |reason: String| refusal(path, reason);
        if let Some(text) = metadata.get(ADAPTER) {
            let values: Map<String, Value> = serde_json::from_str(text)
                .map_err(|error| wrong(format!("its `{ADAPTER}` is no JSON object ({error}); write the file again")))?;
            return Self::from_adapter(values).map_err(wrong);
        }
        if let Some(text) = metadata.get("lora_alpha") {
            let alpha: f64 =
                text.trim().parse().map_err(|_| wrong(format!("its `lora_alpha` is `{text}`, which is no number")))?;
            let config = Config { alpha: Some(alpha), ..Config::default() };
            return Ok(Self { configs: BTreeMap::from([(None, config)]) });
        }
        let beside = path.with_file_name("adapter_config.json");
        let is_peft = path.file_name().is_some_and(|name| name == "adapter_model.safetensors");
        match is_peft && beside.is_file() {
            true => Self::from_adapter(read_json(&beside)?).map_err(|reason| refusal(&beside, reason)),
            false => Ok(Self::default()),
        }
    }

    /// From PEFT's configuration, whose keys may start with the name of a network.
    fn from_adapter(values: Map<String, Value>) -> Result<Self, String> {
        let mut of_part: BTreeMap<Option<Part>, Map<String, Value>> = BTreeMap::new();
        for (key, value) in values {
            let parts = [Part::UNet, Part::TextEncoder, Part::TextEncoder2];
            let named = parts.into_iter().find_map(|part| {
                let key = key.strip_prefix(&format!("{part}."))?;
                Some((Some(part), key.to_owned()))
            });
            let (part, key) = named.unwrap_or((None, key));
            of_part.entry(part).or_default().insert(key, value);
        }
        let configs = of_part.into_iter().map(|(part, values)| Ok((part, Config::new(&values)?)));
        Ok(Self { configs: configs.collect::<Result<_, String>>()? })
    }

    /// What a layer's product is multiplied by. `alpha` is the layer's own, from a tensor.
    pub(super) fn of(&self, part: Part, module: &str, rank: usize, alpha: Option<f64>) -> f64 {
        let config = self.configs.get(&Some(part)).or_else(|| self.configs.get(&None));
        let pattern = |config: &Config| {
            let fits = |(pattern, _): &&(String, f64)| is_end(module, pattern);
            config.patterns.iter().find(fits).map(|(_, alpha)| *alpha).or(config.alpha)
        };
        let rank = rank as f64;
        let alpha = alpha.or_else(|| config.and_then(pattern));
        match (alpha, config.is_some_and(|config| config.by_root)) {
            (Some(alpha), true) => alpha / rank.sqrt(),
            (Some(alpha), false) => alpha / rank,
            (None, _) => 1.0,
        }
    }
}

impl Config {
    fn new(values: &Map<String, Value>) -> Result<Self, String> {
        let is_set = |key: &str| values.get(key).and_then(Value::as_bool).unwrap_or(false);
        for (key, kind) in
            [("use_dora", "a DoRA"), ("lora_bias", "a LoRA with biases"), ("fan_in_fan_out", "transposed")]
        {
            if is_set(key) {
                return Err(format!("its `{key}` is true: {kind}, which is not supported; use a plain LoRA"));
            }
        }
        if let Some(kind) = values.get("peft_type").and_then(Value::as_str).filter(|kind| *kind != "LORA") {
            return Err(format!("its `peft_type` is {kind}, which is not supported; use a plain LoRA"));
        }
        let number = |key: &str, value: &Value| {
            value.as_f64().ok_or_else(|| format!("its `{key}` is {value}, which is no number; write the file again"))
        };
        let alpha = match values.get("lora_alpha") {
            None | Some(Value::Null) => None,
            Some(value) => Some(number("lora_alpha", value)?),
        };
        let patterns = match values.get("alpha_pattern") {
            None | Some(Value::Null) => Vec::new(),
            Some(Value::Object(patterns)) => {
                let pattern = |(name, value): (&String, &Value)| {
                    let literal = |c: char| c.is_ascii_alphanumeric() || "._^".contains(c);
                    match name.chars().all(literal) {
                        true => Ok((name.clone(), number("alpha_pattern", value)?)),
                        false => Err(format!("its `alpha_pattern` has `{name}`; only plain names are supported")),
                    }
                };
                patterns.iter().map(pattern).collect::<Result<_, String>>()?
            }
            Some(other) => return Err(format!("its `alpha_pattern` is {other}; a map is supported")),
        };
        Ok(Self { alpha, patterns, by_root: is_set("use_rslora") })
    }
}

/// Whether a pattern of PEFT, which is a plain name, fits a layer: it is the name or its end behind a dot; behind `^` it
/// is the whole name.
fn is_end(module: &str, pattern: &str) -> bool {
    match pattern.strip_prefix('^') {
        Some(whole) => module == whole,
        None => module.strip_suffix(pattern).is_some_and(|start| start.is_empty() || start.ends_with('.')),
    }
}

fn read_json(path: &Path) -> Result<Map<String, Value>> {
    let failed = |source| Error::File { path: path.to_owned(), source };
    let length = std::fs::metadata(path).map_err(failed)?.len();
    if length > CAP {
        return Err(refusal(path, format!("{length} bytes are too many for a configuration")));
    }
    let text = std::fs::read_to_string(path).map_err(failed)?;
    serde_json::from_str(&text).map_err(|error| refusal(path, format!("not a JSON object: {error}; write it again")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scales(key: &str, text: &str) -> Result<Scales> {
        Scales::read(Path::new("lora.safetensors"), &BTreeMap::from([(key.to_owned(), text.to_owned())]))
    }

    #[test]
    fn alpha_comes_from_the_tensor_then_the_adapter_then_the_rank() {
        let text = r#"{"unet.lora_alpha": 8, "unet.r": 4, "unet.alpha_pattern": {"attn1.to_q": 2, "^conv_in": 1},
                       "text_encoder.lora_alpha": 4, "text_encoder.use_rslora": true}"#;
        let read = scales(ADAPTER, text).unwrap();
        assert_eq!(read.of(Part::UNet, "mid_block.attn1.to_k", 4, None), 2.0);
        assert_eq!(read.of(Part::UNet, "mid_block.attn1.to_q", 4, None), 0.5);
        assert_eq!(read.of(Part::UNet, "mid_block.xattn1.to_q", 4, None), 2.0);
        assert_eq!(read.of(Part::UNet, "conv_in", 4, None), 0.25);
        assert_eq!(read.of(Part::UNet, "x.conv_in", 4, None), 2.0);
        assert_eq!(read.of(Part::UNet, "mid_block.attn1.to_q", 4, Some(16.0)), 4.0);
        assert_eq!(read.of(Part::TextEncoder, "q_proj", 4, None), 2.0);
        assert_eq!(read.of(Part::TextEncoder2, "q_proj", 4, None), 1.0);
        assert_eq!(scales("lora_alpha", "6").unwrap().of(Part::UNet, "x", 4, None), 1.5);
        assert_eq!(scales("format", "pt").unwrap().of(Part::UNet, "x", 4, None), 1.0);
    }

    #[test]
    fn a_configuration_that_cannot_be_followed_is_refused_by_its_key() {
        for (key, text, word) in [
            (ADAPTER, r#"{"unet.use_dora": true}"#, "use_dora"),
            (ADAPTER, r#"{"peft_type": "LOHA"}"#, "peft_type"),
            (ADAPTER, r#"{"lora_alpha": "x"}"#, "lora_alpha"),
            (ADAPTER, r#"{"alpha_pattern": {".*q": 1}}"#, "alpha_pattern"),
            (ADAPTER, "[]", "lora_adapter_metadata"),
            ("lora_alpha", "many", "lora_alpha"),
        ] {
            let message = scales(key, text).unwrap_err().to_string();
            assert!(message.contains(word) && message.contains("lora.safetensors"), "{message}");
        }
    }
}
