//! Planes of numbers from pixels, and averages over areas of them.

use evenset_data::Image;

/// One number for each pixel, [height, width]; both are at least 1.
pub(super) struct Plane {
    pub(super) width: usize,
    pub(super) height: usize,
    pub(super) values: Vec<f32>,
}

impl Plane {
    /// `of` each pixel of an image; a single 0 for an image without pixels.
    pub(super) fn of(image: &Image, of: impl Fn([u8; 3]) -> f32) -> Self {
        let (width, height) = (image.width as usize, image.height as usize);
        let values: Vec<f32> = image.rgb.as_chunks().0.iter().map(|&pixel| of(pixel)).collect();
        if values.is_empty() || values.len() != width * height {
            return Self { width: 1, height: 1, values: vec![0.0] };
        }
        Self { width, height, values }
    }

    /// Rec. 709 luma, 0 to 1: the weighted sum of the channels as they are stored, not of light.
    pub(super) fn luma(image: &Image) -> Self {
        Self::of(image, |[r, g, b]| (0.2126 * f32::from(r) + 0.7152 * f32::from(g) + 0.0722 * f32::from(b)) / 255.0)
    }

    /// The value at a place; places outside are those at the edge.
    pub(super) fn at(&self, x: usize, y: usize) -> f32 {
        let (x, y) = (x.min(self.width - 1), y.min(self.height - 1));
        self.values.get(y * self.width + x).copied().unwrap_or(0.0)
    }

    /// The averages over `width` x `height` equal areas; pixels that lie in several count in each by the part that does.
    pub(super) fn averaged(&self, width: usize, height: usize) -> Self {
        let (columns, rows) = (parts(self.width, width), parts(self.height, height));
        let mut values = Vec::with_capacity(width * height);
        let mut narrow: Vec<Vec<f64>> = Vec::new();
        // Each row of pixels is averaged once; an area's rows follow one another, so few are held.
        let mut first = 0;
        for (from, row_weights) in &rows {
            while first + narrow.len() < from + row_weights.len() {
                narrow.push(self.narrowed(first + narrow.len(), &columns));
            }
            narrow.drain(..from - first);
            first = *from;
            for column in 0..width {
                let terms = narrow
                    .iter()
                    .zip(row_weights)
                    .map(|(row, weight)| row.get(column).copied().unwrap_or(0.0) * weight);
                values.push(terms.sum::<f64>() as f32);
            }
        }
        Self { width, height, values }
    }

    /// One row of pixels averaged over each part of its columns.
    fn narrowed(&self, row: usize, columns: &[(usize, Vec<f64>)]) -> Vec<f64> {
        let pixels = self.values.get(row * self.width..(row + 1) * self.width).unwrap_or(&[]);
        let average = |(from, weights): &(usize, Vec<f64>)| {
            pixels.iter().skip(*from).zip(weights).map(|(&pixel, weight)| f64::from(pixel) * weight).sum()
        };
        columns.iter().map(average).collect()
    }
}

/// For each of `parts` equal parts of `length` pixels, its first pixel and the part's share of it and the following ones;
/// the shares of a part add up to 1.
fn parts(length: usize, parts: usize) -> Vec<(usize, Vec<f64>)> {
    // In units of 1 / parts of a pixel all borders are whole numbers.
    let part = |i: usize| {
        let (from, to) = (i * length, (i + 1) * length);
        let (first, last) = (from / parts, (to - 1) / parts);
        let share = |pixel: usize| (to.min((pixel + 1) * parts) - from.max(pixel * parts)) as f64 / length as f64;
        (first, (first..=last).map(share).collect())
    };
    (0..parts).map(part).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plane(width: usize, values: &[f32]) -> Plane {
        Plane { width, height: values.len() / width, values: values.to_vec() }
    }

    #[test]
    fn areas_are_averaged_with_parts_of_pixels() {
        let found = plane(3, &[0.0, 3.0, 6.0]).averaged(2, 1);
        assert_eq!(found.values, [1.0, 5.0]);
        let found = plane(2, &[1.0, 2.0, 3.0, 4.0]).averaged(1, 1);
        assert_eq!(found.values, [2.5]);
        let found = plane(1, &[0.25]).averaged(3, 2);
        assert_eq!(found.values, [0.25; 6]);
        let found = plane(2, &[0.0, 1.0]).averaged(4, 1);
        assert_eq!(found.values, [0.0, 0.0, 1.0, 1.0]);
    }

    #[test]
    fn averages_keep_the_mean_whatever_the_sizes() {
        for (width, height) in [(1, 1), (7, 5), (17, 16), (33, 200)] {
            let values: Vec<f32> = (0..width * height).map(|i| ((i * 37) % 101) as f32).collect();
            let mean = |values: &[f32]| values.iter().sum::<f32>() / values.len() as f32;
            for (to_width, to_height) in [(1, 1), (8, 8), (17, 16), (32, 32)] {
                let found = plane(width, &values).averaged(to_width, to_height);
                assert_eq!(found.values.len(), to_width * to_height);
                assert!((mean(&found.values) - mean(&values)).abs() < 1e-3, "{width}x{height}");
            }
        }
    }
}
