//! Buffers that a thread keeps: fresh memory is zeroed page by page, which costs more than some kernels.

use std::cell::RefCell;

thread_local! {
    static FREE: RefCell<Vec<Vec<f32>>> = const { RefCell::new(Vec::new()) };
}

/// Calls `f` with buffers of the lengths asked for. Their contents are arbitrary.
pub(crate) fn with_scratch<const N: usize, T>(lengths: [usize; N], f: impl FnOnce([&mut [f32]; N]) -> T) -> T {
    // Taken out while in use: a thread that waits for others inside `f` may come here again.
    let mut buffers: [Vec<f32>; N] =
        FREE.with_borrow_mut(|free| std::array::from_fn(|_| free.pop().unwrap_or_default()));
    for (buffer, length) in buffers.iter_mut().zip(lengths) {
        if buffer.len() < length {
            buffer.resize(length, 0.0);
        }
    }
    let mut lengths = lengths.into_iter();
    let result = f(buffers.each_mut().map(|buffer| &mut buffer[..lengths.next().unwrap_or(0)]));
    FREE.with_borrow_mut(|free| free.extend(buffers.into_iter().rev()));
    result
}
