//! [`conv2d`](super::conv2d) on the CPU, channels last.

use candle_core::{CpuStorage, CustomOp3, Layout, Result, Shape, Tensor, bail};

use super::{ConvExtras, Maps, Padding, slow};
use crate::kernels::pack::{Packed, Plain, Sizes};
use crate::kernels::slab::{self, Added, Geometry};
use crate::kernels::{rows, winograd};
use crate::ops::host::{Values, gradient, output, unfilled, values};
use crate::param::Param;

pub(super) fn conv2d(
    x: &Maps,
    weight: &Param,
    stride: usize,
    padding: Padding,
    extras: ConvExtras<'_>,
) -> Result<Maps> {
    let (batch, inputs, height, width) = x.dims();
    let (geometry, sizes) = geometry((inputs, height, width), weight.dims(), stride, padding)?;
    let outputs = geometry.outputs;
    let ConvExtras { bias, shift, residual } = extras;
    match (bias.map(Tensor::dims), shift.map(Tensor::dims)) {
        (None | Some(&[_]), None | Some(&[_, _])) => {}
        (bias, shift) => {
            bail!("a convolution adds one value a channel and one an image and channel, not {bias:?} and {shift:?}")
        }
    }
    let bias = match (bias, shift) {
        (Some(bias), Some(shift)) => Some(shift.broadcast_add(bias)?),
        (bias, shift) => bias.or(shift).map(Tensor::contiguous).transpose()?,
    };
    match bias.as_ref().map(Tensor::dims) {
        None => {}
        Some(&[n]) if n == outputs => {}
        Some(&[b, n]) if n == outputs && b == batch => {}
        Some(dims) => bail!("a bias of shape {dims:?} for {batch} images of {outputs} channels"),
    }
    let dims = (batch, geometry.out.0, geometry.out.1, outputs);
    if let Some(residual) = residual
        && (residual.dims() != (batch, outputs, geometry.out.0, geometry.out.1) || residual.order != x.order)
    {
        bail!("maps of {:?} cannot be added to a convolution of {:?}", residual.values.shape(), dims);
    }
    if batch == 0 {
        return Ok(Maps::last(Tensor::zeros(dims, x.values.dtype(), x.values.device())?));
    }
    let values = x.values.contiguous()?;
    let residual = residual.map(|residual| residual.values.contiguous()).transpose()?;
    let tracked = values.track_op() || [&bias, &residual].into_iter().flatten().any(Tensor::track_op);
    if let (Some(packed), false) = (weight.packed(), tracked) {
        let (x, bias) = (Values::of(&values)?, Values::of_optional(bias.as_ref())?);
        let residual = Values::of_optional(residual.as_ref())?;
        let (bias, residual) = (Values::get_optional(&bias)?, Values::get_optional(&residual)?);
        let out = convolved(&geometry, x.get()?, packed, Added { bias, bias_of_image: shift.is_some(), residual });
        return Ok(Maps::last(Tensor::from_vec(out, dims, values.device())?));
    }
    if !has_backward(&geometry) {
        return through_planes(x, weight, stride, padding, extras);
    }
    let weight = weight.tensor()?.to_dtype(values.dtype())?.contiguous()?;
    let bias = match bias {
        Some(bias) => bias,
        None => Tensor::zeros(outputs, values.dtype(), values.device())?,
    };
    let y = Maps::last(values.apply_op3(&weight, &bias, Conv2d { geometry, sizes })?);
    match residual {
        Some(residual) => y.add(&Maps::last(residual)),
        None => Ok(y),
    }
}

/// The longest side of a padded map: products of sides stay far below what an address can hold.
const LARGEST_SIDE: usize = 1 << 24;

/// The sizes, once they are known to agree.
fn geometry(
    (inputs, height, width): (usize, usize, usize),
    weight: &[usize],
    stride: usize,
    padding: Padding,
) -> Result<(Geometry, Sizes)> {
    let [outputs, weight_inputs, kernel_height, kernel_width] = *weight else {
        bail!("the weight of a convolution has four dimensions, not {weight:?}");
    };
    if inputs != weight_inputs {
        bail!("a convolution of {weight_inputs} channels was given {inputs}");
    }
    let Padding { before, after } = padding;
    let padded = |size: usize| size.checked_add(before)?.checked_add(after).filter(|size| *size <= LARGEST_SIDE);
    let fits = |size: usize, kernel: usize| kernel > 0 && size > 0 && padded(size).is_some_and(|size| size >= kernel);
    if stride == 0 || inputs * outputs == 0 || !fits(height, kernel_height) || !fits(width, kernel_width) {
        bail!(
            "a {kernel_height}x{kernel_width} kernel with stride {stride} and {padding:?} does not fit {width}x{height} maps"
        );
    }
    let length = |size: usize, kernel: usize| (size + before + after - kernel) / stride + 1;
    let geometry = Geometry {
        inputs,
        outputs,
        height,
        width,
        kernel: (kernel_height, kernel_width),
        stride,
        before,
        out: (length(height, kernel_height), length(width, kernel_width)),
    };
    Ok((geometry, Sizes { outputs, inputs, taps: kernel_height * kernel_width }))
}

