use std::io::Write;
use std::sync::Arc;

use arrow_array::types::Int8Type;
use arrow_array::{
    ArrayRef, BooleanArray, DictionaryArray, Float64Array, Int64Array, ListArray, RecordBatch, StringArray,
};

use super::*;
use crate::labels::LabelKind;
use crate::rows::write_parquet;

fn of(name: &str, content: &str) -> (tempfile::TempDir, Result<LabelTable, DataError>) {
    let folder = tempfile::tempdir().unwrap();
    write(folder.path(), &[(name, content)]);
    let table = open(&folder.path().join(name));
    (folder, table)
}

fn error_of(name: &str, content: &str, column: &str) -> String {
    let (_folder, table) = of(name, content);
    table.and_then(|table| rows(&table, &[column])).unwrap_err().to_string()
}

#[test]
fn csv_cells_stay_text_and_empty_ones_are_missing() {
    let text = "\u{feff}id,colour,zip,note\r\n1,\"dark, blue\",007,\"says \"\"hi\"\"\"\r\n2,NaN,08,\"two\nlines\"\r\n\r\n3,,null,nan";
    let (_folder, table) = of("a.csv", text);
    let table = table.unwrap();
    assert_eq!(names(&table), ["id", "colour", "zip", "note", "split"]);
    let found = rows(&table, &["colour", "zip", "note", "split"]).unwrap();
    assert_eq!(found[0], ["dark, blue", "007", "says \"hi\"", "train"]);
    assert_eq!(found[1], ["-", "08", "two\nlines", "train"]);
    assert_eq!(found[2], ["-", "-", "-", "train"]);
    let kinds: Vec<LabelKind> = table.columns().iter().map(|column| column.kind).collect();
    assert_eq!(kinds[..3], [LabelKind::Integer, LabelKind::Text, LabelKind::Text]);
    assert_eq!(table.rows(), None);
    assert!(table.describe().ends_with("a.csv (CSV, 1 file)"), "{}", table.describe());
}

#[test]
fn the_delimiter_is_recognised() {
    for (name, content) in [
        ("a.csv", "x;y\n1,5;b\n"),
        ("a.tsv", "x\ty\n1,5\tb\n"),
        ("a.csv", "\"x\"\ty\n\"1,5\"\tb"),
        ("a.csv", "x,y\n\"1,5\",b"),
    ] {
        let (_folder, table) = of(name, content);
        assert_eq!(rows(&table.unwrap(), &["y", "x"]).unwrap(), expected("b 1,5"), "{content}");
    }
}

#[test]
fn damaged_csv_is_an_error_with_the_line() {
    let error = error_of("a.csv", "x,y\n1,2\n\"a\nb\",2\n3\n", "x");
    assert!(error.contains("a.csv, line 5: 1 cells for 2 columns"), "{error}");
    let error = error_of("a.csv", "x,x\n1,2\n", "x");
    assert!(error.contains("line 1: column `x` stands twice"), "{error}");
    let (folder, _) = of("a.csv", "");
    fs::write(folder.path().join("b.csv"), b"x,y\n1,\xff\xfe\n").unwrap();
    let error = open(&folder.path().join("b.csv")).unwrap_err().to_string();
    assert!(error.contains("line 2: the text is not UTF-8"), "{error}");
    let error = open(&folder.path().join("a.csv")).unwrap_err().to_string();
    assert!(error.contains("there are no columns"), "{error}");
}

#[test]
fn a_table_without_rows_has_columns() {
    let (_folder, table) = of("a.csv", "x,y\n");
    assert_eq!(rows(&table.unwrap(), &["x"]).unwrap(), Rows::new());
}

#[test]
fn json_values_become_text_whatever_their_type() {
    let lines = "\u{feff}{\"n\":1,\"mixed\":true,\"flag\":false,\"x\":{\"deep\":1}}\r\n\n\
                 {\"n\":2.0,\"mixed\":\"a\\tb\",\"late\":\"\\u00e9\",\"flag\":null}\n{\"mixed\":1.5}";
    let (_folder, table) = of("a.jsonl", lines);
    let table = table.unwrap();
    assert_eq!(names(&table), ["n", "mixed", "flag", "x", "late", "split"]);
    let kinds: Vec<LabelKind> = table.columns().iter().map(|column| column.kind).collect();
    assert_eq!(kinds[..4], [LabelKind::Integer, LabelKind::Text, LabelKind::Boolean, LabelKind::Other]);
    let found = rows(&table, &["n", "mixed", "flag", "late"]).unwrap();
    assert_eq!(found[0], ["1", "true", "false", "-"]);
    assert_eq!(found[1], ["2", "a\tb", "-", "é"]);
    assert_eq!(found[2], ["-", "1.5", "-", "-"]);
    assert!(rows(&table, &["x"]).unwrap_err().to_string().contains("cannot name groups"));
}

