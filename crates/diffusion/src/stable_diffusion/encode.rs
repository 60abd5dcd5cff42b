//! Prompts as the denoising network sees them: `encode_prompt` of diffusers 0.42's `StableDiffusionPipeline` and
//! `StableDiffusionXLPipeline`, and beyond it windows for long prompts and emphasis.
//!
//! Every window is encoded by itself, so that an image's words never depend on the images beside it.

use std::sync::Arc;

use candle_core::{DType, Result as TensorResult, Tensor};
use evenset_nn::models::clip::{ClipTextEncoder, Tokenizer, Tokens};
use evenset_nn::no_grad;

use super::cache::{Cache, Encoded, Key};
use super::chunks::{Window, refused, windows};
use super::prompt::{Prompt, PromptOptions};
use crate::error::Result;

/// A text encoder with its tokenizer.
#[derive(Debug)]
pub(super) struct Encoder {
    pub(super) model: ClipTextEncoder,
    pub(super) tokenizer: Tokenizer,
    /// Whether filling is hidden from other tokens (`use_attention_mask`); XL never asks.
    pub(super) masked: bool,
}

/// A text as the network sees it.
#[derive(Clone, Debug)]
pub struct Conditioning {
    /// `[images, tokens, width]`: 77 tokens for each window; XL's width is that of both encoders.
    pub tokens: Tensor,
    /// XL: `[images, projection]`, the second encoder's whole text (of its first window).
    pub pooled: Option<Tensor>,
}

impl Conditioning {
    /// Those of several images, one behind another.
    ///
    /// # Errors
    /// None, or texts of different lengths: put images together that have as many tokens.
    pub fn stack(parts: &[&Self]) -> Result<Self> {
        let tokens: Vec<&Tensor> = parts.iter().map(|part| &part.tokens).collect();
        let pooled: Vec<&Tensor> = parts.iter().filter_map(|part| part.pooled.as_ref()).collect();
        Ok(Self {
            tokens: Tensor::cat(&tokens, 0)?,
            pooled: if pooled.is_empty() { None } else { Some(Tensor::cat(&pooled, 0)?) },
        })
    }

    /// As much of nothing.
    fn zeros(&self) -> Result<Self> {
        let pooled = self.pooled.as_ref().map(Tensor::zeros_like).transpose()?;
        Ok(Self { tokens: self.tokens.zeros_like()?, pooled })
    }
}

/// What one image is asked to show.
#[derive(Clone, Debug)]
pub struct Embedded {
    /// What to draw, of one image.
    pub positive: Conditioning,
    /// What to steer away from, with as many tokens; none without guidance.
    pub negative: Option<Conditioning>,
}

impl Embedded {
    /// How many tokens the network sees. Only images with as many can be drawn in one batch.
    pub fn tokens(&self) -> usize {
        self.positive.tokens.dims().get(1).copied().unwrap_or(0)
    }
}

/// One or two text encoders. The last texts are remembered.
#[derive(Debug)]
pub struct TextEncoders {
    first: Encoder,
    second: Option<Encoder>,
    zeros_for_no_negative: bool,
    cache: Cache,
}

/// A text for each encoder and the layers that are left out.
#[derive(Clone, Copy)]
struct Side<'a> {
    texts: [&'a str; 2],
    options: PromptOptions,
}

impl TextEncoders {
    pub(super) fn new(first: Encoder, second: Option<Encoder>, zeros_for_no_negative: bool) -> Self {
        Self { first, second, zeros_for_no_negative, cache: Cache::default() }
    }

    /// The prompt as the network sees it; with `guided` the negative prompt too.
    ///
    /// Both have as many tokens, the shorter one being filled up with empty windows. Where a negative prompt is not given,
    /// an empty one stands for it, or for XL zeros where the model says so. As in diffusers, `clip_skip` leaves the
    /// negative prompt as it is.
    ///
    /// # Errors
    /// [`DiffusionError::Prompt`](crate::DiffusionError::Prompt) for words that cannot be read, too many of them, or words
    /// for a second encoder that the model has not; a `clip_skip` that leaves no layer.
    pub fn encode(&self, prompt: &Prompt, options: PromptOptions, guided: bool) -> Result<Embedded> {
        let [positive, negative] = self.sides(prompt, options)?;
        let is_zero = self.second.is_some() && self.zeros_for_no_negative && prompt.negative.is_none();
        let shown = self.encode_side(&positive)?;
        let avoided = (guided && !is_zero).then(|| self.encode_side(&negative)).transpose()?;
        let texts = shown.iter().chain(avoided.iter().flatten());
        let count = texts.map(|encoded| encoded.windows.len()).max().unwrap_or(1);
        let positive = self.join(&shown, count, options.clip_skip)?;
        let negative = match avoided {
            Some(avoided) => Some(self.join(&avoided, count, negative.options.clip_skip)?),
            None if guided => Some(positive.zeros()?),
            None => None,
        };
        Ok(Embedded { positive, negative })
    }

