//! Folders of models: what is in them, and what is wrong with them.

use std::fs;
use std::path::Path;

use candle_core::{DType, Device, Tensor};
use evenset_diffusion::stable_diffusion::{
    Additions, Components, Distilled, Family, ModelFolder, ModelSource, Prediction, Prompt, PromptOptions,
    SizeConditioning, time_ids,
};
use evenset_nn::models::{Conditions, Variant};
use evenset_nn::no_grad;
use serde_json::json;

use crate::{FAMILIES, copy, model, set};

const CPU: &Device = &Device::Cpu;

fn open(dir: &Path) -> ModelFolder {
    ModelFolder::open(dir, Variant::Whole).unwrap()
}

fn refusal(dir: &Path) -> String {
    ModelFolder::open(dir, Variant::Whole).unwrap_err().to_string()
}

#[test]
fn a_folder_says_what_kind_of_model_it_holds() {
    let sd1 = open(&model("sd1"));
    let facts = sd1.facts();
    assert_eq!((facts.family, facts.prediction, facts.inpainting), (Family::Sd1, Some(Prediction::Epsilon), false));
    assert_eq!((facts.distilled, facts.guidance_embedding, facts.zeros_for_no_negative), (None, None, false));
    assert_eq!((facts.latent_channels, facts.downsampling, facts.native_size), (4, 2, Some((16, 16))));
    assert_eq!(sd1.pipeline(), "StableDiffusionPipeline");
    assert_eq!(sd1.scheduler().unwrap().class_name(), Some("PNDMScheduler"));
    assert!(sd1.safety_checker().is_none());
    let sd2 = open(&model("sd2"));
    assert_eq!((sd2.facts().family, sd2.facts().prediction), (Family::Sd2, Some(Prediction::V)));
    let xl = open(&model("sdxl"));
    assert_eq!((xl.facts().family, xl.facts().zeros_for_no_negative), (Family::Xl, true));
}

#[test]
fn distilled_models_are_guessed_from_their_scheduler_and_network() {
    let dir = copy("sd1");
    let (index, scheduler) = (dir.path().join("model_index.json"), dir.path().join("scheduler/scheduler_config.json"));
    set(&index, "scheduler", json!(["diffusers", "LCMScheduler"]));
    assert_eq!(open(dir.path()).facts().distilled, Some(Distilled::Lcm));
    set(&index, "scheduler", json!(["diffusers", "EulerAncestralDiscreteScheduler"]));
    assert_eq!(open(dir.path()).facts().distilled, None);
    set(&scheduler, "timestep_spacing", "trailing".into());
    assert_eq!(open(dir.path()).facts().distilled, Some(Distilled::Turbo));
    set(&dir.path().join("unet/config.json"), "time_cond_proj_dim", 8.into());
    let facts = *open(dir.path()).facts();
    assert_eq!((facts.distilled, facts.guidance_embedding), (Some(Distilled::Lcm), Some(8)));
    set(&dir.path().join("unet/config.json"), "in_channels", 9.into());
    assert!(open(dir.path()).facts().inpainting);
}

#[test]
fn all_files_of_a_model_are_listed_for_a_fingerprint() {
    let dir = model("sdxl");
    let folder = open(&dir);
    let names: Vec<_> =
        folder.files().iter().map(|path| path.strip_prefix(&dir).unwrap().display().to_string()).collect();
    for name in [
        "model_index.json",
        "tokenizer/tokenizer.json",
        "tokenizer_2/merges.txt",
        "text_encoder_2/config.json",
        "text_encoder/model.safetensors",
        "unet/diffusion_pytorch_model.safetensors",
        "scheduler/scheduler_config.json",
    ] {
        assert_eq!(names.iter().filter(|found| *found == name).count(), 1, "{name} in {names:?}");
    }
}

