//! Windows into images: what is left of an image when it is shifted, cropped, mirrored, or made brighter.
//!
//! Every image is described by its middle, three quarters of each side, on a grid of mean colours that is brought to mean 0
//! and deviation 1. The middle of an image that was shifted by up to an eighth of its side, or cropped and enlarged again,
//! is still in the copy, only elsewhere: some [`Window`] into the copy shows the same grid. [`coarse_windows`] are few, to
//! find the images worth a closer look; [`Aligner`] then moves a window to where it comes nearest to one of them.

use nalgebra::{Matrix3, Vector3};

use crate::nearest::distance;

/// Cells of the grid's side.
const CELLS: usize = 8;
/// Numbers of a description.
pub(crate) const WIDTH: usize = CELLS * CELLS * 3;
/// Cells of the coarse grid's side.
const COARSE_CELLS: usize = 6;
/// Numbers of a coarse description.
pub(crate) const COARSE_WIDTH: usize = COARSE_CELLS * COARSE_CELLS * 3;
/// Share of an image's side that a description covers.
const MIDDLE: f64 = 0.75;
/// A grid whose values deviate by less than this many grey levels is blank: there is nothing to compare.
const BLANK: f64 = 0.5;
/// Steps that [`Aligner`] takes at most, on the coarse grid and on the other.
const ROUGH_STEPS: usize = 4;
const STEPS: usize = 8;
/// It stops once a step brings the window no nearer than this.
const ENOUGH: f32 = 1e-4;
/// How far windows are moved to see what moving does, in shares of a side.
const NUDGE: f64 = 1.0 / 256.0;

/// A part of an image, in shares of its sides.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Window {
    x: f64,
    y: f64,
    side: f64,
    flip: bool,
}

impl Window {
    const MIDDLE: Self = Self { x: 0.5, y: 0.5, side: MIDDLE, flip: false };

    /// Moved and enlarged, and as far as needed pushed back into the image.
    fn moved(self, dx: f64, dy: f64, larger: f64) -> Self {
        let side = (self.side + larger).clamp(0.5, 1.0);
        let centre = |at: f64| at.clamp(side / 2.0, 1.0 - side / 2.0);
        Self { x: centre(self.x + dx), y: centre(self.y + dy), side, flip: self.flip }
    }
}

/// The windows in which a copy is looked for among all known images, as they are and mirrored. They lie so close that
/// moving the nearest of them a little finds any other.
pub(crate) fn coarse_windows() -> Vec<Window> {
    let offsets = [-0.075, -0.025, 0.025, 0.075];
    let one = |flip: bool, dx: f64, dy: f64| Window { side: 1.05 * MIDDLE, flip, ..Window::MIDDLE }.moved(dx, dy, 0.0);
    [false, true].into_iter().flat_map(|flip| offsets.map(|dy| offsets.map(|dx| one(flip, dx, dy)))).flatten().collect()
}

/// An image whose windows can be read off quickly, whatever their size.
pub(crate) struct Picture {
    width: usize,
    height: usize,
    /// Sums of all pixels above and left of each corner, `[height + 1, width + 1, 3]`.
    sums: Vec<f64>,
}

impl Picture {
    /// From pixels `[height, width, 3]`; missing ones count as black.
    pub(crate) fn new(image: &[u8], width: usize, height: usize) -> Self {
        let stride = 3 * (width + 1);
        let mut sums = vec![0.0; stride * (height + 1)];
        for y in 0..height {
            let mut row = [0.0; 3];
            for x in 0..width {
                for (c, sum) in row.iter_mut().enumerate() {
                    *sum += f64::from(image.get(3 * (y * width + x) + c).copied().unwrap_or(0));
                    sums[(y + 1) * stride + 3 * (x + 1) + c] = sums[y * stride + 3 * (x + 1) + c] + *sum;
                }
            }
        }
        Self { width, height, sums }
    }

