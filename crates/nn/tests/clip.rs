//! CLIP, SigLIP, text encoders and the safety checker against PyTorch, tokenisation against transformers, resizing against
//! Pillow: `tests/golden/recognise` has the files and `make.py` that made them.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout)]

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use candle_core::{DType, Device, Tensor};
use evenset_nn::classifier::ImageSet;
use evenset_nn::models::LoadOptions;
use evenset_nn::models::clip::{
    ClipModel, ClipTextEncoder, Family, Filter, ImageProcessor, SafetyChecker, TextConfig, Tokenizer, Tokens,
    VisionConfig, resample,
};
use evenset_nn::no_grad;
use evenset_nn::ops::with_candle;
use serde::Deserialize;

const CPU: &Device = &Device::Cpu;
/// Relative L2 of every result, in `f32`.
const TOLERANCE: f64 = 2e-5;
/// Tokens of a text.
const LENGTH: usize = 16;
const MODELS: [(&str, Family); 3] = [("clip", Family::Clip), ("clip-f16", Family::Clip), ("siglip", Family::Siglip)];

fn golden(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden/recognise").join(name)
}

fn io(name: &str) -> BTreeMap<String, Tensor> {
    candle_core::safetensors::load(golden(name).join("io.safetensors"), CPU).unwrap().into_iter().collect()
}

fn values(x: &Tensor) -> Vec<f32> {
    x.to_dtype(DType::F32).unwrap().flatten_all().unwrap().to_vec1().unwrap()
}

fn bits(x: &Tensor) -> Vec<u32> {
    values(x).into_iter().map(f32::to_bits).collect()
}

fn assert_near(name: &str, found: &Tensor, expected: &Tensor) {
    assert_eq!(found.dims(), expected.dims(), "{name}");
    let square = |x: f32| f64::from(x).powi(2);
    let (found, expected) = (values(found), values(expected));
    let difference: f64 = found.iter().zip(&expected).map(|(a, b)| square(a - b)).sum();
    let error = (difference / expected.iter().map(|x| square(*x)).sum::<f64>()).sqrt();
    assert!(error <= TOLERANCE, "{name}: {error:.1e}");
}

fn integers(x: &Tensor) -> Vec<Vec<u32>> {
    x.to_dtype(DType::U32).unwrap().to_vec2().unwrap()
}

/// The texts of a golden folder.
fn tokens(io: &BTreeMap<String, Tensor>) -> Tokens {
    let ids = integers(&io["ids"]);
    match io.get("mask") {
        Some(mask) => {
            let mask = integers(mask).into_iter().map(|row| row.into_iter().map(|seen| seen != 0).collect()).collect();
            Tokens { ids, mask }
        }
        None => Tokens::unmasked(ids),
    }
}

fn rows(tokens: &Tokens, range: std::ops::Range<usize>) -> Tokens {
    Tokens { ids: tokens.ids[range.clone()].to_vec(), mask: tokens.mask[range].to_vec() }
}

fn clip(name: &str) -> ClipModel {
    ClipModel::from_pretrained(&golden(name), CPU, LoadOptions::default()).unwrap()
}

/// Every result of a model, as the golden files name them.
fn results(model: &ClipModel, tokens: &Tokens, pixels: &Tensor) -> Vec<(&'static str, Tensor)> {
    let text = model.text().forward(tokens, true).unwrap();
    let vision = model.vision().forward(pixels).unwrap();
    let (images, texts) = (model.image_embeds(pixels).unwrap(), model.text_embeds(tokens).unwrap());
    vec![
        ("text_last", text.last_hidden_state),
        ("text_pooled", text.pooled),
        ("text_hidden", Tensor::stack(&text.hidden_states, 1).unwrap()),
        ("vision_last", vision.last_hidden_state),
        ("vision_pooled", vision.pooled.unwrap()),
        ("logits", model.logits(&images, &texts).unwrap()),
        ("text_embeds", texts),
        ("image_embeds", images),
    ]
}

#[test]
fn every_result_is_pytorchs_at_batch_one_two_and_three_and_its_bytes_do_not_depend_on_the_batch() {
    for (name, _) in MODELS {
        let (model, io) = (clip(name), io(name));
        let (tokens, pixels) = (tokens(&io), &io["pixels"]);
        let all = no_grad(|| results(&model, &tokens, pixels));
        for (key, found) in &all {
            assert_near(&format!("{name} {key}"), found, &io[*key]);
        }
        for range in [0..1, 1..2, 2..3, 0..2, 1..3] {
            let (texts, images) = (rows(&tokens, range.clone()), pixels.narrow(0, range.start, range.len()).unwrap());
            let some = no_grad(|| results(&model, &texts, &images));
            for ((key, found), (_, all)) in some.iter().zip(&all) {
                let mut expected = all.narrow(0, range.start, range.len()).unwrap();
                if *key == "logits" {
                    expected = expected.narrow(1, range.start, range.len()).unwrap();
                }
                assert_eq!(bits(found), bits(&expected), "{name} {key} {range:?}");
            }
        }
    }
}

