//! Pictures that belong to images: masks and their like, in columns of their own.

use std::fs;
use std::sync::Arc;

use arrow_array::{Array, ArrayRef, BinaryArray, RecordBatch, StringArray, StructArray};
use evenset_data::{DataError, Dataset, DatasetSpec, write_parquet};

use crate::support::{flat_png, write_files};

fn open(path: &std::path::Path, pictures: &[&str]) -> Result<Dataset, DataError> {
    let pictures = pictures.iter().map(|&column| column.to_owned()).collect();
    Dataset::open(&DatasetSpec { path: path.to_path_buf(), pictures, ..DatasetSpec::default() })
}

/// What stands in the column for each row of the first unit.
fn files(dataset: &Dataset, column: &str) -> Vec<Result<Option<Vec<u8>>, String>> {
    let unit = &dataset.units[0];
    let table = dataset.read(unit).unwrap();
    (0..table.rows())
        .map(|row| Ok(dataset.picture(unit, &table, column, row)?.map(std::borrow::Cow::into_owned)))
        .collect()
}

#[test]
fn metadata_names_the_pictures_of_an_image_from_where_it_lies() {
    let folder = tempfile::tempdir().unwrap();
    let lines = "{\"file_name\":\"a.png\",\"mask\":\"masks/a.png\"}\n{\"file_name\":\"b.png\"}\n\
                 {\"file_name\":\"c.png\",\"mask\":\"gone.png\"}\n{\"file_name\":\"d.png\",\"mask\":\"../d.png\"}\n";
    write_files(
        folder.path(),
        [
            ("train/a.png", flat_png([1; 3])),
            ("train/b.png", flat_png([2; 3])),
            ("train/c.png", flat_png([3; 3])),
            ("train/d.png", flat_png([4; 3])),
            ("train/masks/a.png", flat_png([255; 3])),
            ("train/metadata.jsonl", lines.into()),
        ],
    );
    let dataset = open(folder.path(), &["mask"]).unwrap();
    assert!(dataset.warnings.is_empty(), "a mask is no image that was forgotten: {:?}", dataset.warnings);
    let found = files(&dataset, "mask");
    assert_eq!(found[..2], [Ok(Some(flat_png([255; 3]))), Ok(None)]);
    assert_eq!(found[2], Err("the file does not exist".into()));
    assert!(found[3].as_ref().unwrap_err().contains("leads out of its folder"));
    assert_eq!(files(&dataset, "image")[1], Ok(Some(flat_png([2; 3]))), "an image is a picture of itself");

    let before = dataset.units[0].fingerprint.clone();
    assert_eq!(open(folder.path(), &["mask"]).unwrap().units[0].fingerprint, before);
    fs::write(folder.path().join("train/masks/a.png"), flat_png([0; 3])).unwrap();
    assert_ne!(open(folder.path(), &["mask"]).unwrap().units[0].fingerprint, before, "another mask is other data");
}

#[test]
fn one_metadata_file_for_all_splits_names_pictures_anywhere_in_the_dataset() {
    let folder = tempfile::tempdir().unwrap();
    let lines = "{\"file_name\":\"train/a.png\",\"mask\":\"masks/a.png\"}\n";
    write_files(
        folder.path(),
        [
            ("train/a.png", flat_png([1; 3])),
            ("masks/a.png", flat_png([9; 3])),
            ("masks/b.png", flat_png([9; 3])),
            ("metadata.jsonl", lines.into()),
        ],
    );
    let dataset = open(folder.path(), &["mask"]).unwrap();
    assert_eq!(files(&dataset, "mask"), [Ok(Some(flat_png([9; 3])))]);
    assert_eq!(dataset.warnings, ["1 images in `masks` belong to no split that is read"]);
}

#[test]
fn parquet_holds_pictures_as_bytes_or_names_files_beside_it() {
    let folder = tempfile::tempdir().unwrap();
    let images: Vec<Vec<u8>> = (0..2).map(|i| flat_png([i; 3])).collect();
    let bytes: ArrayRef = Arc::new(BinaryArray::from_iter_values(&images));
    let columns: Vec<(&str, ArrayRef)> = vec![
        ("image", Arc::clone(&bytes)),
        ("depth", Arc::new(BinaryArray::from(vec![None, Some(images[0].as_slice())]))),
        ("mask", Arc::new(StringArray::from(vec![Some("m.png"), None]))),
        ("age", Arc::new(arrow_array::Int64Array::from(vec![1, 2]))),
    ];
    write_files(folder.path(), [("m.png", flat_png([7; 3]))]);
    write_parquet(&folder.path().join("train.parquet"), &RecordBatch::try_from_iter(columns).unwrap()).unwrap();
    let dataset = open(folder.path(), &["mask", "depth"]).unwrap();
    assert_eq!(dataset.image, "image");
    assert_eq!(files(&dataset, "depth"), [Ok(None), Ok(Some(images[0].clone()))]);
    assert_eq!(files(&dataset, "mask"), [Ok(Some(flat_png([7; 3]))), Ok(None)]);
    let before = dataset.units[0].fingerprint.clone();
    fs::write(folder.path().join("m.png"), flat_png([8; 3])).unwrap();
    assert_ne!(open(folder.path(), &["mask", "depth"]).unwrap().units[0].fingerprint, before);

    // Whatever order and width their parts had, pictures leave as images do, and rows without one stay null.
    let parts: Vec<(&str, ArrayRef)> = vec![
        ("path", Arc::new(StringArray::from(vec!["a.png", "b.png"]))),
        ("bytes", Arc::new(arrow_array::LargeBinaryArray::from_iter_values(&images))),
    ];
    let parts = StructArray::from(RecordBatch::try_from_iter(parts).unwrap());
    let (fields, columns, _) = parts.into_parts();
    let masks: ArrayRef = Arc::new(StructArray::new(fields, columns, Some(vec![true, false].into())));
    let other = tempfile::tempdir().unwrap();
    let table = RecordBatch::try_from_iter_with_nullable([("image", bytes, true), ("mask", masks, true)]).unwrap();
    write_parquet(&other.path().join("train.parquet"), &table).unwrap();
    let spec = DatasetSpec { image: Some("image".into()), pictures: vec!["mask".into()], ..DatasetSpec::default() };
    let read = Dataset::open(&DatasetSpec { path: other.path().into(), ..spec }).unwrap();
    assert_eq!(files(&read, "mask"), [Ok(Some(images[0].clone())), Ok(None)]);
    let table = read.read(&read.units[0]).unwrap();
    let [image, mask] = ["image", "mask"].map(|name| table.batch.column_by_name(name).unwrap());
    assert_eq!(image.data_type(), mask.data_type());
    assert!(mask.is_valid(0) && mask.is_null(1));

    let error = open(folder.path(), &["masc"]).unwrap_err().to_string();
    assert!(error.contains("no column `masc` (did you mean `mask`?)"), "{error}");
    let error = open(folder.path(), &["age"]).unwrap_err().to_string();
    assert!(error.contains("column `age` holds Int64; pictures are"), "{error}");
}
