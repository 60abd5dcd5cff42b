//! The real images that a verifier learns from, and the part of them that it keeps apart.

use std::collections::BTreeMap;

use evenset_core::{Group, MISSING, Seed};
use evenset_nn::classifier::{Head, ImageSet};

use crate::VerifyError;

/// Fewer images than this cannot be split into a part to learn from and a part to measure on.
pub(crate) const SMALLEST: usize = 8;
/// Share of each group that is held out.
pub(crate) const HELD_OUT: f64 = 0.12;
/// A group smaller than this gives nothing away: every image is needed to learn from.
const SMALLEST_SPLIT: usize = 4;
/// Groups are drawn equally often in training, but an image of a group smaller than this no more often than one of a
/// group of this size: a handful of images cannot stand for a tenth of all batches.
const SMALLEST_BALANCED: usize = 8;

/// Real training images with their attributes. Validation and test images stay out.
#[derive(Clone, Debug)]
pub struct RealImages {
    /// The images, brought to one size.
    pub images: ImageSet,
    /// The attributes with their values; the label is the first.
    pub attributes: Vec<(String, Vec<String>)>,
    /// For each image and each attribute an index into its values, or none where the value is missing.
    pub labels: Vec<Vec<Option<u32>>>,
}

impl RealImages {
    /// Checks that there is something to learn from and that rows, attributes and values fit each other.
    pub(crate) fn check(&self) -> Result<(), VerifyError> {
        if self.images.len() < SMALLEST {
            return Err(VerifyError::TooFew(self.images.len()));
        }
        let Some((first, _)) = self.attributes.first() else { return Err(VerifyError::NoAttributes) };
        if self.labels.len() != self.images.len() {
            let (images, labels) = (self.images.len(), self.labels.len());
            return Err(VerifyError::Rows { images, labels, attribute: first.clone() });
        }
        for (a, (attribute, values)) in self.attributes.iter().enumerate() {
            let fits = |row: &Vec<Option<u32>>| match row.get(a) {
                Some(value) => value.is_none_or(|value| (value as usize) < values.len()),
                None => false,
            };
            let labels = self.labels.iter().filter(|row| fits(row)).count();
            if labels != self.labels.len() {
                let images = self.images.len();
                return Err(VerifyError::Rows { images, labels, attribute: attribute.clone() });
            }
        }
        Ok(())
    }

    /// The group of an image: all its attributes, missing ones as [`MISSING`].
    pub(crate) fn group(&self, row: usize) -> Group {
        let values = self.labels.get(row).map(Vec::as_slice).unwrap_or_default();
        let pairs = self.attributes.iter().zip(values).map(|((attribute, names), value)| {
            let name = value.and_then(|value| names.get(value as usize));
            (attribute.as_str(), name.map_or(MISSING, String::as_str))
        });
        Group::new(pairs).unwrap_or_default()
    }

    /// Rows to learn from and rows held out, both in order: of each group the same share is held out.
    pub(crate) fn split(&self, seed: Seed) -> (Vec<usize>, Vec<usize>) {
        let mut groups = BTreeMap::<&[Option<u32>], Vec<usize>>::new();
        for (row, labels) in self.labels.iter().enumerate() {
            groups.entry(labels).or_default().push(row);
        }
        let (mut learn, mut held_out) = (Vec::new(), Vec::new());
        for (number, mut rows) in groups.into_values().enumerate() {
            seed.index(number as u64).shuffle(&mut rows);
            let apart = match rows.len() {
                n if n >= SMALLEST_SPLIT => (HELD_OUT * n as f64).ceil() as usize,
                _ => 0,
            };
            held_out.extend(rows.drain(..apart));
            learn.extend(rows);
        }
        if held_out.is_empty() {
            // Only tiny groups: every eighth image, whatever its group.
            held_out = learn.iter().copied().step_by(SMALLEST).collect();
            learn.retain(|row| !held_out.contains(row));
        }
        learn.sort_unstable();
        held_out.sort_unstable();
        (learn, held_out)
    }

    /// The attributes as the classifier's heads, for the images at `rows`.
    pub(crate) fn heads(&self, rows: &[usize]) -> Vec<Head> {
        let head = |(a, (name, classes)): (usize, &(String, Vec<String>))| Head {
            name: name.clone(),
            classes: classes.clone(),
            labels: rows.iter().map(|&row| self.labels[row][a]).collect(),
        };
        self.attributes.iter().enumerate().map(head).collect()
    }