    /// Mean colours of `cells * cells` parts of a window, `[cells, cells, 3]`, in 0..=255.
    fn means(&self, window: Window, cells: usize) -> Vec<f64> {
        let corners = |centre: f64, pixels: usize| -> Vec<(usize, f64)> {
            let (from, step) =
                ((centre - window.side / 2.0) * pixels as f64, window.side * pixels as f64 / cells as f64);
            let corner = |i: usize| {
                let at = (from + step * i as f64).clamp(0.0, pixels as f64);
                // The last corner lies at the end of the last pixel.
                let whole = (at.floor() as usize).min(pixels.saturating_sub(1));
                (whole, at - whole as f64)
            };
            (0..=cells).map(corner).collect()
        };
        let (xs, ys) = (corners(window.x, self.width), corners(window.y, self.height));
        let stride = 3 * (self.width + 1);
        // One row of corners after another; within a pixel the sums are bilinear.
        let row = |&(y, fy): &(usize, f64)| -> Vec<f64> {
            let (above, below) = (&self.sums[y * stride..][..stride], &self.sums[(y + 1) * stride..][..stride]);
            let at = |x: usize, c: usize| above[3 * x + c] * (1.0 - fy) + below[3 * x + c] * fy;
            xs.iter().flat_map(|&(x, fx)| [0, 1, 2].map(|c| at(x, c) * (1.0 - fx) + at(x + 1, c) * fx)).collect()
        };
        let area = (window.side / cells as f64).powi(2) * (self.width * self.height) as f64;
        let mut means = Vec::with_capacity(3 * cells * cells);
        let mut above = ys.first().map(row).unwrap_or_default();
        for y in ys.iter().skip(1) {
            let below = row(y);
            for cell in 0..cells {
                let x = if window.flip { cells - 1 - cell } else { cell };
                for c in 0..3 {
                    let (left, right) = (3 * x + c, 3 * (x + 1) + c);
                    means.push((below[right] - below[left] - above[right] + above[left]) / area);
                }
            }
            above = below;
        }
        means
    }

    /// The description of the image's middle.
    pub(crate) fn middle(&self) -> Vec<f32> {
        normalised(&self.means(Window::MIDDLE, CELLS))
    }

    /// The coarse description of the image's middle.
    pub(crate) fn coarse_middle(&self) -> Vec<f32> {
        normalised(&self.means(Window::MIDDLE, COARSE_CELLS))
    }

    /// The coarse descriptions of windows, one after another.
    pub(crate) fn coarse(&self, windows: &[Window]) -> Vec<f32> {
        windows.iter().flat_map(|&window| normalised(&self.means(window, COARSE_CELLS))).collect()
    }

    /// Brightness of `cells * cells` parts of the whole image, in 0..=255.
    pub(crate) fn brightness(&self, cells: usize) -> Vec<f64> {
        let means = self.means(Window { side: 1.0, ..Window::MIDDLE }, cells);
        means.chunks_exact(3).map(|rgb| 0.299 * rgb[0] + 0.587 * rgb[1] + 0.114 * rgb[2]).collect()
    }
}

/// Mean 0 and deviation 1; all 0 where there is nothing but one colour.
fn normalised(values: &[f64]) -> Vec<f32> {
    let count = values.len().max(1) as f64;
    let mean = values.iter().sum::<f64>() / count;
    let deviation = (values.iter().map(|value| (value - mean).powi(2)).sum::<f64>() / count).sqrt();
    let scale = if deviation < BLANK { 0.0 } else { 1.0 / deviation };
    values.iter().map(|value| ((value - mean) * scale) as f32).collect()
}

/// An image whose windows are moved to where they show what another image's middle shows.
pub(crate) struct Aligner(pub(crate) Picture);

impl Aligner {
    /// How near a window comes to a known image's coarse description once it is moved and enlarged, and where that is; none
    /// where the known image is blank.
    pub(crate) fn roughly(&self, coarse: &[f32], window: Window) -> Option<(f32, Window)> {
        (!blank(coarse)).then(|| self.align(coarse, COARSE_CELLS, ROUGH_STEPS, window))
    }

    /// The same for its description.
    pub(crate) fn closely(&self, middle: &[f32], window: Window) -> f32 {
        self.align(middle, CELLS, STEPS, window).0
    }

