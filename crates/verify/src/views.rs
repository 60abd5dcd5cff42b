//! Windows into images: what is left of an image when it is shifted, cropped, mirrored, or made brighter.
//!
//! Every image is described by its middle, three quarters of each side, on a grid of mean colours that is brought to mean 0
//! and deviation 1. The middle of an image that was shifted by up to an eighth of its side, or cropped and enlarged again,
//! is still in the copy, only elsewhere: some [`Window`] into the copy shows the same grid. [`coarse_windows`] are few, to
//! find the images worth a closer look; [`fine_windows`] and [`align`] take that look.

use nalgebra::{Matrix3, Vector3};

use crate::nearest::{Points, distance};

/// Cells of the grid's side.
const CELLS: usize = 12;
/// Numbers of a description.
pub(crate) const WIDTH: usize = CELLS * CELLS * 3;
/// Cells of the coarse grid's side.
const COARSE_CELLS: usize = CELLS / 2;
/// Numbers of a coarse description.
pub(crate) const COARSE_WIDTH: usize = COARSE_CELLS * COARSE_CELLS * 3;
/// Share of an image's side that a description covers.
const MIDDLE: f64 = 0.75;
/// A grid whose values deviate by less than this many grey levels is blank: there is nothing to compare.
const BLANK: f64 = 0.5;
/// Steps that [`Aligner::align`] takes at most.
const STEPS: usize = 8;
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

/// Windows a step apart, up to `reach` steps from the middle in each direction, as they are and mirrored.
fn windows(side: f64, step: f64, reach: i32) -> impl Iterator<Item = Window> {
    let offsets = move || (-reach..=reach).map(move |i| step * f64::from(i));
    let one = move |flip| Window { side, flip, ..Window::MIDDLE };
    [false, true]
        .into_iter()
        .flat_map(move |flip| offsets().flat_map(move |dy| offsets().map(move |dx| one(flip).moved(dx, dy, 0.0))))
}

/// The windows in which a copy is looked for among all known images.
pub(crate) fn coarse_windows() -> Vec<Window> {
    windows(MIDDLE * 1.05, 0.075, 1).collect()
}

