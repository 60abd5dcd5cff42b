//! Half and double resolution.

use candle_core::{Result, Tensor};

use super::Conv2d;
use crate::ops;
use crate::weights::Scope;

/// Half the height and width by a 3x3 convolution with stride 2 (`conv`).
#[derive(Clone, Debug)]
pub struct Downsample {
    conv: Conv2d,
}

impl Downsample {
    /// The layer under `scope`, which keeps the number of channels.
    ///
    /// # Errors
    /// [`Error::Shape`](crate::Error::Shape) where the scope holds another layer.
    pub fn new(scope: &Scope, channels: usize) -> crate::Result<Self> {
        Ok(Self { conv: Conv2d::new(&scope.sub("conv"), channels, channels, 3, 2, 1)? })
    }

    /// `[batch, channels, height, width]` to half the height and width, rounded up.
    ///
    /// # Errors
    /// Another number of channels.
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        self.conv.forward(x)
    }
}

/// Twice the height and width by repeating pixels, then a 3x3 convolution (`conv`).
#[derive(Clone, Debug)]
pub struct Upsample {
    conv: Conv2d,
}

impl Upsample {
    /// The layer under `scope`, which keeps the number of channels.
    ///
    /// # Errors
    /// [`Error::Shape`](crate::Error::Shape) where the scope holds another layer.
    pub fn new(scope: &Scope, channels: usize) -> crate::Result<Self> {
        Ok(Self { conv: Conv2d::new(&scope.sub("conv"), channels, channels, 3, 1, 1)? })
    }

    /// `[batch, channels, height, width]` to `[batch, channels, 2 height, 2 width]`.
    ///
    /// # Errors
    /// Another number of channels.
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        self.conv.forward(&ops::upsample_nearest2x(x)?)
    }
}
