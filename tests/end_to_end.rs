//! The whole job on a small image folder: what is written, where generated images go, what is never overwritten.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod support;

use std::collections::BTreeMap;
use std::fs::File;
use std::path::Path;

use arrow_array::cast::AsArray;
use arrow_array::types::{Float64Type, Int64Type};
use arrow_array::{Array, RecordBatch};
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use support::{contents, evenset, fail, job, shapes, stderr, succeed};

fn read(path: &Path) -> Vec<RecordBatch> {
    let file = File::open(path).unwrap();
    ParquetRecordBatchReaderBuilder::try_new(file).unwrap().build().unwrap().map(|batch| batch.unwrap()).collect()
}

fn text(batch: &RecordBatch, column: &str, row: usize) -> Option<String> {
    let column = batch.column_by_name(column).unwrap_or_else(|| panic!("no column {column}")).as_string::<i32>();
    column.is_valid(row).then(|| column.value(row).to_owned())
}

fn image_bytes(batch: &RecordBatch, row: usize) -> Vec<u8> {
    batch
        .column_by_name("image")
        .unwrap()
        .as_struct()
        .column_by_name("bytes")
        .unwrap()
        .as_binary::<i32>()
        .value(row)
        .to_vec()
}

#[test]
fn the_balanced_dataset_has_every_group_at_its_target_and_real_images_byte_for_byte() {
    let root = tempfile::tempdir().unwrap();
    let source = shapes(root.path(), 24, 6, 8, 16);
    job(root.path(), "");
    let printed = succeed(root.path(), &["run", "job.yaml"]);
    assert!(printed.contains("report:") && printed.contains("dataset: out/shapes"), "{printed}");

    let out = root.path().join("out/shapes");
    let (mut groups, mut real) = (BTreeMap::<String, u64>::new(), 0);
    let mut generated_began = false;
    for batch in read(&out.join("data/train-00000-of-00001.parquet")) {
        let synthetic = batch.column_by_name("is_synthetic").unwrap().as_boolean();
        for row in 0..batch.num_rows() {
            let (shape, colour) = (text(&batch, "shape", row).unwrap(), text(&batch, "colour", row).unwrap());
            *groups.entry(format!("{shape} {colour}")).or_default() += 1;
            assert_eq!(text(&batch, "group", row).unwrap(), format!("shape={shape} & colour={colour}"));
            if synthetic.value(row) {
                generated_began = true;
                assert!(batch.column_by_name("seed").unwrap().is_valid(row));
                assert_eq!(text(&batch, "verdict", row).as_deref(), Some("accepted"));
                assert_eq!(text(&batch, "scheduler", row).as_deref(), Some("dpmpp-2m"));
                assert_eq!(text(&batch, "model_sha256", row).unwrap().len(), 64);
                assert!(text(&batch, "verify_scores", row).unwrap().starts_with('{'));
                let png = image_bytes(&batch, row);
                assert!(png.windows(15).any(|window| window == b"tEXtparameters\0"), "parameters in the PNG");
            } else {
                assert!(!generated_began, "real rows come first");
                real += 1;
                let path = batch.column_by_name("image").unwrap().as_struct().column_by_name("path").unwrap();
                let name = path.as_string::<i32>().value(row).to_owned();
                let name = Path::new(&name).file_name().unwrap().to_owned();
                assert_eq!(image_bytes(&batch, row), std::fs::read(source.join("train").join(name)).unwrap());
                assert!(batch.column_by_name("round").unwrap().as_primitive::<Int64Type>().is_null(row));
            }
            assert_eq!(batch.column_by_name("sample_weight").unwrap().as_primitive::<Float64Type>().value(row), 1.0);
        }
    }
    assert_eq!(real, 60);
    assert_eq!(groups.into_values().collect::<Vec<_>>(), [24, 24, 24, 24]);
    let mut held_out = 0;
    for batch in read(&out.join("data/test-00000-of-00001.parquet")) {
        held_out += batch.num_rows();
        assert_eq!(batch.column_by_name("is_synthetic").unwrap().as_boolean().true_count(), 0, "train only");
    }
    assert_eq!(held_out, 32);

    for name in ["README.md", "train.py", "evenset.json", "webdataset/train-00000.tar", "webdataset/test-00000.tar"] {
        assert!(out.join(name).is_file(), "{name}");
    }
    let card = std::fs::read_to_string(out.join("README.md")).unwrap();
    assert!(card.starts_with("---\n") && card.contains("config_name: default"), "{card}");
    let page = std::fs::read_to_string(root.path().join("runs/shapes/report.html")).unwrap();
    assert!(page.contains("data:image/png;base64,") && !page.contains("http://") && !page.contains("src=\"http"));

    let report: serde_json::Value =
        serde_json::from_str(&succeed(root.path(), &["report", "runs/shapes", "--json"])).unwrap();
    let verdict = report["evidence"]["verdict"].as_str().unwrap();
    assert!(["helped", "no-difference", "harmed"].contains(&verdict));
    assert_eq!(report["evidence"]["seeds"], 2);
    let arms: Vec<&str> =
        report["evidence"]["arms"].as_array().unwrap().iter().map(|a| a["name"].as_str().unwrap()).collect();
    assert_eq!(arms, ["as-is", "balanced"]);
    let status: serde_json::Value =
        serde_json::from_str(&succeed(root.path(), &["status", "runs/shapes", "--json"])).unwrap();
    assert!(status.as_array().unwrap().iter().all(|stage| stage["done"] == true), "{status}");
}

