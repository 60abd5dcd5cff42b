//! Labels that a single number gives away: where all images of a class are darker, larger or blurrier than the others, a
//! model may learn that instead of the class.

use std::collections::BTreeMap;

use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use super::audit::ImageRecord;
use super::statistics::Statistic;
use crate::statistics::{auc_of_ranks, mid_ranks};

/// A value with fewer images, or whose rest has fewer, is not looked at.
pub const FEWEST_IMAGES: u64 = 20;

/// An area under the curve of at least this, or at most 1 minus this, is one to warn of. For 20 images it is more than
/// five standard errors from a half, so chance alone does not give it.
pub const TELLING_AUC: f64 = 0.85;

/// A statistic that tells a value of an attribute from the others.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TrivialPredictor {
    /// The statistic.
    pub statistic: Statistic,
    /// The attribute's place in [`ImageRecord::codes`].
    pub attribute: usize,
    /// The code of the value.
    pub code: u32,
    /// How many images have the value.
    pub images: u64,
    /// The probability that the statistic is larger for an image with the value than for one without, 0 to 1.
    pub auc: f64,
    /// Its 95 % interval (Hanley and McNeil 1982).
    pub interval: [f64; 2],
}

/// Every statistic that alone tells a value from the others of its attribute ([`TELLING_AUC`]), the most telling first;
/// equally telling ones in the order of attribute, code and statistic. An image without a code for an attribute is left
/// out of it.
pub fn trivial_predictors(records: &[ImageRecord]) -> Vec<TrivialPredictor> {
    let attributes = records.iter().map(|record| record.codes.len()).max().unwrap_or(0);
    let each = (0..attributes).flat_map(|attribute| Statistic::ALL.map(|statistic| (attribute, statistic)));
    let each: Vec<(usize, Statistic)> = each.collect();
    let found = each.into_par_iter().flat_map_iter(|(attribute, statistic)| predictors(records, attribute, statistic));
    let mut found: Vec<TrivialPredictor> = found.collect();
    let strength = |predictor: &TrivialPredictor| (predictor.auc - 0.5).abs();
    let place = |predictor: &TrivialPredictor| (predictor.attribute, predictor.code, predictor.statistic);
    found.sort_by(|a, b| strength(b).total_cmp(&strength(a)).then_with(|| place(a).cmp(&place(b))));
    found
}

fn predictors(records: &[ImageRecord], attribute: usize, statistic: Statistic) -> Vec<TrivialPredictor> {
    let coded =
        records.iter().filter_map(|record| Some((*record.codes.get(attribute)?, statistic.of(&record.statistics))));
    let (codes, values): (Vec<u32>, Vec<f64>) = coded.unzip();
    // One sorting serves all values of the attribute.
    let mut of_code: BTreeMap<u32, (u64, f64)> = BTreeMap::new();
    for (code, rank) in codes.iter().zip(mid_ranks(&values)) {
        let (images, rank_sum) = of_code.entry(*code).or_default();
        (*images, *rank_sum) = (*images + 1, *rank_sum + rank);
    }
    let predictor = |(code, (images, rank_sum)): (u32, (u64, f64))| {
        let rest = codes.len() as u64 - images;
        let auc = auc_of_ranks(rank_sum, images, rest).filter(|_| images.min(rest) >= FEWEST_IMAGES)?;
        let is_telling = auc.value >= TELLING_AUC || auc.value <= 1.0 - TELLING_AUC;
        is_telling.then_some(TrivialPredictor {
            statistic,
            attribute,
            code,
            images,
            auc: auc.value,
            interval: auc.interval,
        })
    };
    of_code.into_iter().filter_map(predictor).collect()
}
