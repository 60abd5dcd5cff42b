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

/// What a UNet's deep layers gave in one call, for the calls after it (DeepCache, Ma et al. 2024): neighbouring denoising
/// steps agree in it, so that only the outermost layers need be computed again.
#[derive(Clone, Debug, Default)]
pub struct DeepFeatures {
    branch: usize,
    kept: Option<Maps>,
}

impl DeepFeatures {
    /// Nothing yet. `branch` counts the results on the way down, from the first convolution's (0): what lies below that one is
    /// kept. With two layers a level this is DeepCache's `cache_branch_id`.
    pub fn new(branch: usize) -> Self {
        Self { branch, kept: None }
    }

    /// Has the next call compute all layers again.
    pub fn forget(&mut self) {
        self.kept = None;
    }
}

/// Results on the way down that the way up takes again.
#[derive(Debug)]
pub(super) struct Skips {
    pub(super) maps: Vec<Maps>,
    /// How many are computed; the way down ends there.
    most: usize,
}

impl Skips {
    /// Of a whole way down, from the first convolution's result on.
    pub(super) fn whole(first: Maps) -> Self {
        Self { maps: vec![first], most: usize::MAX }
    }

    fn is_full(&self) -> bool {
        self.maps.len() >= self.most
    }
}

/// How far the way up has come.
#[derive(Debug)]
struct WayUp {
    skips: Vec<Maps>,
    /// Layers that are still to come.
    left: usize,
    /// The last so many are computed; those before them are passed by.
    computed: usize,
    /// What goes in where so many are left is kept.
    keep_at: usize,
    kept: Option<Maps>,
}

impl WayUp {
    /// Counts the next layer, into which `h` goes, and says whether it is passed by.
    fn passes(&mut self, h: &Maps) -> bool {
        if self.left == self.keep_at {
            self.kept = Some(h.clone());
        }
        let passed = self.left > self.computed;
        self.left = self.left.saturating_sub(1);
        passed
    }

    /// Whether a layer was computed.
    fn has_begun(&self) -> bool {
        self.left < self.computed
    }
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

    /// The way down, as far as `skips` has room: every result that the way up takes again goes there.
    pub(super) fn down(&self, x: Maps, context: Context<'_>, skips: &mut Skips) -> Result<Maps> {
        let mut h = x;
        for (resnet, attention) in &self.layers {
            if skips.is_full() {
                return Ok(h);
            }
            h = layer(resnet, attention.as_ref(), &h, context)?;
            skips.maps.push(h.clone());
        }
        match self.resample.as_ref().filter(|_| !skips.is_full()) {
            Some(resample) => {
                h = resample.forward(&h, h.size(), context.time)?;
                skips.maps.push(h.clone());
                Ok(h)
            }
            None => Ok(h),
        }
    }

    /// The way up; every layer takes the last of `skips`, and the maps grow to the size of the one after those.
    fn up(&self, x: Maps, context: Context<'_>, way: &mut WayUp) -> Result<Maps> {
        let mut h = x;
        for (resnet, attention) in &self.layers {
            if way.passes(&h) {
                continue;
            }
            if let Some(skip) = way.skips.pop() {
                h = h.concat_channels(&skip)?;
            }
            h = layer(resnet, attention.as_ref(), &h, context)?;
        }
        match self.resample.as_ref().filter(|_| way.has_begun()) {
            Some(resample) => {
                let (height, width) = h.size();
                let size = way.skips.last().map_or((2 * height, 2 * width), Maps::size);
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
        self.forward_with(x, context, None, None)
    }

    /// The same, with `control` added to what the way up takes again and to the middle. What `deep` holds is not computed
    /// again; where it holds nothing, it is filled.
    pub(super) fn forward_with(
        &self,
        x: &Tensor,
        context: Context<'_>,
        control: Option<&ControlResiduals>,
        deep: Option<&mut DeepFeatures>,
    ) -> Result<Tensor> {
        let x = if self.centred { x.affine(2.0, -1.0)? } else { x.clone() };
        let first = self.conv_in.forward(&from_images(&x)?)?;
        let layers = self.up_blocks.iter().map(|block| block.layers.len()).sum();
        // Without `deep`, no layer has so many behind it, and nothing is kept.
        let outermost = deep.as_ref().map_or(usize::MAX, |deep| deep.branch.saturating_add(1));
        let reused = deep.as_ref().and_then(|deep| deep.kept.clone());
        let computed = if reused.is_some() { outermost.min(layers) } else { layers };

        let mut skips = Skips { maps: vec![first.clone()], most: computed };
        let mut h = first;
        for block in &self.down_blocks {
            h = block.down(h, context, &mut skips)?;
        }
        if let Some(mid) = self.mid_block.as_ref().filter(|_| reused.is_none()) {
            h = mid.forward(&h, context)?;
        }
        if let Some(control) = control {
            skips.maps = control.on_skips(&skips.maps, layers)?;
            h = if reused.is_none() { control.on_mid(&h)? } else { h };
        }
        let mut way = WayUp { skips: skips.maps, left: layers, computed, keep_at: outermost, kept: None };
        h = reused.unwrap_or(h);
        for block in &self.up_blocks {
            h = block.up(h, context, &mut way)?;
        }
        if let Some(deep) = deep {
            deep.kept = way.kept;
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
