//! Near-duplicates among many images.
//!
//! Two hashes that differ in at most eight bits agree in at least one of nine bands of bits: they are looked up by band,
//! so no pair is missed and few others are compared (pigeonhole; M. Norouzi, A. Punjani and D. J. Fleet, "Fast search in
//! Hamming space with multi-index hashing", CVPR 2012). A band takes every ninth bit, as adjacent bits of many images
//! agree, such as those of a white background.

use std::collections::{BTreeMap, HashMap};

use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use super::appearance::{Appearance, COLOUR_DIFFERENCE, HASH_DISTANCE, colour_difference, hash_distance};

const BANDS: usize = HASH_DISTANCE as usize + 1;

/// Which images of a dataset are near-duplicates.
#[derive(Clone, Debug)]
pub struct NearDuplicates {
    /// For each image its kind: images of a kind have the same hash and thumbnail, as copies have.
    kinds: Vec<usize>,
    /// For each kind its images, and the kinds near to it; both ascend.
    images: Vec<Vec<usize>>,
    near: Vec<Vec<usize>>,
}

/// Images that are near-duplicates of each other, or linked by others that are.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cluster {
    /// The images by their place in the list, ascending; at least two.
    pub images: Vec<usize>,
    /// The codes of the splits that they are in, ascending; more than one means that one split gives another away.
    pub splits: Vec<u32>,
}

impl NearDuplicates {
    /// Finds all pairs of near-duplicates ([`Appearance::is_near`]).
    ///
    /// Copies are compared once. The time grows with the number of pairs that agree in a band: about linear for
    /// photographs, quadratic only for images that are nearly all alike.
    pub fn find<'a>(appearances: impl IntoIterator<Item = &'a Appearance>) -> Self {
        let mut kind_of: HashMap<(&[u64; 4], &[i8]), usize> = HashMap::new();
        let (mut kinds, mut images, mut first): (Vec<usize>, Vec<Vec<usize>>, Vec<&Appearance>) = Default::default();
        for (image, appearance) in appearances.into_iter().enumerate() {
            let kind = *kind_of.entry((&appearance.hash, &appearance.thumbnail)).or_insert(images.len());
            if kind == images.len() {
                images.push(Vec::new());
                first.push(appearance);
            }
            kinds.push(kind);
            if let Some(images) = images.get_mut(kind) {
                images.push(image);
            }
        }
        let mut near = vec![Vec::new(); images.len()];
        for (a, b) in near_pairs(&first) {
            for (a, b) in [(a, b), (b, a)] {
                if let Some(near) = near.get_mut(a) {
                    near.push(b);
                }
            }
        }
        near.iter_mut().for_each(|near| near.sort_unstable());
        Self { kinds, images, near }
    }

    /// How many of `images` (places in the list, each once) have a near-duplicate among them.
    pub fn within(&self, images: &[usize]) -> u64 {
        let mut members: BTreeMap<usize, u64> = BTreeMap::new();
        for kind in images.iter().filter_map(|&image| self.kinds.get(image)) {
            *members.entry(*kind).or_default() += 1;
        }
        let is_near =
            |kind: usize| self.near.get(kind).is_some_and(|near| near.iter().any(|k| members.contains_key(k)));
        members.iter().filter(|&(&kind, &count)| count > 1 || is_near(kind)).map(|(_, &count)| count).sum()
    }

    /// The images that have a near-duplicate of their own in another split, ascending. `splits` holds the code of each
    /// image's split; an image without one is in none.
    pub fn across(&self, splits: &[u32]) -> Vec<usize> {
        let split = |image: usize| splits.get(image).copied();
        let has_other = |kind: usize, own: Option<u32>| {
            self.images.get(kind).into_iter().flatten().any(|&image| split(image).is_some_and(|it| Some(it) != own))
        };
        let crosses = |&image: &usize| {
            let Some(&kind) = self.kinds.get(image) else { return false };
            let own = split(image);
            let near = self.near.get(kind).into_iter().flatten().copied();
            own.is_some() && near.chain([kind]).any(|kind| has_other(kind, own))
        };
        (0..self.kinds.len()).filter(crosses).collect()
    }

    /// The connected groups of near-duplicates, the largest first, equal ones by their first image. `splits` holds the
    /// code of each image's split; an image without one is in none.
    pub fn clusters(&self, splits: &[u32]) -> Vec<Cluster> {
        let mut seen = vec![false; self.images.len()];
        let mut clusters = Vec::new();
        for start in 0..self.images.len() {
            let (mut images, mut left) = (Vec::new(), vec![start]);
            while let Some(kind) = left.pop() {
                if seen.get(kind) != Some(&false) {
                    continue;
                }
                seen.iter_mut().skip(kind).take(1).for_each(|seen| *seen = true);
                images.extend(self.images.get(kind).into_iter().flatten().copied());
                left.extend(self.near.get(kind).into_iter().flatten().copied());
            }
            if images.len() > 1 {
                images.sort_unstable();
                let mut splits: Vec<u32> = images.iter().filter_map(|&image| splits.get(image).copied()).collect();
                splits.sort_unstable();
                splits.dedup();
                clusters.push(Cluster { images, splits });
            }
        }
        clusters.sort_by(|a, b| b.images.len().cmp(&a.images.len()).then(a.images.first().cmp(&b.images.first())));
        clusters
    }
}

