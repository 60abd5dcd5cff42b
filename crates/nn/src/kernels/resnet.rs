//! A whole residual block of one image, forward and backward: what passes between its layers stays in the nearest cache.
//!
//! `out = conv2(silu(norm2(h))) + shortcut(x)` with `h = conv1(silu(norm1(x))) + shift`. Backward, `h` is given and the
//! normalised images are computed again, which is cheaper than keeping them.

use super::conv::{BackwardInput, BackwardWeight, Forward, Shape};
use super::norm::{self, GroupNorm, add_to};
use super::scratch::with_scratch;

/// The sizes of a block. Both 3x3 convolutions keep the height and width; the shortcut is 1x1, and only there where the
/// number of channels changes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sizes {
    pub(crate) inputs: usize,
    pub(crate) outputs: usize,
    pub(crate) height: usize,
    pub(crate) width: usize,
    pub(crate) groups: usize,
    pub(crate) eps: f32,
}

impl Sizes {
    pub(crate) fn pixels(&self) -> usize {
        self.height * self.width
    }

    fn conv(&self, inputs: usize, kernel: usize) -> Shape {
        let Self { outputs, height, width, .. } = *self;
        Shape { inputs, height, width, outputs, kernel: (kernel, kernel), stride: 1, padding: kernel / 2 }
    }

    fn has_shortcut(&self) -> bool {
        self.inputs != self.outputs
    }

    /// Lengths of the parameters in the order of [`Parameters`].
    pub(crate) fn lengths(&self) -> [usize; 10] {
        let Self { inputs, outputs, .. } = *self;
        let shortcut = if self.has_shortcut() { (inputs * outputs, outputs) } else { (0, 0) };
        let (first, second) = (9 * inputs * outputs, 9 * outputs * outputs);
        [inputs, inputs, first, outputs, outputs, outputs, second, outputs, shortcut.0, shortcut.1]
    }
}

/// A block's parameters, one behind another in one slice: weight and bias of norm1, conv1, norm2, conv2, shortcut.
#[derive(Clone, Copy)]
pub(crate) struct Parameters<'a> {
    norm1: GroupNorm<'a>,
    conv1: (&'a [f32], &'a [f32]),
    norm2: GroupNorm<'a>,
    conv2: (&'a [f32], &'a [f32]),
    shortcut: (&'a [f32], &'a [f32]),
}

impl<'a> Parameters<'a> {
    pub(crate) fn new(sizes: &Sizes, values: &'a [f32]) -> Self {
        let mut rest = values;
        let parts = sizes.lengths().map(|length| {
            let (part, behind) = rest.split_at(length);
            rest = behind;
            part
        });
        let norm = |weight, bias| GroupNorm { groups: sizes.groups, weight, bias, eps: sizes.eps, silu: true };
        let [weight1, bias1, conv1, conv1_bias, weight2, bias2, conv2, conv2_bias, shortcut, shortcut_bias] = parts;
        Self {
            norm1: norm(weight1, bias1),
            conv1: (conv1, conv1_bias),
            norm2: norm(weight2, bias2),
            conv2: (conv2, conv2_bias),
            shortcut: (shortcut, shortcut_bias),
        }
    }
}

/// The forward pass of a block.
pub(crate) struct ForwardBlock<'a> {
    sizes: Sizes,
    parameters: Parameters<'a>,
    conv1: Forward,
    conv2: Forward,
    shortcut: Option<Forward>,
}

impl<'a> ForwardBlock<'a> {
    pub(crate) fn new(sizes: Sizes, parameters: Parameters<'a>) -> Self {
        let conv = |inputs, kernel, (weight, _): (&[f32], _)| Forward::new(sizes.conv(inputs, kernel), weight);
        Self {
            sizes,
            parameters,
            conv1: conv(sizes.inputs, 3, parameters.conv1),
            conv2: conv(sizes.outputs, 3, parameters.conv2),
            shortcut: sizes.has_shortcut().then(|| conv(sizes.inputs, 1, parameters.shortcut)),
        }
    }

