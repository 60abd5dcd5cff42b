//! What a classifier said about every test image: everything that the figures and their intervals are made of.

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::Error;

/// More images than this in one list are a mistake upstream.
const MOST_IMAGES: usize = 1 << 24;
/// Classes that two hexadecimal digits can name; more take four.
const FEW_CLASSES: usize = 1 << 8;
/// No label has more classes.
pub(crate) const MOST_CLASSES: usize = 1 << 16;

/// The classifier's view of one test image.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Prediction {
    /// The true class.
    pub label: u16,
    /// The likeliest class.
    pub predicted: u16,
    /// Its probability, 0 to 1, to the nearest 65535th.
    pub confidence: f64,
}

impl Prediction {
    /// Whether the likeliest class is the true one.
    pub fn right(&self) -> bool {
        self.label == self.predicted
    }
}

/// Predictions in the order of the test images.
///
/// Written as `IMAGES:CLASSES:DIGITS`, with hexadecimal digits for each image: its class, the predicted class (two digits
/// each up to 256 classes, otherwise four) and the confidence in 65535ths (four digits).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Predictions {
    classes: usize,
    /// Class, predicted class and confidence in 65535ths.
    rows: Vec<[u16; 3]>,
}

impl Predictions {
    /// No predictions yet, of a label with so many classes, at most 65536.
    pub fn new(classes: usize) -> Self {
        Self { classes: classes.clamp(1, MOST_CLASSES), rows: Vec::new() }
    }

    /// Appends one image; a class beyond the last counts as the last, a confidence that is no number as none.
    pub fn push(&mut self, label: u32, predicted: u32, confidence: f32) {
        let class = |class: u32| (class as usize).min(self.classes - 1) as u16;
        // A conversion to an integer keeps to its range and makes 0 of what is no number.
        self.rows.push([class(label), class(predicted), (f64::from(confidence) * 65535.0).round() as u16]);
    }

    /// How many images were tested.
    pub fn len(&self) -> usize {
        self.rows.len()
    }

    /// Whether no image was tested.
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// How many classes the label has.
    pub fn classes(&self) -> usize {
        self.classes
    }

    /// The predictions, image by image.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = Prediction> + '_ {
        self.rows.iter().map(|&[label, predicted, confidence]| Prediction {
            label,
            predicted,
            confidence: f64::from(confidence) / 65535.0,
        })
    }

    /// How many images were classified rightly.
    pub fn correct(&self) -> usize {
        self.iter().filter(Prediction::right).count()
    }

    /// Class, predicted class and confidence in 65535ths.
    pub(crate) fn rows(&self) -> &[[u16; 3]] {
        &self.rows
    }
}

impl Serialize for Predictions {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        use std::fmt::Write;
        let digits = digits_of_class(self.classes);
        let mut text = format!("{}:{}:", self.rows.len(), self.classes);
        for [label, predicted, confidence] in &self.rows {
            // Writing to a string cannot fail.
            let _ = write!(text, "{label:0digits$x}{predicted:0digits$x}{confidence:04x}");
        }
        serializer.serialize_str(&text)
    }
}

impl<'de> Deserialize<'de> for Predictions {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        parse(&text)
            .ok_or_else(|| serde::de::Error::custom(Error::Predictions(text.chars().take(40).collect::<String>())))
    }
}

fn digits_of_class(classes: usize) -> usize {
    if classes <= FEW_CLASSES { 2 } else { 4 }
}

fn parse(text: &str) -> Option<Predictions> {
    let (len, rest) = text.split_once(':')?;
    let (classes, digits) = rest.split_once(':')?;
    let (len, classes): (usize, usize) = (len.parse().ok()?, classes.parse().ok()?);
    let wide = digits_of_class(classes);
    let fits = len <= MOST_IMAGES && (1..=MOST_CLASSES).contains(&classes);
    if !fits || digits.len() != len * (2 * wide + 4) || !digits.bytes().all(|digit| digit.is_ascii_hexdigit()) {
        return None;
    }
    let number = |from: usize, to: usize| u16::from_str_radix(digits.get(from..to)?, 16).ok();
    let row = |i: usize| {
        let start = i * (2 * wide + 4);
        let row = [
            number(start, start + wide)?,
            number(start + wide, start + 2 * wide)?,
            number(start + 2 * wide, start + 2 * wide + 4)?,
        ];
        (usize::from(row[0]) < classes && usize::from(row[1]) < classes).then_some(row)
    };
    Some(Predictions { classes, rows: (0..len).map(row).collect::<Option<_>>()? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn predictions_count_and_read_back() {
        for (classes, digits) in [(3, 2), (300, 4)] {
            let mut predictions = Predictions::new(classes);
            predictions.push(2, 2, 1.0);
            predictions.push(0, 1, 0.5);
            predictions.push(1, 7000, f32::NAN);
            let json = serde_json::to_string(&predictions).unwrap();
            assert_eq!(json.len(), format!("\"3:{classes}:\"").len() + 3 * (2 * digits + 4), "{json}");
            let back: Predictions = serde_json::from_str(&json).unwrap();
            assert_eq!(back, predictions);
            assert_eq!((back.len(), back.correct()), (3, 1));
            assert!((back.iter().nth(1).unwrap().confidence - 0.5).abs() < 1e-5);
        }
        let mut predictions = Predictions::new(3);
        predictions.push(2, 1, 1.0);
        assert_eq!(serde_json::to_string(&predictions).unwrap(), r#""1:3:0201ffff""#);
    }

    #[test]
    fn damaged_predictions_are_refused() {
        for text in [
            r#""1:3:0201fff""#,
            r#""1:3:0203ffff""#,
            r#""1:3""#,
            r#""1:0:0000ffff""#,
            r#""1:3:02+1ffff""#,
            r#""99999999999999999999:3:00""#,
            r#""99999999999:3:00""#,
        ] {
            let error = serde_json::from_str::<Predictions>(text).unwrap_err().to_string();
            assert!(error.contains("is not a list of predictions"), "{error}");
        }
    }
}
