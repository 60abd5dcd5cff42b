//! From the bytes of an answered image file to pixels of the size that was asked for.

use evenset_data::{DecodeError, Limits, decode};

use super::config::ImageSize;
use crate::image::Generated;

/// Decodes an image file (PNG, JPEG or WebP; alpha on white) to `[height, width, 3]`. The error says what came instead.
pub(super) fn picture(bytes: &[u8], size: ImageSize) -> Result<Generated, String> {
    let pixels = u64::from(size.width) * u64::from(size.height);
    let limits = Limits { max_pixels: pixels, max_bytes: bytes.len() as u64 };
    let other_size = |width, height| Err(format!("an image of {width}x{height} where {size} was asked for"));
    let image = match decode(bytes, &limits) {
        Ok(image) => image,
        Err(DecodeError::TooManyPixels { width, height, .. }) => return other_size(width, height),
        Err(error) => return Err(format!("what came as an image is none: {error}")),
    };
    if (image.width, image.height) != (size.width, size.height) {
        return other_size(image.width, image.height);
    }
    Ok(Generated { width: image.width, height: image.height, channels: 3, pixels: image.rgb, finite: true })
}
