//! Training batches: which images, what is hidden of their labels, how much noise. All from (seed, step).

use std::collections::BTreeMap;

use candle_core::{Device, Tensor};
use evenset_core::Seed;
use rand::RngExt;

use super::config::ConditionalConfig;
use super::set::TrainingSet;
use crate::edm::{Preconditioning, training_sigma};
use crate::error::Result;

/// Chance that all attributes of an image are hidden at once, on top of each one's own: guidance needs the
/// unconditional model, and with many attributes all of them would hardly ever be hidden together.
const DROP_ALL: f64 = 0.1;

/// What a step trains on. Images are `[batch, channels, height, width]`, padded.
pub(crate) struct Batch {
    /// `c_in x`.
    pub(crate) input: Tensor,
    /// Noise level of each image.
    pub(crate) sigmas: Vec<f64>,
    /// What the network should answer.
    pub(crate) target: Tensor,
    /// Embedding rows for each image; 0 is hidden or missing.
    pub(crate) codes: Vec<Vec<u32>>,
}

/// Draws batches from a training set.
pub(crate) struct Batches<'a> {
    set: &'a TrainingSet,
    config: &'a ConditionalConfig,
    seed: Seed,
    frame: Frame,
    edm: Preconditioning,
    groups: Vec<Vec<usize>>,
    /// Running sums of the groups' weights.
    sums: Vec<f64>,
}

impl<'a> Batches<'a> {
    pub(crate) fn new(
        set: &'a TrainingSet,
        config: &'a ConditionalConfig,
        seed: Seed,
        frame: Frame,
        edm: Preconditioning,
    ) -> Self {
        let mut groups: BTreeMap<&[Option<u32>], Vec<usize>> = BTreeMap::new();
        for (row, condition) in set.conditions.iter().enumerate() {
            groups.entry(condition).or_default().push(row);
        }
        let groups: Vec<Vec<usize>> = groups.into_values().collect();
        // Every image weighs count^-balance, so a group weighs count^(1 - balance).
        let mut sum = 0.0;
        let mut add = |rows: &Vec<usize>| {
            sum += (rows.len() as f64).powf(1.0 - config.balance);
            sum
        };
        let sums = groups.iter().map(&mut add).collect();
        Self { set, config, seed, frame, edm, groups, sums }
    }

    /// The batch of a step.
    pub(crate) fn at(&self, step: u64, device: &Device) -> Result<Batch> {
        let n = self.config.batch;
        let mut rng = self.seed.derive("batch").index(step).rng();
        let levels = self.seed.derive("noise level").index(step).normal(n);
        let len = self.frame.len();
        let mut input = self.seed.derive("noise").index(step).normal(n * len);
        let mut target = vec![0f32; n * len];
        let (mut codes, mut sigmas) = (Vec::with_capacity(n), Vec::with_capacity(n));
        for ((input, target), level) in input.chunks_exact_mut(len).zip(target.chunks_exact_mut(len)).zip(levels) {
            let row = self.row(rng.random(), rng.random());
            let hide_all = rng.random::<f64>() < DROP_ALL;
            let hidden = |value: &Option<u32>| {
                let hide = rng.random::<f64>() < self.config.attribute_dropout;
                value.filter(|_| !hide && !hide_all).map_or(0, |value| value + 1)
            };
            codes.push(self.set.conditions[row].iter().map(hidden).collect());
            let mirrored = self.config.flip && rng.random::<bool>();
            let sigma = training_sigma(f64::from(level));
            sigmas.push(sigma);
            let size = self.set.image_len();
            self.frame.load(&self.set.pixels[row * size..(row + 1) * size], mirrored, target);
            self.corrupt(sigma, input, target);
        }
        let (channels, height, width) = self.frame.shape();
        Ok(Batch {
            input: Tensor::from_vec(input, (n, channels, height, width), device)?,
            sigmas,
            target: Tensor::from_vec(target, (n, channels, height, width), device)?,
            codes,
        })
    }

