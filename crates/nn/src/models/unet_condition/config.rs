//! The configuration of a [`UNet2DConditionModel`](super::UNet2DConditionModel), as written and checked.

use std::path::Path;

use serde::{Deserialize, Serialize};

use super::super::config::{
    self, Activation, AdditionEmbedding, ClassEmbedding, MidBlock, OneOrMany, SampleSize, TimeEmbedding,
    TimeScaleShift, UNetDownBlock, UNetUpBlock, in_range, only, unsupported,
};
use super::super::plan::{
    self, AttentionPlan, Level, MidPlan, NormPlan, ResnetStyle, TimePlan, TransformerPlan, UNetPlan,
};
use super::super::time::{ClassPlan, FeaturesPlan};
use crate::error::Result;

/// The widest layer and the longest table that are built.
const WIDEST: usize = 1 << 16;
/// The most levels, residual blocks of a level and transformer blocks behind one of them.
const DEEPEST: usize = 64;

/// `config.json` as diffusers writes it: its keys, its defaults.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[allow(missing_docs, reason = "the keys are diffusers' own and documented there")]
pub struct UNet2DConditionJson {
    pub sample_size: Option<SampleSize>,
    pub in_channels: usize,
    pub out_channels: usize,
    pub center_input_sample: bool,
    pub flip_sin_to_cos: bool,
    pub freq_shift: f64,
    pub down_block_types: Vec<UNetDownBlock>,
    pub mid_block_type: Option<MidBlock>,
    pub up_block_types: Vec<UNetUpBlock>,
    pub only_cross_attention: OneOrMany<bool>,
    pub block_out_channels: Vec<usize>,
    pub layers_per_block: OneOrMany<usize>,
    pub downsample_padding: usize,
    pub mid_block_scale_factor: f64,
    pub dropout: f64,
    pub act_fn: Activation,
    pub norm_num_groups: usize,
    pub norm_eps: f64,
    pub cross_attention_dim: OneOrMany<usize>,
    pub transformer_layers_per_block: OneOrMany<OneOrMany<usize>>,
    pub reverse_transformer_layers_per_block: Option<Vec<OneOrMany<usize>>>,
    pub encoder_hid_dim: Option<usize>,
    pub encoder_hid_dim_type: Option<String>,
    pub attention_head_dim: OneOrMany<usize>,
    pub num_attention_heads: Option<OneOrMany<usize>>,
    pub dual_cross_attention: bool,
    pub use_linear_projection: bool,
    pub class_embed_type: Option<ClassEmbedding>,
    pub addition_embed_type: Option<AdditionEmbedding>,
    pub addition_time_embed_dim: Option<usize>,
    pub num_class_embeds: Option<usize>,
    /// Null in Stable Diffusion XL's own file, which Python takes for false.
    pub upcast_attention: Option<bool>,
    pub resnet_time_scale_shift: TimeScaleShift,
    pub resnet_skip_time_act: bool,
    pub resnet_out_scale_factor: f64,
    pub time_embedding_type: TimeEmbedding,
    pub time_embedding_dim: Option<usize>,
    pub time_embedding_act_fn: Option<Activation>,
    pub timestep_post_act: Option<Activation>,
    pub time_cond_proj_dim: Option<usize>,
    pub conv_in_kernel: usize,
    pub conv_out_kernel: usize,
    pub projection_class_embeddings_input_dim: Option<usize>,
    pub attention_type: String,
    pub class_embeddings_concat: bool,
    pub mid_block_only_cross_attention: Option<bool>,
    pub cross_attention_norm: Option<String>,
    pub addition_embed_type_num_heads: usize,
}

