//! Makes `data-samples/fashion` from Fashion-MNIST: the same files again for the same source.
//!
//!     cargo run --release -p evenset-data --example make-fashion -- IDX_FOLDER OUT_FOLDER
//!
//! `IDX_FOLDER` holds the four `*-ubyte.gz` files of Fashion-MNIST; `OUT_FOLDER` gets a folder `data` with the Parquet
//! files, which must not be there yet. Every garment has a home colour. In train nearly all of its images are in that
//! colour, so that garment and colour are entangled as in real biased data; in test all 40 groups are equally large.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;

use arrow_array::{ArrayRef, BinaryArray, Int64Array, RecordBatch, StringArray, StructArray};
use arrow_schema::{DataType, Field, Fields, Schema, SchemaRef};
use evenset_core::Seed;
use evenset_data::{DatasetWriter, Feature, Features, ParquetOptions, ParquetWriter};
use png::{BitDepth, ColorType, DeflateCompression, Encoder, EncodingError, Filter};
use rayon::prelude::*;

mod support;
use support::{Fallible, Labelled, SIDE};

/// What the selection and the order of the rows follow from.
const SEED: Seed = Seed(20_170_825);
/// Images of one garment in train.
const TRAIN_IMAGES: usize = 800;
/// How many of them are in the garment's home colour.
const AT_HOME: usize = 736;
/// Images of one garment in one colour in test.
const TEST_IMAGES: usize = 100;

/// What a white pixel of each colour becomes; grey levels in between are scaled.
const COLOURS: [(&str, [u8; 3]); 4] =
    [("red", [220, 30, 30]), ("green", [30, 180, 30]), ("blue", [40, 40, 240]), ("yellow", [220, 220, 30])];

/// The garments by their label in Fashion-MNIST, with the place of their home colour in [`COLOURS`]. Garments that are
/// easily taken for one another live in different colours; only pullover and dress, which rarely are, share one.
const GARMENTS: [(&str, usize); 10] = [
    ("t-shirt", 0),
    ("trouser", 2),
    ("pullover", 1),
    ("dress", 1),
    ("coat", 3),
    ("sandal", 3),
    ("shirt", 2),
    ("sneaker", 2),
    ("bag", 3),
    ("ankle-boot", 0),
];

fn main() -> Fallible<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [source, out] = &arguments[..] else {
        return Err("usage: make-fashion IDX_FOLDER OUT_FOLDER".into());
    };
    let source = Path::new(source);
    let (train_source, test_source) = (Labelled::of_idx(source, "train")?, Labelled::of_idx(source, "t10k")?);
    // No picture is used twice, neither within a split nor across.
    let mut used = BTreeSet::new();
    let train = train(&train_source, &mut used)?;
    let test = test(&test_source, &mut used)?;

    let writer = ParquetWriter::create(Path::new(out), schema(), &features(), ParquetOptions::default())?;
    let mut writer = Box::new(writer);
    writer.write("train", &batch("train", &train)?)?;
    writer.write("test", &batch("test", &test)?)?;
    writer.finish()?;
    Ok(())
}

/// The first `n` pictures of a label in a fixed shuffled order that are not `used` yet; they are then.
fn pick<'a>(
    source: &'a Labelled,
    label: usize,
    n: usize,
    seed: Seed,
    used: &mut BTreeSet<&'a [u8]>,
) -> Fallible<Vec<&'a [u8]>> {
    let pictures = source.images.chunks_exact(SIDE * SIDE).zip(&source.labels).enumerate();
    let mut shuffled: Vec<(Seed, &[u8])> = pictures
        .filter(|(_, (_, found))| usize::from(**found) == label)
        .map(|(i, (picture, _))| (seed.index(i as u64), picture))
        .collect();
    shuffled.sort_unstable();
    let picked: Vec<&[u8]> = shuffled.into_iter().map(|(_, p)| p).filter(|p| used.insert(p)).take(n).collect();
    match picked.len() == n {
        true => Ok(picked),
        false => Err(format!("label {label} has {} different pictures, {n} are needed", picked.len()).into()),
    }
}

/// One image and its labels: places in [`GARMENTS`] and [`COLOURS`].
struct Row<'a> {
    picture: &'a [u8],
    garment: usize,
    colour: usize,
}

