//! Makes Colored MNIST, the standard benchmark for spurious correlation, from MNIST: the same files again for the same
//! arguments.
//!
//!     cargo run --release -p evenset-data --example make-cmnist -- MNIST_FOLDER OUT_FOLDER CONFLICTING_SHARE [SEED]
//!     cargo run --release -p evenset-data --example make-cmnist -- MNIST_FOLDER OUT_FOLDER even
//!
//! `MNIST_FOLDER` holds `train.parquet` and `test.parquet` (columns `image` and `label`) or MNIST's own four IDX files,
//! gzipped or not. In train every digit has a home colour; `CONFLICTING_SHARE` of the images (published: 0.005, 0.01, 0.02
//! and 0.05) have one of the nine others, drawn evenly. In test every colour is equally likely. With `even`, so they are
//! in train: the ideal that balancing is measured against. An image is its grey levels times its tint, and its tint is
//! its colour plus Gaussian noise (0.05 of the range). Ten colours and noise are those of Nam et al. 2020, "Learning from
//! Failure", as the later literature uses them.
#![allow(clippy::print_stdout, reason = "an example says what it made")]

use std::path::Path;
use std::sync::Arc;

use arrow_array::{ArrayRef, BinaryArray, BooleanArray, Int64Array, RecordBatch, StringArray, StructArray};
use arrow_schema::{DataType, Field, Fields, Schema, SchemaRef};
use evenset_core::Seed;
use evenset_data::{DatasetWriter, Feature, Features, ParquetOptions, ParquetWriter};
use rand::RngExt;
use rayon::prelude::*;

mod support;
use support::{Fallible, Labelled, SIDE};

/// The home colour of each digit.
const COLOURS: [(&str, [f32; 3]); 10] = [
    ("crimson", [220.0, 20.0, 60.0]),
    ("teal", [0.0, 128.0, 128.0]),
    ("yellow", [253.0, 233.0, 16.0]),
    ("blue", [0.0, 149.0, 182.0]),
    ("orange", [237.0, 145.0, 33.0]),
    ("purple", [145.0, 30.0, 188.0]),
    ("cyan", [70.0, 240.0, 240.0]),
    ("pink", [250.0, 197.0, 187.0]),
    ("lime", [210.0, 245.0, 60.0]),
    ("maroon", [128.0, 0.0, 0.0]),
];
/// Standard deviation of a tint's noise, in grey levels.
const NOISE: f32 = 0.05 * 255.0;

fn main() -> Fallible<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let usage = "usage: make-cmnist MNIST_FOLDER OUT_FOLDER CONFLICTING_SHARE|even [SEED]";
    let (source, out, share, seed) = match &arguments[..] {
        [source, out, share] => (source, out, share, 0),
        [source, out, share, seed] => (source, out, share, seed.parse()?),
        _ => return Err(usage.into()),
    };
    let conflicting = match share.as_str() {
        "even" => None,
        share => match share.parse::<f64>() {
            Ok(share) if (0.0..=1.0).contains(&share) => Some(share),
            _ => return Err(format!("`{share}` is not a share from 0 to 1; {usage}").into()),
        },
    };
    let read = |split: &str, half: &str| {
        let parquet = Path::new(source).join(format!("{split}.parquet"));
        if parquet.exists() { Labelled::of_parquet(&parquet) } else { Labelled::of_idx(Path::new(source), half) }
    };
    let (train, test) = (read("train", "train")?, read("test", "t10k")?);

    let mut writer = Box::new(ParquetWriter::create(Path::new(out), schema(), &features(), ParquetOptions::default())?);
    let seed = Seed(seed);
    for (split, source, conflicting) in [("train", &train, conflicting), ("test", &test, None)] {
        let rows = rows(source, conflicting, seed.derive(split));
        println!("{split}: {} images, {} away from home", rows.len(), rows.iter().filter(|row| !row.aligned()).count());
        writer.write(split, &batch(split, &rows)?)?;
    }
    writer.finish()?;
    Ok(())
}

/// One picture in its colour.
struct Row<'a> {
    picture: &'a [u8],
    digit: usize,
    colour: usize,
    tint: [f32; 3],
}

impl Row<'_> {
    fn aligned(&self) -> bool {
        self.colour == self.digit
    }

    fn png(&self) -> Vec<u8> {
        let tinted = |&level: &u8| self.tint.map(|channel| (f32::from(level) / 255.0 * channel).round() as u8);
        let pixels: Vec<u8> = self.picture.iter().flat_map(tinted).collect();
        evenset_data::encode_png(SIDE as u32, SIDE as u32, 3, &pixels, &[])
    }
}

/// Every picture in the order of the source; without a conflicting share every colour is equally likely.
fn rows(source: &Labelled, conflicting: Option<f64>, seed: Seed) -> Vec<Row<'_>> {
    let pictures = source.images.chunks_exact(SIDE * SIDE).zip(&source.labels).enumerate();
    pictures
        .map(|(i, (picture, &digit))| {
            let seed = seed.index(i as u64);
            let mut rng = seed.rng();
            let digit = usize::from(digit) % COLOURS.len();
            let colour = match conflicting {
                Some(share) if rng.random::<f64>() >= share => digit,
                Some(_) => (digit + 1 + rng.random_range(0..9)) % COLOURS.len(),
                None => rng.random_range(0..COLOURS.len()),
            };
            let noise = seed.derive("tint").normal(3);
            let (_, mean) = COLOURS[colour];
            let tint = std::array::from_fn(|c| (mean[c] + NOISE * noise[c]).clamp(0.0, 255.0));
            Row { picture, digit, colour, tint }
        })
        .collect()
}

fn image_fields() -> Fields {
    Fields::from(vec![Field::new("bytes", DataType::Binary, true), Field::new("path", DataType::Utf8, true)])
}

fn schema() -> SchemaRef {
    Arc::new(Schema::new(vec![
        Field::new("image", DataType::Struct(image_fields()), true),
        Field::new("digit", DataType::Int64, true),
        Field::new("colour", DataType::Int64, true),
        Field::new("aligned", DataType::Boolean, true),
    ]))
}

fn features() -> Features {
    let mut features = Features::new();
    features.insert("image", Feature::Image);
    features.insert("digit", Feature::ClassLabel { names: (0..10).map(|digit| digit.to_string()).collect() });
    features.insert("colour", Feature::ClassLabel { names: COLOURS.map(|(name, _)| name.to_owned()).to_vec() });
    features.insert("aligned", Feature::Value { dtype: "bool".into() });
    features
}

fn batch(split: &str, rows: &[Row<'_>]) -> Fallible<RecordBatch> {
    let files: Vec<Vec<u8>> = rows.par_iter().map(Row::png).collect();
    let paths = StringArray::from_iter_values((0..rows.len()).map(|i| format!("{split}-{i:05}.png")));
    let files: ArrayRef = Arc::new(BinaryArray::from_iter_values(files));
    let images = StructArray::try_new(image_fields(), vec![files, Arc::new(paths)], None)?;
    let digits = Int64Array::from_iter_values(rows.iter().map(|row| row.digit as i64));
    let colours = Int64Array::from_iter_values(rows.iter().map(|row| row.colour as i64));
    let aligned = BooleanArray::from(rows.iter().map(Row::aligned).collect::<Vec<_>>());
    Ok(RecordBatch::try_new(schema(), vec![Arc::new(images), Arc::new(digits), Arc::new(colours), Arc::new(aligned)])?)
}
