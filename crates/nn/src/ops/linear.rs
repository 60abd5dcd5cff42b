//! [`linear`](super::linear) on the CPU: rows in parallel.

use candle_core::{CpuStorage, CustomOp3, Layout, Result, Shape, Tensor, bail};
use rayon::prelude::*;

use super::host::{Values, gradient, output, values};
use crate::kernels::linear::Rows;

/// Rows of a result that one task takes.
const TASK: usize = 16;

pub(super) fn linear(x: &Tensor, weight: &Tensor, bias: Option<&Tensor>) -> Result<Tensor> {
    let (outputs, inputs) = weight.dims2()?;
    if x.dims().last() != Some(&inputs) || inputs * outputs == 0 {
        bail!("a linear layer of {inputs} inputs and {outputs} outputs cannot take {:?}", x.shape());
    }
    let bias = match bias {
        Some(bias) if bias.dims() == [outputs] => bias.contiguous()?,
        Some(bias) => bail!("a bias of shape {:?} for {outputs} outputs", bias.shape()),
        None => Tensor::zeros(outputs, x.dtype(), x.device())?,
    };
    x.contiguous()?.apply_op3(&weight.contiguous()?, &bias, Linear { inputs, outputs })
}

struct Linear {
    inputs: usize,
    outputs: usize,
}

impl CustomOp3 for Linear {
    fn name(&self) -> &'static str {
        "evenset linear"
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
        let (x, bias) = (values(x, x_layout)?, values(bias, bias_layout)?);
        let weight = Rows::transposed(values(weight, weight_layout)?, self.inputs, self.outputs);
        let mut out = vec![0.0; x.len() / self.inputs * self.outputs];
        out.par_chunks_mut(TASK * self.outputs)
            .zip(x.par_chunks(TASK * self.inputs))
            .for_each(|(out, x)| weight.multiply(x, Some(bias), out));
        let mut dims = x_layout.dims().to_vec();
        if let Some(last) = dims.last_mut() {
            *last = self.outputs;
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
        let mut x_gradient = None;
        if x.track_op() {
            let weight = Rows::new(weight_values.get()?, self.outputs, self.inputs);
            let mut out = vec![0.0; x_values.len()];
            out.par_chunks_mut(TASK * self.inputs)
                .zip(grad.par_chunks(TASK * self.outputs))
                .for_each(|(out, grad)| weight.multiply(grad, None, out));
            x_gradient = gradient(out, x)?;
        }
        let x_rows = Rows::new(x_values, x_values.len() / self.inputs, self.inputs);
        let mut out = vec![0.0; self.inputs * self.outputs];
        out.par_chunks_mut(TASK * self.inputs)
            .enumerate()
            .for_each(|(task, out)| x_rows.multiply_transposed(grad, task * TASK, out));
        let mut sums = vec![0.0; self.outputs];
        for row in grad.chunks_exact(self.outputs) {
            for (sum, value) in sums.iter_mut().zip(row) {
                *sum += value;
            }
        }
        Ok((x_gradient, gradient(out, weight)?, gradient(sums, bias)?))
    }
}