#[test]
fn generated_images_get_files_like_the_real_ones_where_the_job_says_so() {
    let root = tempfile::tempdir().unwrap();
    let train = shapes(root.path(), 24, 20, 4, 16).join("train");
    job(root.path(), "");
    // Discs become JPEG files, squares stay PNG files.
    let metadata = std::fs::read_to_string(train.join("metadata.jsonl")).unwrap();
    for entry in std::fs::read_dir(&train).unwrap().map(|entry| entry.unwrap().path()) {
        if entry.file_name().unwrap().to_string_lossy().starts_with("disc") {
            let file = File::create(entry.with_extension("jpg")).unwrap();
            let encoder = image::codecs::jpeg::JpegEncoder::new_with_quality(file, 97);
            image::open(&entry).unwrap().to_rgb8().write_with_encoder(encoder).unwrap();
            std::fs::remove_file(&entry).unwrap();
        }
    }
    let renamed = metadata.lines().map(|line| match line.contains("disc-") {
        true => format!("{}\n", line.replace(".png", ".jpg")),
        false => format!("{line}\n"),
    });
    std::fs::write(train.join("metadata.jsonl"), renamed.collect::<String>()).unwrap();

    succeed(root.path(), &["write", "job.yaml", "--set", "write.match_real=true"]);
    let mut seen = BTreeMap::<String, u32>::new();
    for batch in read(&root.path().join("out/shapes/data/train-00000-of-00001.parquet")) {
        let synthetic = batch.column_by_name("is_synthetic").unwrap().as_boolean();
        for row in (0..batch.num_rows()).filter(|&row| synthetic.value(row)) {
            let bytes = image_bytes(&batch, row);
            let format = image::guess_format(&bytes).unwrap();
            let path = batch.column_by_name("image").unwrap().as_struct().column_by_name("path").unwrap();
            assert!(path.as_string::<i32>().value(row).ends_with(format.extensions_str()[0]));
            *seen.entry(format!("{} {format:?}", text(&batch, "shape", row).unwrap())).or_default() += 1;
        }
    }
    let expected = [("disc Jpeg".to_owned(), 4), ("square Png".to_owned(), 4)];
    assert_eq!(seen, BTreeMap::from(expected));
}

#[test]
fn a_finished_job_is_not_done_again_and_a_changed_one_never_overwrites() {
    let root = tempfile::tempdir().unwrap();
    shapes(root.path(), 24, 20, 4, 16);
    job(root.path(), "");
    succeed(root.path(), &["write", "job.yaml"]);
    let before = contents(root.path(), &[".lock"]);
    succeed(root.path(), &["write", "job.yaml"]);
    assert!(before == contents(root.path(), &[".lock"]), "a second run changes nothing");

    let changed = ["write", "job.yaml", "--set", "seed=4"];
    let error = fail(root.path(), &changed, 2);
    assert!(error.contains("out/shapes") && error.contains("--overwrite"), "{error}");
    let out = |files: &BTreeMap<std::path::PathBuf, Vec<u8>>| -> BTreeMap<std::path::PathBuf, Vec<u8>> {
        files.iter().filter(|(path, _)| path.starts_with("out")).map(|(p, b)| (p.clone(), b.clone())).collect()
    };
    assert!(out(&before) == out(&contents(root.path(), &[])), "the old output is untouched");
    succeed(root.path(), &["write", "job.yaml", "--set", "seed=4", "--overwrite"]);
    assert!(out(&before) != out(&contents(root.path(), &[])));
}

