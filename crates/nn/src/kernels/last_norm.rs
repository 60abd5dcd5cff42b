//! Normalisation of maps whose channels lie beside one another, `[pixels, channels]`, forward and backward.
//!
//! What a group normalisation (or a scale and shift by a time embedding) does to a pixel is an affine map of each channel
//! and then SiLU; the statistics only decide its coefficients. A map is cut into chunks of pixels that a core's cache
//! holds: means and squared deviations of a chunk are found in two passes over it and then combined with the others', so
//! that nothing is the small difference of two large sums.

use super::math::{dot_of, sigmoid, sum_of};
use super::scratch::with_scratch;
use super::simd::{Kernel, Simd, dispatch, vectorised};

/// Values of a chunk.
const CHUNK: usize = 1 << 14;

/// Values that one instruction may take: inner loops run over arrays of this length, as there may be few channels.
const LANES: usize = 16;

/// Pixels of a chunk: a number that depends on the channels alone, so that sums over chunks do not depend on more.
pub(crate) fn chunk_pixels(channels: usize) -> usize {
    (CHUNK / channels.max(1)).max(1)
}

/// An affine map of each channel: `y = x * scale + shift`, then SiLU where `silu` is set.
#[derive(Clone, Copy)]
pub(crate) struct Affine<'a> {
    /// `[channels]` each.
    pub(crate) scale: &'a [f32],
    pub(crate) shift: &'a [f32],
    pub(crate) silu: bool,
}

/// Statistics of the groups of one chunk of pixels: `[2, groups]`, the means, then the sums of the squared deviations
/// from them.
pub(crate) fn chunk_statistics(x: &[f32], channels: usize, statistics: &mut [f32]) {
    let (means, squares) = statistics.split_at_mut(statistics.len() / 2);
    let width = channels / means.len();
    let share = 1.0 / (x.len() / means.len()) as f32;
    with_scratch([channels, channels], |[centre, sums]| {
        chunk_sums(x, centre, sums);
        for ((mean, sums), centre) in means.iter_mut().zip(sums.chunks_exact(width)).zip(centre.chunks_exact_mut(width))
        {
            *mean = sums.iter().sum::<f32>() * share;
            centre.fill(*mean);
        }
        chunk_squares(x, centre, sums);
        for (squares, sums) in squares.iter_mut().zip(sums.chunks_exact(width)) {
            *squares = sums.iter().sum();
        }
    });
}

/// Mean and variance of a group from those of all chunks, `[chunks, 2, groups]`, of `pixels` pixels (Chan et al. 1983).
pub(crate) fn group_statistics(
    chunks: &[f32],
    group: usize,
    groups: usize,
    channels: usize,
    pixels: usize,
) -> (f64, f64) {
    let per_chunk = chunk_pixels(channels);
    let weight = |chunk: usize| (pixels - chunk * per_chunk).min(per_chunk) as f64 / pixels as f64;
    let mean_of = |chunk: usize| f64::from(chunks[2 * groups * chunk + group]);
    let count = chunks.len() / (2 * groups);
    let mean: f64 = (0..count).map(|chunk| weight(chunk) * mean_of(chunk)).sum();
    let between: f64 = (0..count).map(|chunk| weight(chunk) * (mean_of(chunk) - mean).powi(2)).sum();
    let within: f64 = (0..count).map(|chunk| f64::from(chunks[2 * groups * chunk + groups + group])).sum();
    (mean, between + within / (pixels * (channels / groups)) as f64)
}

/// `sums[c]` is the sum of `f(x, centre[c])` over the pixels.
#[inline(always)]
fn sum_columns(x: &[f32], centre: &[f32], sums: &mut [f32], f: impl Fn(f32, f32) -> f32 + Copy) {
    let channels = centre.len();
    let mut at = 0;
    while at + 4 * LANES <= channels {
        sum_some::<{ 4 * LANES }>(x, centre, sums, at, f);
        at += 4 * LANES;
    }
    if at + 2 * LANES <= channels {
        sum_some::<{ 2 * LANES }>(x, centre, sums, at, f);
        at += 2 * LANES;
    }
    while at + LANES <= channels {
        sum_some::<LANES>(x, centre, sums, at, f);
        at += LANES;
    }
    while at + 4 <= channels {
        sum_some::<4>(x, centre, sums, at, f);
        at += 4;
    }
    while at < channels {
        sum_some::<1>(x, centre, sums, at, f);
        at += 1;
    }
}

