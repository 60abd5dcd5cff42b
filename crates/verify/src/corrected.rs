//! Counts of verified images, corrected for the recogniser's errors.
//!
//! A recogniser that takes one coat in ten for a shirt miscounts both. How it errs is measured on held-out real images,
//! so the error can be taken back: what the recogniser saw in the candidates for a value, `s`, is the true values `t`
//! seen through its confusion matrix, `s = t M`, hence `t = s M^-1` (Rogan and Gladen 1978, "Estimating prevalence from
//! the results of a screening test"). Which of those passed the gate is known from the same images, and gives the share
//! of the accepted ones that truly have their value.
//!
//! The intervals carry both uncertainties: the matrix, from a few hundred held-out images, and the candidates. Both are
//! drawn again (rows of the matrix from their Dirichlet posteriors, candidates by the bootstrap), and the middle 95 % are
//! reported. The correction assumes that the recogniser errs on generated images as on real ones.

use evenset_core::Seed;
use nalgebra::{DMatrix, DVector};
use rand::RngExt;
use rand_distr::{Distribution, Gamma};
use serde::{Deserialize, Serialize};

use crate::AttributeCalibration;

/// How often matrix and candidates are drawn again.
const DRAWS: u64 = 1000;
/// Of the draws, the share beyond either end of an interval.
const TAIL: f64 = 0.025;
/// A matrix whose smallest pivot is below this cannot be turned around.
const SINGULAR: f64 = 1e-6;
/// Draws depend on the counts alone.
const SEED: Seed = Seed(0x636f_7272_6563_7431);
/// Added to every count of the matrix: a confusion that was never met is still possible (Jeffreys' prior, spread over the
/// row).
const PRIOR: f64 = 0.5;

/// One candidate that the gate `attributes` was shown, as far as one attribute goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sighting {
    /// The value that was asked for, an index into the attribute's values.
    pub wanted: usize,
    /// The value that the recogniser saw first.
    pub seen: usize,
    /// Whether the image passed every gate.
    pub accepted: bool,
}

/// How many of the accepted images of one value truly have it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CorrectedCount {
    /// The value.
    pub value: String,
    /// Images accepted as having it.
    pub accepted: u64,
    /// Those that truly have it, by the correction; none where the matrix cannot be turned around, because some value was
    /// never held out or two cannot be told apart.
    pub corrected: Option<f64>,
    /// The 95 % interval of `corrected`.
    pub interval: Option<[f64; 2]>,
}

/// The corrected counts of one attribute's values, in their order; values that nobody asked for are left out.
pub fn corrected(calibration: &AttributeCalibration, sightings: &[Sighting]) -> Vec<CorrectedCount> {
    let classes = calibration.classes.len();
    let observed = Tables { confusion: counts(&calibration.confusion), accepts: counts(&calibration.accepts) };
    let of_value = |wanted: usize| -> Option<CorrectedCount> {
        let mut seen = vec![0.0; classes];
        let mut accepted = 0;
        for sighting in sightings.iter().filter(|sighting| sighting.wanted == wanted) {
            *seen.get_mut(sighting.seen)? += 1.0;
            accepted += u64::from(sighting.accepted);
        }
        let shown: f64 = seen.iter().sum();
        if shown == 0.0 {
            return None;
        }
        let value = calibration.classes.get(wanted).cloned().unwrap_or_default();
        let everything_held_out = calibration.confusion.iter().all(|row| row.iter().sum::<u64>() > 0);
        let share = everything_held_out.then(|| observed.true_share(wanted, &seen)).flatten();
        let interval = share.map(|share| {
            let draw = |draw: u64| {
                let mut rng = SEED.index(wanted as u64).index(draw).rng();
                let drawn = observed.drawn(&mut rng);
                let again = resample(&seen, shown as u64, &mut rng);
                drawn.true_share(wanted, &again)
            };
            let mut shares: Vec<f64> = (0..DRAWS).filter_map(draw).collect();
            shares.sort_by(f64::total_cmp);
            let at = |p: f64| shares.get((p * shares.len().saturating_sub(1) as f64).round() as usize).copied();
            let (low, high) = (at(TAIL).unwrap_or(0.0), at(1.0 - TAIL).unwrap_or(1.0));
            [low.min(share) * accepted as f64, high.max(share) * accepted as f64]
        });
        Some(CorrectedCount { value, accepted, corrected: share.map(|share| share * accepted as f64), interval })
    };
    (0..classes).filter_map(of_value).collect()
}

