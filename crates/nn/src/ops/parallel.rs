//! How a batch is split among threads.

use std::ops::Range;

use rayon::prelude::*;

/// The most parts that [`sum_parts`] forms.
const PARTS: usize = 16;

/// Images that one task takes: few enough that all threads have work, many enough to prepare buffers seldom.
///
/// For results in which images do not meet; sums over images go through [`sum_parts`].
pub(crate) fn images_per_task(batch: usize) -> usize {
    (batch / (4 * rayon::current_num_threads())).clamp(1, 8)
}

/// Splits `batch` images into parts that do not depend on the number of threads: images of a part, and parts.
pub(crate) fn parts(batch: usize) -> (usize, usize) {
    let per_part = batch.div_ceil(PARTS).max(1);
    (per_part, batch.div_ceil(per_part))
}

/// Sums `length` values over images: `add` adds the share of some images to its part. Parts are the same images, and are
/// summed in the same order, for any number of threads.
pub(crate) fn sum_parts(batch: usize, length: usize, add: impl Fn(Range<usize>, &mut [f32]) + Sync) -> Vec<f32> {
    let (per_part, parts) = parts(batch);
    let mut sums = vec![0.0; parts * length];
    sums.par_chunks_mut(length.max(1))
        .enumerate()
        .for_each(|(part, sums)| add(part * per_part..((part + 1) * per_part).min(batch), sums));
    fold_parts(sums, length)
}

/// The sum of parts of `length` values each, in their order.
pub(crate) fn fold_parts(mut sums: Vec<f32>, length: usize) -> Vec<f32> {
    const BLOCK: usize = 1 << 12;
    if length == 0 || sums.is_empty() {
        return vec![0.0; length];
    }
    let (total, others) = sums.split_at_mut(length);
    total.par_chunks_mut(BLOCK).enumerate().for_each(|(block, total)| {
        for part in others.chunks_exact(length) {
            for (total, value) in total.iter_mut().zip(&part[block * BLOCK..]) {
                *total += value;
            }
        }
    });
    sums.truncate(length);
    sums
}