#[test]
fn the_path_of_other_devices_and_of_training_agrees_with_pytorch_too() {
    for (name, _) in MODELS {
        let io = io(name);
        let (tokens, pixels) = (tokens(&io), &io["pixels"]);
        for (key, found) in with_candle(|| results(&clip(name), &tokens, pixels)) {
            assert_near(&format!("{name} {key}"), &found, &io[key]);
        }
        let trainable = ClipModel::from_pretrained(&golden(name), CPU, LoadOptions::trainable()).unwrap();
        for (key, found) in results(&trainable, &tokens, pixels) {
            assert_near(&format!("{name} {key}"), &found, &io[key]);
        }
        let loss = trainable.text_embeds(&tokens).unwrap().sqr().unwrap().sum_all().unwrap();
        let gradients = loss.backward().unwrap();
        let (_, first) = trainable
            .weights()
            .vars()
            .into_iter()
            .find(|(name, _)| name.ends_with("layers.0.self_attn.q_proj.weight"))
            .unwrap();
        assert!(gradients.get(&first).is_some(), "{name}");
    }
}

#[test]
fn what_stands_behind_the_end_of_a_clip_text_has_no_effect() {
    let (model, io) = (clip("clip"), io("clip"));
    let mut texts = tokens(&io);
    let before = no_grad(|| model.text_embeds(&texts)).unwrap();
    texts.mask = vec![vec![true; LENGTH]; 3];
    assert_eq!(bits(&before), bits(&no_grad(|| model.text_embeds(&texts)).unwrap()));
    let end = texts.mask.len();
    let short = Tokens::unmasked(vec![texts.ids[end - 1][..5].to_vec()]);
    let found = no_grad(|| model.text_embeds(&short)).unwrap();
    assert_near("cut behind its end", &found, &before.narrow(0, end - 1, 1).unwrap());
}

#[test]
fn text_encoders_of_diffusers_give_states_embeddings_and_skipped_layers() {
    for name in ["text-encoder", "text-encoder-early"] {
        let encoder = ClipTextEncoder::from_pretrained(&golden(name), CPU, LoadOptions::default()).unwrap();
        let io = io(name);
        let tokens = tokens(&io);
        no_grad(|| {
            let output = encoder.model().forward(&tokens, true).unwrap();
            assert_near(name, &output.last_hidden_state, &io["last"]);
            assert_near(name, &Tensor::stack(&output.hidden_states, 1).unwrap(), &io["hidden"]);
            assert_near(name, &encoder.text_embeds(&output).unwrap(), &io["embeds"]);
            assert_near(name, &encoder.model().encode(&tokens, 0).unwrap(), &io["last"]);
            assert_near(name, &encoder.model().encode(&tokens, 1).unwrap(), &io["skipped"]);
            let error = encoder.model().encode(&tokens, 3).unwrap_err().to_string();
            assert!(error.contains("clip_skip of 3"), "{error}");
        });
    }
}

#[test]
fn impossible_texts_and_images_are_errors() {
    let model = clip("clip");
    let refusal = |ids: Vec<Vec<u32>>| model.text().forward(&Tokens::unmasked(ids), false).unwrap_err().to_string();
    for (ids, expected) in [
        (vec![], "no text"),
        (vec![vec![]], "no text"),
        (vec![vec![1; LENGTH + 1]], "longer than the 16"),
        (vec![vec![1; 3], vec![1; 4]], "one length"),
        (vec![vec![1_000_000]], "beyond the model's vocabulary"),
    ] {
        let error = refusal(ids);
        assert!(error.contains(expected), "{error}");
    }
    for dims in [(0, 3, 32, 32), (1, 3, 32, 31), (1, 1, 32, 32)] {
        let error = model.image_embeds(&Tensor::zeros(dims, DType::F32, CPU).unwrap()).unwrap_err().to_string();
        assert!(error.contains("[batch, 3, 32, 32]"), "{error}");
    }
}

