//! What several recognisers see together.

use evenset_nn::classifier::Prediction;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::VerifyError;

/// When recognisers have agreed on a value.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Vote {
    /// Always: the value with the highest mean probability is seen.
    #[default]
    Mean,
    /// Where more than half of the recognisers hold the same value for the likeliest.
    Majority,
    /// Where all recognisers hold the same value for the likeliest.
    All,
}

/// What recognisers see together in an attribute.
#[derive(Clone, Debug, PartialEq)]
pub struct Agreement {
    /// The mean of their probabilities, under every rule.
    pub prediction: Prediction,
    /// For each image the value that is seen, or none where the rule finds no agreement. Under [`Vote::Majority`] it can be
    /// another than the one with the highest mean, where a minority is surer.
    pub seen: Vec<Option<u32>>,
}

/// Combines the `predictions` of several recognisers for one attribute, whose classes are in one order.
///
/// Every recogniser counts alike, and with one recogniser all rules give what it sees. Of equally likely values a
/// recogniser, and a mean, choose the first. The order of the recognisers has no effect beyond rounding of the mean.
///
/// # Errors
/// [`VerifyError::Vote`] for no prediction, or predictions of different attributes, classes or images.
pub fn combine(predictions: &[&Prediction], rule: Vote) -> Result<Agreement, VerifyError> {
    let Some(first) = predictions.first() else {
        return Err(VerifyError::Vote { attribute: String::new(), reason: "there is no recogniser for it".into() });
    };
    let Prediction { name, classes, probabilities } = first;
    let fits = |other: &&Prediction| {
        (&other.name, other.classes, other.probabilities.len()) == (name, *classes, probabilities.len())
    };
    if *classes == 0 || !probabilities.len().is_multiple_of(*classes) || !predictions.iter().all(fits) {
        let reason = "its recognisers speak of different attributes, values or images".into();
        return Err(VerifyError::Vote { attribute: name.clone(), reason });
    }
    let mean = |i: usize| {
        let sum: f64 = predictions.iter().map(|of| f64::from(of.probabilities[i])).sum();
        (sum / predictions.len() as f64) as f32
    };
    let prediction = Prediction {
        name: name.clone(),
        classes: *classes,
        probabilities: (0..probabilities.len()).map(mean).collect(),
    };
    let seen = |image: usize| {
        let most = match rule {
            Vote::Mean => return Some(prediction.argmax(image).0),
            Vote::Majority => predictions.len() / 2 + 1,
            Vote::All => predictions.len(),
        };
        let mut votes = vec![0usize; *classes];
        for of in predictions {
            votes[of.argmax(image).0 as usize] += 1;
        }
        votes.iter().position(|votes| *votes >= most).map(|class| class as u32)
    };
    let seen = (0..probabilities.len() / classes).map(seen).collect();
    Ok(Agreement { prediction, seen })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn prediction(probabilities: &[f32]) -> Prediction {
        Prediction { name: "colour".into(), classes: 2, probabilities: probabilities.to_vec() }
    }

    #[test]
    fn the_rules_differ_where_recognisers_do() {
        // All agree; two of three agree against a sure one; and an even split of the first two.
        let a = prediction(&[0.9, 0.1, 0.6, 0.4]);
        let b = prediction(&[0.8, 0.2, 0.6, 0.4]);
        let c = prediction(&[0.7, 0.3, 0.0, 1.0]);
        let all = [&a, &b, &c];
        let mean = combine(&all, Vote::Mean).unwrap();
        assert_eq!(mean.seen, [Some(0), Some(1)]);
        assert!((mean.prediction.row(0)[0] - 0.8).abs() < 1e-6 && (mean.prediction.row(1)[1] - 0.6).abs() < 1e-6);
        assert_eq!(combine(&all, Vote::Majority).unwrap().seen, [Some(0), Some(0)]);
        assert_eq!(combine(&all, Vote::All).unwrap().seen, [Some(0), None]);
        assert_eq!(combine(&[&a, &c], Vote::Majority).unwrap().seen, [Some(0), None]);
        for rule in [Vote::Mean, Vote::Majority, Vote::All] {
            assert_eq!(
                combine(&[&a], rule).unwrap(),
                Agreement { prediction: a.clone(), seen: vec![Some(0), Some(0)] }
            );
        }
    }

    #[test]
    fn predictions_that_do_not_belong_together_are_refused() {
        let a = prediction(&[0.9, 0.1]);
        let other = Prediction { name: "kind".into(), ..a.clone() };
        for wrong in [&prediction(&[0.9, 0.1, 0.5, 0.5]), &other, &Prediction { classes: 1, ..a.clone() }] {
            assert!(combine(&[&a, wrong], Vote::Mean).unwrap_err().to_string().contains("colour"));
        }
        assert!(combine(&[], Vote::Mean).is_err());
        assert_eq!(combine(&[&prediction(&[])], Vote::All).unwrap().seen, []);
    }
}
