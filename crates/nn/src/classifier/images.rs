//! Images of one size in one buffer.

use crate::{Error, Result};

/// RGB images of one size in one buffer, `[images, height, width, 3]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImageSet {
    width: usize,
    height: usize,
    pixels: Vec<u8>,
}

impl ImageSet {
    /// Images from their pixels, image by image, row by row, RGB.
    ///
    /// # Errors
    /// [`Error::Config`] for an empty size or pixels that are not a whole number of images.
    pub fn new(width: usize, height: usize, pixels: Vec<u8>) -> Result<Self> {
        let whole = match width.checked_mul(height).and_then(|area| area.checked_mul(3)) {
            Some(bytes) if bytes > 0 => pixels.len().is_multiple_of(bytes),
            _ => false,
        };
        if !whole {
            let bytes = pixels.len();
            return Err(Error::Config(format!("{bytes} bytes are not a whole number of {width}x{height} RGB images")));
        }
        Ok(Self { width, height, pixels })
    }

    /// Width in pixels.
    pub fn width(&self) -> usize {
        self.width
    }

    /// Height in pixels.
    pub fn height(&self) -> usize {
        self.height
    }

    /// Number of images.
    pub fn len(&self) -> usize {
        self.pixels.len() / self.image_bytes()
    }

    /// Whether there is no image.
    pub fn is_empty(&self) -> bool {
        self.pixels.is_empty()
    }

    /// All pixels, `[images, height, width, 3]`.
    pub fn pixels(&self) -> &[u8] {
        &self.pixels
    }

    /// The pixels of one image, `[height, width, 3]`; empty beyond the last.
    pub fn image(&self, index: usize) -> &[u8] {
        let bytes = self.image_bytes();
        index.checked_mul(bytes).and_then(|from| self.pixels.get(from..from.checked_add(bytes)?)).unwrap_or_default()
    }

    /// The images one after another.
    pub fn iter(&self) -> std::slice::ChunksExact<'_, u8> {
        self.pixels.chunks_exact(self.image_bytes())
    }

    /// The images at `rows`, in that order; rows beyond the last are left out.
    pub fn select(&self, rows: impl IntoIterator<Item = usize>) -> Self {
        let pixels = rows.into_iter().flat_map(|row| self.image(row)).copied().collect();
        Self { pixels, ..*self }
    }

    /// Appends the images of `other`.
    ///
    /// # Errors
    /// [`Error::Config`] where the sizes differ.
    pub fn extend(&mut self, other: &Self) -> Result<()> {
        if (self.width, self.height) != (other.width, other.height) {
            return Err(Error::Config(format!(
                "{}x{} images cannot join {}x{} ones; bring all images to one size",
                other.width, other.height, self.width, self.height
            )));
        }
        self.pixels.extend_from_slice(&other.pixels);
        Ok(())
    }

    fn image_bytes(&self) -> usize {
        3 * self.width * self.height
    }
}

/// Mean and standard deviation of each colour over all images; never a deviation below one grey level.
pub(super) fn moments(images: &ImageSet) -> ([f32; 3], [f32; 3]) {
    let (mut sum, mut squares) = ([0u64; 3], [0u64; 3]);
    for pixel in images.pixels.chunks_exact(3) {
        for (colour, &value) in pixel.iter().enumerate() {
            sum[colour] += u64::from(value);
            squares[colour] += u64::from(value) * u64::from(value);
        }
    }
    let count = (images.pixels.len() / 3).max(1) as f64;
    let mean = sum.map(|sum| sum as f64 / count);
    let mut deviation = [0.0; 3];
    for (colour, deviation) in deviation.iter_mut().enumerate() {
        *deviation = (squares[colour] as f64 / count - mean[colour] * mean[colour]).max(1.0).sqrt() as f32;
    }
    (mean.map(|mean| mean as f32), deviation)
}
