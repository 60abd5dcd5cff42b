//! Trivial cues: what a picture is like whatever it shows. If these tell generated images from real ones, so will whatever
//! is trained on both.

use std::f64::consts::PI;

/// The cues' names, in their order.
pub(crate) const CUES: [&str; 20] = [
    "mean red",
    "mean green",
    "mean blue",
    "contrast in red",
    "contrast in green",
    "contrast in blue",
    "saturation",
    "border brightness",
    "border contrast",
    "sharpness",
    "noise",
    "edges",
    "low frequencies",
    "middle frequencies",
    "high frequencies",
    "blockiness",
    "exact black",
    "exact white",
    "grey levels",
    "border against middle",
];
/// Neighbours that differ by more grey levels than this are an edge.
const EDGE: f64 = 32.0;
/// The side of JPEG's blocks.
const BLOCK: usize = 8;

/// The cues of an image, `[height, width, 3]`.
pub(crate) fn cues(image: &[u8], width: usize, height: usize) -> Vec<f64> {
    let pixels: Vec<[f64; 3]> = image.chunks_exact(3).map(|p| [p[0], p[1], p[2]].map(f64::from)).collect();
    if pixels.len() != width * height || pixels.is_empty() {
        return vec![0.0; CUES.len()];
    }
    let grey: Vec<f64> = pixels.iter().map(|p| 0.299 * p[0] + 0.587 * p[1] + 0.114 * p[2]).collect();
    let colours = [0, 1, 2].map(|c| moments(pixels.iter().map(move |pixel| pixel[c])));
    let saturation = mean(pixels.iter().map(|p| {
        let (least, most) = (p[0].min(p[1]).min(p[2]), p[0].max(p[1]).max(p[2]));
        if most > 0.0 { (most - least) / most } else { 0.0 }
    }));
    let on_border =
        |i: usize| i.is_multiple_of(width) || i % width == width - 1 || i < width || i >= width * (height - 1);
    let (border, border_contrast) = moments((0..grey.len()).filter(|&i| on_border(i)).map(|i| grey[i]));
    let middle = mean((0..grey.len()).filter(|&i| !on_border(i)).map(|i| grey[i]));

    let mut curvatures = Vec::with_capacity(grey.len());
    for y in 1..height.saturating_sub(1) {
        for x in 1..width.saturating_sub(1) {
            let at = |dx: usize, dy: usize| grey[(y + dy - 1) * width + x + dx - 1];
            curvatures.push((4.0 * at(1, 1) - at(0, 1) - at(2, 1) - at(1, 0) - at(1, 2)).abs());
        }
    }
    let energy = mean(curvatures.iter().map(|value| value * value));
    curvatures.sort_by(f64::total_cmp);
    // The median hardly sees edges: it is what fills the areas between them.
    let noise = curvatures.get(curvatures.len() / 2).copied().unwrap_or(0.0);

    let steps: Vec<(f64, usize)> = steps(&grey, width, height);
    let edges = mean(steps.iter().map(|&(step, _)| f64::from(u8::from(step > EDGE))));
    let between = |at_block: bool| {
        mean(steps.iter().filter(|(_, at)| at.is_multiple_of(BLOCK) == at_block).map(|&(step, _)| step))
    };
    let bands = bands(&grey, width, height).map(|energy| (energy + 1e-2).ln());
    let share = |value: u8| mean(image.iter().map(|&pixel| f64::from(u8::from(pixel == value))));
    let mut levels = [false; 256];
    image.iter().for_each(|&value| levels[usize::from(value)] = true);
    let levels = levels.iter().filter(|&&met| met).count() as f64;
    vec![
        colours[0].0,
        colours[1].0,
        colours[2].0,
        colours[0].1,
        colours[1].1,
        colours[2].1,
        saturation,
        border,
        border_contrast,
        (energy + 1e-2).ln(),
        (noise + 0.1).ln(),
        edges,
        bands[0],
        bands[1],
        bands[2],
        ((between(true) + 0.1) / (between(false) + 0.1)).ln(),
        share(0),
        share(255),
        levels,
        border - middle,
    ]
}