/// The convolution in the form that suits it.
fn convolved(geometry: &Geometry, x: &[f32], weight: &Packed, added: Added<'_>) -> Vec<f32> {
    // SAFETY: every form writes every value.
    let mut out = unsafe { unfilled(x.len() / geometry.input_size() * geometry.output_size()) };
    if of_single_pixels(geometry) && !added.bias_of_image {
        rows::multiply(x, weight, added.bias, added.residual, &mut out);
    } else if winograd::applies(geometry) {
        winograd::convolve(geometry, x, weight, added, &mut out);
    } else {
        slab::convolve(geometry, x, weight, added, &mut out);
    }
    out
}

/// Whether every result is a product of the pixel in its place.
fn of_single_pixels(geometry: &Geometry) -> bool {
    let Geometry { kernel, stride, before, height, width, out, .. } = *geometry;
    kernel == (1, 1) && stride == 1 && before == 0 && out == (height, width)
}

/// Whether [`Conv2d`] has a backward pass: the gradient of `x` is itself a convolution with padding that is not negative.
fn has_backward(geometry: &Geometry) -> bool {
    geometry.kernel.0 == geometry.kernel.1 && geometry.before < geometry.kernel.0
}

/// Through candle's order and operations.
fn through_planes(x: &Maps, weight: &Param, stride: usize, padding: Padding, extras: ConvExtras<'_>) -> Result<Maps> {
    let planes = |x: &Maps| Ok::<_, candle_core::Error>(Maps::first(x.to_nchw()?));
    let residual = extras.residual.map(planes).transpose()?;
    let extras = ConvExtras { residual: residual.as_ref(), ..extras };
    let y = slow::conv2d(&planes(x)?, weight, stride, padding, extras)?;
    Maps::from_nchw(&y.values)
}

struct Conv2d {
    geometry: Geometry,
    sizes: Sizes,
}

impl CustomOp3 for Conv2d {
    fn name(&self) -> &'static str {
        "evenset convolution of maps"
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
        let bias_of_image = bias_layout.dims().len() == 2;
        let added = Added { bias: Some(values(bias, bias_layout)?), bias_of_image, residual: None };
        let x = values(x, x_layout)?;
        let (height, width) = self.geometry.out;
        let batch = x.len() / self.geometry.input_size();
        output(convolved(&self.geometry, x, &weight, added), (batch, height, width, self.geometry.outputs))
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
        let mut bias_gradient = None;
        if bias.track_op() {
            let images = grad.len() / self.geometry.output_size();
            let sums = rows::column_sums(grad, self.geometry.outputs, images);
            let sums = if bias.rank() == 2 { sums } else { rows::column_sums(&sums, self.geometry.outputs, 1) };
            bias_gradient = gradient(sums, bias)?;
        }
        Ok((x_gradient, weight_gradient, bias_gradient))
    }
}

impl Conv2d {
    fn input_gradient(&self, grad: &[f32], weight: &[f32]) -> Vec<f32> {
        let Geometry { inputs, outputs, height, width, kernel, stride, before, out } = self.geometry;
        let back = Packed::transposed(self.sizes, weight);
        // With a stride, the results' gradients stand that far apart, with zeros between them.
        let spread = |size: usize| (size - 1) * stride + 1;
        let geometry = Geometry {
            inputs: outputs,
            outputs: inputs,
            height: spread(out.0),
            width: spread(out.1),
            kernel,
            stride: 1,
            before: kernel.0 - 1 - before,
            out: (height, width),
        };
        if stride == 1 {
            return convolved(&geometry, grad, &back, Added::default());
        }
        convolved(&geometry, &slab::spread(&self.geometry, grad), &back, Added::default())
    }

    fn weight_gradient(&self, grad: &[f32], x: &[f32]) -> Vec<f32> {
        if of_single_pixels(&self.geometry) {
            return rows::weight_gradient(x, self.geometry.inputs, grad, self.geometry.outputs);
        }
        if winograd::applies(&self.geometry) {
            return winograd::weight_gradient(&self.geometry, x, grad);
        }
        slab::weight_gradient(&self.geometry, x, grad)
    }
}
