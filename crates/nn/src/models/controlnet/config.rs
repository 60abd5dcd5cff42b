//! The configuration of a [`ControlNetModel`](super::ControlNetModel), as written and checked.

use std::path::Path;

use serde::{Deserialize, Serialize};

use super::super::UNet2DConditionJson;
use super::super::config::{
    self, Activation, AdditionEmbedding, ClassEmbedding, MidBlock, OneOrMany, TimeScaleShift, UNetDownBlock,
    UNetUpBlock, in_range, only, unsupported,
};
use super::super::plan::MidPlan;
use super::super::unet_condition::UNet2DConditionConfig;
use crate::error::Result;

/// The widest layer that is built, and the most convolutions in front of the latents' size.
const WIDEST: usize = 1 << 16;
const MOST_WIDTHS: usize = 8;

/// The order of the colours in the image.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ChannelOrder {
    /// Red first.
    Rgb,
    /// Blue first: the image's channels are turned around.
    Bgr,
}

/// `config.json` as diffusers writes it: its keys, its defaults.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[allow(missing_docs, reason = "the keys are diffusers' own and documented there")]
pub struct ControlNetJson {
    pub in_channels: usize,
    pub conditioning_channels: usize,
    pub flip_sin_to_cos: bool,
    pub freq_shift: f64,
    pub down_block_types: Vec<UNetDownBlock>,
    pub mid_block_type: Option<MidBlock>,
    pub only_cross_attention: OneOrMany<bool>,
    pub block_out_channels: Vec<usize>,
    pub layers_per_block: usize,
    pub downsample_padding: usize,
    pub mid_block_scale_factor: f64,
    pub act_fn: Activation,
    pub norm_num_groups: usize,
    pub norm_eps: f64,
    pub cross_attention_dim: usize,
    pub transformer_layers_per_block: OneOrMany<usize>,
    pub encoder_hid_dim: Option<usize>,
    pub encoder_hid_dim_type: Option<String>,
    pub attention_head_dim: OneOrMany<usize>,
    pub num_attention_heads: Option<OneOrMany<usize>>,
    pub use_linear_projection: bool,
    pub class_embed_type: Option<ClassEmbedding>,
    pub addition_embed_type: Option<AdditionEmbedding>,
    pub addition_time_embed_dim: Option<usize>,
    pub num_class_embeds: Option<usize>,
    /// Null in files of Stable Diffusion XL, which Python takes for false.
    pub upcast_attention: Option<bool>,
    pub resnet_time_scale_shift: TimeScaleShift,
    pub projection_class_embeddings_input_dim: Option<usize>,
    pub controlnet_conditioning_channel_order: ChannelOrder,
    pub conditioning_embedding_out_channels: Vec<usize>,
    pub global_pool_conditions: bool,
    pub addition_embed_type_num_heads: usize,
}

impl Default for ControlNetJson {
    fn default() -> Self {
        let unet = UNet2DConditionJson::default();
        Self {
            in_channels: unet.in_channels,
            conditioning_channels: 3,
            flip_sin_to_cos: unet.flip_sin_to_cos,
            freq_shift: unet.freq_shift,
            down_block_types: unet.down_block_types,
            mid_block_type: unet.mid_block_type,
            only_cross_attention: unet.only_cross_attention,
            block_out_channels: unet.block_out_channels,
            layers_per_block: 2,
            downsample_padding: unet.downsample_padding,
            mid_block_scale_factor: unet.mid_block_scale_factor,
            act_fn: unet.act_fn,
            norm_num_groups: unet.norm_num_groups,
            norm_eps: unet.norm_eps,
            cross_attention_dim: 1280,
            transformer_layers_per_block: OneOrMany::One(1),
            encoder_hid_dim: None,
            encoder_hid_dim_type: None,
            attention_head_dim: OneOrMany::One(8),
            num_attention_heads: None,
            use_linear_projection: false,
            class_embed_type: None,
            addition_embed_type: None,
            addition_time_embed_dim: None,
            num_class_embeds: None,
            upcast_attention: Some(false),
            resnet_time_scale_shift: TimeScaleShift::Default,
            projection_class_embeddings_input_dim: None,
            controlnet_conditioning_channel_order: ChannelOrder::Rgb,
            conditioning_embedding_out_channels: vec![16, 32, 96, 256],
            global_pool_conditions: false,
            addition_embed_type_num_heads: 64,
        }
    }
}

/// A configuration that was checked, every block spelled out.
#[derive(Clone, Debug, PartialEq)]
pub struct ControlNetConfig {
    /// The UNet of the same shape, of which only the way down and the middle are built.
    pub(super) unet: UNet2DConditionConfig,
    pub(super) mid: MidPlan,
    pub(super) conditioning_channels: usize,
    /// The widths of the convolutions over the image; between two of them the size is halved.
    pub(super) image_channels: Vec<usize>,
    /// Whether the image's channels are turned around.
    pub(super) blue_first: bool,
}

impl ControlNetConfig {
    /// From the text of a `config.json`.
    ///
    /// # Errors
    /// [`Error::Unsupported`](crate::Error::Unsupported) names a key, its value and what is supported.
    pub fn from_json(text: &str) -> Result<Self> {
        config::parse::<ControlNetJson>(text, super::CLASS)?.resolve()
    }

