//! The images and labels that a model is trained on.

use evenset_core::{Fingerprint, Group};
use serde::{Deserialize, Serialize};

use crate::error::{DiffusionError, Result};

/// The largest height or width that is trained on.
const LARGEST_SIDE: u32 = 1024;
/// More attributes, or values of one, than this are a mistake in the job (an id column, say).
const MOST_ATTRIBUTES: usize = 256;
const MOST_VALUES: usize = 100_000;

/// One attribute and the values that a model can be asked for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AttributeVocabulary {
    /// The attribute's name.
    pub name: String,
    /// Its values; a condition is an index into them.
    pub values: Vec<String>,
}

/// Labelled images of one size.
#[derive(Clone, Debug)]
pub struct TrainingSet {
    /// Width in pixels.
    pub width: u32,
    /// Height in pixels.
    pub height: u32,
    /// 1 (grey) or 3 (RGB).
    pub channels: u32,
    /// `[images, height, width, channels]`, 0 to 255.
    pub pixels: Vec<u8>,
    /// What the images are labelled with.
    pub attributes: Vec<AttributeVocabulary>,
    /// For each image and attribute the index of its value; `None` where it is missing.
    pub conditions: Vec<Vec<Option<u32>>>,
}

impl TrainingSet {
    /// Bytes of one image.
    pub(crate) fn image_len(&self) -> usize {
        self.width as usize * self.height as usize * self.channels as usize
    }

    /// Says where sizes, pixels and conditions disagree.
    ///
    /// # Errors
    /// [`DiffusionError::TrainingSet`].
    pub fn validate(&self) -> Result<()> {
        let fail = |reason: String| Err(DiffusionError::TrainingSet(reason));
        check_shape(self.width, self.height, self.channels).or_else(fail)?;
        check_vocabulary(&self.attributes).or_else(fail)?;
        let rows = self.conditions.len();
        if rows == 0 {
            return fail("there is no image; check the dataset's filters and its train split".into());
        }
        if Some(self.pixels.len()) != rows.checked_mul(self.image_len()) {
            return fail(format!(
                "{} bytes of pixels for {rows} images of {}x{}x{}",
                self.pixels.len(),
                self.width,
                self.height,
                self.channels
            ));
        }
        for (row, condition) in self.conditions.iter().enumerate() {
            if condition.len() != self.attributes.len() {
                let attributes = self.attributes.len();
                return fail(format!("image {row} has {} conditions for {attributes} attributes", condition.len()));
            }
            for (value, attribute) in condition.iter().zip(&self.attributes) {
                if value.is_some_and(|value| value as usize >= attribute.values.len()) {
                    return fail(format!("image {row} has a value of `{}` beyond its vocabulary", attribute.name));
                }
            }
        }
        Ok(())
    }

    /// A hash of everything in the set.
    pub(crate) fn fingerprint(&self) -> Fingerprint {
        let shape = [self.width, self.height, self.channels].map(u32::to_le_bytes).concat();
        let words: Vec<&[u8]> = self
            .attributes
            .iter()
            .flat_map(|attribute| [&attribute.name].into_iter().chain(&attribute.values).map(|word| word.as_bytes()))
            .collect();
        let lengths: Vec<u8> = self.attributes.iter().flat_map(|a| (a.values.len() as u64).to_le_bytes()).collect();
        let conditions: Vec<u8> =
            self.conditions.iter().flatten().flat_map(|value| value.map_or(0, |v| v + 1).to_le_bytes()).collect();
        let parts =
            [("shape", &shape[..]), ("pixels", &self.pixels), ("lengths", &lengths), ("conditions", &conditions)];
        Fingerprint::of(parts.into_iter().chain(words.into_iter().map(|word| ("word", word))))
    }

    /// Mean of each channel and standard deviation about it, for pixels scaled to [-1, 1].
    ///
    /// The deviation is one number over all channels, and not less than 0.01: blank images have none.
    pub(crate) fn statistics(&self) -> (Vec<f64>, f64) {
        let channels = self.channels as usize;
        let mut histogram = vec![[0u64; 256]; channels];
        for pixel in self.pixels.chunks_exact(channels) {
            for (counts, &value) in histogram.iter_mut().zip(pixel) {
                counts[value as usize] += 1;
            }
        }
        let pixels = (self.pixels.len() / channels) as f64;
        let level = |value: usize| value as f64 / 127.5 - 1.0;
        let over = |counts: &[u64; 256], f: &dyn Fn(f64) -> f64| -> f64 {
            counts.iter().enumerate().map(|(value, &n)| n as f64 * f(level(value))).sum::<f64>() / pixels
        };
        let means: Vec<f64> = histogram.iter().map(|counts| over(counts, &|x| x)).collect();
        let variances = histogram.iter().zip(&means).map(|(counts, mean)| over(counts, &|x| (x - mean).powi(2)));
        let variance = variances.sum::<f64>() / channels as f64;
        (means, variance.sqrt().max(0.01))
    }
}

/// Whether images of this shape can be trained on and drawn.
pub(crate) fn check_shape(width: u32, height: u32, channels: u32) -> Result<(), String> {
    if width == 0 || height == 0 || width > LARGEST_SIDE || height > LARGEST_SIDE {
        return Err(format!("images of {width}x{height}; 1x1 to {LARGEST_SIDE}x{LARGEST_SIDE} are possible"));
    }
    match channels {
        1 | 3 => Ok(()),
        _ => Err(format!("{channels} channels; 1 (grey) and 3 (RGB) are possible")),
    }
}

