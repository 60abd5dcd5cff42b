//! WebDataset shards, read back with the tar library.

use std::fs::File;
use std::io::Read;
use std::path::Path;
use std::sync::Arc;

use arrow_array::{ArrayRef, BinaryArray, Int64Array, RecordBatch, StringArray, StructArray};
use evenset_data::{DataError, DatasetWriter, ShardInfo, WebDatasetOptions, WebDatasetWriter, read_parquet};
use serde_json::{Value, json};
use tempfile::tempdir;

use crate::support::{column, contents, flat_png, image_fields, jpeg, labelled_rows, labelled_schema};

fn options() -> WebDatasetOptions {
    WebDatasetOptions { label: Some("label".into()), caption: Some("note".into()), ..WebDatasetOptions::default() }
}

fn write(folder: &Path, batches: &[usize], options: WebDatasetOptions) -> Vec<ShardInfo> {
    let mut writer = Box::new(WebDatasetWriter::create(folder, &labelled_schema().1, options).unwrap());
    let mut first = 0;
    for &rows in batches {
        writer.write("train", &labelled_rows(first, rows)).unwrap();
        first += rows;
    }
    writer.finish().unwrap()
}

fn members(path: &Path) -> Vec<(String, Vec<u8>)> {
    let mut archive = tar::Archive::new(File::open(path).unwrap());
    let entries = archive.entries().unwrap().map(|entry| {
        let mut entry = entry.unwrap();
        let header = entry.header();
        assert_eq!((header.mtime().unwrap(), header.uid().unwrap(), header.mode().unwrap()), (0, 0, 0o644));
        let name = entry.path().unwrap().to_str().unwrap().to_owned();
        let mut content = Vec::new();
        entry.read_to_end(&mut content).unwrap();
        (name, content)
    });
    entries.collect()
}

#[test]
fn a_sample_is_its_image_class_caption_and_the_rest() {
    let folder = tempdir().unwrap();
    let shards = write(folder.path(), &[6], options());
    assert_eq!((shards.len(), shards[0].path.to_str().unwrap(), shards[0].rows), (1, "train-00000.tar", 6));
    let members = members(&folder.path().join("train-00000.tar"));
    let names: Vec<&str> = members.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names[..5], ["000000000.png", "000000000.cls", "000000000.txt", "000000000.json", "000000001.png"]);
    assert_eq!(members.len(), 6 * 4);
    assert_eq!(members[4].1, flat_png([1, 0, 9]));
    assert_eq!((members[5].1.as_slice(), members[6].1.as_slice()), (&b"1"[..], &b"row 1"[..]));
    assert_eq!(
        serde_json::from_slice::<Value>(&members[7].1).unwrap(),
        json!({"label": "dog", "path": "some/folder/00001.png"})
    );
    // Row 2 has no label, row 4 no note: the members are there all the same.
    assert_eq!((names[9], members[9].1.as_slice()), ("000000002.cls", &b"-1"[..]));
    assert_eq!((names[18], members[18].1.as_slice()), ("000000004.txt", &b""[..]));
}

#[test]
fn a_column_of_masks_in_front_of_the_images_is_not_taken_for_them() {
    let folder = tempdir().unwrap();
    let mut features = evenset_data::Features::new();
    features.insert("mask", evenset_data::Feature::Image);
    for (name, feature) in labelled_schema().1.iter() {
        features.insert(name, feature.clone());
    }
    let rows = labelled_rows(0, 2);
    let mask = StructArray::new(
        image_fields(),
        vec![Arc::new(BinaryArray::from(vec![&b"a mask"[..]; 2])), Arc::new(StringArray::from(vec![None::<&str>; 2]))],
        None,
    );
    let columns = rows.schema_ref().fields().iter().map(|field| field.name().as_str()).zip(rows.columns().to_vec());
    let columns = [("mask", Arc::new(mask) as ArrayRef)].into_iter().chain(columns);
    let batch = RecordBatch::try_from_iter_with_nullable(columns.map(|(name, column)| (name, column, true))).unwrap();
    let options = WebDatasetOptions { image: Some("image".into()), ..options() };
    let mut writer = Box::new(WebDatasetWriter::create(folder.path(), &features, options).unwrap());
    writer.write("train", &batch).unwrap();
    writer.finish().unwrap();
    assert_eq!(members(&folder.path().join("train-00000.tar"))[4].1, flat_png([1, 0, 9]));
}

#[test]
fn the_same_rows_are_the_same_bytes_however_they_were_batched() {
    let written = |batches: &[usize]| {
        let folder = tempdir().unwrap();
        write(folder.path(), batches, WebDatasetOptions { max_shard_samples: 40, ..options() });
        contents(folder.path())
    };
    let whole = written(&[100]);
    let names: Vec<&str> = whole.keys().map(String::as_str).collect();
    assert_eq!(names[..4], ["train-00000.parquet", "train-00000.tar", "train-00000_stats.json", "train-00001.parquet"]);
    assert_eq!(names.len(), 9);
    assert_eq!(whole, written(&[1, 39, 41, 19]));
}

#[test]
fn shards_stay_below_their_size_and_their_sidecars_name_the_keys() {
    let folder = tempdir().unwrap();
    let shards = write(folder.path(), &[50], WebDatasetOptions { max_shard_bytes: 50_000, ..options() });
    assert!(shards.len() > 2 && shards.iter().all(|shard| shard.bytes <= 50_000 + 10_240), "{shards:?}");
    let second = read_parquet(&folder.path().join("train-00001.parquet")).unwrap().remove(0);
    assert_eq!(second.num_rows() as u64, shards[1].rows);
    let keys: &StringArray = column(&second, "__key__");
    assert_eq!(keys.value(0), format!("{:09}", shards[0].rows));
    assert!(second.column_by_name("image").is_none() && second.column_by_name("note").is_some());
    let stats: Value =
        serde_json::from_slice(&std::fs::read(folder.path().join("train-00001_stats.json")).unwrap()).unwrap();
    assert_eq!((&stats["count"], &stats["sha256"]), (&json!(shards[1].rows), &json!(shards[1].sha256)));
}

#[test]
fn the_first_image_says_the_extension_of_all_and_a_row_without_an_image_is_refused() {
    let folder = tempdir().unwrap();
    let jpeg = jpeg();
    let rows = |files: Vec<Option<&[u8]>>| {
        let count = files.len();
        let names = StringArray::from(vec![Some("x.png"); count]);
        let image = StructArray::new(image_fields(), vec![Arc::new(BinaryArray::from(files)), Arc::new(names)], None);
        let columns: Vec<(&str, ArrayRef)> =
            vec![("image", Arc::new(image)), ("label", Arc::new(Int64Array::from(vec![0; count])))];
        RecordBatch::try_from_iter(columns).unwrap()
    };
    let mut writer =
        Box::new(WebDatasetWriter::create(folder.path(), &labelled_schema().1, WebDatasetOptions::default()).unwrap());
    let png = flat_png([1; 3]);
    writer.write("train", &rows(vec![Some(&jpeg), Some(&png)])).unwrap();
    let error = writer.write("train", &rows(vec![Some(&jpeg), None])).unwrap_err();
    assert!(matches!(&error, DataError::Unwritable { row: 3, .. }), "{error}");
    writer.finish().unwrap();
    let members = members(&folder.path().join("train-00000.tar"));
    assert_eq!((members[0].0.as_str(), &members[0].1), ("000000000.jpg", &jpeg));
    assert_eq!((members[2].0.as_str(), &members[2].1), ("000000001.jpg", &png));
}
