//! Memory that is used again instead of being given back.
//!
//! A network asks for the same large blocks at every step. The system hands out each of them page by page, zeroed, when
//! it is first touched, which costs as much as the lighter operations themselves. [`Recycler`] keeps freed blocks.

use std::alloc::{GlobalAlloc, Layout, System};
use std::ptr::null_mut;
use std::sync::{Mutex, PoisonError};

/// Blocks from this size on are kept.
const SMALLEST: usize = 1 << 16;

/// Four classes of sizes between a power of two and the next.
const CLASSES: usize = 4 * 24;

/// The most bytes that are kept at a time, beside what is in use.
const KEPT: usize = 1 << 29;

/// An allocator that keeps freed blocks of 64 KiB and more, up to 512 MiB, for the next request of their size.
///
/// For binaries that run networks: `#[global_allocator] static MEMORY: Recycler = Recycler::new();`. Small blocks, and
/// large ones that are not at hand, come from the system's allocator.
#[derive(Debug)]
pub struct Recycler {
    free: Mutex<Free>,
}

#[derive(Debug)]
struct Free {
    /// Kept blocks of each class: each holds the address of the next in its first bytes.
    first: [*mut u8; CLASSES],
    bytes: usize,
    /// The class that gave up a block last.
    next: usize,
}

// SAFETY: the addresses belong to blocks that nobody else has.
unsafe impl Send for Free {}

impl Recycler {
    /// An allocator that keeps nothing yet.
    pub const fn new() -> Self {
        Self { free: Mutex::new(Free { first: [null_mut(); CLASSES], bytes: 0, next: 0 }) }
    }

    fn take(&self, class: usize, size: usize) -> Option<*mut u8> {
        let mut free = self.free.lock().unwrap_or_else(PoisonError::into_inner);
        let block = free.first[class];
        if block.is_null() {
            return None;
        }
        // SAFETY: a kept block holds an address in its first bytes, and blocks are aligned for one.
        free.first[class] = unsafe { block.cast::<*mut u8>().read() };
        free.bytes -= size;
        Some(block)
    }

    /// Keeps a block, and gives others back to the system where too much would be kept; false where it alone is too much.
    ///
    /// # Safety
    /// The block is of this class, came from the system's allocator with the class's layout, and nobody uses it.
    unsafe fn keep(&self, class: usize, size: usize, block: *mut u8) -> bool {
        if size > KEPT {
            return false;
        }
        let mut free = self.free.lock().unwrap_or_else(PoisonError::into_inner);
        while free.bytes + size > KEPT {
            // Other classes in turn: what was of use in another part of the work must not fill the store for ever.
            free.next = (free.next + 1) % CLASSES;
            let other = free.next;
            let oldest = free.first[other];
            if !oldest.is_null() {
                let layout = block_layout(other);
                // SAFETY: a kept block holds an address in its first bytes and has its class's layout.
                unsafe {
                    free.first[other] = oldest.cast::<*mut u8>().read();
                    System.dealloc(oldest, layout);
                }
                free.bytes -= layout.size();
            }
        }
        // SAFETY: the block is larger than an address, aligned for one, and its owner has given it up.
        unsafe { block.cast::<*mut u8>().write(free.first[class]) };
        free.first[class] = block;
        free.bytes += size;
        true
    }
}

impl Default for Recycler {
    fn default() -> Self {
        Self::new()
    }
}

/// What blocks are aligned to: a line of the cache and the widest vector.
const ALIGNMENT: usize = 64;

/// The class of a request, and the layout of the blocks that serve it.
fn class(layout: Layout) -> Option<(usize, Layout)> {
    if layout.size() < SMALLEST || layout.align() > ALIGNMENT {
        return None;
    }
    let octave = layout.size().ilog2();
    let size = layout.size().checked_next_multiple_of(1 << (octave - 2))?;
    let octave = size.ilog2();
    let class = 4 * (octave - SMALLEST.ilog2()) as usize + ((size >> (octave - 2)) & 3);
    (class < CLASSES).then(|| (class, block_layout(class)))
}

/// The layout of a class's blocks.
fn block_layout(class: usize) -> Layout {
    let size = (4 + class % 4) << (SMALLEST.ilog2() as usize - 2 + class / 4);
    // SAFETY: the alignment is a power of two, and even the largest class is far below the largest size.
    unsafe { Layout::from_size_align_unchecked(size, ALIGNMENT) }
}

