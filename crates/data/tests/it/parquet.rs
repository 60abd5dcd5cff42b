//! Parquet in and out.

use std::fs::{self, File};
use std::path::Path;
use std::sync::Arc;

use ::parquet::arrow::ArrowWriter;
use ::parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use ::parquet::basic::Compression;
use arrow_array::types::Int32Type;
use arrow_array::{
    ArrayRef, BinaryArray, BinaryViewArray, DictionaryArray, Int64Array, LargeBinaryArray, RecordBatch, StringArray,
    StructArray,
};
use arrow_schema::{DataType, Field};
use evenset_data::{
    DataError, Dataset, DatasetSpec, DatasetWriter, Feature, Features, Kind, ParquetOptions, ParquetWriter, ShardInfo,
    sha256_file, write_parquet,
};
use tempfile::tempdir;

use crate::support::{
    contents, flat_png, labelled_rows, labelled_schema, open, open_splits, read_all, values, words, write_files,
};

const SMALL: ParquetOptions = ParquetOptions { max_shard_bytes: 60_000, row_group_bytes: 20_000, row_group_rows: 100 };

/// Writes train rows in batches of these sizes, and 10 test rows.
fn write(folder: &Path, batches: &[usize], options: ParquetOptions) -> Vec<ShardInfo> {
    let (schema, features) = labelled_schema();
    let mut writer = Box::new(ParquetWriter::create(folder, schema, &features, options).unwrap());
    let mut first = 0;
    for &rows in batches {
        writer.write("train", &labelled_rows(first, rows)).unwrap();
        first += rows;
    }
    writer.write("test", &labelled_rows(5000, 10)).unwrap();
    writer.finish().unwrap()
}

fn plain_parquet(path: &Path, columns: Vec<(&str, ArrayRef)>) {
    write_files(path.parent().unwrap(), []);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    write_parquet(path, &RecordBatch::try_from_iter(columns).unwrap()).unwrap();
}

fn images(colours: &[u8]) -> Vec<Vec<u8>> {
    colours.iter().map(|&colour| flat_png([colour; 3])).collect()
}

#[test]
fn rows_come_back_byte_for_byte_with_their_class_names() {
    let folder = tempdir().unwrap();
    let shards = write(folder.path(), &[300], ParquetOptions::default());
    let names: Vec<&str> = shards.iter().map(|shard| shard.path.to_str().unwrap()).collect();
    assert_eq!(names, ["data/test-00000-of-00001.parquet", "data/train-00000-of-00001.parquet"]);
    for shard in &shards {
        let path = folder.path().join(&shard.path);
        assert_eq!((shard.bytes, &shard.sha256), (path.metadata().unwrap().len(), &sha256_file(&path).unwrap()));
    }
    let dataset = open(folder.path()).unwrap();
    assert_eq!((dataset.kind, dataset.rows(), dataset.image.as_str()), (Kind::Parquet, 310, "image"));
    assert_eq!(dataset.features, labelled_schema().1);
    assert_eq!(dataset.splits(), ["train", "test"]);
    let tables = read_all(&dataset);
    let written = labelled_rows(0, 300);
    for row in 0..300 {
        let (bytes, path) = tables[0].1.image(row).unwrap();
        assert_eq!(bytes, flat_png([(row % 251) as u8, (row / 251) as u8, 9]));
        assert_eq!(path, Some(format!("{row:05}.png").as_str()));
    }
    assert_eq!(tables[0].1.batch.column(1), written.column(1));
    assert_eq!(tables[0].1.batch.column(2), written.column(2));
    assert_eq!(tables[0].1.values("label").unwrap()[..3], words(&["cat", "dog", "-"]));
    assert_eq!(tables[1].1.values("note").unwrap()[0].as_deref(), Some("row 5000"));
}

#[test]
fn the_same_rows_are_the_same_bytes_however_they_were_batched() {
    let written = |batches: &[usize]| {
        let folder = tempdir().unwrap();
        write(folder.path(), batches, SMALL);
        contents(folder.path())
    };
    let whole = written(&[1500]);
    assert!(whole.len() > 3, "several shards are needed: {:?}", whole.keys());
    assert_eq!(whole, written(&[1500]));
    assert_eq!(whole, written(&[1, 511, 513, 0, 475]));
    assert_eq!(whole, written(&[100; 15]));
}

