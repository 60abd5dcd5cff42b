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

/// Sums `length` values over images: `add` adds the share of some images to its part. Parts are the same images, and are
/// summed in the same order, for any number of threads.
pub(crate) fn sum_parts(batch: usize, length: usize, add: impl Fn(Range<usize>, &mut [f32]) + Sync) -> Vec<f32> {
    let per_part = batch.div_ceil(PARTS).max(1);
    let parts = batch.div_ceil(per_part);
    let mut sums = vec![0.0; parts * length];
    if length == 0 || parts == 0 {
        return vec![0.0; length];
    }
    sums.par_chunks_mut(length)
        .enumerate()
        .for_each(|(part, sums)| add(part * per_part..((part + 1) * per_part).min(batch), sums));
    let (total, others) = sums.split_at_mut(length);
    const BLOCK: usize = 1 << 12;
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
