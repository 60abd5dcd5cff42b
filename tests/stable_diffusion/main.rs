//! Stable Diffusion from outside, by the smallest models that have its layout (`tests/golden`): jobs, single images and lists of
//! models, and pictures that belong to images (masks, ControlNet). Here is what they share.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod jobs;
mod pictures;
mod single;
#[path = "../support/mod.rs"]
mod support;

use std::path::{Path, PathBuf};

use support::{contents, picture, succeed};

fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize().unwrap()
}

fn model(family: &str) -> String {
    repository().join("tests/golden/prompts").join(family).join("model").display().to_string()
}

fn control() -> String {
    repository().join("tests/golden/pipelines/control").display().to_string()
}

/// Draws one image of a small model for a prompt, with these flags, and gives the bytes of its file.
fn draw_one(root: &Path, family: &str, prompt: &str, flags: &str, out: &str) -> Vec<u8> {
    let model = model(family);
    let mut arguments = vec!["generate", "--prompt", prompt, "--model", &model, "--out", out];
    arguments.extend(flags.split_whitespace());
    assert_eq!(succeed(root, &arguments), format!("{out}\n"));
    std::fs::read(root.join(out)).unwrap()
}

/// A folder of stand-ins for faces: 12 or 2 of each occupation, gender and skin tone.
fn faces(root: &Path) {
    for split in ["train", "test"] {
        let folder = root.join("faces").join(split);
        std::fs::create_dir_all(&folder).unwrap();
        let mut metadata = String::new();
        let mut number = 0;
        for (o, occupation) in ["nurse", "scientist"].iter().enumerate() {
            for (g, gender) in ["female", "male"].iter().enumerate() {
                for (s, skin_tone) in ["light", "medium", "dark"].iter().enumerate() {
                    let images = if o == g && s == 0 { 12 } else { 2 };
                    for _ in 0..images {
                        number += 1;
                        let name = format!("{number:03}.png");
                        let variant = number + 500 * u32::from(split == "test");
                        let colour = [60 + 60 * s as u8, 90, 200 - 90 * o as u8];
                        picture(["disc", "square"][g], colour, variant, 16).save(folder.join(&name)).unwrap();
                        let row = serde_json::json!({
                            "file_name": name, "occupation": occupation, "gender": gender, "skin_tone": skin_tone
                        });
                        metadata.push_str(&format!("{row}\n"));
                    }
                }
            }
        }
        std::fs::write(folder.join("metadata.jsonl"), metadata).unwrap();
    }
}

/// The arguments that run the job for faces with a small model instead of the published one.
fn small(verb: &str, family: &str, more: &[&str]) -> Vec<String> {
    let job = repository().join("pipelines/faces-sd15.yaml").display().to_string();
    let model = format!("generate.model.path={}", model(family));
    let changes = [
        "dataset.path=faces",
        &model,
        "generate.model.width=24",
        "generate.model.height=16",
        "generate.sampler.steps=3",
        "plan.target.images=5",
        "verify.gates=[decode]",
        "evidence={seeds: 1, steps: 5, baselines: [as-is], variants: []}",
    ];
    let mut arguments = vec![verb.to_owned(), job];
    for change in changes.iter().chain(more) {
        arguments.extend(["--set".to_owned(), (*change).to_owned()]);
    }
    arguments
}

fn as_strs(arguments: &[String]) -> Vec<&str> {
    arguments.iter().map(String::as_str).collect()
}

/// A candidate of a run's first round.
struct Candidate {
    png: Vec<u8>,
    group: String,
    seed: u64,
}

impl Candidate {
    fn image(&self) -> image::RgbImage {
        image::load_from_memory(&self.png).unwrap().to_rgb8()
    }
}

/// The candidates of the first round of a run, in their order.
fn candidates(run: &Path) -> Vec<Candidate> {
    let is_unit = |name: &Path| {
        let name = name.to_string_lossy();
        name.contains("generate-1") && name.contains("units") && name.ends_with(".parquet")
    };
    let files = contents(run, &[]);
    files.into_iter().filter(|(name, _)| is_unit(name)).flat_map(|(_, bytes)| rows(bytes)).collect()
}

/// Their images.
fn drawn(run: &Path) -> Vec<Vec<u8>> {
    candidates(run).into_iter().map(|candidate| candidate.png).collect()
}

fn rows(parquet: Vec<u8>) -> Vec<Candidate> {
    use arrow_array::cast::AsArray;
    use arrow_array::types::UInt64Type;
    let builder = parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder::try_new(bytes(parquet)).unwrap();
    let mut found = Vec::new();
    for batch in builder.build().unwrap() {
        let batch = batch.unwrap();
        let column = |name: &str| batch.column_by_name(name).unwrap();
        for row in 0..batch.num_rows() {
            found.push(Candidate {
                png: column("png").as_binary::<i32>().value(row).to_vec(),
                group: column("group").as_string::<i32>().value(row).to_owned(),
                seed: column("seed").as_primitive::<UInt64Type>().value(row),
            });
        }
    }
    found
}

fn bytes(content: Vec<u8>) -> std::fs::File {
    use std::io::{Seek, Write};
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(&content).unwrap();
    file.rewind().unwrap();
    file
}

/// Lines that run in one direction, as an edge detector leaves them.
fn lines(across: bool) -> image::RgbImage {
    image::RgbImage::from_fn(16, 16, |x, y| {
        image::Rgb([if (if across { y } else { x }) % 4 == 0 { 255 } else { 0 }; 3])
    })
}
