//! [`resnet_block`](super::resnet_block) on the CPU: the whole block as one operation.
//!
//! candle adds up each operation's gradient in memory of its own, which costs as much as the cheap layers themselves;
//! one operation for a block saves most of that.

use std::sync::OnceLock;

use candle_core::{CpuStorage, CustomOp3, Layout, Result, Shape, Tensor, bail};
use rayon::prelude::*;

use super::ResnetWeights;
use super::host::{Values, gradient, output, values};
use super::parallel::{fold_parts, images_per_task, parts};
use crate::kernels::resnet::{BackwardBlock, BlockGradients, ForwardBlock, Parameters, Sizes};

pub(super) fn resnet_block(x: &Tensor, shift: &Tensor, weights: &ResnetWeights<'_>) -> Result<Tensor> {
    let (batch, inputs, height, width) = x.dims4()?;
    let outputs = weights.conv1.0.dim(0)?;
    let sizes = Sizes { inputs, outputs, height, width, groups: weights.groups, eps: weights.eps as f32 };
    let groups = weights.groups;
    if x.elem_count() == 0 || groups == 0 || !inputs.is_multiple_of(groups) || !outputs.is_multiple_of(groups) {
        bail!("a residual block in {groups} groups cannot take {:?} to {outputs} channels", x.shape());
    }
    if shift.dims() != [batch, outputs] {
        bail!("a shift of shape {:?} for {batch} images of {outputs} channels", shift.shape());
    }
    let parameters = flat(&sizes, weights)?;
    let keep = x.track_op() || shift.track_op() || parameters.track_op();
    let op = ResnetBlock { sizes, keep, hidden: OnceLock::new() };
    x.contiguous()?.apply_op3(&shift.contiguous()?, &parameters, op)
}

/// All parameters behind one another, once their lengths are known to agree.
fn flat(sizes: &Sizes, weights: &ResnetWeights<'_>) -> Result<Tensor> {
    let mut parts = Vec::new();
    let pairs = [Some(weights.norm1), Some(weights.conv1), Some(weights.norm2), Some(weights.conv2), weights.shortcut];
    for (weight, bias) in pairs.into_iter().flatten() {
        parts.extend([weight.flatten_all()?, bias.flatten_all()?]);
    }
    let expected = sizes.lengths();
    let found: Vec<usize> = parts.iter().map(Tensor::elem_count).collect();
    if found != expected[..found.len()] || expected[found.len()..].iter().any(|length| *length > 0) {
        bail!("a residual block's parameters have {found:?} values but need {expected:?}");
    }
    Tensor::cat(&parts, 0)
}

struct ResnetBlock {
    sizes: Sizes,
    /// Whether a backward pass may come.
    keep: bool,
    hidden: OnceLock<Vec<f32>>,
}

impl ResnetBlock {
    fn image_sizes(&self) -> (usize, usize) {
        (self.sizes.inputs * self.sizes.pixels(), self.sizes.outputs * self.sizes.pixels())
    }
}

impl CustomOp3 for ResnetBlock {
    fn name(&self) -> &'static str {
        "evenset resnet block"
    }

    fn cpu_fwd(
        &self,
        x: &CpuStorage,
        x_layout: &Layout,
        shift: &CpuStorage,
        shift_layout: &Layout,
        parameters: &CpuStorage,
        parameters_layout: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let (x, shift) = (values(x, x_layout)?, values(shift, shift_layout)?);
        let parameters = Parameters::new(&self.sizes, values(parameters, parameters_layout)?);
        let block = ForwardBlock::new(self.sizes, parameters);
        let (input_size, output_size) = self.image_sizes();
        let outputs = self.sizes.outputs;
        let batch = x.len() / input_size;
        let task = images_per_task(batch);
        let mut out = vec![0.0; batch * output_size];
        let images = x.par_chunks(task * input_size).zip(shift.par_chunks(task * outputs));
        let outs = out.par_chunks_mut(task * output_size);
        if self.keep {
            let mut hidden = vec![0.0; batch * output_size];
            let hiddens = hidden.par_chunks_mut(task * output_size);
            images.zip(outs.zip(hiddens)).for_each(|((x, shift), (out, hidden))| block.run(x, shift, hidden, out));
            // A second forward pass of the same operation would find the same values there.
            let _ = self.hidden.set(hidden);
        } else {
            images.zip(outs).for_each(|((x, shift), out)| {
                crate::kernels::scratch::with_scratch([output_size], |[hidden]| block.run(x, shift, hidden, out));
            });
        }
        output(out, (batch, outputs, self.sizes.height, self.sizes.width))
    }

    fn bwd(
        &self,
        x: &Tensor,
        shift: &Tensor,
        parameters: &Tensor,
        _result: &Tensor,
        grad: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
        let Some(hidden) = self.hidden.get() else {
            bail!("a residual block was not run with gradients in mind");
        };
        let grad = grad.contiguous()?;
        let (grad, x_values, parameter_values) = (Values::of(&grad)?, Values::of(x)?, Values::of(parameters)?);
        let (grad, x_values) = (grad.get()?, x_values.get()?);
        let block = BackwardBlock::new(self.sizes, Parameters::new(&self.sizes, parameter_values.get()?));
        let (input_size, output_size) = self.image_sizes();
        let outputs = self.sizes.outputs;
        let batch = x.dim(0)?;
        let (per_part, parts) = parts(batch);
        let (mut x_out, mut shift_out) = (vec![0.0; batch * input_size], vec![0.0; batch * outputs]);
        let mut sums = vec![0.0; parts * block.sums()];
        let images = x_values.par_chunks(per_part * input_size).zip(hidden.par_chunks(per_part * output_size));
        let outs = x_out.par_chunks_mut(per_part * input_size).zip(shift_out.par_chunks_mut(per_part * outputs));
        images
            .zip(grad.par_chunks(per_part * output_size))
            .zip(outs.zip(sums.par_chunks_exact_mut(block.sums())))
            .for_each(|(((x, hidden), grad), ((x_out, shift), sums))| {
                block.run(x, hidden, grad, BlockGradients { x: x_out, shift, sums });
            });
        let parameters_out = block.finish(&fold_parts(sums, block.sums()), &shift_out);
        Ok((gradient(x_out, x)?, gradient(shift_out, shift)?, gradient(parameters_out, parameters)?))
    }
}
