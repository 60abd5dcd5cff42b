//! The trunk of the classifier as one operation: all stages of an image while it is in the nearest cache.
//!
//! candle keeps and adds up the gradient of every operation in memory of its own, which for layers as small as these costs
//! more than their arithmetic.

use std::sync::OnceLock;

use candle_core::{CpuStorage, CustomOp2, Layout, Result, Tensor, bail};
use rayon::prelude::*;

use crate::kernels::conv::{BackwardInput, BackwardWeight, Forward, Shape};
use crate::kernels::math;
use crate::kernels::norm::{self, GroupNorm};
use crate::kernels::scratch::with_scratch;
use crate::ops::host::{Values, gradient, output, values};
use crate::ops::parallel::{fold_parts, images_per_task, parts};

/// Added to the variance of a group.
const EPS: f32 = 1e-5;
/// Groups of the normalisation.
pub(super) const GROUPS: usize = 4;

/// One stage's parameters: the convolution's weight and bias, the normalisation's weight and bias.
pub(super) type StageWeights = [Tensor; 4];

/// Convolution, group normalisation and SiLU, stage after stage, then the mean over the pixels: `x` is
/// `[batch, channels, height, width]`, the result `[batch, outputs of the last stage]`. Images get no gradient.
pub(super) fn trunk(x: &Tensor, shapes: &[Shape], weights: &[StageWeights]) -> Result<Tensor> {
    let stages: Vec<Stage> = shapes.iter().map(|&shape| Stage { shape }).collect();
    let fits = |stage: &Stage, weights: &StageWeights| {
        weights.iter().map(Tensor::elem_count).eq(stage.lengths()) && stage.shape.outputs.is_multiple_of(GROUPS)
    };
    let (_, channels, height, width) = x.dims4()?;
    let starts = stages.first().is_some_and(|Stage { shape }| {
        (shape.inputs, shape.height, shape.width) == (channels, height, width) && BackwardInput::applies(shape)
    });
    if !starts || stages.len() != weights.len() || !stages.iter().zip(weights).all(|(stage, w)| fits(stage, w)) {
        bail!("a trunk of {} stages does not fit images of shape {:?}", stages.len(), x.shape());
    }
    let parameters: Vec<Tensor> = weights.iter().flatten().map(Tensor::flatten_all).collect::<Result<_>>()?;
    let parameters = Tensor::cat(&parameters, 0)?;
    let op = Trunk { stages, keep: parameters.track_op(), hidden: OnceLock::new() };
    x.contiguous()?.apply_op2(&parameters, op)
}

#[derive(Clone, Copy)]
struct Stage {
    shape: Shape,
}

impl Stage {
    /// Lengths of the parameters in the order of [`StageWeights`].
    fn lengths(self) -> [usize; 4] {
        let Shape { inputs, outputs, kernel, .. } = self.shape;
        [outputs * inputs * kernel.0 * kernel.1, outputs, outputs, outputs]
    }

    fn pixels(self) -> usize {
        let (height, width) = self.shape.out();
        height * width
    }

    fn input_size(self) -> usize {
        self.shape.inputs * self.shape.height * self.shape.width
    }

    fn output_size(self) -> usize {
        self.shape.outputs * self.pixels()
    }

    /// Cuts this stage's parameters off the front.
    fn take<'a>(self, rest: &mut &'a [f32]) -> (&'a [f32], &'a [f32], GroupNorm<'a>) {
        let [weight, bias, norm_weight, norm_bias] = self.lengths().map(|length| {
            let (part, behind) = rest.split_at(length);
            *rest = behind;
            part
        });
        let norm = GroupNorm { groups: GROUPS, weight: norm_weight, bias: norm_bias, eps: EPS, silu: true };
        (weight, bias, norm)
    }
}

struct Trunk {
    stages: Vec<Stage>,
    /// Whether a backward pass may come.
    keep: bool,
    /// The convolutions' results, `[batch, stage, channel, pixel]`.
    hidden: OnceLock<Vec<f32>>,
}

impl Trunk {
    fn input_size(&self) -> usize {
        self.stages.first().map_or(0, |stage| stage.input_size())
    }

    fn outputs(&self) -> usize {
        self.stages.last().map_or(0, |stage| stage.shape.outputs)
    }