    /// Runs some images. `x` is `[images, inputs, pixels]`, `shift` `[images, outputs]`, `out` `[images, outputs, pixels]`;
    /// `hidden` is shaped as `out` and receives `h`, or holds one image where it need not be kept.
    pub(crate) fn run(&self, x: &[f32], shift: &[f32], hidden: &mut [f32], out: &mut [f32]) {
        let Sizes { inputs, outputs, .. } = self.sizes;
        let (input_size, output_size) = (inputs * self.sizes.pixels(), outputs * self.sizes.pixels());
        let ([planes1, flat1], [planes2, flat2]) = (self.conv1.scratch(), self.conv2.scratch());
        let [planes3, flat3] = self.shortcut.as_ref().map_or([0, 0], Forward::scratch);
        let lengths = [planes1, planes2, planes3, flat1.max(flat2).max(flat3), input_size.max(output_size)];
        with_scratch(lengths, |[planes1, planes2, planes3, flat, normal]| {
            for planes in [&mut *planes1, planes2, planes3] {
                planes.fill(0.0);
            }
            let images =
                x.chunks_exact(input_size).zip(shift.chunks_exact(outputs)).zip(out.chunks_exact_mut(output_size));
            for (i, ((x, shift), out)) in images.enumerate() {
                let first = if hidden.len() == output_size { 0 } else { i * output_size };
                let h = &mut hidden[first..first + output_size];
                let normal1 = &mut normal[..input_size];
                norm::forward(&self.parameters.norm1, x, normal1);
                let bias: Vec<f32> = shift.iter().zip(self.parameters.conv1.1).map(|(a, b)| a + b).collect();
                self.conv1.run(normal1, Some(&bias), [planes1, flat], h);
                let normal2 = &mut normal[..output_size];
                norm::forward(&self.parameters.norm2, h, normal2);
                self.conv2.run(normal2, Some(self.parameters.conv2.1), [planes2, flat], out);
                match &self.shortcut {
                    None => add_to(out, x),
                    Some(shortcut) => {
                        shortcut.run(x, Some(self.parameters.shortcut.1), [planes3, flat], normal2);
                        add_to(out, normal2);
                    }
                }
            }
        });
    }
}

/// The backward pass of a block.
pub(crate) struct BackwardBlock<'a> {
    sizes: Sizes,
    parameters: Parameters<'a>,
    input1: BackwardInput,
    input2: BackwardInput,
    input3: Option<BackwardInput>,
    weight1: BackwardWeight,
    weight2: BackwardWeight,
    weight3: Option<BackwardWeight>,
}

/// What the backward pass writes for some images.
pub(crate) struct BlockGradients<'a> {
    /// `[images, inputs, pixels]`
    pub(crate) x: &'a mut [f32],
    /// `[images, outputs]`
    pub(crate) shift: &'a mut [f32],
    /// Sums over images: is added to. [`BackwardBlock::finish`] brings them into the parameters' order.
    pub(crate) sums: &'a mut [f32],
}

impl<'a> BackwardBlock<'a> {
    pub(crate) fn new(sizes: Sizes, parameters: Parameters<'a>) -> Self {
        let input = |inputs, kernel, (weight, _): (&[f32], _)| BackwardInput::new(sizes.conv(inputs, kernel), weight);
        let weight = |inputs, kernel| BackwardWeight::new(sizes.conv(inputs, kernel));
        Self {
            sizes,
            parameters,
            input1: input(sizes.inputs, 3, parameters.conv1),
            input2: input(sizes.outputs, 3, parameters.conv2),
            input3: sizes.has_shortcut().then(|| input(sizes.inputs, 1, parameters.shortcut)),
            weight1: weight(sizes.inputs, 3),
            weight2: weight(sizes.outputs, 3),
            weight3: sizes.has_shortcut().then(|| weight(sizes.inputs, 1)),
        }
    }

    /// Lengths of the sums: norm1, conv1's weight, norm2, conv2's weight, conv2's bias, the shortcut's weight.
    fn sum_lengths(&self) -> [usize; 6] {
        let Sizes { inputs, outputs, .. } = self.sizes;
        let third = self.weight3.as_ref().map_or(0, BackwardWeight::sums);
        [2 * inputs, self.weight1.sums(), 2 * outputs, self.weight2.sums(), outputs, third]
    }

    /// Length of [`BlockGradients::sums`].
    pub(crate) fn sums(&self) -> usize {
        self.sum_lengths().iter().sum()
    }

