//! Random operations on training images, as RandAugment has them (Cubuk et al. 2020, "RandAugment: Practical automated
//! data augmentation with a reduced search space"), without those that turn colours into others.

use std::borrow::Cow;

use evenset_core::Seed;
use rand::RngExt;
use serde::{Deserialize, Serialize};

/// A few operations, drawn afresh for each image, one after another.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RandAugment {
    /// How many operations; 0 leaves images as they are.
    pub operations: u32,
    /// The farthest an operation goes, from 0 (not at all) to 1: brightness, contrast and saturation change by 60 %,
    /// rotations by 30 degrees, shifts by a quarter of the side, sizes by 40 %, and half of a side is cut out.
    pub magnitude: f32,
}

impl RandAugment {
    /// Images as they are.
    pub fn none() -> Self {
        Self { operations: 0, magnitude: 0.0 }
    }

    /// Two operations of up to half the strength.
    pub fn moderate() -> Self {
        Self { operations: 2, magnitude: 0.5 }
    }

    /// An image of `[height, width, 3]` after its operations.
    pub(super) fn applied(self, pixels: Cow<'_, [u8]>, size: (usize, usize), seed: Seed) -> Cow<'_, [u8]> {
        if self.operations == 0 {
            return pixels;
        }
        let mut rng = seed.rng();
        let mut pixels = pixels.into_owned();
        for _ in 0..self.operations.min(8) {
            let operation = rng.random_range(0..9u32);
            // Both ends are drawn for every operation, so that one operation's draw does not move the next one's.
            let amount = self.magnitude.clamp(0.0, 1.0) * (2.0 * rng.random::<f32>() - 1.0);
            let corner = [rng.random::<f32>(), rng.random::<f32>()];
            pixels = match operation {
                0 => pixels,
                1 => levels(&pixels, |[r, g, b]| [r, g, b].map(|level| level * (1.0 + 0.6 * amount))),
                2 => {
                    let mean = pixels.iter().map(|&level| f32::from(level)).sum::<f32>() / pixels.len().max(1) as f32;
                    levels(&pixels, |colour| colour.map(|level| mean + (level - mean) * (1.0 + 0.6 * amount)))
                }
                3 => levels(&pixels, |colour| {
                    let grey = 0.299 * colour[0] + 0.587 * colour[1] + 0.114 * colour[2];
                    colour.map(|level| grey + (level - grey) * (1.0 + 0.6 * amount))
                }),
                4 => {
                    let (sine, cosine) = (amount * 30f32.to_radians()).sin_cos();
                    moved(&pixels, size, [cosine, sine, -sine, cosine], [0.0, 0.0])
                }
                5 => moved(&pixels, size, [1.0, 0.0, 0.0, 1.0], [amount * 0.25 * size.0 as f32, 0.0]),
                6 => moved(&pixels, size, [1.0, 0.0, 0.0, 1.0], [0.0, amount * 0.25 * size.1 as f32]),
                7 => {
                    let zoom = 1.0 / (1.0 + 0.4 * amount);
                    moved(&pixels, size, [zoom, 0.0, 0.0, zoom], [0.0, 0.0])
                }
                _ => without_square(pixels, size, 0.5 * amount.abs(), corner),
            };
        }
        Cow::Owned(pixels)
    }
}

/// Every pixel's colour changed by `change`.
fn levels(pixels: &[u8], change: impl Fn([f32; 3]) -> [f32; 3]) -> Vec<u8> {
    let colours = pixels.as_chunks::<3>().0.iter();
    colours
        .flat_map(|colour| change(colour.map(f32::from)).map(|level| level.round().clamp(0.0, 255.0) as u8))
        .collect()
}

/// The image seen through `matrix` (about its centre) and `shift` (in pixels), linear between pixels; beyond the edge
/// the edge's pixels go on.
fn moved(pixels: &[u8], (width, height): (usize, usize), matrix: [f32; 4], shift: [f32; 2]) -> Vec<u8> {
    let centre = [(width as f32 - 1.0) / 2.0, (height as f32 - 1.0) / 2.0];
    let place = |at: f32, side: usize| {
        let at = at.clamp(0.0, side as f32 - 1.0);
        let below = at.floor() as usize;
        (below, (below + 1).min(side - 1), at - at.floor())
    };
    let mut out = Vec::with_capacity(pixels.len());
    for y in 0..height {
        for x in 0..width {
            let from = [x as f32 - centre[0], y as f32 - centre[1]];
            let column = matrix[0] * from[0] + matrix[1] * from[1] + centre[0] + shift[0];
            let row = matrix[2] * from[0] + matrix[3] * from[1] + centre[1] + shift[1];
            let ((left, right, across), (upper, lower, along)) = (place(column, width), place(row, height));
            for colour in 0..3 {
                let level = |x: usize, y: usize| f32::from(pixels[3 * (y * width + x) + colour]);
                let between = |y: usize| level(left, y) * (1.0 - across) + level(right, y) * across;
                out.push((between(upper) * (1.0 - along) + between(lower) * along).round() as u8);
            }
        }
    }
    out
}

/// The image with a square of `share` of its shorter side replaced by its mean colour (DeVries and Taylor 2017,
/// "Cutout"); `corner` says where, from 0 to 1 in both directions.
fn without_square(mut pixels: Vec<u8>, (width, height): (usize, usize), share: f32, corner: [f32; 2]) -> Vec<u8> {
    let side = (share * width.min(height) as f32).round() as usize;
    let mut mean = [0f32; 3];
    for colour in pixels.as_chunks::<3>().0 {
        mean.iter_mut().zip(colour).for_each(|(mean, &level)| *mean += f32::from(level));
    }
    let mean = mean.map(|sum| (sum / (width * height).max(1) as f32).round() as u8);
    let left = (corner[0] * (width - side + 1) as f32) as usize;
    let upper = (corner[1] * (height - side + 1) as f32) as usize;
    for row in pixels.chunks_exact_mut(3 * width).skip(upper).take(side) {
        row.as_chunks_mut::<3>().0.iter_mut().skip(left).take(side).for_each(|pixel| *pixel = mean);
    }
    pixels
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_strength_an_image_stays_as_it_is_and_a_seed_repeats() {
        let mut rng = Seed(3).rng();
        let pixels: Vec<u8> = (0..9 * 8 * 3).map(|_| rng.random()).collect();
        let weak = RandAugment { operations: 8, magnitude: 0.0 };
        let strong = RandAugment::moderate();
        let mut changed = 0;
        for seed in 0..50 {
            assert_eq!(*weak.applied(Cow::Borrowed(&pixels), (9, 8), Seed(seed)), *pixels);
            let first = strong.applied(Cow::Borrowed(&pixels), (9, 8), Seed(seed));
            assert_eq!(first, strong.applied(Cow::Borrowed(&pixels), (9, 8), Seed(seed)));
            assert_eq!(first.len(), pixels.len());
            changed += usize::from(*first != *pixels);
        }
        assert!(changed > 35, "{changed}");
    }

    #[test]
    fn a_shift_by_a_whole_pixel_and_a_quarter_turn_are_exact() {
        let pixels: Vec<u8> = (0..9u8).flat_map(|i| [i; 3]).collect();
        let reds = |pixels: &[u8]| pixels.iter().step_by(3).copied().collect::<Vec<_>>();
        let shifted = moved(&pixels, (3, 3), [1.0, 0.0, 0.0, 1.0], [1.0, 0.0]);
        assert_eq!(reds(&shifted), [1, 2, 2, 4, 5, 5, 7, 8, 8]);
        let turned = moved(&pixels, (3, 3), [0.0, 1.0, -1.0, 0.0], [0.0, 0.0]);
        assert_eq!(reds(&turned), [6, 3, 0, 7, 4, 1, 8, 5, 2]);
    }

    #[test]
    fn a_square_is_cut_out_inside_the_image() {
        let pixels: Vec<u8> = (0..16 * 3).map(|i| if i < 24 { 0 } else { 100 }).collect();
        for corner in [[0.0, 0.0], [0.99, 0.99]] {
            let cut = without_square(pixels.clone(), (4, 4), 0.5, corner);
            assert_eq!(cut.iter().filter(|&&level| level == 50).count(), 12);
        }
    }
}
