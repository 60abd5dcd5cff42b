//! `decode`: the right size, drawn from numbers, not blank, not noise.
//!
//! Both measures look at brightness. *Deviation* is its standard deviation over the image: zero for a blank one.
//! *Roughness* is the mean squared difference of neighbouring pixels over twice the variance: near 0 for smooth images and
//! 1 for noise in which neighbours know nothing of each other (von Neumann's ratio).

use evenset_nn::classifier::ImageSet;
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use super::{Gate, Outcome, Shown};
use crate::nearest::weighted_quantile;
use crate::{Candidate, DecodeConfig, VerifyError};

/// The limits found on real images are loosened by this factor.
const LOOSENED: f32 = 1.5;

/// What real images keep to.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DecodeLimits {
    /// Images with a smaller deviation are blank, in 0..=255.
    pub smallest_deviation: f32,
    /// Images with a larger roughness are noise.
    pub largest_roughness: f32,
}

impl DecodeLimits {
    /// The limits that hold for all real images but a share of `config.quantile` at either end, loosened.
    pub(crate) fn calibrate(config: &DecodeConfig, real: &ImageSet) -> Self {
        let images: Vec<&[u8]> = real.iter().collect();
        let measured: Vec<Measure> =
            images.par_iter().map(|image| Measure::of(image, real.width(), real.height())).collect();
        let quantile = |value: &dyn Fn(&Measure) -> f64, p: f64| {
            let values: Vec<(f32, f64)> = measured.iter().map(|measure| (value(measure) as f32, 1.0)).collect();
            weighted_quantile(&values, p).unwrap_or_default()
        };
        let roughest = quantile(&|measure| measure.roughness, 1.0 - config.quantile);
        // Where half as much again would let noise through, half the way to noise.
        let halfway = if roughest < 1.0 { (roughest + 1.0) / 2.0 } else { f32::INFINITY };
        Self {
            smallest_deviation: quantile(&|measure| measure.deviation, config.quantile) / LOOSENED,
            largest_roughness: (roughest * LOOSENED).min(halfway),
        }
    }
}

/// The gate. Its score is the deviation.
#[derive(Debug)]
pub struct Decode {
    width: usize,
    height: usize,
    limits: DecodeLimits,
}

impl Decode {
    pub(crate) fn new(width: usize, height: usize, limits: DecodeLimits) -> Self {
        Self { width, height, limits }
    }

    fn judge(&self, candidate: &Candidate) -> Outcome {
        let Self { width, height, limits } = self;
        let Candidate { width: found_width, height: found_height, rgb, .. } = candidate;
        if (*found_width as usize, *found_height as usize) != (*width, *height) || rgb.len() != 3 * width * height {
            let bytes = rgb.len();
            let reason =
                format!("decode: {width}x{height} pixels wanted, {found_width}x{found_height} in {bytes} bytes found");
            return Outcome::drop(0.0, reason);
        }
        if let Some(flaw) = &candidate.flaw {
            return Outcome::drop(0.0, format!("decode: {flaw}"));
        }
        let Measure { deviation, roughness } = Measure::of(rgb, *width, *height);
        if deviation == 0.0 || deviation < f64::from(limits.smallest_deviation) {
            let least = limits.smallest_deviation;
            return Outcome::drop(deviation, format!("decode: blank (deviation {deviation:.1}, at least {least:.1})"));
        }
        if roughness > f64::from(limits.largest_roughness) {
            let most = limits.largest_roughness;
            return Outcome::drop(deviation, format!("decode: noise (roughness {roughness:.2}, at most {most:.2})"));
        }
        Outcome::keep(deviation)
    }
}

impl Gate for Decode {
    fn name(&self) -> &'static str {
        "decode"
    }

    fn check(&self, shown: &Shown<'_>) -> Result<Vec<Outcome>, VerifyError> {
        Ok(shown.candidates.par_iter().map(|candidate| self.judge(candidate)).collect())
    }
}

/// Deviation and roughness of one image.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Measure {
    deviation: f64,
    roughness: f64,
}

impl Measure {
    fn of(image: &[u8], width: usize, height: usize) -> Self {
        let brightness: Vec<f64> = image
            .chunks_exact(3)
            .map(|pixel| pixel.iter().zip([0.299, 0.587, 0.114]).map(|(&value, part)| f64::from(value) * part).sum())
            .collect();
        let count = brightness.len().max(1) as f64;
        let mean = brightness.iter().sum::<f64>() / count;
        let variance = brightness.iter().map(|value| (value - mean).powi(2)).sum::<f64>() / count;
        let (mut squares, mut pairs) = (0.0, 0.0);
        for y in 0..height {
            for x in 0..width {
                let here = brightness[y * width + x];
                let right = (x + 1 < width).then(|| brightness[y * width + x + 1]);
                let below = (y + 1 < height).then(|| brightness[(y + 1) * width + x]);
                for neighbour in [right, below].into_iter().flatten() {
                    squares += (here - neighbour).powi(2);
                    pairs += 1.0;
                }
            }
        }
        let roughness = if variance < 1e-9 { 0.0 } else { squares / f64::max(pairs, 1.0) / (2.0 * variance) };
        Self { deviation: variance.sqrt(), roughness }
    }
}

#[cfg(test)]
mod tests {
    use evenset_core::Seed;

    use super::*;

    #[test]
    fn noise_has_roughness_one_a_ramp_nearly_none_and_a_blank_image_no_deviation() {
        let grey = |level: &dyn Fn(usize) -> u8| -> Vec<u8> { (0..32 * 32).flat_map(|i| [level(i); 3]).collect() };
        let draws = Seed(1).normal(32 * 32);
        let noise = Measure::of(&grey(&|i| (128.0 + 30.0 * draws[i]).clamp(0.0, 255.0) as u8), 32, 32);
        assert!((noise.roughness - 1.0).abs() < 0.1, "{noise:?}");
        let ramp = Measure::of(&grey(&|i| (i % 32 * 8) as u8), 32, 32);
        assert!(ramp.roughness < 0.01 && ramp.deviation > 50.0, "{ramp:?}");
        assert_eq!(Measure::of(&grey(&|_| 77), 32, 32), Measure { deviation: 0.0, roughness: 0.0 });
    }
}
