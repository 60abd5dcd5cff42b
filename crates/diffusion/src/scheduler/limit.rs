//! Limits on predicted images: a fixed range, or dynamic thresholding (Saharia et al. 2022, section 2.3).

use candle_core::Tensor;

use super::Class;
use super::settings::{LEAST_POSITIVE, Settings};
use crate::error::Result;

/// How a predicted image is kept in range.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Limit {
    /// Not at all.
    None,
    /// Between minus this and this.
    Clip(f64),
    /// Within a quantile of its own absolute values, and then divided by it; the quantile counts from 1 to `most`.
    Threshold { ratio: f64, most: f64 },
}

impl Limit {
    /// Which limits a class knows differs, and so does the default.
    pub fn read(class: Class, settings: &Settings<'_>) -> Result<Self> {
        let (thresholds, clips) = match class {
            Class::Ddim | Class::Ddpm => (true, Some(true)),
            Class::Lcm => (true, Some(false)),
            Class::Dpm | Class::UniPc => (true, None),
            Class::Heun => (false, Some(false)),
            Class::Pndm | Class::Euler | Class::EulerAncestral => (false, None),
        };
        if thresholds && settings.flag("thresholding", false)? {
            return Ok(Self::Threshold {
                ratio: settings.number("dynamic_thresholding_ratio", 0.995, 0.0, 1.0)?,
                most: settings.number("sample_max_value", 1.0, LEAST_POSITIVE, 1e6)?,
            });
        }
        match clips {
            Some(default) if settings.flag("clip_sample", default)? => {
                Ok(Self::Clip(settings.number("clip_sample_range", 1.0, LEAST_POSITIVE, 1e6)?))
            }
            _ => Ok(Self::None),
        }
    }

    /// Predicted images `[batch, ..]` within the limit, each by itself.
    pub fn apply(self, clean: Tensor) -> Result<Tensor> {
        match self {
            Self::None => Ok(clean),
            Self::Clip(range) => Ok(clean.clamp(-range as f32, range as f32)?),
            Self::Threshold { ratio, most } => {
                let images: Vec<Vec<f32>> = clean.flatten_from(1)?.to_vec2()?;
                let bounds: Vec<f32> =
                    images.into_iter().map(|image| quantile(image, ratio).max(1.0).min(most as f32)).collect();
                let mut shape = vec![1; clean.rank()];
                if let Some(batch) = shape.first_mut() {
                    *batch = bounds.len();
                }
                let bounds = Tensor::from_vec(bounds, shape, clean.device())?;
                let kept = clean.broadcast_minimum(&bounds)?.broadcast_maximum(&bounds.neg()?)?;
                Ok(kept.broadcast_div(&bounds)?)
            }
        }
    }
}

/// `torch.quantile` of absolute values: linear between the two nearest ranks.
fn quantile(mut values: Vec<f32>, ratio: f64) -> f32 {
    values.iter_mut().for_each(|value| *value = value.abs());
    values.sort_unstable_by(f32::total_cmp);
    let rank = ratio as f32 * values.len().saturating_sub(1) as f32;
    let at = |rank: f32| values.get(rank as usize).copied().unwrap_or(1.0);
    let (low, high) = (at(rank.floor()), at(rank.ceil()));
    low + (rank - rank.floor()) * (high - low)
}
