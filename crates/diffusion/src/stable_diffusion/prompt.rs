//! What an image is asked to show, and how the words are read.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The words for one image.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Prompt {
    /// What to draw.
    pub text: String,
    /// XL: what its second text encoder reads; the same where it is none or empty.
    pub text_2: Option<String>,
    /// What to steer away from. For XL it makes a difference whether there is none (see
    /// [`ModelFacts::zeros_for_no_negative`](super::ModelFacts::zeros_for_no_negative)) or an empty one.
    pub negative: Option<String>,
    /// XL: what its second text encoder reads; the same where it is none or empty.
    pub negative_2: Option<String>,
}

impl Prompt {
    /// These words, with nothing to steer away from.
    pub fn new(text: impl Into<String>) -> Self {
        Self { text: text.into(), ..Self::default() }
    }

    /// The same, steering away from `negative`.
    #[must_use]
    pub fn without(self, negative: impl Into<String>) -> Self {
        Self { negative: Some(negative.into()), ..self }
    }
}

/// What becomes of a prompt with more tokens than a text encoder reads: 75 beside the tokens of its ends.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum LongPrompts {
    /// It is read in windows of 75 tokens, and the network sees them one behind another, up to sixteen of them.
    #[default]
    Windows,
    /// What is beyond the first window is left out, as diffusers does; a warning says how much.
    Cut,
}

/// How prompts are read. The default is diffusers' way, except for long ones.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct PromptOptions {
    /// Prompts of more than 75 tokens.
    pub long_prompts: LongPrompts,
    /// Whether `(word)` means more of a word, `[word]` less, and `(word:1.2)` 1.2 times; a backslash before a bracket makes
    /// it a sign like any other. Otherwise brackets are signs.
    pub emphasis: bool,
    /// How many of the text encoder's last layers the prompt (not the negative one) leaves out, beyond what the model itself
    /// leaves out: diffusers' `clip_skip`. What web interfaces call "clip skip 2" is 1 here.
    pub clip_skip: usize,
}
