//! Small images and folders of them.

use std::collections::BTreeMap;
use std::fs;
use std::io::Cursor;
use std::path::Path;
use std::sync::Arc;

use arrow_array::{Array, ArrayRef, BinaryArray, Int64Array, RecordBatch, StringArray, StructArray};
use arrow_schema::{DataType, Field, Fields, Schema, SchemaRef};
use evenset_data::{DataError, Dataset, DatasetSpec, Feature, Features, Table, encode_png};

/// A flat PNG of 4 x 3 pixels.
pub fn flat_png(rgb: [u8; 3]) -> Vec<u8> {
    encode_png(4, 3, 3, &rgb.repeat(12), &[])
}

/// A PNG with these raw samples.
pub fn png(width: u32, height: u32, color: png::ColorType, depth: png::BitDepth, samples: &[u8]) -> Vec<u8> {
    png_with(width, height, color, depth, samples, |_| {})
}

/// A PNG with these raw samples and whatever `set` says.
pub fn png_with(
    width: u32,
    height: u32,
    color: png::ColorType,
    depth: png::BitDepth,
    samples: &[u8],
    set: impl FnOnce(&mut png::Encoder<'_, &mut Vec<u8>>),
) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut encoder = png::Encoder::new(&mut bytes, width, height);
    encoder.set_color(color);
    encoder.set_depth(depth);
    set(&mut encoder);
    encoder.write_header().unwrap().write_image_data(samples).unwrap();
    bytes
}

/// A baseline JPEG of 64 x 48 pixels with some detail.
pub fn jpeg() -> Vec<u8> {
    let image =
        image::RgbImage::from_fn(64, 48, |x, y| image::Rgb([(x * 4) as u8, (y * 5) as u8, ((x * y) % 256) as u8]));
    let mut bytes = Vec::new();
    image.write_with_encoder(image::codecs::jpeg::JpegEncoder::new_with_quality(&mut bytes, 90)).unwrap();
    bytes
}

/// A lossless WebP with these pixels.
pub fn webp(image: &image::RgbaImage) -> Vec<u8> {
    let mut bytes = Cursor::new(Vec::new());
    image.write_to(&mut bytes, image::ImageFormat::WebP).unwrap();
    bytes.into_inner()
}

/// A PNG header that promises 60,000 x 60,000 pixels, and nothing else.
pub fn huge_png_header() -> Vec<u8> {
    let mut bytes = b"\x89PNG\r\n\x1a\n\0\0\0\x0dIHDR".to_vec();
    bytes.extend([0, 0, 0xea, 0x60, 0, 0, 0xea, 0x60, 8, 2, 0, 0, 0, 0, 0, 0, 0]);
    bytes
}

/// Writes files, making their folders.
pub fn write_files<'a>(root: &Path, files: impl IntoIterator<Item = (&'a str, Vec<u8>)>) {
    for (name, content) in files {
        let path = root.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    }
}

/// Opens a path with nothing said about it.
pub fn open(path: &Path) -> Result<Dataset, DataError> {
    Dataset::open(&DatasetSpec { path: path.to_path_buf(), ..DatasetSpec::default() })
}

/// Opens a path with these splits, given as role and name.
pub fn open_splits(path: &Path, splits: &[(&str, &str)]) -> Result<Dataset, DataError> {
    let splits: BTreeMap<String, String> = splits.iter().map(|&(role, name)| (role.into(), name.into())).collect();
    Dataset::open(&DatasetSpec { path: path.to_path_buf(), splits, ..DatasetSpec::default() })
}

/// All units with their split.
pub fn read_all(dataset: &Dataset) -> Vec<(String, Table)> {
    dataset.units.iter().map(|unit| (unit.split.clone(), dataset.read(unit).unwrap())).collect()
}

/// (split, path) of all rows.
pub fn paths(dataset: &Dataset) -> Vec<(String, String)> {
    let tables = read_all(dataset);
    let rows = tables.iter().flat_map(|(split, table)| (0..table.rows()).map(move |row| (split, table, row)));
    rows.map(|(split, table, row)| (split.clone(), table.path(row).unwrap_or("?").to_owned())).collect()
}

/// The values of a column over all units.
pub fn values(dataset: &Dataset, column: &str) -> Vec<Option<String>> {
    read_all(dataset).iter().flat_map(|(_, table)| table.values(column).unwrap()).collect()
}

/// Texts as optional values; `-` is missing.
pub fn words(words: &[&str]) -> Vec<Option<String>> {
    words.iter().map(|&word| (word != "-").then(|| word.to_owned())).collect()
}

pub fn image_fields() -> Fields {
    vec![Field::new("bytes", DataType::Binary, true), Field::new("path", DataType::Utf8, true)].into()
}

/// The columns image, label (cat, dog) and note, as the hub has them.
pub fn labelled_schema() -> (SchemaRef, Features) {
    let schema = Schema::new(vec![
        Field::new("image", DataType::Struct(image_fields()), true),
        Field::new("label", DataType::Int64, true),
        Field::new("note", DataType::Utf8, true),
    ]);
    let mut features = Features::of_schema(&schema);
    features.insert("label", Feature::ClassLabel { names: vec!["cat".into(), "dog".into()] });
    (Arc::new(schema), features)
}

/// `rows` rows of flat images from row `first` on; labels alternate, every third is unknown, notes tell the row.
pub fn labelled_rows(first: usize, rows: usize) -> RecordBatch {
    let range = first..first + rows;
    let bytes =
        BinaryArray::from_iter_values(range.clone().map(|row| flat_png([(row % 251) as u8, (row / 251) as u8, 9])));
    let names: StringArray = range.clone().map(|row| Some(format!("some/folder/{row:05}.png"))).collect();
    let label = |row: usize| if row % 3 == 2 { -1 } else { (row % 2) as i64 };
    let labels = Int64Array::from_iter_values(range.clone().map(label));
    let notes: StringArray = range.map(|row| (row % 5 != 4).then(|| format!("row {row}"))).collect();
    let columns: Vec<ArrayRef> = vec![Arc::new(bytes), Arc::new(names)];
    let image = StructArray::new(image_fields(), columns, None);
    RecordBatch::try_new(labelled_schema().0, vec![Arc::new(image), Arc::new(labels), Arc::new(notes)]).unwrap()
}

/// The bytes of all files below a folder by relative path.
pub fn contents(folder: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut found = BTreeMap::new();
    let mut folders = vec![folder.to_path_buf()];
    while let Some(next) = folders.pop() {
        for entry in fs::read_dir(next).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else {
                let name = path.strip_prefix(folder).unwrap().to_str().unwrap().to_owned();
                found.insert(name, fs::read(path).unwrap());
            }
        }
    }
    found
}

/// A column of the first row of a batch, downcast.
pub fn column<'a, T: Array + 'static>(batch: &'a RecordBatch, name: &str) -> &'a T {
    batch.column_by_name(name).unwrap().as_any().downcast_ref().unwrap()
}
