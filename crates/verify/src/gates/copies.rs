//! How near an image comes to known ones, by five measures that no change of a copy escapes together: its pixels, its
//! features, its perceptual hash, its middle held against theirs in every window, and the same as a part of how near it
//! comes to the real images around it.
//!
//! The last one tells a copy of an unusual image, which nothing else comes near to, from a plain image of which there are
//! many (the adaptive threshold of Carlini et al. 2023, section 4.2). The first three are a search among all known images;
//! for the others a coarse search finds a few images, of which ever fewer are looked at ever more closely.

use std::sync::Arc;

use rayon::prelude::*;

use super::Looks;
use super::looks::mirrored;
use crate::nearest::{Near, Neighbour, Points, distance};
use crate::views::{Aligner, COARSE_WIDTH, Picture, Window, coarse_windows};
use crate::{VerifyError, phash};

/// Known images that the coarse search finds.
const NEAR: usize = 128;
/// Of those, the ones that are looked at closely.
const CLOSELY: usize = 8;
/// Images whose windows are held in memory at a time.
const CHUNK: usize = 512;

/// How many measures there are.
pub(crate) const COUNT: usize = 5;
/// The measures, as reasons call them.
pub(crate) const MEASURES: [&str; COUNT] =
    ["pixels", "features", "hash bits", "aligned pixels", "part of the distance to other images"];
const PIXELS: usize = 0;
const FEATURES: usize = 1;
const HASH: usize = 2;
const ALIGNED_PIXELS: usize = 3;
const NEXT_TO_OTHERS: usize = 4;

/// By each measure how near the nearest known image is, and its row.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Closest {
    pub(crate) distances: [f32; COUNT],
    pub(crate) rows: [usize; COUNT],
}

impl Closest {
    const NONE: Self = Self { distances: [f32::INFINITY; COUNT], rows: [0; COUNT] };

    fn see(&mut self, measure: usize, distance: f32, row: usize) {
        if distance < self.distances[measure] {
            (self.distances[measure], self.rows[measure]) = (distance, row);
        }
    }

    /// The distance by pixels, root mean square over 0..=1.
    pub(crate) fn pixels(&self) -> f32 {
        self.distances[PIXELS]
    }
}

/// Images that are held against known ones.
pub(crate) struct Queries<'a> {
    looks: Looks,
    /// Thumbnails of the mirror images.
    flipped: Points,
    /// Coarse descriptions, as many for each image as there are coarse windows.
    coarse: Points,
    pixels: Vec<&'a [u8]>,
    size: (usize, usize),
    windows: Vec<Window>,
}

impl<'a> Queries<'a> {
    /// From what the images look like and their pixels, all of the same size (width, height).
    pub(crate) fn new(looks: Looks, pixels: Vec<&'a [u8]>, size: (usize, usize)) -> Self {
        let windows = coarse_windows();
        let coarse = pixels.par_iter().flat_map_iter(|image| Picture::new(image, size.0, size.1).coarse(&windows));
        let coarse = Points::new(coarse.collect(), COARSE_WIDTH);
        Self { flipped: mirrored(&looks.thumbnails), looks, coarse, pixels, size, windows }
    }

    pub(crate) fn len(&self) -> usize {
        self.pixels.len()
    }

    fn aligner(&self, image: usize) -> Aligner {
        Aligner(Picture::new(self.pixels[image], self.size.0, self.size.1))
    }
}

/// What a search found for one image, before the few nearest are looked at closely.
#[derive(Clone, Debug)]
pub(crate) struct Found {
    closest: Closest,
    /// The nearest by coarse windows, at most [`NEAR`], the nearest first.
    near: Vec<Near>,
}

impl Found {
    /// Adds one more known image.
    fn add(&mut self, other: Near) {
        let place = self.near.partition_point(|near| near.order(&other).is_lt());
        if place < NEAR {
            self.near.insert(place, other);
            self.near.truncate(NEAR);
        }
    }
}

/// Known images.
pub(crate) struct Known(Arc<Looks>);

impl Known {
    pub(crate) fn new(looks: Arc<Looks>) -> Self {
        Self(looks)
    }

    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    /// Adds the image in row `row` of `queries`.
    pub(crate) fn push(&mut self, queries: &Queries<'_>, row: usize) {
        let (looks, seen) = (Arc::make_mut(&mut self.0), &queries.looks);
        let points = [
            (&mut looks.features, &seen.features),
            (&mut looks.thumbnails, &seen.thumbnails),
            (&mut looks.middles, &seen.middles),
            (&mut looks.coarse, &seen.coarse),
        ];
        for (known, seen) in points {
            known.width = seen.width;
            known.push(seen.row(row));
        }
        looks.hashes.extend(seen.hashes.get(row));
        looks.ids.extend(seen.ids.get(row));
    }

