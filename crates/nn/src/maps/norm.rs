//! [`group_norm`](super::group_norm), [`layer_norm`](super::layer_norm) and [`scale_shift`](super::scale_shift) on the
//! CPU, channels last.

use candle_core::{CpuStorage, CustomOp2, CustomOp3, D, Layout, Result, Shape, Tensor, bail};
use rayon::prelude::*;

use crate::kernels::last_norm::{self, Affine, chunk_pixels};
use crate::ops::host::{Values, gradient, output, unfilled, values};

/// `x` is `[batch, height, width, channels]`, and so is the result.
pub(super) fn group_norm(
    x: &Tensor,
    groups: usize,
    weight: &Tensor,
    bias: &Tensor,
    eps: f64,
    silu: bool,
) -> Result<Tensor> {
    let channels = x.dim(D::Minus1)?;
    if x.elem_count() == 0 || groups == 0 || !channels.is_multiple_of(groups) {
        bail!("a group normalisation in {groups} groups cannot take {channels} channels of {:?}", x.shape());
    }
    if weight.dims() != [channels] || bias.dims() != [channels] {
        bail!("weight {:?} and bias {:?} for {channels} channels", weight.shape(), bias.shape());
    }
    x.contiguous()?.apply_op3(&weight.contiguous()?, &bias.contiguous()?, GroupNorm { groups, eps, silu })
}

struct GroupNorm {
    groups: usize,
    eps: f64,
    silu: bool,
}

/// An image's normalisation as an affine map of each channel: `[channels]` each.
struct Coefficients {
    mean: Vec<f32>,
    scale: Vec<f32>,
    shift: Vec<f32>,
    /// Reciprocal standard deviation, `[groups]`.
    slope: Vec<f64>,
}

impl GroupNorm {
    /// From the values of one image, `[pixels, channels]`.
    fn coefficients(&self, image: &[f32], weight: &[f32], bias: &[f32]) -> Coefficients {
        let channels = weight.len();
        let (pixels, chunk) = (image.len() / channels, chunk_pixels(channels) * channels);
        let mut statistics = vec![0.0; image.len().div_ceil(chunk) * 2 * self.groups];
        statistics.par_chunks_exact_mut(2 * self.groups).zip(image.par_chunks(chunk)).for_each(
            |(statistics, chunk)| {
                last_norm::chunk_statistics(chunk, channels, statistics);
            },
        );
        let mut result = Coefficients {
            mean: Vec::with_capacity(channels),
            scale: Vec::with_capacity(channels),
            shift: Vec::with_capacity(channels),
            slope: Vec::with_capacity(self.groups),
        };
        let width = channels / self.groups;
        for (group, (weight, bias)) in weight.chunks_exact(width).zip(bias.chunks_exact(width)).enumerate() {
            let (mean, variance) = last_norm::group_statistics(&statistics, group, self.groups, channels, pixels);
            let slope = 1.0 / (variance + self.eps).sqrt();
            for (weight, bias) in weight.iter().zip(bias) {
                let scale = slope * f64::from(*weight);
                result.mean.push(mean as f32);
                result.scale.push(scale as f32);
                result.shift.push((f64::from(*bias) - mean * scale) as f32);
            }
            result.slope.push(slope);
        }
        result
    }

    /// From one image and the gradient of its result, the image's gradient into `out`; returns the gradients of weight
    /// and bias behind one another.
    fn image_gradient(&self, image: &[f32], grad: &[f32], weight: &[f32], bias: &[f32], out: &mut [f32]) -> Vec<f32> {
        let channels = weight.len();
        let (chunk, width) = (chunk_pixels(channels) * channels, channels / self.groups);
        let of = self.coefficients(image, weight, bias);
        let map = Affine { scale: &of.scale, shift: &of.shift, silu: self.silu };
        let mut sums = vec![0.0; image.len().div_ceil(chunk) * 2 * channels];
        let inputs = image.par_chunks(chunk).zip(grad.par_chunks(chunk));
        out.par_chunks_mut(chunk)
            .zip(sums.par_chunks_exact_mut(2 * channels))
            .zip(inputs)
            .for_each(|((out, sums), (x, grad))| last_norm::affine_gradient(&map, &of.mean, x, grad, out, sums));
        let sums = add_up(&sums, 2 * channels);
        let (bias_gradient, dots) = sums.split_at(channels);
        let mut gradients = Vec::with_capacity(2 * channels);
        // What comes through mean and deviation: with d the gradient before the activation and normal the normalised
        // value, -slope * (mean of weight d + normal * mean of weight d normal), as a function of x.
        let (mut slopes, mut shifts) = (Vec::with_capacity(channels), Vec::with_capacity(channels));
        let count = (image.len() / self.groups) as f64;
        for (group, slope) in of.slope.iter().enumerate() {
            let (mut plain, mut weighted) = (0.0f64, 0.0f64);
            for channel in group * width..(group + 1) * width {
                let dot = f64::from(dots[channel]) * slope;
                gradients.push(dot as f32);
                plain += f64::from(weight[channel]) * f64::from(bias_gradient[channel]) / count;
                weighted += f64::from(weight[channel]) * dot / count;
            }
            let through = -slope * slope * weighted;
            let shift = -slope * plain - f64::from(of.mean[group * width]) * through;
            slopes.resize(slopes.len() + width, through as f32);
            shifts.resize(shifts.len() + width, shift as f32);
        }
        gradients.extend_from_slice(bias_gradient);
        out.par_chunks_mut(chunk).zip(image.par_chunks(chunk)).for_each(|(out, x)| {
            last_norm::add_affine(&slopes, &shifts, x, out);
        });
        gradients
    }
}