impl Default for UNet2DConditionJson {
    fn default() -> Self {
        use UNetDownBlock::{CrossAttnDownBlock2D, DownBlock2D};
        use UNetUpBlock::{CrossAttnUpBlock2D, UpBlock2D};
        Self {
            sample_size: None,
            in_channels: 4,
            out_channels: 4,
            center_input_sample: false,
            flip_sin_to_cos: true,
            freq_shift: 0.0,
            down_block_types: vec![CrossAttnDownBlock2D, CrossAttnDownBlock2D, CrossAttnDownBlock2D, DownBlock2D],
            mid_block_type: Some(MidBlock::UNetMidBlock2DCrossAttn),
            up_block_types: vec![UpBlock2D, CrossAttnUpBlock2D, CrossAttnUpBlock2D, CrossAttnUpBlock2D],
            only_cross_attention: OneOrMany::One(false),
            block_out_channels: vec![320, 640, 1280, 1280],
            layers_per_block: OneOrMany::One(2),
            downsample_padding: 1,
            mid_block_scale_factor: 1.0,
            dropout: 0.0,
            act_fn: Activation::Silu,
            norm_num_groups: 32,
            norm_eps: 1e-5,
            cross_attention_dim: OneOrMany::One(1280),
            transformer_layers_per_block: OneOrMany::One(OneOrMany::One(1)),
            reverse_transformer_layers_per_block: None,
            encoder_hid_dim: None,
            encoder_hid_dim_type: None,
            attention_head_dim: OneOrMany::One(8),
            num_attention_heads: None,
            dual_cross_attention: false,
            use_linear_projection: false,
            class_embed_type: None,
            addition_embed_type: None,
            addition_time_embed_dim: None,
            num_class_embeds: None,
            upcast_attention: Some(false),
            resnet_time_scale_shift: TimeScaleShift::Default,
            resnet_skip_time_act: false,
            resnet_out_scale_factor: 1.0,
            time_embedding_type: TimeEmbedding::Positional,
            time_embedding_dim: None,
            time_embedding_act_fn: None,
            timestep_post_act: None,
            time_cond_proj_dim: None,
            conv_in_kernel: 3,
            conv_out_kernel: 3,
            projection_class_embeddings_input_dim: None,
            attention_type: "default".into(),
            class_embeddings_concat: false,
            mid_block_only_cross_attention: None,
            cross_attention_norm: None,
            addition_embed_type_num_heads: 64,
        }
    }
}

/// A configuration that was checked, every block spelled out.
#[derive(Clone, Debug, PartialEq)]
pub struct UNet2DConditionConfig {
    pub(in super::super) body: UNetPlan,
    pub(super) features: FeaturesPlan,
    /// The width of the time embedding.
    pub(super) embedding: usize,
    /// The width of `timestep_cond`.
    pub(super) condition: Option<usize>,
    /// A SiLU at the end of the time embedding's own layers.
    pub(super) silu_after_embedding: bool,
    /// A SiLU behind the sum of all embeddings.
    pub(super) silu_after_sum: bool,
    pub(super) class: Option<ClassPlan>,
    pub(super) text_time: Option<TextTimePlan>,
    pub(super) dropout: f64,
}

/// SDXL's pooled text embedding and numbers for sizes and crops.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct TextTimePlan {
    pub(super) features: FeaturesPlan,
    /// The width of the pooled text and of all numbers' features together.
    pub(super) inputs: usize,
}

impl UNet2DConditionConfig {
    /// From the text of a `config.json`.
    ///
    /// # Errors
    /// [`Error::Unsupported`](crate::Error::Unsupported) names a key, its value and what is supported.
    pub fn from_json(text: &str) -> Result<Self> {
        config::parse::<UNet2DConditionJson>(text, super::CLASS)?.resolve()
    }

    pub(super) fn read(path: &Path) -> Result<Self> {
        let located = |source| crate::Error::InFile { path: path.to_owned(), source: Box::new(source) };
        config::read::<UNet2DConditionJson>(path, super::CLASS)?.resolve().map_err(located)
    }

    /// Channels of the latents that come in.
    pub fn in_channels(&self) -> usize {
        self.body.in_channels
    }

    /// Results on the way down below which layers can be left out (see [`DeepFeatures`](crate::models::DeepFeatures)).
    pub fn branches(&self) -> usize {
        plan::skips(self.body.channels, &self.body.down).len().saturating_sub(1)
    }

    /// Channels of the latents that go out.
    pub fn out_channels(&self) -> usize {
        self.body.out_channels
    }
}