    /// Runs some images: from their inputs `x`, the hidden images `h` of the forward pass, and the gradient of the output.
    pub(crate) fn run(&self, x: &[f32], hidden: &[f32], gradient: &[f32], out: BlockGradients<'_>) {
        let Sizes { inputs, outputs, .. } = self.sizes;
        let pixels = self.sizes.pixels();
        let (input_size, output_size) = (inputs * pixels, outputs * pixels);
        let inputs_of = [Some(&self.input1), Some(&self.input2), self.input3.as_ref()];
        let weights_of = [Some(&self.weight1), Some(&self.weight2), self.weight3.as_ref()];
        let scratch = inputs_of.map(|input| input.map_or([0, 0], BackwardInput::scratch));
        let weight_scratch = weights_of.map(|weight| weight.map_or([0, 0], BackwardWeight::scratch));
        let flat = scratch.iter().map(|lengths| lengths[1]).max().unwrap_or(0);
        let turned = weight_scratch.iter().map(|lengths| lengths[1]).max().unwrap_or(0);
        let both = input_size.max(output_size);
        let lengths = [
            scratch[0][0],
            scratch[1][0],
            scratch[2][0],
            weight_scratch[0][0],
            weight_scratch[1][0],
            weight_scratch[2][0],
            flat,
            turned,
            both,
            both,
            output_size,
        ];
        with_scratch(lengths, |[p1, p2, p3, q1, q2, q3, flat, turned, normal, slope, h_slope]| {
            for buffer in [&mut *p1, p2, p3, q1, q2, q3, turned] {
                buffer.fill(0.0);
            }
            let mut rest = out.sums;
            let [norm1, weight1, norm2, weight2, bias2, weight3] = self.sum_lengths().map(|length| {
                let (part, behind) = std::mem::take(&mut rest).split_at_mut(length);
                rest = behind;
                part
            });
            let images = x.chunks_exact(input_size).zip(hidden.chunks_exact(output_size));
            let images = images.zip(gradient.chunks_exact(output_size));
            let outs = out.x.chunks_exact_mut(input_size).zip(out.shift.chunks_exact_mut(outputs));
            for (((x, h), gradient), (x_out, shift)) in images.zip(outs) {
                channel_sums(gradient, pixels, |channel, sum| bias2[channel] += sum);

                let (normal2, slope2) = (&mut normal[..output_size], &mut slope[..output_size]);
                norm::forward(&self.parameters.norm2, h, normal2);
                self.weight2.add(normal2, gradient, [q2, turned], weight2);
                self.input2.run(gradient, [p2, flat], slope2);
                norm::backward(&self.parameters.norm2, h, slope2, h_slope, norm2);
                channel_sums(h_slope, pixels, |channel, sum| shift[channel] = sum);

                let (normal1, slope1) = (&mut normal[..input_size], &mut slope[..input_size]);
                norm::forward(&self.parameters.norm1, x, normal1);
                self.weight1.add(normal1, h_slope, [q1, turned], weight1);
                self.input1.run(h_slope, [p1, flat], slope1);
                norm::backward(&self.parameters.norm1, x, slope1, x_out, norm1);

                match (&self.input3, &self.weight3) {
                    (Some(input3), Some(weight)) => {
                        weight.add(x, gradient, [q3, turned], weight3);
                        input3.run(gradient, [p3, flat], slope1);
                        add_to(x_out, slope1);
                    }
                    _ => add_to(x_out, gradient),
                }
            }
        });
    }

    /// The parameters' gradients, in the order of [`Parameters`], from the sums over all images; `shift` is the gradient of
    /// all images' shifts.
    pub(crate) fn finish(&self, sums: &[f32], shift: &[f32]) -> Vec<f32> {
        let mut rest = sums;
        let [norm1, weight1, norm2, weight2, bias2, weight3] = self.sum_lengths().map(|length| {
            let (part, behind) = rest.split_at(length);
            rest = behind;
            part
        });
        let mut bias1 = vec![0.0; self.sizes.outputs];
        shift.chunks_exact(self.sizes.outputs).for_each(|shift| add_to(&mut bias1, shift));
        let ordered = |weight: &BackwardWeight, sums: &[f32], length: usize| {
            let mut gradient = vec![0.0; length];
            weight.finish(sums, &mut gradient);
            gradient
        };
        let lengths = self.sizes.lengths();
        let first = ordered(&self.weight1, weight1, lengths[2]);
        let second = ordered(&self.weight2, weight2, lengths[6]);
        let third = self.weight3.as_ref().map(|weight| ordered(weight, weight3, lengths[8])).unwrap_or_default();
        let bias3 = &bias2[..lengths[9]];
        [norm1, &first, &bias1, norm2, &second, bias2, &third, bias3].concat()
    }
}

fn channel_sums(image: &[f32], pixels: usize, mut take: impl FnMut(usize, f32)) {
    for (channel, values) in image.chunks_exact(pixels).enumerate() {
        take(channel, norm::sum(values));
    }
}
