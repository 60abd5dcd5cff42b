use std::collections::BTreeMap;
use std::sync::Arc;

use arrow_array::{ArrayRef, Float64Array, RecordBatch, StringArray};

use super::*;
use crate::labels::{Derive, Filter};
use crate::rows::write_parquet;
use crate::table::Table;

fn derive(pairs: &[(&str, &str)]) -> BTreeMap<String, Derive> {
    pairs.iter().map(|(name, json)| ((*name).to_owned(), serde_json::from_str(json).unwrap())).collect()
}

fn filters(texts: &[&str]) -> Vec<Filter> {
    texts.iter().map(|text| Filter::parse(text).unwrap()).collect()
}

fn strings(names: &[&str]) -> Vec<String> {
    names.iter().map(|&name| name.to_owned()).collect()
}

fn csv(content: &str) -> LabelTable {
    LabelTable::from_reader(content.as_bytes(), &LabelSpec { path: "-".into(), ..LabelSpec::default() }).unwrap()
}

const PEOPLE: &str = "name,age,colour\nstreet_1,17,red\nsea_2,18,blue\nstreet_3,64.5,\nsea_4,,blue\nfield_5,90,green\n";

#[test]
fn attributes_are_derived_from_columns_and_from_each_other() {
    let view = View {
        attributes: strings(&["group", "scene", "outside", "colour"]),
        derive: derive(&[
            ("group", r#"{"from": "age", "bins": [18, 65]}"#),
            ("scene", r#"{"from": "name", "regex": "^(?<scene>[a-z]+)_"}"#),
            ("outside", r#"{"from": "scene", "map": {"sea": "yes", "field": "yes"}, "otherwise": "no"}"#),
        ]),
        filters: filters(&["outside = yes", "colour is not missing"]),
    };
    let found = view_rows(&csv(PEOPLE), &view).unwrap();
    assert_eq!(
        found,
        [["18 to <65", "sea", "yes", "blue"], ["-", "sea", "yes", "blue"], [">=65", "field", "yes", "green"]]
    );
}

#[test]
fn quantiles_are_computed_from_all_rows_and_say_when_they_fall_together() {
    let text = format!("x,y\n{}", (0..100).map(|row| format!("{row},{}\n", row.max(60))).collect::<String>());
    let view = View {
        attributes: strings(&["q", "tied"]),
        derive: derive(&[("q", r#"{"from": "x", "quantiles": 4}"#), ("tied", r#"{"from": "y", "quantiles": 4}"#)]),
        filters: filters(&["x < 50"]),
    };
    let table = csv(&text);
    let resolved = table.view(&view, &Silent).unwrap();
    assert_eq!(resolved.edges("q"), Some(&[25.0, 50.0, 75.0][..]));
    assert_eq!(resolved.edges("tied"), Some(&[75.0][..]));
    assert_eq!(resolved.notes(), ["`tied` has 2 bins instead of 4, because many rows have the same number"]);
    let found = view_rows(&table, &view).unwrap();
    assert_eq!((found.len(), &found[0], &found[49]), (50, &strings(&["<25", "<75"]), &strings(&["25 to <50", "<75"])));
    let equal = View {
        derive: derive(&[("q", r#"{"from": "x", "quantiles": 4}"#)]),
        attributes: strings(&["q"]),
        filters: vec![],
    };
    let error = csv("x\n1\n1\n").view(&equal, &Silent).unwrap_err().to_string();
    assert!(error.contains("all equal or missing"), "{error}");
    let error = csv("x\n1\nold\n").view(&equal, &Silent).unwrap_err().to_string();
    assert!(error.contains("derived attribute `q`: `old` is not a number"), "{error}");
}

#[test]
fn mistakes_in_a_view_are_named_before_anything_is_read() {
    let table = csv(PEOPLE);
    let error = |view: View| table.view(&view, &Silent).unwrap_err().to_string();
    let of = |attributes: &[&str], pairs: &[(&str, &str)]| {
        error(View { attributes: strings(attributes), derive: derive(pairs), filters: vec![] })
    };
    assert!(of(&["color"], &[]).contains("did you mean `colour`?"));
    assert!(of(&[], &[("colour", r#"{"from": "age", "bins": [1]}"#)]).contains("the table has a column of this name"));
    let circle = [
        ("a", r#"{"from": "b", "map": {}}"#),
        ("b", r#"{"from": "c", "map": {}}"#),
        ("c", r#"{"from": "b", "map": {}}"#),
    ];
    assert!(of(&[], &circle).contains("is made from itself: `b` from `c` from `b`"), "{}", of(&[], &circle));
    assert!(
        of(&[], &[("a", r#"{"from": "ages", "bins": [1]}"#)])
            .contains("there is no column `ages` (did you mean `age`?)")
    );
    assert!(of(&[], &[("a", r#"{"from": "age", "bins": [2, 1]}"#)]).contains("must rise"));
    let empty = View { filters: vec![Filter { column: "age".into(), ..Filter::default() }], ..View::default() };
    assert!(error(empty).contains("there is no condition"));
}

#[test]
fn a_text_among_numbers_is_an_error_with_its_row_unless_a_filter_before_leaves_it_out() {
    let table = csv("age,kind\n18,person\nn/a,house\n30,person\n");
    let of = |texts: &[&str]| {
        view_rows(&table, &View { attributes: strings(&["age"]), filters: filters(texts), ..View::default() })
    };
    let error = of(&["age >= 18"]).unwrap_err().to_string();
    assert!(error.contains("filter on `age`: `n/a` (standard input, row 2) is not a number"), "{error}");
    assert_eq!(of(&["kind = person", "age > 18"]).unwrap(), expected("30"));
    assert_eq!(of(&["age != n/a", "age > 18"]).unwrap(), expected("30"));
    let binned = |texts: &[&str]| {
        let derive = derive(&[("group", r#"{"from": "age", "bins": [20]}"#)]);
        view_rows(&table, &View { attributes: strings(&["group"]), derive, filters: filters(texts) })
    };
    let error = binned(&[]).unwrap_err().to_string();
    assert!(error.contains("derived attribute `group`: `n/a` is not a number") && error.contains("row 2"), "{error}");
    assert_eq!(binned(&["kind = person"]).unwrap(), expected("<20|>=20"));
}

/// A small generator of numbers for tables that are to be different each time but the same in each run.
pub fn random(seed: u64) -> impl FnMut(u64) -> u64 {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    move |below| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state % below
    }
}

#[test]
fn filters_keep_the_rows_that_a_naive_reading_keeps() {
    for seed in 0..30 {
        let mut next = random(seed);
        let cells = ["1", "2.5", "-3", "7", "", "007"];
        let data: Vec<[&str; 3]> = (0..next(500)).map(|_| [(); 3].map(|()| cells[next(6) as usize])).collect();
        let text = data.iter().map(|row| row.join(",") + "\n").collect::<String>();
        let mut table = csv(&format!("a,b,c\n{text}"));
        table.batch_rows = 1 + next(100) as usize;
        let conditions: Vec<String> = (0..1 + next(3))
            .map(|_| {
                let column = ["a", "b", "c"][next(3) as usize];
                let value = ["1", "2.5", "7"][next(3) as usize];
                let operator = ["=", "!=", "<", "<=", ">", ">=", "in", "not in"][next(8) as usize];
                match next(5) {
                    0 => format!("{column} is missing"),
                    1 => format!("{column} is not missing"),
                    _ => format!("{column} {operator} {value}"),
                }
            })
            .collect();
        let naive = |row: &[&str; 3], condition: &str| {
            let parts: Vec<&str> = condition.split(' ').collect();
            let cell = row[(parts[0].as_bytes()[0] - b'a') as usize];
            let number = |text: &str| text.parse::<f64>().unwrap();
            match (&parts[1..], cell) {
                (["is", "missing"], cell) => cell.is_empty(),
                (_, "") => false,
                (["is", ..], _) => true,
                (["=" | "in", value], cell) => cell == *value,
                (["!=", value] | ["not", "in", value], cell) => cell != *value,
                (["<", value], cell) => number(cell) < number(value),
                (["<=", value], cell) => number(cell) <= number(value),
                ([">", value], cell) => number(cell) > number(value),
                ([">=", value], cell) => number(cell) >= number(value),
                (other, _) => panic!("{other:?}"),
            }
        };
        let kept = data.iter().filter(|row| conditions.iter().all(|condition| naive(row, condition)));
        let kept: Rows = kept
            .map(|row| row.map(|cell| if cell.is_empty() { "-".into() } else { cell.to_owned() }).to_vec())
            .collect();
        let texts: Vec<&str> = conditions.iter().map(String::as_str).collect();
        let view = View { attributes: strings(&["a", "b", "c"]), filters: filters(&texts), ..View::default() };
        assert_eq!(view_rows(&table, &view).unwrap(), kept, "{conditions:?}");
    }
}

#[test]
fn the_size_of_batches_and_the_number_of_threads_change_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let mut next = random(5);
    for name in ["a.csv", "b.csv", "c.csv"] {
        let rows: String = (0..500).map(|row| format!("{},{}\n", next(7), row % 3)).collect();
        write(folder.path(), &[(name, &format!("x,y\n{rows}"))]);
    }
    let view = View {
        attributes: strings(&["x", "low"]),
        derive: derive(&[("low", r#"{"from": "x", "bins": [3]}"#)]),
        filters: filters(&["y != 1"]),
    };
    let mut table = open(folder.path()).unwrap();
    let whole = view_rows(&table, &view).unwrap();
    for (batch, threads) in [(1, 1), (7, 3), (499, 2), (500, 8), (501, 1)] {
        table.batch_rows = batch;
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        assert_eq!(pool.install(|| view_rows(&table, &view)).unwrap(), whole, "{batch} rows, {threads} threads");
    }
}

#[test]
fn a_column_of_a_million_ids_is_read_in_batches() {
    let text: String = (0..300_000).map(|row| format!("id {row}\n")).collect();
    let table = csv(&format!("x\n{text}"));
    let view = table.view(&View { attributes: strings(&["x"]), ..View::default() }, &Silent).unwrap();
    let add = |sum: &mut (u64, usize), columns: &[LabelColumn]| {
        sum.0 += columns[0].codes.len() as u64;
        sum.1 = sum.1.max(columns[0].values.len());
        Ok::<_, DataError>(())
    };
    let sums = table.fold(&view, &Silent, || (0, 0), add).unwrap();
    assert_eq!(sums[0].0, 300_000);
    assert!(sums[0].1 <= 200_000, "{sums:?}");
}

#[test]
fn a_view_of_nothing_and_one_column_twice_are_fine() {
    let table = csv("x\n1\n2\n");
    assert_eq!(rows(&table, &["x", "x"]).unwrap(), expected("1 1|2 2"));
    assert_eq!(rows(&table, &[]).unwrap(), Rows::new());
}

struct Stops;

impl evenset_core::Progress for Stops {
    fn begin(&self, _: &str, _: u64) {}
    fn advance(&self, _: u64) {}
    fn note(&self, _: &str) {}
    fn end(&self) {}
    fn stop_requested(&self) -> bool {
        true
    }
}

#[test]
fn reading_stops_when_it_is_asked_to() {
    let table = csv("x\n1\n");
    let view = table.view(&View { attributes: strings(&["x"]), ..View::default() }, &Silent).unwrap();
    let error = table.fold(&view, &Stops, || (), |_, _| Ok::<_, DataError>(())).unwrap_err();
    assert!(matches!(error, DataError::Interrupted(_)), "{error}");
}

#[test]
fn the_same_view_works_on_a_table_of_images() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.parquet");
    let columns: Vec<(&str, ArrayRef)> = vec![
        ("age", Arc::new(Float64Array::from(vec![Some(17.5), Some(18.0), None, Some(0.5)]))),
        ("colour", Arc::new(StringArray::from(vec![Some("red"), Some("?"), Some("red"), None]))),
    ];
    let batch = RecordBatch::try_from_iter(columns).unwrap();
    write_parquet(&path, &batch).unwrap();
    let view = View {
        attributes: strings(&["group", "colour"]),
        derive: derive(&[("group", r#"{"from": "age", "bins": [18]}"#)]),
        filters: filters(&["age > 1", "split = test"]),
    };
    let table = LabelTable::open(&LabelSpec { missing: strings(&["?"]), ..spec(&path) }).unwrap();
    let resolved = table.view(&view, &Silent).unwrap();
    assert_eq!(resolved.attributes(), ["group", "colour"]);
    let images =
        Table { features: crate::Features::of_schema(&batch.schema()), batch, image: "image".into(), errors: vec![] };
    let (columns, keep) = resolved.apply(&images, "test").unwrap();
    assert_eq!(texts(&columns), expected("<18 red|>=18 -|- red|<18 -"));
    assert_eq!(keep, [true, true, false, false]);
    assert_eq!(resolved.apply(&images, "train").unwrap().1, [false; 4]);
}