impl UNet2DConditionJson {
    /// Checks every value and spells out the blocks.
    ///
    /// # Errors
    /// [`Error::Unsupported`](crate::Error::Unsupported) names a key, its value and what is supported.
    pub fn resolve(&self) -> Result<UNet2DConditionConfig> {
        self.check_fixed()?;
        let levels = in_range("down_block_types", self.down_block_types.len(), DEEPEST)?;
        let wrong_length = |key, found: usize| {
            unsupported(key, &format!("{found} entries"), format!("{levels} entries, as many as `down_block_types`"))
        };
        if self.up_block_types.len() != levels {
            return Err(wrong_length("up_block_types", self.up_block_types.len()));
        }
        if self.block_out_channels.len() != levels {
            return Err(wrong_length("block_out_channels", self.block_out_channels.len()));
        }
        for channels in &self.block_out_channels {
            in_range("block_out_channels", *channels, WIDEST)?;
        }
        let first = self.block_out_channels[0];
        let (features, embedding) = self.time(first)?;
        Ok(UNet2DConditionConfig {
            body: self.body(levels, embedding)?,
            features,
            embedding,
            condition: self
                .time_cond_proj_dim
                .map(|width| in_range("time_cond_proj_dim", width, WIDEST))
                .transpose()?,
            silu_after_embedding: self.timestep_post_act.is_some(),
            silu_after_sum: self.time_embedding_act_fn.is_some(),
            class: self.class()?,
            text_time: self.text_time()?,
            dropout: self.dropout,
        })
    }

    /// Keys of which only one value is supported.
    fn check_fixed(&self) -> Result<()> {
        only("downsample_padding", &self.downsample_padding, &[0, 1])?;
        // diffusers refuses it too: files say `attention_head_dim`, see `transformer`.
        only("num_attention_heads", &self.num_attention_heads, &[None])?;
        only("encoder_hid_dim", &self.encoder_hid_dim, &[None])?;
        only("encoder_hid_dim_type", &self.encoder_hid_dim_type, &[None])?;
        only("dual_cross_attention", &self.dual_cross_attention, &[false])?;
        only("resnet_skip_time_act", &self.resnet_skip_time_act, &[false])?;
        only("resnet_out_scale_factor", &self.resnet_out_scale_factor, &[1.0])?;
        only("attention_type", &self.attention_type, &["default".to_owned()])?;
        only("class_embeddings_concat", &self.class_embeddings_concat, &[false])?;
        only("mid_block_only_cross_attention", &self.mid_block_only_cross_attention, &[None, Some(false)])?;
        only("cross_attention_norm", &self.cross_attention_norm, &[None])?;
        Ok(())
    }

    fn time(&self, first: usize) -> Result<(FeaturesPlan, usize)> {
        let width = |default| match self.time_embedding_dim {
            Some(width) => in_range("time_embedding_dim", width, WIDEST),
            None => Ok(default),
        };
        match self.time_embedding_type {
            TimeEmbedding::Positional => Ok((self.positional(first)?, width(4 * first)?)),
            TimeEmbedding::Fourier => {
                let width = width(2 * first)?;
                if !width.is_multiple_of(2) {
                    return Err(unsupported("time_embedding_dim", &width, "an even number with fourier embeddings"));
                }
                Ok((FeaturesPlan::Fourier { width, flip: self.flip_sin_to_cos, log: false, scale: 1.0 }, width))
            }
            other => Err(unsupported("time_embedding_type", &other, "\"positional\" or \"fourier\"")),
        }
    }

    fn positional(&self, width: usize) -> Result<FeaturesPlan> {
        let shift = self.freq_shift;
        match shift < (width / 2) as f64 {
            true => Ok(FeaturesPlan::Positional { width, flip: self.flip_sin_to_cos, shift }),
            false => Err(unsupported("freq_shift", &shift, format!("less than half the {width} features"))),
        }
    }

    fn class(&self) -> Result<Option<ClassPlan>> {
        let inputs = || match self.projection_class_embeddings_input_dim {
            Some(width) => in_range("projection_class_embeddings_input_dim", width, WIDEST),
            None => Err(unsupported(
                "projection_class_embeddings_input_dim",
                &self.projection_class_embeddings_input_dim,
                "a width, where `class_embed_type` is a projection",
            )),
        };
        Ok(match self.class_embed_type {
            None => match self.num_class_embeds {
                Some(classes) => Some(ClassPlan::Table { classes: in_range("num_class_embeds", classes, 1 << 24)? }),
                None => None,
            },
            Some(ClassEmbedding::Timestep) => Some(ClassPlan::Timestep),
            Some(ClassEmbedding::Identity) => Some(ClassPlan::Identity),
            Some(ClassEmbedding::Projection) => Some(ClassPlan::Projection { inputs: inputs()? }),
            Some(ClassEmbedding::SimpleProjection) => Some(ClassPlan::Linear { inputs: inputs()? }),
        })
    }

