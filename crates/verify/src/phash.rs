//! A perceptual hash: 64 bits that hardly change when an image is compressed, scaled, or made brighter.
//!
//! The signs of low frequencies about their median (Zauner 2010, "Implementation and Benchmarking of Perceptual Image Hash
//! Functions", section 3.2.1): brightness on a grid of 32 by 32, its discrete cosine transform, the 8 by 8 lowest
//! frequencies without those that are constant along a side.

use std::f64::consts::PI;

use crate::views::Picture;

/// Cells of the grid's side.
const GRID: usize = 32;
/// Frequencies along a side.
const LOW: usize = 8;

/// The hash of an image and that of its mirror image.
pub(crate) fn hashes(picture: &Picture) -> [u64; 2] {
    let brightness = picture.brightness(GRID);
    let mut basis = [[0.0; GRID]; LOW];
    for (k, row) in basis.iter_mut().enumerate() {
        for (x, value) in row.iter_mut().enumerate() {
            *value = (PI / GRID as f64 * (x as f64 + 0.5) * (k + 1) as f64).cos();
        }
    }
    // Along the rows, then along the columns.
    let along: Vec<[f64; LOW]> = brightness
        .chunks_exact(GRID)
        .map(|row| basis.map(|wave| row.iter().zip(wave).map(|(value, wave)| value * wave).sum()))
        .collect();
    let mut frequencies = [0.0; LOW * LOW];
    for (v, wave) in basis.iter().enumerate() {
        for u in 0..LOW {
            frequencies[v * LOW + u] = along.iter().zip(wave).map(|(row, wave)| row[u] * wave).sum();
        }
    }
    let plain = bits(&frequencies);
    // Mirroring turns the sign of waves that are odd about the middle: of frequencies 1, 3, 5, ...
    for (i, value) in frequencies.iter_mut().enumerate() {
        if (i % LOW).is_multiple_of(2) {
            *value = -*value;
        }
    }
    [plain, bits(&frequencies)]
}

fn bits(frequencies: &[f64; LOW * LOW]) -> u64 {
    let mut sorted = *frequencies;
    sorted.sort_by(f64::total_cmp);
    let median = (sorted[LOW * LOW / 2 - 1] + sorted[LOW * LOW / 2]) / 2.0;
    frequencies.iter().fold(0, |hash, &value| hash << 1 | u64::from(value > median))
}

/// Among `known` images the row of the hash nearest to either of `queries`, and in how many bits it differs; of equal ones the first.
pub(crate) fn nearest(known: &[[u64; 2]], queries: [u64; 2], own: Option<usize>) -> Option<(u32, usize)> {
    let differ = |hash: u64| queries.map(|query| (query ^ hash).count_ones()).into_iter().min().unwrap_or(u64::BITS);
    let others = known.iter().enumerate().filter(|(row, _)| Some(*row) != own);
    others.map(|(row, hashes)| (differ(hashes[0]), row)).min()
}

#[cfg(test)]
mod tests {
    use evenset_core::Seed;

    use super::*;

    fn noise(seed: u64) -> Vec<u8> {
        let coarse = Seed(seed).normal(36);
        let value = |x: usize, y: usize| 90.0 + 25.0 * coarse[y / 4 * 6 + x / 4] + (x + y) as f32;
        (0..24 * 24).flat_map(|i| [value(i % 24, i / 24).clamp(0.0, 255.0) as u8; 3]).collect()
    }

    fn of(image: &[u8]) -> [u64; 2] {
        hashes(&Picture::new(image, 24, 24))
    }

    #[test]
    fn a_mirrored_and_a_brighter_image_have_nearly_the_same_hash_and_another_image_has_not() {
        let image = noise(1);
        let mirrored: Vec<u8> =
            image.chunks_exact(72).flat_map(|row| row.chunks_exact(3).rev().flatten().copied()).collect();
        let brighter: Vec<u8> = image.iter().map(|&value| (f32::from(value) * 1.15 + 5.0) as u8).collect();
        let known = [of(&noise(2)), of(&image)];
        for copy in [&image, &mirrored, &brighter] {
            let (differ, row) = nearest(&known, of(copy), None).unwrap();
            assert!(row == 1 && differ <= 6, "{differ} bits from {row}");
        }
        assert!(nearest(&known, of(&image), Some(1)).unwrap().0 > 12);
        assert_eq!(nearest(&[], of(&image), None), None);
    }
}
