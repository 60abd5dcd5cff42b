//! A wrong job stops before any work, with exit code 2, the path, the line, and what was expected.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod support;

use support::{fail, job, run, shapes, succeed};

/// Writes a job whose dataset exists, and gives the folder.
fn folder(text: &str) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    shapes(folder.path(), 4, 2, 2, 8);
    std::fs::write(folder.path().join("job.yaml"), text).unwrap();
    folder
}

fn refused(text: &str, expected: &[&str]) {
    let folder = folder(text);
    let error = fail(folder.path(), &["run", "job.yaml"], 2);
    for part in expected {
        assert!(error.contains(part), "`{part}` is not in: {error}");
    }
    assert!(!folder.path().join("runs").exists(), "no work may begin: {error}");
}

const DATASET: &str = "dataset: {path: shapes, label: shape, attributes: [colour]}\n";

#[test]
fn a_missing_job_file_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let error = fail(folder.path(), &["run", "nowhere.yaml"], 2);
    assert!(error.contains("nowhere.yaml"), "{error}");
}

#[test]
fn a_missing_dataset_is_named_with_line_and_where_it_was_looked_for() {
    refused("name: x\ndataset:\n  path: nowhere\n  label: a\n", &["job.yaml:3", "dataset.path", "nowhere", "relative"]);
}

#[test]
fn an_unknown_key_is_refused_with_its_line_and_the_known_ones() {
    refused(&format!("{DATASET}seeds: 3\n"), &["job.yaml:2", "seeds", "expected one of", "`seed`"]);
    let text = format!("{DATASET}verify:\n  rounds: 2\n  gatez: [decode]\n");
    refused(&text, &["job.yaml:4", "verify.gatez", "did you mean `gates`?"]);
}

#[test]
fn an_unknown_key_inside_a_typed_part_is_refused_with_its_line() {
    let text = format!("{DATASET}plan:\n  target:\n    type: at-least\n    image: 5\n");
    refused(&text, &["job.yaml:5", "plan.target.image", "`images`"]);
    let text = format!("{DATASET}generate:\n  model: {{type: conditional,\n    stepz: 5}}\n");
    refused(&text, &["job.yaml:4", "generate.model.stepz", "`steps`"]);
}

#[test]
fn a_wrong_type_and_an_unknown_variant_are_refused_with_what_was_expected() {
    refused(&format!("{DATASET}seed: seven\n"), &["job.yaml:2", "`seed`: the text `seven`; expected a whole number"]);
    refused(&format!("{DATASET}write:\n  formats: [tfrecord]\n"), &["job.yaml:3", "tfrecord", "`parquet`"]);
    refused(&format!("{DATASET}plan: {{target: {{type: equal}}}}\n"), &["job.yaml:2", "equal", "`parity`"]);
    refused(&format!("{DATASET}evidence: 3\n"), &["job.yaml:2", "`evidence`: the number `3`; expected"]);
}

#[test]
fn a_misspelt_name_is_refused_with_the_one_that_was_probably_meant() {
    for (text, expected) in [
        ("verify:\n  gates: [decode,\n    noveltie]\n", ["job.yaml:4: `verify.gates.1`", "did you mean `novelty`?"]),
        (
            "verify:\n  gates:\n    - type: attributes\n      recognisers:\n        - {type: clips, path: x}\n",
            ["job.yaml:6: `verify.gates.0.recognisers.0.type`: unknown type `clips`", "did you mean `clip`?"],
        ),
        (
            "generate:\n  sampler: {type: dpmp-2m}\n",
            ["job.yaml:3: `generate.sampler.type`: unknown type", "did you mean `dpmpp-2m`?"],
        ),
        ("evidence:\n  sedes: 5\n", ["job.yaml:3: `evidence.sedes`: unknown key `sedes`", "did you mean `seeds`?"]),
    ] {
        refused(&format!("{DATASET}{text}"), &expected);
    }
}

