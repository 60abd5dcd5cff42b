//! The images of each group: typical statistics, diversity, near-duplicates.

use std::collections::BTreeMap;

use evenset_core::Seed;
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use super::audit::ImageRecord;
use super::duplicates::NearDuplicates;
use super::statistics::Statistic;
use crate::statistics::{Z95, quantile, vendi_of_embeddings, wilson};

/// The Vendi score is that of at most so many images of a group.
pub const VENDI_IMAGES: usize = 1_000;

/// The images of one group.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ImageGroup {
    /// The codes of the group's values, in the order of the attributes that were asked for.
    pub codes: Vec<u32>,
    /// How many images it has, at least 1.
    pub count: u64,
    /// Each statistic's middle, in the order of [`Statistic::ALL`].
    pub statistics: Vec<Summary>,
    /// How many wholly different images would be as diverse (Friedman and Dieng 2023), 1 to `vendi_images`; none where
    /// embeddings are not equally long. It grows with the number of images: compare groups by it only where
    /// `vendi_images` is the same.
    pub vendi: Option<f64>,
    /// How many images the Vendi score is of, drawn at random where the group has more than [`VENDI_IMAGES`].
    pub vendi_images: u64,
    /// How many images have a near-duplicate in the group.
    pub near_duplicates: u64,
    /// Their share.
    pub near_duplicate_share: f64,
    /// Its 95 % Wilson interval.
    pub near_duplicate_interval: [f64; 2],
}

/// The middle of a statistic.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Summary {
    /// The statistic.
    pub statistic: Statistic,
    /// Half of the images lie on each side of it.
    pub median: f64,
    /// A quarter of the images lie below the first and a quarter above the second; their difference is the
    /// interquartile range. Between two images linearly interpolated, as NumPy does.
    pub quartiles: [f64; 2],
}

/// The groups of images by the attributes at the places `attributes` in [`ImageRecord::codes`], sorted by their codes; an
/// image without a code there is in no group.
pub fn group_images(
    records: &[ImageRecord],
    duplicates: &NearDuplicates,
    attributes: &[usize],
    seed: Seed,
) -> Vec<ImageGroup> {
    let mut groups: BTreeMap<Vec<u32>, Vec<usize>> = BTreeMap::new();
    for (image, record) in records.iter().enumerate() {
        let codes =
            attributes.iter().map(|&attribute| record.codes.get(attribute).copied()).collect::<Option<Vec<_>>>();
        if let Some(codes) = codes {
            groups.entry(codes).or_default().push(image);
        }
    }
    let groups: Vec<(Vec<u32>, Vec<usize>)> = groups.into_iter().collect();
    groups.into_par_iter().map(|(codes, images)| group(records, duplicates, codes, &images, seed)).collect()
}

fn group(
    records: &[ImageRecord],
    duplicates: &NearDuplicates,
    codes: Vec<u32>,
    images: &[usize],
    seed: Seed,
) -> ImageGroup {
    let count = images.len() as u64;
    let seed = codes.iter().fold(seed.derive("vendi"), |seed, &code| seed.index(u64::from(code)));
    let (vendi, vendi_images) = vendi(records, images, seed);
    let near_duplicates = duplicates.within(images);
    let members = || images.iter().filter_map(|&image| records.get(image));
    let summary = |&statistic: &Statistic| {
        let mut values: Vec<f64> = members().map(|record| statistic.of(&record.statistics)).collect();
        values.sort_unstable_by(f64::total_cmp);
        let [low, median, high] = [0.25, 0.5, 0.75].map(|at| quantile(&values, at));
        Summary { statistic, median, quartiles: [low, high] }
    };
    ImageGroup {
        codes,
        count,
        statistics: Statistic::ALL.iter().map(summary).collect(),
        vendi,
        vendi_images,
        near_duplicates,
        near_duplicate_share: near_duplicates as f64 / count.max(1) as f64,
        near_duplicate_interval: wilson(near_duplicates, count, Z95),
    }
}

fn vendi(records: &[ImageRecord], images: &[usize], seed: Seed) -> (Option<f64>, u64) {
    let size = images.len().min(VENDI_IMAGES);
    let mut drawn: Vec<usize> = rand::seq::index::sample(&mut seed.rng(), images.len(), size).into_vec();
    // The sum over images must not depend on the order of drawing where all are taken.
    drawn.sort_unstable();
    let embeddings: Vec<&[f32]> = drawn
        .iter()
        .filter_map(|&i| images.get(i).and_then(|&image| records.get(image)))
        .map(|record| record.appearance.embedding.as_slice())
        .collect();
    let are_equally_long = embeddings.iter().all(|e| Some(e.len()) == embeddings.first().map(|e| e.len()));
    let score = are_equally_long.then(|| vendi_of_embeddings(&embeddings.concat(), embeddings.len())).flatten();
    (score, size as u64)
}
