//! The text transformers. CLIP's is also the text encoder of Stable Diffusion.

use std::path::Path;

use candle_core::{Device, IndexOp, Result, Tensor, bail};

use super::attention::Mask;
use super::config::{Family, TextConfig};
use super::encoder::{Encoder, Norm};
use super::learned::LearnedToken;
use super::load;
use super::tokens::Tokens;
use crate::files::WeightFiles;
use crate::grad_mode::used;
use crate::layers::Linear;
use crate::lora::{LoraStack, Part};
use crate::models::load::{LoadOptions, built};
use crate::param::Param;
use crate::single_file::SingleFile;
use crate::weights::{Init, Scope, Weights};

/// The token number that old configurations give the end of a text, whatever their vocabulary says.
const LEGACY_EOS: u32 = 2;

/// What a text transformer makes of texts.
#[derive(Clone, Debug)]
pub struct TextOutput {
    /// `[batch, tokens, width]`, normalised.
    pub last_hidden_state: Tensor,
    /// `[batch, tokens, width]` before the first layer and behind each, not normalised: `layers + 1` of them, or none where
    /// they were not asked for.
    pub hidden_states: Vec<Tensor>,
    /// `[batch, width]`: CLIP's token at the end of the text, normalised; SigLIP's last token, projected.
    pub pooled: Tensor,
}

/// A text transformer of CLIP or SigLIP.
#[derive(Clone, Debug)]
pub struct TextModel {
    config: TextConfig,
    tokens: Tensor,
    positions: Tensor,
    encoder: Encoder,
    final_layer_norm: Norm,
    /// SigLIP's map of its last token.
    head: Option<Linear>,
}

impl TextModel {
    /// The transformer with its weights under `scope`.
    ///
    /// # Errors
    /// Those of the weights' source.
    pub fn new(config: &TextConfig, scope: &Scope) -> crate::Result<Self> {
        let transformer = config.transformer;
        let embeddings = scope.sub("embeddings");
        let init = Init::Normal { std: 0.02 };
        let table = |name: &str, rows| embeddings.sub(name).get("weight", &[rows, transformer.width], init);
        Ok(Self {
            config: *config,
            tokens: table("token_embedding", config.vocabulary)?,
            positions: table("position_embedding", config.positions)?,
            encoder: Encoder::new(&scope.sub("encoder"), transformer)?,
            final_layer_norm: Norm::new(&scope.sub("final_layer_norm"), transformer)?,
            head: match config.family {
                Family::Clip => None,
                Family::Siglip => Some(Linear::new(&scope.sub("head"), transformer.width, config.projection)?),
            },
        })
    }

    /// The same transformer with more tokens behind those of its table: `rows` `[n, width]`.
    fn with_tokens(mut self, rows: &Tensor) -> crate::Result<Self> {
        let rows = rows.to_device(self.tokens.device())?.to_dtype(self.tokens.dtype())?;
        self.tokens = Tensor::cat(&[&self.tokens, &rows], 0)?;
        self.config.vocabulary += rows.dim(0)?;
        Ok(self)
    }

    /// The transformer's shape.
    pub fn config(&self) -> &TextConfig {
        &self.config
    }

    /// Texts through all layers; with `hidden_states` every layer's tokens come back too.
    ///
    /// A token that the mask of `tokens` hides is seen by no other. A text's result does not depend on the texts beside
    /// it; a CLIP text's does not depend on what stands behind its end either.
    ///
    /// # Errors
    /// No text, texts of different lengths or longer than the model's positions, a token beyond the vocabulary.
    pub fn forward(&self, tokens: &Tokens, hidden_states: bool) -> Result<TextOutput> {
        let (batch, length) = self.check(tokens)?;
        let device = self.tokens.device();
        let ids = Tensor::from_vec(tokens.ids.concat(), batch * length, device)?;
        let x = used(&self.tokens).index_select(&ids, 0)?.reshape((batch, length, ()))?;
        let x = x.broadcast_add(&used(&self.positions).narrow(0, 0, length)?)?;
        let padded = tokens.mask.iter().flatten().any(|seen| !seen);
        let mask = Mask { causal: self.config.family == Family::Clip, keys: padded.then(|| tokens.mask.clone()) };
        let (last, hidden_states) = self.encoder.forward(x, &mask, hidden_states)?;
        let last_hidden_state = self.final_layer_norm.forward(&last)?;
        let pooled = self.pooled(&last_hidden_state, tokens)?;
        Ok(TextOutput { last_hidden_state, hidden_states, pooled })
    }