    /// Levenberg and Marquardt's method over a window's place and side.
    fn align(&self, wanted: &[f32], cells: usize, steps: usize, mut window: Window) -> (f32, Window) {
        let view = |window: Window| normalised(&self.0.means(window, cells));
        let products = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
        let mut damping = 1e-3;
        let mut seen = view(window);
        let mut least = distance(&seen, wanted);
        for _ in 0..steps {
            let nudges = [(NUDGE, 0.0, 0.0), (0.0, NUDGE, 0.0), (0.0, 0.0, NUDGE)];
            let changes = nudges.map(|(dx, dy, larger)| {
                let nudged = view(window.moved(dx, dy, larger));
                nudged.iter().zip(&seen).map(|(a, b)| f64::from(a - b) / NUDGE).collect::<Vec<f64>>()
            });
            let missing: Vec<f64> = wanted.iter().zip(&seen).map(|(a, b)| f64::from(a - b)).collect();
            let mut normal = Matrix3::from_fn(|i, j| products(&changes[i], &changes[j]));
            for i in 0..3 {
                // A window at the border, which cannot move that way, changes nothing.
                normal[(i, i)] = normal[(i, i)] * (1.0 + damping) + 1e-9;
            }
            let gradient = Vector3::from_fn(|i, _| products(&changes[i], &missing));
            let Some(step) = normal.lu().solve(&gradient) else { break };
            let moved = window.moved(step[0], step[1], step[2]);
            let there = view(moved);
            let away = distance(&there, wanted);
            if away < least {
                let gained = least - away;
                (least, window, seen, damping) = (away, moved, there, damping * 0.1);
                if gained < ENOUGH {
                    break;
                }
            } else {
                damping *= 30.0;
            }
        }
        (least, window)
    }
}

fn blank(description: &[f32]) -> bool {
    description.iter().all(|&value| value == 0.0)
}

#[cfg(test)]
mod tests {
    use evenset_core::Seed;

    use super::*;

    /// A smooth picture of `side` pixels, shifted right and down by whole pixels, in a brightness.
    fn picture(side: usize, shift: usize, gain: f64) -> Vec<u8> {
        let waves = Seed(5).normal(24);
        let value = |x: f64, y: f64, c: usize| -> f64 {
            (0..4)
                .map(|i| {
                    f64::from(waves[6 * i + c])
                        * (x * f64::from(waves[6 * i + 3]) + y * f64::from(waves[6 * i + 4])).sin()
                })
                .sum()
        };
        let at = |i: usize| (i + 20 - shift) as f64 / side as f64 * 9.0;
        let pixel = |y: usize, x: usize, c: usize| (128.0 + gain * value(at(x), at(y), c)).clamp(0.0, 255.0) as u8;
        (0..side * side * 3).map(|i| pixel(i / 3 / side, i / 3 % side, i % 3)).collect()
    }

    #[test]
    fn the_means_of_the_whole_image_are_those_of_its_pixels() {
        let image = picture(24, 0, 30.0);
        let found = Picture::new(&image, 24, 24).means(Window { side: 1.0, ..Window::MIDDLE }, 24);
        assert!(found.iter().zip(&image).all(|(mean, &pixel)| (mean - f64::from(pixel)).abs() < 1e-6));
        let flipped = Picture::new(&image, 24, 24).means(Window { side: 1.0, flip: true, ..Window::MIDDLE }, 24);
        assert!((flipped[0] - f64::from(image[3 * 23])).abs() < 1e-6);
    }

    #[test]
    fn a_window_finds_the_middle_of_a_shifted_and_brighter_copy() {
        let (image, copy) = (picture(28, 0, 30.0), picture(28, 2, 20.0));
        let middle = Picture::new(&image, 28, 28).middle();
        let aligner = Aligner(Picture::new(&copy, 28, 28));
        let start = coarse_windows()[0];
        let (roughly, window) = aligner.roughly(&Picture::new(&image, 28, 28).coarse_middle(), start).unwrap();
        let aligned = aligner.closely(&middle, window);
        assert!(roughly < 0.1 && aligned < 0.03, "{roughly} {aligned}");
        assert!(distance(&Picture::new(&copy, 28, 28).middle(), &middle) > 5.0 * aligned);
    }

    #[test]
    fn one_colour_is_blank_and_like_nothing() {
        let image = Picture::new(&picture(24, 0, 30.0), 24, 24);
        let one_colour = Picture::new(&[70; 24 * 24 * 3], 24, 24);
        assert!(blank(&one_colour.middle()) && !blank(&image.middle()));
        assert_eq!(Aligner(image).roughly(&one_colour.coarse_middle(), Window::MIDDLE), None);
    }
}
