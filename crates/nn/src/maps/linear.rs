//! [`linear`](super::linear) on the CPU.

use candle_core::{CpuStorage, CustomOp3, Layout, Result, Shape, Tensor, bail};

use crate::kernels::pack::{Packed, Plain, Sizes};
use crate::kernels::rows;
use crate::ops::host::{Values, gradient, output, unfilled, values};
use crate::param::Param;

pub(super) fn linear(x: &Tensor, weight: &Param, bias: Option<&Tensor>, residual: Option<&Tensor>) -> Result<Tensor> {
    let [outputs, inputs] = *weight.dims() else {
        bail!("the weight of a linear map has two dimensions, not {:?}", weight.dims());
    };
    let mut dims = x.dims().to_vec();
    match dims.last_mut() {
        Some(last) if *last == inputs && inputs * outputs > 0 => *last = outputs,
        _ => bail!("a linear map of {inputs} inputs and {outputs} outputs cannot take {:?}", x.shape()),
    }
    match bias {
        Some(bias) if bias.dims() != [outputs] => bail!("a bias of shape {:?} for {outputs} outputs", bias.shape()),
        _ => {}
    }
    match residual {
        Some(residual) if residual.dims() != dims => bail!("{:?} cannot be added to {dims:?}", residual.shape()),
        _ => {}
    }
    if x.elem_count() == 0 {
        return Tensor::zeros(dims, x.dtype(), x.device());
    }
    let x = x.contiguous()?;
    let sizes = Sizes { outputs, inputs, taps: 1 };
    let tracked = x.track_op() || [bias, residual].into_iter().flatten().any(Tensor::track_op);
    if let (Some(packed), false) = (weight.packed(), tracked) {
        let bias = bias.map(Tensor::contiguous).transpose()?;
        let residual = residual.map(Tensor::contiguous).transpose()?;
        let (x_values, bias) = (Values::of(&x)?, Values::of_optional(bias.as_ref())?);
        let residual = Values::of_optional(residual.as_ref())?;
        let (bias, residual) = (Values::get_optional(&bias)?, Values::get_optional(&residual)?);
        let out = multiplied(x_values.get()?, packed, bias, residual);
        return Tensor::from_vec(out, dims, x.device());
    }
    let weight = weight.tensor()?.to_dtype(x.dtype())?.contiguous()?;
    let bias = match bias {
        Some(bias) => bias.contiguous()?,
        None => Tensor::zeros(outputs, x.dtype(), x.device())?,
    };
    let y = x.apply_op3(&weight, &bias, Linear { sizes })?;
    match residual {
        Some(residual) => crate::ops::add(&y, residual),
        None => Ok(y),
    }
}

fn multiplied(x: &[f32], weight: &Packed, bias: Option<&[f32]>, residual: Option<&[f32]>) -> Vec<f32> {
    let Sizes { outputs, inputs, .. } = weight.sizes;
    // SAFETY: the product writes every value.
    let mut out = unsafe { unfilled(x.len() / inputs * outputs) };
    rows::multiply(x, weight, bias, residual, &mut out);
    out
}

struct Linear {
    sizes: Sizes,
}

impl CustomOp3 for Linear {
    fn name(&self) -> &'static str {
        "evenset linear map"
    }

    fn cpu_fwd(
        &self,
        x: &CpuStorage,
        x_layout: &Layout,
        weight: &CpuStorage,
        weight_layout: &Layout,
        bias: &CpuStorage,
        bias_layout: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let weight = Packed::new(self.sizes, Plain::F32(values(weight, weight_layout)?));
        let out = multiplied(values(x, x_layout)?, &weight, Some(values(bias, bias_layout)?), None);
        let mut dims = x_layout.dims().to_vec();
        if let Some(last) = dims.last_mut() {
            *last = self.sizes.outputs;
        }
        output(out, dims)
    }

    fn bwd(
        &self,
        x: &Tensor,
        weight: &Tensor,
        bias: &Tensor,
        _result: &Tensor,
        grad: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
        let grad = grad.contiguous()?;
        let (grad, x_values, weight_values) = (Values::of(&grad)?, Values::of(x)?, Values::of(weight)?);
        let (grad, x_values) = (grad.get()?, x_values.get()?);
        let Sizes { outputs, inputs, .. } = self.sizes;
        let mut x_gradient = None;
        if x.track_op() {
            let back = Packed::transposed(self.sizes, weight_values.get()?);
            x_gradient = gradient(multiplied(grad, &back, None, None), x)?;
        }
        let mut weight_gradient = None;
        if weight.track_op() {
            weight_gradient = gradient(rows::weight_gradient(x_values, inputs, grad, outputs), weight)?;
        }
        let mut bias_gradient = None;
        if bias.track_op() {
            bias_gradient = gradient(rows::column_sums(grad, outputs, 1), bias)?;
        }
        Ok((x_gradient, weight_gradient, bias_gradient))
    }
}
