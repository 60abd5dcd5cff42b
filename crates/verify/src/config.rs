//! What the job says about gates: `gates: [decode, {type: attributes, threshold: 0.6}]`.

use std::borrow::Cow;
use std::fmt;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::value::{MapAccessDeserializer, StrDeserializer};
use serde::de::{IntoDeserializer, MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};

use crate::gates::SafetyConfig;
use crate::recognise::{RecogniserConfig, Vote};
use crate::{Verdict, VerifyError};

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
    /// No image that a safety model holds for unsafe.
    Safety(SafetyConfig),
    /// The image is no near copy of a training image or of an earlier accepted candidate.
    Novelty(NoveltyConfig),
    /// The image adds something to its group, once the group has enough images.
    Diversity(DiversityConfig),
    /// The user's own program keeps or drops each image.
    Command(CommandConfig),
    /// Asked about whole sets and drops nothing: whether something trivial tells generated images from real ones. It looks
    /// at images as they were drawn, before `write.match_real` gives them files like the real ones.
    Shortcut(ShortcutConfig),
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
    /// Which attributes are checked, the label by its name too: `[colour]` where each image starts from a real one that has
    /// the digit already (see `generate.guides`). What is not checked is taken as it was asked for, and no count of it is
    /// corrected. Default: all.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub only: Vec<String>,
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
    /// Who says what an image shows. Default: the classifier trained on the job's own real images alone.
    pub recognisers: Vec<RecogniserConfig>,
    /// When several recognisers have agreed.
    pub vote: Vote,
}

impl Default for AttributesConfig {
    fn default() -> Self {
        Self {
            only: Vec::new(),
            false_accept: 0.05,
            threshold: None,
            steps: 1200,
            width: 8,
            flip: true,
            recognisers: Vec::new(),
            vote: Vote::Mean,
        }
    }
}

impl AttributesConfig {
    /// Whether this attribute is checked.
    pub(crate) fn checks(&self, attribute: &str) -> bool {
        self.only.is_empty() || self.only.iter().any(|name| name == attribute)
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

/// No near copy of a training image or of an earlier accepted candidate: not mirrored, shifted, cropped, brighter or darker.
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

/// Adds something to its group.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct DiversityConfig {
    /// As long as a group has fewer images than this, real and accepted together, every image adds something.
    pub enough: u32,
    /// An image adds nothing if it lies nearer to an image of its group than all but this share of the real images lie to
    /// theirs, all groups counting alike.
    #[schemars(range(min = 0.0, max = 0.5))]
    pub quantile: f64,
}

impl Default for DiversityConfig {
    fn default() -> Self {
        Self { enough: 20, quantile: 0.05 }
    }
}

/// The user's own program: it reads one line of JSON for each image and answers each with one.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CommandConfig {
    /// The program and its arguments, started without a shell once for every 256 images at most; it reads lines like
    /// `{"index":0,"group":{"colour":"red"},"width":28,"height":28,"path":"/tmp/x/0.png"}` and answers lines like
    /// `{"index":0,"keep":false,"score":0.1,"reason":"too dark"}`, of which `score` and `reason` may be left out.
    #[schemars(length(min = 1))]
    pub run: Vec<String>,
    /// Seconds after which the program is ended, each time it is started.
    #[serde(default = "default_timeout")]
    #[schemars(range(min = 1, max = 86400))]
    pub timeout: u32,
    /// What the gate is called in reasons and scores, for jobs with several programs; `command` if left out.
    #[serde(default)]
    pub name: Option<String>,
    /// What becomes of the images of a batch on which the program fails.
    #[serde(default)]
    pub on_error: OnError,
}

fn default_timeout() -> u32 {
    30
}

/// What a failing program means for the images it was asked about.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum OnError {
    /// The run stops with what the program did wrong.
    #[default]
    Fail,
    /// All images of the batch are kept without a score, and the report says how many.
    Keep,
    /// All images of the batch are dropped without a score, with what the program did wrong as the reason.
    Drop,
}

/// Whether trivial cues tell generated images from real ones.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct ShortcutConfig {
    /// A shortcut is found where the whole interval of the area under the curve lies above this: 0.5 means that nothing
    /// tells the images apart, 1 that everything does.
    #[schemars(range(min = 0.5, max = 1.0))]
    pub limit: f64,
    /// The fewest images, real and generated each, with which a group is looked at by itself; the report says how many
    /// groups have fewer.
    #[schemars(range(min = 10))]
    pub smallest: u32,
}

impl Default for ShortcutConfig {
    fn default() -> Self {
        Self { limit: 0.75, smallest: 20 }
    }
}

