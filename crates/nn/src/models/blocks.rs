//! Levels of a network: layers of a residual block and its attention, then another size.

use candle_core::{Result, Tensor};

use super::attention::Attention;
use super::controlnet::ControlResiduals;
use super::layers::{Conv2d, GroupNorm, from_images};
use super::plan::{AttentionPlan, BlockPlan, LayerPlan, MidPlan, UNetPlan};
use super::resnet::{Direction, Resample, ResnetBlock};
use crate::maps::Maps;
use crate::weights::Scope;

/// What layers see beside the maps.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Context<'a> {
    /// The time embedding behind its SiLU, `[batch, width]`.
    pub(super) time: Option<&'a Tensor>,
    /// `[batch, tokens, width]`.
    pub(super) text: Option<&'a Tensor>,
}

/// A level on the way down or up.
#[derive(Clone, Debug)]
pub(super) struct Block {
    layers: Vec<(ResnetBlock, Option<Attention>)>,
    resample: Option<Resample>,
}

impl Block {
    pub(super) fn new(scope: &Scope, direction: Direction, plan: &BlockPlan) -> crate::Result<Self> {
        let (resnets, attentions) = (scope.sub("resnets"), scope.sub("attentions"));
        let layer = |(i, layer): (usize, &LayerPlan)| {
            Ok((ResnetBlock::new(&resnets.sub(i), layer.resnet)?, attention(&attentions, i, layer.attention)?))
        };
        let name = match direction {
            Direction::Down => "downsamplers",
            Direction::Up => "upsamplers",
        };
        let resample = |plan| Resample::new(&scope.sub(name).sub(0), direction, plan);
        Ok(Self {
            layers: plan.layers.iter().enumerate().map(layer).collect::<crate::Result<_>>()?,
            resample: plan.resample.map(resample).transpose()?,
        })
    }

    /// Levels `scope.0`, `scope.1`, ..
    pub(super) fn all(scope: &Scope, direction: Direction, plans: &[BlockPlan]) -> crate::Result<Vec<Self>> {
        plans.iter().enumerate().map(|(i, plan)| Self::new(&scope.sub(i), direction, plan)).collect()
    }

    /// The way down; every result that the way up takes again goes to `skips`.
    pub(super) fn down(&self, x: Maps, context: Context<'_>, skips: &mut Vec<Maps>) -> Result<Maps> {
        let mut h = x;
        for (resnet, attention) in &self.layers {
            h = layer(resnet, attention.as_ref(), &h, context)?;
            skips.push(h.clone());
        }
        if let Some(resample) = &self.resample {
            h = resample.forward(&h, h.size(), context.time)?;
            skips.push(h.clone());
        }
        Ok(h)
    }

    /// The way up; every layer takes the last of `skips`, and the maps grow to the size of the one after those.
    pub(super) fn up(&self, x: Maps, context: Context<'_>, skips: &mut Vec<Maps>) -> Result<Maps> {
        let mut h = x;
        for (resnet, attention) in &self.layers {
            if let Some(skip) = skips.pop() {
                h = h.concat_channels(&skip)?;
            }
            h = layer(resnet, attention.as_ref(), &h, context)?;
        }
        match &self.resample {
            Some(resample) => {
                let (height, width) = h.size();
                let size = skips.last().map_or((2 * height, 2 * width), Maps::size);
                resample.forward(&h, size, context.time)
            }
            None => Ok(h),
        }
    }

    /// Without skips: a level of an autoencoder.
    pub(super) fn plain(&self, x: Maps) -> Result<Maps> {
        let context = Context::default();
        let mut h = x;
        for (resnet, attention) in &self.layers {
            h = layer(resnet, attention.as_ref(), &h, context)?;
        }
        match &self.resample {
            Some(resample) => {
                let (height, width) = h.size();
                resample.forward(&h, (2 * height, 2 * width), None)
            }
            None => Ok(h),
        }
    }
}

/// The middle of a network.
#[derive(Clone, Debug)]
pub(super) struct MidBlock {
    first: ResnetBlock,
    rest: Vec<(Option<Attention>, ResnetBlock)>,
}