/// What the recogniser does to images of each true value.
struct Tables {
    /// `[true value][value seen first]`.
    confusion: Vec<Vec<f64>>,
    /// `[true value][value asked for]`: images that would pass.
    accepts: Vec<Vec<f64>>,
}

impl Tables {
    /// Of the images that were asked to have `wanted`, were seen as `seen` and passed, the share that truly has it.
    fn true_share(&self, wanted: usize, seen: &[f64]) -> Option<f64> {
        let n = seen.len();
        let total = |row: usize| self.confusion[row].iter().sum::<f64>().max(f64::MIN_POSITIVE);
        let matrix = DMatrix::from_fn(n, n, |seen, truth| self.confusion[truth][seen] / total(truth));
        let lu = matrix.lu();
        if (0..n).any(|i| lu.u()[(i, i)].abs() < SINGULAR) {
            return None;
        }
        let truths = lu.solve(&DVector::from_column_slice(seen))?;
        // The inverse may take more away than there is.
        let passed = |truth: usize| truths[truth].max(0.0) * self.accepts[truth][wanted] / total(truth);
        let all: f64 = (0..n).map(passed).sum();
        (all > 0.0).then(|| passed(wanted) / all)
    }

    /// Tables as they might have come out with other held-out images.
    fn drawn(&self, rng: &mut impl RngExt) -> Self {
        let mut drawn = Self { confusion: Vec::new(), accepts: Vec::new() };
        for (confusion, accepts) in self.confusion.iter().zip(&self.accepts) {
            let prior = PRIOR / confusion.len().max(1) as f64;
            let row: Vec<f64> = confusion.iter().map(|count| gamma(count + prior, rng)).collect();
            let sum: f64 = row.iter().sum::<f64>().max(f64::MIN_POSITIVE);
            // Of the images seen as a value, the share that also passed stays as it is.
            let pass = |(seen, accepted): (&f64, &f64)| if *seen > 0.0 { accepted / seen } else { 1.0 };
            let passes = confusion.iter().zip(accepts).map(pass);
            drawn.accepts.push(passes.zip(&row).map(|(pass, share)| pass * share / sum).collect());
            drawn.confusion.push(row.iter().map(|share| share / sum).collect());
        }
        drawn
    }
}

fn gamma(shape: f64, rng: &mut impl RngExt) -> f64 {
    Gamma::new(shape, 1.0).map_or(0.0, |gamma| gamma.sample(rng))
}

fn counts(table: &[Vec<u64>]) -> Vec<Vec<f64>> {
    table.iter().map(|row| row.iter().map(|&count| count as f64).collect()).collect()
}