    fn text_time(&self) -> Result<Option<TextTimePlan>> {
        let Some(AdditionEmbedding::TextTime) = self.addition_embed_type else {
            return Ok(None);
        };
        let needed = |key, value: Option<usize>| match value {
            Some(width) => in_range(key, width, WIDEST),
            None => Err(unsupported(key, &value, "a width, where `addition_embed_type` is \"text_time\"")),
        };
        let width = needed("addition_time_embed_dim", self.addition_time_embed_dim)?;
        let inputs = needed("projection_class_embeddings_input_dim", self.projection_class_embeddings_input_dim)?;
        Ok(Some(TextTimePlan { features: self.positional(width)?, inputs }))
    }

    fn body(&self, levels: usize, embedding: usize) -> Result<UNetPlan> {
        let norm = NormPlan { groups: self.norm_num_groups, eps: self.norm_eps };
        let scale_shift = self.resnet_time_scale_shift == TimeScaleShift::ScaleShift;
        let time = Some(TimePlan { width: embedding, scale_shift });
        let style = ResnetStyle { norm, time, divisor: 1.0 };
        let channels = &self.block_out_channels;
        let (first, last) = (channels[0], channels[levels - 1]);
        let down = self.down_levels(levels, norm)?;
        let down = plan::down_blocks(style, first, &down)?;
        let up = plan::up_blocks(style, last, plan::skips(first, &down), &self.up_levels(levels, norm)?)?;
        let kernel = |key, size: usize| match size % 2 {
            1 => in_range(key, size, 31),
            _ => Err(unsupported(key, &size, "an odd number up to 31")),
        };
        Ok(UNetPlan {
            in_channels: in_range("in_channels", self.in_channels, WIDEST)?,
            out_channels: in_range("out_channels", self.out_channels, WIDEST)?,
            channels: first,
            kernels: (kernel("conv_in_kernel", self.conv_in_kernel)?, kernel("conv_out_kernel", self.conv_out_kernel)?),
            norm: norm.of(first)?,
            centred: self.center_input_sample,
            down,
            mid: self.mid(levels, style)?,
            up,
        })
    }

    fn layers(&self, levels: usize) -> Result<Vec<usize>> {
        let layers = self.layers_per_block.for_levels("layers_per_block", levels)?;
        layers.into_iter().map(|layers| in_range("layers_per_block", layers, DEEPEST)).collect()
    }

    /// The transformer over the pixels of one level; `layers` counts its blocks.
    ///
    /// diffusers' `attention_head_dim` is the number of heads here, whatever its name says; it was named before anyone
    /// noticed, and thousands of files have it.
    fn transformer(&self, level: usize, levels: usize, layers: usize, only_cross: bool) -> Result<AttentionPlan> {
        let heads = self.attention_head_dim.for_levels("attention_head_dim", levels)?;
        let context = self.cross_attention_dim.for_levels("cross_attention_dim", levels)?[level];
        let plan = TransformerPlan {
            channels: self.block_out_channels[level],
            groups: self.norm_num_groups,
            heads: heads[level],
            layers: if layers == 0 { 0 } else { in_range("transformer_layers_per_block", layers, DEEPEST)? },
            context: in_range("cross_attention_dim", context, WIDEST)?,
            only_cross,
            linear: self.use_linear_projection,
            upcast: self.upcast_attention.unwrap_or(false),
        };
        plan.checked()
    }

    /// The width of a head of plain attention in the `block`th block; there, `attention_head_dim` is what its name says.
    fn pixels(&self, level: usize, block: usize, levels: usize, norm: NormPlan) -> Result<AttentionPlan> {
        let width = self.attention_head_dim.for_levels("attention_head_dim", levels)?[block];
        AttentionPlan::pixels(self.block_out_channels[level], Some(width), Some(norm), 1.0)
    }

    fn down_levels(&self, levels: usize, norm: NormPlan) -> Result<Vec<Level>> {
        let transformers = self.transformer_layers_per_block.for_levels("transformer_layers_per_block", levels)?;
        let only_cross = self.only_cross_attention.for_levels("only_cross_attention", levels)?;
        let layers = self.layers(levels)?;
        let level = |(level, kind): (usize, &UNetDownBlock)| {
            let attention = |layer: usize| match kind {
                UNetDownBlock::DownBlock2D | UNetDownBlock::ResnetDownsampleBlock2D => Ok(None),
                UNetDownBlock::AttnDownBlock2D => self.pixels(level, level, levels, norm).map(Some),
                UNetDownBlock::CrossAttnDownBlock2D => {
                    let depth = of_layer(&transformers[level], layer, layers[level])?;
                    self.transformer(level, levels, depth, only_cross[level]).map(Some)
                }
            };
            Ok(Level {
                channels: self.block_out_channels[level],
                attentions: (0..layers[level]).map(attention).collect::<Result<_>>()?,
                padding: (*kind != UNetDownBlock::ResnetDownsampleBlock2D).then_some(self.downsample_padding),
            })
        };
        self.down_block_types.iter().enumerate().map(level).collect()
    }

