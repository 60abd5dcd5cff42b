//! `evenset audit` from outside: tables without a job, filters, pipes, two tables, jobs over tables, and bad input.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod support;

use std::io::Write;
use std::path::Path;
use std::process::Stdio;

use serde_json::{Value, json};
use support::{evenset, fail, shapes, succeed};

/// Forty people: engineers are nearly all men, and one in ten has no region.
fn people(folder: &Path) {
    let mut table = "id,job,sex,age,region\n".to_owned();
    for i in 0..40 {
        let job = if i % 2 == 0 { "engineer" } else { "nurse" };
        let sex = if (i % 2 == 0) == (i % 10 != 0) { "m" } else { "f" };
        let region = if i % 10 == 3 { "" } else { ["north", "south"][i % 4 / 2] };
        table.push_str(&format!("{i},{job},{sex},{},{region}\n", 18 + i));
    }
    std::fs::write(folder.join("people.csv"), table).unwrap();
}

fn json_of(folder: &Path, arguments: &[&str]) -> Value {
    let text = succeed(folder, &[&["audit"], arguments, &["--json"]].concat());
    serde_json::from_str(&text).unwrap()
}

fn count(audit: &Value, values: Value) -> u64 {
    let groupings = audit["groupings"].as_array().unwrap();
    let mut groups = groupings.iter().flat_map(|grouping| grouping["groups"].as_array().unwrap());
    groups.find(|group| group["values"] == values).unwrap()["count"].as_u64().unwrap()
}

#[test]
fn a_table_that_is_not_there_is_named_as_it_was_given() {
    let folder = tempfile::tempdir().unwrap();
    let error = fail(folder.path(), &["audit", "nope.csv"], 2);
    assert!(error.contains("nope.csv: there is no such file or folder") && !error.contains("dataset."), "{error}");
}

#[test]
fn a_table_without_a_job_is_guessed_and_says_so() {
    let folder = tempfile::tempdir().unwrap();
    people(folder.path());
    let text = succeed(folder.path(), &["audit", "people.csv"]);
    assert!(text.contains("guessed the attributes job, sex, region"), "{text}");
    assert!(text.contains("left out: id (") && !text.contains("split"), "{text}");
    assert!(text.contains("(missing)") && text.contains("go together"), "{text}");
    assert!(!folder.path().join("runs").exists(), "an audit without a job leaves nothing behind");
}

#[test]
fn the_json_counts_every_grouping_and_every_uncovered_pattern() {
    let folder = tempfile::tempdir().unwrap();
    people(folder.path());
    let audit = json_of(folder.path(), &["people.csv", "--by", "job,sex", "--threshold", "10", "--max-level", "2"]);
    assert_eq!(audit["rows"], 40);
    assert_eq!(count(&audit, json!({"job": "engineer", "sex": "f"})), 4);
    assert_eq!(count(&audit, json!({"sex": "m"})), 16);
    let expected = json!([
        {"pattern": {"job": "engineer", "sex": "f"}, "level": 2, "count": 4},
        {"pattern": {"job": "nurse", "sex": "m"}, "level": 2, "count": 0},
    ]);
    assert_eq!(audit["coverage"]["uncovered"], expected);
}

#[test]
fn filters_choose_rows_and_one_that_cannot_be_read_is_shown_with_the_place() {
    let folder = tempfile::tempdir().unwrap();
    people(folder.path());
    let by = ["people.csv", "--by", "job"];
    let audit = json_of(folder.path(), &[&by[..], &["--where", "age >= 28", "--where", "sex in m, x"]].concat());
    let expected = (10..40).filter(|i| (i % 2 == 0) == (i % 10 != 0)).count() as u64;
    assert_eq!(audit["rows"], expected);
    let error = fail(folder.path(), &[&["audit"], &by[..], &["--where", "age => 28"]].concat(), 2);
    assert!(error.contains("age => 28\n") && error.contains('^'), "{error}");
    let error = fail(folder.path(), &[&["audit"], &by[..], &["--where", "agee > 1"]].concat(), 2);
    assert!(error.contains("agee") && error.contains("age"), "{error}");
}

#[test]
fn derived_attributes_and_missing_words_are_given_as_keys() {
    let folder = tempfile::tempdir().unwrap();
    people(folder.path());
    let derive =
        ["people.csv", "--set", "derive.stage={from: age, bins: [30, 50]}", "--by", "stage", "--missing", "north"];
    let audit = json_of(folder.path(), &derive);
    assert_eq!(count(&audit, json!({"stage": "<30"})), 12);
    assert_eq!(count(&audit, json!({"stage": ">=50"})), 8);
}