#[test]
fn damaged_json_is_an_error_with_the_line() {
    let error = error_of("a.jsonl", "{\"a\":1}\n{\"a\":\n", "a");
    assert!(error.contains("a.jsonl, line 2: not one JSON object: EOF"), "{error}");
    let error = error_of("a.jsonl", "{\"a\":1}\n[1]\n", "a");
    assert!(error.contains("line 2") && error.contains("an object"), "{error}");
    let error = error_of("a.jsonl", "{\"a\":1} {\"a\":2}\n", "a");
    assert!(error.contains("line 1"), "{error}");
    let deep = format!("{{\"a\":{}1{}}}\n", "[".repeat(100_000), "]".repeat(100_000));
    assert!(error_of("a.jsonl", &deep, "a").contains("cannot name groups"));
}

#[test]
fn measurements_in_json_and_parquet_ask_for_bins() {
    let (_folder, table) = of("a.jsonl", "{\"x\":1}\n{\"x\":0.5}\n");
    let error = rows(&table.unwrap(), &["x"]).unwrap_err().to_string();
    assert!(error.contains("column `x` holds measurements such as 0.5; say with `derive` and `bins`"), "{error}");
    assert!(error.contains("a.jsonl, row 2"), "{error}");
}

#[test]
fn words_of_the_user_stand_for_missing_values_in_every_format() {
    let folder = tempfile::tempdir().unwrap();
    write(
        folder.path(),
        &[("a.csv", "x\nunknown\na\n?\n"), ("a.jsonl", "{\"x\":\"unknown\"}\n{\"x\":\"a\"}\n{\"x\":\"?\"}\n")],
    );
    let words: ArrayRef = Arc::new(StringArray::from(vec!["unknown", "a", "?"]));
    write_parquet(&folder.path().join("a.parquet"), &RecordBatch::try_from_iter([("x", words)]).unwrap()).unwrap();
    for name in ["a.csv", "a.jsonl", "a.parquet"] {
        let missing = vec!["unknown".to_owned(), "?".to_owned()];
        let table = LabelTable::open(&LabelSpec { missing, ..spec(&folder.path().join(name)) }).unwrap();
        assert_eq!(rows(&table, &["x"]).unwrap(), expected("-|a|-"), "{name}");
    }
}

#[test]
fn every_type_of_parquet_becomes_the_text_that_names_a_group() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.parquet");
    let dictionary: DictionaryArray<Int8Type> = [Some("red"), None, Some("red")].into_iter().collect();
    let none: DictionaryArray<Int8Type> = [None::<&str>; 3].into_iter().collect();
    let list = ListArray::from_iter_primitive::<arrow_array::types::Int32Type, _, _>([Some([Some(1)]), None, None]);
    let columns: Vec<(&str, ArrayRef)> = vec![
        ("flag", Arc::new(BooleanArray::from(vec![Some(true), Some(false), None]))),
        ("n", Arc::new(Int64Array::from(vec![Some(-7), None, Some(7)]))),
        ("whole", Arc::new(Float64Array::from(vec![Some(3.0), Some(f64::NAN), None]))),
        ("colour", Arc::new(dictionary)),
        ("none", Arc::new(none)),
        ("text", Arc::new(StringArray::from(vec![Some("a b"), Some(""), None]))),
        ("list", Arc::new(list)),
        ("x", Arc::new(Float64Array::from(vec![0.5, 1e300, 2.0]))),
    ];
    write_parquet(&path, &RecordBatch::try_from_iter(columns).unwrap()).unwrap();
    let table = open(&path).unwrap();
    assert_eq!(table.rows(), Some(3));
    let found = rows(&table, &["flag", "n", "whole", "colour", "none", "text"]).unwrap();
    assert_eq!(found[0], ["true", "-7", "3", "red", "-", "a b"]);
    assert_eq!(found[1], ["false", "-", "-", "-", "-", ""]);
    assert_eq!(found[2], ["-", "7", "-", "red", "-", "-"]);
    assert!(rows(&table, &["list"]).unwrap_err().to_string().contains("column `list` holds"));
    assert!(rows(&table, &["x"]).unwrap_err().to_string().contains("measurements such as 0.5"));
}

#[test]
fn folders_and_patterns_give_all_files_with_their_splits() {
    let folder = tempfile::tempdir().unwrap();
    write(
        folder.path(),
        &[("data/train-00000-of-00002.csv", "x,y\n1,a\n"), ("data/train-00001-of-00002.csv", "y,x\nb,2\n")],
    );
    write(folder.path(), &[("data/test.csv", "x,y\n3,c\n"), ("data/readme.txt", "no data")]);
    let table = open(folder.path()).unwrap();
    assert_eq!(rows(&table, &["x", "y", "split"]).unwrap(), expected("1 a train|2 b train|3 c test"));
    let pattern = folder.path().join("data/train-*.csv");
    assert_eq!(rows(&open(&pattern).unwrap(), &["x", "y"]).unwrap(), expected("1 a|2 b"));
    let only = LabelTable::open(&LabelSpec { split: Some("test".into()), ..spec(folder.path()) }).unwrap();
    assert_eq!(rows(&only, &["x"]).unwrap(), expected("3"));
    let error = LabelTable::open(&LabelSpec { split: Some("validation".into()), ..spec(folder.path()) }).unwrap_err();
    assert!(error.to_string().contains("no split `validation`; found: test, train"), "{error}");
    let error = open(&folder.path().join("data/*.jsonl")).unwrap_err().to_string();
    assert!(error.contains("no file of labels"), "{error}");
    let error = open(&folder.path().join("gone/*.csv")).unwrap_err();
    assert!(matches!(error, DataError::NotFound { .. }), "{error}");
}