    fn hidden_size(&self) -> usize {
        self.stages.iter().map(|stage| stage.output_size()).sum()
    }

    /// The largest result of a stage.
    fn largest(&self) -> usize {
        self.stages.iter().map(|stage| stage.output_size()).max().unwrap_or(0)
    }
}

/// Cuts a buffer into parts of the lengths asked for.
fn split<const N: usize>(
    lengths: impl IntoIterator<Item = [usize; N]>,
    mut buffer: &mut [f32],
) -> Vec<[&mut [f32]; N]> {
    let mut parts = Vec::new();
    for lengths in lengths {
        parts.push(lengths.map(|length| {
            let (part, rest) = std::mem::take(&mut buffer).split_at_mut(length);
            buffer = rest;
            part
        }));
    }
    parts
}

/// A stage ready to run forward.
struct ForwardStage<'a> {
    convolution: Forward,
    bias: &'a [f32],
    norm: GroupNorm<'a>,
    output_size: usize,
}

/// A stage ready to run backward.
struct BackwardStage<'a> {
    /// None for the first: images get no gradient.
    input: Option<BackwardInput>,
    weight: BackwardWeight,
    norm: GroupNorm<'a>,
    stage: Stage,
}

impl BackwardStage<'_> {
    /// Lengths of the sums over images: the convolution's weight and bias, the normalisation's weight and bias together.
    fn sums(&self) -> [usize; 3] {
        [self.weight.sums(), self.stage.shape.outputs, 2 * self.stage.shape.outputs]
    }

    /// Lengths of the four buffers of the convolution's gradients.
    fn scratch(&self) -> [usize; 4] {
        let [input, flat] = self.input.as_ref().map_or([0, 0], BackwardInput::scratch);
        let [weight, turned] = self.weight.scratch();
        [input, flat, weight, turned]
    }
}

