//! Convolution of one image, forward and backward, without im2col.
//!
//! The image is copied once into padded [`Planes`]. Flattened, a kernel's tap is then the same plane at a constant
//! offset, so a convolution is a [`Product`] whose right rows are shifted views of the planes. Outputs are computed for
//! the flattened plane, including a few columns between the rows that belong to no output and are dropped.
//!
//! A stride splits the planes by the coordinates' remainders: within each part the taps are again constant offsets. The
//! gradient of the input is the same kind of product over the output's gradient, one for each remainder; the gradient
//! of the weights is an [`Outer`] product over the forward planes.

use super::product::{Outer, Packed, Product, SLACK, padded};
use super::simd::vectorised;

/// The sizes of a convolution.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Shape {
    pub(crate) inputs: usize,
    pub(crate) height: usize,
    pub(crate) width: usize,
    pub(crate) outputs: usize,
    pub(crate) kernel: (usize, usize),
    pub(crate) stride: usize,
    pub(crate) padding: usize,
}

impl Shape {
    /// Height and width of the result.
    pub(crate) fn out(&self) -> (usize, usize) {
        let size = |size: usize, kernel: usize| (size + 2 * self.padding - kernel) / self.stride + 1;
        (size(self.height, self.kernel.0), size(self.width, self.kernel.1))
    }

    /// Products of one input with one weight that reach one output.
    fn terms(&self) -> usize {
        self.inputs * self.kernel.0 * self.kernel.1
    }
}

/// How an image lies in memory while it is convolved: for each channel, one plane for each remainder of the row and
/// column by `stride`, with zeros around the image. Neighbouring rows share the zeros between them.
#[derive(Clone, Debug)]
struct Planes {
    channels: usize,
    size: (usize, usize),
    stride: usize,
    top: usize,
    left: usize,
    rows: usize,
    row: usize,
}

impl Planes {
    /// Where padded coordinates of a channel lie.
    #[inline(always)]
    fn address(&self, channel: usize, y: usize, x: usize) -> usize {
        let s = self.stride;
        ((channel * s + y % s) * s + x % s) * self.rows * self.row + (y / s) * self.row + x / s
    }

    fn len(&self) -> usize {
        self.channels * self.stride * self.stride * self.rows * self.row + SLACK
    }
}

vectorised! {
    /// Copies an image into its planes. The zeros around it must be there already.
    fn fill(planes: &Planes, image: &[f32], to: &mut [f32]) {
        let (height, width) = planes.size;
        for (channel, image) in image.chunks_exact(height * width).enumerate() {
            for (y, line) in image.chunks_exact(width).enumerate() {
                if planes.stride == 1 {
                    let at = planes.address(channel, y + planes.top, planes.left);
                    copy_line(line, &mut to[at..at + width], 0.0);
                } else {
                    for (x, value) in line.iter().enumerate() {
                        to[planes.address(channel, y + planes.top, x + planes.left)] = *value;
                    }
                }
            }
        }
    }

    /// Copies a product's results to where they go, with `bias` added to each channel.
    fn copy_out(pass: &Pass, flat: &[f32], flat_row: usize, flat_channel: usize, out: &mut Image<'_>, bias: Option<&[f32]>) {
        for (channel, image) in out.values.chunks_exact_mut(out.size.0 * out.size.1).enumerate() {
            let bias = bias.map_or(0.0, |bias| bias[channel]);
            for y in 0..pass.size.0 {
                let from = channel * flat_channel + y * flat_row;
                let results = &flat[from..from + pass.size.1];
                let to = (pass.first.0 + y * pass.step) * out.size.1 + pass.first.1;
                if pass.step == 1 {
                    copy_line(results, &mut image[to..to + results.len()], bias);
                } else {
                    for (to, value) in image[to..].iter_mut().step_by(pass.step).zip(results) {
                        *to = value + bias;
                    }
                }
            }
        }
    }
}

