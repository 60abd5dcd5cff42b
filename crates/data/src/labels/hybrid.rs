//! Parquet's hybrid of run lengths and packed bits, straight to 32-bit codes.
//!
//! This is the inner loop of counting labels: a hundred million rows of six columns are six hundred million codes.
//! <https://parquet.apache.org/docs/file-format/data-pages/encodings/#RLE>

use bytes::Bytes;

/// What a damaged page is called.
pub(crate) const ENDS_EARLY: &str = "a page ends before its values do";

/// Values of a fixed number of bits, decoded in order.
#[derive(Debug)]
pub(crate) struct Hybrid {
    bytes: Bytes,
    at: usize,
    width: usize,
    run: Run,
    /// Values of a packed group that was begun; those from `buffered` on are left.
    buffer: [u32; 8],
    buffered: usize,
}

#[derive(Debug)]
enum Run {
    Repeated {
        value: u32,
        left: usize,
    },
    /// Groups of eight values.
    Packed {
        groups: usize,
    },
}

impl Hybrid {
    /// Values of `width` bits in `bytes`; at most 32 bits.
    pub fn new(bytes: Bytes, width: u8) -> Result<Self, String> {
        if width > 32 {
            return Err(format!("values of {width} bits are wider than 32"));
        }
        let run = Run::Packed { groups: 0 };
        Ok(Self { bytes, at: 0, width: width.into(), run, buffer: [0; 8], buffered: 8 })
    }

    /// The next values are equal: the value and how many of at most `limit` there are. None inside packed values.
    pub fn repeated(&mut self, limit: usize) -> Result<Option<(u32, usize)>, String> {
        if self.buffered < 8 {
            return Ok(None);
        }
        self.begin_run()?;
        match &mut self.run {
            Run::Repeated { value, left } => {
                let given = limit.min(*left);
                *left -= given;
                Ok(Some((*value, given)))
            }
            Run::Packed { .. } => Ok(None),
        }
    }

    /// The next values, as many as `out` holds.
    pub fn fill(&mut self, mut out: &mut [u32]) -> Result<(), String> {
        while !out.is_empty() {
            let given = if self.buffered < 8 { self.take_buffered(out) } else { self.take_run(out)? };
            out = &mut out[given..];
        }
        Ok(())
    }

    fn take_buffered(&mut self, out: &mut [u32]) -> usize {
        let given = out.len().min(8 - self.buffered);
        out[..given].copy_from_slice(&self.buffer[self.buffered..self.buffered + given]);
        self.buffered += given;
        given
    }

    /// Values of the run at hand; none where only a part of a group was left to fill, which is then in the buffer.
    fn take_run(&mut self, out: &mut [u32]) -> Result<usize, String> {
        self.begin_run()?;
        match &mut self.run {
            Run::Repeated { value, left } => {
                let given = out.len().min(*left);
                out[..given].fill(*value);
                *left -= given;
                Ok(given)
            }
            Run::Packed { groups } => {
                let left = &self.bytes[self.at..];
                let whole = (*groups).min(out.len() / 8).min(left.len().checked_div(self.width).unwrap_or(usize::MAX));
                if whole > 0 {
                    unpack(self.width, &left[..whole * self.width], &mut out[..whole * 8]);
                    self.at += whole * self.width;
                    *groups -= whole;
                    return Ok(whole * 8);
                }
                if left.is_empty() && self.width > 0 {
                    return Err(ENDS_EARLY.to_owned());
                }
                // Some writers leave out the padding of the last group.
                let mut group = [0; 32];
                let length = self.width.min(left.len());
                group[..length].copy_from_slice(&left[..length]);
                unpack(self.width, &group[..self.width], &mut self.buffer);
                self.at += length;
                *groups -= 1;
                self.buffered = 0;
                Ok(0)
            }
        }
    }

    /// Reads headers until a run has values.
    fn begin_run(&mut self) -> Result<(), String> {
        while matches!(self.run, Run::Repeated { left: 0, .. } | Run::Packed { groups: 0 }) {
            let header = self.header()?;
            self.run = if header & 1 == 1 {
                Run::Packed { groups: (header >> 1) as usize }
            } else {
                let mut value = [0; 4];
                let length = self.width.div_ceil(8);
                let bytes = self.bytes.get(self.at..self.at + length).ok_or(ENDS_EARLY)?;
                value[..length].copy_from_slice(bytes);
                self.at += length;
                Run::Repeated { value: u32::from_le_bytes(value), left: (header >> 1) as usize }
            };
        }
        Ok(())
    }

    /// A variable-length number of at most five bytes.
    fn header(&mut self) -> Result<u32, String> {
        let mut header = 0u64;
        for shift in (0..35).step_by(7) {
            let byte = *self.bytes.get(self.at).ok_or(ENDS_EARLY)?;
            self.at += 1;
            header |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return u32::try_from(header).map_err(|_| "a run is longer than a page can be".to_owned());
            }
        }
        Err("a run is longer than a page can be".to_owned())
    }
}

