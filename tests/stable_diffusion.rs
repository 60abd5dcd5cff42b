//! Jobs and single images with Stable Diffusion, by the smallest models that have its layout (`tests/golden`).

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod support;

use std::path::{Path, PathBuf};

use support::{contents, evenset, fail, picture, run, stderr, succeed};

fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize().unwrap()
}

fn model(family: &str) -> String {
    repository().join("tests/golden/prompts").join(family).join("model").display().to_string()
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

#[test]
fn the_job_for_faces_runs_to_its_end_with_a_model_of_each_generation() {
    for family in ["sd1", "sd2", "sdxl"] {
        let root = tempfile::tempdir().unwrap();
        faces(root.path());
        let said = succeed(root.path(), &as_strs(&small("run", family, &[])));
        assert!(said.contains("30 generated"), "{said}");
        let page = std::fs::read_to_string(root.path().join("runs/faces/report.html")).unwrap();
        assert!(page.contains("stable-diffusion"));
        let card = std::fs::read_to_string(root.path().join("out/faces/README.md")).unwrap();
        assert!(card.contains("model"), "{card}");
    }
}

#[test]
fn a_finished_run_is_read_again_without_the_weights() {
    let root = tempfile::tempdir().unwrap();
    faces(root.path());
    let verbose = |more: &[&str]| {
        let mut arguments = small("run", "sd1", more);
        arguments.push("-v".into());
        stderr(&run(root.path(), &as_strs(&arguments)))
    };
    let decoder = repository().join("tests/golden/vae-tiny").display().to_string();
    let set = [&format!("generate.model.small_decoder={decoder}"), "generate.model.deep_cache={interval: 2}"];
    assert!(verbose(&set).contains("loaded a model"));
    let again = verbose(&set);
    assert!(!again.contains("loaded a model"), "{again}");
    let card = std::fs::read_to_string(root.path().join("out/faces/README.md")).unwrap();
    assert!(card.contains("model + vae-tiny + DeepCache 2/0"), "{card}");
    // Another way to draw is another run.
    assert!(verbose(&[set[0], "generate.model.deep_cache={interval: 3}"]).contains("loaded a model"));
    let other =
        run(root.path(), &as_strs(&small("run", "sd1", &["generate.model.deep_cache={interval: 2, branch: 9}"])));
    assert!(
        stderr(&other).contains("`deep_cache`: branch 9 is not one of this network's, 0 to 2"),
        "{}",
        stderr(&other)
    );
}

#[test]
fn an_image_has_the_same_bytes_in_units_and_batches_of_any_size() {
    let root = tempfile::tempdir().unwrap();
    faces(root.path());
    let candidates = |unit: &str| {
        let (folder, unit) = (format!("run=runs/{unit}"), format!("generate.unit={unit}"));
        succeed(root.path(), &as_strs(&small("generate", "sd1", &[&unit, &folder])));
        drawn(&root.path().join(folder.trim_start_matches("run=")))
    };
    let (all, few) = (candidates("64"), candidates("5"));
    assert_eq!(all.len(), 30);
    assert!(all == few);
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

#[test]
fn one_image_for_a_prompt_is_the_same_again_and_carries_its_parameters() {
    let root = tempfile::tempdir().unwrap();
    let draw = |seed: &str, out: &str| {
        let model = model("sdxl");
        let prompt = "a red coat on a beach";
        let arguments = [
            "generate",
            "--prompt",
            prompt,
            "--model",
            &model,
            "--seed",
            seed,
            "--out",
            out,
            "--width",
            "32",
            "--height",
            "24",
            "--steps",
            "3",
            "--sampler",
            "euler",
            "--deep-cache",
            "2",
        ];
        assert_eq!(succeed(root.path(), &arguments), format!("{out}\n"));
        std::fs::read(root.path().join(out)).unwrap()
    };
    let no_folder =
        run(root.path(), &["generate", "--prompt", "a", "--model", &model("sdxl"), "--out", "nowhere/x.png"]);
    assert_eq!(no_folder.status.code(), Some(2));
    assert!(stderr(&no_folder).contains("name a file in a folder that is there"), "{}", stderr(&no_folder));
    let first = draw("3", "x.png");
    assert!(first == draw("3", "y.png") && first != draw("4", "z.png"));
    let image = image::load_from_memory(&first).unwrap();
    assert_eq!((image.width(), image.height()), (32, 24));
    let text = String::from_utf8_lossy(&first);
    assert!(text.contains("a red coat on a beach\nSteps: 3, Sampler: euler, CFG scale: 7.5, Seed: 3, Size: 32x24"));
    assert!(text.contains("Model: model + DeepCache 2/0"), "{text}");
}

#[test]
fn a_picture_and_a_mask_are_where_an_image_starts_from() {
    let root = tempfile::tempdir().unwrap();
    picture("disc", [230, 60, 40], 1, 32).save(root.path().join("start.png")).unwrap();
    image::RgbImage::from_fn(32, 32, |x, _| image::Rgb([if x < 16 { 0 } else { 255 }; 3]))
        .save(root.path().join("mask.png"))
        .unwrap();
    let model = model("sd1");
    let draw = |prompt: &str| {
        let arguments = [
            "generate",
            "--prompt",
            prompt,
            "--model",
            &model,
            "--width",
            "32",
            "--height",
            "32",
            "--steps",
            "4",
            "--image",
            "start.png",
            "--mask",
            "mask.png",
            "--strength",
            "1",
            "--out",
            "x.png",
        ];
        succeed(root.path(), &arguments);
        image::open(root.path().join("x.png")).unwrap().to_rgb8()
    };
    let (coat, bag) = (draw("a red coat"), draw("a blue bag"));
    let differ = |from: u32, to: u32| (from..to).any(|x| (0..32).any(|y| coat.get_pixel(x, y) != bag.get_pixel(x, y)));
    assert!(differ(18, 32), "what is free follows the prompt");
}

#[test]
fn models_are_listed_with_what_they_can_do_or_what_is_wrong_with_them() {
    let root = tempfile::tempdir().unwrap();
    let (good, bad) = (model("sd2"), root.path().join("bad"));
    std::fs::create_dir_all(&bad).unwrap();
    std::fs::write(bad.join("model_index.json"), r#"{"_class_name": "FluxPipeline"}"#).unwrap();
    let cache = root.path().join("cache");
    let list = |folders: &[&str]| {
        evenset(root.path(), &[&["models"], folders].concat()).env("HF_HUB_CACHE", &cache).output().unwrap()
    };
    let found = list(&[&good]);
    assert_eq!(found.status.code(), Some(0));
    let said = String::from_utf8(found.stdout).unwrap();
    assert!(said.contains("Stable Diffusion 2") && said.contains("predicts v"), "{said}");
    let decoder = repository().join("tests/golden/vae-tiny").display().to_string();
    let said = String::from_utf8(list(&[&control(), &decoder]).stdout).unwrap();
    assert!(said.contains("ControlNet, ") && said.contains("follow a picture"), "{said}");
    assert!(said.contains("small decoder, ") && said.contains("generate.model.small_decoder"), "{said}");
    let half = root.path().join("half");
    std::fs::create_dir_all(&half).unwrap();
    std::fs::copy(format!("{decoder}/config.json"), half.join("config.json")).unwrap();
    let lacking = list(&["half"]);
    assert_eq!(lacking.status.code(), Some(1));
    let said = String::from_utf8(lacking.stdout).unwrap();
    assert!(said.contains("cannot be used") && said.contains("diffusion_pytorch_model.safetensors"), "{said}");
    let found = list(&[&good, "bad"]);
    assert_eq!(found.status.code(), Some(1));
    let said = String::from_utf8(found.stdout).unwrap();
    assert!(said.contains("cannot be used") && said.contains("FluxPipeline"), "{said}");
    assert!(String::from_utf8(list(&[]).stdout).unwrap().starts_with("no Stable Diffusion models"));
}

/// A single file with nothing but the tensors by which Stable Diffusion 2 is recognised.
fn single_file(path: &Path) {
    let tensors = [
        ("model.diffusion_model.input_blocks.0.0.weight", vec![320, 4, 3, 3]),
        ("model.diffusion_model.input_blocks.2.1.transformer_blocks.0.attn2.to_k.weight", vec![320, 1024]),
        ("first_stage_model.decoder.conv_in.weight", vec![512, 4, 3, 3]),
    ];
    let (mut header, mut end) = (serde_json::Map::new(), 0);
    for (name, shape) in tensors {
        let start = end;
        end += 2 * shape.iter().product::<usize>();
        header.insert(name.into(), serde_json::json!({"dtype": "F16", "shape": shape, "data_offsets": [start, end]}));
    }
    let header = serde_json::Value::Object(header).to_string().into_bytes();
    let bytes = [&(header.len() as u64).to_le_bytes()[..], &header, &vec![0; end]].concat();
    std::fs::write(path, bytes).unwrap();
}

#[test]
fn a_single_file_is_listed_and_says_what_it_lacks_before_it_is_read() {
    let root = tempfile::tempdir().unwrap();
    single_file(&root.path().join("old.safetensors"));
    let cache = root.path().join("cache");
    let listed = evenset(root.path(), &["models", "old.safetensors"]).env("HF_HUB_CACHE", &cache).output();
    let listed = String::from_utf8(listed.unwrap().stdout).unwrap();
    assert!(listed.contains("old.safetensors\n  Stable Diffusion 2") && listed.contains("768x768"), "{listed}");
    assert!(listed.contains("say it as `prediction`"), "{listed}");
    let refused = |model: &str, more: &[&str]| {
        fail(root.path(), &[&["generate", "--prompt", "a coat", "--model", model], more].concat(), 1)
    };
    let unsaid = refused("old.safetensors", &[]);
    assert!(unsaid.contains("old.safetensors") && unsaid.contains("v-prediction"), "{unsaid}");
    let said = refused("old.safetensors", &["--prediction", "v-prediction"]);
    assert!(said.contains("old.safetensors") && said.contains("there is no text_encoder"), "{said}");
    let folder = refused(&model("sd2"), &["--prediction", "epsilon"]);
    assert!(folder.contains("scheduler_config.json"), "{folder}");
}

#[test]
fn what_cannot_be_drawn_is_said_before_any_work() {
    let root = tempfile::tempdir().unwrap();
    faces(root.path());
    let refused = |more: &[&str]| fail(root.path(), &as_strs(&small("run", "sd1", more)), 2);
    assert!(refused(&["plan.prompts=null"]).contains("plan.prompts"));
    assert!(refused(&["generate.guides.inversion=true"]).contains("generate.guides.inversion"));
    assert!(refused(&["generate.sampler.type=eular"]).contains("generate.sampler.type"));
    let missing = run(root.path(), &as_strs(&small("run", "sd1", &["generate.model.path=nobody/nothing"])));
    assert_eq!(missing.status.code(), Some(1));
    assert!(stderr(&missing).contains("hf download nobody/nothing"), "{}", stderr(&missing));
    // Found out before gates are trained and images drawn, and not at the first image of that strength.
    let turbo = ["generate.sampler.steps=1", "generate.guides={below: 1000, strengths: [0.4]}"];
    for verb in ["plan", "run"] {
        let said = fail(root.path(), &as_strs(&small(verb, "sd1", &turbo)), 2);
        assert!(said.contains("0.4 of 1 steps leaves none"), "{said}");
        let said = fail(root.path(), &as_strs(&small(verb, "sd1", &["generate.model.deep_cache={interval: 0}"])), 2);
        assert!(said.contains("an interval of 0"), "{said}");
    }
    let decoder = |network: &str| format!("generate.model.small_decoder={}", repository().join(network).display());
    for (network, what) in [
        ("tests/golden/vae", "a `AutoencoderKL`, not a `AutoencoderTiny`"),
        ("tests/golden/vae-tiny/config.json", "a file; name the folder"),
        ("tests/golden/prompts/sd1/model", "name the folder of the network alone"),
    ] {
        let said = stderr(&run(root.path(), &as_strs(&small("run", "sd1", &[&decoder(network)]))));
        assert!(said.contains(what), "{network}: {said}");
    }
    let stages: Vec<_> =
        std::fs::read_dir(root.path().join("runs/faces")).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert!(stages.iter().all(|name| !name.to_string_lossy().starts_with("generate")), "{stages:?}");
    let download = ["generate.model.path=nobody/nothing", "generate.model.download=true"];
    let download = small("run", "sd1", &download);
    let offline = evenset(root.path(), &as_strs(&download)).env("HF_HUB_OFFLINE", "1").output().unwrap();
    assert_eq!(offline.status.code(), Some(1));
    assert!(stderr(&offline).contains("HF_HUB_OFFLINE is set"), "{}", stderr(&offline));
    let planned = succeed(root.path(), &as_strs(&small("plan", "sd1", &["generate.model.path=nobody/nothing"])));
    assert!(planned.contains("30"), "who is missing needs no weights: {planned}");
}

/// Gives training images a picture each in a column of their own; `of` says which, by their number.
fn add_pictures(root: &Path, column: &str, of: impl Fn(u32) -> Option<image::RgbImage>) {
    let folder = root.join("faces/train");
    std::fs::create_dir_all(folder.join(column)).unwrap();
    let metadata = std::fs::read_to_string(folder.join("metadata.jsonl")).unwrap();
    let mut rows = String::new();
    for line in metadata.lines() {
        let mut row: serde_json::Value = serde_json::from_str(line).unwrap();
        let name = row["file_name"].as_str().unwrap().to_owned();
        if let Some(picture) = of(name.trim_end_matches(".png").parse().unwrap()) {
            picture.save(folder.join(column).join(&name)).unwrap();
            row[column] = format!("{column}/{name}").into();
        }
        rows.push_str(&format!("{row}\n"));
    }
    std::fs::write(folder.join("metadata.jsonl"), rows).unwrap();
}

/// Black, and white from a column of pixels on.
fn white_from(column: u32, side: u32) -> image::RgbImage {
    image::RgbImage::from_fn(side, side, |x, _| image::Rgb([if x < column { 0 } else { 255 }; 3]))
}

/// Black on the left, white on the right.
fn right_half(side: u32) -> image::RgbImage {
    white_from(side / 2, side)
}

/// Lines that run in one direction, as an edge detector leaves them.
fn lines(across: bool) -> image::RgbImage {
    image::RgbImage::from_fn(16, 16, |x, y| {
        image::Rgb([if (if across { y } else { x }) % 4 == 0 { 255 } else { 0 }; 3])
    })
}

/// The first nurse and the first scientist of [`faces`].
const NURSE: u32 = 1;
const SCIENTIST: u32 = 23;

const MASKED: &str =
    "generate.guides={below: 50, strengths: [1], sources: [same-group, same-label], noise: false, mask: mask}";
const POSED: &str = "generate.guides={below: 50, strengths: [1], sources: [same-group, same-label], noise: false}";

fn control() -> String {
    repository().join("tests/golden/pipelines/control").display().to_string()
}

/// The model of [`model`] with a network of nine channels.
fn inpainting(root: &Path) -> String {
    fn copy(from: &Path, to: &Path) {
        std::fs::create_dir_all(to).unwrap();
        for entry in std::fs::read_dir(from).unwrap() {
            let entry = entry.unwrap();
            match entry.file_type().unwrap().is_dir() {
                true => copy(&entry.path(), &to.join(entry.file_name())),
                false => drop(std::fs::copy(entry.path(), to.join(entry.file_name())).unwrap()),
            }
        }
    }
    let folder = root.join("inpaint");
    copy(Path::new(&model("sd1")), &folder);
    copy(&repository().join("tests/golden/pipelines/inpaint"), &folder.join("unet"));
    folder.display().to_string()
}

/// How alike two images are in the columns of pixels `columns`: the correlation of their values.
fn likeness(a: &image::RgbImage, b: &image::RgbImage, columns: std::ops::Range<u32>) -> f64 {
    let values = |image: &image::RgbImage| -> Vec<f64> {
        let pixels = columns.clone().flat_map(|x| (0..image.height()).map(move |y| (x, y)));
        let values: Vec<f64> = pixels.flat_map(|(x, y)| image.get_pixel(x, y).0).map(f64::from).collect();
        let mean = values.iter().sum::<f64>() / values.len() as f64;
        values.iter().map(|value| value - mean).collect()
    };
    let product = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
    let (a, b) = (values(a), values(b));
    product(&a, &b) / (product(&a, &a) * product(&b, &b)).sqrt()
}

#[test]
fn with_masks_only_the_white_part_of_a_real_image_is_drawn_anew() {
    let root = tempfile::tempdir().unwrap();
    faces(root.path());
    // All others guide nothing, so it is known which image each candidate starts from.
    add_pictures(root.path(), "mask", |number| [NURSE, SCIENTIST].contains(&number).then(|| white_from(20, 24)));
    let run = |masked: &str, folder: &str| {
        let folder = format!("run=runs/{folder}");
        succeed(root.path(), &as_strs(&small("generate", "sd2", &[masked, &folder])));
        candidates(&root.path().join(folder.trim_start_matches("run=")))
    };
    let masked = run(MASKED, "masked");
    let whole = run(&MASKED.replace(", mask: mask", ""), "whole");

    // What the autoencoder makes of the guide: nothing is free.
    image::RgbImage::new(16, 16).save(root.path().join("black.png")).unwrap();
    let kept = |candidate: &Candidate| {
        let number = if candidate.group.contains("nurse") { NURSE } else { SCIENTIST };
        let (guide, seed) = (format!("faces/train/{number:03}.png"), candidate.seed.to_string());
        let (model, size) = (model("sd2"), ["24", "16"]);
        let arguments = [
            "generate",
            "--prompt",
            "x",
            "--model",
            &model,
            "--width",
            size[0],
            "--height",
            size[1],
            "--steps",
            "3",
            "--image",
            &guide,
            "--mask",
            "black.png",
            "--strength",
            "1",
            "--seed",
            &seed,
            "--out",
            "kept.png",
            "--dtype",
            "f16",
        ];
        succeed(root.path(), &arguments);
        image::open(root.path().join("kept.png")).unwrap().to_rgb8()
    };
    for (candidate, unmasked) in masked.iter().zip(&whole).step_by(9) {
        let kept = kept(candidate);
        // The autoencoder has made-up weights and looks at the whole image, so what stays is not quite the same.
        let [stays, without] = [candidate, unmasked].map(|one| likeness(&one.image(), &kept, 0..10));
        let anew = likeness(&candidate.image(), &kept, 20..24);
        assert!(stays > 0.8 && anew < 0.75 && without < 0.6, "{stays:.2}, drawn anew {anew:.2}, no mask {without:.2}");
    }

    // Another mask is another image, and the same one is not drawn again.
    let again = run(MASKED, "masked");
    assert!(masked.iter().zip(&again).all(|(a, b)| a.png == b.png));
    white_from(4, 24).save(root.path().join("faces/train/mask/001.png")).unwrap();
    let other = run(MASKED, "other");
    for (before, after) in masked.iter().zip(&other) {
        assert_eq!(before.png == after.png, before.group.contains("scientist"), "{}", before.group);
    }
}

#[test]
fn images_without_a_usable_mask_guide_nothing_and_are_counted_with_their_files() {
    let root = tempfile::tempdir().unwrap();
    faces(root.path());
    add_pictures(root.path(), "mask", |number| match number {
        2 => None,
        3 => Some(image::RgbImage::new(16, 16)),
        _ => Some(right_half(16)),
    });
    std::fs::write(root.path().join("faces/train/mask/004.png"), "no image").unwrap();
    let said = succeed(root.path(), &as_strs(&small("plan", "sd1", &[MASKED])));
    assert!(said.contains("3 of 44 training images guide no candidate"), "{said}");
    let flat: String = said.split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(flat.contains("there is no picture in `mask` (1: train/002.png)"), "{said}");
    assert!(flat.contains("no white") && flat.contains("(1: train/003.png)"), "{said}");
    assert!(flat.contains("the picture in `mask`: not an image") && flat.contains("(1: train/004.png)"), "{said}");
    let said = fail(root.path(), &as_strs(&small("plan", "sd1", &[MASKED, "dataset.on_error=fail"])), 1);
    assert!(said.contains("004.png: the picture in `mask`"), "{said}");
}

#[test]
fn a_model_of_nine_channels_runs_with_masks_and_says_beforehand_what_it_lacks() {
    let root = tempfile::tempdir().unwrap();
    faces(root.path());
    add_pictures(root.path(), "mask", |_| Some(right_half(16)));
    let path = format!("generate.model.path={}", inpainting(root.path()));
    let said = succeed(root.path(), &as_strs(&small("run", "sd1", &[&path, MASKED])));
    assert!(said.contains("30 generated"), "{said}");
    succeed(root.path(), &as_strs(&small("plan", "sd1", &[&path, MASKED])));

    let refused = |verb: &str, guides: &str| fail(root.path(), &as_strs(&small(verb, "sd1", &[&path, guides])), 2);
    let posed = format!("generate.model.controls=[{{path: {}, column: mask}}]", control());
    let said = fail(root.path(), &as_strs(&small("run", "sd1", &[&path, POSED, &posed])), 2);
    assert!(said.contains("generate.guides.mask") && said.contains("nine channels"), "{said}");
    for verb in ["plan", "run"] {
        let said = refused(verb, "generate.guides=null");
        assert!(said.contains("nine channels") && said.contains("mask: COLUMN"), "{said}");
        let said = refused(verb, &MASKED.replace(", mask: mask", ""));
        assert!(said.contains("generate.guides.mask") || said.contains("mask: COLUMN"), "{said}");
        let said = refused(verb, &MASKED.replace("noise: false", "noise: true"));
        assert!(said.contains("write `noise: false`"), "{said}");
        let said = refused(verb, &MASKED.replace("below: 50", "below: 2"));
        assert!(said.contains("2 real images") && said.contains("write `below: 3` or more"), "{said}");
    }
}

#[test]
fn candidates_follow_the_control_picture_of_the_real_image_that_guides_them() {
    let root = tempfile::tempdir().unwrap();
    faces(root.path());
    add_pictures(root.path(), "edges", |number| [NURSE, SCIENTIST].contains(&number).then(|| lines(true)));
    let run = |folder: &str, guides: &str, more: &str| {
        let (folder, control) = (format!("run=runs/{folder}"), control());
        let control = format!("generate.model.controls=[{{path: {control}, column: edges{more}}}]");
        succeed(root.path(), &as_strs(&small("generate", "sd1", &[guides, &control, &folder])));
        drawn(&root.path().join(folder.trim_start_matches("run=")))
    };
    let first = run("a", POSED, "");
    assert_eq!(first.len(), 30);
    assert!(first == run("a", POSED, "") && first == run("b", POSED, ""), "a run goes on, and another gives the same");
    assert!(first != run("weak", POSED, ", weight: 0.2") && first != run("late", POSED, ", start: 0.5"));
    let started = run("started", &POSED.replace("[1]", "[0.7]"), "");
    assert!(first.iter().zip(&started).all(|(a, b)| a != b), "less than full strength starts from the guide");
    lines(false).save(root.path().join("faces/train/edges/001.png")).unwrap();
    lines(false).save(root.path().join("faces/train/edges/023.png")).unwrap();
    let other = run("c", POSED, "");
    assert!(first.iter().zip(&other).all(|(a, b)| a != b), "another picture is another image");
}

#[test]
fn a_job_with_control_and_masks_runs_to_its_end_in_units_of_any_size_and_names_both() {
    let root = tempfile::tempdir().unwrap();
    faces(root.path());
    add_pictures(root.path(), "mask", |_| Some(right_half(16)));
    add_pictures(root.path(), "edges", |number| Some(lines(number % 2 == 0)));
    let control = format!("generate.model.controls=[{{path: {}, column: edges, weight: 0.8}}]", control());
    let said = succeed(root.path(), &as_strs(&small("run", "sd1", &[MASKED, &control])));
    assert!(said.contains("30 generated"), "{said}");
    let page = std::fs::read_to_string(root.path().join("runs/faces/report.html")).unwrap();
    assert!(page.contains("control x 0.8"));
    let few = ["run=runs/few", "generate.unit=4"];
    succeed(root.path(), &as_strs(&small("generate", "sd1", &[MASKED, &control, few[0], few[1]])));
    assert!(drawn(&root.path().join("runs/faces")) == drawn(&root.path().join("runs/few")));
}

#[test]
fn masks_in_parquet_stay_with_real_rows_and_generated_ones_have_none() {
    use arrow_array::cast::AsArray;
    use arrow_array::{Array, ArrayRef, BinaryArray, RecordBatch, StringArray, StructArray};
    use std::sync::Arc;
    let root = tempfile::tempdir().unwrap();
    faces(root.path());
    let png = |image: &image::RgbImage| {
        let mut bytes = std::io::Cursor::new(Vec::new());
        image.write_to(&mut bytes, image::ImageFormat::Png).unwrap();
        bytes.into_inner()
    };
    let mask = png(&right_half(16));
    for split in ["train", "test"] {
        let folder = root.path().join("faces").join(split);
        let metadata = std::fs::read_to_string(folder.join("metadata.jsonl")).unwrap();
        let rows: Vec<serde_json::Value> = metadata.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        let text = |name: &str| StringArray::from_iter_values(rows.iter().map(|row| row[name].as_str().unwrap()));
        let files = |bytes: BinaryArray| -> ArrayRef {
            let columns: [(&str, ArrayRef); 2] = [("bytes", Arc::new(bytes)), ("path", Arc::new(text("file_name")))];
            Arc::new(StructArray::from(RecordBatch::try_from_iter(columns).unwrap()))
        };
        let images = rows.iter().map(|row| std::fs::read(folder.join(row["file_name"].as_str().unwrap())).unwrap());
        let mut columns: Vec<(&str, ArrayRef)> = vec![
            ("mask", files(BinaryArray::from_iter_values(rows.iter().map(|_| &mask)))),
            ("image", files(BinaryArray::from_iter_values(images))),
        ];
        for name in ["occupation", "gender", "skin_tone"] {
            columns.push((name, Arc::new(text(name))));
        }
        let table = RecordBatch::try_from_iter(columns).unwrap();
        std::fs::create_dir_all(root.path().join("tables")).unwrap();
        evenset_data::write_parquet(&root.path().join("tables").join(format!("{split}.parquet")), &table).unwrap();
    }
    let data = ["dataset.path=tables", "dataset.image=image", "write.formats=[parquet, webdataset]"];
    let said = succeed(root.path(), &as_strs(&small("run", "sd1", &[&data[..], &[MASKED]].concat())));
    assert!(said.contains("30 generated"), "{said}");
    let data = root.path().join("out/faces/data");
    let train = std::fs::read_dir(&data).unwrap().map(|entry| entry.unwrap().path());
    let train = train.filter(|path| path.file_name().unwrap().to_string_lossy().starts_with("train"));
    let mut seen = [0, 0];
    for batch in train.flat_map(|path| evenset_data::read_parquet(&path).unwrap()) {
        let masks = batch.column_by_name("mask").unwrap().as_struct();
        let bytes = masks.column_by_name("bytes").unwrap().as_binary::<i32>();
        let generated = batch.column_by_name("is_synthetic").unwrap().as_boolean();
        for row in 0..batch.num_rows() {
            let has_mask = masks.is_valid(row) && bytes.is_valid(row) && bytes.value(row) == mask;
            assert_eq!(has_mask, !generated.value(row));
            seen[usize::from(generated.value(row))] += 1;
        }
    }
    assert_eq!(seen, [44, 30]);
}

#[test]
fn what_is_wrong_with_masks_and_control_is_said_before_any_work() {
    let root = tempfile::tempdir().unwrap();
    faces(root.path());
    add_pictures(root.path(), "mask", |_| Some(right_half(16)));
    let control =
        |column: &str, more: &str| format!("generate.model.controls=[{{path: {}, column: {column}{more}}}]", control());
    let refused = |more: &[&str]| fail(root.path(), &as_strs(&small("plan", "sd1", more)), 2);
    let said = refused(&[&MASKED.replace("mask: mask", "mask: masc")]);
    assert!(said.contains("generate.guides.mask") && said.contains("did you mean `mask`?"), "{said}");
    let said = refused(&[&MASKED.replace("mask: mask", "mask: image")]);
    assert!(said.contains("the images themselves"), "{said}");
    let said = refused(&[POSED, &control("edges", "")]);
    assert!(said.contains("generate.model.controls.0.column") && said.contains("`edges`"), "{said}");
    let said = refused(&[&control("mask", "")]);
    assert!(said.contains("generate.model.controls") && said.contains("noise: false"), "{said}");
    let said = refused(&[&control("mask", ""), "generate.guides=null"]);
    assert!(said.contains("noise: false"), "{said}");
    let said = refused(&[&POSED.replace("below: 50", "below: 1"), &control("mask", "")]);
    assert!(said.contains("write `below: 3` or more"), "{said}");
    let said = refused(&[
        &POSED.replace("same-group, same-label", "same-attributes"),
        &control("mask", ""),
        "where=[{column: occupation, in: nurse}]",
    ]);
    assert!(said.contains("no training image can guide"), "{said}");
    assert!(refused(&[POSED, &control("mask", ", start: 0.9, end: 0.2")]).contains("`start` below `end`"));
    assert!(refused(&[POSED, &control("mask", ", wieght: 2")]).contains("wieght"));

    let conditional = ["generate.model={type: conditional, size: tiny}", "generate.sampler={}", "plan.prompts=null"];
    let said = refused(&[&conditional[..], &[MASKED]].concat());
    assert!(said.contains("generate.guides.mask") && said.contains("conditional"), "{said}");

    let fail = |model: &str, control: &str| {
        let output = run(root.path(), &as_strs(&small("generate", model, &[POSED, control])));
        assert_eq!(output.status.code(), Some(1), "{}", stderr(&output));
        stderr(&output)
    };
    let said = fail("sdxl", &control("mask", ""));
    assert!(said.contains("another base model"), "{said}");
    let said = fail("sd1", "generate.model.controls=[{path: nobody/canny, column: mask}]");
    assert!(said.contains("hf download nobody/canny"), "{said}");
}

#[test]
fn one_image_follows_the_pictures_of_control_networks() {
    let root = tempfile::tempdir().unwrap();
    lines(true).save(root.path().join("across.png")).unwrap();
    lines(false).save(root.path().join("down.png")).unwrap();
    std::fs::write(root.path().join("broken.png"), "no image").unwrap();
    let (model, control) = (model("sd1"), control());
    let base =
        ["generate", "--prompt", "a red coat", "--model", &model, "--width", "32", "--height", "24", "--steps", "3"];
    let draw = |more: &[&str]| {
        succeed(root.path(), &[&base[..], more, &["--out", "x.png"]].concat());
        std::fs::read(root.path().join("x.png")).unwrap()
    };
    let across = ["--controlnet", &control, "--control-image", "across.png"];
    let down = ["--controlnet", &control, "--control-image", "down.png"];
    let pixels = |png: &[u8]| image::load_from_memory(png).unwrap().to_rgb8();
    let (plain, one, other) = (draw(&[]), draw(&across), draw(&down));
    assert!(pixels(&one) != pixels(&other) && pixels(&one) != pixels(&plain));
    assert!(one == draw(&across));
    assert!(String::from_utf8_lossy(&one).contains("+ control x 1"));
    let none = draw(&[&across[..], &["--control-weight", "0"]].concat());
    assert!(pixels(&none) == pixels(&plain), "a weight of 0 is no control");
    let both = draw(&[&across[..], &down[..], &["--control-weight", "0.5", "--control-weight", "0.2"]].concat());
    assert!(pixels(&both) != pixels(&one));

    let said = fail(root.path(), &[&base[..], &["--controlnet", &control]].concat(), 2);
    assert!(said.contains("each network needs its picture"), "{said}");
    let said =
        fail(root.path(), &[&base[..], &["--controlnet", &control, "--control-image", "broken.png"]].concat(), 1);
    assert!(said.contains("broken.png: not an image"), "{said}");
}