/// The sums of `N` channels from channel `at` on, in registers.
#[inline(always)]
fn sum_some<const N: usize>(
    x: &[f32],
    centre: &[f32],
    sums: &mut [f32],
    at: usize,
    f: impl Fn(f32, f32) -> f32 + Copy,
) {
    let mut middle = [0.0f32; N];
    middle.copy_from_slice(&centre[at..at + N]);
    let mut total = [0.0f32; N];
    for pixel in x.chunks_exact(centre.len()) {
        let pixel = &pixel[at..at + N];
        for i in 0..N {
            total[i] += f(pixel[i], middle[i]);
        }
    }
    sums[at..at + N].copy_from_slice(&total);
}

/// Maps pixels `x` to `out`.
pub(crate) fn affine(map: &Affine<'_>, x: &[f32], out: &mut [f32]) {
    match map.silu {
        true => affine_silu(map, x, out),
        false => dispatch(Linear { scale: map.scale, shift: map.shift, x, to: out, add: false }),
    }
}

/// Adds `x * scale + shift` to pixels; the coefficients are `[channels]`.
pub(crate) fn add_affine(scale: &[f32], shift: &[f32], x: &[f32], to: &mut [f32]) {
    dispatch(Linear { scale, shift, x, to, add: true });
}

/// Writes `x * scale + shift` to `to`, or adds it, in explicit vectors: left to itself, the compiler takes vectors across
/// the blocks of channels and gathers their values one by one.
struct Linear<'a> {
    scale: &'a [f32],
    shift: &'a [f32],
    x: &'a [f32],
    to: &'a mut [f32],
    add: bool,
}

impl Kernel for Linear<'_> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<S: Simd, const M: usize, const N: usize>(self) {
        let Self { scale, shift, x, to, add } = self;
        let channels = scale.len();
        let whole = if shift.len() == channels { channels - channels % S::LANES } else { 0 };
        for (to, x) in to.chunks_exact_mut(channels).zip(x.chunks_exact(channels)) {
            for at in (0..whole).step_by(S::LANES) {
                // SAFETY: a vector from `at` on ends within the channels, which all four slices have.
                unsafe {
                    let y = S::fma(
                        S::load(x.as_ptr().add(at)),
                        S::load(scale.as_ptr().add(at)),
                        S::load(shift.as_ptr().add(at)),
                    );
                    let to = to.as_mut_ptr().add(at);
                    S::store(to, if add { S::add(S::load(to), y) } else { y });
                }
            }
            for at in whole..channels {
                let y = x[at] * scale[at] + shift[at];
                to[at] = if add { to[at] + y } else { y };
            }
        }
    }
}

#[inline(always)]
fn silu(x: f32) -> f32 {
    x * sigmoid(x)
}

/// From the gradient behind the activation to the one before it.
#[inline(always)]
fn before_activation<const SILU: bool>(x: f32, g: f32, scale: f32, shift: f32) -> f32 {
    if SILU {
        let y = x * scale + shift;
        let s = sigmoid(y);
        g * (s + y * s * (1.0 - s))
    } else {
        g
    }
}

#[inline(always)]
fn affine_gradient_pixels<const SILU: bool>(
    map: &Affine<'_>,
    centre: &[f32],
    x: &[f32],
    g: &[f32],
    out: &mut [f32],
    sums: &mut [f32],
) {
    let channels = map.scale.len();
    let (sums, dots) = sums.split_at_mut(channels);
    let pixels = x.chunks_exact(channels).zip(g.chunks_exact(channels));
    for (out, (x, g)) in out.chunks_exact_mut(channels).zip(pixels) {
        let mut at = 0;
        while at + LANES <= channels {
            affine_gradient_some::<LANES, SILU>(map, centre, x, g, out, sums, dots, at);
            at += LANES;
        }
        while at < channels {
            affine_gradient_some::<1, SILU>(map, centre, x, g, out, sums, dots, at);
            at += 1;
        }
    }
}

/// `N` channels of one pixel from channel `at` on.
#[inline(always)]
#[allow(clippy::too_many_arguments)]
fn affine_gradient_some<const N: usize, const SILU: bool>(
    map: &Affine<'_>,
    centre: &[f32],
    x: &[f32],
    g: &[f32],
    out: &mut [f32],
    sums: &mut [f32],
    dots: &mut [f32],
    at: usize,
) {
    let span = at..at + N;
    let (x, g, centre) = (&x[span.clone()], &g[span.clone()], &centre[span.clone()]);
    let (scale, shift) = (&map.scale[span.clone()], &map.shift[span.clone()]);
    let (out, sums, dots) = (&mut out[span.clone()], &mut sums[span.clone()], &mut dots[span]);
    let mut d = [0.0f32; N];
    for i in 0..N {
        d[i] = before_activation::<SILU>(x[i], g[i], scale[i], shift[i]);
    }
    for i in 0..N {
        out[i] = d[i] * scale[i];
    }
    for i in 0..N {
        sums[i] += d[i];
    }
    for i in 0..N {
        dots[i] += d[i] * (x[i] - centre[i]);
    }
}

