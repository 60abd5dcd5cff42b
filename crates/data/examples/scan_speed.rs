//! How many small PNGs a second are listed, hashed, read, named and decoded.
//!
//! `cargo run --release -p evenset-data --example scan_speed [FOLDER]` makes 10,000 PNGs of 28 x 28 pixels in a
//! temporary folder, or takes an image folder that exists.
#![allow(clippy::print_stdout)]

use std::path::Path;
use std::time::Instant;

use evenset_core::{SampleId, Seed};
use evenset_data::{DataError, Dataset, DatasetSpec, Limits, decode, encode_png};
use rayon::prelude::*;

const IMAGES: u64 = 10_000;
const SIDE: u32 = 28;

fn main() -> Result<(), DataError> {
    let given = std::env::args_os().nth(1);
    let temporary = tempfile::tempdir().map_err(|error| DataError::io(&std::env::temp_dir(), error))?;
    let folder = given.as_deref().map_or(temporary.path(), Path::new);
    if given.is_none() {
        make_images(folder)?;
    }
    let begin = Instant::now();
    let dataset = Dataset::open(&DatasetSpec { path: folder.to_path_buf(), ..DatasetSpec::default() })?;
    let opened = begin.elapsed();
    let mut decoded = 0;
    for unit in &dataset.units {
        let table = dataset.read(unit)?;
        let look = |row| {
            let (bytes, _) = table.image(row)?;
            decode(bytes, &Limits::default()).ok().map(|image| (SampleId::of(bytes), image))
        };
        decoded += (0..table.rows()).into_par_iter().filter_map(look).count();
    }
    let total = begin.elapsed();
    let rate = dataset.rows() as f64 / total.as_secs_f64();
    println!(
        "{decoded} of {} images decoded; open {opened:.2?}, total {total:.2?}, {rate:.0} a second",
        dataset.rows()
    );
    Ok(())
}

/// Images with smooth and noisy parts, about as hard to decode as photographs of clothes.
fn make_images(folder: &Path) -> Result<(), DataError> {
    for class in 0..10 {
        let folder = folder.join(format!("train/{class}"));
        std::fs::create_dir_all(&folder).map_err(|error| DataError::io(&folder, error))?;
    }
    (0..IMAGES).into_par_iter().try_for_each(|index| {
        let noise = Seed(index).normal((SIDE * SIDE) as usize);
        let pixels: Vec<u8> = (0..SIDE * SIDE)
            .zip(noise)
            .flat_map(|(place, noise)| {
                let smooth = (place % SIDE * 8) as f32 + 12.0 * noise;
                [smooth, smooth / 2.0, 255.0 - smooth].map(|v| v.clamp(0.0, 255.0) as u8)
            })
            .collect();
        let path = folder.join(format!("train/{}/{index:05}.png", index % 10));
        std::fs::write(&path, encode_png(SIDE, SIDE, 3, &pixels, &[])).map_err(|error| DataError::io(&path, error))
    })
}