/// `to = from + bias` for a short line: a call of `memcpy` costs more than the copy.
#[inline(always)]
fn copy_line(from: &[f32], to: &mut [f32], bias: f32) {
    match from.len() {
        0 => {}
        1..4 => copy_blocks::<1>(from, to, bias),
        4..8 => copy_blocks::<4>(from, to, bias),
        8..16 => copy_blocks::<8>(from, to, bias),
        _ => copy_blocks::<16>(from, to, bias),
    }
}

/// Copies block by block; the last block ends where the line ends, over values that are there already.
#[inline(always)]
fn copy_blocks<const N: usize>(from: &[f32], to: &mut [f32], bias: f32) {
    let last = from.len() - N;
    let mut at = 0;
    loop {
        let (from, to) = (&from[at..at + N], &mut to[at..at + N]);
        for i in 0..N {
            to[i] = from[i] + bias;
        }
        if at == last {
            return;
        }
        at = (at + N).min(last);
    }
}

/// One product over planes and where its results go.
struct Pass {
    weights: Packed,
    rows: Vec<usize>,
    /// Rows and columns of results.
    size: (usize, usize),
    /// Where the first result goes, and how far apart they are, in the image that is made.
    first: (usize, usize),
    step: usize,
}

impl Pass {
    fn columns(&self, row: usize) -> usize {
        (self.size.0 - 1) * row + self.size.1
    }

    /// Computes one image's results into `out`, `[channels, height, width]`, with `bias` added to each channel.
    fn run(&self, planes: &Planes, input: &[f32], flat: &mut [f32], out: &mut Image<'_>, bias: Option<&[f32]>) {
        let columns = self.columns(planes.row);
        let stride = padded(columns);
        let product = Product { left: &self.weights, right: input, rows: &self.rows, columns, out: flat, stride };
        product.compute();
        copy_out(self, flat, planes.row, stride, out, bias);
    }
}

/// One image that is being made.
struct Image<'a> {
    values: &'a mut [f32],
    size: (usize, usize),
}

/// A convolution with its weights laid out for the forward pass.
pub(crate) struct Forward {
    shape: Shape,
    planes: Planes,
    pass: Pass,
}

impl Forward {
    /// `weight` is `[outputs, inputs, kernel height, kernel width]`.
    pub(crate) fn new(shape: Shape, weight: &[f32]) -> Self {
        let planes = forward_planes(&shape);
        let terms = shape.terms();
        let weights = Packed::new(shape.outputs, terms, |output, term| weight[output * terms + term]);
        let pass = Pass { weights, rows: taps(&shape, &planes), size: shape.out(), first: (0, 0), step: 1 };
        Self { shape, planes, pass }
    }

    /// Lengths of the two buffers that [`run`](Self::run) takes; the first must be zero before its first image.
    pub(crate) fn scratch(&self) -> [usize; 2] {
        [self.planes.len(), self.pass.weights.padded_rows() * padded(self.pass.columns(self.planes.row))]
    }

    /// Convolves `image` `[inputs, height, width]` into `out` `[outputs, height', width']`.
    pub(crate) fn run(&self, image: &[f32], bias: Option<&[f32]>, scratch: [&mut [f32]; 2], out: &mut [f32]) {
        let [planes, flat] = scratch;
        fill(&self.planes, image, planes);
        let mut out = Image { values: out, size: self.shape.out() };
        self.pass.run(&self.planes, planes, flat, &mut out, bias);
    }
}

fn forward_planes(shape: &Shape) -> Planes {
    let Shape { height, width, kernel, stride, padding, .. } = *shape;
    let out = shape.out();
    let (rows, row) = if stride == 1 {
        // The zeros to the right of a row are those to the left of the next.
        (height + 2 * padding, (width + padding).max((out.1 + kernel.1 - 1).saturating_sub(padding)))
    } else {
        let extent = |size: usize, out: usize, kernel: usize| {
            (size + 2 * padding).div_ceil(stride).max(out + (kernel - 1) / stride)
        };
        (extent(height, out.0, kernel.0), extent(width, out.1, kernel.1))
    };
    Planes { channels: shape.inputs, size: (height, width), stride, top: padding, left: padding, rows, row }
}