#[test]
fn yes_and_no_are_texts_and_are_refused_where_true_or_false_is_expected() {
    let expected = "the text `yes`; expected true or false";
    let text = format!("{DATASET}generate:\n  guides:\n    inversion: yes\n");
    refused(&text, &["job.yaml:4: `generate.guides.inversion`", expected]);
    let text = format!("{DATASET}generate:\n  guides:\n    inversion_noise: 0.1\n");
    refused(&text, &["job.yaml:4: `generate.guides.inversion_noise`", "add `inversion: true`"]);
    let text = format!("{DATASET}verify:\n  gates:\n    - {{type: attributes,\n       flip: yes}}\n");
    refused(&text, &["job.yaml:5: `verify.gates.0.flip`", expected]);
}

#[test]
fn impossible_values_are_refused() {
    refused(&format!("{DATASET}verify: {{rounds: 0}}\n"), &["verify.rounds", "1 to 1000"]);
    refused(&format!("{DATASET}plan: {{target: {{type: at-least, images: 0}}}}\n"), &["plan.target"]);
    refused(&format!("{DATASET}write: {{out: shapes/out}}\n"), &["write.out", "inside the dataset"]);
    refused("dataset: {path: shapes}\n", &["dataset", "label"]);
    let text = "dataset:\n  path: shapes\n  label: shape\n  splits:\n    train: a\n    test: a\n";
    refused(text, &["job.yaml:6", "dataset.splits.test", "`a` is the `train` split already"]);
    for (evidence, expected) in [
        ("{seeds: 0}", ["evidence.seeds", "0; expected a whole number from 1 to 100"]),
        ("{sweep: [0.5, 4]}", ["evidence.sweep", "expected a list of numbers from 0 to 3"]),
        ("{validation_share: 0.9}", ["evidence.validation_share", "0.9; expected a number from 0 to 0.5"]),
        ("{classifier: mlp, hidden: [0]}", ["evidence.hidden", "[0]; expected"]),
        ("{width: 10}", ["evidence.width", "a multiple of 4"]),
    ] {
        refused(&format!("{DATASET}evidence: {evidence}\n"), &["job.yaml:2", expected[0], expected[1]]);
    }
    let text = format!("{DATASET}evidence: {{seeds: 2}}\nverify: {{stop_at_plateau: true}}\n");
    refused(&text, &["job.yaml:3", "verify.stop_at_plateau", "fewer than 5 seeds"]);
}

#[test]
fn an_attribute_that_is_no_column_is_refused_with_the_columns_there_are() {
    let text = "dataset:\n  path: shapes\n  label: shape\n  attributes: [color]\n";
    refused(text, &["job.yaml:4", "dataset.attributes", "color", "colour", "shape"]);
    let text = format!("{DATASET}plan:\n  target: {{type: parity, of: size}}\n");
    refused(&text, &["job.yaml:3", "plan.target", "size", "colour"]);
}

#[test]
fn yaml_that_cannot_be_read_is_refused_with_its_line() {
    refused("dataset: {path: shapes\nname: x\n", &["job.yaml:"]);
    refused("name: a\nname: b\n", &["job.yaml:2", "duplicated key"]);
    refused("- a\n", &["job.yaml:1", "keys and values"]);
}

#[test]
fn set_overrides_the_file_and_is_checked_like_it() {
    let folder = folder(DATASET);
    let error = fail(folder.path(), &["scan", "job.yaml", "--set", "verify.rounds=0"], 2);
    assert!(error.contains("--set verify.rounds=0") && error.contains("1 to 1000"), "{error}");
    let error = fail(folder.path(), &["scan", "job.yaml", "--set", "verify"], 2);
    assert!(error.contains("path.to.key=value"), "{error}");
    succeed(folder.path(), &["scan", "job.yaml", "--set", "name=other", "--set", "seed=9"]);
    let resolved = std::fs::read_to_string(folder.path().join("runs/other/job.yaml")).unwrap();
    assert!(resolved.contains("seed: 9"), "{resolved}");
}

