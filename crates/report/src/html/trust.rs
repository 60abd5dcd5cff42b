//! How far to trust the check of attributes: its confusions, its thresholds, and counts corrected for its errors.

use minijinja::Value;
use serde::Serialize;

use super::{Folded, ratio, safe, unbroken};
use crate::ReportData;
use crate::charts::rate_bar;
use crate::data::{Calibration, CorrectedCount, Rate, Threshold, summed};
use crate::text::{count, images_interval, percent, percent_interval, plural, shown};

/// A matrix of more classes than this is shown as its most frequent confusions.
const LARGEST_MATRIX: usize = 12;

/// The verifier on one attribute.
#[derive(Serialize)]
pub struct CalibrationView {
    attribute: String,
    accuracy: String,
    images: String,
    classes: Vec<String>,
    rows: Vec<MatrixRow>,
    confusions: Vec<String>,
    /// How many accepted images truly have their value, in words.
    truly: String,
    values: Folded<ValueView>,
    has_thresholds: bool,
    has_counts: bool,
}

/// One value: how sure the classifier must be, and what that is worth.
#[derive(Serialize)]
struct ValueView {
    name: String,
    least: String,
    calibrated: bool,
    false_accept: RateView,
    recall: RateView,
    groups: String,
    accepted: String,
    truly: String,
    interval: String,
    chart: Option<Value>,
}

#[derive(Serialize)]
struct RateView {
    value: String,
    interval: String,
}

#[derive(Serialize)]
struct MatrixRow {
    name: String,
    cells: Vec<MatrixCell>,
}

#[derive(Serialize)]
struct MatrixCell {
    number: String,
    step: u64,
    diagonal: bool,
}

/// Every attribute.
pub fn trust(data: &ReportData) -> Vec<CalibrationView> {
    let corrected = |attribute: &str| -> &[CorrectedCount] {
        let all = data.checks.iter().flat_map(|checks| &checks.corrected);
        all.filter(|one| one.attribute == attribute).map(|one| one.values.as_slice()).next().unwrap_or_default()
    };
    data.calibration.iter().map(|of| calibration(of, corrected(&of.attribute))).collect()
}

/// A matrix where it is small, the most frequent confusions in words, and every value's threshold and corrected count.
fn calibration(calibration: &Calibration, corrected: &[CorrectedCount]) -> CalibrationView {
    let classes: Vec<String> = calibration.classes.iter().map(|class| shown(class)).collect();
    let rows = if classes.len() > LARGEST_MATRIX { Vec::new() } else { matrix(calibration, &classes) };
    CalibrationView {
        attribute: calibration.attribute.clone(),
        accuracy: percent(calibration.accuracy),
        images: count(calibration.images),
        confusions: confusions(calibration, &classes),
        truly: unbroken(&truly(calibration, corrected)),
        values: Folded::new(values_of(calibration, corrected), 14, 10),
        has_thresholds: !calibration.thresholds.is_empty(),
        has_counts: !corrected.is_empty(),
        classes,
        rows,
    }
}

/// Of all accepted images, how many truly have their value; empty where that is not known of every value.
fn truly(calibration: &Calibration, corrected: &[CorrectedCount]) -> String {
    let accepted: u64 = corrected.iter().map(|value| value.accepted).sum();
    let known: Option<f64> = corrected.iter().map(|value| value.corrected).sum();
    match known.filter(|_| accepted > 0) {
        Some(right) => format!(
            "{} were accepted; corrected for the errors of this check, {} of them ({}{}) truly show the {} that they are \
             recorded with.",
            plural(accepted, "image", "images"),
            count(right.round() as u64),
            percent(right / accepted as f64),
            summed(corrected).map(|ends| format!("; {}", images_interval(ends))).unwrap_or_default(),
            calibration.attribute
        ),
        None => String::new(),
    }
}

/// The values that have a threshold, then those that only have a count.
fn values_of(calibration: &Calibration, corrected: &[CorrectedCount]) -> Vec<ValueView> {
    let with = calibration.thresholds.iter().map(|threshold| {
        let counted = corrected.iter().find(|counted| counted.value == threshold.value);
        (threshold.value.as_str(), Some(threshold), counted)
    });
    let without = corrected.iter().filter(|counted| calibration.thresholds.iter().all(|t| t.value != counted.value));
    let all = with.chain(without.map(|counted| (counted.value.as_str(), None, Some(counted))));
    all.map(|(name, threshold, counted)| value(name, threshold, counted)).collect()
}