#[test]
fn networks_are_loaded_and_take_what_prompts_become() {
    for family in FAMILIES {
        for dtype in [DType::F32, DType::F16] {
            let model = Components::load(&open(&model(family)), &Additions::default(), CPU, dtype).unwrap();
            let prompt = model.text.encode(&Prompt::new("a red coat"), PromptOptions::default(), true).unwrap();
            let latents = Tensor::zeros((1, 4, 8, 8), DType::F32, CPU).unwrap();
            let time = Tensor::new(&[500f32], CPU).unwrap();
            let sizes = time_ids(&[SizeConditioning::of(16, 16)], CPU).unwrap();
            let conditions = Conditions {
                text: Some(&prompt.positive.tokens),
                pooled_text: prompt.positive.pooled.as_ref(),
                time_ids: prompt.positive.pooled.is_some().then_some(&sizes),
                ..Conditions::default()
            };
            no_grad(|| {
                let found = model.unet.forward(&latents, &time, &conditions).unwrap();
                assert_eq!(found.dims(), [1, 4, 8, 8], "{family}");
                let image = model.vae.decode(&model.vae.from_model(&found).unwrap()).unwrap();
                assert_eq!(image.dims(), [1, 3, 16, 16], "{family}");
            });
        }
    }
}

#[test]
fn the_variant_chooses_among_two_files_and_takes_the_one_that_is_there() {
    let dir = copy("sd1");
    let unet = dir.path().join("unet");
    let other = unet.join("diffusion_pytorch_model.fp16.safetensors");
    fs::copy(model("sd2").join("unet/diffusion_pytorch_model.fp16.safetensors"), &other).unwrap();
    let name = |variant| {
        let folder = ModelFolder::open(dir.path(), variant).unwrap();
        let weights =
            folder.files().iter().find(|path| path.starts_with(&unet) && path.extension().unwrap() == "safetensors");
        weights.unwrap().file_name().unwrap().to_str().unwrap().to_owned()
    };
    assert_eq!(name(Variant::Whole), "diffusion_pytorch_model.safetensors");
    assert_eq!(name(Variant::Fp16), "diffusion_pytorch_model.fp16.safetensors");
    // It is the one that is loaded, too: spoilt between opening and loading, only that one fails.
    let [whole, half] = [Variant::Whole, Variant::Fp16].map(|variant| ModelFolder::open(dir.path(), variant).unwrap());
    assert!(Components::load(&half, &Additions::default(), CPU, DType::F32).is_ok());
    fs::write(&other, &fs::read(&other).unwrap()[..1000]).unwrap();
    assert!(Components::load(&whole, &Additions::default(), CPU, DType::F32).is_ok());
    let error = Components::load(&half, &Additions::default(), CPU, DType::F32).unwrap_err().to_string();
    assert!(error.contains("fp16.safetensors"), "{error}");
    let error = ModelFolder::open(dir.path(), Variant::Fp16).unwrap_err().to_string();
    assert!(error.contains("fp16.safetensors"), "{error}");
    fs::remove_file(&other).unwrap();
    assert_eq!(name(Variant::Fp16), "diffusion_pytorch_model.safetensors");
}

#[test]
fn shards_are_found_by_their_index_and_a_missing_one_is_named() {
    let dir = copy("sd1");
    let unet = dir.path().join("unet");
    let whole = unet.join("diffusion_pytorch_model.safetensors");
    let tensors = candle_core::safetensors::load(&whole, CPU).unwrap();
    let mut names: Vec<_> = tensors.keys().cloned().collect();
    names.sort();
    let mut map = serde_json::Map::new();
    for (i, part) in names.chunks(names.len().div_ceil(2)).enumerate() {
        let file = format!("diffusion_pytorch_model-{:05}-of-00002.safetensors", i + 1);
        let part: std::collections::HashMap<_, _> =
            part.iter().map(|name| (name.clone(), tensors[name].clone())).collect();
        map.extend(part.keys().map(|name| (name.clone(), file.clone().into())));
        candle_core::safetensors::save(&part, unet.join(file)).unwrap();
    }
    fs::remove_file(&whole).unwrap();
    let index = unet.join("diffusion_pytorch_model.safetensors.index.json");
    fs::write(&index, json!({"metadata": {}, "weight_map": map}).to_string()).unwrap();
    let folder = open(dir.path());
    assert_eq!(folder.files().iter().filter(|path| path.starts_with(&unet)).count(), 4);
    assert!(Components::load(&folder, &Additions::default(), CPU, DType::F32).is_ok());
    fs::remove_file(unet.join("diffusion_pytorch_model-00002-of-00002.safetensors")).unwrap();
    let error = refusal(dir.path());
    assert!(error.contains("lacks unet/diffusion_pytorch_model-00002-of-00002.safetensors"), "{error}");
}