#[test]
fn the_resolved_job_in_the_run_is_a_job_that_runs() {
    let folder = tempfile::tempdir().unwrap();
    shapes(folder.path(), 4, 2, 2, 8);
    job(folder.path(), "hook: {type: command, run: [echo, done]}");
    let first = succeed(folder.path(), &["plan", "job.yaml", "--json"]);
    let again = succeed(folder.path(), &["plan", "runs/shapes/job.yaml", "--json"]);
    assert_eq!(first, again);
}

#[test]
fn evidence_can_be_switched_off_and_the_resolved_job_says_so_too() {
    let folder = folder(&format!("{DATASET}evidence: false\n"));
    succeed(folder.path(), &["scan", "job.yaml"]);
    let resolved = folder.path().join("runs/job/job.yaml");
    assert!(std::fs::read_to_string(&resolved).unwrap().contains("evidence: false"));
    succeed(folder.path(), &["scan", "runs/job/job.yaml"]);
    succeed(folder.path(), &["scan", "job.yaml", "--set", "evidence=true"]);
    assert!(std::fs::read_to_string(&resolved).unwrap().contains("seeds: 5"));
    let text = format!("{DATASET}evidence: false\nverify: {{stop_at_plateau: true}}\n");
    refused(&text, &["job.yaml:3", "verify.stop_at_plateau", "`evidence: false`"]);
    refused(
        &format!("{DATASET}evidence: no\n"),
        &["job.yaml:2", "`evidence`: the text `no`; expected keys and values, or false"],
    );
}

#[test]
fn includes_are_merged_under_the_job_and_their_errors_name_their_own_lines() {
    let folder = folder("include: piece.yaml\nname: mine\ndataset: {path: shapes}\n");
    let piece = folder.path().join("piece.yaml");
    std::fs::write(&piece, "name: theirs\ndataset:\n  label: shape\n  attributes: [colour]\n").unwrap();
    succeed(folder.path(), &["audit", "job.yaml"]);
    assert!(folder.path().join("runs/mine").is_dir(), "the job's own name wins");
    std::fs::write(&piece, "dataset:\n  labl: shape\n").unwrap();
    let error = fail(folder.path(), &["audit", "job.yaml"], 2);
    assert!(error.contains("piece.yaml:2") && error.contains("labl"), "{error}");
    std::fs::write(&piece, "include: job.yaml\n").unwrap();
    let error = fail(folder.path(), &["audit", "job.yaml"], 2);
    assert!(error.contains("include itself"), "{error}");
}

#[test]
fn the_schema_is_json_and_documents_every_key() {
    let folder = tempfile::tempdir().unwrap();
    let schema: serde_json::Value = serde_json::from_str(&succeed(folder.path(), &["schema"])).unwrap();
    assert_eq!(schema["title"], "evenset job");
    let mut undocumented = Vec::new();
    let mut open = vec![("job".to_owned(), &schema)];
    open.extend(schema["$defs"].as_object().unwrap().iter().map(|(name, part)| (name.clone(), part)));
    for (name, part) in open {
        for (key, value) in part["properties"].as_object().into_iter().flatten() {
            let tag = key == "type" && value.get("const").is_some();
            if value.get("description").is_none() && value.get("$ref").is_none() && !tag {
                undocumented.push(format!("{name}.{key}"));
            }
        }
    }
    assert!(undocumented.is_empty(), "{undocumented:?}");
}

#[test]
fn help_and_version_answer_on_every_verb() {
    let folder = tempfile::tempdir().unwrap();
    for verb in
        ["run", "scan", "audit", "plan", "generate", "verify", "write", "evidence", "report", "status", "schema"]
    {
        assert!(succeed(folder.path(), &[verb, "--help"]).contains("Usage"), "{verb}");
    }
    assert_eq!(run(folder.path(), &["frobnicate"]).status.code(), Some(2));
}

#[test]
fn the_reference_in_the_docs_is_the_one_that_the_schema_makes() {
    let folder = tempfile::tempdir().unwrap();
    let made = succeed(folder.path(), &["schema", "--markdown"]);
    let written = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/job-file.md")).unwrap();
    assert!(made == written, "run `evenset schema --markdown > docs/job-file.md`");
}
