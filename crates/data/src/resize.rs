//! Bringing images to the size that a model wants.

use image::imageops::{self, FilterType};
use image::{ImageBuffer, Rgb};

use crate::decode::Image;

/// Pixels [height, width, 3] stretched to [to_height, to_width, 3].
///
/// The triangle filter: bilinear where the image grows, and where it shrinks an average over all pixels that a target
/// pixel covers, so fine patterns do not turn into moiré.
///
/// # Panics
/// Where `rgb` is not `width * height * 3` bytes.
pub fn fit(rgb: &[u8], width: u32, height: u32, to_width: u32, to_height: u32) -> Vec<u8> {
    assert_eq!(rgb.len(), width as usize * height as usize * 3, "{width} x {height} pixels of three bytes");
    if (width, height) == (to_width, to_height) {
        return rgb.to_vec();
    }
    let Some(image) = ImageBuffer::<Rgb<u8>, &[u8]>::from_raw(width, height, rgb) else {
        return Vec::new(); // the length was checked above
    };
    imageops::resize(&image, to_width, to_height, FilterType::Triangle).into_raw()
}

/// [`fit`] of the largest part in the middle of `rgb` that has the target's shape: nothing is stretched.
///
/// # Panics
/// As [`fit`].
pub fn cover(rgb: &[u8], width: u32, height: u32, to_width: u32, to_height: u32) -> Vec<u8> {
    let scaled = |side: u32, by: u32, of: u32| {
        ((u64::from(side) * u64::from(by) + u64::from(of) / 2) / u64::from(of.max(1))).clamp(1, u64::from(u32::MAX))
            as u32
    };
    let (part_width, part_height) =
        (width.min(scaled(height, to_width, to_height)), height.min(scaled(width, to_height, to_width)));
    let (left, top) = ((width - part_width) as usize / 2, (height - part_height) as usize / 2);
    let line = |y: usize| {
        let start = (y * width as usize + left) * 3;
        rgb[start..start + part_width as usize * 3].iter().copied()
    };
    assert_eq!(rgb.len(), width as usize * height as usize * 3, "{width} x {height} pixels of three bytes");
    let part: Vec<u8> = (top..top + part_height as usize).flat_map(line).collect();
    fit(&part, part_width, part_height, to_width, to_height)
}

/// An image stretched to `width` x `height`; see [`fit`].
pub fn resize(image: &Image, width: u32, height: u32) -> Image {
    let rgb = fit(&image.rgb, image.width, image.height, width, height);
    Image { width, height, rgb, ..*image }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn covering_cuts_the_middle_out_and_stretches_nothing() {
        // Columns 0, 1, 2, 3 of two rows; the middle two are square.
        let wide: Vec<u8> = (0..8).flat_map(|i| [(i % 4) as u8; 3]).collect();
        let square = cover(&wide, 4, 2, 2, 2);
        assert_eq!(square, [1, 1, 1, 2, 2, 2, 1, 1, 1, 2, 2, 2]);
        let tall: Vec<u8> = (0..3).flat_map(|i| [i as u8; 3]).collect();
        assert_eq!(cover(&tall, 1, 3, 2, 2), vec![1; 12]);
        assert_eq!(cover(&wide, 4, 2, 4, 2), wide);
        assert_eq!(cover(&wide, 4, 2, 1, 100).len(), 300);
    }

    #[test]
    fn shrinking_averages_and_growing_keeps_flat_areas_flat() {
        let checkered: Vec<u8> = (0..8 * 8).flat_map(|i| [if (i + i / 8) % 2 == 0 { 0 } else { 200 }; 3]).collect();
        let half = fit(&checkered, 8, 8, 4, 4);
        assert_eq!(half.len(), 4 * 4 * 3);
        assert!(half.iter().all(|&v| (90..=110).contains(&v)), "{half:?}");
        assert_eq!(fit(&[7; 12], 2, 2, 5, 3), vec![7; 45]);
    }

    #[test]
    fn an_image_of_the_right_size_stays_as_it_is() {
        let pixels: Vec<u8> = (0..27).collect();
        assert_eq!(fit(&pixels, 3, 3, 3, 3), pixels);
    }
}