/// The settings of the gate `attributes`, or the usual ones where another gate needs its classifier.
pub(crate) fn attributes_config(gates: &[GateConfig]) -> AttributesConfig {
    let config =
        |gate: &GateConfig| if let GateConfig::Attributes(config) = gate { Some(config.clone()) } else { None };
    gates.iter().find_map(config).unwrap_or_default()
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
    /// No image that a safety model holds for unsafe.
    Safety(SafetyConfig),
    /// The image is no near copy of a training image or of an earlier accepted candidate.
    Novelty(NoveltyConfig),
    /// The image adds something to its group, once the group has enough images.
    Diversity(DiversityConfig),
    /// The user's own program keeps or drops each image.
    Command(CommandConfig),
    /// Asked about whole sets and drops nothing: whether something trivial tells generated images from real ones. It looks
    /// at images as they were drawn, before `write.match_real` gives them files like the real ones.
    Shortcut(ShortcutConfig),
}

/// What stands in a file: [`GateConfig`] as a name.
#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
enum Name {
    Decode,
    Attributes,
    InDistribution,
    Novelty,
    Diversity,
    Shortcut,
}

impl GateConfig {
    /// The gates of a job that names none: those that need no decision of the user's.
    pub fn default_cascade() -> Vec<Self> {
        [Name::Decode, Name::Attributes, Name::InDistribution, Name::Novelty].map(Self::from).to_vec()
    }

    /// The gate's name as it is written in jobs and verdicts.
    pub fn name(&self) -> &str {
        match self {
            Self::Decode(_) => "decode",
            Self::Attributes(_) => "attributes",
            Self::InDistribution(_) => "in-distribution",
            Self::Safety(_) => "safety",
            Self::Novelty(_) => "novelty",
            Self::Diversity(_) => "diversity",
            Self::Command(CommandConfig { name, .. }) => name.as_deref().unwrap_or("command"),
            Self::Shortcut(_) => "shortcut",
        }
    }

    /// Its place in the cascade, the cheapest first. `novelty` and `diversity` come after the gates that look at one
    /// image by itself, since only images that those keep make others superfluous; a program is the dearest.
    pub(crate) fn place(&self) -> u32 {
        match self {
            Self::Decode(_) => 0,
            Self::Attributes(_) => 1,
            Self::InDistribution(_) => 2,
            Self::Safety(_) => 3,
            Self::Novelty(_) => 10,
            Self::Diversity(_) => 11,
            Self::Command(_) => 20,
            Self::Shortcut(_) => 30,
        }
    }

    /// Whether it needs what a trained classifier sees in images.
    pub(crate) fn needs_sight(&self) -> bool {
        match self {
            Self::Decode(_) | Self::Safety(_) | Self::Command(_) | Self::Shortcut(_) => false,
            Self::Attributes(_) | Self::InDistribution(_) | Self::Novelty(_) | Self::Diversity(_) => true,
        }
    }

    /// Whether this gate kept a candidate that it did not look at: its program failed, and the job says `on_error: keep`.
    pub fn kept_unchecked(&self, verdict: &Verdict) -> bool {
        let keeps = matches!(self, Self::Command(CommandConfig { on_error: OnError::Keep, .. }));
        keeps && verdict.accepted && !verdict.scores.contains_key(self.name())
    }

    /// Checks a gate that is asked together with the ones `before` it, about images with these attributes.
    ///
    /// # Errors
    /// What [`check`](Self::check) says, [`VerifyError::Repeated`] where it stands twice, and [`VerifyError::Only`] where
    /// it is to check what is no attribute.
    pub fn check_among(&self, before: &[Self], attributes: &[String]) -> Result<(), VerifyError> {
        self.check()?;
        if before.iter().any(|other| other.name() == self.name()) {
            return Err(VerifyError::Repeated(self.name().to_owned()));
        }
        let Self::Attributes(AttributesConfig { only, .. }) = self else { return Ok(()) };
        match only.iter().find(|name| !attributes.contains(name)) {
            None => Ok(()),
            Some(name) => Err(VerifyError::Only { name: name.clone(), known: attributes.join(", ") }),
        }
    }

    /// Checks that the settings are possible.
    ///
    /// # Errors
    /// [`VerifyError::Setting`] naming the gate and the key; for a program [`VerifyError::NoProgram`] and
    /// [`VerifyError::GateName`]; [`VerifyError::SafetyModel`] where `safety` names no model, or two.
    pub fn check(&self) -> Result<(), VerifyError> {
        let gate = self.name();
        let quantile = |quantile: f64| ("quantile", quantile, (0.0..=0.5).contains(&quantile), "write 0 to 0.5");
        let settings = match self {
            Self::Decode(config) => vec![quantile(config.quantile)],
            Self::Novelty(config) => vec![quantile(config.quantile)],
            // What the model needs is checked where it is opened.
            Self::Safety(config) if config.model.is_some() == config.onnx.is_some() => {
                return Err(VerifyError::SafetyModel);
            }
            Self::Safety(_) => Vec::new(),
            Self::Diversity(config) => vec![quantile(config.quantile)],
            Self::Command(config) => {
                config.check()?;
                let timeout = config.timeout;
                vec![("timeout", f64::from(timeout), (1..=86_400).contains(&timeout), "write 1 to 86400 seconds")]
            }
            Self::Shortcut(ShortcutConfig { limit, smallest }) => vec![
                ("limit", *limit, (0.5..=1.0).contains(limit), "write 0.5 to 1"),
                ("smallest", f64::from(*smallest), *smallest >= 10, "write at least 10"),
            ],
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
            Some((key, value, _, expected)) => {
                Err(VerifyError::Setting { gate: gate.to_owned(), key, value, expected })
            }
            None => Ok(()),
        }
    }
}