#[test]
fn odd_texts_become_the_tokens_that_transformers_makes() {
    #[derive(Deserialize)]
    struct Case {
        text: String,
        ids: Vec<u32>,
    }
    for (name, family) in MODELS {
        let tokenizer = Tokenizer::from_folder(&golden(name), family, LENGTH).unwrap();
        let cases: Vec<Case> = serde_json::from_slice(&fs::read(golden(name).join("tokens.json")).unwrap()).unwrap();
        assert!(cases.len() > 20);
        for Case { text, ids } in &cases {
            assert_eq!(tokenizer.encode(&[text]).unwrap().ids[0], *ids, "{name}: {text:?}");
        }
        let together: Vec<&str> = cases.iter().map(|case| case.text.as_str()).collect();
        assert!(tokenizer.encode(&together).unwrap().ids.iter().eq(cases.iter().map(|case| &case.ids)));
    }
}

#[test]
fn resizing_is_pillows_to_the_byte() {
    let io = io("images");
    let bytes = |x: &Tensor| x.flatten_all().unwrap().to_vec1::<u8>().unwrap();
    for case in 0..5 {
        let image = &io[&format!("{case}.image")];
        let size = |x: &Tensor| (x.dims()[1], x.dims()[0]);
        for (name, filter) in
            [("bilinear", Filter::Bilinear), ("bicubic", Filter::Bicubic), ("lanczos", Filter::Lanczos)]
        {
            let expected = &io[&format!("{case}.{name}")];
            let found = resample(&bytes(image), size(image), size(expected), filter).unwrap();
            assert_eq!(found, bytes(expected), "{case} {name}");
        }
    }
}

#[test]
fn clips_preprocessing_is_that_of_pillow_and_numpy() {
    let io = io("images");
    for case in 0..3 {
        let image = &io[&format!("clip{case}.image")];
        let pixels = image.flatten_all().unwrap().to_vec1::<u8>().unwrap();
        let images = ImageSet::new(image.dims()[1], image.dims()[0], pixels).unwrap();
        let found = ImageProcessor::standard(Family::Clip, 32).process(&images).unwrap();
        let expected = &io[&format!("clip{case}.pixels")];
        let worst = values(&found).iter().zip(values(expected)).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        assert_eq!(found.dims(), [1, 3, 32, 32]);
        assert!(worst < 1e-5, "{case}: {worst}");
    }
}

