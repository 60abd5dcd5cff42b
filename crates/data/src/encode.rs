//! PNG files from pixels: the same bytes for the same pixels and text.

use png::{BitDepth, ColorType, Compression, Encoder, EncodingError};

/// A PNG file with 8-bit pixels of shape [height, width, channels] and its text chunks in the order given.
///
/// A text chunk is `tEXt` where keyword and text fit Latin-1 and `iTXt` (UTF-8) where the text does not. NUL characters,
/// which PNG text cannot hold, are left out.
///
/// # Panics
/// Where the caller's pixels are not `width * height * channels` bytes, a side is zero, `channels` is not 1 (grey),
/// 3 (RGB) or 4 (RGB and alpha), or a keyword is not 1 to 79 Latin-1 characters.
pub fn encode_png(width: u32, height: u32, channels: u32, pixels: &[u8], text: &[(&str, &str)]) -> Vec<u8> {
    assert!(matches!(channels, 1 | 3 | 4), "a PNG of {channels} channels; give 1 (grey), 3 (RGB) or 4 (with alpha)");
    let expected = width as usize * height as usize * channels as usize;
    assert_eq!(pixels.len(), expected, "{width} x {height} x {channels} need {expected} bytes");
    match encode(width, height, channels, pixels, text) {
        Ok(png) => png,
        Err(error) => panic!("a {width} x {height} PNG with {} text chunks: {error}", text.len()),
    }
}

/// The text chunks of a PNG file, Latin-1 before UTF-8; none where the file is damaged.
pub fn png_text(png: &[u8]) -> Vec<(String, String)> {
    let Ok(reader) = png::Decoder::new(std::io::Cursor::new(png)).read_info() else { return Vec::new() };
    let info = reader.info();
    let plain = info.uncompressed_latin1_text.iter().map(|chunk| (chunk.keyword.clone(), chunk.text.clone()));
    let wide = info.utf8_text.iter().filter_map(|chunk| Some((chunk.keyword.clone(), chunk.get_text().ok()?)));
    plain.chain(wide).collect()
}

fn encode(w: u32, h: u32, channels: u32, pixels: &[u8], text: &[(&str, &str)]) -> Result<Vec<u8>, EncodingError> {
    let mut png = Vec::new();
    let mut encoder = Encoder::new(&mut png, w, h);
    encoder.set_color(match channels {
        1 => ColorType::Grayscale,
        3 => ColorType::Rgb,
        _ => ColorType::Rgba,
    });
    encoder.set_depth(BitDepth::Eight);
    encoder.set_compression(Compression::Balanced);
    for (keyword, value) in text {
        let value = value.replace('\0', "");
        if value.chars().all(|c| u32::from(c) < 256) {
            encoder.add_text_chunk((*keyword).to_owned(), value)?;
        } else {
            encoder.add_itxt_chunk((*keyword).to_owned(), value)?;
        }
    }
    let mut writer = encoder.write_header()?;
    writer.write_image_data(pixels)?;
    writer.finish()?;
    Ok(png)
}
