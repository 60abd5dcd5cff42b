//! A result that several threads write, each its own part.

use std::ops::{Range, RangeInclusive};

/// The address of a result's first value.
///
/// Tasks that write columns of the same rows cannot each have a slice; they have this, and promise that no two of them
/// write the same value.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Target(*mut f32);

// SAFETY: an address; using it is unsafe in itself.
unsafe impl Send for Target {}
// SAFETY: as above.
unsafe impl Sync for Target {}

impl Target {
    pub(crate) fn new(values: &mut [f32]) -> Self {
        Self(values.as_mut_ptr())
    }

    /// The part of the result from value `offset` on.
    ///
    /// # Safety
    /// It lies inside the result.
    pub(crate) unsafe fn add(self, offset: usize) -> Self {
        // SAFETY: the caller's.
        Self(unsafe { self.0.add(offset) })
    }

    /// The address of value `offset`.
    ///
    /// # Safety
    /// It lies inside the result.
    pub(crate) unsafe fn at(self, offset: usize) -> *mut f32 {
        // SAFETY: the caller's.
        unsafe { self.0.add(offset) }
    }
}

/// Splits `count` things into ranges of nearly equal size, none larger than the end of `sizes`. Where there are several,
/// their number is a multiple of `threads`, so that all threads end together, unless that makes them smaller than the
/// start of `sizes`.
pub(crate) fn balanced(
    count: usize,
    sizes: RangeInclusive<usize>,
    threads: usize,
) -> impl Iterator<Item = Range<usize>> {
    let needed = count.div_ceil(*sizes.end()).max(1);
    let even = if needed > 1 { needed.next_multiple_of(threads.max(1)) } else { needed };
    let parts = even.min(needed.max(count / sizes.start()));
    (0..parts).map(move |part| part * count / parts..(part + 1) * count / parts)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_all_of_the_things_and_of_the_sizes_asked_for() {
        for (count, threads, expected) in
            [(0, 2, 1), (5, 2, 1), (60, 64, 1), (61, 2, 2), (64, 64, 2), (512, 2, 10), (9000, 64, 192)]
        {
            let ranges: Vec<_> = balanced(count, 24..=60, threads).collect();
            assert_eq!(ranges.len(), expected, "{count} {threads}");
            assert!(ranges.iter().all(|range| range.len() <= 60));
            assert_eq!(ranges.iter().map(ExactSizeIterator::len).sum::<usize>(), count);
            assert!(ranges.windows(2).all(|pair| pair[0].end == pair[1].start));
        }
    }
}