/// `n` candidates drawn again from what was seen.
fn resample(seen: &[f64], n: u64, rng: &mut impl RngExt) -> Vec<f64> {
    let mut again = vec![0.0; seen.len()];
    let total: f64 = seen.iter().sum();
    for _ in 0..n {
        let mut at = rng.random::<f64>() * total;
        let place = seen.iter().position(|&count| {
            at -= count;
            at < 0.0
        });
        if let Some(count) = place.and_then(|place| again.get_mut(place)) {
            *count += 1.0;
        }
    }
    again
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::View;

    fn calibration(confusion: Vec<Vec<u64>>, accepts: Vec<Vec<u64>>) -> AttributeCalibration {
        let classes: Vec<String> = (0..confusion.len()).map(|i| i.to_string()).collect();
        AttributeCalibration { confusion, accepts, ..AttributeCalibration::new("digit", &classes, View::Colour, &[]) }
    }

    fn sightings(seen: &[(usize, usize, bool, usize)]) -> Vec<Sighting> {
        let one = |&(wanted, seen, accepted, n): &(usize, usize, bool, usize)| {
            std::iter::repeat_n(Sighting { wanted, seen, accepted }, n)
        };
        seen.iter().flat_map(one).collect()
    }

    #[test]
    fn with_two_values_the_correction_is_rogan_and_gladens() {
        // Sensitivity 0.9, specificity 0.8; of 100 candidates for 0, 69 are seen as 0 and pass.
        let confusion = vec![vec![900, 100], vec![200, 800]];
        let found =
            corrected(&calibration(confusion.clone(), confusion), &sightings(&[(0, 0, true, 69), (0, 1, false, 31)]));
        // Prevalence (0.69 - 0.2) / (0.9 - 0.2) = 0.7; of those seen as 0, 0.9 * 0.7 = 0.63 of 0.69 are.
        let count = &found[0];
        assert_eq!((found.len(), count.accepted), (1, 69));
        assert!((count.corrected.unwrap() - 63.0).abs() < 1e-9, "{count:?}");
        let [low, high] = count.interval.unwrap();
        assert!(low > 55.0 && low < 63.0 && high > 63.0 && high < 69.0, "{count:?}");
    }

    #[test]
    fn a_perfect_recogniser_changes_nothing_and_few_held_out_images_leave_doubt() {
        let diagonal = |n: u64| vec![vec![n, 0, 0], vec![0, n, 0], vec![0, 0, n]];
        let seen = sightings(&[(1, 1, true, 40), (1, 2, false, 2)]);
        let sure = corrected(&calibration(diagonal(1000), diagonal(1000)), &seen).remove(0);
        let unsure = corrected(&calibration(diagonal(6), diagonal(6)), &seen).remove(0);
        assert_eq!((sure.accepted, sure.corrected), (40, Some(40.0)));
        let width = |count: &CorrectedCount| count.interval.map(|[low, high]| high - low).unwrap();
        assert!(width(&sure) < 1.0 && width(&unsure) > width(&sure), "{sure:?} {unsure:?}");
    }

    #[test]
    fn what_cannot_be_told_apart_is_not_corrected() {
        let seen = sightings(&[(0, 0, true, 10)]);
        let alike = vec![vec![5, 5], vec![5, 5]];
        assert_eq!(corrected(&calibration(alike.clone(), alike), &seen)[0].corrected, None);
        let unmet = vec![vec![5, 0], vec![0, 0]];
        assert_eq!(corrected(&calibration(unmet.clone(), unmet), &seen)[0].corrected, None);
    }

    #[test]
    fn the_interval_holds_the_truth_about_as_often_as_it_says() {
        // A known recogniser, a known mixture: 200 held-out images a value, 150 candidates, 80 % of them right.
        let truth = [[0.85, 0.15], [0.25, 0.75]];
        let mut rng = Seed(3).rng();
        let mut held = 0;
        for _ in 0..60 {
            let mut confusion = vec![vec![0u64; 2]; 2];
            for (row, chances) in confusion.iter_mut().zip(truth) {
                for _ in 0..200 {
                    row[usize::from(rng.random::<f64>() >= chances[0])] += 1;
                }
            }
            let (mut seen, mut right) = (Vec::new(), 0.0);
            for _ in 0..150 {
                let value = usize::from(rng.random::<f64>() >= 0.8);
                let first = usize::from(rng.random::<f64>() >= truth[value][0]);
                seen.push(Sighting { wanted: 0, seen: first, accepted: first == 0 });
                right += f64::from(u8::from(first == 0 && value == 0));
            }
            let count = corrected(&calibration(confusion.clone(), confusion), &seen).remove(0);
            let [low, high] = count.interval.unwrap();
            held += u32::from(low <= right && right <= high);
        }
        assert!(held >= 52, "{held} of 60");
    }
}
