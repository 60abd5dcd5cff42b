//! Image folders of every layout, good and bad.

use std::fs;

use arrow_array::{ArrayRef, Int64Array, RecordBatch, StringArray};
use evenset_data::{DataError, Dataset, DatasetSpec, Feature, Kind, Limits, decode, write_parquet};
use tempfile::tempdir;

use crate::support::{flat_png, huge_png_header, jpeg, open, open_splits, paths, read_all, values, words, write_files};

fn pairs(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
    pairs.iter().map(|&(split, path)| (split.to_owned(), path.to_owned())).collect()
}

#[test]
fn class_folders_become_labels_whose_names_are_sorted_over_all_splits() {
    let folder = tempdir().unwrap();
    write_files(
        folder.path(),
        [
            ("train/dog/2.png", flat_png([2; 3])),
            ("train/dog/1.png", flat_png([1; 3])),
            ("train/cat/3.png", flat_png([3; 3])),
            ("val/bird/4.png", flat_png([4; 3])),
            ("test/dog/5.png", flat_png([5; 3])),
            ("README.md", b"# pets".to_vec()),
            ("train/.DS_Store", b"x".to_vec()),
            ("train/dog/Thumbs.db", b"x".to_vec()),
        ],
    );
    let dataset = open(folder.path()).unwrap();
    assert_eq!(
        (dataset.kind, dataset.rows(), dataset.splits()),
        (Kind::ImageFolder, 5, vec!["train", "validation", "test"])
    );
    assert_eq!(dataset.columns(), ["image", "label"]);
    let names = ["bird", "cat", "dog"].map(str::to_owned).to_vec();
    assert_eq!(dataset.features.get("label"), Some(&Feature::ClassLabel { names }));
    assert_eq!(
        paths(&dataset),
        pairs(&[
            ("train", "train/cat/3.png"),
            ("train", "train/dog/1.png"),
            ("train", "train/dog/2.png"),
            ("validation", "val/bird/4.png"),
            ("test", "test/dog/5.png"),
        ])
    );
    assert_eq!(values(&dataset, "label"), words(&["cat", "dog", "dog", "bird", "dog"]));
    let (_, table) = &read_all(&dataset)[0];
    assert_eq!(table.image(1).unwrap().0, flat_png([1; 3]));
    assert!(dataset.warnings.is_empty(), "{:?}", dataset.warnings);
}

#[test]
fn a_folder_without_splits_is_all_train_even_if_the_job_says_train() {
    let folder = tempdir().unwrap();
    write_files(folder.path(), [("a/1.png", flat_png([1; 3])), ("b/2.jpg", jpeg())]);
    for dataset in [open(folder.path()).unwrap(), open_splits(folder.path(), &[("train", "train")]).unwrap()] {
        assert_eq!(paths(&dataset), pairs(&[("train", "a/1.png"), ("train", "b/2.jpg")]));
    }
    let error = open_splits(folder.path(), &[("train", "train"), ("test", "test")]).unwrap_err();
    assert!(error.to_string().contains("there is no split `test`; found: train"), "{error}");
}

#[test]
fn splits_with_other_names_are_read_when_the_job_names_them_and_the_rest_is_counted() {
    let folder = tempdir().unwrap();
    write_files(
        folder.path(),
        [
            ("fold1/a/1.png", flat_png([1; 3])),
            ("fold2/a/2.png", flat_png([2; 3])),
            ("fold3/a/3.png", flat_png([3; 3])),
            ("loose.png", flat_png([4; 3])),
        ],
    );
    let dataset = open_splits(folder.path(), &[("train", "fold2"), ("test", "fold1")]).unwrap();
    assert_eq!(paths(&dataset), pairs(&[("train", "fold2/a/2.png"), ("test", "fold1/a/1.png")]));
    let said = dataset.warnings.join("; ");
    assert!(said.contains("1 images in `fold3`") && said.contains("1 images beside the split folders"), "{said}");
}