    /// The texts of both sides, for each encoder.
    fn sides<'a>(&self, prompt: &'a Prompt, options: PromptOptions) -> Result<[Side<'a>; 2]> {
        let second = |text: &'a Option<String>, first: &'a str| match text.as_deref() {
            None | Some("") => Ok(first),
            Some(text) if self.second.is_some() => Ok(text),
            Some(text) => {
                Err(refused(text, "the model has one text encoder, so there is nobody to read this; remove it"))
            }
        };
        let (positive, negative) = (prompt.text.as_str(), prompt.negative.as_deref().unwrap_or_default());
        let unskipped = PromptOptions { clip_skip: 0, ..options };
        Ok([
            Side { texts: [positive, second(&prompt.text_2, positive)?], options },
            Side { texts: [negative, second(&prompt.negative_2, negative)?], options: unskipped },
        ])
    }

    /// What each encoder makes of its text.
    fn encode_side(&self, side: &Side<'_>) -> Result<Vec<Arc<Encoded>>> {
        let encode = |(second, text): (bool, &&str)| {
            let key = Key { second, text: (*text).to_owned(), options: side.options };
            self.cached(key)
        };
        [false, true]
            .into_iter()
            .zip(&side.texts)
            .filter(|(second, _)| !second || self.second.is_some())
            .map(encode)
            .collect()
    }

    fn cached(&self, key: Key) -> Result<Arc<Encoded>> {
        self.cache.get(key, |key| {
            let encoder = match (&self.second, key.second) {
                (Some(second), true) => second,
                _ => &self.first,
            };
            let windows = windows(&encoder.tokenizer, &key.text, key.options)?;
            no_grad(|| encoder.encode(&windows, key, self.second.is_some()))
        })
    }

    /// `count` windows of every encoder: windows behind one another, encoders beside one another.
    fn join(&self, encoded: &[Arc<Encoded>], count: usize, clip_skip: usize) -> Result<Conditioning> {
        let mut tokens = Vec::new();
        for (second, encoded) in [false, true].into_iter().zip(encoded) {
            let mut windows = encoded.windows.clone();
            if windows.len() < count {
                let empty = self.cached(Key::empty(second, clip_skip))?;
                windows.extend(empty.windows.iter().cycle().take(count - windows.len()).cloned());
            }
            tokens.push(Tensor::cat(&windows, 1)?);
        }
        let pooled = encoded.last().and_then(|encoded| encoded.pooled.clone());
        Ok(Conditioning { tokens: Tensor::cat(&tokens, 2)?, pooled })
    }
}

impl Encoder {
    /// Every window by itself; `xl` says whose layers are taken.
    fn encode(&self, windows: &[Window], key: &Key, xl: bool) -> Result<Encoded> {
        let mut encoded = Encoded { windows: Vec::new(), pooled: None };
        for window in windows {
            let tokens = Tokens {
                ids: vec![window.ids.clone()],
                mask: vec![(0..window.ids.len()).map(|i| !self.masked || i < window.filled).collect()],
            };
            let (states, pooled) = match xl {
                true => self.last_but_one(&tokens, key)?,
                false => (self.model.model().encode(&tokens, key.options.clip_skip)?, None),
            };
            encoded.pooled = encoded.pooled.or(pooled);
            encoded.windows.push(match &window.weights {
                Some(weights) => emphasised(&states, weights)?.ok_or_else(|| {
                    refused(
                        &key.text,
                        "the weights leave nothing of the text; write smaller ones, or turn `emphasis` off",
                    )
                })?,
                None => states,
            });
        }
        Ok(encoded)
    }

    /// XL's layer, not normalised, and the second encoder's pooled text.
    fn last_but_one(&self, tokens: &Tokens, key: &Key) -> Result<(Tensor, Option<Tensor>)> {
        let (states, embeds) = self.model.encode_xl(tokens, key.options.clip_skip)?;
        Ok((states, key.second.then_some(embeds)))
    }
}

/// Tokens `[1, tokens, width]` times their weights, scaled so that their mean is what it was, as AUTOMATIC1111's web
/// interface does (`EmphasisOriginal`); none where that is impossible.
fn emphasised(states: &Tensor, weights: &[f32]) -> TensorResult<Option<Tensor>> {
    let weights = Tensor::from_slice(weights, (1, weights.len(), 1), states.device())?;
    let exact = states.to_dtype(DType::F32)?;
    let weighted = exact.broadcast_mul(&weights)?;
    let mean = |x: &Tensor| x.to_dtype(DType::F64)?.mean_all()?.to_scalar::<f64>();
    let factor = mean(&exact)? / mean(&weighted)?;
    match factor.is_finite() {
        true => Ok(Some(weighted.affine(factor, 0.0)?.to_dtype(states.dtype())?)),
        false => Ok(None),
    }
}
