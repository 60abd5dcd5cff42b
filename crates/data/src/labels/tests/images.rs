use std::sync::Arc;

use arrow_array::{ArrayRef, BinaryArray, Int64Array, RecordBatch, StringArray, StructArray};
use arrow_schema::{DataType, Field, Schema};

use super::*;
use crate::columns::image_fields;
use crate::features::{Feature, Features, METADATA_KEY};
use crate::labels::LabelKind;
use crate::rows::write_parquet;

#[test]
fn class_folders_are_read_without_opening_an_image() {
    let folder = tempfile::tempdir().unwrap();
    // The files are no images: whoever opened one would fail.
    write(folder.path(), &[("train/cat/1.png", ""), ("train/dog/2.png", ""), ("test/dog/3.png", "")]);
    let table = open(folder.path()).unwrap();
    assert_eq!(names(&table), ["label", "split", "path"]);
    assert_eq!(table.rows(), Some(3));
    let found = rows(&table, &["label", "split", "path"]).unwrap();
    assert_eq!(found, expected("cat train train/cat/1.png|dog train train/dog/2.png|dog test test/dog/3.png"));
    let only = LabelTable::open(&LabelSpec { split: Some("test".into()), ..spec(folder.path()) }).unwrap();
    assert_eq!(rows(&only, &["label"]).unwrap(), expected("dog"));
    let before = table.fingerprint().unwrap();
    write(folder.path(), &[("train/cat/4.png", "")]);
    assert_ne!(open(folder.path()).unwrap().fingerprint().unwrap(), before);
}

#[test]
fn metadata_gives_the_columns_and_rows_that_name_no_image_are_left_out() {
    let folder = tempfile::tempdir().unwrap();
    let metadata = "file_name,colour,age\na.png,red,31\n../b.png,blue,18\nc.png,,4\n";
    write(folder.path(), &[("metadata.csv", metadata), ("a.png", ""), ("c.png", "")]);
    let table = open(folder.path()).unwrap();
    assert_eq!(names(&table), ["colour", "age", "split", "path"]);
    assert_eq!(rows(&table, &["colour", "age", "path"]).unwrap(), expected("red 31 a.png|- 4 c.png"));
    assert!(table.warnings().iter().any(|warning| warning.contains("1 rows name no image")), "{:?}", table.warnings());
}

#[test]
fn images_in_parquet_give_their_paths_but_not_their_bytes() {
    let folder = tempfile::tempdir().unwrap();
    let bytes = BinaryArray::from_iter_values([vec![7; 100_000], vec![8; 100_000]]);
    let parts: Vec<ArrayRef> = vec![Arc::new(bytes), Arc::new(StringArray::from(vec![Some("a.png"), None]))];
    let image = StructArray::new(image_fields(), parts, None);
    let mut features = Features::new();
    features.insert("image", Feature::Image);
    features.insert("label", Feature::ClassLabel { names: vec!["cat".into(), "dog".into()] });
    let fields =
        vec![Field::new("image", DataType::Struct(image_fields()), true), Field::new("label", DataType::Int64, true)];
    let schema = Schema::new(fields).with_metadata([(METADATA_KEY.to_owned(), features.to_metadata_json())]);
    let columns: Vec<ArrayRef> = vec![Arc::new(image), Arc::new(Int64Array::from(vec![1, -1]))];
    fs::create_dir(folder.path().join("data")).unwrap();
    let path = folder.path().join("data/train-00000-of-00001.parquet");
    write_parquet(&path, &RecordBatch::try_new(Arc::new(schema), columns).unwrap()).unwrap();

    let table = open(folder.path()).unwrap();
    assert_eq!(names(&table), ["image", "label", "split", "path"]);
    assert_eq!(table.columns()[0].kind, LabelKind::Image);
    assert_eq!(rows(&table, &["path", "label", "split"]).unwrap(), expected("a.png dog train|- - train"));
    assert!(rows(&table, &["image"]).unwrap_err().to_string().contains("holds images"));
    assert_eq!(table.guess().unwrap().left_out[0], ("image".to_owned(), "images".to_owned()));

    // With the bytes of the images destroyed the labels still read.
    let mut content = fs::read(&path).unwrap();
    let place = content.windows(64).position(|bytes| bytes.iter().all(|&byte| byte == 7));
    if let Some(place) = place {
        content[place - 40..place + 32].fill(0xee);
        fs::write(&path, content).unwrap();
        assert_eq!(rows(&open(folder.path()).unwrap(), &["path"]).unwrap(), expected("a.png|-"));
    }
}
