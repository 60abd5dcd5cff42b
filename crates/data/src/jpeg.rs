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
