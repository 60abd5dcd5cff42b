//! What the first bytes of an image file say: its format and its size, without decoding anything.
//!
//! Sizes are checked against the limits before a decoder sees the file, so a header that promises 60,000 x 60,000
//! pixels costs nothing.

use crate::error::DecodeError;
use crate::jpeg;

/// An image file format.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Format {
    /// Portable Network Graphics.
    Png,
    /// JPEG (JFIF or Exif), baseline or progressive.
    Jpeg,
    /// WebP, lossy or lossless.
    WebP,
}

impl Format {
    /// The format whose magic bytes these are.
    pub fn of(bytes: &[u8]) -> Option<Self> {
        if bytes.starts_with(b"\x89PNG\r\n\x1a\n") {
            Some(Self::Png)
        } else if bytes.starts_with(b"\xff\xd8\xff") {
            Some(Self::Jpeg)
        } else if bytes.starts_with(b"RIFF") && bytes.get(8..12) == Some(b"WEBP") {
            Some(Self::WebP)
        } else {
            None
        }
    }

    /// The file extension, without the dot.
    pub fn extension(self) -> &'static str {
        match self {
            Self::Png => "png",
            Self::Jpeg => "jpg",
            Self::WebP => "webp",
        }
    }
}

/// What the header of an image file says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// The format.
    pub format: Format,
    /// Width in pixels, before any Exif orientation.
    pub width: u32,
    /// Height in pixels, before any Exif orientation.
    pub height: u32,
    /// Bits of one sample in the file: 1, 2, 4, 8, 12 or 16.
    pub bits: u8,
}

/// Reads the header of a PNG, JPEG or WebP file.
///
/// # Errors
/// [`DecodeError`] where the bytes are not one of the three, or end before the size is known.
pub fn header(bytes: &[u8]) -> Result<Header, DecodeError> {
    let format = Format::of(bytes).ok_or_else(|| not_an_image(bytes))?;
    let (width, height, bits) = match format {
        Format::Png => png(bytes)?,
        Format::Jpeg => jpeg::frame(bytes)?,
        Format::WebP => webp(bytes)?,
    };
    if width == 0 || height == 0 {
        return Err(DecodeError::Damaged(format!("the header says {width} x {height} pixels")));
    }
    Ok(Header { format, width, height, bits })
}

fn png(bytes: &[u8]) -> Result<(u32, u32, u8), DecodeError> {
    let ends = || DecodeError::Truncated("the PNG header is cut off".into());
    if bytes.get(12..16).ok_or_else(ends)? != b"IHDR" {
        return Err(DecodeError::Damaged("the PNG does not begin with IHDR".into()));
    }
    let (width, height) = (be_u32(bytes, 16).ok_or_else(ends)?, be_u32(bytes, 20).ok_or_else(ends)?);
    Ok((width, height, *bytes.get(24).ok_or_else(ends)?))
}

/// The three kinds of first chunk: <https://developers.google.com/speed/webp/docs/riff_container>.
fn webp(bytes: &[u8]) -> Result<(u32, u32, u8), DecodeError> {
    let ends = || DecodeError::Truncated("the WebP header is cut off".into());
    let promised = le(bytes, 4, 4).ok_or_else(ends)?;
    if (bytes.len() as u64) < 8 + u64::from(promised) {
        return Err(DecodeError::Truncated(format!(
            "the WebP has {} of {} bytes",
            bytes.len(),
            u64::from(promised) + 8
        )));
    }
    let (width, height) = match bytes.get(12..16).ok_or_else(ends)? {
        b"VP8 " => (le(bytes, 26, 2).ok_or_else(ends)? & 0x3fff, le(bytes, 28, 2).ok_or_else(ends)? & 0x3fff),
        b"VP8L" => {
            let packed = le(bytes, 21, 4).ok_or_else(ends)?;
            ((packed & 0x3fff) + 1, ((packed >> 14) & 0x3fff) + 1)
        }
        b"VP8X" => (le(bytes, 24, 3).ok_or_else(ends)? + 1, le(bytes, 27, 3).ok_or_else(ends)? + 1),
        _ => return Err(DecodeError::Damaged("the WebP has an unknown first chunk".into())),
    };
    Ok((width, height, 8))
}