#[test]
fn everything_that_is_missing_is_named_at_once() {
    let dir = copy("sdxl");
    for name in [
        "tokenizer_2/merges.txt",
        "text_encoder/config.json",
        "vae/diffusion_pytorch_model.safetensors",
        "scheduler/scheduler_config.json",
    ] {
        fs::remove_file(dir.path().join(name)).unwrap();
    }
    fs::remove_dir_all(dir.path().join("text_encoder_2")).unwrap();
    let error = refusal(dir.path());
    for name in [
        "tokenizer_2/merges.txt",
        "text_encoder/config.json",
        "text_encoder_2/config.json",
        "text_encoder_2/model.safetensors",
        "vae/diffusion_pytorch_model.safetensors",
        "scheduler/scheduler_config.json",
        "hf download",
    ] {
        assert!(error.contains(name), "{name} in {error}");
    }
}

#[test]
fn what_is_no_model_folder_says_what_to_name_instead() {
    let dir = copy("sd1");
    for (path, expected) in [
        (dir.path().join("nowhere"), "no such folder"),
        (dir.path().join("model_index.json"), "a file, not a folder"),
        (dir.path().join("unet"), "name the folder above"),
        (dir.path().join("scheduler"), "no model in diffusers' layout"),
    ] {
        let error = refusal(&path);
        assert!(error.contains(expected), "{error}");
    }
    fs::remove_file(dir.path().join("model_index.json")).unwrap();
    assert!(refusal(dir.path()).contains("model_index.json is missing"));
}

#[test]
fn damaged_files_are_named_with_a_remedy() {
    for (name, content, expected) in [
        ("unet/diffusion_pytorch_model.safetensors", None, "fetch this file again"),
        ("text_encoder/model.safetensors", None, "fetch this file again"),
        (
            "vae/diffusion_pytorch_model.safetensors",
            Some("version https://git-lfs.github.com/spec/v1\noid sha256:0\n"),
            "git lfs pull",
        ),
        ("vae/diffusion_pytorch_model.safetensors", Some(""), "vae"),
        (
            "vae/diffusion_pytorch_model.safetensors",
            Some("\u{7f}\u{7f}\u{7f}\u{7f}\u{7f}\u{7f}\u{7f}\u{7f}{}"),
            "damaged",
        ),
        ("model_index.json", None, "copy the file again"),
        ("scheduler/scheduler_config.json", Some("{"), "copy the file again"),
        ("unet/config.json", Some("["), "copy the file again"),
        ("text_encoder/config.json", Some("{\"a\":"), "JSON"),
    ] {
        let dir = copy("sd1");
        let path = dir.path().join(name);
        match content {
            Some(content) => fs::write(&path, content).unwrap(),
            None => {
                let bytes = fs::read(&path).unwrap();
                fs::write(&path, &bytes[..bytes.len() / 2]).unwrap();
            }
        }
        let error = refusal(dir.path());
        let file = path.file_name().unwrap().to_str().unwrap();
        assert!(error.contains(file) && error.contains(expected), "{name}: {error}");
    }
}

