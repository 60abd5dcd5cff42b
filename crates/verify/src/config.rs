//! What the job says about gates: `gates: [decode, {type: attributes, threshold: 0.6}]`.

use std::borrow::Cow;
use std::fmt;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::value::{MapAccessDeserializer, StrDeserializer};
use serde::de::{IntoDeserializer, MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};

use crate::VerifyError;

/// One gate of the cascade: its name, or a map with `type` and settings.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(tag = "type", rename_all = "kebab-case")]
pub enum GateConfig {
    /// The image has the right size, is not blank and is not noise. Always there, named or not.
    Decode(DecodeConfig),
    /// A classifier that was trained on real images recognises what was asked for.
    Attributes(AttributesConfig),
    /// The image lies where real images of its label lie.
    InDistribution(InDistributionConfig),
    /// The image is no near copy of a training image or of an earlier accepted candidate.
    Novelty(NoveltyConfig),
}

/// Right size, not blank, not noise.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct DecodeConfig {
    /// Share of real images that may lie beyond the limits which blank and noisy images are measured against; the limits
    /// are then loosened by half.
    #[schemars(range(min = 0.0, max = 0.5))]
    pub quantile: f64,
}

impl Default for DecodeConfig {
    fn default() -> Self {
        Self { quantile: 0.001 }
    }
}

/// Every requested attribute is recognised.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct AttributesConfig {
    /// Share of images showing something else that may pass as what was asked for. The least probability of each value
    /// is set for it on held-out real images, group by group where there are enough.
    #[schemars(range(min = 0.001, max = 0.5))]
    pub false_accept: f64,
    /// One least probability for every value instead of calibrated ones; the value must be the recogniser's first choice
    /// in any case. Default: calibrated for `false_accept`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0.0, max = 1.0))]
    pub threshold: Option<f64>,
    /// Gradient steps of a classifier's training.
    #[schemars(range(min = 1))]
    pub steps: u32,
    /// Channels of a classifier's first stage, a multiple of four.
    #[schemars(range(min = 4, max = 256))]
    pub width: u32,
    /// Whether a mirrored image keeps its labels; set it to false for text, digits, or left and right.
    pub flip: bool,
}

impl Default for AttributesConfig {
    fn default() -> Self {
        Self { false_accept: 0.05, threshold: None, steps: 1200, width: 8, flip: true }
    }
}

/// Near real images of the same label, in the classifier's features.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct InDistributionConfig {
    /// The distance to the how-manieth nearest real image of the label is measured.
    #[schemars(range(min = 1, max = 100))]
    pub neighbours: u32,
    /// Share of real held-out images that may lie farther away than the limit, all groups counting alike.
    #[schemars(range(min = 0.0, max = 0.5))]
    pub quantile: f64,
}

impl Default for InDistributionConfig {
    fn default() -> Self {
        Self { neighbours: 3, quantile: 0.01 }
    }
}

/// No near copy of a training image or of an earlier accepted candidate, mirrored or not.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct NoveltyConfig {
    /// Share of real images that may be nearer to another real image than the limit. With 0 only exact copies are dropped.
    #[schemars(range(min = 0.0, max = 0.5))]
    pub quantile: f64,
}

impl Default for NoveltyConfig {
    fn default() -> Self {
        Self { quantile: 0.002 }
    }
}

/// What stands in a file: [`GateConfig`] as a map.
#[derive(Deserialize, JsonSchema)]
#[serde(tag = "type", rename_all = "kebab-case")]
enum Written {
    /// The image has the right size, is not blank and is not noise. Always there, named or not.
    Decode(DecodeConfig),
    /// A classifier that was trained on real images recognises what was asked for.
    Attributes(AttributesConfig),
    /// The image lies where real images of its label lie.
    InDistribution(InDistributionConfig),
    /// The image is no near copy of a training image or of an earlier accepted candidate.
    Novelty(NoveltyConfig),
}

/// What stands in a file: [`GateConfig`] as a name.
#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
enum Name {
    Decode,
    Attributes,
    InDistribution,
    Novelty,
}

impl GateConfig {
    /// The gates of a job that names none: all of them.
    pub fn default_cascade() -> Vec<Self> {
        [Name::Decode, Name::Attributes, Name::InDistribution, Name::Novelty].map(Self::from).to_vec()
    }

