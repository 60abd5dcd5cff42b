//! The marker structure of a JPEG file (ITU-T T.81, annex B).
//!
//! JPEG decoders fill what is missing of a cut-off file with grey and call it a success. A dataset must not hold half an
//! image, so the file's structure is checked before its pixels are: its segments must be whole and it must reach the
//! end-of-image marker. Segments are skipped by their length, so the thumbnail in an Exif segment cannot pass for the
//! end.

use crate::error::DecodeError;

const START_OF_IMAGE: u8 = 0xd8;
const END_OF_IMAGE: u8 = 0xd9;
const START_OF_SCAN: u8 = 0xda;
const QUANTISATION: u8 = 0xdb;

/// Places of a block, row by row, in the order in which they are stored (T.81, figure A.6).
const ZIGZAG: [u8; 64] = [
    0, 1, 8, 16, 9, 2, 3, 10, 17, 24, 32, 25, 18, 11, 4, 5, 12, 19, 26, 33, 40, 48, 41, 34, 27, 20, 13, 6, 7, 14, 21,
    28, 35, 42, 49, 56, 57, 50, 43, 36, 29, 22, 15, 23, 30, 37, 44, 51, 58, 59, 52, 45, 38, 31, 39, 46, 53, 60, 61, 54,
    47, 55, 62, 63,
];

/// Width, height and bits of a sample, as the frame header says.
pub(crate) fn frame(bytes: &[u8]) -> Result<(u32, u32, u8), DecodeError> {
    let mut at = 0;
    while let Some(segment) = next_segment(bytes, &mut at)? {
        // All the start-of-frame markers: C0 to CF without DHT (C4), JPG (C8) and DAC (CC).
        if matches!(segment.marker, 0xc0..=0xcf) && !matches!(segment.marker, 0xc4 | 0xc8 | 0xcc) {
            let &[bits, h1, h0, w1, w0, ..] = segment.payload else {
                return Err(DecodeError::Damaged("the JPEG frame header is too short".into()));
            };
            return Ok((u16::from_be_bytes([w1, w0]).into(), u16::from_be_bytes([h1, h0]).into(), bits));
        }
        if segment.marker == START_OF_SCAN {
            return Err(DecodeError::Damaged("the JPEG has a scan before its frame header".into()));
        }
    }
    Err(DecodeError::Damaged("the JPEG has no frame header".into()))
}

/// How a JPEG file was compressed: enough to compress another image alike.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Compression {
    /// Quantisation of the luma and, where there is colour, of the chroma: 64 divisors, row by row.
    pub tables: Vec<[u16; 64]>,
    /// Luma samples for each chroma sample, along x and along y.
    pub sampling: (u8, u8),
    /// Whether it is progressive.
    pub progressive: bool,
}

/// How the file was compressed; none where it is damaged or of a kind with other components than Y or YCbCr.
pub(crate) fn compression(bytes: &[u8]) -> Option<Compression> {
    let (mut at, mut defined) = (0, [const { None }; 4]);
    let mut frame = None;
    while let Some(segment) = next_segment(bytes, &mut at).ok()? {
        match segment.marker {
            QUANTISATION => define_tables(segment.payload, &mut defined)?,
            0xc0..=0xc2 => frame = Some((segment.marker == 0xc2, segment.payload)),
            START_OF_SCAN => break,
            _ => {}
        }
    }
    let (progressive, payload) = frame?;
    // Bits, height, width, then for each component its name, its sampling and its table.
    let components: Vec<&[u8]> = payload.get(6..)?.chunks_exact(3).take(usize::from(*payload.get(5)?)).collect();
    let table = |component: &&[u8]| *defined.get(usize::from(component[2]))?;
    let (tables, sampling) = match components.as_slice() {
        [luma] => (vec![table(luma)?], (1, 1)),
        [luma, blue, red] if blue[1..] == red[1..] => {
            let (of, by) = (luma[1], blue[1]);
            let ratio = |of: u8, by: u8| (by > 0 && of.is_multiple_of(by)).then(|| of / by);
            (vec![table(luma)?, table(blue)?], (ratio(of >> 4, by >> 4)?, ratio(of & 15, by & 15)?))
        }
        _ => return None,
    };
    Some(Compression { tables, sampling, progressive })
}

