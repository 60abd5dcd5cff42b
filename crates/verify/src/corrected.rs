//! Counts of verified images, corrected for the recogniser's errors.
//!
//! A recogniser that takes one coat in ten for a shirt miscounts both. How it errs is measured on held-out real images,
//! so the error can be taken back: what the recogniser saw in the candidates for a value, `s`, is the true values `t`
//! seen through its confusion matrix, `s = t M`, hence `t = s M^-1` (Rogan and Gladen 1978, "Estimating prevalence from
//! the results of a screening test"). Which of those passed the gate is known from the same images, and gives the share
//! of the accepted ones that truly have their value. All groups of a value count alike in both, since images are asked
//! for where groups are small (see [`BalancedTables`](crate::BalancedTables)).
//!
//! The intervals carry all three uncertainties: the matrix and the share of each of its cells that passes, from a few
//! hundred held-out images, and the candidates. All are drawn again (rows of the matrix from their Dirichlet posteriors,
//! the shares from their Beta posteriors, candidates by the bootstrap), and the middle 95 % are reported. The correction
//! assumes that the recogniser errs on generated images as on real ones.
//!
//! Where every candidate is seen as what was asked for, the inverse takes more away than there is, whatever matrix is
//! drawn, and all draws agree that nothing is wrong. But `n` held-out images that pass as a value without an error do not
//! exclude that a share of up to `1 - 0.05^(1/n)`, about `3/n`, of such images is wrong (the rule of three: Hanley and
//! Lippman-Hand 1983, "If nothing goes wrong, is everything all right?"). So no interval leaves less doubt than that.

use evenset_core::{Interrupted, Progress, Seed};
use nalgebra::DMatrix;
use rand::Rng;
use rand_distr::{Beta, Binomial, Distribution, Gamma};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use crate::AttributeCalibration;

/// How often matrix, shares and candidates are drawn again.
const DRAWS: u64 = 1000;
/// Of the draws, the share beyond either end of an interval.
const TAIL: f64 = 0.025;
/// How improbable so many images without an error must be before a share of wrong ones is excluded.
const EXCLUDED: f64 = 0.05;
/// A matrix whose smallest pivot is below this cannot be turned around.
const SINGULAR: f64 = 1e-6;
/// Attributes with more values are not corrected: a matrix takes the cube of their number each time it is drawn, and no
/// held-out part has the images to fill it.
const MOST_VALUES: usize = 256;
/// Draws depend on the counts alone.
const SEED: Seed = Seed(0x636f_7272_6563_7431);
/// Added to every count of the matrix: a confusion that was never met is still possible (Jeffreys' prior, spread over the
/// row). Added to passes and failures of a cell, too.
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
    /// never held out or two cannot be told apart, or where the attribute has more than 256 values.
    pub corrected: Option<f64>,
    /// The 95 % interval of `corrected`.
    pub interval: Option<[f64; 2]>,
}

/// The corrected counts of one attribute's values, in their order; values that nobody asked for are left out.
///
/// # Errors
/// [`Interrupted`] where an end was asked for.
pub fn corrected(
    calibration: &AttributeCalibration,
    sightings: &[Sighting],
    progress: &dyn Progress,
) -> Result<Vec<CorrectedCount>, Interrupted> {
    let questions = questions(calibration.classes.len(), sightings);
    let tables = Tables { calibration, questions: &questions };
    let shares = tables.observed();
    let draws = match shares.iter().any(Option::is_some) {
        true => tables.draws(progress)?,
        false => Vec::new(),
    };
    let count = |(number, question): (usize, &Question)| {
        let images = question.accepted as f64;
        let share = shares.get(number).copied().flatten();
        CorrectedCount {
            value: calibration.classes.get(question.wanted).cloned().unwrap_or_default(),
            accepted: question.accepted,
            corrected: share.map(|share| share * images),
            interval: share.map(|share| {
                let [low, high] = middle(&draws, number, share);
                [low.min(share * tables.least_sure(question)), high].map(|end| end * images)
            }),
        }
    };
    Ok(questions.iter().enumerate().map(count).collect())
}

/// What was seen in the candidates for one value.
struct Question {
    wanted: usize,
    /// How many were seen as each value.
    seen: Vec<u64>,
    /// Those that passed every gate.
    accepted: u64,
}

