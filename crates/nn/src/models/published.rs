//! The configurations of the models that are passed around as single files, which hold none: those of diffusers' own
//! folders (`stable-diffusion-v1-5`, `stable-diffusion-2-1`, `stable-diffusion-xl-base-1.0`,
//! `stable-diffusion-xl-refiner-1.0`).

use super::config::{AdditionEmbedding, OneOrMany, SampleSize, UNetDownBlock, UNetUpBlock, VaeDownBlock, VaeUpBlock};
use super::{AutoencoderKLJson, UNet2DConditionJson};
use crate::single_file::{Base, Family};

/// The UNet of a family.
pub(crate) fn unet(family: Family) -> UNet2DConditionJson {
    use UNetDownBlock::{CrossAttnDownBlock2D, DownBlock2D};
    use UNetUpBlock::{CrossAttnUpBlock2D, UpBlock2D};
    let many = |values: &[usize]| OneOrMany::Many(values.to_vec());
    let square = |side| Some(SampleSize::Square(side));
    let start = UNet2DConditionJson { in_channels: family.in_channels, ..UNet2DConditionJson::default() };
    match family.base {
        Base::V1 => UNet2DConditionJson {
            sample_size: square(64),
            cross_attention_dim: OneOrMany::One(768),
            attention_head_dim: OneOrMany::One(8),
            ..start
        },
        Base::V2 => UNet2DConditionJson {
            sample_size: square(if family.in_channels == 4 { 96 } else { 64 }),
            cross_attention_dim: OneOrMany::One(1024),
            attention_head_dim: many(&[5, 10, 20, 20]),
            use_linear_projection: true,
            upcast_attention: Some(family.in_channels == 4),
            ..start
        },
        Base::Xl => UNet2DConditionJson {
            sample_size: square(128),
            down_block_types: vec![DownBlock2D, CrossAttnDownBlock2D, CrossAttnDownBlock2D],
            up_block_types: vec![CrossAttnUpBlock2D, CrossAttnUpBlock2D, UpBlock2D],
            block_out_channels: vec![320, 640, 1280],
            transformer_layers_per_block: OneOrMany::Many([1, 2, 10].map(OneOrMany::One).to_vec()),
            cross_attention_dim: OneOrMany::One(2048),
            attention_head_dim: many(&[5, 10, 20]),
            projection_class_embeddings_input_dim: Some(2816),
            ..xl(start)
        },
        Base::XlRefiner => UNet2DConditionJson {
            sample_size: square(128),
            down_block_types: vec![DownBlock2D, CrossAttnDownBlock2D, CrossAttnDownBlock2D, DownBlock2D],
            up_block_types: vec![UpBlock2D, CrossAttnUpBlock2D, CrossAttnUpBlock2D, UpBlock2D],
            block_out_channels: vec![384, 768, 1536, 1536],
            transformer_layers_per_block: OneOrMany::One(OneOrMany::One(4)),
            cross_attention_dim: OneOrMany::One(1280),
            attention_head_dim: many(&[6, 12, 24, 24]),
            projection_class_embeddings_input_dim: Some(2560),
            ..xl(start)
        },
    }
}

/// What both networks of Stable Diffusion XL have in common.
fn xl(start: UNet2DConditionJson) -> UNet2DConditionJson {
    UNet2DConditionJson {
        addition_embed_type: Some(AdditionEmbedding::TextTime),
        addition_time_embed_dim: Some(256),
        use_linear_projection: true,
        ..start
    }
}

/// The autoencoder of a family.
pub(crate) fn vae(family: Family) -> AutoencoderKLJson {
    let (sample_size, scaling_factor) = match family.base {
        Base::V1 => (512, 0.18215),
        Base::V2 => (if family.in_channels == 4 { 768 } else { 512 }, 0.18215),
        Base::Xl | Base::XlRefiner => (1024, 0.13025),
    };
    AutoencoderKLJson {
        block_out_channels: vec![128, 256, 512, 512],
        down_block_types: vec![VaeDownBlock::DownEncoderBlock2D; 4],
        up_block_types: vec![VaeUpBlock::UpDecoderBlock2D; 4],
        layers_per_block: 2,
        sample_size: Some(SampleSize::Square(sample_size)),
        scaling_factor,
        ..AutoencoderKLJson::default()
    }
}
