//! Cells of a cube: how often each combination of codes was seen.
//!
//! A combination is one number: each attribute has a run of bits, the first the highest. While there are few bits that
//! number is a place in a table, which makes counting a row one addition; where there are many it is a key in a map,
//! which is as large as the number of combinations that occur.

use std::collections::HashMap;

use foldhash::fast::FixedState;

use crate::AuditError;

/// Up to here the table (8 bytes a place) fits into a processor's cache, or nearly.
const MOST_TABLE_BITS: u32 = 20;
/// The most combinations that are held, about 1 GB.
const MOST_COMBINATIONS: usize = 1 << 24;
/// Rows whose places are computed together.
const BLOCK: usize = 2048;

/// Where the code of each attribute is in a packed combination.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Layout {
    bits: Vec<u32>,
    shifts: Vec<u32>,
}

impl Layout {
    /// The layout that holds so many values of each attribute; `None` where they need more than 128 bits.
    pub fn of(values: impl Iterator<Item = usize>) -> Option<Self> {
        let bits: Vec<u32> = values.map(|n| n.next_power_of_two().trailing_zeros()).collect();
        let mut shifts = vec![0; bits.len()];
        let mut total = 0u32;
        for (shift, bits) in shifts.iter_mut().zip(&bits).rev() {
            *shift = total;
            total += bits;
        }
        (total <= u128::BITS).then_some(Self { bits, shifts })
    }

    fn total_bits(&self) -> u32 {
        self.bits.iter().sum()
    }

    /// The bits of one attribute's code in a combination.
    pub fn place(&self, attribute: usize, code: u32) -> u128 {
        // An attribute without bits has one value, whose code is 0; its shift may be 128.
        u128::from(code).checked_shl(self.shifts[attribute]).unwrap_or(0)
    }

    /// The code of an attribute in a combination.
    pub fn code(&self, attribute: usize, combination: u128) -> usize {
        let low = combination.checked_shr(self.shifts[attribute]).unwrap_or(0);
        (low & ((1u128 << self.bits[attribute]) - 1)) as usize
    }
}

/// Counts by packed combination.
#[derive(Clone, Debug)]
pub(super) enum Cells {
    /// A count for every combination that the layout can express.
    Table(Vec<u64>),
    /// A count for each combination that occurs.
    Map(HashMap<u128, u64, FixedState>),
}

impl Cells {
    pub fn new(layout: &Layout) -> Self {
        if layout.total_bits() <= MOST_TABLE_BITS {
            Self::Table(vec![0; 1 << layout.total_bits()])
        } else {
            Self::Map(HashMap::default())
        }
    }

    pub fn add(&mut self, combination: u128, count: u64) -> Result<(), AuditError> {
        match self {
            Self::Table(table) => table[combination as usize] += count,
            Self::Map(map) => {
                *map.entry(combination).or_default() += count;
                if map.len() > MOST_COMBINATIONS {
                    return Err(AuditError::TooManyCombinations { limit: MOST_COMBINATIONS });
                }
            }
        }
        Ok(())
    }

    /// Counts rows, `weights` times each or once. `places` holds for each column the bits of each of its codes, and
    /// every code of `codes` has its bits.
    pub fn add_rows(
        &mut self,
        places: &[Vec<u128>],
        codes: &[&[u32]],
        rows: usize,
        weights: Option<&[u64]>,
    ) -> Result<(), AuditError> {
        match self {
            Self::Table(table) => {
                let places: Vec<Vec<u32>> =
                    places.iter().map(|p| p.iter().map(|&bits| bits as u32).collect()).collect();
                // Codes of a byte, as nearly all are, find their bits without a check.
                let small: Option<Vec<Box<[u32; 256]>>> = places.iter().map(|places| padded(places)).collect();
                let mut block = [0u32; BLOCK];
                for start in (0..rows).step_by(BLOCK) {
                    let block = &mut block[..BLOCK.min(rows - start)];
                    match &small {
                        Some(places) => combine_bytes(block, places, codes, start),
                        None => combine(block, &places, codes, start),
                    }
                    match weights {
                        None => block.iter().for_each(|&combination| table[combination as usize] += 1),
                        Some(weights) => {
                            let weighted = block.iter().zip(&weights[start..]);
                            weighted.for_each(|(&combination, weight)| table[combination as usize] += weight);
                        }
                    }
                }
            }
            Self::Map(_) => {
                let mut block = [0u128; BLOCK];
                for start in (0..rows).step_by(BLOCK) {
                    let block = &mut block[..BLOCK.min(rows - start)];
                    combine(block, places, codes, start);
                    for (row, &combination) in (start..).zip(block.iter()) {
                        self.add(combination, weights.map_or(1, |weights| weights[row]))?;
                    }
                }
            }
        }
        Ok(())
    }

    /// The combinations that occur, with their counts, in no order.
    pub fn iter(&self) -> Box<dyn Iterator<Item = (u128, u64)> + '_> {
        match self {
            Self::Table(table) => Box::new((0u128..).zip(table.iter().copied()).filter(|(_, count)| *count > 0)),
            Self::Map(map) => Box::new(map.iter().map(|(&combination, &count)| (combination, count))),
        }
    }
}

/// The bits of each code, filled up to 256 codes; `None` where there are more.
fn padded(places: &[u32]) -> Option<Box<[u32; 256]>> {
    let mut table = Box::new([0; 256]);
    table.get_mut(..places.len())?.copy_from_slice(places);
    Some(table)
}

/// As [`combine`], for codes below 256: two columns at a time, so that the block is read and written half as often.
fn combine_bytes(block: &mut [u32], places: &[Box<[u32; 256]>], codes: &[&[u32]], start: usize) {
    block.fill(0);
    let columns: Vec<(&[u32; 256], &[u32])> =
        places.iter().map(|p| &**p).zip(codes.iter().map(|c| &c[start..])).collect();
    for pair in columns.chunks(2) {
        match pair {
            [(p, a), (q, b)] => {
                for ((combination, &a), &b) in block.iter_mut().zip(*a).zip(*b) {
                    *combination |= p[usize::from(a as u8)] | q[usize::from(b as u8)];
                }
            }
            _ => {
                for (p, a) in pair {
                    for (combination, &a) in block.iter_mut().zip(*a) {
                        *combination |= p[usize::from(a as u8)];
                    }
                }
            }
        }
    }
}

/// The combinations of a block of rows from `start` on: the bits of all columns together.
fn combine<T>(block: &mut [T], places: &[Vec<T>], codes: &[&[u32]], start: usize)
where
    T: Copy + Default + std::ops::BitOrAssign,
{
    block.fill(T::default());
    for (places, codes) in places.iter().zip(codes) {
        for (combination, &code) in block.iter_mut().zip(&codes[start..]) {
            *combination |= places[code as usize];
        }
    }
}