#[test]
fn standard_input_is_a_table() {
    let folder = tempfile::tempdir().unwrap();
    let mut child = evenset(folder.path(), &["audit", "-", "--by", "a", "--json", "-q"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(b"{\"a\":\"x\"}\n{\"a\":\"y\"}\n{\"a\":\"x\"}\n").unwrap();
    let output = child.wait_with_output().unwrap();
    let audit: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((audit["rows"].as_u64(), count(&audit, json!({"a": "x"}))), (Some(3), 2));
}

#[test]
fn counts_of_a_census_stand_beside_single_rows() {
    let folder = tempfile::tempdir().unwrap();
    people(folder.path());
    let census = "sex,people\nf,500\nm,480\nx,20\n";
    std::fs::write(folder.path().join("census.csv"), census).unwrap();
    let found = json_of(folder.path(), &["people.csv", "census.csv", "--by", "sex", "--count", "people"]);
    assert_eq!(found["rows"], json!([40, 1000]));
    assert_eq!(found["only_in_one"][0]["value"], json!({"sex": "x"}));
    let text = succeed(folder.path(), &["audit", "people.csv", "census.csv", "--by", "sex", "--count", "people"]);
    assert!(text.contains("only census.csv has sex=x (20 rows)"), "{text}");
    let reference = "audit.reference={file: census.csv, count: people}";
    let audit = json_of(folder.path(), &["people.csv", "--by", "sex", "--set", reference]);
    let groups = audit["groupings"][0]["groups"].as_array().unwrap();
    assert_eq!(groups.len(), 3);
    assert!(groups.iter().any(|group| group["values"]["sex"] == "x" && group["reference"] == 0.02), "{groups:?}");
    let wrong = "audit.reference={sex: {f: 1.0}}";
    let error = fail(folder.path(), &["audit", "people.csv", "--by", "sex", "--set", wrong], 2);
    assert!(error.contains("no share to `m` of `sex`"), "{error}");
}

#[test]
fn a_page_and_a_table_are_written_where_they_are_asked_for() {
    let folder = tempfile::tempdir().unwrap();
    people(folder.path());
    succeed(folder.path(), &["audit", "people.csv", "--html", "audit.html", "--parquet", "groups.parquet"]);
    let page = std::fs::read_to_string(folder.path().join("audit.html")).unwrap();
    assert!(page.contains("<table") && page.contains("Who is missing") && !page.contains("<script"), "{page}");
    let audit = json_of(folder.path(), &["groups.parquet", "--by", "grouping"]);
    assert_eq!(count(&audit, json!({"grouping": "job"})), 2);
}

#[test]
fn a_job_over_a_table_counts_plans_and_refuses_what_needs_images() {
    let folder = tempfile::tempdir().unwrap();
    people(folder.path());
    let job = "dataset: {path: people.csv, label: job, attributes: [sex, stage]}
derive: {stage: {from: age, quantiles: 2}}
where: [{column: region, missing: false}]
audit: {coverage: {threshold: 5, max_level: 2}}
plan: {target: {type: at-least, images: 8, max_level: 2}}
";
    std::fs::write(folder.path().join("job.yaml"), job).unwrap();
    let audit = json_of(folder.path(), &["job.yaml"]);
    assert_eq!((audit["rows"].as_u64(), audit["coverage"]["threshold"].as_u64()), (Some(36), Some(5)));
    assert!(audit["parity"][0]["label"]["job"].is_string());
    let plan = succeed(folder.path(), &["plan", "job.yaml", "--json"]);
    assert_eq!(plan, succeed(folder.path(), &["plan", "job.yaml", "--json"]));
    let plan: Value = serde_json::from_str(&plan).unwrap();
    assert_eq!((plan["optimal"].as_bool(), plan["targets"][0]["satisfied"].as_bool()), (Some(true), Some(true)));
    let error = fail(folder.path(), &["run", "job.yaml"], 2);
    assert!(error.contains("table of labels without images"), "{error}");
}

#[test]
fn images_are_looked_at_group_by_group() {
    let folder = tempfile::tempdir().unwrap();
    shapes(folder.path(), 30, 4, 2, 16);
    let labels = json_of(folder.path(), &["shapes", "--by", "shape,colour", "--split", "train"]);
    assert_eq!((labels["rows"].as_u64(), labels.get("images")), (Some(68), None));
    let audit = json_of(folder.path(), &["shapes", "--by", "shape,colour", "--split", "train", "--images"]);
    let images = &audit["images"];
    assert_eq!((images["images"].as_u64(), images["groups"].as_array().unwrap().len()), (Some(68), 4));
    assert_eq!(images["groups"][0]["statistics"]["width"], json!([16.0, 16.0, 16.0]));
    assert!(images["groups"][0]["vendi"].as_f64().unwrap() >= 1.0);
}

#[test]
fn bad_tables_are_clear_errors() {
    let folder = tempfile::tempdir().unwrap();
    for (name, content, what) in [
        ("empty.csv", "a,b\n", "no row"),
        ("nothing.csv", "", "no columns"),
        ("ragged.csv", "a,b\nx,y\nx\n", "ragged.csv"),
        ("broken.jsonl", "{\"a\":1}\n{\"a\":\n", "broken.jsonl"),
    ] {
        std::fs::write(folder.path().join(name), content).unwrap();
        let output = support::run(folder.path(), &["audit", name, "--by", "a"]);
        let error = support::stderr(&output);
        assert!(!output.status.success() && error.contains(what) && !error.contains("panicked"), "{name}: {error}");
    }
    let many: String = (0..100_002).map(|i| format!("person {i}\n")).collect();
    std::fs::write(folder.path().join("many.csv"), format!("name\n{many}")).unwrap();
    let error = fail(folder.path(), &["audit", "many.csv", "--by", "name"], 2);
    assert!(error.contains("different values") && error.contains("bins"), "{error}");
    let error = fail(folder.path(), &["audit", "gone.csv"], 2);
    assert!(error.contains("gone.csv"), "{error}");
}