#[test]
fn shards_and_row_groups_stay_below_their_limits_and_the_pages_are_indexed() {
    let folder = tempdir().unwrap();
    let shards = write(folder.path(), &[1500], SMALL);
    let rows: u64 = shards.iter().filter(|shard| shard.split == "train").map(|shard| shard.rows).sum();
    assert_eq!(rows, 1500);
    for shard in &shards {
        let file = File::open(folder.path().join(&shard.path)).unwrap();
        let reader = ParquetRecordBatchReaderBuilder::try_new(file).unwrap();
        let metadata = reader.metadata();
        assert_eq!(metadata.file_metadata().created_by(), Some("evenset"));
        let pairs = metadata.file_metadata().key_value_metadata().unwrap();
        let keys: Vec<&str> = pairs.iter().map(|pair| pair.key.as_str()).collect();
        assert_eq!(keys, ["huggingface", "ARROW:schema"]);
        for group in metadata.row_groups() {
            assert!(group.num_rows() <= 100 && group.total_byte_size() <= 25_000, "{}", group.total_byte_size());
            let bytes = group.columns().iter().find(|column| column.column_path().string() == "image.bytes").unwrap();
            assert_eq!(bytes.compression(), Compression::UNCOMPRESSED);
            assert!(bytes.dictionary_page_offset().is_none());
            assert!(group.columns().iter().all(|column| column.offset_index_offset().is_some()));
            let note = group.columns().iter().find(|column| column.column_path().string() == "note").unwrap();
            assert_eq!(note.compression(), Compression::SNAPPY);
        }
        let image = reader.schema().field_with_name("image").unwrap().data_type().to_string();
        assert!(image.contains("Binary") && image.contains("Utf8"), "{image}");
    }
}

#[test]
fn a_writer_that_is_not_finished_leaves_no_data_and_does_not_write_among_other_data() {
    let folder = tempdir().unwrap();
    let (schema, features) = labelled_schema();
    let mut writer = ParquetWriter::create(folder.path(), Arc::clone(&schema), &features, SMALL).unwrap();
    writer.write("train", &labelled_rows(0, 1500)).unwrap();
    drop(writer);
    assert!(contents(folder.path()).is_empty(), "{:?}", contents(folder.path()).keys());
    write(folder.path(), &[3], SMALL);
    let again = ParquetWriter::create(folder.path(), schema, &features, SMALL).map(|_| ());
    assert!(matches!(again, Err(DataError::Exists { .. })));
}

#[test]
fn every_layout_of_the_hub_is_recognised() {
    let source = tempdir().unwrap();
    write(source.path(), &[5], ParquetOptions::default());
    let shard = |split: &str| fs::read(source.path().join(format!("data/{split}-00000-of-00001.parquet"))).unwrap();
    let (train, test) = (shard("train"), shard("test"));
    let layouts: [[&str; 2]; 5] = [
        ["data/train-00000-of-00001-ab12.parquet", "data/test-00000-of-00001-cd34.parquet"],
        ["train-0.parquet", "test-0.parquet"],
        ["train.parquet", "test.parquet"],
        ["train/0.parquet", "test/0.parquet"],
        ["data/train/x.parquet", "data/test/x.parquet"],
    ];
    for names in layouts {
        let folder = tempdir().unwrap();
        write_files(folder.path(), [(names[0], train.clone()), (names[1], test.clone()), ("README.md", vec![])]);
        let dataset = open(folder.path()).unwrap();
        let splits: Vec<(&str, usize)> = dataset.units.iter().map(|unit| (unit.split.as_str(), unit.rows)).collect();
        assert_eq!(splits, [("train", 5), ("test", 10)], "{names:?}");
    }
    let folder = tempdir().unwrap();
    write_files(folder.path(), [("b.parquet", train.clone()), ("a.parquet", test.clone())]);
    let dataset = open(folder.path()).unwrap();
    assert_eq!((dataset.splits(), dataset.units[0].rows), (vec!["train"], 10), "sorted by name, all train");
    assert_eq!(open(&folder.path().join("b.parquet")).unwrap().rows(), 5);

    write_files(folder.path(), [("train.parquet", train), ("test.parquet", test)]);
    let dataset = open(folder.path()).unwrap();
    assert_eq!(dataset.rows(), 15);
    assert!(dataset.warnings.join(" ").contains("2 files belong to no split that is read: a.parquet, b.parquet"));
    let dataset = open_splits(folder.path(), &[("train", "test")]).unwrap();
    assert_eq!((dataset.rows(), dataset.units[0].split.as_str()), (10, "train"));
}