    /// The tokens that Stable Diffusion's networks see, `[batch, tokens, width]`: those of the last layer, or with
    /// `clip_skip` `n` those behind the layer `n` before it, normalised in either case, as diffusers' pipelines do.
    ///
    /// # Errors
    /// As [`forward`](Self::forward), and a `clip_skip` that leaves no layer.
    pub fn encode(&self, tokens: &Tokens, clip_skip: usize) -> Result<Tensor> {
        if clip_skip == 0 {
            return Ok(self.forward(tokens, false)?.last_hidden_state);
        }
        let states = self.forward(tokens, true)?.hidden_states;
        match states.len().checked_sub(clip_skip + 1).and_then(|at| states.get(at)) {
            Some(state) => self.final_layer_norm.forward(state),
            None => bail!(
                "a clip_skip of {clip_skip} leaves none of the {} layers; write a smaller one",
                states.len().saturating_sub(1)
            ),
        }
    }

    fn check(&self, tokens: &Tokens) -> Result<(usize, usize)> {
        let TextConfig { positions, vocabulary, .. } = self.config;
        let length = tokens.ids.first().map_or(0, Vec::len);
        if length == 0 {
            bail!("there is no text to encode");
        }
        if length > positions {
            bail!("a text of {length} tokens is longer than the {positions} that the model has places for; shorten it");
        }
        let ragged = tokens.ids.iter().any(|ids| ids.len() != length);
        if ragged || tokens.mask.len() != tokens.ids.len() || tokens.mask.iter().any(|mask| mask.len() != length) {
            bail!("texts of a batch and their masks must have one length; pad them");
        }
        if let Some(id) = tokens.ids.iter().flatten().find(|id| **id as usize >= vocabulary) {
            bail!(
                "token {id} is beyond the model's vocabulary of {vocabulary}; the tokenizer belongs to another model"
            );
        }
        Ok((tokens.ids.len(), length))
    }

    fn pooled(&self, last: &Tensor, tokens: &Tokens) -> Result<Tensor> {
        let place = |ids: &Vec<u32>| match self.config.family {
            Family::Siglip => ids.len() - 1,
            Family::Clip => {
                let end = match self.config.eos {
                    LEGACY_EOS => ids.iter().copied().max().unwrap_or_default(),
                    eos => eos,
                };
                // transformers reads the first token where there is no end.
                ids.iter().position(|id| *id == end).unwrap_or(0)
            }
        };
        let rows = tokens.ids.iter().enumerate().map(|(row, ids)| last.i((row, place(ids))));
        let pooled = Tensor::stack(&rows.collect::<Result<Vec<_>>>()?, 0)?;
        match &self.head {
            Some(head) => head.forward(&pooled),
            None => Ok(pooled),
        }
    }
}

/// A linear map without a bias.
#[derive(Clone, Debug)]
pub(super) struct Projection(Param);

impl Projection {
    pub(super) fn new(scope: &Scope, inputs: usize, outputs: usize) -> crate::Result<Self> {
        Ok(Self(scope.param("weight", &[outputs, inputs], Init::KaimingUniform { fan_in: inputs })?))
    }

    pub(super) fn forward(&self, x: &Tensor) -> Result<Tensor> {
        crate::maps::linear(x, &self.0, None, None)
    }
}

/// What is added to a text encoder while its weights are read.
#[derive(Clone, Copy, Debug)]
pub struct TextAdditions<'a> {
    /// Which of a model's encoders it is; the LoRAs' layers of this one are used.
    pub part: Part,
    /// LoRAs.
    pub loras: Option<&'a LoraStack>,
    /// Tokens behind those of the table, in this order: the first vector of the first one has the number of the
    /// vocabulary's size.
    pub learned: &'a [LearnedToken],
}

impl TextAdditions<'_> {
    /// Nothing, for the encoder `part`.
    pub fn none(part: Part) -> Self {
        Self { part, loras: None, learned: &[] }
    }
}

/// CLIP's text transformer in a folder of its own: transformers' `CLIPTextModel` and `CLIPTextModelWithProjection`, which
/// diffusers keeps in `text_encoder` and `text_encoder_2`.
#[derive(Clone, Debug)]
pub struct ClipTextEncoder {
    model: TextModel,
    projection: Option<Projection>,
    weights: Weights,
}

impl ClipTextEncoder {
    /// The encoder in a folder with `config.json` and `model.safetensors` (or its `.fp16` variant, or shards with an
    /// index).
    ///
    /// # Errors
    /// A key or value in the configuration that is not supported; a tensor that is missing, unexpected or misshapen;
    /// weights that are a pickle. Each names the file.
    pub fn from_pretrained(dir: &Path, device: &Device, options: LoadOptions) -> crate::Result<Self> {
        Self::from_pretrained_with(dir, device, options, &TextAdditions::none(Part::TextEncoder))
    }

