//! A run goes on after something changed: what depends on it is done again, and the rest is kept. Whatever is kept must be
//! what a fresh run would give.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod support;

use std::path::Path;

use support::{fail, job, of_stage, run, shapes, stages, stderr, succeed};

/// Settings with which a whole run takes seconds.
const QUICK: [&str; 12] = [
    "--set",
    "generate.model.steps=2",
    "--set",
    "generate.sampler.steps=2",
    "--set",
    "verify.gates=[decode]",
    "--set",
    "verify.rounds=1",
    "--set",
    "evidence=false",
    "--set",
    "audit.images=false",
];

/// The stages that train and draw.
fn drawing(root: &Path) -> Vec<String> {
    let all = stages(&root.join("runs/shapes")).into_iter();
    all.filter(|name| ["model", "verif", "generate"].iter().any(|stage| name.starts_with(stage))).collect()
}

#[test]
fn an_output_of_other_settings_is_refused_before_anything_is_drawn() {
    let root = tempfile::tempdir().unwrap();
    shapes(root.path(), 24, 20, 4, 16);
    job(root.path(), "");
    let write = [&["write", "job.yaml"], &QUICK[..]].concat();
    let first = run(root.path(), &write);
    let written = || std::fs::read_to_string(root.path().join("out/shapes/evenset.json")).unwrap();
    let (mark, before) = (written(), drawing(root.path()));
    for same in ["generate.unit=3", "dataset.path=./shapes", "audit.groupings=[[colour]]", "verify.keep_rejected=3"] {
        let again = run(root.path(), &[&write[..], &["--set", same]].concat());
        assert_eq!(again.status.code(), first.status.code(), "{same}: {}", stderr(&again));
    }
    for other in [
        "seed=5",
        "generate.sampler.steps=3",
        "verify.gates=[decode, novelty]",
        "plan.target.images=25",
        "verify.rounds=2",
    ] {
        let error = fail(root.path(), &[&write[..], &["--set", other]].concat(), 2);
        assert!(error.contains("not made by this job as it stands") && error.contains("--overwrite"), "{error}");
    }
    assert_eq!(drawing(root.path()), before, "no model or gate was trained, and nothing drawn");
    assert_eq!(written(), mark);
    let replaced = run(root.path(), &[&write[..], &["--set", "seed=5", "--overwrite"]].concat());
    assert_eq!(replaced.status.code(), first.status.code(), "{}", stderr(&replaced));
    assert_ne!(written(), mark);
}

#[test]
fn the_report_at_the_top_of_a_run_is_that_of_the_job_as_it_was_asked_last() {
    let root = tempfile::tempdir().unwrap();
    shapes(root.path(), 24, 20, 4, 16);
    job(root.path(), "");
    let page = || std::fs::read_to_string(root.path().join("runs/shapes/report.html")).unwrap();
    let report = |unit: &str| {
        let output = run(root.path(), &[&["report", "job.yaml"], &QUICK[..], &["--set", unit]].concat());
        assert_eq!(output.status.code(), Some(3), "{}", stderr(&output));
    };
    let candidates = || {
        let data = std::fs::read(root.path().join("runs/shapes/report.json")).unwrap();
        serde_json::from_slice::<serde_json::Value>(&data).unwrap()["acceptance"]["candidates"].clone()
    };
    report("generate.unit=3");
    let (first, drawn) = (page(), candidates());
    report("generate.unit=64");
    assert_ne!(page(), first, "the page shows the job");
    assert_eq!(candidates(), drawn, "those that were drawn in small units are all there");
    report("generate.unit=3");
    assert_eq!(page(), first, "a report that was made before lies at the top again");
}

#[test]
fn the_samples_of_a_model_are_drawn_as_the_job_says_and_the_model_is_not_trained_again() {
    let root = tempfile::tempdir().unwrap();
    shapes(root.path(), 24, 20, 4, 16);
    job(root.path(), "");
    let trained = std::cell::Cell::new(false);
    let samples = |more: &[&str]| {
        let output = run(root.path(), &[&["generate", "job.yaml"], &QUICK[..], more].concat());
        trained.set(stderr(&output).contains("train the tiny model"));
        let folder = more.iter().find_map(|set| set.strip_prefix("run=")).unwrap_or("runs/shapes");
        std::fs::read(of_stage(&root.path().join(folder), "model").join("samples.png")).unwrap()
    };
    let first = samples(&[]);
    assert!(trained.get());
    let other = samples(&["--set", "generate.sampler.guidance=3"]);
    assert!(other != first && !trained.get(), "other samples of the same model");
    assert_eq!(other, samples(&["--set", "generate.sampler.guidance=3", "--set", "run=runs/fresh"]));
    assert_eq!(first, samples(&[]), "there and back");
}

#[cfg(unix)]
#[test]
fn a_script_that_was_mended_is_started_again() {
    let root = tempfile::tempdir().unwrap();
    shapes(root.path(), 24, 20, 4, 16);
    job(
        root.path(),
        "hook: {type: command, run: [sh, -c, 'sh train.sh && date +%N | tee train.log model.pt', model.pt]}",
    );
    let script = |text: &str| std::fs::write(root.path().join("train.sh"), text).unwrap();
    let write = [&["write", "job.yaml"], &QUICK[..]].concat();
    script("echo started >> log; exit 4");
    fail(root.path(), &write, 1);
    for _ in 0..2 {
        script("echo mended >> log");
        run(root.path(), &write);
    }
    assert_eq!(std::fs::read_to_string(root.path().join("log")).unwrap(), "started\nmended\n");
    script("echo once more >> log");
    run(root.path(), &write);
    assert_eq!(std::fs::read_to_string(root.path().join("log")).unwrap(), "started\nmended\nonce more\n");
}

#[cfg(unix)]
#[test]
fn an_image_that_changes_while_the_run_goes_on_ends_it() {
    let root = tempfile::tempdir().unwrap();
    shapes(root.path(), 24, 20, 4, 16);
    job(root.path(), "");
    let gate = "verify.gates=[{type: command, run: [sh, -c, \"cp shapes/train/disc-red-000.png shapes/train/disc-blue-000.png; \
                sed -E 's/.*\\\"index\\\":([0-9]+).*/{\\\"index\\\":\\\\1,\\\"keep\\\":true}/'\"]}]";
    let write = ["write", "job.yaml", "--set", gate];
    let error = fail(root.path(), &write, 1);
    assert!(
        error.contains("is not the one that was scanned") && error.contains("run the same command again"),
        "{error}"
    );
    assert!(!root.path().join("out/shapes").exists());
    succeed(root.path(), &write);
}

#[test]
fn an_output_that_lost_a_file_is_not_taken_for_whole() {
    let root = tempfile::tempdir().unwrap();
    shapes(root.path(), 24, 20, 4, 16);
    job(root.path(), "");
    let write = [&["write", "job.yaml"], &QUICK[..]].concat();
    run(root.path(), &write);
    let files = std::fs::read_dir(root.path().join("out/shapes/data")).unwrap().map(|entry| entry.unwrap().path());
    let train = files.into_iter().find(|path| path.to_string_lossy().contains("train")).unwrap();
    let whole = std::fs::read(&train).unwrap();
    std::fs::write(&train, &whole[..whole.len() / 2]).unwrap();
    let again = run(root.path(), &write);
    assert_eq!(std::fs::read(&train).unwrap(), whole, "{}", stderr(&again));
    // Nor is it another job's where the run that made it is gone.
    std::fs::remove_dir_all(root.path().join("runs")).unwrap();
    let again = run(root.path(), &write);
    assert_eq!(again.status.code(), Some(3), "{}", stderr(&again));
}
