//! How far generated images lie from real ones, in a space of features.
//!
//! A distance says little by itself: it depends on the network that made the features and on the number of images. Beside
//! each stands the *floor*, the same distance between real training and real test images: a generator as good as more real
//! images reaches it, with the same number of images.

mod frechet;
mod kernel;
mod manifold;

pub use frechet::IMAGES_PER_FEATURE;
use frechet::frechet;
pub use kernel::KernelDistance;
use kernel::kernel_distance;
pub use manifold::NEIGHBOURS;
use manifold::precision_and_recall;

use evenset_core::{Group, Seed};
use evenset_nn::classifier::FeatureSet;
use nalgebra::DMatrix;
use rand::RngExt;
use serde::{Deserialize, Serialize};

use crate::Error;

/// The kernel distance, precision and recall look at so many images of a side at most, drawn by seed: their cost grows
/// with the square.
pub const MOST_IMAGES: usize = 2000;

/// The distances between two sets of images. What cannot be computed from so few images is none.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Distances {
    /// Real images on one side.
    pub real: usize,
    /// Images on the other side: generated ones, or the real test images of a floor.
    pub others: usize,
    /// The Fréchet distance between normal distributions (Heusel et al. 2017); none where a side has fewer than
    /// [`IMAGES_PER_FEATURE`] images a feature.
    pub frechet: Option<f64>,
    /// The kernel distance; none where a side has fewer than three images.
    pub kernel: Option<KernelDistance>,
    /// Share of the others that lie in the surroundings of a real image, which reach to its third nearest neighbour
    /// (Kynkäänniemi et al. 2019); none where a side has fewer than four.
    pub precision: Option<f64>,
    /// Share of the real images that lie in the surroundings of one of the others.
    pub recall: Option<f64>,
}

/// The distances of one group, or of all images.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct GroupDistances {
    /// The group; none for all images.
    pub group: Option<Group>,
    /// Real training images and generated ones; none where one side has no image.
    pub generated: Option<Distances>,
    /// Real training images and real test images; none where one side has no image.
    pub floor: Option<Distances>,
}

/// The features of a set of images, and the group of each.
#[derive(Clone, Copy, Debug)]
pub struct GroupedFeatures<'a> {
    /// One vector for each image.
    pub features: &'a FeatureSet,
    /// For each image an index into the groups.
    pub groups: &'a [u32],
}

/// The distances of all images, then of each group that has generated images.
///
/// # Errors
/// [`Error::Features`] where widths differ or a set has not one group for each vector.
pub fn distances(
    train: GroupedFeatures<'_>,
    generated: GroupedFeatures<'_>,
    test: GroupedFeatures<'_>,
    groups: &[Group],
    seed: Seed,
) -> Result<Vec<GroupDistances>, Error> {
    let width = train.features.width();
    for (part, set) in [("train", train), ("generated", generated), ("test", test)] {
        let (rows, found) = (set.features.len(), set.features.width());
        if rows != set.groups.len() || found != width {
            return Err(Error::Features { part, images: set.groups.len(), rows, width, found });
        }
    }
    let between = |real: &FeatureSet, others: &FeatureSet, seed: Seed| {
        (!real.is_empty() && !others.is_empty()).then(|| distance(real, others, seed))
    };
    let row = |group: Option<Group>, [train, generated, test]: [&FeatureSet; 3], seed: Seed| GroupDistances {
        group,
        generated: between(train, generated, seed.derive("generated")),
        floor: between(train, test, seed.derive("floor")),
    };
    let mut rows = vec![row(None, [train, generated, test].map(|set| set.features), seed)];
    for (number, group) in groups.iter().enumerate() {
        let of = |set: GroupedFeatures<'_>| {
            set.features.select((0..set.groups.len()).filter(|&image| set.groups[image] as usize == number))
        };
        let parts = [train, generated, test].map(of);
        if !parts[1].is_empty() {
            rows.push(row(Some(group.clone()), parts.each_ref(), seed.index(number as u64)));
        }
    }
    Ok(rows)
}

/// All distances between two sets of one width; neither is empty.
fn distance(real: &FeatureSet, others: &FeatureSet, seed: Seed) -> Distances {
    let few = |set: &FeatureSet, name: &str| matrix(&drawn(set, seed.derive(name)));
    let (real_few, others_few) = (few(real, "real"), few(others, "others"));
    let shares = precision_and_recall(&real_few, &others_few);
    Distances {
        real: real.len(),
        others: others.len(),
        frechet: frechet(&matrix(real), &matrix(others)),
        kernel: kernel_distance(&real_few, &others_few),
        precision: shares.map(|[precision, _]| precision),
        recall: shares.map(|[_, recall]| recall),
    }
}

/// At most [`MOST_IMAGES`] of the vectors, in their order.
fn drawn(set: &FeatureSet, seed: Seed) -> FeatureSet {
    if set.len() <= MOST_IMAGES {
        return set.clone();
    }
    let (mut rows, mut rng): (Vec<usize>, _) = ((0..set.len()).collect(), seed.rng());
    for i in 0..MOST_IMAGES {
        let other = rng.random_range(i..rows.len());
        rows.swap(i, other);
    }
    rows.truncate(MOST_IMAGES);
    rows.sort_unstable();
    set.select(rows)
}

/// The vectors as rows of a matrix.
fn matrix(set: &FeatureSet) -> DMatrix<f64> {
    DMatrix::from_row_iterator(set.len(), set.width(), set.values().iter().map(|&value| f64::from(value)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(seed: u64, rows: usize, shift: f32) -> FeatureSet {
        let values = Seed(seed).normal(rows * 4).into_iter().map(|value| value + shift).collect();
        FeatureSet::new(4, values).unwrap()
    }

    #[test]
    fn a_far_generator_lies_above_the_floor_and_groups_without_images_are_left_out() {
        let groups: Vec<Group> = ["red", "blue"].map(|colour| Group::of("colour", colour)).to_vec();
        let (train, generated, test) = (set(1, 200, 0.0), set(2, 60, 1.0), set(3, 100, 0.0));
        let halves: Vec<u32> = (0..200).map(|i| i % 2).collect();
        let of = |features, groups| GroupedFeatures { features, groups };
        let run = || {
            let (train, test) = (of(&train, &halves), of(&test, &halves[..100]));
            distances(train, of(&generated, &[1; 60]), test, &groups, Seed(5)).unwrap()
        };
        let found = run();
        assert_eq!(found, run());
        let names: Vec<Option<&Group>> = found.iter().map(|row| row.group.as_ref()).collect();
        assert_eq!(names, [None, Some(&groups[1])]);
        for row in &found {
            let (generated, floor) = (row.generated.as_ref().unwrap(), row.floor.as_ref().unwrap());
            assert!(generated.frechet.unwrap() > 2.0 && floor.frechet.unwrap() < 1.0);
            let (far, near) = (generated.kernel.unwrap(), floor.kernel.unwrap());
            assert!(far.value > 3.0 * far.standard_error, "{far:?}");
            assert!(near.value.abs() < 3.0 * near.standard_error, "{near:?}");
            assert!(generated.precision < floor.precision);
        }
        assert_eq!((found[1].generated.as_ref().unwrap().real, found[1].floor.as_ref().unwrap().others), (100, 50));
        let wrong =
            distances(of(&train, &halves), of(&generated, &[1; 59]), of(&test, &halves[..100]), &groups, Seed(5));
        assert!(wrong.unwrap_err().to_string().contains("59 generated images have 60 feature vectors"));
    }
}