    /// The row for two uniform numbers: its group by weight, then any of the group.
    fn row(&self, group: f64, within: f64) -> usize {
        let total = self.sums.last().copied().unwrap_or(0.0);
        let group = self.sums.partition_point(|&sum| sum <= group * total).min(self.groups.len() - 1);
        let rows = &self.groups[group];
        rows[((within * rows.len() as f64) as usize).min(rows.len() - 1)]
    }

    /// Standard normal numbers become the network's input, clean values its target.
    fn corrupt(&self, sigma: f64, noise: &mut [f32], clean: &mut [f32]) {
        let scale = self.edm.c_in(sigma) as f32;
        let (skip, out) = (self.edm.c_skip(sigma) as f32, 1.0 / self.edm.c_out(sigma) as f32);
        for (x, y) in noise.iter_mut().zip(clean) {
            let noisy = *y + sigma as f32 * *x;
            *x = scale * noisy;
            *y = out * (*y - skip * noisy);
        }
    }
}

/// Between bytes `[height, width, channels]` and centred numbers `[channels, padded height, padded width]`.
#[derive(Clone, Debug)]
pub(crate) struct Frame {
    pub(crate) width: usize,
    pub(crate) height: usize,
    /// Height and width are padded up to a multiple of this by repeating the last row and column.
    pub(crate) multiple: usize,
    /// Mean of each channel over the training set, for pixels from -1 to 1.
    pub(crate) mean: Vec<f64>,
}

impl Frame {
    /// Channels, padded height, padded width.
    pub(crate) fn shape(&self) -> (usize, usize, usize) {
        let padded = |side: usize| side.next_multiple_of(self.multiple);
        (self.mean.len(), padded(self.height), padded(self.width))
    }

    /// Numbers of one padded image.
    pub(crate) fn len(&self) -> usize {
        let (channels, height, width) = self.shape();
        channels * height * width
    }

    /// Bytes to numbers.
    pub(crate) fn load(&self, bytes: &[u8], mirrored: bool, values: &mut [f32]) {
        let (channels, height, width) = self.shape();
        for (c, (plane, mean)) in values.chunks_exact_mut(height * width).zip(&self.mean).enumerate() {
            for (y, line) in plane.chunks_exact_mut(width).enumerate() {
                let y = y.min(self.height - 1);
                for (x, value) in line.iter_mut().enumerate() {
                    let x = if mirrored { (self.width - 1).saturating_sub(x) } else { x.min(self.width - 1) };
                    let byte = bytes[(y * self.width + x) * channels + c];
                    *value = (f64::from(byte) / 127.5 - 1.0 - mean) as f32;
                }
            }
        }
    }

