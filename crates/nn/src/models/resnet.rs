//! The residual block (He et al. 2016) as diffusers has it, and the layers that halve and double maps.

use candle_core::{Result, Tensor};

use super::layers::{Conv2d, GroupNorm};
use super::plan::{ResamplePlan, ResnetPlan};
use crate::layers::Linear;
use crate::maps::{self, Maps, Padding};
use crate::weights::Scope;

/// Whether a block changes the size of the maps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Direction {
    /// Half the size.
    Down,
    /// The size that is asked for.
    Up,
}

/// Normalisation, SiLU and convolution, twice, beside a shortcut.
#[derive(Clone, Debug)]
pub(super) struct ResnetBlock {
    norm1: GroupNorm,
    conv1: Conv2d,
    time_emb_proj: Option<Linear>,
    norm2: GroupNorm,
    conv2: Conv2d,
    conv_shortcut: Option<Conv2d>,
    plan: ResnetPlan,
}

impl ResnetBlock {
    pub(super) fn new(scope: &Scope, plan: ResnetPlan) -> crate::Result<Self> {
        let ResnetPlan { inputs, outputs, style } = plan;
        let time = |time: super::plan::TimePlan| {
            Linear::new(&scope.sub("time_emb_proj"), time.width, if time.scale_shift { 2 * outputs } else { outputs })
        };
        let shortcut = || Conv2d::new(&scope.sub("conv_shortcut"), inputs, outputs, 1);
        Ok(Self {
            norm1: GroupNorm::new(&scope.sub("norm1"), inputs, style.norm)?,
            conv1: Conv2d::new(&scope.sub("conv1"), inputs, outputs, 3)?,
            time_emb_proj: style.time.map(time).transpose()?,
            norm2: GroupNorm::new(&scope.sub("norm2"), outputs, style.norm)?,
            conv2: Conv2d::new(&scope.sub("conv2"), outputs, outputs, 3)?,
            conv_shortcut: (inputs != outputs).then(shortcut).transpose()?,
            plan,
        })
    }

    /// `time` `[batch, width]` is the time embedding behind its SiLU, for blocks that take one.
    pub(super) fn forward(&self, x: &Maps, time: Option<&Tensor>) -> Result<Maps> {
        self.after_norm1(x, self.norm1.forward_silu(x)?, time)
    }

    /// The same, with the maps and the shortcut halved or doubled in between.
    fn resampled(&self, x: &Maps, direction: Direction, size: (usize, usize), time: Option<&Tensor>) -> Result<Maps> {
        let resample = |x: &Maps| match direction {
            Direction::Down => x.avg_pool2x(),
            Direction::Up => x.upsample_nearest(size),
        };
        let h = resample(&self.norm1.forward_silu(x)?)?;
        self.after_norm1(&resample(x)?, h, time)
    }

    fn after_norm1(&self, x: &Maps, h: Maps, time: Option<&Tensor>) -> Result<Maps> {
        let time = match (&self.time_emb_proj, time) {
            (Some(projection), Some(time)) => Some(projection.forward(time)?),
            _ => None,
        };
        let scale_shift = self.plan.style.time.is_some_and(|time| time.scale_shift);
        let h = self.conv1.forward_with(&h, time.as_ref().filter(|_| !scale_shift), None)?;
        let h = match time.filter(|_| scale_shift) {
            Some(time) => maps::scale_shift(&self.norm2.forward(&h)?, &time, true)?,
            None => self.norm2.forward_silu(&h)?,
        };
        let shortcut = self.conv_shortcut.as_ref().map(|conv| conv.forward(x)).transpose()?;
        let sum = self.conv2.forward_with(&h, None, Some(shortcut.as_ref().unwrap_or(x)))?;
        divided(sum, self.plan.style.divisor)
    }
}

/// `x / divisor`, which is `x` almost everywhere.
pub(super) fn divided(x: Maps, divisor: f64) -> Result<Maps> {
    if divisor == 1.0 { Ok(x) } else { x.scale(1.0 / divisor) }
}

/// The end of a level: maps of half the size on the way down, of the next level's size on the way up.
#[derive(Clone, Debug)]
pub(super) struct Resample {
    layer: ResampleLayer,
    direction: Direction,
}

#[derive(Clone, Debug)]
enum ResampleLayer {
    Conv(Conv2d),
    Resnet(Box<ResnetBlock>),
}

impl Resample {
    pub(super) fn new(scope: &Scope, direction: Direction, plan: ResamplePlan) -> crate::Result<Self> {
        let layer = match (plan, direction) {
            (ResamplePlan::Resnet(plan), _) => ResampleLayer::Resnet(Box::new(ResnetBlock::new(scope, plan)?)),
            (ResamplePlan::Conv { channels, .. }, Direction::Up) => {
                ResampleLayer::Conv(Conv2d::new(&scope.sub("conv"), channels, channels, 3)?)
            }
            (ResamplePlan::Conv { channels, padding }, Direction::Down) => {
                let padding = if padding == 0 { Padding { before: 0, after: 1 } } else { Padding::all(padding) };
                ResampleLayer::Conv(Conv2d::with_stride(&scope.sub("conv"), channels, channels, 3, 2, padding)?)
            }
        };
        Ok(Self { layer, direction })
    }

    /// `size` is what the way up leads to; on the way down it does not matter.
    pub(super) fn forward(&self, x: &Maps, size: (usize, usize), time: Option<&Tensor>) -> Result<Maps> {
        match (&self.layer, self.direction) {
            (ResampleLayer::Resnet(block), direction) => block.resampled(x, direction, size, time),
            (ResampleLayer::Conv(conv), Direction::Up) => conv.forward(&x.upsample_nearest(size)?),
            (ResampleLayer::Conv(conv), Direction::Down) => conv.forward(x),
        }
    }
}
