//! What can be told of an image from its file alone, and files made alike.
//!
//! Where real images are JPEG files of many sizes and generated ones PNG files of one, a network learns which are which
//! from the blocks of the compression, not from what they show. A [`FileStyle`] is all that: format, size, grey or
//! colour, quantisation and chroma sampling.

use image::ExtendedColorType;
use image::codecs::webp::WebPEncoder;
use jpeg_encoder::{ChromaSubsamplingMethod, ColorType, Encoder, QuantizationTableType, SamplingFactor};

use crate::decode::{Image, Mode};
use crate::encode::encode_png;
use crate::header::{Format, header};
use crate::jpeg::{self, Compression};
use crate::resize::fit;

/// What an image's file looks like, whatever the image shows.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct FileStyle {
    format: Format,
    width: u32,
    height: u32,
    grey: bool,
    /// How a JPEG was compressed.
    compression: Option<Compression>,
    /// Whether a WebP file is lossless.
    lossless: bool,
}

/// An image in a file like another's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Styled {
    /// The format.
    pub format: Format,
    /// The file.
    pub bytes: Vec<u8>,
    /// Whether format and compression are as in the style. Not where that is lossy WebP, for which there is no encoder
    /// here, or a kind of JPEG that is not written (CMYK, arithmetic coding): these become PNG files.
    pub alike: bool,
}

impl FileStyle {
    /// The style of a file with `width` x `height` upright pixels, `grey` or not.
    pub fn of(bytes: &[u8], width: u32, height: u32, grey: bool) -> Option<Self> {
        let format = header(bytes).ok()?.format;
        let compression = (format == Format::Jpeg).then(|| jpeg::compression(bytes)).flatten();
        let lossless = format == Format::WebP && bytes.get(12..16) == Some(b"VP8L");
        Some(Self { format, width, height, grey, compression, lossless })
    }

    /// The image in a file of this style: stretched to its size (see [`fit`]), then compressed alike. `text` are the text
    /// chunks of a PNG; no other format is given any.
    pub fn apply(&self, image: &Image, text: &[(&str, &str)]) -> Styled {
        let rgb = fit(&image.rgb, image.width, image.height, self.width, self.height);
        let grey = self.grey || matches!(image.mode, Mode::L | Mode::La);
        let pixels: Vec<u8> = if grey { rgb.chunks_exact(3).map(mean).collect() } else { rgb };
        let made = match (self.format, &self.compression) {
            (Format::Jpeg, Some(compression)) => self.jpeg(&pixels, grey, compression),
            (Format::WebP, _) if self.lossless => self.webp(&pixels, grey),
            _ => None,
        };
        match made {
            Some(bytes) => Styled { format: self.format, bytes, alike: true },
            None => {
                let channels = if grey { 1 } else { 3 };
                let bytes = encode_png(self.width, self.height, channels, &pixels, text);
                Styled { format: Format::Png, bytes, alike: self.format == Format::Png }
            }
        }
    }

    fn jpeg(&self, pixels: &[u8], grey: bool, compression: &Compression) -> Option<Vec<u8>> {
        let (width, height) = (u16::try_from(self.width).ok()?, u16::try_from(self.height).ok()?);
        let custom = |table: &[u16; 64]| QuantizationTableType::Custom(Box::new(table.map(|value| value.min(255))));
        let (luma, chroma) = (compression.tables.first()?, compression.tables.last()?);
        let mut bytes = Vec::new();
        let mut encoder = Encoder::new(&mut bytes, 100);
        encoder.set_quantization_tables(custom(luma), custom(chroma));
        encoder.set_sampling_factor(SamplingFactor::from_factors(compression.sampling.0, compression.sampling.1)?);
        encoder.set_chroma_subsampling_method(ChromaSubsamplingMethod::Average);
        encoder.set_progressive(compression.progressive);
        encoder.encode(pixels, width, height, if grey { ColorType::Luma } else { ColorType::Rgb }).ok()?;
        Some(bytes)
    }

    fn webp(&self, pixels: &[u8], grey: bool) -> Option<Vec<u8>> {
        let mut bytes = Vec::new();
        let colour = if grey { ExtendedColorType::L8 } else { ExtendedColorType::Rgb8 };
        WebPEncoder::new_lossless(&mut bytes).encode(pixels, self.width, self.height, colour).ok()?;
        Some(bytes)
    }
}

