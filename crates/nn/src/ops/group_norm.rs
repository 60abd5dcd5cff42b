//! [`group_norm`](super::group_norm) on the CPU: images in parallel.

use candle_core::{CpuStorage, CustomOp3, Layout, Result, Shape, Tensor, bail};
use rayon::prelude::*;

use super::host::{Values, gradient, output, values};
use super::parallel::images_per_task;
use crate::kernels::norm;

pub(super) fn group_norm(
    x: &Tensor,
    groups: usize,
    weight: &Tensor,
    bias: &Tensor,
    eps: f64,
    silu: bool,
) -> Result<Tensor> {
    let channels = x.dim(1)?;
    if x.elem_count() == 0 || groups == 0 || !channels.is_multiple_of(groups) {
        bail!("a group normalisation in {groups} groups cannot take {:?}", x.shape());
    }
    if weight.dims() != [channels] || bias.dims() != [channels] {
        bail!("weight {:?} and bias {:?} for {channels} channels", weight.shape(), bias.shape());
    }
    let op = GroupNorm { groups, eps: eps as f32, silu };
    x.contiguous()?.apply_op3(&weight.contiguous()?, &bias.contiguous()?, op)
}

struct GroupNorm {
    groups: usize,
    eps: f32,
    silu: bool,
}

impl GroupNorm {
    fn kernel<'a>(&self, weight: &'a [f32], bias: &'a [f32]) -> norm::GroupNorm<'a> {
        norm::GroupNorm { groups: self.groups, weight, bias, eps: self.eps, silu: self.silu }
    }
}

impl CustomOp3 for GroupNorm {
    fn name(&self) -> &'static str {
        "evenset group norm"
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
        let kernel = self.kernel(values(weight, weight_layout)?, values(bias, bias_layout)?);
        let x = values(x, x_layout)?;
        let batch = x_layout.dims()[0];
        let size = x.len() / batch;
        let mut out = vec![0.0; x.len()];
        let task = images_per_task(batch) * size;
        out.par_chunks_mut(task).zip(x.par_chunks(task)).for_each(|(out, x)| {
            for (out, x) in out.chunks_exact_mut(size).zip(x.chunks_exact(size)) {
                norm::forward(&kernel, x, out);
            }
        });
        output(out, x_layout.shape())
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
        let (grad, weight_values, bias_values) = (Values::of(&grad)?, Values::of(weight)?, Values::of(bias)?);
        let kernel = self.kernel(weight_values.get()?, bias_values.get()?);
        let (x_values, grad) = (Values::of(x)?, grad.get()?);
        let x_values = x_values.get()?;
        let (batch, channels) = (x.dim(0)?, x.dim(1)?);
        let size = x_values.len() / batch;
        let mut out = vec![0.0; x_values.len()];
        // Each image's sums stand alone and are added up in the images' order.
        let mut sums = vec![0.0; batch * 2 * channels];
        let images = out.par_chunks_exact_mut(size).zip(sums.par_chunks_exact_mut(2 * channels));
        images
            .zip(x_values.par_chunks_exact(size).zip(grad.par_chunks_exact(size)))
            .with_min_len(images_per_task(batch))
            .for_each(|((out, sums), (x, grad))| norm::backward(&kernel, x, grad, out, sums));
        let mut total = vec![0.0; 2 * channels];
        for sums in sums.chunks_exact(2 * channels) {
            for (total, sum) in total.iter_mut().zip(sums) {
                *total += sum;
            }
        }
        let bias_gradient = total.split_off(channels);
        Ok((gradient(out, x)?, gradient(total, weight)?, gradient(bias_gradient, bias)?))
    }
}