#[test]
fn bad_files_are_rows_with_reasons_and_the_others_are_read() {
    let folder = tempdir().unwrap();
    let truncated = jpeg()[..jpeg().len() / 2].to_vec();
    write_files(
        folder.path(),
        [
            ("train/a/cut.jpg", truncated),
            ("train/a/empty.png", vec![]),
            ("train/a/good.png", flat_png([9; 3])),
            ("train/a/huge.png", huge_png_header()),
            ("train/a/text.png", b"not a picture".to_vec()),
            ("train/a/moving.gif", b"GIF89a".to_vec()),
        ],
    );
    let dataset = open(folder.path()).unwrap();
    let (_, table) = &read_all(&dataset)[0];
    assert!(table.errors.is_empty());
    let reason = |row: usize| {
        let (bytes, path) = table.image(row).unwrap();
        let reason = decode(bytes, &Limits::default()).err().map(|error| error.to_string()).unwrap_or_default();
        (path.unwrap().rsplit('/').next().unwrap().to_owned(), reason)
    };
    let reasons: Vec<(String, String)> = (0..table.rows()).map(reason).collect();
    let expected = [
        ("cut.jpg", "truncated: the JPEG ends before its end-of-image marker"),
        ("empty.png", "the file is empty"),
        ("good.png", ""),
        ("huge.png", "60000 x 60000 pixels are more than the limit of 64000000"),
        ("moving.gif", "GIF images are not supported; convert to PNG, JPEG or WebP"),
        ("text.png", "not an image: the file is text"),
    ];
    assert_eq!(reasons, expected.map(|(name, reason)| (name.to_owned(), reason.to_owned())));
}

#[test]
fn a_file_over_the_limit_has_null_bytes_and_an_error() {
    let folder = tempdir().unwrap();
    write_files(folder.path(), [("a/big.png", vec![7; 5000]), ("a/small.png", flat_png([1; 3]))]);
    let mut dataset = open(folder.path()).unwrap();
    dataset.limits.max_bytes = 4000;
    let table = dataset.read(&dataset.units[0]).unwrap();
    assert_eq!(table.errors, [(0, "5000 bytes are more than the limit of 4000".to_owned())]);
    assert!(table.image(0).is_none() && table.image(1).is_some());
    assert_eq!((table.path(0), table.error(0).is_some(), table.error(1)), (Some("a/big.png"), true, None));
}

#[test]
fn metadata_beside_the_images_of_each_split_wins_over_folders() {
    let folder = tempdir().unwrap();
    let line = |file: &str, rest: &str| format!("{{\"file_name\":\"{file}\",{rest}}}\n");
    let train = [
        line("images/1.png", "\"colour\":\"red\",\"n\":1"),
        line("images/2.png", "\"colour\":\"blue\""),
        line("gone.png", "\"colour\":\"red\""),
        line("../secret.png", "\"colour\":\"red\""),
        line("/etc/passwd.png", "\"colour\":\"red\""),
        line("https://x/y.png", "\"colour\":\"red\""),
    ];
    write_files(
        folder.path(),
        [
            ("train/images/1.png", flat_png([1; 3])),
            ("train/images/2.png", flat_png([2; 3])),
            ("train/images/unlisted.png", flat_png([3; 3])),
            ("secret.png", flat_png([4; 3])),
            ("train/metadata.jsonl", train.concat().into_bytes()),
            ("test/5.png", flat_png([5; 3])),
            ("test/metadata.jsonl", line("5.png", "\"colour\":null,\"n\":2,\"late\":true").into_bytes()),
        ],
    );
    let dataset = open(folder.path()).unwrap();
    assert_eq!(dataset.columns(), ["image", "colour", "n", "late"]);
    assert_eq!(values(&dataset, "colour"), words(&["red", "blue", "red", "red", "red", "red", "-"]));
    assert_eq!(values(&dataset, "n"), words(&["1", "-", "-", "-", "-", "-", "2"]));
    let (_, table) = &read_all(&dataset)[0];
    let reasons: Vec<(usize, &str)> = table.errors.iter().map(|(row, reason)| (*row, reason.as_str())).collect();
    assert_eq!(reasons[0], (2, "the file does not exist"));
    assert!(reasons[1].0 == 3 && reasons[1].1.contains("leads out of its folder"), "{reasons:?}");
    assert!(reasons[2].1.contains("absolute path") && reasons[3].1.contains("is an address"), "{reasons:?}");
    assert_eq!(table.image(0).unwrap().0, flat_png([1; 3]));
    let said = dataset.warnings.join("; ");
    assert!(said.contains("1 images of split `train` are not in its metadata"), "{said}");
    assert!(said.contains("1 images beside the split folders"), "{said}");
}