vectorised! {
    fn chunk_sums(x: &[f32], centre: &[f32], sums: &mut [f32]) {
        sum_columns(x, centre, sums, |x, _| x);
    }

    fn chunk_squares(x: &[f32], centre: &[f32], sums: &mut [f32]) {
        sum_columns(x, centre, sums, |x, centre| (x - centre) * (x - centre));
    }

    fn affine_silu(map: &Affine<'_>, x: &[f32], out: &mut [f32]) {
        let channels = map.scale.len();
        let (scales, scale_rest) = map.scale.as_chunks::<LANES>();
        let (shifts, shift_rest) = map.shift.as_chunks::<LANES>();
        for (out, x) in out.chunks_exact_mut(channels).zip(x.chunks_exact(channels)) {
            let ((outs, out_rest), (xs, x_rest)) = (out.as_chunks_mut::<LANES>(), x.as_chunks::<LANES>());
            for ((out, x), (scale, shift)) in outs.iter_mut().zip(xs).zip(scales.iter().zip(shifts)) {
                for i in 0..LANES {
                    out[i] = silu(x[i] * scale[i] + shift[i]);
                }
            }
            for ((out, x), (scale, shift)) in out_rest.iter_mut().zip(x_rest).zip(scale_rest.iter().zip(shift_rest)) {
                *out = silu(x * scale + shift);
            }
        }
    }

    /// From pixels `x` and the gradient `g` of what [`affine`] makes of them, the gradient of `x` as far as it does not
    /// come through the coefficients, to `out`. With `d` the gradient before the activation, adds each channel's sums of
    /// `d` and of `d * (x - centre)` to `sums`, `[2, channels]`.
    pub(crate) fn affine_gradient(
        map: &Affine<'_>,
        centre: &[f32],
        x: &[f32],
        g: &[f32],
        out: &mut [f32],
        sums: &mut [f32],
    ) {
        if map.silu {
            affine_gradient_pixels::<true>(map, centre, x, g, out, sums);
        } else {
            affine_gradient_pixels::<false>(map, centre, x, g, out, sums);
        }
    }

    /// From rows and the gradient of their normalisation, the gradient of the rows to `out`; adds the gradients of weight
    /// and bias to `sums`, `[2, width]`.
    pub(crate) fn normalise_rows_gradient(
        x: &[f32],
        weight: &[f32],
        eps: f32,
        g: &[f32],
        out: &mut [f32],
        sums: &mut [f32],
    ) {
        let width = weight.len();
        let share = 1.0 / width as f32;
        let (weight_sums, bias_sums) = sums.split_at_mut(width);
        for (out, (x, g)) in out.chunks_exact_mut(width).zip(x.chunks_exact(width).zip(g.chunks_exact(width))) {
            let (mean, scale) = row_statistics(x, eps);
            // `out` holds the gradient of the normalised row until its two means are known.
            let parameters = weight_sums.iter_mut().zip(&mut *bias_sums).zip(weight);
            for ((out, (x, g)), ((weight_sum, bias_sum), weight)) in out.iter_mut().zip(x.iter().zip(g)).zip(parameters) {
                *out = g * weight;
                *weight_sum += g * ((x - mean) * scale);
                *bias_sum += g;
            }
            let plain = sum_of(out, |d| d) * share;
            let dot = dot_of(out, x, |d, x| d * (x - mean)) * share * scale * scale;
            for (out, x) in out.iter_mut().zip(x) {
                *out = scale * ((*out - plain) - (x - mean) * dot);
            }
        }
    }

    /// Normalises rows of the weights' width.
    pub(crate) fn normalise_rows(x: &[f32], weight: &[f32], bias: &[f32], eps: f32, out: &mut [f32]) {
        let width = weight.len();
        for (out, x) in out.chunks_exact_mut(width).zip(x.chunks_exact(width)) {
            let (mean, scale) = row_statistics(x, eps);
            for ((out, x), (weight, bias)) in out.iter_mut().zip(x).zip(weight.iter().zip(bias)) {
                *out = (x - mean) * scale * weight + bias;
            }
        }
    }
}

/// Mean and reciprocal standard deviation of a row.
#[inline(always)]
fn row_statistics(x: &[f32], eps: f32) -> (f32, f32) {
    let share = 1.0 / x.len() as f32;
    let mean = sum_of(x, |x| x) * share;
    let variance = sum_of(x, |x| (x - mean) * (x - mean)) * share;
    (mean, 1.0 / (variance + eps).sqrt())
}
