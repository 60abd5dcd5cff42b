//! Numbers that describe one image.

use evenset_data::Image;
use serde::{Deserialize, Serialize};

use super::pixels::Plane;

/// The statistics of one image; all are finite, also for a single pixel. Pixels are those of [`Image`]: upright, 8-bit,
/// on white.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct ImageStatistics {
    /// Width in pixels.
    pub width: u32,
    /// Height in pixels.
    pub height: u32,
    /// Size of the file.
    pub bytes: u64,
    /// Mean Rec. 709 luma, 0 (black) to 1 (white).
    pub brightness: f64,
    /// Standard deviation of luma, 0 to 0.5.
    pub contrast: f64,
    /// Variance of the Laplacian of luma (4 neighbours, within the image), 0 to 16: small for blurred images. 0 where
    /// the image has no inner pixel.
    ///
    /// J. L. Pech-Pacheco et al., "Diatom autofocusing in brightfield microscopy", ICPR (2000).
    pub sharpness: f64,
    /// Mean saturation, 0 (grey) to 1: of each pixel, (largest - smallest channel) / largest, as in HSV.
    pub saturation: f64,
}

/// One of the statistics of an image.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Statistic {
    /// Width in pixels.
    Width,
    /// Height in pixels.
    Height,
    /// Size of the file.
    Bytes,
    /// Mean luma.
    Brightness,
    /// Standard deviation of luma.
    Contrast,
    /// Variance of the Laplacian of luma.
    Sharpness,
    /// Mean saturation.
    Saturation,
}

impl Statistic {
    /// All of them, in a fixed order.
    pub const ALL: [Self; 7] =
        [Self::Width, Self::Height, Self::Bytes, Self::Brightness, Self::Contrast, Self::Sharpness, Self::Saturation];

    /// Its value for an image.
    pub fn of(self, statistics: &ImageStatistics) -> f64 {
        match self {
            Self::Width => f64::from(statistics.width),
            Self::Height => f64::from(statistics.height),
            Self::Bytes => statistics.bytes as f64,
            Self::Brightness => statistics.brightness,
            Self::Contrast => statistics.contrast,
            Self::Sharpness => statistics.sharpness,
            Self::Saturation => statistics.saturation,
        }
    }
}

impl ImageStatistics {
    /// The statistics of an image whose file has `bytes` bytes.
    pub fn of(image: &Image, bytes: u64) -> Self {
        let luma = Plane::luma(image);
        let (brightness, variance) = moments(luma.values.iter().map(|&v| f64::from(v)));
        let saturation = Plane::of(image, |pixel| {
            let (smallest, largest) = (pixel.iter().min().copied(), pixel.iter().max().copied());
            let (smallest, largest) = (f32::from(smallest.unwrap_or(0)), f32::from(largest.unwrap_or(0)));
            if largest > 0.0 { (largest - smallest) / largest } else { 0.0 }
        });
        Self {
            width: image.width,
            height: image.height,
            bytes,
            brightness: brightness.clamp(0.0, 1.0),
            contrast: variance.sqrt(),
            sharpness: moments(laplacian(&luma)).1,
            saturation: moments(saturation.values.iter().map(|&v| f64::from(v))).0,
        }
    }
}

/// Four times each inner pixel less its neighbours.
fn laplacian(luma: &Plane) -> impl Iterator<Item = f64> {
    let rows = luma.values.chunks(luma.width);
    let triples = rows.clone().zip(rows.clone().skip(1)).zip(rows.skip(2));
    triples.flat_map(|((above, row), below)| {
        let inner = row.windows(3).zip(above.iter().skip(1)).zip(below.iter().skip(1));
        inner.map(|((row, &above), &below)| match row {
            &[left, middle, right] => {
                4.0 * f64::from(middle) - f64::from(left) - f64::from(right) - f64::from(above) - f64::from(below)
            }
            _ => 0.0,
        })
    })
}

/// Mean and variance (over n) by Welford's recurrence; 0 of nothing.
fn moments(values: impl Iterator<Item = f64>) -> (f64, f64) {
    let (mut n, mut mean, mut squares) = (0.0, 0.0, 0.0);
    for value in values {
        n += 1.0;
        let off = value - mean;
        mean += off / n;
        squares += off * (value - mean);
    }
    (mean, if n > 0.0 { f64::max(squares / n, 0.0) } else { 0.0 })
}

#[cfg(test)]
mod tests {
    use evenset_data::{Format, Mode};

    use super::*;

    fn image(width: u32, rgb: Vec<u8>) -> Image {
        let height = rgb.len() as u32 / 3 / width;
        Image { width, height, mode: Mode::Rgb, bits: 8, format: Format::Png, rgb }
    }

    #[test]
    fn a_checkerboard_is_half_bright_with_full_contrast_and_very_sharp() {
        let found = ImageStatistics::of(
            &image(8, (0..64).flat_map(|i| [if (i + i / 8) % 2 == 0 { 0 } else { 255 }; 3]).collect()),
            99,
        );
        assert!((found.brightness - 0.5).abs() < 1e-6 && (found.contrast - 0.5).abs() < 1e-6, "{found:?}");
        // The Laplacian is 4 or -4 everywhere.
        assert!((found.sharpness - 16.0).abs() < 1e-4 && found.saturation == 0.0, "{found:?}");
        assert_eq!((found.width, found.height, found.bytes), (8, 8, 99));
    }

    #[test]
    fn luma_weighs_the_channels_and_saturation_is_that_of_hsv() {
        let found = ImageStatistics::of(&image(3, [[255, 0, 0], [0, 255, 0], [0, 0, 128]].concat()), 0);
        let brightness = (0.2126 + 0.7152 + 0.0722 * 128.0 / 255.0) / 3.0;
        assert!((found.brightness - brightness).abs() < 1e-6 && found.saturation == 1.0, "{found:?}");
        let found = ImageStatistics::of(&image(1, vec![100, 50, 100]), 0);
        assert!((found.saturation - 0.5).abs() < 1e-6 && found.contrast == 0.0 && found.sharpness == 0.0);
    }

    #[test]
    fn the_laplacian_of_a_slope_is_nothing_and_of_a_dot_known() {
        let slope: Vec<u8> = (0..30).flat_map(|i| [(i % 6) * 20; 3]).collect();
        assert!(ImageStatistics::of(&image(6, slope), 0).sharpness < 1e-12);
        // A white pixel in the middle of 3 x 5 black ones: the inner pixels have -1, 4, -1.
        let mut dot = vec![0; 45];
        dot[21..24].fill(255);
        let found = ImageStatistics::of(&image(5, dot), 0).sharpness;
        let (mean, squares) = (2.0 / 3.0, 18.0 / 3.0);
        assert!((found - (squares - mean * mean)).abs() < 1e-5, "{found}");
    }
}
