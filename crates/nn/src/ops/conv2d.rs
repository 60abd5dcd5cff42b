//! [`conv2d`](super::conv2d) on the CPU: images in parallel, one [`Forward`] for all of them.

use candle_core::{CpuStorage, CustomOp3, Layout, Result, Tensor, bail};
use rayon::prelude::*;

use super::host::{Values, gradient, output, values};
use super::parallel::{images_per_task, sum_parts};
use crate::kernels::conv::{BackwardInput, BackwardWeight, Forward, Shape};
use crate::kernels::scratch::with_scratch;

pub(super) fn conv2d(
    x: &Tensor,
    weight: &Tensor,
    bias: Option<&Tensor>,
    stride: usize,
    padding: usize,
) -> Result<Tensor> {
    let shape = shape(x, weight, bias, stride, padding)?;
    if !BackwardInput::applies(&shape) {
        return super::slow::conv2d(x, weight, bias, stride, padding);
    }
    let bias = match bias {
        Some(bias) => bias.contiguous()?,
        None => Tensor::zeros(shape.outputs, x.dtype(), x.device())?,
    };
    x.contiguous()?.apply_op3(&weight.contiguous()?, &bias, Conv2d { shape })
}

/// The sizes, once they are known to agree.
fn shape(x: &Tensor, weight: &Tensor, bias: Option<&Tensor>, stride: usize, padding: usize) -> Result<Shape> {
    let (batch, inputs, height, width) = x.dims4()?;
    let (outputs, weight_inputs, kernel_height, kernel_width) = weight.dims4()?;
    let kernel = (kernel_height, kernel_width);
    if inputs != weight_inputs {
        bail!("a convolution of {weight_inputs} channels was given {inputs}");
    }
    let fits = |size: usize, kernel: usize| kernel > 0 && size > 0 && size + 2 * padding >= kernel;
    if stride == 0 || inputs * outputs == 0 || !fits(height, kernel.0) || !fits(width, kernel.1) {
        bail!("a {kernel:?} kernel with stride {stride} and padding {padding} does not fit {width}x{height} images");
    }
    match bias.map(Tensor::dims) {
        None => {}
        Some(&[n]) if n == outputs => {}
        Some(&[b, n]) if n == outputs && b == batch => {}
        Some(dims) => bail!("a bias of shape {dims:?} for {batch} images of {outputs} channels"),
    }
    Ok(Shape { inputs, height, width, outputs, kernel, stride, padding })
}

struct Conv2d {
    shape: Shape,
}

impl Conv2d {
    fn image_sizes(&self) -> (usize, usize) {
        let (height, width) = self.shape.out();
        (self.shape.inputs * self.shape.height * self.shape.width, self.shape.outputs * height * width)
    }
}

/// The bias of one image: its own row, or the one for all.
fn bias_of(bias: &[f32], outputs: usize, image: usize) -> &[f32] {
    if bias.len() == outputs { bias } else { &bias[image * outputs..][..outputs] }
}

impl CustomOp3 for Conv2d {
    fn name(&self) -> &'static str {
        "evenset conv2d"
    }

    fn cpu_fwd(
        &self,
        x: &CpuStorage,
        x_layout: &Layout,
        weight: &CpuStorage,
        weight_layout: &Layout,
        bias: &CpuStorage,
        bias_layout: &Layout,
    ) -> Result<(CpuStorage, candle_core::Shape)> {
        let (x, bias) = (values(x, x_layout)?, values(bias, bias_layout)?);
        let forward = Forward::new(self.shape, values(weight, weight_layout)?);
        let (input_size, output_size) = self.image_sizes();
        let batch = x.len() / input_size;
        let per_task = images_per_task(batch);
        let mut out = vec![0.0; batch * output_size];
        out.par_chunks_mut(per_task * output_size).enumerate().for_each(|(task, out)| {
            with_scratch(forward.scratch(), |[planes, flat]| {
                planes.fill(0.0);
                for (i, out) in out.chunks_exact_mut(output_size).enumerate() {
                    let image = task * per_task + i;
                    let bias = bias_of(bias, self.shape.outputs, image);
                    forward.run(&x[image * input_size..][..input_size], Some(bias), [planes, flat], out);
                }
            });
        });
        let (height, width) = self.shape.out();
        output(out, (batch, self.shape.outputs, height, width))
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
        let (grad, x_values, weight_values) = (grad.get()?, x_values.get()?, weight_values.get()?);
        let mut x_gradient = None;
        if x.track_op() {
            x_gradient = gradient(self.input_gradient(grad, weight_values), x)?;
        }
        let mut weight_gradient = None;
        if weight.track_op() {
            weight_gradient = gradient(self.weight_gradient(grad, x_values), weight)?;
        }
        let bias_gradient = gradient(self.bias_gradient(grad, bias.rank() == 2), bias)?;
        Ok((x_gradient, weight_gradient, bias_gradient))
    }
}

impl Conv2d {
    fn input_gradient(&self, grad: &[f32], weight: &[f32]) -> Vec<f32> {
        let backward = BackwardInput::new(self.shape, weight);
        let (input_size, output_size) = self.image_sizes();
        let batch = grad.len() / output_size;
        let per_task = images_per_task(batch);
        let mut out = vec![0.0; batch * input_size];
        out.par_chunks_mut(per_task * input_size).zip(grad.par_chunks(per_task * output_size)).for_each(
            |(out, grad)| {
                with_scratch(backward.scratch(), |[planes, flat]| {
                    planes.fill(0.0);
                    for (out, grad) in out.chunks_exact_mut(input_size).zip(grad.chunks_exact(output_size)) {
                        backward.run(grad, [planes, flat], out);
                    }
                });
            },
        );
        out
    }

    fn weight_gradient(&self, grad: &[f32], x: &[f32]) -> Vec<f32> {
        let backward = BackwardWeight::new(self.shape);
        let (input_size, output_size) = self.image_sizes();
        let sums = sum_parts(grad.len() / output_size, backward.sums(), |images, sums| {
            with_scratch(backward.scratch(), |[planes, pixels]| {
                planes.fill(0.0);
                pixels.fill(0.0);
                for image in images {
                    let x = &x[image * input_size..][..input_size];
                    backward.add(x, &grad[image * output_size..][..output_size], [planes, pixels], sums);
                }
            });
        });
        let mut gradient = vec![0.0; self.shape.outputs * backward.terms()];
        backward.finish(&sums, &mut gradient);
        gradient
    }

    fn bias_gradient(&self, grad: &[f32], each_image: bool) -> Vec<f32> {
        let (height, width) = self.shape.out();
        let sums: Vec<f32> = grad.par_chunks_exact(height * width).map(crate::kernels::norm::sum).collect();
        if each_image {
            return sums;
        }
        let mut total = vec![0.0; self.shape.outputs];
        for image in sums.chunks_exact(self.shape.outputs) {
            for (total, sum) in total.iter_mut().zip(image) {
                *total += sum;
            }
        }
        total
    }
}