impl CommandConfig {
    fn check(&self) -> Result<(), VerifyError> {
        let name = self.name.as_deref().unwrap_or("command");
        if self.run.first().is_none_or(String::is_empty) {
            return Err(VerifyError::NoProgram(name.to_owned()));
        }
        let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
        let taken = BUILT_IN.contains(&name);
        if taken || name.is_empty() || name.len() > 64 || !name.chars().all(plain) {
            return Err(VerifyError::GateName(name.to_owned()));
        }
        Ok(())
    }
}

/// Names that no program may take.
const BUILT_IN: [&str; 7] = ["decode", "attributes", "in-distribution", "safety", "novelty", "diversity", "shortcut"];

impl From<Name> for GateConfig {
    fn from(name: Name) -> Self {
        match name {
            Name::Decode => Self::Decode(DecodeConfig::default()),
            Name::Attributes => Self::Attributes(AttributesConfig::default()),
            Name::InDistribution => Self::InDistribution(InDistributionConfig::default()),
            Name::Novelty => Self::Novelty(NoveltyConfig::default()),
            Name::Diversity => Self::Diversity(DiversityConfig::default()),
            Name::Shortcut => Self::Shortcut(ShortcutConfig::default()),
        }
    }
}

impl From<Written> for GateConfig {
    fn from(written: Written) -> Self {
        match written {
            Written::Decode(config) => Self::Decode(config),
            Written::Attributes(config) => Self::Attributes(config),
            Written::InDistribution(config) => Self::InDistribution(config),
            Written::Safety(config) => Self::Safety(config),
            Written::Novelty(config) => Self::Novelty(config),
            Written::Diversity(config) => Self::Diversity(config),
            Written::Command(config) => Self::Command(config),
            Written::Shortcut(config) => Self::Shortcut(config),
        }
    }
}

impl<'de> Deserialize<'de> for GateConfig {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct NameOrMap;
        impl<'de> Visitor<'de> for NameOrMap {
            type Value = GateConfig;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(
                    "a gate: decode, attributes, in-distribution, novelty, diversity or shortcut, or a map with `type`",
                )
            }
            fn visit_str<E: serde::de::Error>(self, name: &str) -> Result<GateConfig, E> {
                let needs = match name {
                    "command" => "a program: write {type: command, run: [program]}",
                    "safety" => "a model: write {type: safety, model: FOLDER}",
                    _ => {
                        let name: StrDeserializer<'_, E> = name.into_deserializer();
                        return Ok(Name::deserialize(name)?.into());
                    }
                };
                Err(E::custom(format_args!("the gate `{name}` needs {needs}")))
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
    fn a_program_is_written_as_a_list_and_keeps_its_name() {
        let gate: GateConfig =
            serde_json::from_str(r#"{"type":"command","run":["judge","-v"],"name":"taste"}"#).unwrap();
        assert_eq!(gate.name(), "taste");
        let GateConfig::Command(CommandConfig { run, timeout, on_error, .. }) = &gate else { panic!("{gate:?}") };
        assert_eq!((run.len(), *timeout, *on_error), (2, 30, OnError::Fail));
        assert!(gate.check().is_ok());
        for (text, expected) in [
            (r#"{"type":"command","run":[]}"#, "the gate `command` has an empty `run`"),
            (r#"{"type":"command","run":["x"],"name":"novelty"}"#, "a command gate cannot be called `novelty`"),
            (r#"{"type":"command","run":["x"],"name":"a b"}"#, "a command gate cannot be called `a b`"),
            (r#"{"type":"command","run":["x"],"timeout":0}"#, "the gate `command` has timeout 0"),
        ] {
            let error = serde_json::from_str::<GateConfig>(text).unwrap().check().unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        }
    }

    #[test]
    fn a_wrong_name_key_or_type_is_refused() {
        for (text, expected) in [
            (r#""command""#, "the gate `command` needs a program"),
            (r#""safety""#, "the gate `safety` needs a model"),
            (r#"{"type":"command"}"#, "missing field `run`"),
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
        let safety = |text: &str| serde_json::from_str::<GateConfig>(text).unwrap().check();
        assert!(safety(r#"{"type":"safety","model":"checker"}"#).is_ok());
        let error = safety(r#"{"type":"safety"}"#).unwrap_err().to_string();
        assert!(error.contains("the gate `safety` needs one model"), "{error}");
    }

    #[test]
    fn the_schema_offers_names_and_maps_with_a_line_for_every_key() {
        let schema = serde_json::to_string(&schemars::schema_for!(Vec<GateConfig>)).unwrap();
        for part in [
            "in-distribution",
            "threshold",
            "Share of images showing something else",
            "neighbours",
            "additionalProperties",
        ] {
            assert!(schema.contains(part), "{part} in {schema}");
        }
    }
}
