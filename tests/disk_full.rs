//! A full disk while the dataset is written: a clear error, nothing lost, and the run finishes once there is room.

#![allow(clippy::unwrap_used, clippy::expect_used)]
#![cfg(target_os = "linux")]

mod support;

use std::process::Command;

use support::{job, shapes, succeed};

/// A small file system of its own, which only this test sees: `unshare` gives it a mount namespace.
///
/// The script mounts 300 KiB at `small`, fills most of it, and runs the job, which must fail; then it frees the room and
/// runs the job again.
const SCRIPT: &str = r#"
set -e
mount -t tmpfs -o size=300k tmpfs small
head -c 260000 /dev/zero > small/ballast
set +e
"$EVENSET" write job.yaml 2> first.txt
echo "code $?" > code.txt
ls -A small > listing.txt
set -e
rm small/ballast
"$EVENSET" write job.yaml 2> second.txt
cp -r small/out copied
"#;

#[test]
fn a_full_disk_is_named_and_the_run_resumes_when_there_is_room() {
    let root = tempfile::tempdir().unwrap();
    shapes(root.path(), 40, 30, 10, 16);
    job(root.path(), "");
    std::fs::create_dir(root.path().join("small")).unwrap();
    let text = std::fs::read_to_string(root.path().join("job.yaml")).unwrap();
    let text = text.replace("write: {formats: [parquet, webdataset]}", "write: {formats: [parquet], out: small/out}");
    std::fs::write(root.path().join("job.yaml"), text).unwrap();
    // Everything before the write is done while there is room.
    succeed(root.path(), &["verify", "job.yaml"]);

    let mut shell = Command::new("unshare");
    shell.args(["--mount", "--map-root-user", "sh", "-c", SCRIPT]).current_dir(root.path());
    let output = shell.env("EVENSET", env!("CARGO_BIN_EXE_evenset")).output().unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    if stderr.contains("Operation not permitted") || stderr.contains("permission denied") {
        eprintln!("skipped: this system lets no test mount a file system ({stderr})");
        return;
    }
    assert!(output.status.success(), "{stderr}");
    let read = |name: &str| std::fs::read_to_string(root.path().join(name)).unwrap();
    assert_eq!(read("code.txt").trim(), "code 1");
    let first = read("first.txt");
    assert!(first.contains("small") && first.contains("no space left"), "{first}");
    assert!(!first.contains("panicked"), "{first}");
    assert!(!read("listing.txt").lines().any(|name| name == "out"), "no half-written dataset under the final name");
    assert!(root.path().join("copied/data/train-00000-of-00001.parquet").is_file());
}