impl CustomOp3 for GroupNorm {
    fn name(&self) -> &'static str {
        "evenset group norm of maps"
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
        let (x, weight, bias) = (values(x, x_layout)?, values(weight, weight_layout)?, values(bias, bias_layout)?);
        let size = x.len() / x_layout.dims()[0];
        let chunk = chunk_pixels(weight.len()) * weight.len();
        // SAFETY: the chunks of all images are all of the result.
        let mut out = unsafe { unfilled(x.len()) };
        out.par_chunks_exact_mut(size).zip(x.par_chunks_exact(size)).for_each(|(out, image)| {
            let of = self.coefficients(image, weight, bias);
            let map = Affine { scale: &of.scale, shift: &of.shift, silu: self.silu };
            out.par_chunks_mut(chunk).zip(image.par_chunks(chunk)).for_each(|(out, x)| last_norm::affine(&map, x, out));
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
        let (x_values, grad) = (Values::of(x)?, Values::of(&grad)?);
        let (x_values, grad) = (x_values.get()?, grad.get()?);
        let (weight_values, bias_values) = (Values::of(weight)?, Values::of(bias)?);
        let (weight_values, bias_values) = (weight_values.get()?, bias_values.get()?);
        let (batch, channels) = (x.dim(0)?, weight_values.len());
        let size = x_values.len() / batch;
        // SAFETY: the images are all of the gradient.
        let mut out = unsafe { unfilled(x_values.len()) };
        // Each image's sums stand alone and are added up in the images' order.
        let mut sums = vec![0.0; batch * 2 * channels];
        let images = x_values.par_chunks_exact(size).zip(grad.par_chunks_exact(size));
        out.par_chunks_exact_mut(size).zip(sums.par_chunks_exact_mut(2 * channels)).zip(images).for_each(
            |((out, sums), (image, grad))| {
                sums.copy_from_slice(&self.image_gradient(image, grad, weight_values, bias_values, out));
            },
        );
        let mut weight_gradient = add_up(&sums, 2 * channels);
        let bias_gradient = weight_gradient.split_off(channels);
        Ok((gradient(out, x)?, gradient(weight_gradient, weight)?, gradient(bias_gradient, bias)?))
    }
}

/// The sum of parts of `length` values each, in their order.
fn add_up(parts: &[f32], length: usize) -> Vec<f32> {
    let mut total = vec![0.0f64; length];
    for part in parts.chunks_exact(length) {
        total.iter_mut().zip(part).for_each(|(total, value)| *total += f64::from(*value));
    }
    total.into_iter().map(|total| total as f32).collect()
}

/// `x` is `[.., width]`, and so is the result.
pub(super) fn layer_norm(x: &Tensor, weight: Option<&Tensor>, bias: Option<&Tensor>, eps: f64) -> Result<Tensor> {
    let width = x.dim(D::Minus1)?;
    if x.elem_count() == 0 {
        bail!("a layer normalisation cannot take {:?}", x.shape());
    }
    let parameter = |given: Option<&Tensor>, otherwise: f32| match given {
        Some(given) if given.dims() == [width] => given.contiguous(),
        Some(given) => bail!("a parameter {:?} of a layer normalisation of {:?}", given.shape(), x.shape()),
        None => Tensor::full(otherwise, width, x.device()),
    };
    x.contiguous()?.apply_op3(&parameter(weight, 1.0)?, &parameter(bias, 0.0)?, LayerNorm { eps: eps as f32 })
}

struct LayerNorm {
    eps: f32,
}

impl LayerNorm {
    /// Values that one task takes: whole rows, in a number that depends on their width alone.
    fn task(width: usize) -> usize {
        chunk_pixels(width).max(64) * width
    }
}

impl CustomOp3 for LayerNorm {
    fn name(&self) -> &'static str {
        "evenset layer norm"
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
        let (x, weight, bias) = (values(x, x_layout)?, values(weight, weight_layout)?, values(bias, bias_layout)?);
        let task = Self::task(weight.len());
        // SAFETY: the rows are all of the result.
        let mut out = unsafe { unfilled(x.len()) };
        out.par_chunks_mut(task).zip(x.par_chunks(task)).for_each(|(out, x)| {
            last_norm::normalise_rows(x, weight, bias, self.eps, out);
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
        let (x_values, grad, weight_values) = (Values::of(x)?, Values::of(&grad)?, Values::of(weight)?);
        let (x_values, grad, weight_values) = (x_values.get()?, grad.get()?, weight_values.get()?);
        let width = weight_values.len();
        let task = Self::task(width);
        // SAFETY: the rows are all of the gradient.
        let mut out = unsafe { unfilled(x_values.len()) };
        let mut sums = vec![0.0; x_values.len().div_ceil(task) * 2 * width];
        let rows = x_values.par_chunks(task).zip(grad.par_chunks(task));
        out.par_chunks_mut(task).zip(sums.par_chunks_exact_mut(2 * width)).zip(rows).for_each(
            |((out, sums), (x, grad))| {
                last_norm::normalise_rows_gradient(x, weight_values, self.eps, grad, out, sums);
            },
        );
        let mut weight_gradient = add_up(&sums, 2 * width);
        let bias_gradient = weight_gradient.split_off(width);
        let tracked = |of: &Tensor, values| if of.track_op() { gradient(values, of) } else { Ok(None) };
        Ok((gradient(out, x)?, tracked(weight, weight_gradient)?, tracked(bias, bias_gradient)?))
    }
}

/// `x (1 + scale) + shift` with `x` `[batch, height, width, channels]` and `time` `[batch, 2 channels]`.
pub(super) fn scale_shift(x: &Tensor, time: &Tensor, silu: bool) -> Result<Tensor> {
    let (batch, _, _, channels) = x.dims4()?;
    if time.dims() != [batch, 2 * channels] || x.elem_count() == 0 {
        bail!("scales and shifts {:?} for maps {:?}", time.shape(), x.shape());
    }
    x.contiguous()?.apply_op2(&time.contiguous()?, ScaleShift { silu })
}

struct ScaleShift {
    silu: bool,
}

/// One more than the first half of an image's scales and shifts, and the second half.
fn scales_and_shifts(time: &[f32]) -> (Vec<f32>, &[f32]) {
    let (scale, shift) = time.split_at(time.len() / 2);
    (scale.iter().map(|scale| 1.0 + scale).collect(), shift)
}

impl CustomOp2 for ScaleShift {
    fn name(&self) -> &'static str {
        "evenset scale and shift of maps"
    }