/// The windows in which it is looked for in a few.
fn fine_windows() -> Vec<Window> {
    let sixteenth = 1.0 / 16.0;
    let enlarged = |by: f64| windows(MIDDLE * by, sixteenth * 0.8, 1);
    windows(MIDDLE, sixteenth, 2).chain(enlarged(1.08)).chain(enlarged(1.18)).collect()
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

    /// The coarse descriptions of the coarse windows, one after another.
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

/// The coarse descriptions of images from their descriptions.
pub(crate) fn coarse_of(middles: &Points) -> Points {
    let mut values = Vec::with_capacity(middles.len() * COARSE_WIDTH);
    for row in 0..middles.len() {
        values.extend(coarse_of_one(middles.row(row)));
    }
    Points::new(values, COARSE_WIDTH)
}

/// The coarse description of an image from its description.
pub(crate) fn coarse_of_one(middle: &[f32]) -> Vec<f32> {
    let mut means = Vec::with_capacity(COARSE_WIDTH);
    for y in 0..COARSE_CELLS {
        for x in 0..COARSE_CELLS {
            let at = |dy: usize, dx: usize, c: usize| f64::from(middle[3 * ((2 * y + dy) * CELLS + 2 * x + dx) + c]);
            means.extend([0, 1, 2].map(|c| (at(0, 0, c) + at(0, 1, c) + at(1, 0, c) + at(1, 1, c)) / 4.0));
        }
    }
    let deviation = (means.iter().map(|value| value * value).sum::<f64>() / COARSE_WIDTH as f64).sqrt();
    let scale = if deviation < 1e-6 { 0.0 } else { 1.0 / deviation };
    means.iter().map(|value| (value * scale) as f32).collect()
}

/// An image seen through all fine windows, to be held against a few known ones.
pub(crate) struct Aligner {
    picture: Picture,
    /// What each fine window shows.
    seen: Vec<(Window, Vec<f32>)>,
    /// The same on the coarse grid.
    coarse: Vec<Vec<f32>>,
}

impl Aligner {
    pub(crate) fn new(picture: Picture) -> Self {
        let seen = fine_windows();
        let seen = seen.into_iter().map(|window| (window, normalised(&picture.means(window, CELLS))));
        // A window that shows one colour shows no likeness.
        let seen: Vec<(Window, Vec<f32>)> = seen.filter(|(_, view)| !blank(view)).collect();
        let coarse = seen.iter().map(|(_, view)| coarse_of_one(view)).collect();
        Self { picture, seen, coarse }
    }

    /// How near any of the fine windows comes to a known image's `coarse` description; none where either is blank.
    pub(crate) fn glance(&self, coarse: &[f32]) -> Option<f32> {
        if blank(coarse) {
            return None;
        }
        self.coarse.iter().map(|view| distance(view, coarse)).min_by(f32::total_cmp)
    }

    /// How near any of them comes to a known image's `middle`, and the window; none where either is blank.
    pub(crate) fn look(&self, middle: &[f32]) -> Option<(f32, Window)> {
        if blank(middle) {
            return None;
        }
        let measured = self.seen.iter().map(|(window, view)| (distance(view, middle), *window));
        measured.fold(None, |best, this| if best.is_none_or(|(least, _)| this.0 < least) { Some(this) } else { best })
    }

    /// The distance to `middle` after the window was moved and enlarged to where it comes nearest (Levenberg and
    /// Marquardt's method over its place and side).
    pub(crate) fn align(&self, middle: &[f32], (mut least, mut window): (f32, Window)) -> f32 {
        let view = |window: Window| normalised(&self.picture.means(window, CELLS));
        let mut damping = 1e-3;
        let mut seen = view(window);
        for _ in 0..STEPS {
            let nudges = [(NUDGE, 0.0, 0.0), (0.0, NUDGE, 0.0), (0.0, 0.0, NUDGE)];
            let changes = nudges.map(|(dx, dy, larger)| {
                let nudged = view(window.moved(dx, dy, larger));
                nudged.iter().zip(&seen).map(|(a, b)| f64::from(a - b) / NUDGE).collect::<Vec<f64>>()
            });
            let products = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
            let missing: Vec<f64> = middle.iter().zip(&seen).map(|(a, b)| f64::from(a - b)).collect();
            let mut normal = Matrix3::from_fn(|i, j| products(&changes[i], &changes[j]));
            for i in 0..3 {
                // A window that cannot move that way changes nothing.
                normal[(i, i)] = normal[(i, i)] * (1.0 + damping) + 1e-9;
            }
            let wanted = Vector3::from_fn(|i, _| products(&changes[i], &missing));
            let Some(step) = normal.lu().solve(&wanted) else { break };
            let moved = window.moved(step[0], step[1], step[2]);
            let there = view(moved);
            let away = distance(&there, middle);
            if away < least {
                let gained = least - away;
                (least, window, seen, damping) = (away, moved, there, damping * 0.1);
                if gained < 1e-4 {
                    break;
                }
            } else {
                damping *= 30.0;
            }
        }
        least
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
        let aligner = Aligner::new(Picture::new(&copy, 28, 28));
        let seen = aligner.look(&middle).unwrap();
        let aligned = aligner.align(&middle, seen);
        assert!(aligned < 0.03 && aligned <= seen.0, "{aligned} {seen:?}");
        assert!(distance(&Picture::new(&copy, 28, 28).middle(), &middle) > 5.0 * aligned);
    }

    #[test]
    fn a_coarse_description_is_that_of_the_coarse_grid_and_one_colour_is_blank() {
        let image = Picture::new(&picture(24, 0, 30.0), 24, 24);
        let direct = normalised(&image.means(Window::MIDDLE, COARSE_CELLS));
        assert!(distance(&coarse_of_one(&image.middle()), &direct) < 1e-5);
        let one_colour = Picture::new(&[70; 24 * 24 * 3], 24, 24);
        assert_eq!(Aligner::new(one_colour).look(&image.middle()), None);
    }
}
