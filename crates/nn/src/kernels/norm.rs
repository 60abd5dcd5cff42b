//! Group normalisation of one image, with SiLU behind it, forward and backward.

use super::math::{LANES, fold, sigmoid, sum_of};
use super::simd::vectorised;

/// A group normalisation's settings and parameters.
#[derive(Clone, Copy)]
pub(crate) struct GroupNorm<'a> {
    pub(crate) groups: usize,
    /// `[channels]` each.
    pub(crate) weight: &'a [f32],
    pub(crate) bias: &'a [f32],
    pub(crate) eps: f32,
    pub(crate) silu: bool,
}

impl GroupNorm<'_> {
    /// Mean and reciprocal standard deviation of a group's values.
    #[inline(always)]
    fn statistics(&self, values: &[f32]) -> (f32, f32) {
        let scale = 1.0 / values.len() as f32;
        let mean = sum_of(values, |x| x) * scale;
        let variance = sum_of(values, |x| (x - mean) * (x - mean)) * scale;
        (mean, 1.0 / (variance + self.eps).sqrt())
    }

    /// Writes the gradient before the activation to `d`; the sums of `d` and of `d` times the normalised value.
    #[inline(always)]
    fn before_activation(
        &self,
        x: &[f32],
        g: &[f32],
        d: &mut [f32],
        mean: f32,
        scale: f32,
        channel: usize,
    ) -> (f32, f32) {
        let (weight, bias) = (self.weight[channel], self.bias[channel]);
        if self.silu {
            for ((d, x), g) in d.iter_mut().zip(x).zip(g) {
                let y = (x - mean) * scale * weight + bias;
                let s = sigmoid(y);
                *d = g * (s + y * s * (1.0 - s));
            }
        } else {
            d.copy_from_slice(g);
        }
        let (mut sums, mut dots) = ([0.0f32; LANES], [0.0f32; LANES]);
        let ((d_chunks, d_rest), (x_chunks, x_rest)) = (d.as_chunks::<LANES>(), x.as_chunks::<LANES>());
        for (d, x) in d_chunks.iter().zip(x_chunks) {
            for i in 0..LANES {
                sums[i] += d[i];
                dots[i] += d[i] * (x[i] - mean);
            }
        }
        for (i, (d, x)) in d_rest.iter().zip(x_rest).enumerate() {
            sums[i] += d;
            dots[i] += d * (x - mean);
        }
        (fold(sums), fold(dots) * scale)
    }
}

vectorised! {
    /// Normalises one image, `[channels, pixels]`, into `out`.
    pub(crate) fn forward(norm: &GroupNorm<'_>, image: &[f32], out: &mut [f32]) {
        let pixels = image.len() / norm.weight.len();
        let per_group = norm.weight.len() / norm.groups;
        for group in 0..norm.groups {
            let span = group * per_group * pixels..(group + 1) * per_group * pixels;
            let (mean, scale) = norm.statistics(&image[span]);
            for channel in group * per_group..(group + 1) * per_group {
                let span = channel * pixels..(channel + 1) * pixels;
                let factor = scale * norm.weight[channel];
                let shift = norm.bias[channel] - mean * factor;
                let lines = out[span.clone()].iter_mut().zip(&image[span]);
                // Loops, not closures: a closure this long might not be inlined, and would miss the instruction set.
                if norm.silu {
                    for (out, x) in lines {
                        let y = x * factor + shift;
                        *out = y * sigmoid(y);
                    }
                } else {
                    for (out, x) in lines {
                        *out = x * factor + shift;
                    }
                }
            }
        }
    }

    /// From one image and the gradient of its result, the gradient of the image into `out`; adds the gradients of weight
    /// and bias to `sums`, `[2, channels]`.
    pub(crate) fn backward(
        norm: &GroupNorm<'_>,
        image: &[f32],
        gradient: &[f32],
        out: &mut [f32],
        sums: &mut [f32],
    ) {
        let pixels = image.len() / norm.weight.len();
        let per_group = norm.weight.len() / norm.groups;
        let (weight_sums, bias_sums) = sums.split_at_mut(norm.weight.len());
        for group in 0..norm.groups {
            let span = group * per_group * pixels..(group + 1) * per_group * pixels;
            let (mean, scale) = norm.statistics(&image[span]);
            // With normal = (x - mean) * scale and d = gradient before SiLU: the sums of d and of d * normal over each
            // channel give the parameters' gradients, and weighted by the weights the two means that x's gradient needs.
            let (mut plain, mut weighted) = (0.0f32, 0.0f32);
            for channel in group * per_group..(group + 1) * per_group {
                let span = channel * pixels..(channel + 1) * pixels;
                let (x, g, d) = (&image[span.clone()], &gradient[span.clone()], &mut out[span]);
                let (sum, dot) = norm.before_activation(x, g, d, mean, scale, channel);
                bias_sums[channel] += sum;
                weight_sums[channel] += dot;
                plain += norm.weight[channel] * sum;
                weighted += norm.weight[channel] * dot;
            }
            let count = 1.0 / (per_group * pixels) as f32;
            let (plain, weighted) = (plain * count, weighted * count);
            for channel in group * per_group..(group + 1) * per_group {
                let span = channel * pixels..(channel + 1) * pixels;
                let factor = scale * norm.weight[channel];
                let slope = -scale * scale * weighted;
                let shift = -scale * plain - mean * slope;
                for (d, x) in out[span.clone()].iter_mut().zip(&image[span]) {
                    *d = *d * factor + (x * slope + shift);
                }
            }
        }
    }
}
