//! Pixels of every kind of image, and the reasons for what is none.

use evenset_data::{DecodeError, Format, Image, Limits, Mode, decode, encode_png};
use png::{BitDepth, ColorType};

use crate::support::{flat_png, huge_png_header, jpeg, png, png_with, webp};

fn decoded(bytes: &[u8]) -> Image {
    decode(bytes, &Limits::default()).unwrap()
}

fn refused(bytes: &[u8]) -> DecodeError {
    decode(bytes, &Limits::default()).unwrap_err()
}

#[test]
fn eight_bit_grey_becomes_three_equal_channels() {
    let image = decoded(&png(3, 1, ColorType::Grayscale, BitDepth::Eight, &[0, 100, 255]));
    assert_eq!((image.width, image.height, image.mode, image.bits), (3, 1, Mode::L, 8));
    assert_eq!(image.rgb, [0, 0, 0, 100, 100, 100, 255, 255, 255]);
}

#[test]
fn samples_of_one_bit_are_black_and_white() {
    let image = decoded(&png(4, 1, ColorType::Grayscale, BitDepth::One, &[0b1010_0000]));
    assert_eq!((image.mode, image.bits), (Mode::L, 1));
    assert_eq!(image.rgb, [[255; 3], [0; 3], [255; 3], [0; 3]].concat());
}

#[test]
fn a_palette_becomes_its_colours_and_its_transparency_goes_over_white() {
    let palette = [10, 20, 30, 200, 100, 0];
    let opaque = png_with(2, 1, ColorType::Indexed, BitDepth::Eight, &[1, 0], |png| png.set_palette(palette.to_vec()));
    let image = decoded(&opaque);
    assert_eq!((image.mode, image.rgb), (Mode::Rgb, vec![200, 100, 0, 10, 20, 30]));

    let clear = png_with(2, 1, ColorType::Indexed, BitDepth::Eight, &[1, 0], |png| {
        png.set_palette(palette.to_vec());
        png.set_trns(&[0u8, 255][..]);
    });
    let image = decoded(&clear);
    assert_eq!((image.mode, image.rgb), (Mode::Rgba, vec![200, 100, 0, 255, 255, 255]));
}

#[test]
fn alpha_is_composited_on_white() {
    let rgba = [10, 20, 30, 255, 10, 20, 30, 0, 100, 0, 255, 128];
    let image = decoded(&png(3, 1, ColorType::Rgba, BitDepth::Eight, &rgba));
    assert_eq!((image.mode, image.bits), (Mode::Rgba, 8));
    // 100 * 128/255 + 255 * 127/255 = 177.2, 127, 255
    assert_eq!(image.rgb, [10, 20, 30, 255, 255, 255, 177, 127, 255]);
    let image = decoded(&png(2, 1, ColorType::GrayscaleAlpha, BitDepth::Eight, &[40, 255, 0, 51]));
    assert_eq!((image.mode, image.rgb), (Mode::La, vec![40, 40, 40, 204, 204, 204]));
}

#[test]
fn sixteen_bits_are_scaled_to_the_nearest_eight() {
    // 0x0080 = 128 is 0.498 of a step, 0x0081 is 0.502, 0xfffe is nearly white.
    let image = decoded(&png(1, 1, ColorType::Rgb, BitDepth::Sixteen, &[0x00, 0x80, 0x00, 0x81, 0xff, 0xfe]));
    assert_eq!((image.mode, image.bits, image.rgb), (Mode::Rgb, 16, vec![0, 1, 255]));
    let image = decoded(&png(2, 1, ColorType::Grayscale, BitDepth::Sixteen, &[0x80, 0x00, 0x12, 0x34]));
    assert_eq!((image.mode, image.rgb), (Mode::L, vec![128, 128, 128, 18, 18, 18]));
    let image = decoded(&png(1, 1, ColorType::GrayscaleAlpha, BitDepth::Sixteen, &[0x00, 0x00, 0x80, 0x00]));
    assert_eq!((image.mode, image.rgb), (Mode::La, vec![127; 3]));
}

#[test]
fn webp_keeps_its_pixels() {
    let pixels = image::RgbaImage::from_fn(5, 4, |x, y| image::Rgba([x as u8 * 50, y as u8 * 60, 7, 255]));
    let image = decoded(&webp(&pixels));
    let expected: Vec<u8> = pixels.pixels().flat_map(|p| [p[0], p[1], p[2]]).collect();
    assert_eq!((image.format, image.width, image.height, image.rgb), (Format::WebP, 5, 4, expected));
    let bytes = webp(&pixels);
    assert!(matches!(refused(&bytes[..bytes.len() / 2]), DecodeError::Truncated(_)));
}

#[test]
fn a_jpeg_decodes_near_its_pixels() {
    let image = decoded(&jpeg());
    assert_eq!((image.format, image.width, image.height, image.mode), (Format::Jpeg, 64, 48, Mode::Rgb));
    let (x, y) = (20, 30);
    let pixel = &image.rgb[(y * 64 + x) * 3..][..2];
    assert!(pixel[0].abs_diff(80) < 25 && pixel[1].abs_diff(150) < 25, "{pixel:?}");
}