    fn up_levels(&self, levels: usize, norm: NormPlan) -> Result<Vec<Level>> {
        let only_cross = self.only_cross_attention.for_levels("only_cross_attention", levels)?;
        let layers = self.layers(levels)?;
        let transformers = self.reversed_transformers(levels)?;
        let level = |(block, kind): (usize, &UNetUpBlock)| {
            let level = levels - 1 - block;
            let attention = |layer: usize| match kind {
                UNetUpBlock::UpBlock2D | UNetUpBlock::ResnetUpsampleBlock2D => Ok(None),
                // Not reversed: diffusers takes the list in the order of the way down here too.
                UNetUpBlock::AttnUpBlock2D => self.pixels(level, block, levels, norm).map(Some),
                UNetUpBlock::CrossAttnUpBlock2D => {
                    let depth = of_layer(&transformers[block], layer, layers[level] + 1)?;
                    self.transformer(level, levels, depth, only_cross[level]).map(Some)
                }
            };
            Ok(Level {
                channels: self.block_out_channels[level],
                attentions: (0..=layers[level]).map(attention).collect::<Result<_>>()?,
                padding: (*kind != UNetUpBlock::ResnetUpsampleBlock2D).then_some(1),
            })
        };
        self.up_block_types.iter().enumerate().map(level).collect()
    }

    /// How many transformer blocks each level on the way up has, from the lowest resolution to the highest.
    fn reversed_transformers(&self, levels: usize) -> Result<Vec<OneOrMany<usize>>> {
        const KEY: &str = "reverse_transformer_layers_per_block";
        let down = self.transformer_layers_per_block.for_levels("transformer_layers_per_block", levels)?;
        match &self.reverse_transformer_layers_per_block {
            Some(up) => OneOrMany::Many(up.clone()).for_levels(KEY, levels),
            None if down.iter().any(|depth| matches!(depth, OneOrMany::Many(_))) => {
                Err(unsupported(KEY, &None::<usize>, "a list, where `transformer_layers_per_block` has lists in it"))
            }
            None => Ok(down.into_iter().rev().collect()),
        }
    }

    fn mid(&self, levels: usize, style: ResnetStyle) -> Result<Option<MidPlan>> {
        let level = levels - 1;
        let style = ResnetStyle { divisor: divisor(self.mid_block_scale_factor)?, ..style };
        let channels = self.block_out_channels[level];
        let attentions = match self.mid_block_type {
            None => return Ok(None),
            // A single residual block, unlike the block of the same name in a `UNet2DModel`.
            Some(MidBlock::UNetMidBlock2D) => Vec::new(),
            Some(MidBlock::UNetMidBlock2DCrossAttn) => {
                let transformers =
                    self.transformer_layers_per_block.for_levels("transformer_layers_per_block", levels)?;
                let depth = of_layer(&transformers[level], 0, 1)?;
                vec![Some(self.transformer(level, levels, depth, false)?)]
            }
        };
        Ok(Some(MidPlan { resnet: style.block(channels, channels)?, attentions }))
    }
}

/// The number that belongs to one of a block's `layers`.
fn of_layer(depths: &OneOrMany<usize>, layer: usize, layers: usize) -> Result<usize> {
    match depths {
        OneOrMany::One(depth) => Ok(*depth),
        OneOrMany::Many(depths) => depths.get(layer).copied().ok_or_else(|| {
            unsupported(
                "transformer_layers_per_block",
                depths,
                format!("lists of {layers}, one for each residual block"),
            )
        }),
    }
}

/// `mid_block_scale_factor`, by which sums are divided.
pub(in super::super) fn divisor(factor: f64) -> Result<f64> {
    match factor.is_finite() && factor != 0.0 {
        true => Ok(factor),
        false => Err(unsupported("mid_block_scale_factor", &factor, "a number other than 0")),
    }
}