/// Groups of eight values of `width` bits, least significant bit first.
fn unpack(width: usize, bytes: &[u8], out: &mut [u32]) {
    match width {
        0 => out.fill(0),
        1 => narrow::<1>(bytes, out),
        2 => narrow::<2>(bytes, out),
        3 => narrow::<3>(bytes, out),
        4 => narrow::<4>(bytes, out),
        5 => narrow::<5>(bytes, out),
        6 => narrow::<6>(bytes, out),
        7 => narrow::<7>(bytes, out),
        8 => narrow::<8>(bytes, out),
        9..=16 => {
            for (group, out) in bytes.chunks_exact(width).zip(out.chunks_exact_mut(8)) {
                let mut word = [0; 16];
                word[..width].copy_from_slice(group);
                let word = u128::from_le_bytes(word);
                for (place, value) in out.iter_mut().enumerate() {
                    *value = (word >> (place * width)) as u32 & ((1 << width) - 1);
                }
            }
        }
        _ => {
            for (group, out) in bytes.chunks_exact(width).zip(out.chunks_exact_mut(8)) {
                for (place, value) in out.iter_mut().enumerate() {
                    let (byte, bit) = (place * width / 8, place * width % 8);
                    let mut word = [0; 8];
                    let length = (group.len() - byte).min(8);
                    word[..length].copy_from_slice(&group[byte..byte + length]);
                    *value = ((u64::from_le_bytes(word) >> bit) & ((1 << width) - 1)) as u32;
                }
            }
        }
    }
}

/// Eight values that fit into 64 bits: the common case, unrolled for each width.
fn narrow<const WIDTH: usize>(bytes: &[u8], out: &mut [u32]) {
    let mask = (1u64 << WIDTH) - 1;
    for (group, out) in bytes.chunks_exact(WIDTH).zip(out.chunks_exact_mut(8)) {
        let mut word = [0; 8];
        word[..WIDTH].copy_from_slice(group);
        let word = u64::from_le_bytes(word);
        for (place, value) in out.iter_mut().enumerate() {
            *value = ((word >> (place * WIDTH)) & mask) as u32;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Packs groups of eight values after their header.
    fn packed(values: &[u32], width: usize) -> Vec<u8> {
        let groups = values.len().div_ceil(8);
        let mut bytes = vec![(groups << 1 | 1) as u8];
        let mut bits = vec![0u8; groups * width];
        for (place, value) in values.iter().enumerate() {
            for bit in (0..width).filter(|bit| value >> bit & 1 == 1) {
                let at = place * width + bit;
                bits[at / 8] |= 1 << (at % 8);
            }
        }
        bytes.extend(bits);
        bytes
    }

    #[test]
    fn runs_and_packed_values_come_in_order_whatever_the_width_and_the_size_of_the_reads() {
        for width in 0..=32u8 {
            let largest = if width == 32 { u32::MAX } else { (1 << width) - 1 };
            let values: Vec<u32> = (0..40u32).map(|n| n.wrapping_mul(2_654_435_761) & largest).collect();
            let mut bytes = packed(&values, width.into());
            bytes.push(7 << 1);
            bytes.extend(&largest.to_le_bytes()[..usize::from(width).div_ceil(8)]);
            bytes.extend(packed(&values[..8], width.into()));
            let expected: Vec<u32> =
                [values.clone(), vec![largest; 7], values[..8].to_vec()].into_iter().flatten().collect();
            for step in [1, 3, 8, 13, 55] {
                let mut hybrid = Hybrid::new(bytes.clone().into(), width).unwrap();
                let mut read = vec![0; expected.len()];
                for out in read.chunks_mut(step) {
                    hybrid.fill(out).unwrap();
                }
                assert_eq!(read, expected, "width {width}, step {step}");
            }
        }
    }

    #[test]
    fn damaged_bytes_are_errors() {
        let error = |bytes: &[u8], width| Hybrid::new(bytes.to_vec().into(), width).unwrap().fill(&mut [0; 100]);
        assert_eq!(error(&[], 3).unwrap_err(), ENDS_EARLY);
        assert_eq!(error(&[200], 3).unwrap_err(), ENDS_EARLY);
        assert_eq!(error(&[4], 3).unwrap_err(), ENDS_EARLY);
        assert_eq!(error(&[3, 1, 2], 3).unwrap_err(), ENDS_EARLY);
        assert!(error(&[0xff; 20], 3).unwrap_err().contains("longer"));
        assert!(Hybrid::new(Bytes::new(), 33).is_err());
    }

    #[test]
    fn any_bytes_are_values_or_an_error_but_never_a_panic() {
        let mut state = 1u32;
        for _ in 0..20_000 {
            let mut next = || {
                state ^= state << 13;
                state ^= state >> 17;
                state ^= state << 5;
                state
            };
            let bytes: Vec<u8> = (0..next() % 40).map(|_| next() as u8).collect();
            let width = (next() % 33) as u8;
            let mut hybrid = Hybrid::new(bytes.into(), width).unwrap();
            for _ in 0..4 {
                let _ = hybrid.repeated(5);
                let _ = hybrid.fill(&mut vec![0; (next() % 300) as usize]);
            }
        }
    }
}
