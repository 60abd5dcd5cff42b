//! The classifier's layers, and the description that rebuilds them.

use std::collections::BTreeSet;

use candle_core::{D, Tensor};
use serde::{Deserialize, Serialize};

use crate::layers::{Conv2d, GroupNorm, Linear};
use crate::{Error, Result, Scope, ops};

/// The smallest side of an image.
const SMALLEST_SIDE: usize = 8;
/// The largest side: a larger one is a mistake upstream, and would need far more memory than a check is worth.
const LARGEST_SIDE: usize = 4096;
/// What a classifier is, apart from its weights.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Description {
    pub(super) image_width: usize,
    pub(super) image_height: usize,
    pub(super) channels: u32,
    /// Mean and standard deviation of each colour over the training images, in 0..=255.
    pub(super) mean: [f32; 3],
    pub(super) deviation: [f32; 3],
    pub(super) heads: Vec<HeadDescription>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct HeadDescription {
    pub(super) name: String,
    pub(super) classes: Vec<String>,
}

/// The layers.
#[derive(Debug)]
pub(super) struct Network {
    /// Each convolution with its normalisation; the stem first.
    stages: Vec<(Conv2d, GroupNorm)>,
    embed: Linear,
    pub(super) heads: Vec<Linear>,
    pub(super) feature_width: usize,
}

impl Network {
    pub(super) fn new(scope: &Scope, description: &Description) -> Result<Self> {
        let Description { image_width, image_height, channels, heads, .. } = description;
        let sides = SMALLEST_SIDE..=LARGEST_SIDE;
        if !sides.contains(image_width) || !sides.contains(image_height) {
            return Err(Error::Config(format!(
                "a classifier needs images of {SMALLEST_SIDE} to {LARGEST_SIDE} pixels a side, these are \
                 {image_width}x{image_height}; resize them"
            )));
        }
        let base = *channels as usize;
        if base == 0 || !base.is_multiple_of(4) || base > 1024 {
            return Err(Error::Config(format!("a classifier's width is a multiple of 4 up to 1024, not {base}")));
        }
        let names: BTreeSet<&str> = heads.iter().map(|head| head.name.as_str()).collect();
        if names.len() != heads.len() || heads.iter().any(|head| head.classes.is_empty()) || heads.is_empty() {
            return Err(Error::Config("a classifier needs at least one head, and names and classes for each".into()));
        }
        let mut side = (*image_width).max(*image_height);
        let (mut inputs, mut outputs) = (3, base);
        let mut stages = Vec::new();
        while stages.is_empty() || side > 4 {
            // Small images keep their resolution through the stem; in larger ones neighbouring pixels say the same.
            let stride = if stages.is_empty() && side <= 48 { 1 } else { 2 };
            let stage = scope.sub("stages").sub(stages.len());
            let convolution = Conv2d::new(&stage.sub("conv"), inputs, outputs, 3, stride, 1)?;
            stages.push((convolution, GroupNorm::new(&stage.sub("norm"), 4, outputs, 1e-5)?));
            side = side.div_ceil(stride);
            inputs = outputs;
            outputs = (2 * outputs).min(4 * base);
        }
        let feature_width = 4 * base;
        let head = |head: &HeadDescription| {
            Linear::new(&scope.sub("heads").sub(&head.name), feature_width, head.classes.len())
        };
        Ok(Self {
            stages,
            embed: Linear::new(&scope.sub("embed"), inputs, feature_width)?,
            heads: heads.iter().map(head).collect::<Result<_>>()?,
            feature_width,
        })
    }

    /// `[batch, 3, height, width]` to `[batch, feature_width]`.
    pub(super) fn features(&self, x: &Tensor) -> Result<Tensor> {
        let mut x = x.clone();
        for (convolution, norm) in &self.stages {
            x = norm.forward_silu(&convolution.forward(&x)?)?;
        }
        let pooled = x.flatten_from(2)?.mean(D::Minus1)?;
        Ok(ops::silu(&self.embed.forward(&pooled)?)?)
    }
}