/// One question for each value that was asked for, in their order.
fn questions(classes: usize, sightings: &[Sighting]) -> Vec<Question> {
    let question = |wanted| Question { wanted, seen: vec![0; classes], accepted: 0 };
    let mut questions: Vec<Question> = (0..classes).map(question).collect();
    for &Sighting { wanted, seen, accepted } in sightings {
        let Some(question) = questions.get_mut(wanted) else { continue };
        if let Some(count) = question.seen.get_mut(seen) {
            *count += 1;
            question.accepted += u64::from(accepted);
        }
    }
    questions.retain(|question| question.seen.iter().any(|&count| count > 0));
    questions
}

/// The middle 95 % of what was drawn for a question, with `share` in it.
fn middle(draws: &[Vec<Option<f64>>], question: usize, share: f64) -> [f64; 2] {
    let mut shares: Vec<f64> = draws.iter().filter_map(|draw| draw.get(question).copied().flatten()).collect();
    shares.sort_by(f64::total_cmp);
    let at = |p: f64| shares.get((p * shares.len().saturating_sub(1) as f64).round() as usize).copied();
    [at(TAIL).unwrap_or(0.0).min(share), at(1.0 - TAIL).unwrap_or(1.0).max(share)]
}

/// What the recogniser does to images of each true value, and what is asked of it.
struct Tables<'a> {
    calibration: &'a AttributeCalibration,
    questions: &'a [Question],
}

/// One state of what is uncertain; columns are questions but in `confusion`.
struct State {
    /// `[value seen, true value]`: shares of the true value.
    confusion: DMatrix<f64>,
    /// `[true value, question]`: the share of the true value that passes as the wanted one.
    accepts: DMatrix<f64>,
    /// `[value seen, question]`: candidates.
    seen: DMatrix<f64>,
}

impl Tables<'_> {
    fn values(&self) -> usize {
        self.calibration.classes.len()
    }

    /// Images of a true value that were seen as another; of those, the ones that pass.
    fn cell(&self, truth: usize, seen: usize) -> (f64, f64) {
        let at = |table: &[Vec<f64>]| table.get(truth).and_then(|row| row.get(seen)).copied().unwrap_or(0.0);
        let tables = &self.calibration.balanced;
        (at(&tables.confusion), at(&tables.accepts))
    }

    fn total(&self, truth: usize) -> f64 {
        (0..self.values()).map(|seen| self.cell(truth, seen).0).sum()
    }

    /// The share of right images that the held-out images which pass as the value cannot tell from all of them.
    fn least_sure(&self, question: &Question) -> f64 {
        let passed: f64 = (0..self.values()).map(|truth| self.cell(truth, question.wanted).1).sum();
        EXCLUDED.powf(1.0 / passed)
    }

    /// For each question the share of the accepted images that truly has the value.
    fn observed(&self) -> Vec<Option<f64>> {
        let (values, questions) = (self.values(), self.questions);
        let totals: Vec<f64> = (0..values).map(|truth| self.total(truth)).collect();
        if values > MOST_VALUES || totals.iter().any(|&total| total <= 0.0) {
            return vec![None; questions.len()];
        }
        let state = State {
            confusion: DMatrix::from_fn(values, values, |seen, truth| self.cell(truth, seen).0 / totals[truth]),
            accepts: DMatrix::from_fn(values, questions.len(), |truth, question| {
                self.cell(truth, questions[question].wanted).1 / totals[truth]
            }),
            seen: DMatrix::from_fn(values, questions.len(), |seen, question| questions[question].seen[seen] as f64),
        };
        state.true_shares(questions)
    }

    /// The same as it might have come out with other held-out images and other candidates, again and again.
    fn draws(&self, progress: &dyn Progress) -> Result<Vec<Vec<Option<f64>>>, Interrupted> {
        let draw = |draw: u64| {
            progress.check()?;
            Ok(self.drawn(&mut SEED.index(draw).rng()).true_shares(self.questions))
        };
        (0..DRAWS).into_par_iter().map(draw).collect()
    }

    fn drawn(&self, rng: &mut impl Rng) -> State {
        let (values, questions) = (self.values(), self.questions);
        let prior = PRIOR / values.max(1) as f64;
        let mut confusion =
            DMatrix::from_fn(values, values, |seen, truth| gamma(self.cell(truth, seen).0 + prior, rng));
        for mut of_truth in confusion.column_iter_mut() {
            let sum = of_truth.sum().max(f64::MIN_POSITIVE);
            of_truth /= sum;
        }
        let accepts = DMatrix::from_fn(values, questions.len(), |truth, question| {
            let wanted = questions[question].wanted;
            let (seen, accepted) = self.cell(truth, wanted);
            confusion[(wanted, truth)] * beta(accepted + PRIOR, (seen - accepted).max(0.0) + PRIOR, rng)
        });
        let seen: Vec<f64> = questions.iter().flat_map(|question| resample(&question.seen, rng)).collect();
        State { confusion, accepts, seen: DMatrix::from_vec(values, questions.len(), seen) }
    }
}

