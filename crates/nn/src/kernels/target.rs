//! A result that several threads write, each its own part.

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

/// Splits `count` things into ranges of nearly equal size, each at most `most`; a multiple of `threads` of them where
/// there are more than those, so that all threads end together.
pub(crate) fn balanced(
    count: usize,
    most: usize,
    threads: usize,
) -> impl Iterator<Item = std::ops::Range<usize>> + Clone {
    let parts = count.div_ceil(most.max(1)).max(1);
    let parts = if parts > 1 { parts.next_multiple_of(threads.max(1)) } else { parts };
    (0..parts).map(move |part| part * count / parts..(part + 1) * count / parts)
}