#[test]
fn another_generator_trains_no_classifier_on_real_images_again_and_changes_nothing_else() {
    let (root, afresh) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let prove = |root: &Path, set: &[&str]| {
        let set: Vec<&str> = set.iter().flat_map(|one| ["--set", one]).collect();
        let said = succeed(root, &[&["evidence", "job.yaml", "--json", "--overwrite"], &set[..]].concat());
        serde_json::from_str::<serde_json::Value>(&said).unwrap()["evidence"].clone()
    };
    let trained = |arm: &str| {
        let names = std::fs::read_dir(root.path().join("runs/shapes/classifiers")).unwrap();
        let names = names.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        names.filter(|name| name.rsplit_once('-').is_some_and(|(of, _)| of == arm)).count()
    };
    for root in [&root, &afresh] {
        shapes(root.path(), 24, 20, 4, 16);
        job(root.path(), "");
    }
    prove(root.path(), &[]);
    assert_eq!((trained("as-is-0"), trained("balanced-0"), trained("oversample-0")), (1, 1, 0));

    let other = ["generate.sampler.steps=4", "evidence.baselines=[oversample]"];
    let again = prove(root.path(), &other);
    assert_eq!((trained("as-is-0"), trained("balanced-0"), trained("oversample-0")), (1, 2, 1));
    assert_eq!(again, prove(afresh.path(), &other), "the same as in a run of its own");

    prove(root.path(), &["evidence.steps=21"]);
    assert_eq!((trained("as-is-0"), trained("balanced-0"), trained("oversample-0")), (2, 3, 1));
}

#[test]
fn someone_elses_folder_is_refused_before_any_work() {
    let root = tempfile::tempdir().unwrap();
    shapes(root.path(), 4, 2, 2, 16);
    job(root.path(), "");
    std::fs::create_dir_all(root.path().join("out/shapes")).unwrap();
    std::fs::write(root.path().join("out/shapes/thesis.txt"), "years of work").unwrap();
    let error = fail(root.path(), &["run", "job.yaml"], 2);
    assert!(error.contains("out/shapes"), "{error}");
    assert!(!root.path().join("runs").exists());
    assert!(root.path().join("out/shapes/thesis.txt").is_file());
}

#[test]
fn an_output_that_was_removed_is_written_again_the_same() {
    let root = tempfile::tempdir().unwrap();
    shapes(root.path(), 24, 20, 4, 16);
    job(root.path(), "");
    succeed(root.path(), &["write", "job.yaml"]);
    let before = contents(&root.path().join("out"), &[]);
    std::fs::remove_dir_all(root.path().join("out")).unwrap();
    succeed(root.path(), &["write", "job.yaml"]);
    assert!(before == contents(&root.path().join("out"), &[]));
}

#[test]
fn threads_and_unit_size_do_not_change_a_byte_of_the_dataset() {
    let mut outputs = Vec::new();
    for (threads, unit) in [("1", "generate.unit=8"), ("2", "generate.unit=5")] {
        let root = tempfile::tempdir().unwrap();
        shapes(root.path(), 24, 18, 4, 16);
        job(root.path(), "");
        let arguments = ["run", "job.yaml", "--set", unit, "--set", "verify.gates=[decode, attributes, novelty]"];
        let output = evenset(root.path(), &arguments).env("RAYON_NUM_THREADS", threads).output().unwrap();
        assert!([Some(0), Some(3)].contains(&output.status.code()), "{}", stderr(&output));
        outputs.push(contents(&root.path().join("out"), &["evenset.json"]));
    }
    assert!(outputs[0] == outputs[1]);
}

#[test]
fn a_target_that_is_not_reached_is_exit_code_three_and_is_explained() {
    let root = tempfile::tempdir().unwrap();
    shapes(root.path(), 24, 4, 4, 16);
    job(root.path(), "");
    let impossible = ["run", "job.yaml", "--set", "verify.gates=[{type: attributes, threshold: 0.999999}]"];
    let one_round = ["--set", "verify.rounds=1", "--set", "generate.model.steps=1"];
    let output = evenset(root.path(), &[&impossible[..], &one_round].concat()).output().unwrap();
    assert_eq!(output.status.code(), Some(3), "{}", stderr(&output));
    let page = std::fs::read_to_string(root.path().join("runs/shapes/report.html")).unwrap();
    assert!(page.contains("missing after 1 round"), "the report says which group misses how many");
}

