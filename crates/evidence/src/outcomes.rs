//! Right or wrong for every test image, one bit each: what the bootstrap needs and no more.

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::Error;

/// Outcomes in the order of the test images. Written as hexadecimal digits, eight images a byte, the first image in
/// the lowest bit.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Outcomes {
    bytes: Vec<u8>,
    /// Number of images; 0..=7 unused bits follow in the last byte.
    len: usize,
}

impl FromIterator<bool> for Outcomes {
    fn from_iter<I: IntoIterator<Item = bool>>(right: I) -> Self {
        let mut outcomes = Self::default();
        for right in right {
            if outcomes.len % 8 == 0 {
                outcomes.bytes.push(0);
            }
            if let Some(last) = outcomes.bytes.last_mut() {
                *last |= u8::from(right) << (outcomes.len % 8);
            }
            outcomes.len += 1;
        }
        outcomes
    }
}

impl Outcomes {
    /// How many images were tested.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether no image was tested.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Right or wrong, image by image.
    pub fn iter(&self) -> impl Iterator<Item = bool> + '_ {
        (0..self.len).map(|i| self.bytes.get(i / 8).is_some_and(|byte| byte >> (i % 8) & 1 == 1))
    }

    /// How many images were classified rightly.
    pub fn correct(&self) -> usize {
        self.iter().filter(|&right| right).count()
    }
}

impl Serialize for Outcomes {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let digits: String = self.bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        serializer.collect_str(&format_args!("{}:{digits}", self.len))
    }
}

impl<'de> Deserialize<'de> for Outcomes {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        parse(&text).ok_or_else(|| serde::de::Error::custom(Error::Outcomes(text.chars().take(40).collect::<String>())))
    }
}

fn parse(text: &str) -> Option<Outcomes> {
    let (len, digits) = text.split_once(':')?;
    let len: usize = len.parse().ok()?;
    if digits.len() != len.div_ceil(8).checked_mul(2)? || !digits.is_ascii() {
        return None;
    }
    let bytes = (0..digits.len() / 2)
        .map(|i| u8::from_str_radix(digits.get(2 * i..2 * i + 2)?, 16).ok())
        .collect::<Option<Vec<u8>>>()?;
    Some(Outcomes { bytes, len })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn outcomes_count_and_read_back() {
        let right: Vec<bool> = (0..19).map(|i| i % 3 == 0).collect();
        let outcomes: Outcomes = right.iter().copied().collect();
        assert_eq!((outcomes.len(), outcomes.correct()), (19, 7));
        let json = serde_json::to_string(&outcomes).unwrap();
        assert_eq!(json, r#""19:499204""#);
        let back: Outcomes = serde_json::from_str(&json).unwrap();
        assert_eq!(back.iter().collect::<Vec<_>>(), right);
    }

    #[test]
    fn damaged_outcomes_are_refused() {
        for text in [r#""19:4992""#, r#""19""#, r#""19:49920g""#, r#""99999999999999999999:00""#] {
            let error = serde_json::from_str::<Outcomes>(text).unwrap_err().to_string();
            assert!(error.contains("is not a list of outcomes"), "{error}");
        }
    }
}