/// The offset of each term: input channel, kernel row, kernel column.
fn taps(shape: &Shape, planes: &Planes) -> Vec<usize> {
    let mut taps = Vec::with_capacity(shape.terms());
    for channel in 0..shape.inputs {
        for y in 0..shape.kernel.0 {
            taps.extend((0..shape.kernel.1).map(|x| planes.address(channel, y, x)));
        }
    }
    taps
}

/// The gradient of a convolution's input, with the weights laid out for it.
///
/// Along one axis, padded input coordinate `s q + r` (stride `s`, remainder `r`) takes part in output `q - t` through
/// kernel tap `r + s t`: for each remainder a convolution of the output's gradient with every `s`-th tap, reversed.
pub(crate) struct BackwardInput {
    shape: Shape,
    planes: Planes,
    passes: Vec<Pass>,
    /// Whether some inputs take part in no output: their gradient is zero.
    gaps: bool,
}

/// One axis of one remainder.
#[derive(Clone, Copy)]
struct Axis {
    remainder: usize,
    /// First quotient `q` inside the image, and how many there are.
    first: usize,
    count: usize,
    /// How many taps reach this remainder.
    taps: usize,
}

fn axes(size: usize, kernel: usize, stride: usize, padding: usize) -> Vec<Axis> {
    let axis = |remainder: usize| {
        let first = padding.saturating_sub(remainder).div_ceil(stride);
        let end = (padding + size).saturating_sub(remainder).div_ceil(stride);
        let taps = kernel.saturating_sub(remainder).div_ceil(stride);
        Axis { remainder, first, count: end.saturating_sub(first), taps }
    };
    (0..stride).map(axis).collect()
}

impl BackwardInput {
    /// Whether this can be used: there is no more padding than the kernel reaches over.
    pub(crate) fn applies(shape: &Shape) -> bool {
        shape.padding < shape.kernel.0 && shape.padding < shape.kernel.1
    }

    /// `weight` is `[outputs, inputs, kernel height, kernel width]`.
    pub(crate) fn new(shape: Shape, weight: &[f32]) -> Self {
        let Shape { stride, padding, kernel, .. } = shape;
        let (down, across) =
            (axes(shape.height, kernel.0, stride, padding), axes(shape.width, kernel.1, stride, padding));
        let out = shape.out();
        // Zeros before the image: as many as the tap that reaches furthest back needs.
        let before = |kernel: usize, axes: &[Axis]| {
            kernel.div_ceil(stride) - 1 - axes.iter().map(|axis| axis.first).min().unwrap_or(0)
        };
        let last = |axes: &[Axis]| axes.iter().map(|axis| axis.first + axis.count).max().unwrap_or(0);
        let (top, left) = (before(kernel.0, &down), before(kernel.1, &across));
        let planes = Planes {
            channels: shape.outputs,
            size: out,
            stride: 1,
            top,
            left,
            rows: (top + last(&down)).max(top + out.0),
            row: (left + out.1).max(last(&across)),
        };
        let mut passes = Vec::new();
        let mut gaps = false;
        for &y in &down {
            for &x in &across {
                if y.taps == 0 || x.taps == 0 {
                    gaps = true;
                } else if y.count > 0 && x.count > 0 {
                    passes.push(backward_pass(&shape, &planes, weight, y, x));
                }
            }
        }
        Self { shape, planes, passes, gaps }
    }

    /// Lengths of the two buffers that [`run`](Self::run) takes; the first must be zero before its first image.
    pub(crate) fn scratch(&self) -> [usize; 2] {
        let flat = |pass: &Pass| pass.weights.padded_rows() * padded(pass.columns(self.planes.row));
        [self.planes.len(), self.passes.iter().map(flat).max().unwrap_or(0)]
    }

