//! What an image looks like, in a few hundred bytes: a hash to find near-duplicates, a thumbnail to confirm them, and an
//! embedding to measure diversity.

use std::f32::consts::PI;

use evenset_data::Image;
use serde::{Deserialize, Serialize};

use super::colour::{lab, light};
use super::pixels::Plane;

/// Hashes of near-duplicates differ in at most so many of 256 bits.
///
/// Of 300 coloured Fashion-MNIST images, four times as large and saved as JPEG of quality 75, 96 in 100 stay within it and
/// within [`COLOUR_DIFFERENCE`]; of the 72 million pairs among 12,000 of them 155 do. The hashes of two of them
/// differ by 70 bits in the median.
pub const HASH_DISTANCE: u32 = 8;

/// The root mean square colour difference (CIE 1976) of near-duplicates' 8 x 8 thumbnails is at most this, so that the
/// same shape in another colour is no duplicate: one area of the 64 may differ by 32, as dark blue does from black.
pub const COLOUR_DIFFERENCE: f32 = 4.0;

/// How long [`Appearance::embedding`] is where it is made of pixels.
pub const EMBEDDING_LENGTH: usize = COLOURS + 1 + CELLS * CELLS * ORIENTATIONS + 1;

const THUMBNAIL: usize = 8;
const COLOURS: usize = THUMBNAIL * THUMBNAIL * 3;
const CELLS: usize = 4;
const ORIENTATIONS: usize = 8;
const GRADIENT_SIDE: usize = 32;

/// What an image looks like.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Appearance {
    /// The difference hash: 16 x 16 bits, row after row from the lowest bit, each saying whether luma rises from one area
    /// of a 17 x 16 thumbnail to its right neighbour, by more than a fifth of the thumbnail's standard deviation and more
    /// than a grey level.
    ///
    /// N. Krawetz, "Kind of like that" (2013), with more areas, and a threshold so that the noise of flat areas turns no
    /// bits.
    pub hash: [u64; 4],
    /// The mean colours of 8 x 8 areas in CIE L*a*b*, rounded to whole units: [8, 8, 3].
    pub thumbnail: Vec<i8>,
    /// A vector of unit length. Made of pixels it has two halves of equal length: the thumbnail's colours (L* from its
    /// middle, a* and b*), and the histogram of oriented gradients of luma: 4 x 4 cells of 8 orientations, from 32 x 32
    /// areas (N. Dalal and B. Triggs, "Histograms of oriented gradients for human detection", CVPR 2005). A constant in
    /// each half keeps the directions of flat and of mid-grey images from being noise.
    pub embedding: Vec<f32>,
}

impl Appearance {
    /// The appearance of an image.
    pub fn of(image: &Image) -> Self {
        let luma = Plane::luma(image);
        let colours = colours(image);
        let mut embedding = half(colours.iter().enumerate().map(|(i, &v)| if i % 3 == 0 { v - 50.0 } else { v }), 50.0);
        embedding.extend(half(gradients(&luma).into_iter(), 0.02));
        let thumbnail = colours.iter().map(|v| v.round().clamp(-128.0, 127.0) as i8).collect();
        Self { hash: hash(&luma), thumbnail, embedding }
    }

    /// The same with an embedding of another model, scaled to unit length; unchanged where it has length 0 or a number
    /// that is not finite.
    pub fn with_embedding(self, embedding: &[f32]) -> Self {
        let norm = embedding.iter().map(|&x| f64::from(x).powi(2)).sum::<f64>().sqrt();
        if norm > 0.0 && norm.is_finite() {
            let embedding = embedding.iter().map(|&x| (f64::from(x) / norm) as f32).collect();
            return Self { embedding, ..self };
        }
        self
    }

    /// Whether the two images are near-duplicates: [`HASH_DISTANCE`] and [`COLOUR_DIFFERENCE`].
    pub fn is_near(&self, other: &Self) -> bool {
        hash_distance(&self.hash, &other.hash) <= HASH_DISTANCE
            && colour_difference(&self.thumbnail, &other.thumbnail) <= COLOUR_DIFFERENCE
    }
}

/// In how many bits two hashes differ.
pub(super) fn hash_distance(a: &[u64; 4], b: &[u64; 4]) -> u32 {
    a.iter().zip(b).map(|(a, b)| (a ^ b).count_ones()).sum()
}

