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

/// An image stretched to `width` x `height`; see [`fit`].
pub fn resize(image: &Image, width: u32, height: u32) -> Image {
    let rgb = fit(&image.rgb, image.width, image.height, width, height);
    Image { width, height, rgb, ..*image }
}

#[cfg(test)]
mod tests {
    use super::*;

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