    /// From the gradient of one image's output, `[outputs, height', width']`, that of its input.
    pub(crate) fn run(&self, gradient: &[f32], scratch: [&mut [f32]; 2], out: &mut [f32]) {
        let [planes, flat] = scratch;
        fill(&self.planes, gradient, planes);
        if self.gaps {
            out.fill(0.0);
        }
        let mut out = Image { values: out, size: (self.shape.height, self.shape.width) };
        for pass in &self.passes {
            pass.run(&self.planes, planes, flat, &mut out, None);
        }
    }
}

fn backward_pass(shape: &Shape, planes: &Planes, weight: &[f32], y: Axis, x: Axis) -> Pass {
    let Shape { inputs, outputs, kernel, stride, padding, .. } = *shape;
    let taps = y.taps * x.taps;
    let weights = Packed::new(inputs, outputs * taps, |input, term| {
        let (output, tap) = (term / taps, term % taps);
        let (ky, kx) = (y.remainder + stride * (tap / x.taps), x.remainder + stride * (tap % x.taps));
        weight[((output * inputs + input) * kernel.0 + ky) * kernel.1 + kx]
    });
    let mut rows = Vec::with_capacity(outputs * taps);
    for output in 0..outputs {
        for ty in 0..y.taps {
            rows.extend(
                (0..x.taps).map(|tx| planes.address(output, y.first + planes.top - ty, x.first + planes.left - tx)),
            );
        }
    }
    let first = |axis: Axis| axis.first * stride + axis.remainder - padding;
    Pass { weights, rows, size: (y.count, x.count), first: (first(y), first(x)), step: stride }
}

/// The gradient of a convolution's weights, summed over images.
pub(crate) struct BackwardWeight {
    shape: Shape,
    planes: Planes,
    taps: Vec<usize>,
}

impl BackwardWeight {
    pub(crate) fn new(shape: Shape) -> Self {
        let planes = forward_planes(&shape);
        Self { shape, taps: taps(&shape, &planes), planes }
    }

    /// Length of the sums that [`add`](Self::add) adds to: `[terms, padded outputs]`.
    pub(crate) fn sums(&self) -> usize {
        self.taps.len() * padded(self.shape.outputs)
    }

    /// Lengths of the two buffers that [`add`](Self::add) takes; both must be zero before the first image.
    pub(crate) fn scratch(&self) -> [usize; 2] {
        let (height, width) = self.shape.out();
        [self.planes.len(), height * width * padded(self.shape.outputs)]
    }

    /// Adds one image's share: from its input and the gradient of its output.
    pub(crate) fn add(&self, image: &[f32], gradient: &[f32], scratch: [&mut [f32]; 2], sums: &mut [f32]) {
        let [planes, pixels] = scratch;
        let counts = self.shape.out();
        let width = padded(self.shape.outputs);
        fill(&self.planes, image, planes);
        transpose(gradient, self.shape.outputs, counts.0 * counts.1, pixels, width);
        let steps = (self.planes.row, 1);
        Outer { left: planes, offsets: &self.taps, counts, steps, right: pixels, out: sums, width }.compute();
    }

    /// Brings sums into the weights' own order, `[outputs, inputs, kernel height, kernel width]`.
    pub(crate) fn finish(&self, sums: &[f32], gradient: &mut [f32]) {
        let width = padded(self.shape.outputs);
        for (output, gradient) in gradient.chunks_exact_mut(self.taps.len()).enumerate() {
            for (value, sums) in gradient.iter_mut().zip(sums.chunks_exact(width)) {
                *value = sums[output];
            }
        }
    }
}

/// `[rows, columns]` to `[columns, width]`, in blocks that stay in the nearest cache.
pub(crate) fn transpose(from: &[f32], rows: usize, columns: usize, to: &mut [f32], width: usize) {
    const BLOCK: usize = 16;
    for row in (0..rows).step_by(BLOCK) {
        for column in (0..columns).step_by(BLOCK) {
            for i in row..(row + BLOCK).min(rows) {
                let line = &from[i * columns + column..i * columns + (column + BLOCK).min(columns)];
                for (j, value) in line.iter().enumerate() {
                    to[(column + j) * width + i] = *value;
                }
            }
        }
    }
}