/// Reads the tables of one segment, which come in zigzag order, of 8 or of 16 bits.
fn define_tables(mut payload: &[u8], tables: &mut [Option<[u16; 64]>; 4]) -> Option<()> {
    while let Some((&head, rest)) = payload.split_first() {
        let wide = usize::from(head >> 4);
        let (values, next) = rest.split_at_checked(64 * (1 + wide))?;
        let mut table = [0u16; 64];
        for (value, &place) in values.chunks_exact(1 + wide).zip(&ZIGZAG) {
            table[usize::from(place)] = value.iter().fold(0, |all, &byte| all << 8 | u16::from(byte));
        }
        *tables.get_mut(usize::from(head & 15))? = Some(table);
        payload = next;
    }
    Some(())
}

/// Checks that the file holds a scan and reaches the end-of-image marker. What stands after it does not matter.
pub(crate) fn check_complete(bytes: &[u8]) -> Result<(), DecodeError> {
    let (mut at, mut scans) = (0, 0);
    while let Some(segment) = next_segment(bytes, &mut at)? {
        scans += usize::from(segment.marker == START_OF_SCAN);
    }
    if scans == 0 { Err(DecodeError::Damaged("the JPEG has no scan".into())) } else { Ok(()) }
}

struct Segment<'a> {
    marker: u8,
    payload: &'a [u8],
}

/// The next segment at or after `at`, entropy-coded data skipped; none at the end of the image.
fn next_segment<'a>(bytes: &'a [u8], at: &mut usize) -> Result<Option<Segment<'a>>, DecodeError> {
    loop {
        let marker = next_marker(bytes, at)
            .ok_or_else(|| DecodeError::Truncated("the JPEG ends before its end-of-image marker".into()))?;
        match marker {
            END_OF_IMAGE => return Ok(None),
            START_OF_IMAGE => continue,
            _ => {}
        }
        let cut = || DecodeError::Truncated("the JPEG ends inside a segment".into());
        let length =
            bytes.get(*at..*at + 2).and_then(|two| two.try_into().ok()).map(u16::from_be_bytes).ok_or_else(cut)?;
        if length < 2 {
            return Err(DecodeError::Damaged("a JPEG segment has no length".into()));
        }
        let payload = bytes.get(*at + 2..*at + usize::from(length)).ok_or_else(cut)?;
        *at += usize::from(length);
        return Ok(Some(Segment { marker, payload }));
    }
}

/// The next marker that is not part of entropy-coded data (a stuffed zero, a restart); `at` moves behind it.
fn next_marker(bytes: &[u8], at: &mut usize) -> Option<u8> {
    loop {
        *at += bytes.get(*at..)?.iter().position(|&byte| byte == 0xff)? + 1;
        *at += bytes.get(*at..)?.iter().position(|&byte| byte != 0xff)? + 1;
        let marker = *bytes.get(*at - 1)?;
        if !matches!(marker, 0x00 | 0x01 | 0xd0..=0xd7) {
            return Some(marker);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// SOI, an APP1 segment that holds an end-of-image marker, SOF0 of 3 x 2, SOS, data with a stuffed FF and a restart.
    const FILE: &[u8] = b"\xff\xd8\xff\xe1\x00\x06\xff\xd8\xff\xd9\xff\xc0\x00\x08\x08\x00\x02\x00\x03\x01\xff\xda\x00\x03\x01\x12\xff\x00\x34\xff\xd0\x56\xff\xd9";

    #[test]
    fn the_frame_header_and_the_end_are_found() {
        assert_eq!(frame(FILE), Ok((3, 2, 8)));
        assert_eq!(check_complete(FILE), Ok(()));
        assert_eq!(check_complete(&[FILE, b"trailing"].concat()), Ok(()));
    }

    #[test]
    fn every_cut_is_noticed() {
        for length in 2..FILE.len() {
            assert!(matches!(check_complete(&FILE[..length]), Err(DecodeError::Truncated(_))), "{length} bytes");
        }
    }
}