// SAFETY: a block comes from the system's allocator with its class's layout, or from those that came so and were freed;
// `dealloc` and `realloc` find the same class from the same layout.
unsafe impl GlobalAlloc for Recycler {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller's.
        unsafe {
            match class(layout) {
                None => System.alloc(layout),
                Some((class, layout)) => self.take(class, layout.size()).unwrap_or_else(|| System.alloc(layout)),
            }
        }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller's; a kept block has at least the size of the request.
        unsafe {
            match class(layout) {
                None => System.alloc_zeroed(layout),
                Some((class, whole)) => match self.take(class, whole.size()) {
                    Some(block) => {
                        block.write_bytes(0, layout.size());
                        block
                    }
                    None => System.alloc_zeroed(whole),
                },
            }
        }
    }

    unsafe fn realloc(&self, block: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        // SAFETY: the caller's: the size is not zero and does not overflow with the alignment.
        unsafe {
            let new = Layout::from_size_align_unchecked(size, layout.align());
            match (class(layout), class(new)) {
                (None, None) => System.realloc(block, layout, size),
                (Some((old, _)), Some((new, _))) if old == new => block,
                _ => {
                    let moved = self.alloc(new);
                    if !moved.is_null() {
                        block.copy_to_nonoverlapping(moved, layout.size().min(size));
                        self.dealloc(block, layout);
                    }
                    moved
                }
            }
        }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        // SAFETY: the caller's: the block came from here with this layout.
        unsafe {
            match class(layout) {
                None => System.dealloc(block, layout),
                Some((class, layout)) => {
                    if !self.keep(class, layout.size(), block) {
                        System.dealloc(block, layout);
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn classes_hold_their_requests_and_waste_at_most_a_quarter() {
        for size in (SMALLEST..1 << 22).step_by(4093).chain([SMALLEST, (1 << 20) - 1, 1 << 20, 1 << 33]) {
            let layout = Layout::from_size_align(size, 4).unwrap();
            let (index, block) = class(layout).unwrap();
            assert!(block.size() >= size && block.size() <= size + size / 4, "{size}: {}", block.size());
            assert_eq!(class(block).unwrap(), (index, block), "{size}");
        }
        assert!(class(Layout::from_size_align(SMALLEST - 1, 4).unwrap()).is_none());
        assert!(class(Layout::from_size_align(1 << 20, 4096).unwrap()).is_none());
    }

    #[test]
    fn a_freed_block_comes_back_and_is_zeroed_where_that_is_asked() {
        let memory = Recycler::new();
        let layout = Layout::from_size_align(100_000, 4).unwrap();
        // SAFETY: every block is used within its layout and freed once.
        unsafe {
            let first = memory.alloc(layout);
            first.write_bytes(7, layout.size());
            memory.dealloc(first, layout);
            let second = memory.alloc_zeroed(Layout::from_size_align(99_000, 4).unwrap());
            assert_eq!(second, first);
            assert!(std::slice::from_raw_parts(second, 99_000).iter().all(|byte| *byte == 0));
            let third = memory.alloc(layout);
            assert_ne!(third, second);
            third.write_bytes(3, 100_000);
            let third = memory.realloc(third, layout, 101_000);
            let third = memory.realloc(third, Layout::from_size_align(101_000, 4).unwrap(), 1 << 20);
            assert!(std::slice::from_raw_parts(third, 100_000).iter().all(|byte| *byte == 3));
            let third = memory.realloc(third, Layout::from_size_align(1 << 20, 4).unwrap(), 100_000);
            assert!(std::slice::from_raw_parts(third, 100_000).iter().all(|byte| *byte == 3));
            memory.dealloc(second, layout);
            memory.dealloc(third, layout);
        }
    }

    #[test]
    fn what_is_kept_stays_below_the_cap_and_the_newest_is_kept() {
        let memory = Recycler::new();
        let sizes = [KEPT / 4, KEPT / 2, KEPT / 3, KEPT / 5, KEPT, KEPT / 8];
        for size in sizes {
            let layout = Layout::from_size_align(size, 4).unwrap();
            // SAFETY: the block is not used and freed once.
            unsafe { memory.dealloc(memory.alloc(layout), layout) };
            let (index, block) = class(layout).unwrap();
            let free = memory.free.lock().unwrap();
            assert!(free.bytes <= KEPT && free.first[index].is_null() == (block.size() > KEPT), "{size}");
        }
    }
}