/// Whether a network can have embeddings for these attributes.
pub(crate) fn check_vocabulary(attributes: &[AttributeVocabulary]) -> Result<(), String> {
    if attributes.len() > MOST_ATTRIBUTES {
        return Err(format!("{} attributes; {MOST_ATTRIBUTES} are possible", attributes.len()));
    }
    for (i, attribute) in attributes.iter().enumerate() {
        let name = &attribute.name;
        if attributes.iter().take(i).any(|earlier| earlier.name == *name) {
            return Err(format!("attribute `{name}` stands there twice"));
        }
        if attribute.values.len() > MOST_VALUES {
            return Err(format!(
                "`{name}` has {} values, {MOST_VALUES} are possible: is it an id?",
                attribute.values.len()
            ));
        }
    }
    Ok(())
}

/// The embedding rows of a group's values in the order of `attributes`; 0 where the group leaves one open.
///
/// # Errors
/// [`DiffusionError::UnknownAttribute`] and [`DiffusionError::UnknownValue`].
pub(crate) fn codes(attributes: &[AttributeVocabulary], group: &Group) -> Result<Vec<u32>> {
    for name in group.attributes() {
        if !attributes.iter().any(|attribute| attribute.name == name) {
            let known = listed(attributes.iter().map(|attribute| attribute.name.as_str()));
            return Err(DiffusionError::UnknownAttribute { attribute: name.to_owned(), known });
        }
    }
    let code = |attribute: &AttributeVocabulary| {
        let Some(value) = group.get(&attribute.name) else { return Ok(0) };
        match attribute.values.iter().position(|known| known == value) {
            Some(index) => Ok(index as u32 + 1),
            None => Err(DiffusionError::UnknownValue {
                attribute: attribute.name.clone(),
                value: value.to_owned(),
                known: listed(attribute.values.iter().map(String::as_str)),
            }),
        }
    };
    attributes.iter().map(code).collect()
}

/// At most twenty words in backquotes.
pub(crate) fn listed<'a>(words: impl ExactSizeIterator<Item = &'a str>) -> String {
    let n = words.len();
    let mut text = words.take(20).map(|word| format!("`{word}`")).collect::<Vec<_>>().join(", ");
    match n {
        0 => text.push_str("none"),
        21.. => text.push_str(&format!(" and {} more", n - 20)),
        _ => {}
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set() -> TrainingSet {
        TrainingSet {
            width: 2,
            height: 1,
            channels: 1,
            pixels: vec![0, 255, 255, 255],
            attributes: vec![AttributeVocabulary { name: "a".into(), values: vec!["x".into()] }],
            conditions: vec![vec![Some(0)], vec![None]],
        }
    }

    fn refusal(change: impl FnOnce(&mut TrainingSet)) -> String {
        let mut set = set();
        change(&mut set);
        set.validate().unwrap_err().to_string()
    }

    #[test]
    fn a_set_whose_parts_disagree_is_refused_with_the_reason() {
        assert!(set().validate().is_ok());
        assert!(refusal(|set| set.width = 0).contains("images of 0x1"));
        assert!(refusal(|set| set.height = 5000).contains("2x5000"));
        assert!(refusal(|set| set.channels = 4).contains("4 channels"));
        assert!(refusal(|set| set.pixels.truncate(3)).contains("3 bytes of pixels for 2 images"));
        assert!(refusal(|set| set.conditions.clear()).contains("no image"));
        assert!(refusal(|set| set.conditions[1].clear()).contains("image 1 has 0 conditions"));
        assert!(refusal(|set| set.conditions[0][0] = Some(1)).contains("image 0 has a value of `a`"));
        assert!(refusal(|set| set.attributes.push(set.attributes[0].clone())).contains("twice"));
    }

    #[test]
    fn statistics_are_those_of_pixels_from_minus_one_to_one() {
        let (mean, deviation) = set().statistics();
        assert!((mean[0] - 0.5).abs() < 1e-12 && (deviation - 0.75f64.sqrt()).abs() < 1e-12);
        let blank = TrainingSet { pixels: vec![7; 4], ..set() };
        assert_eq!(blank.statistics().1, 0.01);
    }

    #[test]
    fn the_fingerprint_sees_every_part() {
        let mut others = vec![set(); 4];
        others[0].pixels[0] = 1;
        others[1].conditions[1][0] = Some(0);
        others[2].attributes[0].values[0] = "y".into();
        (others[3].width, others[3].height) = (1, 2);
        for other in &others {
            assert_ne!(other.fingerprint(), set().fingerprint());
        }
        assert_eq!(set().fingerprint(), set().fingerprint());
    }

    #[test]
    fn a_group_becomes_embedding_rows_and_what_it_leaves_open_is_row_zero() {
        let word = |name: &str, values: &[&str]| AttributeVocabulary {
            name: name.into(),
            values: values.iter().map(|value| (*value).to_owned()).collect(),
        };
        let attributes = [word("garment", &["bag", "coat"]), word("colour", &["red"])];
        let code = |group: &str| codes(&attributes, &group.parse().unwrap());
        assert_eq!(code("colour=red & garment=coat").unwrap(), [2, 1]);
        assert_eq!(code("garment=bag").unwrap(), [1, 0]);
        assert_eq!(code("(all)").unwrap(), [0, 0]);
        let error = code("garment=hat").unwrap_err().to_string();
        assert!(error.contains("`garment=hat`") && error.contains("`bag`, `coat`"), "{error}");
        let error = code("size=big").unwrap_err().to_string();
        assert!(error.contains("`size`") && error.contains("`garment`, `colour`"), "{error}");
    }
}