    fn cpu_fwd(
        &self,
        x: &CpuStorage,
        x_layout: &Layout,
        time: &CpuStorage,
        time_layout: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let (x, time) = (values(x, x_layout)?, values(time, time_layout)?);
        let batch = x_layout.dims()[0];
        let (size, channels) = (x.len() / batch, time.len() / batch / 2);
        let chunk = chunk_pixels(channels) * channels;
        // SAFETY: the chunks of all images are all of the result.
        let mut out = unsafe { unfilled(x.len()) };
        let images = x.par_chunks_exact(size).zip(time.par_chunks_exact(2 * channels));
        out.par_chunks_exact_mut(size).zip(images).for_each(|(out, (image, time))| {
            let (scale, shift) = scales_and_shifts(time);
            let map = Affine { scale: &scale, shift, silu: self.silu };
            out.par_chunks_mut(chunk).zip(image.par_chunks(chunk)).for_each(|(out, x)| last_norm::affine(&map, x, out));
        });
        output(out, x_layout.shape())
    }

    fn bwd(
        &self,
        x: &Tensor,
        time: &Tensor,
        _result: &Tensor,
        grad: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>)> {
        let grad = grad.contiguous()?;
        let (x_values, grad, time_values) = (Values::of(x)?, Values::of(&grad)?, Values::of(time)?);
        let (x_values, grad, time_values) = (x_values.get()?, grad.get()?, time_values.get()?);
        let batch = x.dim(0)?;
        let (size, channels) = (x_values.len() / batch, time_values.len() / batch / 2);
        let (chunk, centre) = (chunk_pixels(channels) * channels, vec![0.0; channels]);
        // SAFETY: the chunks of all images are all of the gradients.
        let (mut out, mut time_out) = unsafe { (unfilled(x_values.len()), unfilled(time_values.len())) };
        let inputs = x_values.par_chunks_exact(size).zip(grad.par_chunks_exact(size));
        let images = inputs.zip(time_values.par_chunks_exact(2 * channels));
        out.par_chunks_exact_mut(size).zip(time_out.par_chunks_exact_mut(2 * channels)).zip(images).for_each(
            |((out, time_out), ((image, grad), time))| {
                let (scale, shift) = scales_and_shifts(time);
                let map = Affine { scale: &scale, shift, silu: self.silu };
                let mut sums = vec![0.0; size.div_ceil(chunk) * 2 * channels];
                let inputs = image.par_chunks(chunk).zip(grad.par_chunks(chunk));
                out.par_chunks_mut(chunk)
                    .zip(sums.par_chunks_exact_mut(2 * channels))
                    .zip(inputs)
                    .for_each(|((out, sums), (x, grad))| last_norm::affine_gradient(&map, &centre, x, grad, out, sums));
                let sums = add_up(&sums, 2 * channels);
                time_out[..channels].copy_from_slice(&sums[channels..]);
                time_out[channels..].copy_from_slice(&sums[..channels]);
            },
        );
        Ok((gradient(out, x)?, gradient(time_out, time)?))
    }
}