fn mean(rgb: &[u8]) -> u8 {
    ((rgb.iter().map(|&value| u16::from(value)).sum::<u16>() + 1) / 3) as u8
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::decode::{Limits, decode};

    fn image(width: u32, height: u32) -> Image {
        let pixel = |i: u32| [(i * 7 % 256) as u8, (i / width * 5 % 256) as u8, (i % width * 3 % 256) as u8];
        let rgb = (0..width * height).flat_map(pixel).collect();
        Image { width, height, mode: Mode::Rgb, bits: 8, format: Format::Png, rgb }
    }

    /// A JPEG file of the given quality.
    fn jpeg(quality: u8, sampling: SamplingFactor, colour: ColorType, progressive: bool) -> Vec<u8> {
        let (source, mut bytes) = (image(40, 24), Vec::new());
        let mut encoder = Encoder::new(&mut bytes, quality);
        encoder.set_sampling_factor(sampling);
        encoder.set_progressive(progressive);
        let pixels: Vec<u8> = match colour {
            ColorType::Luma => source.rgb.iter().step_by(3).copied().collect(),
            _ => source.rgb,
        };
        encoder.encode(&pixels, 40, 24, colour).unwrap();
        bytes
    }

    fn style(bytes: &[u8]) -> FileStyle {
        let image = decode(bytes, &Limits::default()).unwrap();
        FileStyle::of(bytes, image.width, image.height, image.mode == Mode::L).unwrap()
    }

    #[test]
    fn a_jpeg_is_compressed_as_the_real_one_was() {
        for (quality, sampling, colour, progressive) in [
            (75, SamplingFactor::F_2_2, ColorType::Rgb, false),
            (96, SamplingFactor::F_1_1, ColorType::Rgb, true),
            (30, SamplingFactor::F_2_1, ColorType::Rgb, false),
            (85, SamplingFactor::F_1_1, ColorType::Luma, false),
        ] {
            let real = style(&jpeg(quality, sampling, colour, progressive));
            let made = real.apply(&image(17, 9), &[("parameters", "nothing")]);
            assert!(made.alike && made.format == Format::Jpeg);
            assert_eq!(style(&made.bytes), real, "quality {quality}");
        }
        // Annex K's first divisors at quality 50.
        let half = style(&jpeg(50, SamplingFactor::F_2_2, ColorType::Rgb, false)).compression.unwrap();
        assert_eq!(half.tables[0][..4], [16, 11, 10, 16]);
        assert_eq!((half.tables[0][8], half.sampling), (12, (2, 2)));
    }

    #[test]
    fn sizes_and_grey_are_taken_over_and_a_png_keeps_its_text() {
        let real = FileStyle::of(&encode_png(5, 3, 1, &[9; 15], &[]), 5, 3, true).unwrap();
        let made = real.apply(&image(40, 24), &[("parameters", "drawn")]);
        assert!(made.alike && made.bytes.windows(5).any(|window| window == b"drawn"));
        assert_eq!(style(&made.bytes), real);
        let mut webp = Vec::new();
        WebPEncoder::new_lossless(&mut webp).encode(&image(8, 8).rgb, 8, 8, ExtendedColorType::Rgb8).unwrap();
        let real = style(&webp);
        assert!(real.lossless);
        assert_eq!(style(&real.apply(&image(9, 9), &[]).bytes), real);
    }

    #[test]
    fn what_cannot_be_made_becomes_a_png_of_the_size() {
        // A damaged table, and a file whose tables were cut off.
        let mut file = jpeg(75, SamplingFactor::F_2_2, ColorType::Rgb, false);
        let at = file.windows(2).position(|two| two == [0xff, 0xdb]).unwrap();
        file[at + 4] = 0x0f;
        let real = FileStyle::of(&file, 12, 10, false).unwrap();
        let made = real.apply(&image(6, 6), &[]);
        assert!(!made.alike && made.format == Format::Png);
        let image = decode(&made.bytes, &Limits::default()).unwrap();
        assert_eq!((image.width, image.height), (12, 10));
        assert_eq!(FileStyle::of(b"not an image", 1, 1, false), None);
    }
}
