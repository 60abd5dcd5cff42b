//! Which training images come next, and how they are changed at random.

use std::borrow::Cow;

use evenset_core::Seed;
use rand::RngExt;
use serde::{Deserialize, Serialize};

/// No image is shifted farther, in pixels.
const FARTHEST_SHIFT: usize = 1 << 12;

/// How training images are drawn.
#[derive(Clone, Debug, PartialEq)]
pub enum Sampling {
    /// Every image once before any comes again.
    Uniform,
    /// Independent draws with probabilities proportional to these, one for each image.
    Weighted(Vec<f64>),
}

/// Random changes to training images that keep their meaning.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Augment {
    /// Whether half of the images are mirrored left to right.
    pub flip: bool,
    /// The farthest shift in either direction, in pixels; the edge's pixels fill the gap.
    pub shift: u32,
}

impl Augment {
    /// Images as they are.
    pub fn none() -> Self {
        Self { flip: false, shift: 0 }
    }

    /// Mirroring, and shifts of up to a fourteenth of the width (two pixels of 28).
    pub fn standard(width: usize) -> Self {
        Self { flip: true, shift: (width / 14).clamp(1, FARTHEST_SHIFT) as u32 }
    }
}

/// Which training images come next.
#[derive(Debug)]
pub(super) enum Rows {
    /// A shuffled order of all images, shuffled afresh when it runs out.
    Uniform { order: Vec<usize>, next: usize, epoch: u64, seed: Seed },
    /// The sums of the weights up to and with each image.
    Weighted { sums: Vec<f64>, step: u64, seed: Seed },
}

impl Rows {
    pub(super) fn new(images: usize, sampling: &Sampling, seed: Seed) -> Self {
        match sampling {
            Sampling::Uniform => Self::Uniform { order: (0..images).collect(), next: images, epoch: 0, seed },
            Sampling::Weighted(weights) => {
                let add = |sum: &mut f64, weight: &f64| {
                    *sum += weight;
                    Some(*sum)
                };
                Self::Weighted { sums: weights.iter().scan(0.0, add).collect(), step: 0, seed }
            }
        }
    }

    /// The next `batch` rows.
    pub(super) fn next(&mut self, batch: usize) -> Vec<usize> {
        match self {
            Self::Uniform { order, next, epoch, seed } => (0..batch)
                .map(|_| {
                    if *next == order.len() {
                        seed.index(*epoch).shuffle(order);
                        (*next, *epoch) = (0, *epoch + 1);
                    }
                    *next += 1;
                    order[*next - 1]
                })
                .collect(),
            Self::Weighted { sums, step, seed } => {
                let mut rng = seed.index(*step).rng();
                *step += 1;
                let total = sums.last().copied().unwrap_or_default();
                let mut draw = || {
                    let at = rng.random::<f64>() * total;
                    sums.partition_point(|&sum| sum <= at).min(sums.len() - 1)
                };
                (0..batch).map(|_| draw()).collect()
            }
        }
    }
}

/// One image's random change.
#[derive(Clone, Copy, PartialEq)]
pub(super) struct Change {
    flip: bool,
    right: isize,
    down: isize,
}

impl Change {
    /// No change.
    pub(super) fn none() -> Self {
        Self { flip: false, right: 0, down: 0 }
    }

    /// An image of `[height, width, 3]` after the change.
    pub(super) fn applied(self, pixels: &[u8], (width, height): (usize, usize)) -> Cow<'_, [u8]> {
        if !self.flip && (self.right, self.down) == (0, 0) {
            return Cow::Borrowed(pixels);
        }
        let places = (0..height).flat_map(|y| (0..width).map(move |x| (x, y)));
        let from = |(x, y)| 3 * (self.source_row(y, height) * width + self.source_column(x, width));
        places.map(from).flat_map(|from| &pixels[from..from + 3]).copied().collect::<Vec<u8>>().into()
    }

    pub(super) fn draw(augment: Augment, seed: Seed) -> Self {
        if augment == Augment::none() {
            return Self::none();
        }
        let mut rng = seed.rng();
        let shift = augment.shift.min(FARTHEST_SHIFT as u32) as i32;
        let flip = augment.flip && rng.random::<bool>();
        let mut draw = || rng.random_range(-shift..=shift) as isize;
        Self { flip, right: draw(), down: draw() }
    }

    pub(super) fn source_row(self, y: usize, height: usize) -> usize {
        y.saturating_add_signed(-self.down).min(height - 1)
    }

    pub(super) fn source_column(self, x: usize, width: usize) -> usize {
        let x = x.saturating_add_signed(-self.right).min(width - 1);
        if self.flip { width - 1 - x } else { x }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn uniform_rows_come_once_an_epoch_and_weighted_rows_as_often_as_their_weights_say() {
        let mut rows = Rows::new(10, &Sampling::Uniform, Seed(2));
        let mut epoch = rows.next(10);
        assert_ne!(epoch, (0..10).collect::<Vec<_>>());
        epoch.sort_unstable();
        assert_eq!(epoch, (0..10).collect::<Vec<_>>());
        let mut rows = Rows::new(3, &Sampling::Weighted(vec![3.0, 0.0, 1.0]), Seed(2));
        let drawn = rows.next(4000);
        let count = |row| drawn.iter().filter(|&&drawn| drawn == row).count();
        // Binomial(4000, 1/4): standard deviation 27; four of them.
        assert!(count(1) == 0 && count(2).abs_diff(1000) < 110, "{}", count(2));
    }

    #[test]
    fn a_shift_repeats_the_edge_and_a_flip_mirrors() {
        let change = Change { flip: false, right: 2, down: -1 };
        assert_eq!((0..4).map(|x| change.source_column(x, 4)).collect::<Vec<_>>(), [0, 0, 0, 1]);
        assert_eq!((0..3).map(|y| change.source_row(y, 3)).collect::<Vec<_>>(), [1, 2, 2]);
        let mirrored = Change { flip: true, right: 0, down: 0 };
        assert_eq!((0..4).map(|x| mirrored.source_column(x, 4)).collect::<Vec<_>>(), [3, 2, 1, 0]);
    }
}