/// Absolute differences of neighbours, with the place of the second along the direction they are neighbours in.
fn steps(grey: &[f64], width: usize, height: usize) -> Vec<(f64, usize)> {
    let mut steps = Vec::with_capacity(2 * grey.len());
    for y in 0..height {
        for x in 0..width {
            let here = grey[y * width + x];
            if x > 0 {
                steps.push(((here - grey[y * width + x - 1]).abs(), x));
            }
            if y > 0 {
                steps.push(((here - grey[(y - 1) * width + x]).abs(), y));
            }
        }
    }
    steps
}

/// Mean energy of low, middle and high frequencies over the blocks of 8 by 8 that fit into the image, by the discrete
/// cosine transform; 0 where none fits.
fn bands(grey: &[f64], width: usize, height: usize) -> [f64; 3] {
    let mut basis = [[0.0; BLOCK]; BLOCK];
    for (k, row) in basis.iter_mut().enumerate() {
        let scale = if k == 0 { (1.0 / BLOCK as f64).sqrt() } else { (2.0 / BLOCK as f64).sqrt() };
        for (x, value) in row.iter_mut().enumerate() {
            *value = scale * (PI / BLOCK as f64 * (x as f64 + 0.5) * k as f64).cos();
        }
    }
    let (mut sums, mut counts) = ([0.0; 3], [0.0f64; 3]);
    for top in (0..(height + 1).saturating_sub(BLOCK)).step_by(BLOCK) {
        for left in (0..(width + 1).saturating_sub(BLOCK)).step_by(BLOCK) {
            let rows: [[f64; BLOCK]; BLOCK] = std::array::from_fn(|y| {
                let row = &grey[(top + y) * width + left..][..BLOCK];
                basis.map(|wave| row.iter().zip(wave).map(|(value, wave)| value * wave).sum())
            });
            for (v, wave) in basis.iter().enumerate() {
                for u in 0..BLOCK {
                    let value: f64 = rows.iter().zip(wave).map(|(row, wave)| row[u] * wave).sum();
                    let band = match u + v {
                        0 => continue,
                        1..=3 => 0,
                        4..=7 => 1,
                        _ => 2,
                    };
                    sums[band] += value * value;
                    counts[band] += 1.0;
                }
            }
        }
    }
    std::array::from_fn(|band| sums[band] / counts[band].max(1.0))
}

fn mean(values: impl Iterator<Item = f64>) -> f64 {
    let (sum, count) = values.fold((0.0, 0.0f64), |(sum, count), value| (sum + value, count + 1.0));
    sum / count.max(1.0)
}

/// Mean and standard deviation.
fn moments(values: impl Iterator<Item = f64> + Clone) -> (f64, f64) {
    let middle = mean(values.clone());
    (middle, mean(values.map(|value| (value - middle).powi(2))).sqrt())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cue(image: &[u8], side: usize, name: &str) -> f64 {
        cues(image, side, side)[CUES.iter().position(|&cue| cue == name).unwrap()]
    }

    #[test]
    fn each_cue_sees_what_it_is_named_after() {
        let side = 24;
        let grey = |level: &dyn Fn(usize, usize) -> u8| -> Vec<u8> {
            (0..side * side).flat_map(|i| [level(i % side, i / side); 3]).collect()
        };
        let flat = grey(&|_, _| 90);
        let checks = grey(&|x, y| if (x + y) % 2 == 0 { 60 } else { 120 });
        let blocks = grey(&|x, y| if (x / 8 + y / 8) % 2 == 0 { 60 } else { 120 });
        for name in ["high frequencies", "sharpness", "edges", "noise"] {
            assert!(cue(&checks, side, name) > cue(&flat, side, name), "{name}");
        }
        assert!(cue(&blocks, side, "blockiness") > 3.0 && cue(&checks, side, "blockiness").abs() < 0.1);
        let red: Vec<u8> = [200, 0, 0].repeat(side * side);
        assert_eq!((cue(&red, side, "saturation"), cue(&red, side, "mean red")), (1.0, 200.0));
        assert!((cue(&red, side, "exact black") - 2.0 / 3.0).abs() < 1e-12);
        let framed = grey(&|x, y| if x == 0 || y == 0 || x == 23 || y == 23 { 255 } else { 50 });
        assert_eq!(
            (cue(&framed, side, "border brightness").round(), cue(&framed, side, "border against middle").round()),
            (255.0, 205.0)
        );
        assert!(cues(&[9; 4 * 4 * 3], 4, 4).iter().all(|value| value.is_finite()), "smaller than a block");
        assert!(cues(&[], 0, 0).iter().all(|value| value.is_finite()));
    }
}