/// The root mean square difference of two thumbnails' areas; infinite where they have not the same size.
pub(super) fn colour_difference(a: &[i8], b: &[i8]) -> f32 {
    if a.len() != b.len() {
        return f32::INFINITY;
    }
    let squares: i32 = a.iter().zip(b).map(|(&a, &b)| (i32::from(a) - i32::from(b)).pow(2)).sum();
    (squares as f32 / (a.len() as f32 / 3.0).max(1.0)).sqrt()
}

fn hash(luma: &Plane) -> [u64; 4] {
    const GREY_LEVEL: f32 = 1.0 / 255.0;
    let thumbnail = luma.averaged(17, 16);
    let n = thumbnail.values.len() as f32;
    let mean = thumbnail.values.iter().sum::<f32>() / n;
    let deviation = (thumbnail.values.iter().map(|v| (v - mean).powi(2)).sum::<f32>() / n).sqrt();
    let threshold = GREY_LEVEL.max(deviation / 5.0);
    let mut hash = [0; 4];
    for bit in 0..256 {
        let (x, y) = (bit % 16, bit / 16);
        let rises = thumbnail.at(x + 1, y) - thumbnail.at(x, y) > threshold;
        if let Some(word) = hash.get_mut(bit / 64) {
            *word |= u64::from(rises) << (bit % 64);
        }
    }
    hash
}

/// The mean light of 8 x 8 areas as CIE L*a*b*, [8, 8, 3].
fn colours(image: &Image) -> Vec<f32> {
    let light = light();
    let of = |sample: u8| light.get(usize::from(sample)).copied().unwrap_or(0.0);
    let averaged = |plane: Plane| plane.averaged(THUMBNAIL, THUMBNAIL).values;
    let red = averaged(Plane::of(image, |[r, _, _]| of(r)));
    let green = averaged(Plane::of(image, |[_, g, _]| of(g)));
    let blue = averaged(Plane::of(image, |[_, _, b]| of(b)));
    red.into_iter().zip(green).zip(blue).flat_map(|((r, g), b)| lab([r, g, b])).collect()
}

/// For each of 4 x 4 cells the gradients of 32 x 32 areas by orientation (without sign), each shared by the two
/// orientations it lies between; mean strength an area.
fn gradients(luma: &Plane) -> Vec<f32> {
    let areas = luma.averaged(GRADIENT_SIDE, GRADIENT_SIDE);
    let mut histogram = vec![0.0; CELLS * CELLS * ORIENTATIONS];
    for y in 0..GRADIENT_SIDE {
        for x in 0..GRADIENT_SIDE {
            let across = (areas.at(x + 1, y) - areas.at(x.saturating_sub(1), y)) / 2.0;
            let down = (areas.at(x, y + 1) - areas.at(x, y.saturating_sub(1))) / 2.0;
            let orientation = (down.atan2(across) / PI).rem_euclid(1.0) * ORIENTATIONS as f32;
            let strength = across.hypot(down) / (GRADIENT_SIDE * GRADIENT_SIDE / (CELLS * CELLS)) as f32;
            let cell = y * CELLS / GRADIENT_SIDE * CELLS + x * CELLS / GRADIENT_SIDE;
            let (lower, part) = (orientation as usize, orientation.fract());
            for (orientation, weight) in [(lower, 1.0 - part), (lower + 1, part)] {
                if let Some(bin) = histogram.get_mut(cell * ORIENTATIONS + orientation % ORIENTATIONS) {
                    *bin += strength * weight;
                }
            }
        }
    }
    histogram
}

/// Values and a constant, scaled to the length of half a unit vector.
fn half(values: impl Iterator<Item = f32>, constant: f32) -> Vec<f32> {
    let mut values: Vec<f32> = values.chain([constant]).collect();
    let norm = values.iter().map(|v| v * v).sum::<f32>().sqrt() * std::f32::consts::SQRT_2;
    values.iter_mut().for_each(|v| *v /= norm);
    values
}

#[cfg(test)]
mod tests {
    use evenset_data::{Format, Mode, resize};

    use super::*;

    fn image(width: u32, height: u32, of: impl Fn(u32, u32) -> [u8; 3]) -> Image {
        let rgb = (0..height).flat_map(|y| (0..width).map(move |x| (x, y))).flat_map(|(x, y)| of(x, y)).collect();
        Image { width, height, mode: Mode::Rgb, bits: 8, format: Format::Png, rgb }
    }

    /// Waves with three directions that `phase` moves.
    fn waves(phase: f32) -> Image {
        image(120, 90, |x, y| {
            let (x, y) = (x as f32 / 120.0, y as f32 / 90.0);
            let wave = |a: f32, b: f32| (((x * a + y * b + phase) * 6.0).sin() * 100.0 + 128.0) as u8;
            [wave(1.0, 0.3), wave(2.1, -1.7), wave(0.2, 3.0)]
        })
    }