#[test]
fn a_jpeg_that_is_cut_off_anywhere_is_refused() {
    let whole = jpeg();
    for length in (3..whole.len()).step_by(7).chain([whole.len() - 1, whole.len() - 2]) {
        assert!(matches!(refused(&whole[..length]), DecodeError::Truncated(_)), "{length} of {} bytes", whole.len());
    }
}

#[test]
fn a_progressive_jpeg_decodes_and_is_refused_when_cut_off() {
    let whole = include_bytes!("../fixtures/progressive.jpg");
    let image = decoded(whole);
    assert_eq!((image.width, image.height), (32, 24));
    for length in (3..whole.len()).step_by(11) {
        assert!(matches!(refused(&whole[..length]), DecodeError::Truncated(_)), "{length} of {} bytes", whole.len());
    }
}

#[test]
fn pixels_stand_upright_as_the_exif_orientation_says() {
    // Exif, little-endian TIFF, one entry: orientation (0x0112), short, 1, value 6: turn clockwise by a quarter.
    let tiff = b"II\x2a\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0\x06\0\0\0\0\0\0\0";
    let payload = [&b"Exif\0\0"[..], tiff].concat();
    let segment = [&[0xff, 0xe1][..], &(payload.len() as u16 + 2).to_be_bytes(), &payload].concat();
    let plain = jpeg();
    let turned = decoded(&[&plain[..2], &segment, &plain[2..]].concat());
    let upright = decoded(&plain);
    assert_eq!((turned.width, turned.height), (48, 64));
    // The top left pixel goes to the top right.
    assert_eq!(turned.rgb[47 * 3..][..3], upright.rgb[..3]);
}

#[test]
fn a_header_of_sixty_thousand_squared_is_refused_by_its_size() {
    let error = refused(&huge_png_header());
    assert_eq!(error.to_string(), "60000 x 60000 pixels are more than the limit of 64000000");
}

#[test]
fn what_is_no_image_says_why() {
    assert_eq!(refused(b"").to_string(), "the file is empty");
    assert_eq!(refused(b"this is not a picture\n").to_string(), "not an image: the file is text");
    assert_eq!(refused(b"GIF89a....").to_string(), "GIF images are not supported; convert to PNG, JPEG or WebP");
    let limits = Limits { max_bytes: 10, ..Limits::default() };
    assert_eq!(decode(&[0; 11], &limits).unwrap_err().to_string(), "11 bytes are more than the limit of 10");
}

#[test]
fn a_png_that_is_cut_off_in_its_pixels_is_refused() {
    let pixels: Vec<u8> = (0..64 * 64 * 3u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    let whole = encode_png(64, 64, 3, &pixels, &[]);
    assert_eq!(decoded(&whole).rgb, pixels);
    for length in [20, 40, whole.len() / 2, whole.len() - 100] {
        assert!(
            matches!(refused(&whole[..length]), DecodeError::Truncated(_)),
            "{length}: {}",
            refused(&whole[..length])
        );
    }
}

#[test]
fn damaged_bytes_never_panic() {
    let webp = webp(&image::RgbaImage::from_fn(9, 9, |x, y| image::Rgba([x as u8 * 20, y as u8 * 20, 3, 200])));
    let limits = Limits { max_pixels: 1 << 20, ..Limits::default() };
    for file in [flat_png([1, 2, 3]), jpeg(), webp, include_bytes!("../fixtures/progressive.jpg").to_vec()] {
        for seed in 0..400u32 {
            let mut damaged = file.clone();
            for hit in 0..=seed % 4 {
                let random = (seed * 4 + hit).wrapping_mul(2_654_435_761) as usize;
                let place = (random >> 8) % damaged.len();
                damaged[place] ^= (random as u8) | 1;
            }
            let _ = decode(&damaged, &limits);
        }
    }
}

#[test]
fn an_encoded_png_is_the_same_bytes_again_and_carries_its_text() {
    let grey = [0, 128, 255, 7];
    let text = [("parameters", "a coat\nNegative prompt: blur"), ("title", "ein Mantel — 外套")];
    let bytes = encode_png(2, 2, 1, &grey, &text);
    assert_eq!(bytes, encode_png(2, 2, 1, &grey, &text));
    let reader = png::Decoder::new(std::io::Cursor::new(&bytes)).read_info().unwrap();
    let info = reader.info();
    assert_eq!(info.uncompressed_latin1_text[0].keyword, "parameters");
    assert_eq!(info.uncompressed_latin1_text[0].text, text[0].1);
    assert_eq!(info.utf8_text[0].get_text().unwrap(), text[1].1);
    assert_eq!(decoded(&bytes).rgb, [[0; 3], [128; 3], [255; 3], [7; 3]].concat());
}

#[test]
fn a_png_of_four_channels_carries_alpha() {
    let image = decoded(&encode_png(2, 1, 4, &[10, 20, 30, 255, 10, 20, 30, 0], &[]));
    assert_eq!((image.mode, image.rgb), (Mode::Rgba, vec![10, 20, 30, 255, 255, 255]));
}