    /// [`from_pretrained`](Self::from_pretrained), with LoRAs and learned tokens.
    ///
    /// # Errors
    /// As [`from_pretrained`](Self::from_pretrained); and [`Error::Lora`](crate::Error::Lora) for a LoRA of which any layer
    /// has no place in this encoder, [`Error::Learned`](crate::Error::Learned) for tokens of another width.
    pub fn from_pretrained_with(
        dir: &Path,
        device: &Device,
        options: LoadOptions,
        additions: &TextAdditions<'_>,
    ) -> crate::Result<Self> {
        let config = TextConfig::read(&dir.join("config.json"))?;
        Self::from_files(load::open(dir, options.variant)?, &config, device, options, additions)
    }

    /// The encoder in a single file of original names, of the shape `config`: that of
    /// [`Family::text_encoder`](crate::Family::text_encoder), unless the file is of another one. Which of its encoders
    /// it is, `additions` say.
    ///
    /// # Errors
    /// As [`from_pretrained_with`](Self::from_pretrained_with), and a file without this encoder.
    pub fn from_single_file(
        file: &SingleFile,
        config: &TextConfig,
        device: &Device,
        options: LoadOptions,
        additions: &TextAdditions<'_>,
    ) -> crate::Result<Self> {
        Self::from_files(file.open_text_encoder(additions.part)?, config, device, options, additions)
    }

    fn from_files(
        files: WeightFiles,
        config: &TextConfig,
        device: &Device,
        options: LoadOptions,
        additions: &TextAdditions<'_>,
    ) -> crate::Result<Self> {
        if options.trainable && !additions.learned.is_empty() {
            let reason = "learned tokens are constants: load the encoder to be run, or without them";
            return Err(crate::Error::Config(reason.into()));
        }
        let merger = additions.loras.and_then(|loras| loras.merger(additions.part, 0));
        let encoder = built(files.with_merger(merger), device, options, 0.0, |scope| Self::new(config, scope))?;
        additions.learned.iter().try_fold(encoder, |encoder, token| {
            let rows = token.rows(additions.part, config.transformer.width)?;
            Ok(Self { model: encoder.model.clone().with_tokens(rows)?, ..encoder })
        })
    }

    /// The encoder with its weights under `scope`; with a projection where the weights' files have one.
    ///
    /// # Errors
    /// Those of the weights' source.
    pub fn new(config: &TextConfig, scope: &Scope) -> crate::Result<Self> {
        let projection = scope.sub("text_projection");
        Ok(Self {
            model: TextModel::new(config, &load::inner(scope, "text_model"))?,
            projection: match projection.has("weight") {
                true => Some(Projection::new(&projection, config.transformer.width, config.projection)?),
                false => None,
            },
            weights: scope.weights().clone(),
        })
    }

    /// What Stable Diffusion XL takes from an encoder: the tokens before its last layer, `[batch, tokens, width]`, not
    /// normalised (`hidden_states[-2]`; with `clip_skip` `n` those before the last `n + 1` layers), and the texts'
    /// embeddings as [`text_embeds`](Self::text_embeds) gives them, `[batch, projection]`.
    ///
    /// # Errors
    /// As [`TextModel::forward`], and a `clip_skip` that leaves no layer.
    pub fn encode_xl(&self, tokens: &Tokens, clip_skip: usize) -> Result<(Tensor, Tensor)> {
        let output = self.model.forward(tokens, true)?;
        let embeds = self.text_embeds(&output)?;
        let states = output.hidden_states;
        match clip_skip.checked_add(2).and_then(|back| states.len().checked_sub(back)).and_then(|at| states.get(at)) {
            Some(state) => Ok((state.clone(), embeds)),
            None => bail!(
                "a clip_skip of {clip_skip} leaves none of the {} layers; write a smaller one",
                states.len().saturating_sub(1)
            ),
        }
    }

    /// The transformer.
    pub fn model(&self) -> &TextModel {
        &self.model
    }

    /// The weights that the encoder was built from: its variables, where it can be trained.
    pub fn weights(&self) -> &Weights {
        &self.weights
    }

    /// Whether the files hold a projection of the pooled output.
    pub fn has_projection(&self) -> bool {
        self.projection.is_some()
    }

    /// The texts' embeddings `[batch, projection]` from the pooled output of [`TextModel::forward`]; the pooled output
    /// itself where the model has no projection.
    ///
    /// # Errors
    /// Another width.
    pub fn text_embeds(&self, output: &TextOutput) -> Result<Tensor> {
        match &self.projection {
            Some(projection) => projection.forward(&output.pooled),
            None => Ok(output.pooled.clone()),
        }
    }
}