impl MidBlock {
    pub(super) fn new(scope: &Scope, plan: &MidPlan) -> crate::Result<Self> {
        let (resnets, attentions) = (scope.sub("resnets"), scope.sub("attentions"));
        let rest = |(i, plan_of): (usize, &Option<AttentionPlan>)| {
            Ok((attention(&attentions, i, *plan_of)?, ResnetBlock::new(&resnets.sub(i + 1), plan.resnet)?))
        };
        Ok(Self {
            first: ResnetBlock::new(&resnets.sub(0), plan.resnet)?,
            rest: plan.attentions.iter().enumerate().map(rest).collect::<crate::Result<_>>()?,
        })
    }

    pub(super) fn forward(&self, x: &Maps, context: Context<'_>) -> Result<Maps> {
        let mut h = self.first.forward(x, context.time)?;
        for (attention, resnet) in &self.rest {
            if let Some(attention) = attention {
                h = attention.forward(&h, context.text)?;
            }
            h = resnet.forward(&h, context.time)?;
        }
        Ok(h)
    }
}

/// A UNet without its embeddings.
#[derive(Clone, Debug)]
pub(super) struct UNetBody {
    conv_in: Conv2d,
    down_blocks: Vec<Block>,
    mid_block: Option<MidBlock>,
    up_blocks: Vec<Block>,
    conv_norm_out: GroupNorm,
    conv_out: Conv2d,
    centred: bool,
}

impl UNetBody {
    pub(super) fn new(scope: &Scope, plan: &UNetPlan) -> crate::Result<Self> {
        let (kernel_in, kernel_out) = plan.kernels;
        Ok(Self {
            conv_in: Conv2d::new(&scope.sub("conv_in"), plan.in_channels, plan.channels, kernel_in)?,
            down_blocks: Block::all(&scope.sub("down_blocks"), Direction::Down, &plan.down)?,
            mid_block: plan.mid.as_ref().map(|mid| MidBlock::new(&scope.sub("mid_block"), mid)).transpose()?,
            up_blocks: Block::all(&scope.sub("up_blocks"), Direction::Up, &plan.up)?,
            conv_norm_out: GroupNorm::new(&scope.sub("conv_norm_out"), plan.channels, plan.norm)?,
            conv_out: Conv2d::new(&scope.sub("conv_out"), plan.channels, plan.out_channels, kernel_out)?,
            centred: plan.centred,
        })
    }

    /// `[batch, in_channels, height, width]` to `[batch, out_channels, height, width]`.
    pub(super) fn forward(&self, x: &Tensor, context: Context<'_>) -> Result<Tensor> {
        self.forward_controlled(x, context, None)
    }

    /// The same, with `control` added to what the way up takes again and to the middle.
    pub(super) fn forward_controlled(
        &self,
        x: &Tensor,
        context: Context<'_>,
        control: Option<&ControlResiduals>,
    ) -> Result<Tensor> {
        let x = if self.centred { x.affine(2.0, -1.0)? } else { x.clone() };
        let mut h = self.conv_in.forward(&from_images(&x)?)?;
        let mut skips = vec![h.clone()];
        for block in &self.down_blocks {
            h = block.down(h, context, &mut skips)?;
        }
        if let Some(mid) = &self.mid_block {
            h = mid.forward(&h, context)?;
        }
        if let Some(control) = control {
            h = control.add_to(&mut skips, &h)?;
        }
        for block in &self.up_blocks {
            h = block.up(h, context, &mut skips)?;
        }
        self.conv_out.forward(&self.conv_norm_out.forward_silu(&h)?)?.to_nchw()
    }
}

fn attention(scope: &Scope, i: usize, plan: Option<AttentionPlan>) -> crate::Result<Option<Attention>> {
    plan.map(|plan| Attention::new(&scope.sub(i), plan)).transpose()
}

fn layer(resnet: &ResnetBlock, attention: Option<&Attention>, x: &Maps, context: Context<'_>) -> Result<Maps> {
    let h = resnet.forward(x, context.time)?;
    match attention {
        Some(attention) => attention.forward(&h, context.text),
        None => Ok(h),
    }
}
