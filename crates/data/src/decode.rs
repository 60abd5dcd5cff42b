//! From the bytes of an image file to 8-bit RGB pixels, with a clear reason where that fails.

use std::io::{Cursor, ErrorKind};

use image::codecs::{jpeg::JpegDecoder, png::PngDecoder, webp::WebPDecoder};
use image::{DynamicImage, ImageDecoder, ImageError};
use serde::{Deserialize, Serialize};

use crate::error::DecodeError;
use crate::guard::without_panic;
use crate::header::{Format, header};
use crate::jpeg;

/// How large an image may be. Both are checked before anything is allocated for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Limits {
    /// Width times height.
    pub max_pixels: u64,
    /// Size of the file.
    pub max_bytes: u64,
}

impl Default for Limits {
    /// 64 megapixels in a file of 256 MiB.
    fn default() -> Self {
        Self { max_pixels: 64_000_000, max_bytes: 256 << 20 }
    }
}

/// The channels that an image file holds. A palette counts as the colours in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Mode {
    /// Grey.
    L,
    /// Grey with alpha.
    La,
    /// Red, green, blue.
    Rgb,
    /// Red, green, blue, alpha.
    Rgba,
}

impl Mode {
    /// The name that the Python imaging library uses: `L`, `LA`, `RGB`, `RGBA`.
    pub fn name(self) -> &'static str {
        match self {
            Self::L => "L",
            Self::La => "LA",
            Self::Rgb => "RGB",
            Self::Rgba => "RGBA",
        }
    }
}

/// A decoded image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Image {
    /// Width in pixels, upright.
    pub width: u32,
    /// Height in pixels, upright.
    pub height: u32,
    /// The channels in the file.
    pub mode: Mode,
    /// Bits of one sample in the file: 1, 2, 4, 8 or 16.
    pub bits: u8,
    /// The file's format.
    pub format: Format,
    /// The pixels: [height, width, 3], 8-bit, alpha composited on white.
    pub rgb: Vec<u8>,
}

/// Decodes a PNG, JPEG or WebP file.
///
/// Grey becomes three equal channels, alpha is composited on white, and 16-bit samples `v` become `(v + 128) / 257`
/// (255 x 257 = 65,535, so this rounds exactly). The pixels are upright: an Exif orientation is applied to them; the
/// file's bytes stay as they are. Colour profiles are not applied. Of an animation the first frame is decoded.
///
/// # Errors
/// [`DecodeError`] with the reason. A JPEG that ends before its end-of-image marker is refused although decoders would
/// fill the rest with grey.
pub fn decode(bytes: &[u8], limits: &Limits) -> Result<Image, DecodeError> {
    if bytes.len() as u64 > limits.max_bytes {
        return Err(DecodeError::TooManyBytes { bytes: bytes.len() as u64, max_bytes: limits.max_bytes });
    }
    let header = header(bytes)?;
    if u64::from(header.width) * u64::from(header.height) > limits.max_pixels {
        let (width, height, max_pixels) = (header.width, header.height, limits.max_pixels);
        return Err(DecodeError::TooManyPixels { width, height, max_pixels });
    }
    if header.format == Format::Jpeg {
        jpeg::check_complete(bytes)?;
    }
    let decoded = without_panic(|| decode_as(header.format, bytes, limits)).map_err(DecodeError::Damaged)?;
    let decoded = decoded.map_err(reason)?;
    let (mode, rgb) = to_rgb(&decoded)?;
    Ok(Image { width: decoded.width(), height: decoded.height(), mode, bits: header.bits, format: header.format, rgb })
}

fn decode_as(format: Format, bytes: &[u8], limits: &Limits) -> Result<DynamicImage, ImageError> {
    let file = Cursor::new(bytes);
    match format {
        Format::Png => pixels(PngDecoder::with_limits(file, allocation(limits))?, limits),
        Format::Jpeg => pixels(JpegDecoder::new(file)?, limits),
        Format::WebP => pixels(WebPDecoder::new(file)?, limits),
    }
}

/// Sixteen bytes a pixel hold any image and a decoder's working copy of it.
fn allocation(limits: &Limits) -> image::Limits {
    let mut allocation = image::Limits::default();
    allocation.max_alloc = Some(limits.max_pixels.saturating_mul(16).saturating_add(1 << 20));
    allocation
}