impl State {
    /// For each question, of the images that were seen as they were and passed, the share that truly has the value.
    fn true_shares(self, questions: &[Question]) -> Vec<Option<f64>> {
        let lu = self.confusion.lu();
        let singular = lu.u().diagonal().iter().any(|pivot| pivot.abs() < SINGULAR);
        let truths = if singular { None } else { lu.solve(&self.seen) };
        let Some(truths) = truths else { return vec![None; questions.len()] };
        let share = |(number, question): (usize, &Question)| {
            // The inverse may take more away than there is.
            let passed = |truth: usize| truths[(truth, number)].max(0.0) * self.accepts[(truth, number)];
            let all: f64 = (0..truths.nrows()).map(passed).sum();
            (all > 0.0).then(|| passed(question.wanted) / all)
        };
        questions.iter().enumerate().map(share).collect()
    }
}

fn gamma(shape: f64, rng: &mut impl Rng) -> f64 {
    Gamma::new(shape, 1.0).map_or(0.0, |gamma| gamma.sample(rng))
}

fn beta(a: f64, b: f64, rng: &mut impl Rng) -> f64 {
    Beta::new(a, b).map_or(0.0, |beta| beta.sample(rng))
}

/// As many candidates drawn again from what was seen.
fn resample(seen: &[u64], rng: &mut impl Rng) -> Vec<f64> {
    let total: u64 = seen.iter().sum();
    // Those of one value after another, each time out of what is left.
    let (mut to_draw, mut left) = (total, total);
    let mut draw = |&count: &u64| {
        let share = count as f64 / left.max(1) as f64;
        let drawn = Binomial::new(to_draw, share).map_or(0, |binomial| binomial.sample(rng));
        to_draw -= drawn;
        left -= count;
        drawn as f64
    };
    seen.iter().map(&mut draw).collect()
}

#[cfg(test)]
mod tests {
    use evenset_core::Silent;
    use rand::RngExt;

    use super::*;
    use crate::{BalancedTables, View};

    /// With one group a value, so that every image counts as one.
    fn calibration(confusion: Vec<Vec<u64>>, accepts: Vec<Vec<u64>>) -> AttributeCalibration {
        let classes: Vec<String> = (0..confusion.len()).map(|i| i.to_string()).collect();
        let counts = |table: &[Vec<u64>]| -> Vec<Vec<f64>> {
            table.iter().map(|row| row.iter().map(|&count| count as f64).collect()).collect()
        };
        let balanced = BalancedTables { confusion: counts(&confusion), accepts: counts(&accepts) };
        let of_nothing = AttributeCalibration::new("digit", &classes, View::Colour, &[]);
        AttributeCalibration { confusion, accepts, balanced, ..of_nothing }
    }