    pub(super) fn read(path: &Path) -> Result<Self> {
        let located = |source| crate::Error::InFile { path: path.to_owned(), source: Box::new(source) };
        config::read::<ControlNetJson>(path, super::CLASS)?.resolve().map_err(located)
    }

    /// Channels of the latents.
    pub fn in_channels(&self) -> usize {
        self.unet.in_channels()
    }

    /// Channels of the image.
    pub fn conditioning_channels(&self) -> usize {
        self.conditioning_channels
    }

    /// How many pixels of the image, in height and in width, one latent stands for.
    pub fn downsampling(&self) -> usize {
        1 << (self.image_channels.len() - 1)
    }

    /// The first and the last width of the convolutions over the image.
    pub(super) fn image_ends(&self) -> (usize, usize) {
        let ends = (self.image_channels.first(), self.image_channels.last());
        (ends.0.copied().unwrap_or_default(), ends.1.copied().unwrap_or_default())
    }
}

impl ControlNetJson {
    /// Checks every value and spells out the blocks.
    ///
    /// # Errors
    /// [`Error::Unsupported`](crate::Error::Unsupported) names a key, its value and what is supported.
    pub fn resolve(&self) -> Result<ControlNetConfig> {
        only("num_attention_heads", &self.num_attention_heads, &[None])?;
        only("global_pool_conditions", &self.global_pool_conditions, &[false])?;
        if self.class_embed_type == Some(ClassEmbedding::SimpleProjection) {
            return Err(unsupported("class_embed_type", &self.class_embed_type, "no \"simple_projection\""));
        }
        let widths = &self.conditioning_embedding_out_channels;
        in_range("conditioning_embedding_out_channels", widths.len(), MOST_WIDTHS)?;
        for width in widths {
            in_range("conditioning_embedding_out_channels", *width, WIDEST)?;
        }
        let unet = self.unet().resolve()?;
        let Some(mid) = unet.body.mid.clone() else {
            return Err(unsupported("mid_block_type", &self.mid_block_type, "a block"));
        };
        Ok(ControlNetConfig {
            mid,
            conditioning_channels: in_range("conditioning_channels", self.conditioning_channels, WIDEST)?,
            image_channels: widths.clone(),
            blue_first: self.controlnet_conditioning_channel_order == ChannelOrder::Bgr,
            unet,
        })
    }

    /// The UNet whose way down this is.
    fn unet(&self) -> UNet2DConditionJson {
        let up = |block: &UNetDownBlock| match block {
            UNetDownBlock::DownBlock2D => UNetUpBlock::UpBlock2D,
            UNetDownBlock::ResnetDownsampleBlock2D => UNetUpBlock::ResnetUpsampleBlock2D,
            UNetDownBlock::AttnDownBlock2D => UNetUpBlock::AttnUpBlock2D,
            UNetDownBlock::CrossAttnDownBlock2D => UNetUpBlock::CrossAttnUpBlock2D,
        };
        let each = |depths: &OneOrMany<usize>| match depths {
            OneOrMany::One(depth) => OneOrMany::One(OneOrMany::One(*depth)),
            OneOrMany::Many(depths) => OneOrMany::Many(depths.iter().map(|depth| OneOrMany::One(*depth)).collect()),
        };
        UNet2DConditionJson {
            in_channels: self.in_channels,
            flip_sin_to_cos: self.flip_sin_to_cos,
            freq_shift: self.freq_shift,
            up_block_types: self.down_block_types.iter().rev().map(up).collect(),
            down_block_types: self.down_block_types.clone(),
            mid_block_type: self.mid_block_type,
            only_cross_attention: self.only_cross_attention.clone(),
            block_out_channels: self.block_out_channels.clone(),
            layers_per_block: OneOrMany::One(self.layers_per_block),
            downsample_padding: self.downsample_padding,
            mid_block_scale_factor: self.mid_block_scale_factor,
            act_fn: self.act_fn,
            norm_num_groups: self.norm_num_groups,
            norm_eps: self.norm_eps,
            cross_attention_dim: OneOrMany::One(self.cross_attention_dim),
            transformer_layers_per_block: each(&self.transformer_layers_per_block),
            encoder_hid_dim: self.encoder_hid_dim,
            encoder_hid_dim_type: self.encoder_hid_dim_type.clone(),
            attention_head_dim: self.attention_head_dim.clone(),
            use_linear_projection: self.use_linear_projection,
            class_embed_type: self.class_embed_type,
            addition_embed_type: self.addition_embed_type,
            addition_time_embed_dim: self.addition_time_embed_dim,
            num_class_embeds: self.num_class_embeds,
            upcast_attention: self.upcast_attention,
            resnet_time_scale_shift: self.resnet_time_scale_shift,
            projection_class_embeddings_input_dim: self.projection_class_embeddings_input_dim,
            addition_embed_type_num_heads: self.addition_embed_type_num_heads,
            ..UNet2DConditionJson::default()
        }
    }
}
