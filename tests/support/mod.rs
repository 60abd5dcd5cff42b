//! A temporary folder, small pictures with known attributes, and the built binary.

#![allow(dead_code, reason = "each test binary uses its own part of the support")]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use image::{Rgb, RgbImage};

/// The binary, started in `folder`, without colours and without a terminal.
pub fn evenset(folder: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_evenset"));
    command.current_dir(folder).args(arguments).env("NO_COLOR", "1").env_remove("EVENSET_LOG").stdin(Stdio::null());
    command
}

/// Runs it to its end.
pub fn run(folder: &Path, arguments: &[&str]) -> Output {
    evenset(folder, arguments).output().expect("the binary starts")
}

/// Runs it and expects exit code 0; gives standard output.
pub fn succeed(folder: &Path, arguments: &[&str]) -> String {
    let output = run(folder, arguments);
    assert_eq!(output.status.code(), Some(0), "{arguments:?}: {}", stderr(&output));
    String::from_utf8(output.stdout).expect("UTF-8")
}

/// Runs it and expects this exit code; gives standard error.
pub fn fail(folder: &Path, arguments: &[&str], code: i32) -> String {
    let output = run(folder, arguments);
    let text = stderr(&output);
    assert_eq!(output.status.code(), Some(code), "{arguments:?}: {text}");
    assert!(!text.contains("panicked"), "{text}");
    text
}

/// The stage folders of a run, by name: `scan-1f0c3a...`.
pub fn stages(run: &Path) -> Vec<String> {
    let folders = std::fs::read_dir(run).unwrap().map(|entry| entry.unwrap().path()).filter(|path| path.is_dir());
    let mut names: Vec<String> = folders.map(|path| path.file_name().unwrap().to_string_lossy().into_owned()).collect();
    names.sort();
    names
}

/// The only stage folder of a run whose name begins like this.
pub fn of_stage(run: &Path, stage: &str) -> PathBuf {
    let mut names = stages(run);
    names.retain(|name| name.starts_with(stage));
    assert_eq!(names.len(), 1, "{names:?}");
    run.join(names.remove(0))
}

pub fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

pub const SHAPES: [&str; 2] = ["disc", "square"];
pub const COLOURS: [(&str, [u8; 3]); 2] = [("blue", [40, 80, 230]), ("red", [230, 60, 40])];

/// A picture of one shape in one colour on a grey ground, under strong grain; `variant` moves and shades it.
///
/// The grain is there so that what a model draws after a few seconds of training passes as one of these.
pub fn picture(shape: &str, colour: [u8; 3], variant: u32, side: u32) -> RgbImage {
    let wobble = |salt: u32| ((variant.wrapping_mul(2_654_435_761) ^ salt.wrapping_mul(40_503)) >> 7) % 5;
    let radius = side as f32 * (0.26 + 0.03 * wobble(1) as f32);
    let centre = |salt| side as f32 / 2.0 - 1.0 + 0.5 * wobble(salt) as f32;
    let (cx, cy, shade) = (centre(2), centre(3), 0.75 + 0.06 * wobble(4) as f32);
    RgbImage::from_fn(side, side, |x, y| {
        let (dx, dy) = (x as f32 - cx, y as f32 - cy);
        let inside =
            if shape == "disc" { dx * dx + dy * dy < radius * radius } else { dx.abs().max(dy.abs()) < radius };
        let colour = if inside { colour.map(|c| f32::from(c) * shade) } else { [90.0, 90.0, 94.0] };
        let grain = |channel: u32| {
            let hash =
                (x + 64 * y + 4096 * channel).wrapping_add(variant.wrapping_mul(7919)).wrapping_mul(2_654_435_761);
            f32::from((hash >> 16) as u8) - 127.5
        };
        Rgb([0, 1, 2].map(|channel| (colour[channel as usize] + 0.7 * grain(channel)) as u8))
    })
}

/// An image folder with metadata: discs are almost always blue and squares almost always red.
///
/// `train` has `common` images of the home combinations and `rare` of the others; `test` has `held_out` of each.
pub fn shapes(root: &Path, common: u32, rare: u32, held_out: u32, side: u32) -> PathBuf {
    let dataset = root.join("shapes");
    for (split, counts) in [("train", [common, rare]), ("test", [held_out, held_out])] {
        let folder = dataset.join(split);
        std::fs::create_dir_all(&folder).unwrap();
        let mut metadata = String::new();
        for (s, shape) in SHAPES.iter().enumerate() {
            for (c, (colour, rgb)) in COLOURS.iter().enumerate() {
                for i in 0..counts[usize::from(s != c)] {
                    let name = format!("{shape}-{colour}-{i:03}.png");
                    let variant = i + 1000 * u32::from(split == "test") + 97 * (2 * s + c) as u32;
                    picture(shape, *rgb, variant, side).save(folder.join(&name)).unwrap();
                    let row = serde_json::json!({"file_name": name, "shape": shape, "colour": colour});
                    metadata.push_str(&format!("{row}\n"));
                }
            }
        }
        std::fs::write(folder.join("metadata.jsonl"), metadata).unwrap();
    }
    dataset
}

/// A job on [`shapes`] that takes seconds; `extra` is added at the end.
pub fn job(root: &Path, extra: &str) -> PathBuf {
    let text = format!(
        "name: shapes
seed: 3
dataset: {{path: shapes, label: shape, attributes: [colour]}}
plan:
  target: {{type: at-least, images: 24}}
generate:
  model: {{type: conditional, size: tiny, steps: 40, batch: 16, checkpoint_every: 10}}
  sampler: {{type: dpmpp-2m, steps: 3}}
  unit: 8
verify:
  gates: []
  rounds: 3
write: {{formats: [parquet, webdataset]}}
evidence: {{seeds: 2, steps: 20, baselines: [as-is], variants: []}}
{extra}"
    );
    let path = root.join("job.yaml");
    std::fs::write(&path, text).unwrap();
    path
}

/// Every file below `folder` with its bytes, except those whose path contains one of `without`.
pub fn contents(folder: &Path, without: &[&str]) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut files = BTreeMap::new();
    let mut open = vec![folder.to_owned()];
    while let Some(next) = open.pop() {
        for entry in std::fs::read_dir(&next).unwrap() {
            let path = entry.unwrap().path();
            let name = path.strip_prefix(folder).unwrap().to_owned();
            if without.iter().any(|part| name.to_string_lossy().contains(part)) {
                continue;
            }
            if path.is_dir() {
                open.push(path);
            } else {
                files.insert(name, std::fs::read(&path).unwrap());
            }
        }
    }
    files
}