    fn corrected(calibration: &AttributeCalibration, sightings: &[Sighting]) -> Vec<CorrectedCount> {
        super::corrected(calibration, sightings, &Silent).unwrap()
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
    fn where_nothing_was_ever_wrong_the_interval_is_as_wide_as_the_rule_of_three() {
        for held_out in [6u64, 60, 600] {
            let diagonal = vec![vec![held_out, 0], vec![0, held_out]];
            let count = corrected(&calibration(diagonal.clone(), diagonal), &sightings(&[(0, 0, true, 52)])).remove(0);
            let [low, high] = count.interval.unwrap();
            // A share of p of wrong ones would give n right ones with probability (1 - p)^n; that is 5 % at the end.
            assert_eq!((count.corrected, high), (Some(52.0), 52.0));
            assert!(((low / 52.0).powf(held_out as f64) - 0.05).abs() < 1e-9, "{count:?}");
        }
        let three = |n: f64| (1.0 - EXCLUDED.powf(1.0 / n)) / (3.0 / n);
        assert!((three(60.0) - 1.0).abs() < 0.03 && (three(600.0) - 1.0).abs() < 0.01);
    }

    #[test]
    fn what_cannot_be_told_apart_is_not_corrected() {
        let seen = sightings(&[(0, 0, true, 10)]);
        let alike = vec![vec![5, 5], vec![5, 5]];
        assert_eq!(corrected(&calibration(alike.clone(), alike), &seen)[0].corrected, None);
        let unmet = vec![vec![5, 0], vec![0, 0]];
        assert_eq!(corrected(&calibration(unmet.clone(), unmet), &seen)[0].corrected, None);
    }

    /// How often the interval holds the truth, of 60 times: images of two values are seen as the first with the chances
    /// `seen`, and pass then with the chances `pass`; `held_out` real images a value, 300 candidates for the first value,
    /// a share of `right` of which have it.
    fn coverage(seen: [f64; 2], pass: [f64; 2], held_out: u64, right: f64) -> u32 {
        let mut rng = Seed(3).rng();
        let mut look = move |value: usize| {
            let first = usize::from(rng.random::<f64>() >= seen[value]);
            (first, first == 0 && rng.random::<f64>() < pass[value], rng.random::<f64>())
        };
        let mut held = 0;
        for _ in 0..60 {
            let (mut confusion, mut accepts) = (vec![vec![0u64; 2]; 2], vec![vec![0u64; 2]; 2]);
            for value in 0..2 {
                for _ in 0..held_out {
                    let (first, passes, _) = look(value);
                    confusion[value][first] += 1;
                    accepts[value][first] += u64::from(passes);
                }
            }
            let (mut sightings, mut truly) = (Vec::new(), 0.0);
            for _ in 0..300 {
                let value = usize::from(look(0).2 >= right);
                let (first, passes, _) = look(value);
                sightings.push(Sighting { wanted: 0, seen: first, accepted: passes });
                truly += f64::from(u8::from(passes && value == 0));
            }
            let count = corrected(&calibration(confusion, accepts), &sightings).remove(0);
            let [low, high] = count.interval.unwrap();
            held += u32::from(low <= truly && truly <= high);
        }
        held
    }

    #[test]
    fn the_interval_holds_the_truth_about_as_often_as_it_says() {
        let held = coverage([0.85, 0.25], [1.0, 1.0], 200, 0.8);
        assert!(held >= 52, "{held} of 60");
    }

    #[test]
    fn that_few_held_out_images_say_how_many_wrong_ones_pass_is_in_the_interval() {
        // Of 40 images of the other value some 20 are seen as the first, and some three of those pass.
        let held = coverage([0.95, 0.5], [0.95, 0.15], 40, 0.5);
        assert!(held >= 52, "{held} of 60");
    }

    #[test]
    fn every_value_gets_the_count_that_it_gets_alone() {
        let confusion = vec![vec![80, 15, 5], vec![10, 85, 5], vec![2, 8, 90]];
        let accepts = vec![vec![70, 5, 1], vec![2, 80, 2], vec![0, 3, 85]];
        let calibration = calibration(confusion, accepts);
        let (first, last) = ([(0, 0, true, 50), (0, 1, false, 9)], [(2, 2, true, 30), (2, 0, false, 4)]);
        let both = corrected(&calibration, &sightings(&[first, last].concat()));
        assert_eq!((both[0].value.as_str(), both[1].value.as_str()), ("0", "2"));
        for (count, alone) in both.iter().zip([first, last]) {
            let alone = &corrected(&calibration, &sightings(&alone))[0];
            assert_eq!((count.accepted, count.corrected), (alone.accepted, alone.corrected));
            let ends = count.interval.unwrap().into_iter().zip(alone.interval.unwrap());
            assert!(ends.clone().all(|(a, b)| (a - b).abs() < 1.0), "{count:?} {alone:?}");
        }
    }

    #[test]
    fn more_values_than_can_be_measured_are_not_corrected_and_an_end_can_be_asked_for() {
        let diagonal =
            |n: usize| -> Vec<Vec<u64>> { (0..n).map(|i| (0..n).map(|j| u64::from(i == j)).collect()).collect() };
        let seen = sightings(&[(1, 1, true, 3)]);
        let many = corrected(&calibration(diagonal(257), diagonal(257)), &seen);
        assert_eq!((many[0].accepted, many[0].corrected, many[0].interval), (3, None, None));
        struct Ended;
        impl Progress for Ended {
            fn begin(&self, _task: &str, _total: u64) {}
            fn advance(&self, _steps: u64) {}
            fn note(&self, _remark: &str) {}
            fn end(&self) {}
            fn stop_requested(&self) -> bool {
                true
            }
        }
        assert!(super::corrected(&calibration(diagonal(2), diagonal(2)), &seen, &Ended).is_err());
    }
}