fn be_u32(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..at + 4)?.try_into().ok().map(u32::from_be_bytes)
}

/// `count` bytes (at most four) as a little-endian number.
fn le(bytes: &[u8], at: usize, count: usize) -> Option<u32> {
    Some(bytes.get(at..at + count)?.iter().rev().fold(0, |number, &byte| (number << 8) | u32::from(byte)))
}

fn not_an_image(bytes: &[u8]) -> DecodeError {
    let start = &bytes[..bytes.len().min(64)];
    let known = match start {
        [] => return DecodeError::Empty,
        [b'G', b'I', b'F', b'8', ..] => Some("GIF"),
        [b'B', b'M', _, _, _, _, 0, 0, 0, 0, ..] => Some("BMP"),
        [b'I', b'I', 42, 0, ..] | [b'M', b'M', 0, 42, ..] => Some("TIFF"),
        [_, _, _, _, b'f', b't', b'y', b'p', b'a', b'v', b'i', ..] => Some("AVIF"),
        [_, _, _, _, b'f', b't', b'y', b'p', ..] => Some("HEIC"),
        [0, 0, 0, 12, b'J', b'X', b'L', b' ', ..] | [0xff, 0x0a, ..] => Some("JPEG XL"),
        _ => None,
    };
    if let Some(format) = known {
        return DecodeError::Unsupported(format);
    }
    if start.iter().all(|&byte| byte == 0) {
        return DecodeError::NotAnImage("the file begins with zeros".into());
    }
    let text = start.iter().all(|&byte| byte >= b' ' && byte != 0x7f || b"\t\r\n".contains(&byte));
    if text && String::from_utf8_lossy(start).chars().filter(|&c| c == char::REPLACEMENT_CHARACTER).count() <= 1 {
        return DecodeError::NotAnImage("the file is text".into());
    }
    let first: Vec<String> = start.iter().take(8).map(|byte| format!("{byte:02x}")).collect();
    DecodeError::NotAnImage(format!("the file begins with {}", first.join(" ")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_png_header_gives_the_size_without_any_pixels() {
        let mut bytes = b"\x89PNG\r\n\x1a\n\0\0\0\x0dIHDR".to_vec();
        bytes.extend([0, 0, 0xea, 0x60, 0, 0, 0xea, 0x60, 16, 2, 0, 0, 0]);
        assert_eq!(header(&bytes), Ok(Header { format: Format::Png, width: 60_000, height: 60_000, bits: 16 }));
        assert!(matches!(header(&bytes[..22]), Err(DecodeError::Truncated(_))));
    }

    #[test]
    fn what_is_not_an_image_is_called_by_its_name() {
        assert_eq!(header(b""), Err(DecodeError::Empty));
        assert_eq!(header(b"hello, world"), Err(DecodeError::NotAnImage("the file is text".into())));
        assert_eq!(header("grüße".as_bytes()), Err(DecodeError::NotAnImage("the file is text".into())));
        assert_eq!(header(b"GIF89a"), Err(DecodeError::Unsupported("GIF")));
        assert_eq!(header(b"\x01\x02"), Err(DecodeError::NotAnImage("the file begins with 01 02".into())));
    }

    #[test]
    fn each_kind_of_webp_gives_its_size() {
        let file = |chunk: &[u8]| [b"RIFF", &(4 + chunk.len() as u32).to_le_bytes()[..], b"WEBP", chunk].concat();
        let lossy = file(b"VP8 \x0a\0\0\0\0\0\0\x9d\x01\x2a\x07\0\x05\0");
        let lossless = file(&[&b"VP8L\x05\0\0\0\x2f"[..], &(6u32 | (4 << 14)).to_le_bytes()].concat());
        let extended = file(b"VP8X\x0a\0\0\0\0\0\0\0\x06\0\0\x04\0\0");
        for bytes in [lossy, lossless, extended] {
            assert_eq!(header(&bytes), Ok(Header { format: Format::WebP, width: 7, height: 5, bits: 8 }));
            assert!(matches!(header(&bytes[..bytes.len() - 1]), Err(DecodeError::Truncated(_))));
        }
    }
}