/// The pairs (smaller place first) of near-duplicates.
fn near_pairs(appearances: &[&Appearance]) -> Vec<(usize, usize)> {
    let bands: Vec<[u32; BANDS]> = appearances.par_iter().map(|a| bands(&a.hash)).collect();
    let pairs_of_band = |band: usize| {
        let key = |place: usize| bands.get(place).and_then(|bands| bands.get(band));
        let mut order: Vec<usize> = (0..bands.len()).collect();
        order.sort_unstable_by_key(|&place| (key(place), place));
        let mut pairs = Vec::new();
        for bucket in order.chunk_by(|&a, &b| key(a) == key(b)) {
            for (i, &a) in bucket.iter().enumerate() {
                let others = bucket.iter().skip(i + 1);
                pairs.extend(others.filter(|&&b| is_pair(appearances, &bands, band, a, b)).map(|&b| (a, b)));
            }
        }
        pairs
    };
    (0..BANDS).into_par_iter().flat_map_iter(pairs_of_band).collect()
}

/// Whether `a` and `b`, which agree in `band`, are near and agree in none before it, where they would be found too.
fn is_pair(appearances: &[&Appearance], bands: &[[u32; BANDS]], band: usize, a: usize, b: usize) -> bool {
    let (Some(first), Some(second)) = (appearances.get(a), appearances.get(b)) else { return false };
    let (Some(first_bands), Some(second_bands)) = (bands.get(a), bands.get(b)) else { return false };
    hash_distance(&first.hash, &second.hash) <= HASH_DISTANCE
        && first_bands.iter().zip(second_bands).take(band).all(|(a, b)| a != b)
        && colour_difference(&first.thumbnail, &second.thumbnail) <= COLOUR_DIFFERENCE
}

/// Band `b` holds the bits `b`, `b + 9`, `b + 18`, ...: 28 or 29 of them.
fn bands(hash: &[u64; 4]) -> [u32; BANDS] {
    let mut bands = [0; BANDS];
    for (place, word) in hash.iter().enumerate() {
        for bit in 0..64 {
            if let Some(band) = bands.get_mut((place * 64 + bit) % BANDS) {
                *band = *band << 1 | (word >> bit & 1) as u32;
            }
        }
    }
    bands
}

#[cfg(test)]
mod tests {
    use evenset_core::Seed;
    use rand::RngExt;

    use super::*;

    fn appearance(hash: [u64; 4], colour: i8) -> Appearance {
        Appearance { hash, thumbnail: vec![colour; 192], embedding: vec![1.0] }
    }

    /// Families of hashes within a few bits of each other, some with another colour.
    fn families(n: usize) -> Vec<Appearance> {
        let mut rng = Seed(4).rng();
        let centres: Vec<[u64; 4]> = (0..20).map(|_| rng.random()).collect();
        let mut make = |_| {
            let mut hash = centres[rng.random_range(0..centres.len())];
            for _ in 0..rng.random_range(0..8) {
                let bit = rng.random_range(0..256);
                hash[bit / 64] ^= 1 << (bit % 64);
            }
            appearance(hash, rng.random_range(0..3) * 2)
        };
        (0..n).map(&mut make).collect()
    }

    #[test]
    fn no_pair_is_missed_and_none_is_invented() {
        let appearances = families(400);
        let found = NearDuplicates::find(&appearances);
        for (i, a) in appearances.iter().enumerate() {
            for (j, b) in appearances.iter().enumerate().filter(|&(j, _)| j != i) {
                let (a_kind, b_kind) = (found.kinds[i], found.kinds[j]);
                let is_found = a_kind == b_kind || found.near[a_kind].contains(&b_kind);
                assert_eq!(is_found, a.is_near(b), "{i} {j}");
            }
        }
        assert!(found.near.iter().all(|near| near.is_sorted() && near.windows(2).all(|w| w[0] != w[1])));
    }

    #[test]
    fn images_with_a_near_duplicate_in_the_group_are_counted() {
        let appearances = families(300);
        let found = NearDuplicates::find(&appearances);
        for group in [(0..300).collect::<Vec<_>>(), (0..300).step_by(7).collect(), vec![5], vec![]] {
            let has_one = |i: usize| group.iter().any(|&j| j != i && appearances[i].is_near(&appearances[j]));
            let expected = group.iter().filter(|&&i| has_one(i)).count() as u64;
            assert_eq!(found.within(&group), expected);
        }
    }

    #[test]
    fn clusters_are_linked_images_and_name_their_splits() {
        // A chain: the ends are 12 bits apart, each is 6 from the middle. Two copies, and one alone.
        let chain = [0u64, 0x3f, 0xfff].map(|bits| appearance([bits, 0, 0, 0], 0));
        let [a, b, c] = chain;
        let copy = appearance([0, u64::MAX, 0, u64::MAX], 9);
        let alone = appearance([u64::MAX; 4], 9);
        let found = NearDuplicates::find(&[copy.clone(), a, alone, c, copy, b]).clusters(&[0, 0, 1, 0, 1, 0]);
        let expected =
            [Cluster { images: vec![1, 3, 5], splits: vec![0] }, Cluster { images: vec![0, 4], splits: vec![0, 1] }];
        assert_eq!(found, expected);
        assert!(NearDuplicates::find(&[]).clusters(&[]).is_empty());
    }

    #[test]
    fn a_hundred_thousand_copies_are_one_kind() {
        let appearances = vec![appearance([1, 2, 3, 4], 0); 100_000];
        let found = NearDuplicates::find(&appearances);
        assert_eq!(found.within(&(0..100_000).collect::<Vec<_>>()), 100_000);
        assert_eq!(found.clusters(&[]).len(), 1);
    }
}
