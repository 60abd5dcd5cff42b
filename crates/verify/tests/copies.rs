//! Copies of training images that were mirrored, shifted, cropped, or made brighter are dropped; fresh images are kept at
//! the rate that `novelty` was calibrated for.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::sync::LazyLock;

use evenset_core::{Group, Seed, Silent};
use evenset_verify::{Candidate, GateConfig, ImageSet, RealImages, Verdict, Verifier};
use rand::RngExt;

const SIDE: usize = 24;
const REAL: u64 = 800;
const QUANTILE: f64 = 0.01;

/// Eight soft spots of light and dark in a tint: every `number` is another picture.
fn picture(number: u64) -> Vec<u8> {
    let mut rng = Seed(21).index(number).rng();
    let tint = if number.is_multiple_of(2) { [1.0, 0.6, 0.4] } else { [0.4, 0.7, 1.0] };
    let spots: Vec<[f64; 4]> = (0..8)
        .map(|_| {
            let sign = if rng.random_bool(0.5) { 60.0 } else { -60.0 };
            let (x, y) = (rng.random_range(0.0..24.0), rng.random_range(0.0..24.0));
            [x, y, rng.random_range(2.0..4.5), sign * rng.random_range(0.5..1.5f64)]
        })
        .collect();
    let mut pixels = Vec::with_capacity(SIDE * SIDE * 3);
    for i in 0..SIDE * SIDE {
        let (x, y) = ((i % SIDE) as f64, (i / SIDE) as f64);
        let light = |&[cx, cy, size, gain]: &[f64; 4]| {
            gain * (-((x - cx).powi(2) + (y - cy).powi(2)) / (2.0 * size * size)).exp()
        };
        let value = 130.0 + spots.iter().map(light).sum::<f64>() + rng.random_range(-3.0..3.0f64);
        pixels.extend(tint.map(|part| (value * part).clamp(0.0, 255.0) as u8));
    }
    pixels
}

fn group(number: u64) -> Group {
    Group::of("tint", if number.is_multiple_of(2) { "warm" } else { "cold" })
}

fn real() -> RealImages {
    RealImages {
        images: ImageSet::new(SIDE, SIDE, (0..REAL).flat_map(picture).collect()).unwrap(),
        attributes: vec![("tint".into(), vec!["warm".into(), "cold".into()])],
        labels: (0..REAL).map(|number| vec![Some((number % 2) as u32)]).collect(),
    }
}

static VERIFIER: LazyLock<Verifier> = LazyLock::new(|| {
    let gates = format!(
        r#"[{{"type":"attributes","steps":60,"width":4,"threshold":0}}, {{"type":"novelty","quantile":{QUANTILE}}}]"#
    );
    let gates: Vec<GateConfig> = serde_json::from_str(&gates).unwrap();
    Verifier::train(&real(), &gates, Seed(3), None, &Silent).unwrap()
});

/// The image where every pixel is read off another one at a place that need not be whole; beyond the border the border
/// goes on.
fn resampled(image: &[u8], place: impl Fn(f64, f64) -> (f64, f64)) -> Vec<u8> {
    let at = |x: usize, y: usize, c: usize| f64::from(image[3 * (y * SIDE + x) + c]);
    let pixel = |i: usize| {
        let (x, y) = place((i / 3 % SIDE) as f64, (i / 3 / SIDE) as f64);
        let (x, y, most) = (x.clamp(0.0, 23.0), y.clamp(0.0, 23.0), SIDE - 1);
        let (x0, y0, fx, fy) = (x as usize, y as usize, x.fract(), y.fract());
        let (x1, y1) = ((x0 + 1).min(most), (y0 + 1).min(most));
        let along = |y: usize| at(x0, y, i % 3) * (1.0 - fx) + at(x1, y, i % 3) * fx;
        (along(y0) * (1.0 - fy) + along(y1) * fy).round() as u8
    };
    (0..image.len()).map(pixel).collect()
}

/// A share of one to five parts of `of` that differs from number to number.
fn varied(number: u64, from: f64, to: f64) -> f64 {
    Seed(9).index(number).rng().random_range(from..to)
}

fn verify(pictures: Vec<(u64, Vec<u8>)>) -> Vec<Verdict> {
    let candidate = |(request_index, (number, rgb)): (usize, (u64, Vec<u8>))| Candidate {
        request_index,
        group: group(number),
        width: SIDE as u32,
        height: SIDE as u32,
        rgb,
        flaw: None,
    };
    let candidates: Vec<Candidate> = pictures.into_iter().enumerate().map(candidate).collect();
    VERIFIER.verify(&candidates, &[], &Silent).unwrap()
}

fn dropped_by_novelty(verdicts: &[Verdict]) -> usize {
    verdicts.iter().filter(|verdict| verdict.gate.as_deref() == Some("novelty")).count()
}

#[test]
fn changed_copies_are_dropped_at_least_nineteen_times_in_twenty() {
    type Change = fn(u64, &[u8]) -> Vec<u8>;
    let changes: [(&str, Change); 6] = [
        ("mirrored", |_, image| resampled(image, |x, y| (23.0 - x, y))),
        ("shifted", |number, image| {
            let (dx, dy) = ([(1.0, 0.0), (-1.0, 2.0), (2.0, -1.0), (0.0, -2.0), (2.0, 2.0)])[number as usize % 5];
            resampled(image, move |x, y| (x + dx, y + dy))
        }),
        ("cropped", |number, image| {
            let (share, corner) = (varied(number, 0.05, 0.10), varied(number + 9999, 0.0, 1.0));
            let from = 23.0 * share * corner;
            resampled(image, move |x, y| (from + x * (1.0 - share), from + y * (1.0 - share)))
        }),
        ("brighter or darker", |number, image| {
            let gain = varied(number, 0.8, 1.25);
            image.iter().map(|&value| (f64::from(value) * gain).clamp(0.0, 255.0) as u8).collect()
        }),
        ("mirrored and shifted", |_, image| resampled(image, |x, y| (23.0 - x + 1.0, y - 1.0))),
        ("noisy", |number, image| {
            let noise = Seed(8).index(number).normal(image.len());
            image
                .iter()
                .zip(noise)
                .map(|(&value, noise)| (f32::from(value) + 3.0 * noise).clamp(0.0, 255.0) as u8)
                .collect()
        }),
    ];
    let real = real();
    for (name, change) in changes {
        let rows = (0..REAL).step_by(7).map(|row| (row, change(row, real.images.image(row as usize))));
        let verdicts = verify(rows.collect());
        let dropped = dropped_by_novelty(&verdicts);
        assert!(20 * dropped >= 19 * verdicts.len(), "{name}: {dropped} of {}", verdicts.len());
    }
}

#[test]
fn fresh_pictures_are_dropped_no_more_often_than_the_calibrated_share() {
    let fresh = 500;
    let verdicts = verify((0..fresh).map(|i| (50_000 + i, picture(50_000 + i))).collect());
    let dropped = dropped_by_novelty(&verdicts);
    // The limits themselves are estimated from 800 images, and each candidate is compared with the kept ones too: twice
    // the share, and three deviations of a binomial of that share.
    let share = 2.0 * QUANTILE;
    let most = fresh as f64 * share + 3.0 * (fresh as f64 * share * (1.0 - share)).sqrt();
    assert!((dropped as f64) <= most, "{dropped} of {fresh}, at most {most:.0}");
}