#[test]
fn image_columns_of_every_storage_become_the_same_struct() {
    let files = images(&[1, 2]);
    let refs: Vec<&[u8]> = files.iter().map(Vec::as_slice).collect();
    let large = StructArray::from(vec![
        (
            Arc::new(Field::new("path", DataType::Utf8, true)),
            Arc::new(StringArray::from(vec!["a.png", "b.png"])) as ArrayRef,
        ),
        (
            Arc::new(Field::new("bytes", DataType::LargeBinary, true)),
            Arc::new(LargeBinaryArray::from(refs.clone())) as ArrayRef,
        ),
    ]);
    let paths = StructArray::from(vec![(
        Arc::new(Field::new("path", DataType::Utf8, true)),
        Arc::new(StringArray::from(vec!["pics/1.png", "pics/2.png"])) as ArrayRef,
    )]);
    let columns: [(&str, ArrayRef, Option<&str>); 5] = [
        ("photo", Arc::new(large), Some("a.png")),
        ("photo", Arc::new(BinaryArray::from(refs.clone())), None),
        ("photo", Arc::new(LargeBinaryArray::from(refs.clone())), None),
        ("photo", Arc::new(BinaryViewArray::from(refs.clone())), None),
        ("photo", Arc::new(paths), Some("pics/1.png")),
    ];
    let expected = DataType::Struct(crate::support::image_fields());
    for (name, column, path) in columns {
        let folder = tempdir().unwrap();
        write_files(folder.path(), [("pics/1.png", files[0].clone()), ("pics/2.png", files[1].clone())]);
        let stored = column.data_type().to_string();
        let n: ArrayRef = Arc::new(Int64Array::from(vec![1, 2]));
        plain_parquet(&folder.path().join("train.parquet"), vec![("n", n), (name, column)]);
        let dataset = open(folder.path()).unwrap();
        assert_eq!(dataset.columns(), ["n", "photo"], "{stored}");
        assert_eq!(dataset.features.get("photo"), Some(&Feature::Image), "{stored}");
        let table = dataset.read(&dataset.units[0]).unwrap();
        assert_eq!(table.batch.schema().field(1).data_type(), &expected, "{stored}");
        assert_eq!(table.image(0).unwrap(), (files[0].as_slice(), path), "{stored}");
        assert_eq!(table.image(1).unwrap().0, files[1], "{stored}");
    }
}

#[test]
fn a_text_column_of_paths_is_an_image_column_when_it_is_named_and_bad_paths_are_rejected_rows() {
    let folder = tempdir().unwrap();
    write_files(folder.path(), [("pics/1.png", flat_png([1; 3]))]);
    let names = StringArray::from(vec![Some("pics/1.png"), Some("../x.png"), Some("pics/gone.png"), None]);
    plain_parquet(&folder.path().join("train.parquet"), vec![("file", Arc::new(names))]);
    assert!(matches!(open(folder.path()), Err(DataError::NoImageColumn { .. })));
    let spec = DatasetSpec { path: folder.path().into(), image: Some("file".into()), ..DatasetSpec::default() };
    let dataset = Dataset::open(&spec).unwrap();
    let table = dataset.read(&dataset.units[0]).unwrap();
    assert_eq!(table.image(0).unwrap().0, flat_png([1; 3]));
    let reasons: Vec<&str> = (1..4).map(|row| table.error(row).unwrap()).collect();
    assert!(reasons[0].contains("leads out of its folder"), "{reasons:?}");
    assert_eq!(reasons[1..], ["the file does not exist", "the row has no image"]);

    let before = dataset.units[0].fingerprint.clone();
    write_files(folder.path(), [("pics/1.png", flat_png([2; 3]))]);
    assert_ne!(before, Dataset::open(&spec).unwrap().units[0].fingerprint, "the files count, not only their names");
}

#[test]
fn rows_without_bytes_are_rejected_rows() {
    let folder = tempdir().unwrap();
    let good = flat_png([1; 3]);
    let bytes = BinaryArray::from(vec![Some(good.as_slice()), None, None]);
    let names = StringArray::from(vec![None, Some("/home/me/2.png"), None]);
    let image = StructArray::new(crate::support::image_fields(), vec![Arc::new(bytes), Arc::new(names)], None);
    plain_parquet(&folder.path().join("x.parquet"), vec![("image", Arc::new(image))]);
    let dataset = open(folder.path()).unwrap();
    let table = dataset.read(&dataset.units[0]).unwrap();
    assert_eq!(table.image(0), Some((good.as_slice(), None)));
    assert!(table.error(1).unwrap().contains("embed the images"));
    assert_eq!(table.error(2), Some("the row has no image"));
}

