//! Group normalisation of one image, with SiLU behind it, forward and backward.

use super::simd::vectorised;

/// Partial sums that are formed beside one another; a fixed number, so that sums are the same on every processor.
const LANES: usize = 32;

vectorised! {
    /// The sum of the values, in a fixed order.
    pub(crate) fn sum(values: &[f32]) -> f32 {
        sum_of(values, |x| x)
    }

    /// `to += from`.
    pub(crate) fn add_to(to: &mut [f32], from: &[f32]) {
        to.iter_mut().zip(from).for_each(|(to, from)| *to += from);
    }
}

#[inline(always)]
pub(super) fn sum_of(values: &[f32], f: impl Fn(f32) -> f32) -> f32 {
    let mut sums = [0.0f32; LANES];
    let (chunks, rest) = values.as_chunks::<LANES>();
    for chunk in chunks {
        for i in 0..LANES {
            sums[i] += f(chunk[i]);
        }
    }
    for (sum, x) in sums.iter_mut().zip(rest) {
        *sum += f(*x);
    }
    fold(sums)
}

/// The sum of `f` of the pairs of values, in a fixed order.
#[inline(always)]
pub(super) fn dot_of(a: &[f32], b: &[f32], f: impl Fn(f32, f32) -> f32) -> f32 {
    let mut sums = [0.0f32; LANES];
    let ((a_chunks, a_rest), (b_chunks, b_rest)) = (a.as_chunks::<LANES>(), b.as_chunks::<LANES>());
    for (a, b) in a_chunks.iter().zip(b_chunks) {
        for i in 0..LANES {
            sums[i] += f(a[i], b[i]);
        }
    }
    for (sum, (a, b)) in sums.iter_mut().zip(a_rest.iter().zip(b_rest)) {
        *sum += f(*a, *b);
    }
    fold(sums)
}

#[inline(always)]
fn fold(mut sums: [f32; LANES]) -> f32 {
    let mut width = LANES / 2;
    while width > 0 {
        for i in 0..width {
            sums[i] += sums[i + width];
        }
        width /= 2;
    }
    sums[0]
}

/// `exp(x)` within two units in the last place for `x` in `[-87, 88]`, clamped outside, in operations that vectorise.
///
/// Cody-Waite reduction to `[-ln 2 / 2, ln 2 / 2]` and the polynomial of Cephes' `expf`.
#[inline(always)]
pub(crate) fn exp(x: f32) -> f32 {
    // Adding 1.5 * 2^23 rounds to an integer that stands in the low bits of the sum.
    const ROUND: f32 = 12_582_912.0;
    // Not `clamp`: a NaN must stay one, and both comparisons must compile to one instruction each.
    let x = if x > 88.0 { 88.0 } else { x };
    let x = if x < -87.0 { -87.0 } else { x };
    let shifted = x * std::f32::consts::LOG2_E + ROUND;
    let n = shifted - ROUND;
    let r = (x - n * 0.693_359_4) - n * -2.121_944_4e-4;
    let p = 1.987_569_1e-4;
    let p = p * r + 1.398_199_9e-3;
    let p = p * r + 8.333_452e-3;
    let p = p * r + 4.166_579_6e-2;
    let p = p * r + 1.666_666_5e-1;
    let p = p * r + 0.5;
    let mantissa = p * r * r + r + 1.0;
    let power = f32::from_bits((shifted.to_bits() << 23).wrapping_add(0x3f80_0000));
    mantissa * power
}

/// The logistic function.
#[inline(always)]
pub(crate) fn sigmoid(x: f32) -> f32 {
    1.0 / (1.0 + exp(-x))
}

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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exp_is_exact_to_two_units_in_the_last_place() {
        for i in -86_000..88_000 {
            let x = i as f32 / 1000.0 + 1e-4;
            let (exact, found) = (f64::from(x).exp(), f64::from(exp(x)));
            assert!((found - exact).abs() <= 2.5e-7 * exact, "{x}: {found} {exact}");
        }
        assert!(exp(f32::NAN).is_nan());
        assert!(exp(-1e30) < 1e-37 && exp(1e30) > 1e38);
    }
}
