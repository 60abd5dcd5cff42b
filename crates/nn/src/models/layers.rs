//! Convolutions, linear maps and normalisations over [`Maps`] and tokens.

use candle_core::{Result, Tensor, bail};

use super::plan::NormPlan;
use crate::grad_mode::used;
use crate::maps::{self, ConvExtras, Maps, Padding};
use crate::param::Param;
use crate::weights::{Init, Scope};

/// `[batch, channels, height, width]`, of at least one pixel.
pub(super) fn from_images(x: &Tensor) -> Result<Maps> {
    x.dims4()?;
    if x.elem_count() == 0 {
        bail!("images of shape {:?} have no pixels", x.dims());
    }
    Maps::from_nchw(x)
}

/// A convolution with a square kernel.
#[derive(Clone, Debug)]
pub(super) struct Conv2d {
    weight: Param,
    bias: Option<Tensor>,
    stride: usize,
    padding: Padding,
    kernel: usize,
}

impl Conv2d {
    /// Stride 1 and the padding that keeps the size of the map (for an odd kernel).
    pub(super) fn new(scope: &Scope, inputs: usize, outputs: usize, kernel: usize) -> crate::Result<Self> {
        let padding = Padding::all(kernel.saturating_sub(1) / 2);
        Self::with_stride(scope, inputs, outputs, kernel, 1, padding)
    }

    pub(super) fn with_stride(
        scope: &Scope,
        inputs: usize,
        outputs: usize,
        kernel: usize,
        stride: usize,
        padding: Padding,
    ) -> crate::Result<Self> {
        let bias = scope.get("bias", &[outputs], Init::KaimingUniform { fan_in: inputs * kernel * kernel })?;
        Ok(Self { bias: Some(bias), ..Self::without_bias(scope, inputs, outputs, kernel, stride, padding)? })
    }

    pub(super) fn without_bias(
        scope: &Scope,
        inputs: usize,
        outputs: usize,
        kernel: usize,
        stride: usize,
        padding: Padding,
    ) -> crate::Result<Self> {
        let init = Init::KaimingUniform { fan_in: inputs * kernel * kernel };
        let weight = scope.param("weight", &[outputs, inputs, kernel, kernel], init)?;
        Ok(Self { weight, bias: None, stride, padding, kernel })
    }

    pub(super) fn forward(&self, x: &Maps) -> Result<Maps> {
        self.forward_with(x, None, None)
    }

    /// Adds `shift` `[batch, outputs]` and `residual` to the result.
    pub(super) fn forward_with(&self, x: &Maps, shift: Option<&Tensor>, residual: Option<&Maps>) -> Result<Maps> {
        let ((height, width), padded) = (x.size(), self.padding.before + self.padding.after);
        if height.min(width) + padded < self.kernel {
            bail!(
                "maps of {width}x{height} are too small for a kernel of {}: this network needs larger images",
                self.kernel
            );
        }
        let bias = self.bias.as_ref().map(used);
        let extras = ConvExtras { bias: bias.as_ref(), shift, residual };
        maps::conv2d(x, &self.weight, self.stride, self.padding, extras)
    }
}

/// Group normalisation.
#[derive(Clone, Debug)]
pub(super) struct GroupNorm {
    weight: Tensor,
    bias: Tensor,
    plan: NormPlan,
}

impl GroupNorm {
    pub(super) fn new(scope: &Scope, channels: usize, plan: NormPlan) -> crate::Result<Self> {
        let weight = scope.get("weight", &[channels], Init::Ones)?;
        Ok(Self { weight, bias: scope.get("bias", &[channels], Init::Zeros)?, plan })
    }

    pub(super) fn forward(&self, x: &Maps) -> Result<Maps> {
        self.run(x, false)
    }

    /// With SiLU behind it.
    pub(super) fn forward_silu(&self, x: &Maps) -> Result<Maps> {
        self.run(x, true)
    }

    fn run(&self, x: &Maps, silu: bool) -> Result<Maps> {
        maps::group_norm(x, self.plan.groups, &used(&self.weight), &used(&self.bias), self.plan.eps, silu)
    }
}

/// Normalisation of tokens.
#[derive(Clone, Debug)]
pub(super) struct LayerNorm {
    weight: Tensor,
    bias: Tensor,
}

impl LayerNorm {
    pub(super) fn new(scope: &Scope, width: usize) -> crate::Result<Self> {
        Ok(Self { weight: scope.get("weight", &[width], Init::Ones)?, bias: scope.get("bias", &[width], Init::Zeros)? })
    }

    pub(super) fn forward(&self, x: &Tensor) -> Result<Tensor> {
        const EPS: f64 = 1e-5;
        maps::layer_norm(x, Some(&used(&self.weight)), Some(&used(&self.bias)), EPS)
    }
}