#[test]
fn other_columns_pass_through_unchanged_and_dictionaries_have_values() {
    let folder = tempdir().unwrap();
    let files = images(&[1, 2, 3]);
    let colours: DictionaryArray<Int32Type> = [Some("red"), None, Some("blue")].into_iter().collect();
    let list = arrow_array::ListArray::from_iter_primitive::<Int32Type, _, _>([Some([Some(1)]), None, Some([None])]);
    let columns: Vec<(&str, ArrayRef)> = vec![
        ("image", Arc::new(BinaryArray::from_iter_values(files))),
        ("colour", Arc::new(colours)),
        ("boxes", Arc::new(list)),
    ];
    plain_parquet(&folder.path().join("x.parquet"), columns.clone());
    let dataset = open(folder.path()).unwrap();
    let table = dataset.read(&dataset.units[0]).unwrap();
    assert_eq!(values(&dataset, "colour"), words(&["red", "-", "blue"]));
    assert_eq!(table.batch.column_by_name("boxes"), Some(&columns[2].1));
    assert!(table.values("boxes").unwrap_err().to_string().contains("cannot name groups"));
}

#[test]
fn a_long_file_is_cut_into_units_that_together_give_every_row_once() {
    let folder = tempdir().unwrap();
    let options = ParquetOptions { row_group_rows: 700, ..ParquetOptions::default() };
    write(folder.path(), &[5000], options);
    let dataset = open_splits(folder.path(), &[("train", "train")]).unwrap();
    assert_eq!(dataset.units.iter().map(|unit| unit.rows).collect::<Vec<_>>(), [2048, 2048, 904]);
    let notes = values(&dataset, "note");
    for (row, note) in notes.iter().enumerate() {
        assert_eq!(note, &(row % 5 != 4).then(|| format!("row {row}")));
    }
    let last = dataset.read(&dataset.units[2]).unwrap();
    let row: usize = 4999 - 4096;
    assert_eq!(last.image(row).unwrap().0, flat_png([(4999 % 251) as u8, (4999 / 251) as u8, 9]));
}

#[test]
fn fingerprints_follow_the_content_of_the_file_and_the_role_of_the_split() {
    let (folder, copy) = (tempdir().unwrap(), tempdir().unwrap());
    write(folder.path(), &[20], SMALL);
    for (name, bytes) in contents(folder.path()) {
        write_files(copy.path(), [(name.as_str(), bytes)]);
    }
    let fingerprints = |dataset: Dataset| dataset.units.into_iter().map(|unit| unit.fingerprint).collect::<Vec<_>>();
    let original = fingerprints(open(folder.path()).unwrap());
    assert_eq!(original, fingerprints(open(copy.path()).unwrap()));
    let swapped = open_splits(copy.path(), &[("train", "test"), ("test", "train")]).unwrap();
    assert_ne!(original, fingerprints(swapped));
    fs::remove_dir_all(copy.path().join("data")).unwrap();
    write(copy.path(), &[21], SMALL);
    assert_ne!(original[0], fingerprints(open(copy.path()).unwrap())[0]);
}

#[test]
fn a_file_that_changed_since_it_was_opened_is_noticed() {
    let folder = tempdir().unwrap();
    let path = folder.path().join("data/train-00000-of-00001.parquet");
    write(folder.path(), &[20], SMALL);
    let dataset = open(folder.path()).unwrap();
    let mut bytes = fs::read(&path).unwrap();
    bytes.push(0);
    fs::write(&path, bytes).unwrap();
    assert!(matches!(dataset.read(&dataset.units[0]), Err(DataError::Stale { .. })));
}

#[test]
fn files_of_one_dataset_must_agree_on_columns_and_class_names() {
    let folder = tempdir().unwrap();
    let n: ArrayRef = Arc::new(Int64Array::from(vec![1]));
    let text: ArrayRef = Arc::new(StringArray::from(vec!["1"]));
    let image: ArrayRef = Arc::new(BinaryArray::from_iter_values(images(&[1])));
    let file = |name: &str| folder.path().join(name);
    plain_parquet(&file("train.parquet"), vec![("image", Arc::clone(&image)), ("n", n)]);
    plain_parquet(&file("test.parquet"), vec![("image", Arc::clone(&image)), ("n", text)]);
    let error = open(folder.path()).unwrap_err().to_string();
    assert!(error.contains("test.parquet: column `n` is Utf8, elsewhere Int64"), "{error}");
    plain_parquet(&file("test.parquet"), vec![("image", image)]);
    let error = open(folder.path()).unwrap_err().to_string();
    assert!(error.contains("test.parquet: column `n` is missing"), "{error}");

    let folder = tempdir().unwrap();
    for (split, names) in [("train", ["cat", "dog"]), ("test", ["dog", "cat"])] {
        let mut features = labelled_schema().1;
        features.insert("label", Feature::ClassLabel { names: names.map(str::to_owned).to_vec() });
        let part = tempdir().unwrap();
        let mut writer = Box::new(ParquetWriter::create(part.path(), labelled_schema().0, &features, SMALL).unwrap());
        writer.write(split, &labelled_rows(0, 2)).unwrap();
        writer.finish().unwrap();
        for (name, bytes) in contents(part.path()) {
            write_files(folder.path(), [(name.as_str(), bytes)]);
        }
    }
    let error = open(folder.path()).unwrap_err().to_string();
    assert!(error.contains("the class names of `label` differ"), "{error}");
}