fn pixels(mut decoder: impl ImageDecoder, limits: &Limits) -> Result<DynamicImage, ImageError> {
    decoder.set_limits(allocation(limits))?;
    let orientation = decoder.orientation()?;
    let mut image = DynamicImage::from_decoder(decoder)?;
    image.apply_orientation(orientation);
    Ok(image)
}

fn reason(error: ImageError) -> DecodeError {
    match &error {
        ImageError::IoError(io) if io.kind() == ErrorKind::UnexpectedEof => {
            DecodeError::Truncated("the file ends before the image does".into())
        }
        _ => DecodeError::Damaged(error.to_string()),
    }
}

fn to_rgb(image: &DynamicImage) -> Result<(Mode, Vec<u8>), DecodeError> {
    let converted = match image {
        DynamicImage::ImageLuma8(p) => (Mode::L, p.iter().flat_map(|&v| [v; 3]).collect()),
        DynamicImage::ImageLumaA8(p) => {
            (Mode::La, p.as_raw().as_chunks().0.iter().flat_map(|&[v, a]| [on_white_8(v, a); 3]).collect())
        }
        DynamicImage::ImageRgb8(p) => (Mode::Rgb, p.as_raw().clone()),
        DynamicImage::ImageRgba8(p) => {
            let composited = |&[r, g, b, a]: &[u8; 4]| [r, g, b].map(|v| on_white_8(v, a));
            (Mode::Rgba, p.as_raw().as_chunks().0.iter().flat_map(composited).collect())
        }
        DynamicImage::ImageLuma16(p) => (Mode::L, p.iter().flat_map(|&v| [to_8(v); 3]).collect()),
        DynamicImage::ImageLumaA16(p) => {
            (Mode::La, p.as_raw().as_chunks().0.iter().flat_map(|&[v, a]| [on_white_16(v, a); 3]).collect())
        }
        DynamicImage::ImageRgb16(p) => (Mode::Rgb, p.iter().map(|&v| to_8(v)).collect()),
        DynamicImage::ImageRgba16(p) => {
            let composited = |&[r, g, b, a]: &[u16; 4]| [r, g, b].map(|v| on_white_16(v, a));
            (Mode::Rgba, p.as_raw().as_chunks().0.iter().flat_map(composited).collect())
        }
        _ => return Err(DecodeError::Damaged("the samples are floating point numbers".into())),
    };
    Ok(converted)
}

/// 65,535 = 255 x 257: the nearest 8-bit value.
fn to_8(v: u16) -> u8 {
    ((u32::from(v) + 128) / 257) as u8
}

/// `v` with opacity `a` over white, rounded to the nearest.
fn on_white_8(v: u8, a: u8) -> u8 {
    let (v, a) = (u32::from(v), u32::from(a));
    ((v * a + 255 * (255 - a) + 127) / 255) as u8
}

/// The same in 16 bits, rounded once, to 8 bits.
fn on_white_16(v: u16, a: u16) -> u8 {
    let (v, a) = (u64::from(v), u64::from(a));
    let numerator = v * a + 65_535 * (65_535 - a);
    let denominator = 65_535 * 257;
    ((numerator + denominator / 2) / denominator) as u8
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sixteen_bits_round_to_the_nearest_eight() {
        for v in 0..=u16::MAX {
            let nearest = (f64::from(v) / 257.0).round() as u8;
            assert_eq!(to_8(v), nearest, "{v}");
            assert_eq!(on_white_16(v, u16::MAX), nearest, "{v} opaque");
        }
        assert_eq!(on_white_16(123, 0), 255);
    }

    #[test]
    fn compositing_on_white_rounds_to_the_nearest() {
        for v in 0..=u8::MAX {
            for a in 0..=u8::MAX {
                let alpha = f64::from(a) / 255.0;
                let exact = f64::from(v) * alpha + 255.0 * (1.0 - alpha);
                assert!((f64::from(on_white_8(v, a)) - exact).abs() <= 0.5 + 1e-9, "{v} {a}");
            }
        }
    }
}
