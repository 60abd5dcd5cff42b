//! Killed anywhere, the same command finishes with the bytes of a run that was never interrupted.

#![allow(clippy::unwrap_used, clippy::expect_used)]
#![cfg(unix)]

mod support;

use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use support::{contents, evenset, job, run, shapes, stderr};

const STAGES: [&str; 8] = ["scan", "model", "verifier", "generate-1", "verify-1", "write", "evidence", "report"];

fn prepare(root: &Path) {
    shapes(root, 40, 8, 8, 16);
    job(root, "");
    let text = std::fs::read_to_string(root.join("job.yaml")).unwrap();
    let gates = "gates: [decode, {type: attributes, threshold: 0.05}]";
    std::fs::write(root.join("job.yaml"), text.replace("gates: []", gates)).unwrap();
}

fn start(root: &Path) -> Child {
    evenset(root, &["run", "job.yaml"]).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
}

/// Runs to the end. After so short a training a target may be missed (exit code 3); the bytes must be the same all the same.
fn finish(root: &Path) {
    let output = run(root, &["run", "job.yaml"]);
    assert!([Some(0), Some(3)].contains(&output.status.code()), "{}", stderr(&output));
}

/// The folder of a stage, once there is one.
fn stage_folder(root: &Path, stage: &str) -> Option<PathBuf> {
    let entries = std::fs::read_dir(root.join("runs/shapes")).ok()?;
    let prefix = format!("{stage}-");
    let mine = |path: &PathBuf| {
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        name.strip_prefix(&prefix).is_some_and(|rest| rest.len() == 12 && !rest.contains('-'))
    };
    entries.flatten().map(|entry| entry.path()).find(mine)
}

/// Waits until the stage has begun, or the run is over.
fn wait_for(root: &Path, stage: &str, child: &mut Child) {
    let start = Instant::now();
    while start.elapsed() < Duration::from_secs(300) {
        if stage_folder(root, stage).is_some() || child.try_wait().unwrap().is_some() {
            return;
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    panic!("{stage} did not begin within five minutes");
}

/// Interrupts one run after another, each a little later in the given stage, then lets it finish.
fn interrupt_everywhere(signal: &str) -> (tempfile::TempDir, usize) {
    let root = tempfile::tempdir().unwrap();
    prepare(root.path());
    let mut unfinished = 0;
    for stage in STAGES {
        for delay in [0, 15, 60] {
            let mut child = start(root.path());
            wait_for(root.path(), stage, &mut child);
            std::thread::sleep(Duration::from_millis(delay));
            let _ = std::process::Command::new("kill").args([signal, &child.id().to_string()]).output().unwrap();
            let status = child.wait().unwrap();
            let folder = stage_folder(root.path(), stage).unwrap();
            if !folder.join("manifest.json").is_file() {
                unfinished += 1;
                // Before the program listens, the signal ends it as it ends any program.
                let ended = status.code() == Some(130) || status.signal() == Some(2);
                assert!(signal != "-INT" || ended, "Ctrl-C in {stage}: {status}");
            }
        }
    }
    finish(root.path());
    (root, unfinished)
}

fn uninterrupted() -> tempfile::TempDir {
    let root = tempfile::tempdir().unwrap();
    prepare(root.path());
    finish(root.path());
    root
}

fn same(left: &Path, right: &Path) {
    for part in ["out", "runs"] {
        let (left, right) = (contents(&left.join(part), &[".lock"]), contents(&right.join(part), &[".lock"]));
        let names = |files: &std::collections::BTreeMap<PathBuf, Vec<u8>>| files.keys().cloned().collect::<Vec<_>>();
        assert_eq!(names(&left), names(&right), "the same files");
        for (name, bytes) in &left {
            assert!(bytes == &right[name], "{} differs", name.display());
        }
    }
}

#[test]
fn killed_in_every_stage_the_run_finishes_with_the_same_bytes() {
    let (killed, unfinished) = interrupt_everywhere("-KILL");
    assert!(unfinished >= STAGES.len(), "only {unfinished} kills hit a stage at work");
    same(killed.path(), uninterrupted().path());
}

#[test]
fn ctrl_c_in_every_stage_leaves_a_run_that_finishes_with_the_same_bytes() {
    let (stopped, unfinished) = interrupt_everywhere("-INT");
    assert!(unfinished >= 3, "only {unfinished} interrupts hit a stage at work");
    same(stopped.path(), uninterrupted().path());
}