#[test]
fn a_damaged_file_is_named_and_never_panics() {
    let folder = tempdir().unwrap();
    write(folder.path(), &[40], SMALL);
    let path = folder.path().join("data/train-00000-of-00001.parquet");
    let whole = fs::read(&path).unwrap();
    for length in [0, 3, 20, whole.len() / 2, whole.len() - 1] {
        fs::write(&path, &whole[..length]).unwrap();
        let error = open(folder.path()).unwrap_err();
        assert!(matches!(error, DataError::Parquet { .. }), "{length}: {error}");
        assert!(error.to_string().contains("train-00000-of-00001.parquet"), "{error}");
    }
    for seed in 0..300u32 {
        let mut damaged = whole.clone();
        let random = seed.wrapping_mul(2_654_435_761) as usize;
        let place = (random >> 4) % damaged.len();
        damaged[place] ^= (random as u8) | 1;
        fs::write(&path, damaged).unwrap();
        if let Ok(dataset) = open(folder.path()) {
            for unit in &dataset.units {
                let _ = dataset.read(unit);
            }
        }
    }
}

#[test]
fn an_image_column_that_is_not_there_is_answered_with_the_nearest_name() {
    let folder = tempdir().unwrap();
    write(folder.path(), &[3], SMALL);
    let open = |image: &str| {
        let spec = DatasetSpec { path: folder.path().into(), image: Some(image.into()), ..DatasetSpec::default() };
        Dataset::open(&spec).unwrap_err().to_string()
    };
    assert!(open("imgae").contains("did you mean `image`?"), "{}", open("imgae"));
    assert!(open("label").contains("column `label` holds Int64"), "{}", open("label"));
}

#[test]
fn a_column_described_by_another_feature_type_keeps_its_description_through_reading_and_writing() {
    let folder = tempdir().unwrap();
    let raw = serde_json::json!({"shape": [2, 2], "dtype": "int32", "_type": "Array2D"});
    let (schema, mut features) = labelled_schema();
    features.insert("note", Feature::Other(raw.clone()));
    let mut writer = Box::new(ParquetWriter::create(folder.path(), schema, &features, SMALL).unwrap());
    writer.write("train", &labelled_rows(0, 2)).unwrap();
    writer.finish().unwrap();
    let dataset = open(folder.path()).unwrap();
    assert_eq!(dataset.features.get("note"), Some(&Feature::Other(raw)));
}

#[test]
fn metadata_of_a_stranger_is_not_trusted() {
    let folder = tempdir().unwrap();
    let path = folder.path().join("train.parquet");
    let batch = RecordBatch::try_from_iter(vec![
        ("image", Arc::new(BinaryArray::from_iter_values(images(&[1]))) as ArrayRef),
        ("label", Arc::new(Int64Array::from(vec![3])) as ArrayRef),
    ])
    .unwrap();
    let mut features = Features::new();
    features.insert("label", Feature::ClassLabel { names: vec!["only".into()] });
    features.insert("image", Feature::Value { dtype: "string".into() });
    let metadata = std::collections::HashMap::from([("huggingface".to_owned(), features.to_metadata_json())]);
    let schema = Arc::new(batch.schema().as_ref().clone().with_metadata(metadata));
    let batch = RecordBatch::try_new(Arc::clone(&schema), batch.columns().to_vec()).unwrap();
    let mut writer = ArrowWriter::try_new(File::create(&path).unwrap(), schema, None).unwrap();
    writer.write(&batch).unwrap();
    writer.close().unwrap();
    let dataset = open(folder.path()).unwrap();
    let table = dataset.read(&dataset.units[0]).unwrap();
    assert!(matches!(table.values("label"), Err(DataError::ClassOutOfRange { index: 3, classes: 1, .. })));
    assert_eq!(dataset.features.get("image"), Some(&Feature::Image));
}