    /// Numbers to bytes: the padding is cut off, the rest rounded to the nearest byte.
    pub(crate) fn store(&self, values: &[f32]) -> Vec<u8> {
        let (channels, height, width) = self.shape();
        let mut bytes = Vec::with_capacity(self.width * self.height * channels);
        for y in 0..self.height {
            for x in 0..self.width {
                for (c, mean) in self.mean.iter().enumerate() {
                    let value = f64::from(values[(c * height + y) * width + x]) + mean;
                    bytes.push(((value + 1.0) * 127.5).round().clamp(0.0, 255.0) as u8);
                }
            }
        }
        bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::conditional::AttributeVocabulary;

    fn frame(width: usize, height: usize) -> Frame {
        Frame { width, height, multiple: 4, mean: vec![0.1, -0.3, 0.0] }
    }

    #[test]
    fn every_byte_survives_the_way_to_numbers_and_back_with_and_without_padding() {
        for (width, height) in [(8, 4), (7, 5), (1, 1)] {
            let frame = frame(width, height);
            let bytes: Vec<u8> = (0..3 * width * height).map(|i| (i * 37 % 256) as u8).collect();
            let mut values = vec![0.0; frame.len()];
            frame.load(&bytes, false, &mut values);
            assert_eq!(frame.store(&values), bytes);
        }
        let all: Vec<u8> = (0..=255).flat_map(|v| [v, v, v]).collect();
        let frame = frame(16, 16);
        let mut values = vec![0.0; frame.len()];
        frame.load(&all, false, &mut values);
        assert_eq!(frame.store(&values), all);
    }

    #[test]
    fn padding_repeats_the_edge_and_mirroring_swaps_left_and_right() {
        let frame = Frame { width: 3, height: 1, multiple: 2, mean: vec![-1.0] };
        let mut values = vec![0.0; frame.len()];
        let level = |byte: f32| byte / 127.5;
        frame.load(&[10, 20, 30], false, &mut values);
        assert_eq!(frame.shape(), (1, 2, 4));
        assert!(values.iter().zip([10.0, 20.0, 30.0, 30.0].repeat(2)).all(|(a, b)| (a - level(b)).abs() < 1e-6));
        frame.load(&[10, 20, 30], true, &mut values);
        assert!(values.iter().zip([30.0, 20.0, 10.0, 10.0].repeat(2)).all(|(a, b)| (a - level(b)).abs() < 1e-6));
    }

    /// 90 images of `a=x`, 10 of `a=y`: two grey levels.
    fn set() -> TrainingSet {
        TrainingSet {
            width: 4,
            height: 4,
            channels: 1,
            pixels: (0..100).flat_map(|i| [if i < 90 { 0 } else { 255 }; 16]).collect(),
            attributes: vec![AttributeVocabulary { name: "a".into(), values: vec!["x".into(), "y".into()] }],
            conditions: (0..100).map(|i| vec![Some(u32::from(i >= 90))]).collect(),
        }
    }

    fn codes(balance: f64, attribute_dropout: f64) -> [f64; 3] {
        let config = ConditionalConfig { batch: 4000, balance, attribute_dropout, ..ConditionalConfig::default() };
        let set = set();
        let frame = Frame { width: 4, height: 4, multiple: 4, mean: vec![0.0] };
        let batches = Batches::new(&set, &config, Seed(1), frame, Preconditioning { sigma_data: 0.5 });
        let batch = batches.at(7, &Device::Cpu).unwrap();
        [0, 1, 2].map(|code| batch.codes.iter().filter(|codes| codes[0] == code).count() as f64 / 4000.0)
    }

    #[test]
    fn balance_draws_small_groups_more_often_and_dropout_hides_labels() {
        let expected = |share: f64, hidden: f64| {
            let seen = (1.0 - DROP_ALL) * (1.0 - hidden);
            [1.0 - seen, seen * (1.0 - share), seen * share]
        };
        for (balance, hidden, share) in [(0.0, 0.0, 0.1), (1.0, 0.0, 0.5), (0.5, 0.2, 0.25)] {
            let (found, expected) = (codes(balance, hidden), expected(share, hidden));
            // Four standard errors of a share of 4000.
            assert!(found.iter().zip(expected).all(|(a, b)| (a - b).abs() < 0.032), "{found:?} {expected:?}");
        }
    }

    #[test]
    fn input_and_target_fit_the_clean_image() {
        let (set, config) = (set(), ConditionalConfig { batch: 8, ..ConditionalConfig::default() });
        let edm = Preconditioning { sigma_data: 0.5 };
        let frame = Frame { width: 4, height: 4, multiple: 4, mean: vec![0.0] };
        let batch = Batches::new(&set, &config, Seed(1), frame, edm).at(3, &Device::Cpu).unwrap();
        let values = |tensor: &Tensor| tensor.flatten_all().unwrap().to_vec1::<f32>().unwrap();
        let (input, target) = (values(&batch.input), values(&batch.target));
        for (i, sigma) in batch.sigmas.into_iter().enumerate() {
            for j in 16 * i..16 * (i + 1) {
                let x = f64::from(input[j]) / edm.c_in(sigma);
                let clean = edm.c_skip(sigma) * x + edm.c_out(sigma) * f64::from(target[j]);
                assert!((clean.abs() - 1.0).abs() < 1e-3, "{clean}");
            }
        }
    }
}