#[test]
fn pickles_are_never_read() {
    for name in ["unet/diffusion_pytorch_model", "text_encoder/model"] {
        let dir = copy("sd1");
        fs::remove_file(dir.path().join(format!("{name}.safetensors"))).unwrap();
        let pickle = dir.path().join(name).with_file_name("pytorch_model.bin");
        fs::write(&pickle, "anything").unwrap();
        let error = refusal(dir.path());
        assert!(error.contains("pytorch_model.bin") && error.contains("convert"), "{error}");
    }
}

#[test]
fn parts_that_do_not_belong_together_are_found_before_weights_are_read() {
    for (family, file, key, value, expected) in [
        ("sd1", "unet/config.json", "cross_attention_dim", json!(24), "tokens of the text encoders are 12"),
        ("sdxl", "unet/config.json", "cross_attention_dim", json!(12), "tokens of the text encoders are 20"),
        ("sdxl", "unet/config.json", "projection_class_embeddings_input_dim", json!(32), "refiner"),
        ("sdxl", "unet/config.json", "projection_class_embeddings_input_dim", json!(99), "make 36"),
        ("sdxl", "text_encoder_2/config.json", "projection_dim", json!(16), "make 40"),
        ("sdxl", "unet/config.json", "addition_embed_type", json!(null), "text_time"),
        ("sd1", "unet/config.json", "in_channels", json!(8), "`in_channels` is 8"),
        ("sd1", "unet/config.json", "out_channels", json!(8), "latents have 4"),
        ("sd1", "unet/config.json", "act_fn", json!("mish"), "act_fn"),
        ("sd1", "unet/config.json", "colour", json!("red"), "colour"),
        ("sd1", "scheduler/scheduler_config.json", "prediction_type", json!("x"), "prediction_type"),
        ("sd1", "model_index.json", "text_encoder_3", json!(["transformers", "T5EncoderModel"]), "T5EncoderModel"),
    ] {
        let dir = copy(family);
        set(&dir.path().join(file), key, value);
        let error = refusal(dir.path());
        let name = file.split('/').next_back().unwrap();
        assert!(error.contains(expected) && error.contains(name), "{key}: {error}");
    }
}

#[test]
fn weights_of_another_shape_than_the_configuration_says_are_an_error_that_names_the_tensor() {
    let dir = copy("sd1");
    set(&dir.path().join("unet/config.json"), "block_out_channels", json!([8, 16]));
    let error = Components::load(&open(dir.path()), &Additions::default(), CPU, DType::F32).unwrap_err().to_string();
    assert!(error.contains("diffusion_pytorch_model.safetensors") && error.contains("tensor `"), "{error}");
    let dir = copy("sd1");
    let words = dir.path().join("text_encoder/config.json");
    set(&words, "vocab_size", json!(100));
    let error = Components::load(&open(dir.path()), &Additions::default(), CPU, DType::F32).unwrap_err().to_string();
    assert!(error.contains("token_embedding") && error.contains("model.safetensors"), "{error}");
}

#[test]
fn a_tokenizer_with_more_words_than_the_model_is_refused() {
    let dir = copy("sd1");
    fs::write(dir.path().join("tokenizer/added_tokens.json"), r#"{"<thing>": 5000}"#).unwrap();
    let error = Components::load(&open(dir.path()), &Additions::default(), CPU, DType::F32).unwrap_err().to_string();
    assert!(error.contains("tokenizer") && error.contains("words"), "{error}");
}

#[test]
fn a_second_text_encoder_without_its_projection_is_refused() {
    let dir = copy("sdxl");
    let path = dir.path().join("text_encoder_2/model.safetensors");
    let mut tensors = candle_core::safetensors::load(&path, CPU).unwrap();
    tensors.remove("text_projection.weight").unwrap();
    candle_core::safetensors::save(&tensors, &path).unwrap();
    let error = Components::load(&open(dir.path()), &Additions::default(), CPU, DType::F32).unwrap_err().to_string();
    assert!(error.contains("text_encoder_2") && error.contains("text_projection"), "{error}");
}
