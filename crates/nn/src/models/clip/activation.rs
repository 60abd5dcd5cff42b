//! What stands between the two maps of a feed-forward layer.

use candle_core::{CpuStorage, CustomOp1, Layout, Result, Shape, Tensor};
use rayon::prelude::*;

use crate::kernels::activate::{gelu_erf, gelu_tanh, quick_gelu};
use crate::models::config::unsupported;
use crate::ops::fast;
use crate::ops::host::{output, unfilled, values};

/// Values that one task takes.
const TASK: usize = 1 << 14;

/// An activation of a transformer's feed-forward layers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Activation {
    /// `x * sigmoid(1.702 x)`: OpenAI's CLIP.
    QuickGelu,
    /// The exact GELU: OpenCLIP, the second text encoder of SDXL.
    Gelu,
    /// The GELU's approximation with a hyperbolic tangent: SigLIP.
    GeluTanh,
}

impl Activation {
    /// By the name that transformers gives it in `hidden_act`.
    pub(super) fn named(name: &str) -> crate::Result<Self> {
        match name {
            "quick_gelu" => Ok(Self::QuickGelu),
            "gelu" => Ok(Self::Gelu),
            "gelu_pytorch_tanh" | "gelu_new" => Ok(Self::GeluTanh),
            other => Err(unsupported("hidden_act", other, "quick_gelu, gelu or gelu_pytorch_tanh")),
        }
    }

    pub(super) fn forward(self, x: &Tensor) -> Result<Tensor> {
        match self {
            _ if fast(&[x]) && !x.track_op() => x.contiguous()?.apply_op1_no_bwd(&self),
            Self::QuickGelu => (x * 1.702)?.silu()? / 1.702,
            Self::Gelu => x.gelu_erf(),
            Self::GeluTanh => x.gelu(),
        }
    }
}

impl CustomOp1 for Activation {
    fn name(&self) -> &'static str {
        "evenset activation"
    }

    fn cpu_fwd(&self, x: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let x = values(x, layout)?;
        // SAFETY: the tasks are all of the result.
        let mut out = unsafe { unfilled(x.len()) };
        out.par_chunks_mut(TASK).zip(x.par_chunks(TASK)).for_each(|(out, x)| match self {
            Self::QuickGelu => quick_gelu(out, x),
            Self::Gelu => gelu_erf(out, x),
            Self::GeluTanh => gelu_tanh(out, x),
        });
        output(out, layout.shape())
    }
}

#[cfg(test)]
mod tests {
    use candle_core::Device;

    use super::*;
    use crate::ops::with_candle;

    #[test]
    fn the_kernels_agree_with_candles_operations() {
        let x: Vec<f32> = (-4000..4000).map(|i| i as f32 / 400.0).collect();
        let x = Tensor::new(x, &Device::Cpu).unwrap();
        for activation in [Activation::QuickGelu, Activation::Gelu, Activation::GeluTanh] {
            let found: Vec<f32> = activation.forward(&x).unwrap().to_vec1().unwrap();
            let expected: Vec<f32> = with_candle(|| activation.forward(&x)).unwrap().to_vec1().unwrap();
            for (found, expected) in found.iter().zip(&expected) {
                assert!((found - expected).abs() <= 2e-6, "{activation:?}: {found} {expected}");
            }
        }
    }
}