    /// The gate's name as it is written in jobs and verdicts.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Decode(_) => "decode",
            Self::Attributes(_) => "attributes",
            Self::InDistribution(_) => "in-distribution",
            Self::Novelty(_) => "novelty",
        }
    }

    /// Checks that the settings are possible.
    ///
    /// # Errors
    /// [`VerifyError::Setting`] naming the gate and the key.
    pub fn check(&self) -> Result<(), VerifyError> {
        let gate = self.name();
        let quantile = |quantile: f64| ("quantile", quantile, (0.0..=0.5).contains(&quantile), "write 0 to 0.5");
        let settings = match self {
            Self::Decode(config) => vec![quantile(config.quantile)],
            Self::Novelty(config) => vec![quantile(config.quantile)],
            Self::Attributes(AttributesConfig { false_accept, threshold, steps, width, .. }) => vec![
                ("false_accept", *false_accept, (0.001..=0.5).contains(false_accept), "write 0.001 to 0.5"),
                (
                    "threshold",
                    threshold.unwrap_or_default(),
                    threshold.is_none_or(|threshold| (0.0..=1.0).contains(&threshold)),
                    "write 0 to 1",
                ),
                ("steps", f64::from(*steps), *steps > 0, "write at least 1"),
                (
                    "width",
                    f64::from(*width),
                    width.is_multiple_of(4) && (4..=256).contains(width),
                    "write a multiple of 4 from 4 to 256",
                ),
            ],
            Self::InDistribution(InDistributionConfig { neighbours, quantile: share }) => vec![
                ("neighbours", f64::from(*neighbours), (1..=100).contains(neighbours), "write 1 to 100"),
                quantile(*share),
            ],
        };
        match settings.into_iter().find(|(_, _, possible, _)| !possible) {
            Some((key, value, _, expected)) => Err(VerifyError::Setting { gate, key, value, expected }),
            None => Ok(()),
        }
    }
}

impl From<Name> for GateConfig {
    fn from(name: Name) -> Self {
        match name {
            Name::Decode => Self::Decode(DecodeConfig::default()),
            Name::Attributes => Self::Attributes(AttributesConfig::default()),
            Name::InDistribution => Self::InDistribution(InDistributionConfig::default()),
            Name::Novelty => Self::Novelty(NoveltyConfig::default()),
        }
    }
}

impl From<Written> for GateConfig {
    fn from(written: Written) -> Self {
        match written {
            Written::Decode(config) => Self::Decode(config),
            Written::Attributes(config) => Self::Attributes(config),
            Written::InDistribution(config) => Self::InDistribution(config),
            Written::Novelty(config) => Self::Novelty(config),
        }
    }
}

impl<'de> Deserialize<'de> for GateConfig {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct NameOrMap;
        impl<'de> Visitor<'de> for NameOrMap {
            type Value = GateConfig;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a gate: decode, attributes, in-distribution or novelty, or a map with `type`")
            }
            fn visit_str<E: serde::de::Error>(self, name: &str) -> Result<GateConfig, E> {
                let name: StrDeserializer<'_, E> = name.into_deserializer();
                Ok(Name::deserialize(name)?.into())
            }
            fn visit_map<M: MapAccess<'de>>(self, map: M) -> Result<GateConfig, M::Error> {
                Ok(Written::deserialize(MapAccessDeserializer::new(map))?.into())
            }
        }
        deserializer.deserialize_any(NameOrMap)
    }
}

impl JsonSchema for GateConfig {
    fn schema_name() -> Cow<'static, str> {
        "GateConfig".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let (name, map) = (generator.subschema_for::<Name>(), generator.subschema_for::<Written>());
        json_schema!({
            "description": "One gate: its name, or a map with `type` and settings.",
            "anyOf": [name, map],
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gate_is_a_name_or_a_map_and_writes_back_as_a_map() {
        let gates: Vec<GateConfig> =
            serde_json::from_str(r#"["decode", {"type":"attributes","threshold":0.7}, {"type":"novelty"}]"#).unwrap();
        assert_eq!(gates.iter().map(GateConfig::name).collect::<Vec<_>>(), ["decode", "attributes", "novelty"]);
        assert_eq!(gates[1], GateConfig::Attributes(AttributesConfig { threshold: Some(0.7), ..Default::default() }));
        let back: Vec<GateConfig> = serde_json::from_str(&serde_json::to_string(&gates).unwrap()).unwrap();
        assert_eq!(back, gates);
    }

    #[test]
    fn a_wrong_name_key_or_type_is_refused() {
        for (text, expected) in [
            (r#""novel""#, "unknown variant `novel`"),
            (r#"{"type":"attributes","treshold":0.7}"#, "unknown field `treshold`"),
            (r#"{"type":"novel"}"#, "unknown variant `novel`"),
            ("3", "a gate: decode"),
        ] {
            let error = serde_json::from_str::<GateConfig>(text).unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        }
    }

    #[test]
    fn an_impossible_setting_is_named() {
        let gate: GateConfig = serde_json::from_str(r#"{"type":"attributes","threshold":1.5}"#).unwrap();
        assert_eq!(gate.check().unwrap_err().to_string(), "the gate `attributes` has threshold 1.5; write 0 to 1");
        assert!(GateConfig::default_cascade().iter().all(|gate| gate.check().is_ok()));
    }

    #[test]
    fn the_schema_offers_names_and_maps_with_a_line_for_every_key() {
        let schema = serde_json::to_string(&schemars::schema_for!(Vec<GateConfig>)).unwrap();
        for part in ["in-distribution", "threshold", "Share of images showing something else", "neighbours", "additionalProperties"] {
            assert!(schema.contains(part), "{part} in {schema}");
        }
    }
}
