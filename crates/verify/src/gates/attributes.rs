//! `attributes`: a recogniser that learned from real images only sees what was asked for, and is sure enough of it.

use evenset_core::{Group, MISSING};

use super::{Gate, Outcome, Shown, Thresholds};
use crate::{Candidate, VerifyError};

/// The gate. Its score is the smallest probability among the requested values that it checks.
#[derive(Debug)]
pub struct Attributes {
    /// Names and values, in the order of the recogniser's heads.
    attributes: Vec<(String, Vec<String>)>,
    /// How sure it must be, attribute by attribute; none where it does not look.
    thresholds: Vec<Option<Thresholds>>,
}

/// One requested value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Wish {
    /// The attribute's place among the heads.
    pub(crate) head: usize,
    /// The value's place among the attribute's values; none where no real image has it.
    pub(crate) class: Option<usize>,
}

/// What a candidate was asked for. A missing value asks for nothing.
///
/// # Errors
/// [`VerifyError::UnknownAttribute`] for an attribute that the real images do not have.
pub(crate) fn wishes(candidate: &Candidate, attributes: &[(String, Vec<String>)]) -> Result<Vec<Wish>, VerifyError> {
    let asked = candidate.group.pairs().filter(|(_, value)| *value != MISSING);
    asked
        .map(|(attribute, value)| {
            let unknown =
                || VerifyError::UnknownAttribute { request: candidate.request_index, attribute: attribute.to_owned() };
            let head = attributes.iter().position(|(name, _)| name == attribute).ok_or_else(unknown)?;
            Ok(Wish { head, class: attributes[head].1.iter().position(|known| known == value) })
        })
        .collect()
}

impl Attributes {
    pub(crate) fn new(attributes: Vec<(String, Vec<String>)>, thresholds: Vec<Option<Thresholds>>) -> Self {
        Self { attributes, thresholds }
    }

    /// Judges the image in row `row` of `shown` by what the classifier sees in it.
    pub(crate) fn judge(&self, shown: &super::Looks, row: usize, wishes: &[Wish]) -> Outcome {
        let group = self.group(wishes);
        let mut score = 1.0f64;
        let mut reason = None;
        for Wish { head, class } in wishes {
            let Some(Some(thresholds)) = self.thresholds.get(*head) else { continue };
            let (name, values) = &self.attributes[*head];
            let value = |class: usize| values.get(class).map_or("?", String::as_str);
            let Some(wanted) = *class else {
                score = 0.0;
                reason.get_or_insert_with(|| format!("attributes: no real image has the wanted {name}"));
                continue;
            };
            let Some(prediction) = shown.heads.get(*head) else { continue };
            let given = prediction.row(row).get(wanted).copied().filter(|given| !given.is_nan()).unwrap_or(0.0);
            let (seen, probability) = prediction.argmax(row);
            let least = thresholds.of(wanted, &group).map_or(0.5, |t| t.least);
            let sure = given >= least && given > 0.0;
            score = score.min(f64::from(given));
            if seen as usize != wanted {
                reason.get_or_insert_with(|| {
                    let seen = value(seen as usize);
                    format!("attributes: {name}={} wanted, {seen} seen ({probability:.2})", value(wanted))
                });
            } else if !sure {
                reason.get_or_insert_with(|| {
                    format!("attributes: {name}={} not sure enough ({given:.4}, at least {least:.4})", value(wanted))
                });
            }
        }
        match reason {
            Some(reason) => Outcome::drop(score, reason),
            None => Outcome::keep(score),
        }
    }
}

impl Attributes {
    /// The group that wishes stand for; values that no real image has are left out.
    fn group(&self, wishes: &[Wish]) -> Group {
        let pair = |wish: &Wish| {
            let (name, values) = self.attributes.get(wish.head)?;
            Some((name.as_str(), values.get(wish.class?)?.as_str()))
        };
        Group::new(wishes.iter().filter_map(pair)).unwrap_or_default()
    }
}

impl Gate for Attributes {
    fn name(&self) -> &'static str {
        "attributes"
    }

    fn check(&self, shown: &Shown<'_>) -> Result<Vec<Outcome>, VerifyError> {
        let candidates = shown.candidates.iter().enumerate();
        candidates
            .map(|(row, candidate)| Ok(self.judge(&shown.looks, row, &wishes(candidate, &self.attributes)?)))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use evenset_nn::classifier::Prediction;

    use super::*;
    use crate::gates::{Looks, Ruling};

    #[test]
    fn what_is_no_number_is_not_sure_enough() {
        let names = |names: [&str; 2]| names.map(str::to_owned).to_vec();
        let threshold = |least| super::super::Threshold {
            least,
            calibrated: true,
            others: 0,
            false_accept: crate::Share::default(),
            recall: crate::Share::default(),
        };
        let values = vec![threshold(0.0), threshold(f32::NAN)];
        let thresholds = Thresholds { aim: None, values, groups: Vec::new() };
        let gate = Attributes::new(vec![("colour".into(), names(["red", "blue"]))], vec![Some(thresholds)]);
        let seen = |probabilities: [f32; 2]| {
            let head = Prediction { name: "colour".into(), classes: 2, probabilities: probabilities.to_vec() };
            Looks { heads: vec![head], ..Looks::default() }
        };
        let judged =
            |probabilities, class| gate.judge(&seen(probabilities), 0, &[Wish { head: 0, class: Some(class) }]);
        assert_eq!(judged([0.6, 0.4], 0), Outcome::keep(f64::from(0.6f32)));
        for (probabilities, class) in [([f32::NAN; 2], 0), ([0.0; 2], 0), ([0.4, 0.6], 1)] {
            assert!(matches!(judged(probabilities, class).ruling, Ruling::Drop(_)), "{probabilities:?}");
        }
        assert_eq!(judged([f32::NAN; 2], 0).score, Some(0.0));
    }
}