impl CustomOp2 for Trunk {
    fn name(&self) -> &'static str {
        "evenset classifier trunk"
    }

    fn cpu_fwd(
        &self,
        x: &CpuStorage,
        x_layout: &Layout,
        parameters: &CpuStorage,
        parameters_layout: &Layout,
    ) -> Result<(CpuStorage, candle_core::Shape)> {
        let x = values(x, x_layout)?;
        let mut rest = values(parameters, parameters_layout)?;
        let ready = |stage: &Stage| {
            let (weight, bias, norm) = stage.take(&mut rest);
            ForwardStage {
                convolution: Forward::new(stage.shape, weight),
                bias,
                norm,
                output_size: stage.output_size(),
            }
        };
        let stages: Vec<ForwardStage<'_>> = self.stages.iter().map(ready).collect();
        let scratch: usize = stages.iter().flat_map(|stage| stage.convolution.scratch()).sum();
        let (input_size, hidden_size, outputs) = (self.input_size(), self.hidden_size(), self.outputs());
        let batch = x.len() / input_size;
        let task = images_per_task(batch);
        let mut out = vec![0.0; batch * outputs];
        let run = |(x, out): (&[f32], &mut [f32]), mut kept: Option<&mut [f32]>| {
            with_scratch([scratch, self.largest(), hidden_size], |[scratch, normal, spare]| {
                scratch.fill(0.0);
                let mut buffers = split(stages.iter().map(|stage| stage.convolution.scratch()), scratch);
                for (i, (x, out)) in x.chunks_exact(input_size).zip(out.chunks_exact_mut(outputs)).enumerate() {
                    let mut hidden = match &mut kept {
                        Some(kept) => &mut kept[i * hidden_size..][..hidden_size],
                        None => &mut *spare,
                    };
                    let mut input = x;
                    for (stage, [planes, flat]) in stages.iter().zip(&mut buffers) {
                        let (h, behind) = std::mem::take(&mut hidden).split_at_mut(stage.output_size);
                        hidden = behind;
                        stage.convolution.run(input, Some(stage.bias), [planes, flat], h);
                        norm::forward(&stage.norm, h, &mut normal[..stage.output_size]);
                        input = &normal[..stage.output_size];
                    }
                    let pixels = input.len() / outputs;
                    for (out, channel) in out.iter_mut().zip(input.chunks_exact(pixels)) {
                        *out = math::sum(channel) / pixels as f32;
                    }
                }
            });
        };
        let images = x.par_chunks(task * input_size).zip(out.par_chunks_mut(task * outputs));
        if self.keep {
            let mut hidden = vec![0.0; batch * hidden_size];
            images
                .zip(hidden.par_chunks_mut(task * hidden_size))
                .for_each(|(images, hidden)| run(images, Some(hidden)));
            // A second forward pass of the same operation would find the same values there.
            let _ = self.hidden.set(hidden);
        } else {
            images.for_each(|images| run(images, None));
        }
        output(out, (batch, outputs))
    }

    fn bwd(
        &self,
        x: &Tensor,
        parameters: &Tensor,
        _result: &Tensor,
        grad: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>)> {
        let Some(hidden) = self.hidden.get() else {
            bail!("a trunk was not run with gradients in mind");
        };
        let grad = grad.contiguous()?;
        let (grad, x_values, parameter_values) = (Values::of(&grad)?, Values::of(x)?, Values::of(parameters)?);
        let (grad, x_values, mut rest) = (grad.get()?, x_values.get()?, parameter_values.get()?);
        let ready = |(i, &stage): (usize, &Stage)| {
            let (weight, _, norm) = stage.take(&mut rest);
            let input = (i > 0).then(|| BackwardInput::new(stage.shape, weight));
            BackwardStage { input, weight: BackwardWeight::new(stage.shape), norm, stage }
        };
        let stages: Vec<BackwardStage<'_>> = self.stages.iter().enumerate().map(ready).collect();
        let (input_size, hidden_size, outputs) = (self.input_size(), self.hidden_size(), self.outputs());
        let batch = x_values.len() / input_size;
        let (per_part, parts) = parts(batch);
        let sums_size: usize = stages.iter().flat_map(BackwardStage::sums).sum();
        let mut sums = vec![0.0; parts * sums_size];
        x_values
            .par_chunks(per_part * input_size)
            .zip(hidden.par_chunks(per_part * hidden_size))
            .zip(grad.par_chunks(per_part * outputs))
            .zip(sums.par_chunks_exact_mut(sums_size))
            .for_each(|(((x, hidden), grad), sums)| self.backward(&stages, [x, hidden, grad], sums));
        let sums = fold_parts(sums, sums_size);
        let mut rest = &sums[..];
        let mut gradients = Vec::with_capacity(parameters.elem_count());
        for stage in &stages {
            let [weight, bias, norm] = stage.sums().map(|length| {
                let (part, behind) = rest.split_at(length);
                rest = behind;
                part
            });
            let start = gradients.len();
            gradients.resize(start + stage.stage.lengths()[0], 0.0);
            stage.weight.finish(weight, &mut gradients[start..]);
            gradients.extend(bias.iter().chain(norm));
        }
        Ok((None, gradient(gradients, parameters)?))
    }
}

