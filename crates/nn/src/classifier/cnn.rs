//! The convolutional trunk: stages of convolution, down to at most four pixels a side, and an embedding of their mean.

use candle_core::Tensor;

use super::trunk::{GROUPS, StageWeights, trunk};
use crate::grad_mode::used;
use crate::kernels::conv::Shape;
use crate::layers::Linear;
use crate::{Error, Init, Result, Scope, ops};

/// The smallest side of an image.
const SMALLEST_SIDE: usize = 8;
/// The largest side: a larger one is a mistake upstream, and would need far more memory than a check is worth.
const LARGEST_SIDE: usize = 4096;

/// The convolutions and the embedding.
#[derive(Debug)]
pub(super) struct Cnn {
    /// The convolutions; the stem first.
    shapes: Vec<Shape>,
    weights: Vec<StageWeights>,
    embed: Linear,
    pub(super) feature_width: usize,
}

impl Cnn {
    /// For images of `image_width` x `image_height` pixels; the stem has `base` channels.
    pub(super) fn new(scope: &Scope, image_width: usize, image_height: usize, base: usize) -> Result<Self> {
        let sides = SMALLEST_SIDE..=LARGEST_SIDE;
        if !sides.contains(&image_width) || !sides.contains(&image_height) {
            return Err(Error::Config(format!(
                "a classifier needs images of {SMALLEST_SIDE} to {LARGEST_SIDE} pixels a side, these are \
                 {image_width}x{image_height}; resize them"
            )));
        }
        if base == 0 || !base.is_multiple_of(GROUPS) || base > 1024 {
            return Err(Error::Config(format!(
                "a classifier's width is a multiple of {GROUPS} up to 1024, not {base}"
            )));
        }
        let shapes = shapes(image_width, image_height, base);
        let weights = shapes.iter().enumerate().map(|(i, shape)| stage_weights(&scope.sub("stages").sub(i), shape));
        let weights = weights.collect::<Result<Vec<_>>>()?;
        let inputs = shapes.last().map_or(3, |shape| shape.outputs);
        let feature_width = 4 * base;
        Ok(Self { shapes, weights, embed: Linear::new(&scope.sub("embed"), inputs, feature_width)?, feature_width })
    }

    /// `[batch, 3, height, width]` to `[batch, feature_width]`.
    pub(super) fn features(&self, x: &Tensor) -> Result<Tensor> {
        let weights: Vec<StageWeights> = self.weights.iter().map(|stage| stage.each_ref().map(used)).collect();
        let pooled = trunk(x, &self.shapes, &weights)?;
        Ok(ops::silu(&self.embed.forward(&pooled)?)?)
    }
}

/// Each stage's convolution, down to at most four pixels a side.
fn shapes(image_width: usize, image_height: usize, base: usize) -> Vec<Shape> {
    let (mut width, mut height) = (image_width, image_height);
    let (mut inputs, mut outputs) = (3, base);
    let mut shapes = Vec::new();
    while shapes.is_empty() || width.max(height) > 4 {
        // Small images keep their resolution through the stem; in larger ones neighbouring pixels say the same.
        let stride = if shapes.is_empty() && width.max(height) <= 48 { 1 } else { 2 };
        let shape = Shape { inputs, height, width, outputs, kernel: (3, 3), stride, padding: 1 };
        (height, width) = shape.out();
        shapes.push(shape);
        inputs = outputs;
        outputs = (2 * outputs).min(4 * base);
    }
    shapes
}

fn stage_weights(scope: &Scope, shape: &Shape) -> Result<StageWeights> {
    let Shape { inputs, outputs, kernel, .. } = *shape;
    let init = Init::KaimingUniform { fan_in: inputs * kernel.0 * kernel.1 };
    let (conv, norm) = (scope.sub("conv"), scope.sub("norm"));
    Ok([
        conv.get("weight", &[outputs, inputs, kernel.0, kernel.1], init)?,
        conv.get("bias", &[outputs], init)?,
        norm.get("weight", &[outputs], Init::Ones)?,
        norm.get("bias", &[outputs], Init::Zeros)?,
    ])
}
