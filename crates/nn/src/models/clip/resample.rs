//! Images of another size, to the byte as Pillow's `Image.resize` makes them (`libImaging/Resample.c`).
//!
//! Two passes, columns then rows; each value is a sum of pixels with weights in 22 bits behind the point, rounded to a
//! byte. An image that shrinks is filtered with a kernel as wide as the pixels it swallows, so that nothing flickers.

use rayon::prelude::*;

use crate::error::{Error, Result};

/// Bits of a weight behind the point.
const BITS: u32 = 32 - 8 - 2;
/// The largest side of an image in pixels.
const LARGEST: usize = 1 << 15;

/// The kernel of a resampling.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Filter {
    /// A triangle.
    Bilinear,
    /// Keys' cubic with `a = -0.5`.
    Bicubic,
    /// A windowed sinc of three lobes.
    Lanczos,
}

impl Filter {
    /// By Pillow's number, as preprocessors' configurations name it.
    pub(super) fn numbered(number: u64) -> Option<Self> {
        match number {
            1 => Some(Self::Lanczos),
            2 => Some(Self::Bilinear),
            3 => Some(Self::Bicubic),
            _ => None,
        }
    }

    fn support(self) -> f64 {
        match self {
            Self::Bilinear => 1.0,
            Self::Bicubic => 2.0,
            Self::Lanczos => 3.0,
        }
    }

    fn at(self, x: f64) -> f64 {
        let size = x.abs();
        match self {
            Self::Bilinear if size < 1.0 => 1.0 - size,
            Self::Bicubic if size < 1.0 => (1.5 * size - 2.5) * size * size + 1.0,
            Self::Bicubic if size < 2.0 => ((size - 5.0) * size + 8.0) * size * -0.5 + 2.0,
            Self::Lanczos if (-3.0..3.0).contains(&x) => sinc(x) * sinc(x / 3.0),
            _ => 0.0,
        }
    }
}

fn sinc(x: f64) -> f64 {
    if x == 0.0 {
        return 1.0;
    }
    let x = x * std::f64::consts::PI;
    x.sin() / x
}

/// The pixels that one pixel of the result is made of.
struct Window {
    first: usize,
    weights: Vec<i64>,
}

/// One window for each pixel along a side.
fn windows(filter: Filter, from: usize, to: usize) -> Vec<Window> {
    let scale = from as f64 / to as f64;
    let stretch = scale.max(1.0);
    let support = filter.support() * stretch;
    (0..to)
        .map(|i| {
            let centre = (i as f64 + 0.5) * scale;
            let first = (centre - support + 0.5).max(0.0) as usize;
            let last = ((centre + support + 0.5) as usize).min(from);
            let weight = |x: usize| filter.at((x as f64 - centre + 0.5) * (1.0 / stretch));
            let weights: Vec<f64> = (first..last).map(weight).collect();
            let total: f64 = weights.iter().sum();
            let fixed = |weight: f64| {
                let weight = if total != 0.0 { weight / total } else { weight } * f64::from(1u32 << BITS);
                (weight + if weight < 0.0 { -0.5 } else { 0.5 }) as i64
            };
            Window { first, weights: weights.into_iter().map(fixed).collect() }
        })
        .collect()
}

fn byte(sum: i64) -> u8 {
    (sum >> BITS).clamp(0, 255) as u8
}

/// An RGB image `[height, width, 3]` at the size `to` (width, height).
///
/// # Errors
/// [`Error::Config`] for an empty or absurd size, or pixels that are not `from`'s.
pub fn resample(rgb: &[u8], from: (usize, usize), to: (usize, usize), filter: Filter) -> Result<Vec<u8>> {
    let possible = |size: usize| (1..=LARGEST).contains(&size);
    let ((width, height), (new_width, new_height)) = (from, to);
    if ![width, height, new_width, new_height].into_iter().all(possible) || rgb.len() != 3 * width * height {
        return Err(Error::Config(format!(
            "{} bytes of a {width}x{height} image cannot become {new_width}x{new_height}; sides are 1 to {LARGEST} pixels",
            rgb.len()
        )));
    }
    let mut columns = rgb.to_vec();
    if new_width != width {
        let windows = windows(filter, width, new_width);
        columns = vec![0; 3 * new_width * height];
        columns.par_chunks_exact_mut(3 * new_width).zip(rgb.par_chunks_exact(3 * width)).for_each(|(out, row)| {
            for (out, window) in out.chunks_exact_mut(3).zip(&windows) {
                let mut sums = [1i64 << (BITS - 1); 3];
                for (pixel, weight) in row[3 * window.first..].chunks_exact(3).zip(&window.weights) {
                    sums.iter_mut().zip(pixel).for_each(|(sum, value)| *sum += i64::from(*value) * weight);
                }
                out.copy_from_slice(&sums.map(byte));
            }
        });
    }
    if new_height == height {
        return Ok(columns);
    }
    let (windows, row) = (windows(filter, height, new_height), 3 * new_width);
    let mut rows = vec![0; row * new_height];
    rows.par_chunks_exact_mut(row).zip(&windows).for_each(|(out, window)| {
        let mut sums = vec![1i64 << (BITS - 1); row];
        for (from, weight) in columns[row * window.first..].chunks_exact(row).zip(&window.weights) {
            sums.iter_mut().zip(from).for_each(|(sum, value)| *sum += i64::from(*value) * weight);
        }
        out.iter_mut().zip(sums).for_each(|(out, sum)| *out = byte(sum));
    });
    Ok(rows)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_even_image_stays_even_and_the_same_size_is_the_same_image() {
        let even = vec![77; 3 * 7 * 5];
        for filter in [Filter::Bilinear, Filter::Bicubic, Filter::Lanczos] {
            for to in [(3, 2), (14, 11), (1, 1), (7, 9)] {
                let made = resample(&even, (7, 5), to, filter).unwrap();
                assert!(made.iter().all(|value| *value == 77), "{filter:?} {to:?}: {made:?}");
            }
        }
        let image: Vec<u8> = (0..3 * 7 * 5).map(|i| (i * 37 % 251) as u8).collect();
        assert_eq!(resample(&image, (7, 5), (7, 5), Filter::Bicubic).unwrap(), image);
    }

    #[test]
    fn an_impossible_size_is_an_error() {
        for (from, to) in [((7, 5), (0, 1)), ((0, 0), (1, 1)), ((7, 4), (2, 2)), ((7, 5), (1 << 20, 1))] {
            assert!(resample(&[0; 105], from, to, Filter::Bicubic).is_err());
        }
    }
}