#[test]
fn files_of_one_table_need_the_same_columns() {
    let folder = tempfile::tempdir().unwrap();
    write(folder.path(), &[("a.csv", "x,y\n1,a\n"), ("b.csv", "x,z\n1,a\n")]);
    let error = open(folder.path()).unwrap_err().to_string();
    assert!(error.contains("b.csv: column `y` is missing; all files"), "{error}");
    write(folder.path(), &[("b.csv", "x,y,z\n1,a,1\n")]);
    assert!(open(folder.path()).unwrap_err().to_string().contains("column `z` is not in the other files"));
    write(folder.path(), &[("b.jsonl", "{\"x\":1}\n")]);
    assert!(open(folder.path()).unwrap_err().to_string().contains("both CSV and JSONL"));
}

#[test]
fn a_column_split_restricts_the_rows_of_a_table_without_other_splits() {
    let (folder, _) = of("a.csv", "x,split\n1,training\n2,test\n3,Train\n4,\n");
    let path = folder.path().join("a.csv");
    let train = LabelTable::open(&LabelSpec { split: Some("train".into()), ..spec(&path) }).unwrap();
    assert_eq!(rows(&train, &["x", "split"]).unwrap(), expected("1 training|3 Train"));
    let splits = [("train".to_owned(), "Train".to_owned())].into();
    let train = LabelTable::open(&LabelSpec { split: Some("train".into()), splits, ..spec(&path) }).unwrap();
    assert_eq!(rows(&train, &["x"]).unwrap(), expected("3"));
    let error = LabelTable::open(&LabelSpec { split: Some("dev".into()), ..spec(&path) }).unwrap_err();
    assert!(matches!(error, DataError::NoSuchRole { .. }), "{error}");
}

#[test]
fn standard_input_is_recognised_by_its_first_bytes() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.parquet");
    let column: ArrayRef = Arc::new(StringArray::from(vec!["a", "b"]));
    write_parquet(&path, &RecordBatch::try_from_iter([("x", column)]).unwrap()).unwrap();
    let mut packed = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    packed.write_all(b"x\na\nb\n").unwrap();
    let inputs = [
        fs::read(path).unwrap(),
        b"x\na\nb\n".to_vec(),
        b"\xef\xbb\xbf {\"x\":\"a\"}\n{\"x\":\"b\"}".to_vec(),
        packed.finish().unwrap(),
    ];
    for input in inputs {
        let spec = LabelSpec { path: "-".into(), ..LabelSpec::default() };
        let table = LabelTable::from_reader(input.as_slice(), &spec).unwrap();
        assert_eq!(rows(&table, &["x"]).unwrap(), expected("a|b"));
        assert!(table.describe().starts_with("standard input ("), "{}", table.describe());
        assert_eq!(table.fingerprint().unwrap(), table.fingerprint().unwrap());
    }
    let empty = LabelTable::from_reader(&b""[..], &LabelSpec::default()).unwrap_err();
    assert!(empty.to_string().contains("there are no columns"), "{empty}");
}

#[test]
fn a_fingerprint_changes_with_the_content_and_the_words_that_are_missing() {
    let (folder, table) = of("a.csv", "x\n1\n");
    let path = folder.path().join("a.csv");
    let before = table.unwrap().fingerprint().unwrap();
    assert_eq!(open(&path).unwrap().fingerprint().unwrap(), before);
    let missing = LabelSpec { missing: vec!["1".into()], ..spec(&path) };
    assert_ne!(LabelTable::open(&missing).unwrap().fingerprint().unwrap(), before);
    write(folder.path(), &[("a.csv", "x\n2\n")]);
    assert_ne!(open(&path).unwrap().fingerprint().unwrap(), before);
}

#[test]
fn damaged_parquet_is_an_error_that_names_the_file() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.parquet");
    let column: ArrayRef = Arc::new(StringArray::from_iter_values((0..5000).map(|row| format!("word {}", row % 7))));
    write_parquet(&path, &RecordBatch::try_from_iter([("x", column)]).unwrap()).unwrap();
    let sound = fs::read(&path).unwrap();
    for (place, byte) in (4..sound.len() - 8).step_by(3).flat_map(|place| [(place, 0xff), (place, 0), (place, 0x80)]) {
        let mut bytes = sound.clone();
        bytes[place] = byte;
        fs::write(&path, bytes).unwrap();
        if let Err(error) = open(&path).and_then(|table| rows(&table, &["x"])) {
            assert!(error.to_string().contains("a.parquet") || error.to_string().contains("column"), "{error}");
        }
    }
    fs::write(&path, &sound[..sound.len() / 2]).unwrap();
    assert!(open(&path).unwrap_err().to_string().contains("a.parquet: not a readable Parquet file"));
}