#[test]
fn a_preprocessor_is_read_in_its_old_and_its_new_form() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("preprocessor_config.json");
    let read = |text: &str, family| {
        fs::write(&path, text).unwrap();
        ImageProcessor::read(&path, family, 32)
    };
    let standard = ImageProcessor::standard(Family::Clip, 32);
    assert_eq!(read("{}", Family::Clip).unwrap(), standard);
    assert_eq!(read(r#"{"size": 32, "crop_size": 32, "resample": 3}"#, Family::Clip).unwrap(), standard);
    let new =
        r#"{"size": {"shortest_edge": 32}, "crop_size": {"height": 32, "width": 32}, "feature_extractor_type": "x"}"#;
    assert_eq!(read(new, Family::Clip).unwrap(), standard);
    let siglip = fs::read_to_string(golden("siglip/preprocessor_config.json")).unwrap();
    assert_eq!(read(&siglip, Family::Siglip).unwrap(), ImageProcessor::standard(Family::Siglip, 32));
    assert_eq!(ImageProcessor::standard(Family::Siglip, 32).output_size((100, 7)), (32, 32));
    for (text, key) in [
        (r#"{"size": 0}"#, "size"),
        (r#"{"size": {"longest_edge": 3}}"#, "size"),
        (r#"{"resample": 0}"#, "resample"),
        (r#"{"image_std": [0, 1, 1]}"#, "image_std"),
        (r#"{"image_mean": [0]}"#, "image_mean"),
        (r#"{"crop_size": 1000000}"#, "size"),
        (r#"{"do_resize": 3}"#, "do_resize"),
    ] {
        let error = read(text, Family::Clip).unwrap_err().to_string();
        assert!(error.contains(key) && error.contains("preprocessor_config.json"), "{error}");
    }
}

#[test]
fn the_safety_checker_finds_what_diffusers_finds() {
    let checker = SafetyChecker::from_pretrained(&golden("safety"), CPU, LoadOptions::default()).unwrap();
    let io = io("safety");
    let scores = no_grad(|| checker.check(&io["pixels"])).unwrap();
    let unsafe_found: Vec<u32> = scores.iter().map(|scores| u32::from(!scores.is_safe())).collect();
    let expected: Vec<u32> = io["unsafe"].to_dtype(DType::U32).unwrap().to_vec1().unwrap();
    assert_eq!(unsafe_found, expected);
    assert!(expected.contains(&0) && expected.contains(&1));
    // Special care decided at least one image.
    let adjusted = |scores: &evenset_nn::models::clip::SafetyScores| {
        scores.special_care.iter().any(|score| *score > 0.0)
            && scores.worst().is_some_and(|(_, worst)| worst > 0.0 && worst <= 0.01)
    };
    assert!(scores.iter().any(adjusted), "{scores:?}");
    let one = no_grad(|| checker.check(&io["pixels"].narrow(0, 2, 1).unwrap())).unwrap();
    assert_eq!(one[0], scores[2]);
}

/// A copy of a golden folder that a test may spoil.
fn copy(name: &str) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    for entry in fs::read_dir(golden(name)).unwrap() {
        let entry = entry.unwrap();
        fs::copy(entry.path(), dir.path().join(entry.file_name())).unwrap();
    }
    dir
}

fn refusal(dir: &Path) -> String {
    ClipModel::from_pretrained(dir, CPU, LoadOptions::default()).unwrap_err().to_string()
}

#[test]
fn a_configuration_that_no_model_has_is_refused_by_its_key() {
    for (part, key, value) in [
        ("vision_config", "hidden_act", serde_json::json!("mish")),
        ("vision_config", "num_attention_heads", 5.into()),
        ("vision_config", "patch_size", 0.into()),
        ("vision_config", "patch_size", 1_000_000.into()),
        ("vision_config", "num_channels", 4.into()),
        ("text_config", "hidden_size", u64::MAX.into()),
        ("text_config", "num_hidden_layers", 1_000_000.into()),
        ("text_config", "vocab_size", (-1).into()),
        ("text_config", "layer_norm_eps", 0.into()),
        ("", "model_type", "bert".into()),
        ("", "text_config", 3.into()),
    ] {
        let dir = copy("clip");
        let path = dir.path().join("config.json");
        let mut config: serde_json::Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
        match part {
            "" => config[key] = value,
            part => config[part][key] = value,
        }
        fs::write(&path, config.to_string()).unwrap();
        let message = refusal(dir.path());
        assert!(message.contains(key) && message.contains("config.json"), "{key}: {message}");
    }
    // The right kind of value, but not the one of the weights.
    let dir = copy("clip");
    let path = dir.path().join("config.json");
    let text = fs::read_to_string(&path).unwrap().replace("\"hidden_size\": 32", "\"hidden_size\": 64");
    fs::write(&path, text).unwrap();
    let message = refusal(dir.path());
    assert!(message.contains("model.safetensors") && message.contains("tensor"), "{message}");
}

#[test]
fn a_file_that_is_no_models_configuration_says_which_part_is_missing() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("config.json");
    fs::write(&path, "{}").unwrap();
    let (vision, text) = (VisionConfig::read(&path).unwrap_err(), TextConfig::read(&path).unwrap_err());
    for (error, part) in [(vision.to_string(), "vision_config"), (text.to_string(), "text_config")] {
        assert!(error.contains(&format!("`{part}` is missing")), "{error}");
    }
}

#[test]
fn a_folder_without_weights_says_what_it_needs_and_a_pickle_how_to_convert_it() {
    let dir = copy("clip");
    fs::remove_file(dir.path().join("model.safetensors")).unwrap();
    assert!(refusal(dir.path()).contains("expected model.safetensors"));
    fs::write(dir.path().join("pytorch_model.bin"), "").unwrap();
    let message = refusal(dir.path());
    assert!(message.contains("pickle") && message.contains("convert it"), "{message}");
    assert!(refusal(&dir.path().join("nowhere")).contains("nowhere"));
}

#[test]
fn a_damaged_tokenizer_is_an_error_that_names_the_file() {
    let refusal = |dir: &Path, family| Tokenizer::from_folder(dir, family, LENGTH).unwrap_err().to_string();
    let empty = tempfile::tempdir().unwrap();
    assert!(refusal(empty.path(), Family::Clip).contains("vocab.json with merges.txt"));
    fs::write(empty.path().join("spiece.model"), "").unwrap();
    assert!(refusal(empty.path(), Family::Siglip).contains("convert it"));
    let dir = copy("clip");
    fs::write(dir.path().join("tokenizer.json"), "{}").unwrap();
    assert!(refusal(dir.path(), Family::Clip).contains("tokenizer.json"));
    let dir = copy("clip-f16");
    fs::write(dir.path().join("vocab.json"), r#"{"a": 0}"#).unwrap();
    let message = refusal(dir.path(), Family::Clip);
    assert!(message.contains("vocab.json") && message.contains("<|startoftext|>"), "{message}");
}
