//! The layers that everything else is made of, initialised as PyTorch does.

use candle_core::{Result, Tensor};

use crate::grad_mode::used;
use crate::ops;
use crate::weights::{Init, Scope};

/// A convolution with a square kernel and a bias.
#[derive(Clone, Debug)]
pub struct Conv2d {
    weight: Tensor,
    bias: Tensor,
    stride: usize,
    padding: usize,
}

impl Conv2d {
    /// Creates `weight` `[outputs, inputs, kernel, kernel]` and `bias` `[outputs]` in `scope`; zero padding on all sides.
    ///
    /// # Errors
    /// [`Error::Shape`](crate::Error::Shape) where the scope holds another layer.
    pub fn new(
        scope: &Scope,
        inputs: usize,
        outputs: usize,
        kernel: usize,
        stride: usize,
        padding: usize,
    ) -> crate::Result<Self> {
        let init = Init::KaimingUniform { fan_in: inputs * kernel * kernel };
        Self::with_init(scope, [outputs, inputs, kernel], stride, padding, init)
    }

    /// The same with all weights zero: the last layer of a denoiser or of a residual branch then starts by doing nothing.
    ///
    /// # Errors
    /// As [`new`](Self::new).
    pub fn zeroed(
        scope: &Scope,
        inputs: usize,
        outputs: usize,
        kernel: usize,
        stride: usize,
        padding: usize,
    ) -> crate::Result<Self> {
        Self::with_init(scope, [outputs, inputs, kernel], stride, padding, Init::Zeros)
    }

    fn with_init(
        scope: &Scope,
        [outputs, inputs, kernel]: [usize; 3],
        stride: usize,
        padding: usize,
        init: Init,
    ) -> crate::Result<Self> {
        let weight = scope.get("weight", &[outputs, inputs, kernel, kernel], init)?;
        let bias = scope.get("bias", &[outputs], init)?;
        Ok(Self { weight, bias, stride, padding })
    }

    /// `[batch, inputs, height, width]` to `[batch, outputs, height', width']`.
    ///
    /// # Errors
    /// Another number of channels, or an image smaller than the kernel.
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        ops::conv2d(x, &used(&self.weight), Some(&used(&self.bias)), self.stride, self.padding)
    }

    /// Weight and bias as a forward pass may use them.
    pub(super) fn weights(&self) -> (Tensor, Tensor) {
        (used(&self.weight), used(&self.bias))
    }
}

/// An affine map of the last dimension.
#[derive(Clone, Debug)]
pub struct Linear {
    weight: Tensor,
    bias: Tensor,
}

impl Linear {
    /// Creates `weight` `[outputs, inputs]` and `bias` `[outputs]` in `scope`.
    ///
    /// # Errors
    /// [`Error::Shape`](crate::Error::Shape) where the scope holds another layer.
    pub fn new(scope: &Scope, inputs: usize, outputs: usize) -> crate::Result<Self> {
        let init = Init::KaimingUniform { fan_in: inputs };
        Ok(Self { weight: scope.get("weight", &[outputs, inputs], init)?, bias: scope.get("bias", &[outputs], init)? })
    }

    /// `[.., inputs]` to `[.., outputs]`.
    ///
    /// # Errors
    /// Another last dimension.
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        ops::linear(x, &used(&self.weight), Some(&used(&self.bias)))
    }

    /// The same map of every pixel's channels: `[batch, inputs, height, width]` to `[batch, outputs, height, width]`.
    ///
    /// # Errors
    /// Another number of channels.
    pub fn forward_pixels(&self, x: &Tensor) -> Result<Tensor> {
        let weight = used(&self.weight).unsqueeze(2)?.unsqueeze(3)?;
        ops::conv2d(x, &weight, Some(&used(&self.bias)), 1, 0)
    }
}

/// Group normalisation, with SiLU behind it on request.
#[derive(Clone, Debug)]
pub struct GroupNorm {
    weight: Tensor,
    bias: Tensor,
    pub(super) groups: usize,
    pub(super) eps: f64,
}

impl GroupNorm {
    /// Creates `weight` (ones) and `bias` (zeros), `[channels]` each, in `scope`. diffusers' UNet has `eps = 1e-5`.
    ///
    /// # Errors
    /// [`Error::Config`](crate::Error::Config) where `groups` does not divide `channels`.
    pub fn new(scope: &Scope, groups: usize, channels: usize, eps: f64) -> crate::Result<Self> {
        if groups == 0 || !channels.is_multiple_of(groups) {
            return Err(crate::Error::Config(format!(
                "{channels} channels at `{}` do not divide into {groups} groups; choose a group count that divides them",
                scope.prefix()
            )));
        }
        let weight = scope.get("weight", &[channels], Init::Ones)?;
        let bias = scope.get("bias", &[channels], Init::Zeros)?;
        Ok(Self { weight, bias, groups, eps })
    }

    /// `[batch, channels, ...]` to the same shape.
    ///
    /// # Errors
    /// Another number of channels.
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        ops::group_norm(x, self.groups, &used(&self.weight), &used(&self.bias), self.eps, false)
    }

    /// [`forward`](Self::forward), then SiLU, in one pass.
    ///
    /// # Errors
    /// Another number of channels.
    pub fn forward_silu(&self, x: &Tensor) -> Result<Tensor> {
        ops::group_norm(x, self.groups, &used(&self.weight), &used(&self.bias), self.eps, true)
    }

    /// Weight and bias as a forward pass may use them.
    pub(super) fn weights(&self) -> (Tensor, Tensor) {
        (used(&self.weight), used(&self.bias))
    }
}

/// A table with one row for each index.
#[derive(Clone, Debug)]
pub struct Embedding {
    weight: Tensor,
}

impl Embedding {
    /// Creates `weight` `[rows, width]`, standard normal, in `scope`.
    ///
    /// # Errors
    /// [`Error::Shape`](crate::Error::Shape) where the scope holds another layer.
    pub fn new(scope: &Scope, rows: usize, width: usize) -> crate::Result<Self> {
        Self::with_init(scope, rows, width, Init::Normal { std: 1.0 })
    }

    /// The same with another start.
    ///
    /// # Errors
    /// As [`new`](Self::new).
    pub fn with_init(scope: &Scope, rows: usize, width: usize, init: Init) -> crate::Result<Self> {
        Ok(Self { weight: scope.get("weight", &[rows, width], init)? })
    }

    /// `[n]` indices (`u32`) to `[n, width]`.
    ///
    /// # Errors
    /// An index beyond the table, or indices that are not a vector of `u32`.
    pub fn forward(&self, indices: &Tensor) -> Result<Tensor> {
        used(&self.weight).index_select(indices, 0)
    }
}