    /// The nearest known images to each of `queries`; `own` names for each a known image that does not count: itself.
    pub(crate) fn search(&self, queries: &Queries<'_>, own: Option<&[usize]>) -> Result<Vec<Found>, VerifyError> {
        let looks = &queries.looks;
        let mut found = vec![Found { closest: Closest::NONE, near: Vec::new() }; queries.len()];
        let searches = [
            (PIXELS, self.0.thumbnails.nearest(&looks.thumbnails, own)?),
            (PIXELS, self.0.thumbnails.nearest(&queries.flipped, own)?),
            (FEATURES, self.0.features.nearest(&looks.features, own)?),
        ];
        for (measure, nearest) in searches {
            for (found, nearest) in found.iter_mut().zip(nearest) {
                nearest.into_iter().for_each(|nearest| found.closest.see(measure, nearest.distance, nearest.row));
            }
        }
        let own_of = |i: usize| own.and_then(|own| own.get(i)).copied();
        found.par_iter_mut().zip(&looks.hashes).enumerate().for_each(|(i, (found, hashes))| {
            if let Some((bits, row)) = phash::nearest(&self.0.hashes, *hashes, own_of(i)) {
                found.closest.see(HASH, bits as f32, row);
            }
        });
        let near = self.0.coarse.k_nearest_to_views(&queries.coarse, queries.windows.len(), NEAR, own)?;
        for (found, near) in found.iter_mut().zip(near) {
            found.near = near;
        }
        Ok(found)
    }

    /// Adds one known image to what was found for an image.
    pub(crate) fn see(&self, known: usize, queries: &Queries<'_>, image: usize, found: &mut Found) {
        let (looks, seen) = (&self.0, &queries.looks);
        let thumbnail = looks.thumbnails.row(known);
        found.closest.see(PIXELS, distance(seen.thumbnails.row(image), thumbnail), known);
        found.closest.see(PIXELS, distance(queries.flipped.row(image), thumbnail), known);
        found.closest.see(FEATURES, distance(seen.features.row(image), looks.features.row(known)), known);
        if let (Some(hash), Some(hashes)) = (looks.hashes.get(known), seen.hashes.get(image)) {
            let bits = phash::nearest(&[*hash], *hashes, None).map_or(f32::INFINITY, |(bits, _)| bits as f32);
            found.closest.see(HASH, bits, known);
        }
        let first = image * queries.windows.len();
        let near = |window: usize| {
            let distance = distance(queries.coarse.row(first + window), self.0.coarse.row(known));
            Near { neighbour: Neighbour { distance, row: known }, view: window }
        };
        if let Some(nearest) = (0..queries.windows.len()).map(near).min_by(Near::order) {
            found.add(nearest);
        }
    }

    /// How near the image comes, with the few nearest looked at closely. Only `among_many` known images do the other images
    /// around it say how near is near.
    pub(crate) fn finish(&self, found: &Found, queries: &Queries<'_>, image: usize, among_many: bool) -> Closest {
        let mut closest = found.closest;
        if found.near.is_empty() {
            return closest;
        }
        let aligner = queries.aligner(image);
        let roughly = |near: &Near| {
            let row = near.neighbour.row;
            let (distance, window) = aligner.roughly(self.0.coarse.row(row), queries.windows[near.view])?;
            Some((Neighbour { distance, row }, window))
        };
        let mut rough: Vec<(Neighbour, Window)> = found.near.par_iter().filter_map(roughly).collect();
        rough.sort_by(|(a, _), (b, _)| a.order(b));
        let closely = |&(Neighbour { row, .. }, window): &(Neighbour, Window)| Neighbour {
            distance: aligner.closely(self.0.middles.row(row), window),
            row,
        };
        let mut seen: Vec<Neighbour> = rough.iter().take(CLOSELY).map(closely).collect();
        seen.sort_by(Neighbour::order);
        if let [nearest, others @ ..] = &seen[..] {
            closest.see(ALIGNED_PIXELS, nearest.distance, nearest.row);
            let around = others.iter().map(|other| other.distance).sum::<f32>() / others.len() as f32;
            if among_many && around > 0.0 {
                closest.see(NEXT_TO_OTHERS, nearest.distance / around, nearest.row);
            }
        }
        closest
    }

    /// How near each image comes, whatever their number.
    pub(crate) fn closest(
        &self,
        looks: &Looks,
        pixels: &[&[u8]],
        size: (usize, usize),
        own: Option<&[usize]>,
    ) -> Result<Vec<Closest>, VerifyError> {
        let mut closest = Vec::with_capacity(pixels.len());
        for start in (0..pixels.len()).step_by(CHUNK) {
            let rows: Vec<usize> = (start..pixels.len().min(start + CHUNK)).collect();
            let queries = Queries::new(looks.select(&rows), pixels[start..start + rows.len()].to_vec(), size);
            let found = self.search(&queries, own.map(|own| &own[start..start + rows.len()]))?;
            closest.par_extend(found.par_iter().enumerate().map(|(i, found)| self.finish(found, &queries, i, true)));
        }
        Ok(closest)
    }
}