    /// Weights that draw every group of `rows` equally often.
    pub(crate) fn balancing_weights(&self, rows: &[usize]) -> Vec<f64> {
        let mut sizes = BTreeMap::<&[Option<u32>], usize>::new();
        for &row in rows {
            *sizes.entry(&self.labels[row]).or_default() += 1;
        }
        let size = |row: &usize| sizes.get(self.labels[*row].as_slice()).copied().unwrap_or_default();
        rows.iter().map(|row| 1.0 / size(row).max(SMALLEST_BALANCED) as f64).collect()
    }

    /// Weights that draw every value of each of the `attributes` equally often, as far as one set of weights can.
    pub(crate) fn value_weights(&self, rows: &[usize], attributes: &[usize]) -> Vec<f64> {
        let mut weights = vec![0.0; rows.len()];
        for &a in attributes {
            let mut sizes = BTreeMap::<Option<u32>, usize>::new();
            for &row in rows {
                *sizes.entry(self.labels[row][a]).or_default() += 1;
            }
            for (weight, &row) in weights.iter_mut().zip(rows) {
                let size = sizes.get(&self.labels[row][a]).copied().unwrap_or_default();
                *weight += 1.0 / size.max(SMALLEST_BALANCED) as f64;
            }
        }
        weights
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn real(labels: Vec<Vec<Option<u32>>>) -> RealImages {
        let images = ImageSet::new(8, 8, vec![0; labels.len() * 8 * 8 * 3]).unwrap();
        let values = |names: [&str; 2]| names.map(str::to_owned).to_vec();
        let attributes = vec![("garment".into(), values(["bag", "coat"])), ("colour".into(), values(["red", "blue"]))];
        RealImages { images, attributes, labels }
    }

    #[test]
    fn the_same_share_of_every_group_is_held_out_and_no_row_is_in_both_parts() {
        let rows = (0..240).map(|i| vec![Some(u32::from(i % 2 == 0)), Some(u32::from(i >= 200))]).collect();
        let real = real(rows);
        let (learn, held_out) = real.split(Seed(1));
        assert_eq!(learn.len() + held_out.len(), 240);
        assert!(held_out.iter().all(|row| !learn.contains(row)));
        let in_group = |group: &str| held_out.iter().filter(|&&row| real.group(row).to_string() == group).count();
        assert_eq!((in_group("garment=coat & colour=red"), in_group("garment=bag & colour=blue")), (12, 3));
        assert_eq!(real.split(Seed(1)), (learn, held_out));
    }

    #[test]
    fn where_all_groups_are_tiny_some_images_are_held_out_all_the_same() {
        let real = real((0..9).map(|i| vec![Some(i % 2), (i < 5).then_some(i % 2)]).collect());
        let (learn, held_out) = real.split(Seed(1));
        assert_eq!((learn.len() + held_out.len(), held_out.is_empty()), (9, false));
        assert_eq!(real.group(8).to_string(), "garment=bag & colour=(missing)");
    }

    #[test]
    fn groups_are_drawn_equally_often_unless_they_are_tiny() {
        let row = |i: u32| vec![Some(0), Some(if i < 80 { 0 } else { 1 })];
        let real = real((0..90).map(row).chain([vec![Some(1), Some(1)]]).collect());
        let weights = real.balancing_weights(&(0..91).collect::<Vec<_>>());
        assert!((weights[..80].iter().sum::<f64>() - 1.0).abs() < 1e-9);
        assert!((weights[80..90].iter().sum::<f64>() - 1.0).abs() < 1e-9);
        assert_eq!(weights[90], 0.125);
        let weights = real.value_weights(&(0..91).collect::<Vec<_>>(), &[1]);
        assert!((weights[..80].iter().sum::<f64>() - 1.0).abs() < 1e-9);
        assert!((weights[80..].iter().sum::<f64>() - 1.0).abs() < 1e-9);
    }

    #[test]
    fn rows_that_do_not_fit_are_refused() {
        let mut wrong = real(vec![vec![Some(0), Some(0)]; 9]);
        wrong.labels[4] = vec![Some(0), Some(2)];
        assert!(wrong.check().unwrap_err().to_string().contains("8 values of `colour`"));
        assert!(matches!(real(vec![vec![Some(0), None]; 3]).check(), Err(VerifyError::TooFew(3))));
    }
}
