//! One image for a prompt, without a job, and lists of models.

use std::path::Path;

use crate::support::{evenset, fail, picture, run, stderr, succeed};
use crate::{control, draw_one, lines, model, repository};

#[test]
fn one_image_for_a_prompt_is_the_same_again_and_carries_its_parameters() {
    let root = tempfile::tempdir().unwrap();
    let draw = |seed: u64, out: &str| {
        let flags = format!("--seed {seed} --width 32 --height 24 --steps 3 --sampler euler --deep-cache 2");
        draw_one(root.path(), "sdxl", "a red coat on a beach", &flags, out)
    };
    let no_folder =
        run(root.path(), &["generate", "--prompt", "a", "--model", &model("sdxl"), "--out", "nowhere/x.png"]);
    assert_eq!(no_folder.status.code(), Some(2));
    assert!(stderr(&no_folder).contains("name a file in a folder that is there"), "{}", stderr(&no_folder));
    let first = draw(3, "x.png");
    assert!(first == draw(3, "y.png") && first != draw(4, "z.png"));
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
    let draw = |prompt: &str| {
        let flags = "--width 32 --height 32 --steps 4 --image start.png --mask mask.png --strength 1";
        image::load_from_memory(&draw_one(root.path(), "sd1", prompt, flags, "x.png")).unwrap().to_rgb8()
    };
    let (coat, bag) = (draw("a red coat"), draw("a blue bag"));
    let differ = |from: u32, to: u32| (from..to).any(|x| (0..32).any(|y| coat.get_pixel(x, y) != bag.get_pixel(x, y)));
    assert!(differ(18, 32), "what is free follows the prompt");
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