    fn dot(a: &Appearance, b: &Appearance) -> f32 {
        a.embedding.iter().zip(&b.embedding).map(|(a, b)| a * b).sum()
    }

    #[test]
    fn another_size_and_some_noise_are_near_and_other_images_are_not() {
        let original = Appearance::of(&waves(0.0));
        let mut noisy = resize(&waves(0.0), 61, 48);
        noisy.rgb.iter_mut().enumerate().for_each(|(i, v)| *v = v.saturating_add((i * 7 % 5) as u8));
        let noisy = Appearance::of(&noisy);
        assert!(original.is_near(&noisy), "{}", hash_distance(&original.hash, &noisy.hash));
        assert!(dot(&original, &noisy) > 0.99);
        let other = Appearance::of(&waves(1.3));
        assert!(!original.is_near(&other) && hash_distance(&original.hash, &other.hash) > 60);
        assert!(dot(&original, &other) < 0.9);
    }

    #[test]
    fn the_same_shape_in_another_colour_is_no_duplicate() {
        let shirt = |colour: [u8; 3]| {
            image(64, 64, move |x, y| if (20..44).contains(&x) && (16..52).contains(&y) { colour } else { [255; 3] })
        };
        // Red and blue of about the same luma.
        let (red, blue) = (Appearance::of(&shirt([150, 30, 30])), Appearance::of(&shirt([35, 45, 200])));
        assert!(hash_distance(&red.hash, &blue.hash) <= HASH_DISTANCE);
        assert!(!red.is_near(&blue) && red.is_near(&red.clone()));
    }

    #[test]
    fn the_hash_says_where_luma_rises() {
        // Dark, half-bright and bright areas by turns: luma rises twice, then falls.
        let steps = |x: u32| [[0u8; 3], [120; 3], [240; 3]][x as usize % 3];
        let rises: u64 = (0..16).filter(|x| x % 3 != 2).map(|x| 1 << x).sum();
        let row = |word: u64| word | word << 16 | word << 32 | word << 48;
        assert_eq!(Appearance::of(&image(17, 16, |x, _| steps(x))).hash, [row(rises); 4]);
        let upper = Appearance::of(&image(17, 16, |x, y| if y < 8 { steps(x) } else { [y as u8 % 2; 3] }));
        assert_eq!(upper.hash, [row(rises), row(rises), 0, 0]);
        assert_eq!(Appearance::of(&image(17, 16, |x, _| [x as u8 % 2; 3])).hash, [0; 4], "one grey level is noise");
    }

    #[test]
    fn gradients_of_stripes_have_their_orientation() {
        let orientation = |of: fn(u32, u32) -> u32| {
            let found = gradients(&Plane::luma(&image(32, 32, |x, y| [(of(x, y) * 4) as u8; 3])));
            let mut sums = [0.0; ORIENTATIONS];
            found.iter().enumerate().for_each(|(i, v)| sums[i % ORIENTATIONS] += v);
            (0..ORIENTATIONS).max_by(|&a, &b| f32::total_cmp(&sums[a], &sums[b])).unwrap()
        };
        assert_eq!(orientation(|x, _| x), 0);
        assert_eq!(orientation(|_, y| y), ORIENTATIONS / 2);
        assert_eq!(orientation(|x, y| x + y), ORIENTATIONS / 4);
        assert_eq!(orientation(|x, y| 31 + x - y), 3 * ORIENTATIONS / 4);
    }

    #[test]
    fn every_image_has_an_embedding_of_unit_length() {
        for image in [
            image(1, 1, |_, _| [7; 3]),
            image(2, 1, |x, _| [(x * 255) as u8; 3]),
            image(50, 3, |_, _| [0; 3]),
            image(9, 9, |_, _| [119; 3]),
            image(9, 900, |_, y| [y as u8, 255, 0]),
            Image { width: 0, height: 0, rgb: Vec::new(), ..image(1, 1, |_, _| [0; 3]) },
        ] {
            let found = Appearance::of(&image);
            assert_eq!((found.embedding.len(), found.thumbnail.len()), (EMBEDDING_LENGTH, COLOURS));
            assert!((dot(&found, &found) - 1.0).abs() < 1e-5);
        }
        let brought = Appearance::of(&waves(0.0)).with_embedding(&[3.0, 4.0]);
        assert_eq!(brought.embedding, [0.6, 0.8]);
        assert_eq!(brought.clone().with_embedding(&[0.0]).with_embedding(&[f32::NAN]), brought);
    }
}