#[test]
fn nothing_missing_writes_the_dataset_as_it_is() {
    let root = tempfile::tempdir().unwrap();
    shapes(root.path(), 6, 6, 4, 16);
    job(root.path(), "");
    succeed(root.path(), &["run", "job.yaml", "--set", "plan.target.images=5"]);
    let rows: usize =
        read(&root.path().join("out/shapes/data/train-00000-of-00001.parquet")).iter().map(RecordBatch::num_rows).sum();
    assert_eq!(rows, 24);
}

#[test]
fn the_hook_gets_the_dataset_on_standard_input_and_in_its_environment() {
    let root = tempfile::tempdir().unwrap();
    shapes(root.path(), 24, 20, 4, 16);
    let script = "cat > seen.json; echo \\\"$EVENSET_DATASET|$EVENSET_ROWS_GENERATED|$1\\\"";
    job(root.path(), &format!("hook: {{type: command, run: [sh, -c, \"{script}\", sh, \"{{dataset}}/data\"]}}"));
    succeed(root.path(), &["write", "job.yaml"]);
    let seen: serde_json::Value =
        serde_json::from_slice(&std::fs::read(root.path().join("seen.json")).unwrap()).unwrap();
    assert_eq!((seen["label"].as_str(), seen["rows_generated"].as_u64()), (Some("shape"), Some(8)));
    assert!(Path::new(seen["dataset"].as_str().unwrap()).is_absolute());

    let failing = ["write", "job.yaml", "--set", "hook.run=[sh, -c, 'echo out of memory; exit 7']"];
    let error = fail(root.path(), &failing, 1);
    assert!(error.contains("exit code 7") && error.contains("output.txt"), "{error}");
    assert!(error.trim_end().ends_with("ends with:\nout of memory"), "the last lines are repeated: {error}");
    let missing = ["write", "job.yaml", "--set", "hook.run=[no-such-program]"];
    assert!(fail(root.path(), &missing, 1).contains("no-such-program"));
}

#[test]
fn a_trainer_that_fails_takes_neither_evidence_nor_report_along_and_is_started_again() {
    let root = tempfile::tempdir().unwrap();
    shapes(root.path(), 24, 20, 12, 16);
    let script = "test -f ready || exit 7; echo trained";
    job(root.path(), &format!("hook: {{type: command, run: [sh, -c, \"{script}\"]}}"));
    let output = evenset(root.path(), &["run", "job.yaml"]).output().unwrap();
    assert_eq!(output.status.code(), Some(1), "{}", stderr(&output));
    assert!(stderr(&output).contains("failed with exit code 7"), "{}", stderr(&output));
    assert!(String::from_utf8_lossy(&output.stdout).contains("report:"), "what was found is shown all the same");
    let hook = || {
        let report = succeed(root.path(), &["report", "runs/shapes", "--json"]);
        let report: serde_json::Value = serde_json::from_str(&report).unwrap();
        assert!(report["evidence"]["verdict"].is_string(), "{report}");
        report["hook"].clone()
    };
    assert_eq!((&hook()["exit_code"], &hook()["failure"]), (&7.into(), &"failed with exit code 7".into()));
    let page = std::fs::read_to_string(root.path().join("runs/shapes/report.html")).unwrap();
    assert!(page.contains("<strong>failed with exit code 7</strong>"));

    // It works in the folder that evenset is started in.
    std::fs::write(root.path().join("ready"), "").unwrap();
    succeed(root.path(), &["run", "job.yaml"]);
    assert!(hook()["failure"].is_null() && hook()["output_tail"] == "trained\n", "{}", hook());
}

#[test]
fn two_processes_do_not_share_a_run() {
    let root = tempfile::tempdir().unwrap();
    shapes(root.path(), 4, 2, 2, 16);
    job(root.path(), "");
    std::fs::create_dir_all(root.path().join("runs/shapes")).unwrap();
    let lock = File::create(root.path().join("runs/shapes/.lock")).unwrap();
    lock.lock().unwrap();
    let error = fail(root.path(), &["scan", "job.yaml"], 1);
    assert!(error.contains("another evenset is running"), "{error}");
}