#[test]
fn one_metadata_file_for_all_splits_says_the_split_by_its_paths() {
    let folder = tempdir().unwrap();
    let csv =
        "file_name,colour,age\ntest/c.png,red,5\ntrain/a.png,blue,6\ntrain/b.png,\"dark, red\",\nextra/d.png,x,1\n";
    write_files(
        folder.path(),
        [
            ("train/a.png", flat_png([1; 3])),
            ("train/b.png", flat_png([2; 3])),
            ("test/c.png", flat_png([3; 3])),
            ("metadata.csv", csv.into()),
        ],
    );
    let dataset = open(folder.path()).unwrap();
    assert_eq!(paths(&dataset), pairs(&[("train", "train/a.png"), ("train", "train/b.png"), ("test", "test/c.png")]));
    assert_eq!(values(&dataset, "colour"), words(&["blue", "dark, red", "red"]));
    assert_eq!(values(&dataset, "age"), words(&["6", "-", "5"]));
    assert!(dataset.warnings.join("; ").contains("1 rows of the metadata lie in no split"), "{:?}", dataset.warnings);
}

#[test]
fn metadata_in_parquet_keeps_its_columns() {
    let folder = tempdir().unwrap();
    let columns: Vec<(&str, ArrayRef)> = vec![
        ("file_name", std::sync::Arc::new(StringArray::from(vec!["x/1.png", "x/2.png"]))),
        ("age", std::sync::Arc::new(Int64Array::from(vec![Some(3), None]))),
    ];
    write_files(folder.path(), [("x/1.png", flat_png([1; 3])), ("x/2.png", flat_png([2; 3]))]);
    write_parquet(&folder.path().join("metadata.parquet"), &RecordBatch::try_from_iter(columns).unwrap()).unwrap();
    let dataset = open(folder.path()).unwrap();
    assert_eq!((dataset.kind, dataset.columns()), (Kind::ImageFolder, vec!["image".to_owned(), "age".to_owned()]));
    assert_eq!(values(&dataset, "age"), words(&["3", "-"]));
}

#[test]
fn contradictions_between_metadata_files_are_refused() {
    let folder = tempdir().unwrap();
    let row = |name: &str| format!("{{\"file_name\":\"{name}\"}}\n").into_bytes();
    write_files(
        folder.path(),
        [("train/1.png", flat_png([1; 3])), ("test/2.png", flat_png([2; 3])), ("train/metadata.jsonl", row("1.png"))],
    );
    let error = open(folder.path()).unwrap_err();
    assert!(error.to_string().contains("split `test` has no metadata file"), "{error}");
    write_files(folder.path(), [("test/metadata.csv", b"file_name\n2.png\n".to_vec())]);
    assert!(open(folder.path()).unwrap_err().to_string().contains("use one format in all splits"));
    write_files(folder.path(), [("train/metadata.csv", b"file_name\n1.png\n".to_vec())]);
    assert!(open(folder.path()).unwrap_err().to_string().contains("more than one metadata file"));
    write_files(folder.path(), [("metadata.csv", b"file_name\n1.png\n".to_vec())]);
    fs::remove_file(folder.path().join("train/metadata.csv")).unwrap();
    assert!(open(folder.path()).unwrap_err().to_string().contains("keep one of the two"));
}

#[test]
fn metadata_one_folder_too_deep_is_refused_instead_of_passed_over() {
    let folder = tempdir().unwrap();
    write_files(
        folder.path(),
        [("train/images/1.png", flat_png([1; 3])), ("train/images/metadata.csv", b"file_name\n1.png\n".to_vec())],
    );
    let error = open(folder.path()).unwrap_err().to_string();
    assert!(error.contains("train/images/metadata.csv: metadata in a folder below the split is not read"), "{error}");
}

