//! Jobs and single images with Stable Diffusion, by the smallest models that have its layout (`tests/golden`).

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod support;

use std::path::{Path, PathBuf};

use support::{contents, fail, picture, run, stderr, succeed};

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
fn an_image_has_the_same_bytes_in_units_and_batches_of_any_size() {
    let root = tempfile::tempdir().unwrap();
    faces(root.path());
    let candidates = |unit: &str| {
        let (unit, folder) = (format!("generate.unit={unit}"), format!("run=runs/{unit}"));
        succeed(root.path(), &as_strs(&small("generate", "sd1", &[&unit, &folder])));
        let files = contents(&root.path().join("runs").join(unit.trim_start_matches("generate.unit=")), &[]);
        let is_unit = |name: &Path| {
            name.starts_with(name.iter().next().unwrap())
                && name.to_string_lossy().contains("generate-1")
                && name.extension().is_some_and(|extension| extension == "parquet")
                && name.to_string_lossy().contains("units")
        };
        let tables: Vec<Vec<u8>> =
            files.into_iter().filter(|(name, _)| is_unit(name)).map(|(_, bytes)| bytes).collect();
        tables.into_iter().flat_map(pngs).collect::<Vec<Vec<u8>>>()
    };
    let (all, few) = (candidates("64"), candidates("5"));
    assert_eq!(all.len(), 30);
    assert!(all == few);
}

/// The images of a table of candidates, in their order.
fn pngs(parquet: Vec<u8>) -> Vec<Vec<u8>> {
    use arrow_array::{Array, BinaryArray};
    let builder = parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder::try_new(bytes(parquet)).unwrap();
    let mut found = Vec::new();
    for batch in builder.build().unwrap() {
        let batch = batch.unwrap();
        let column = batch.column_by_name("png").unwrap().as_any().downcast_ref::<BinaryArray>().unwrap();
        found.extend((0..column.len()).map(|i| column.value(i).to_vec()));
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
        ];
        assert_eq!(succeed(root.path(), &arguments), format!("{out}\n"));
        std::fs::read(root.path().join(out)).unwrap()
    };
    let first = draw("3", "x.png");
    assert!(first == draw("3", "y.png") && first != draw("4", "z.png"));
    let image = image::load_from_memory(&first).unwrap();
    assert_eq!((image.width(), image.height()), (32, 24));
    let text = String::from_utf8_lossy(&first);
    assert!(text.contains("a red coat on a beach\nSteps: 3, Sampler: euler, CFG scale: 7.5, Seed: 3, Size: 32x24"));
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
        support::evenset(root.path(), &[&["models"], folders].concat()).env("HF_HUB_CACHE", &cache).output().unwrap()
    };
    let found = list(&[&good]);
    assert_eq!(found.status.code(), Some(0));
    let said = String::from_utf8(found.stdout).unwrap();
    assert!(said.contains("Stable Diffusion 2") && said.contains("predicts v"), "{said}");
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
    let listed = support::evenset(root.path(), &["models", "old.safetensors"]).env("HF_HUB_CACHE", &cache).output();
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
    let planned = succeed(root.path(), &as_strs(&small("plan", "sd1", &["generate.model.path=nobody/nothing"])));
    assert!(planned.contains("30"), "who is missing needs no weights: {planned}");
}