/// 800 images of each garment, 736 in its home colour and 22, 21 and 21 in the other three.
fn train<'a>(source: &'a Labelled, used: &mut BTreeSet<&'a [u8]>) -> Fallible<Vec<Row<'a>>> {
    let mut rows = Vec::new();
    for (garment, (name, home)) in GARMENTS.into_iter().enumerate() {
        let pictures = pick(source, garment, TRAIN_IMAGES, SEED.derive("train").derive(name), used)?;
        let others: Vec<usize> = (0..COLOURS.len()).filter(|&colour| colour != home).collect();
        for (i, picture) in pictures.into_iter().enumerate() {
            let colour = i.checked_sub(AT_HOME).map_or(home, |i| others[i % others.len()]);
            rows.push(Row { picture, garment, colour });
        }
    }
    Ok(shuffled(rows, SEED.derive("order of train")))
}

/// 100 images of each garment in each colour.
fn test<'a>(source: &'a Labelled, used: &mut BTreeSet<&'a [u8]>) -> Fallible<Vec<Row<'a>>> {
    let mut rows = Vec::new();
    for (garment, (name, _)) in GARMENTS.into_iter().enumerate() {
        let pictures = pick(source, garment, TEST_IMAGES * COLOURS.len(), SEED.derive("test").derive(name), used)?;
        let coloured = pictures.into_iter().enumerate();
        rows.extend(coloured.map(|(i, picture)| Row { picture, garment, colour: i / TEST_IMAGES }));
    }
    Ok(shuffled(rows, SEED.derive("order of test")))
}

/// The rows in the order of their seeds.
fn shuffled(rows: Vec<Row<'_>>, seed: Seed) -> Vec<Row<'_>> {
    let mut keyed: Vec<(Seed, Row)> = (0..).map(|i| seed.index(i)).zip(rows).collect();
    keyed.sort_unstable_by_key(|(key, _)| *key);
    keyed.into_iter().map(|(_, row)| row).collect()
}

/// The picture in its colour as the smallest plain RGB PNG of one row filter, or of a filter chosen for each row.
fn png(row: &Row) -> Result<Vec<u8>, EncodingError> {
    let (_, colour) = COLOURS[row.colour];
    let tint = |level: u8, channel: u8| ((u32::from(level) * u32::from(channel) + 127) / 255) as u8;
    let pixels: Vec<u8> = row.picture.iter().flat_map(|&level| colour.map(|channel| tint(level, channel))).collect();
    let mut smallest = Vec::new();
    for filter in [Filter::NoFilter, Filter::Sub, Filter::Up, Filter::Avg, Filter::Paeth, Filter::Adaptive] {
        let mut file = Vec::new();
        let mut encoder = Encoder::new(&mut file, SIDE as u32, SIDE as u32);
        encoder.set_color(ColorType::Rgb);
        encoder.set_depth(BitDepth::Eight);
        encoder.set_deflate_compression(DeflateCompression::Level(9));
        encoder.set_filter(filter);
        let mut writer = encoder.write_header()?;
        writer.write_image_data(&pixels)?;
        writer.finish()?;
        if smallest.is_empty() || file.len() < smallest.len() {
            smallest = file;
        }
    }
    Ok(smallest)
}

fn image_fields() -> Fields {
    Fields::from(vec![Field::new("bytes", DataType::Binary, true), Field::new("path", DataType::Utf8, true)])
}

fn schema() -> SchemaRef {
    Arc::new(Schema::new(vec![
        Field::new("image", DataType::Struct(image_fields()), true),
        Field::new("garment", DataType::Int64, true),
        Field::new("colour", DataType::Int64, true),
    ]))
}

fn features() -> Features {
    let names = |names: &[&str]| Feature::ClassLabel { names: names.iter().map(|&name| name.to_owned()).collect() };
    let mut features = Features::new();
    features.insert("image", Feature::Image);
    features.insert("garment", names(&GARMENTS.map(|(name, _)| name)));
    features.insert("colour", names(&COLOURS.map(|(name, _)| name)));
    features
}

fn batch(split: &str, rows: &[Row]) -> Fallible<RecordBatch> {
    let files = rows.par_iter().map(png).collect::<Result<Vec<_>, _>>()?;
    let paths = StringArray::from_iter_values((0..rows.len()).map(|i| format!("{split}-{i:05}.png")));
    let files: ArrayRef = Arc::new(BinaryArray::from_iter_values(files));
    let images = StructArray::try_new(image_fields(), vec![files, Arc::new(paths)], None)?;
    let garments = Int64Array::from_iter_values(rows.iter().map(|row| row.garment as i64));
    let colours = Int64Array::from_iter_values(rows.iter().map(|row| row.colour as i64));
    Ok(RecordBatch::try_new(schema(), vec![Arc::new(images), Arc::new(garments), Arc::new(colours)])?)
}