impl Trunk {
    /// Adds the gradients of some images to `sums`.
    fn backward(&self, stages: &[BackwardStage<'_>], [x, hidden, grad]: [&[f32]; 3], sums: &mut [f32]) {
        let (input_size, hidden_size, outputs) = (self.input_size(), self.hidden_size(), self.outputs());
        let scratch: usize = stages.iter().flat_map(BackwardStage::scratch).sum();
        let lengths = [scratch, hidden_size, self.largest(), self.largest()];
        with_scratch(lengths, |[scratch, normals, slope, h_slope]| {
            scratch.fill(0.0);
            let mut buffers = split(stages.iter().map(BackwardStage::scratch), scratch);
            let mut sums = split(stages.iter().map(BackwardStage::sums), sums);
            let images = x.chunks_exact(input_size).zip(hidden.chunks_exact(hidden_size));
            for ((x, hidden), grad) in images.zip(grad.chunks_exact(outputs)) {
                let mut start = 0;
                for BackwardStage { norm, stage, .. } in stages {
                    let span = start..start + stage.output_size();
                    norm::forward(norm, &hidden[span.clone()], &mut normals[span]);
                    start += stage.output_size();
                }
                let pixels = stages.last().map_or(1, |last| last.stage.pixels());
                for (slope, grad) in slope.chunks_exact_mut(pixels).zip(grad) {
                    slope.fill(grad / pixels as f32);
                }
                let mut end = hidden_size;
                let backwards = stages.iter().zip(buffers.iter_mut().zip(&mut sums)).rev();
                for (ready, ([planes, flat, inputs, turned], [weight_sums, bias_sums, norm_sums])) in backwards {
                    let BackwardStage { input, weight, norm, stage } = ready;
                    let size = stage.output_size();
                    let h_slope = &mut h_slope[..size];
                    norm::backward(norm, &hidden[end - size..end], &slope[..size], h_slope, norm_sums);
                    for (sum, channel) in bias_sums.iter_mut().zip(h_slope.chunks_exact(stage.pixels())) {
                        *sum += math::sum(channel);
                    }
                    end -= size;
                    let from = if end == 0 { x } else { &normals[end - stage.input_size()..end] };
                    weight.add(from, h_slope, [inputs, turned], weight_sums);
                    if let Some(input) = input {
                        input.run(h_slope, [planes, flat], &mut slope[..stage.input_size()]);
                    }
                }
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use candle_core::{D, Device};
    use evenset_core::Seed;

    use super::*;
    use crate::gradcheck::check_gradients;
    use crate::maps::{self, ConvExtras, Maps, Padding};
    use crate::param::Param;

    fn random(seed: u64, shape: &[usize]) -> Tensor {
        Tensor::from_vec(Seed(seed).normal(shape.iter().product()), shape, &Device::Cpu).unwrap()
    }

    /// Two stages over 7x6 images of 3 channels.
    fn shapes() -> [Shape; 2] {
        let stem = Shape { inputs: 3, height: 7, width: 6, outputs: 4, kernel: (3, 3), stride: 1, padding: 1 };
        [stem, Shape { inputs: 4, outputs: 8, stride: 2, ..stem }]
    }

    fn weights() -> Vec<Tensor> {
        let of = |(i, shape): (usize, Shape)| {
            let (seed, outputs) = (10 * i as u64, shape.outputs);
            [
                (random(seed + 1, &[outputs, shape.inputs, 3, 3]) * 0.3).unwrap(),
                random(seed + 2, &[outputs]),
                random(seed + 3, &[outputs]),
                random(seed + 4, &[outputs]),
            ]
        };
        shapes().into_iter().enumerate().flat_map(of).collect()
    }

    fn run(x: &Tensor, weights: &[Tensor]) -> Result<Tensor> {
        let stages: Vec<StageWeights> =
            weights.chunks_exact(4).map(|w| std::array::from_fn(|i| w[i].clone())).collect();
        trunk(x, &shapes(), &stages)
    }

    #[test]
    fn the_trunk_is_what_its_layers_are_one_after_another() {
        let (x, weights) = (random(5, &[3, 3, 7, 6]), weights());
        let mut maps = Maps::from_nchw(&x).unwrap();
        for (shape, w) in shapes().iter().zip(weights.chunks_exact(4)) {
            let (weight, bias) = (Param::new(w[0].clone()), ConvExtras { bias: Some(&w[1]), ..ConvExtras::default() });
            maps = maps::conv2d(&maps, &weight, shape.stride, Padding::all(1), bias).unwrap();
            maps = maps::group_norm(&maps, GROUPS, &w[2], &w[3], f64::from(EPS), true).unwrap();
        }
        let expected = maps.to_nchw().unwrap();
        let expected: Vec<Vec<f32>> = expected.flatten_from(2).unwrap().mean(D::Minus1).unwrap().to_vec2().unwrap();
        let found: Vec<Vec<f32>> = run(&x, &weights).unwrap().to_vec2().unwrap();
        for (found, expected) in found.iter().flatten().zip(expected.iter().flatten()) {
            assert!((found - expected).abs() < 1e-5, "{found} {expected}");
        }
    }

    #[test]
    fn gradients_agree_with_finite_differences_in_batches_of_one_two_and_three() {
        for batch in 1..=3 {
            let x = random(5, &[batch, 3, 7, 6]);
            check_gradients("trunk", &weights(), |weights| run(&x, weights), 2e-2).unwrap();
        }
    }

    #[test]
    fn weights_that_do_not_fit_are_refused() {
        let x = random(5, &[2, 3, 7, 6]);
        assert!(run(&x, &weights()[..4]).is_err());
        assert!(run(&random(5, &[2, 3, 6, 6]), &weights()).is_err());
    }
}
