//! Broken files inside a good folder become rejected rows with a reason, and the run goes on.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod support;

use std::path::Path;

use support::{evenset, fail, job, picture, shapes, succeed};

/// Twelve good pictures in two class folders, and four broken files.
fn dataset(root: &Path) {
    for (class, colour) in [("blue", [40, 80, 230]), ("red", [230, 60, 40])] {
        let folder = root.join("images").join(class);
        std::fs::create_dir_all(&folder).unwrap();
        for i in 0..6 {
            picture("disc", colour, i, 16).save(folder.join(format!("{i}.png"))).unwrap();
        }
    }
    let folder = root.join("images/red");
    let whole = folder.join("whole.jpg");
    picture("square", [200, 200, 60], 1, 64).save(&whole).unwrap();
    let bytes = std::fs::read(&whole).unwrap();
    std::fs::remove_file(&whole).unwrap();
    std::fs::write(folder.join("truncated.jpg"), &bytes[..bytes.len() * 2 / 3]).unwrap();
    std::fs::write(folder.join("empty.png"), b"").unwrap();
    std::fs::write(folder.join("text.png"), b"This is no picture, whatever its name says.\n").unwrap();
    std::fs::write(folder.join("bomb.png"), png_header(60_000, 60_000)).unwrap();
    std::fs::write(root.join("job.yaml"), "name: bad\ndataset: {path: images, label: label}\n").unwrap();
}

/// A PNG that claims to be huge: signature, IHDR with the right checksum, and an empty IDAT.
fn png_header(width: u32, height: u32) -> Vec<u8> {
    let mut png = b"\x89PNG\r\n\x1a\n".to_vec();
    let mut header = b"IHDR".to_vec();
    header.extend(width.to_be_bytes());
    header.extend(height.to_be_bytes());
    header.extend([8, 2, 0, 0, 0]);
    for chunk in [header.as_slice(), b"IDAT", b"IEND"] {
        png.extend((chunk.len() as u32 - 4).to_be_bytes());
        png.extend(chunk);
        png.extend(crc32(chunk).to_be_bytes());
    }
    png
}

fn crc32(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0u32, |crc, &byte| {
        (0..8).fold(crc ^ u32::from(byte), |crc, _| (crc >> 1) ^ (0xedb8_8320 & (crc & 1).wrapping_neg()))
    })
}

#[test]
fn four_broken_files_are_four_rejected_rows_and_the_rest_is_counted() {
    let root = tempfile::tempdir().unwrap();
    dataset(root.path());
    let summary: serde_json::Value =
        serde_json::from_str(&succeed(root.path(), &["scan", "job.yaml", "--json"])).unwrap();
    assert_eq!(summary["rows"]["train"], 12);
    let rejected: u64 = summary["rejected"].as_array().unwrap().iter().map(|r| r["rows"].as_u64().unwrap()).sum();
    assert_eq!(rejected, 4, "{summary}");
    for name in ["truncated.jpg", "empty.png", "text.png", "bomb.png"] {
        assert!(summary.to_string().contains(name), "{name} is not named in {summary}");
    }
    let folder = std::fs::read_dir(root.path().join("runs/bad")).unwrap().flatten();
    let scan = folder.map(|entry| entry.path()).find(|path| path.to_string_lossy().contains("scan-")).unwrap();
    assert!(scan.join("rejected.parquet").is_file(), "the rejected rows are kept with their reasons");
    let audit = succeed(root.path(), &["audit", "job.yaml"]);
    assert!(audit.contains("red") && audit.contains("4 rows were rejected"), "{audit}");
}

#[test]
fn rows_without_a_value_are_counted_and_never_asked_for() {
    let root = tempfile::tempdir().unwrap();
    shapes(root.path(), 24, 20, 4, 16);
    job(root.path(), "");
    let metadata = root.path().join("shapes/train/metadata.jsonl");
    let text = std::fs::read_to_string(&metadata).unwrap();
    let blank = |(place, line): (usize, &str)| match place % 20 {
        0 => line.replace("\"blue\"", "null").replace("\"red\"", "null") + "\n",
        1 => line.replace("\"disc\"", "null").replace("\"square\"", "null") + "\n",
        _ => format!("{line}\n"),
    };
    std::fs::write(&metadata, text.lines().enumerate().map(blank).collect::<String>()).unwrap();
    let said = succeed(root.path(), &["run", "job.yaml"]);
    assert!(said.contains("generated"), "{said}");
    let plan = succeed(root.path(), &["plan", "job.yaml", "--json"]);
    let plan: serde_json::Value = serde_json::from_str(&plan).unwrap();
    let missing = |group: &&serde_json::Value| group["values"].to_string().contains("(missing)");
    let unknown: Vec<_> = plan["groups"].as_array().unwrap().iter().filter(missing).collect();
    assert!(unknown.len() > 1 && unknown.iter().all(|group| group["add"] == 0), "{unknown:?}");
}

#[test]
fn on_error_fail_stops_at_the_first_broken_file_and_names_it() {
    let root = tempfile::tempdir().unwrap();
    dataset(root.path());
    let error = fail(root.path(), &["scan", "job.yaml", "--set", "dataset.on_error=fail"], 1);
    assert!(error.contains("bomb.png") && error.contains("on_error"), "{error}");
}

#[test]
fn a_folder_of_nothing_but_broken_files_is_a_clear_error() {
    let root = tempfile::tempdir().unwrap();
    std::fs::create_dir_all(root.path().join("images/a")).unwrap();
    std::fs::write(root.path().join("images/a/x.png"), b"no").unwrap();
    std::fs::write(root.path().join("job.yaml"), "dataset: {path: images, label: label}\n").unwrap();
    let error = fail(root.path(), &["run", "job.yaml"], 1);
    assert!(error.contains("no usable training row") && error.contains("1 rejected"), "{error}");
}

#[test]
fn an_empty_folder_is_a_clear_error() {
    let root = tempfile::tempdir().unwrap();
    std::fs::create_dir_all(root.path().join("images")).unwrap();
    std::fs::write(root.path().join("job.yaml"), "dataset: {path: images, label: label}\n").unwrap();
    let output = evenset(root.path(), &["run", "job.yaml"]).output().unwrap();
    let error = support::stderr(&output);
    assert!(!output.status.success() && error.contains("images"), "{error}");
    assert!(!error.contains("panicked"), "{error}");
}