fn value(name: &str, threshold: Option<&Threshold>, counted: Option<&CorrectedCount>) -> ValueView {
    let rate = |pick: fn(&Threshold) -> Rate| {
        let rate = threshold.map(pick).filter(|rate| rate.shown > 0);
        RateView {
            value: rate.map(|rate| percent(rate.rate())).unwrap_or_default(),
            interval: rate.and_then(|rate| rate.interval).map(percent_interval).unwrap_or_default(),
        }
    };
    let images = |images: f64| count(images.round().max(0.0) as u64);
    let accepted = counted.map_or(0, |counted| counted.accepted);
    let known = counted.filter(|_| accepted > 0).and_then(|counted| Some((counted.corrected?, counted.interval)));
    let share = |images: f64| images / accepted as f64;
    ValueView {
        name: shown(name),
        least: threshold.map(|threshold| least(threshold.least)).unwrap_or_default(),
        calibrated: threshold.is_none_or(|threshold| threshold.calibrated),
        false_accept: rate(|threshold| threshold.false_accept),
        recall: rate(|threshold| threshold.recall),
        groups: threshold.map(|threshold| count(threshold.groups)).unwrap_or_default(),
        accepted: counted.map(|counted| count(counted.accepted)).unwrap_or_default(),
        truly: known.map_or_else(
            || if counted.is_some() { "not known".to_owned() } else { String::new() },
            |(right, _)| images(right),
        ),
        interval: known.and_then(|(_, interval)| interval).map(images_interval).unwrap_or_default(),
        chart: known
            .map(|(right, interval)| safe(rate_bar(share(right), interval.map(|ends| ends.map(share)), "made"))),
    }
}

/// The least probability; any will do where nothing is confused with the value.
fn least(least: f64) -> String {
    match least {
        least if least <= 0.0 => "any".to_owned(),
        least if least > 1.0 => "nothing passes".to_owned(),
        least => percent(least),
    }
}

fn matrix(calibration: &Calibration, classes: &[String]) -> Vec<MatrixRow> {
    let row = |(truth, name): (usize, &String)| {
        let counts = calibration.confusion.get(truth).map(Vec::as_slice).unwrap_or_default();
        let total: u64 = counts.iter().sum();
        let cell = |(guess, &n): (usize, &u64)| MatrixCell {
            number: if n == 0 { "·".to_owned() } else { count(n) },
            step: if n == 0 { 0 } else { ((ratio(n, total) * 7.0).ceil() as u64).clamp(1, 7) },
            diagonal: truth == guess,
        };
        MatrixRow { name: name.clone(), cells: counts.iter().take(classes.len()).enumerate().map(cell).collect() }
    };
    classes.iter().enumerate().map(row).collect()
}

/// The five most frequent confusions: `shirt taken for T-shirt (18)`.
fn confusions(calibration: &Calibration, classes: &[String]) -> Vec<String> {
    let mut pairs: Vec<(u64, &String, &String)> = Vec::new();
    for (truth, row) in classes.iter().zip(&calibration.confusion) {
        pairs.extend(
            classes.iter().zip(row).filter(|(guess, n)| *guess != truth && **n > 0).map(|(g, &n)| (n, truth, g)),
        );
    }
    pairs.sort_by_key(|&(n, _, _)| std::cmp::Reverse(n));
    pairs.iter().take(5).map(|(n, truth, guess)| format!("{truth} taken for {guess} ({})", count(*n))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ragged_or_short_matrix_is_shown_as_far_as_it_goes() {
        let of = Calibration {
            classes: vec!["a".into(), "b".into()],
            confusion: vec![vec![5, 2, 9]],
            ..Calibration::default()
        };
        let view = calibration(&of, &[]);
        assert_eq!((view.rows[0].cells.len(), view.rows[1].cells.len()), (2, 0));
        assert_eq!(view.confusions, ["a taken for b (2)"]);
    }

    #[test]
    fn corrected_counts_stand_beside_the_threshold_of_their_value() {
        let rate = |kept, shown| Rate { kept, shown, interval: Some([0.0, 0.1]) };
        let threshold = |value: &str, least| Threshold {
            value: value.into(),
            least,
            calibrated: true,
            false_accept: rate(1, 40),
            recall: rate(9, 10),
            groups: 2,
        };
        let of = Calibration {
            attribute: "colour".into(),
            thresholds: vec![threshold("red", 0.62), threshold("blue", 0.0), threshold("grey", 1.1)],
            ..Calibration::default()
        };
        let counted = |value: &str, accepted, corrected| CorrectedCount {
            value: value.into(),
            accepted,
            corrected,
            interval: Some([70.0, 80.0]),
        };
        let view = calibration(&of, &[counted("red", 80, Some(76.2)), counted("pink", 20, Some(19.0))]);
        let told: Vec<[&str; 4]> =
            view.values.shown.iter().map(|v| [&*v.name, &*v.least, &*v.truly, &*v.interval]).collect();
        assert_eq!(
            told,
            [
                ["red", "62 %", "76", "70 to 80"],
                ["blue", "any", "", ""],
                ["grey", "nothing passes", "", ""],
                ["pink", "", "19", "70 to 80"]
            ]
        );
        // The ends of both values, 70 to 80 each, added up.
        assert!(view.truly.starts_with(
            "100 images were accepted; corrected for the errors of this check, 95 of them (95\u{a0}%; 140 to 160) truly"
        ));
        let unknown = calibration(&of, &[counted("red", 80, None)]);
        assert_eq!((unknown.truly.as_str(), unknown.values.shown[0].truly.as_str()), ("", "not known"));
    }
}