#[test]
fn a_metadata_column_that_is_called_like_the_images_is_refused_until_the_images_are_called_otherwise() {
    let folder = tempdir().unwrap();
    write_files(
        folder.path(),
        [("1.png", flat_png([1; 3])), ("metadata.csv", b"file_name,image\n1.png,first\n".to_vec())],
    );
    assert!(matches!(open(folder.path()), Err(DataError::Layout { .. })));
    let spec = DatasetSpec { path: folder.path().into(), image: Some("photo".into()), ..DatasetSpec::default() };
    let dataset = Dataset::open(&spec).unwrap();
    assert_eq!(dataset.columns(), ["photo", "image"]);
    assert_eq!(values(&dataset, "image"), words(&["first"]));
}

#[cfg(unix)]
#[test]
fn a_link_out_of_the_dataset_is_a_rejected_row() {
    let (folder, outside) = (tempdir().unwrap(), tempdir().unwrap());
    write_files(folder.path(), [("a/1.png", flat_png([1; 3]))]);
    write_files(outside.path(), [("secret.png", flat_png([2; 3]))]);
    std::os::unix::fs::symlink(outside.path().join("secret.png"), folder.path().join("a/2.png")).unwrap();
    let dataset = open(folder.path()).unwrap();
    let table = dataset.read(&dataset.units[0]).unwrap();
    assert!(table.image(0).is_some() && table.image(1).is_none());
    assert!(table.error(1).unwrap().contains("link out of the dataset"), "{:?}", table.errors);
}

#[test]
fn a_fingerprint_is_that_of_the_content_wherever_the_folder_is() {
    let make = |second: Vec<u8>| {
        let folder = tempdir().unwrap();
        write_files(folder.path(), [("a/1.png", flat_png([1; 3])), ("a/2.png", second)]);
        let dataset = open(folder.path()).unwrap();
        dataset.units[0].fingerprint.clone()
    };
    let first = make(flat_png([2; 3]));
    assert_eq!(first, make(flat_png([2; 3])));
    assert_ne!(first, make(flat_png([3; 3])));
}

#[test]
fn a_class_folder_or_a_metadata_value_that_changes_changes_the_fingerprint() {
    let folder = tempdir().unwrap();
    let fingerprint = |csv: &str| {
        write_files(folder.path(), [("1.png", flat_png([1; 3])), ("metadata.csv", csv.into())]);
        open(folder.path()).unwrap().units[0].fingerprint.clone()
    };
    let red = fingerprint("file_name,colour\n1.png,red\n");
    assert_ne!(red, fingerprint("file_name,colour\n1.png,blue\n"));
    assert_eq!(red, fingerprint("file_name,colour\n1.png,red\n"));
}

#[test]
fn a_unit_survives_its_json_and_a_unit_of_other_data_is_refused() {
    let (folder, other) = (tempdir().unwrap(), tempdir().unwrap());
    write_files(folder.path(), [("a/1.png", flat_png([1; 3])), ("a/2.png", flat_png([2; 3]))]);
    write_files(other.path(), [("a/1.png", flat_png([1; 3]))]);
    let dataset = open(folder.path()).unwrap();
    let unit = serde_json::from_str(&serde_json::to_string(&dataset.units[0]).unwrap()).unwrap();
    assert_eq!(dataset.read(&unit).unwrap().rows(), 2);
    assert!(matches!(open(other.path()).unwrap().read(&unit), Err(DataError::Stale { .. })));
}

#[test]
fn nothing_to_read_is_an_error_that_says_what_would_be() {
    let folder = tempdir().unwrap();
    let error = open(&folder.path().join("missing")).unwrap_err();
    assert!(matches!(error, DataError::NotFound { .. }), "{error}");
    let error = open(folder.path()).unwrap_err().to_string();
    assert!(error.contains("neither Parquet files nor images") && error.contains("train/<class>/*.png"), "{error}");
    write_files(folder.path(), [("notes.txt", b"x".to_vec())]);
    let error = open(&folder.path().join("notes.txt")).unwrap_err().to_string();
    assert!(error.contains("the file is not Parquet"), "{error}");
}
