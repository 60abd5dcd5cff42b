//! LoRAs: what diffusers and peft compute with them, and every way in which a file can be wrong.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use evenset_nn::models::clip::{ClipTextEncoder, TextAdditions};
use evenset_nn::models::{LoadOptions, UNet2DConditionModel};
use evenset_nn::{Error, LoraStack, Part};
use safetensors::tensor::TensorView;
use safetensors::{Dtype, SafeTensors};

use crate::{CPU, assert_near, bits, denoised, distance, encoded, golden, ids, parts, tensors};

const TEXT: &str = "recognise/text-encoder";

fn stack(loras: &[(&str, f64)]) -> LoraStack {
    LoraStack::open(loras.iter().map(|(name, weight)| (parts("lora").join(format!("{name}.safetensors")), *weight)))
        .unwrap()
}

fn unet(base: &str, loras: &LoraStack, options: LoadOptions) -> evenset_nn::Result<UNet2DConditionModel> {
    UNet2DConditionModel::from_pretrained_with(&golden(base), CPU, options, loras)
}

fn text(loras: &LoraStack) -> evenset_nn::Result<ClipTextEncoder> {
    let additions = TextAdditions { loras: Some(loras), ..TextAdditions::none(Part::TextEncoder) };
    ClipTextEncoder::from_pretrained_with(&golden(TEXT), CPU, LoadOptions::default(), &additions)
}

#[test]
fn every_way_of_naming_gives_what_diffusers_computes_alone_and_in_a_stack() {
    let expected = tensors(&parts("lora/io.safetensors"));
    let (io, tokens) = (tensors(&golden("sd1/io.safetensors")), ids(TEXT));
    let base = denoised(&unet("sd1", &LoraStack::default(), LoadOptions::default()).unwrap(), &io);
    for (name, loras) in [
        ("peft", vec![("peft", 1.0)]),
        ("diffusers", vec![("diffusers", 1.0)]),
        ("kohya", vec![("kohya", 1.0)]),
        ("stack", vec![("peft", 0.7), ("kohya", -0.4), ("diffusers", 1.3)]),
    ] {
        let loras = stack(&loras);
        assert_eq!(loras.parts(), [Part::UNet, Part::TextEncoder].into());
        loras.only(&[Part::UNet, Part::TextEncoder]).unwrap();
        let found = denoised(&unet("sd1", &loras, LoadOptions::default()).unwrap(), &io);
        assert_near(&format!("{name}, unet"), &found, &expected[&format!("{name}.unet")]);
        assert!(distance(&found, &base) > 1e-2, "{name} changes next to nothing");
        let found = encoded(&text(&loras).unwrap(), &tokens);
        assert_near(&format!("{name}, text"), &found, &expected[&format!("{name}.text")]);
    }
}

#[test]
fn kohyas_names_over_the_original_unet_find_their_layers() {
    let expected = &tensors(&parts("lora/io.safetensors"))["original.unet"];
    let loras = stack(&[("original", 1.0)]);
    assert_eq!(loras.parts(), [Part::UNet].into());
    let model = unet("sdxl", &loras, LoadOptions::default()).unwrap();
    assert_near("original names", &denoised(&model, &tensors(&golden("sdxl/io.safetensors"))), expected);
}

#[test]
fn a_weight_of_zero_changes_no_bit_and_a_merge_is_the_same_for_training() {
    let io = tensors(&golden("sd1/io.safetensors"));
    let plain = bits(&denoised(&unet("sd1", &LoraStack::default(), LoadOptions::default()).unwrap(), &io));
    let zero = unet("sd1", &stack(&[("kohya", 0.0)]), LoadOptions::default()).unwrap();
    assert_eq!(bits(&denoised(&zero, &io)), plain);
    let loras = stack(&[("kohya", 1.0)]);
    let constant = denoised(&unet("sd1", &loras, LoadOptions::default()).unwrap(), &io);
    let variable = denoised(&unet("sd1", &loras, LoadOptions::trainable()).unwrap(), &io);
    assert!(distance(&variable, &constant) < 1e-5);
    // In f16 the sum is rounded once, to f16.
    let short = LoadOptions::default().with_dtype(candle_core::DType::F16);
    assert!(distance(&denoised(&unet("sd1", &loras, short).unwrap(), &io), &constant) < 2e-3);
}

#[test]
fn the_merge_has_the_same_bytes_with_any_number_of_threads() {
    let io = tensors(&golden("sd1/io.safetensors"));
    let loras = stack(&[("peft", 0.7), ("kohya", -0.4)]);
    let run = |threads| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        pool.install(|| bits(&denoised(&unet("sd1", &loras, LoadOptions::default()).unwrap(), &io)))
    };
    assert_eq!(run(1), run(3));
}

/// A tensor as a file has it.
type Raw = (Dtype, Vec<usize>, Vec<u8>);

/// A golden LoRA, changed, in a folder of its own.
fn changed(name: &str, change: impl FnOnce(&mut BTreeMap<String, Raw>)) -> (tempfile::TempDir, PathBuf) {
    let bytes = fs::read(parts("lora").join(format!("{name}.safetensors"))).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let raw = |view: TensorView<'_>| (view.dtype(), view.shape().to_vec(), view.data().to_vec());
    let mut tensors = file.tensors().into_iter().map(|(name, view)| (name, raw(view))).collect();
    change(&mut tensors);
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("changed.safetensors");
    let views = tensors
        .iter()
        .map(|(name, (dtype, shape, data))| (name, TensorView::new(*dtype, shape.clone(), data).unwrap()));
    fs::write(&path, safetensors::serialize(views, None).unwrap()).unwrap();
    (dir, path)
}

/// Why a LoRA cannot be opened or merged into the UNet.
fn refusal(path: &Path) -> String {
    let opened = LoraStack::open([(path, 1.0)]);
    let error = match opened.and_then(|loras| unet("sd1", &loras, LoadOptions::default())) {
        Ok(_) => panic!("{}: was taken", path.display()),
        Err(error) => error,
    };
    let message = error.to_string();
    assert!(message.contains(&path.file_name().unwrap().to_string_lossy().into_owned()), "{message}");
    message
}

const QUERY: &str = "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn1_to_q";

#[test]
fn a_lora_for_another_base_model_names_a_tensor_both_shapes_and_how_much_is_lost() {
    let error = unet("sdxl", &stack(&[("kohya", 1.0)]), LoadOptions::default()).unwrap_err();
    assert!(matches!(error, Error::Lora { .. }));
    let message = error.to_string();
    assert!(message.contains("another base model") && message.contains("found no place"), "{message}");
    let (_dir, path) = changed("kohya", |tensors| {
        let (_, shape, data) = tensors.get_mut(&format!("{QUERY}.lora_down.weight")).unwrap();
        *shape = vec![2, 48];
        data.resize(2 * 48 * 2, 0);
    });
    let message = refusal(&path);
    for word in [QUERY, "[32, 48]", "[32, 32]", "1 of its"] {
        assert!(message.contains(word), "{message}: {word}");
    }
    let (_dir, path) = changed("kohya", |tensors| {
        for end in ["lora_down.weight", "lora_up.weight", "alpha"] {
            let tensor = tensors.remove(&format!("{QUERY}.{end}")).unwrap();
            tensors.insert(format!("lora_unet_down_blocks_9_attn1_to_q.{end}"), tensor);
        }
    });
    let message = refusal(&path);
    assert!(message.contains("no layer for `lora_unet_down_blocks_9_attn1_to_q"), "{message}");
    let message = stack(&[("kohya", 1.0)]).only(&[Part::UNet, Part::TextEncoder2]).unwrap_err().to_string();
    assert!(message.contains("text_encoder") && message.contains("kohya.safetensors"), "{message}");
}

#[test]
fn damaged_and_foreign_files_are_refused_with_their_reason() {
    let key = |end: &str| format!("{QUERY}.{end}");
    let (_dir, path) = changed("kohya", |tensors| drop(tensors.remove(&key("lora_up.weight"))));
    assert!(refusal(&path).contains("stands alone"));
    let (_dir, path) = changed("kohya", |tensors| {
        tensors.remove(&key("lora_up.weight"));
        tensors.remove(&key("lora_down.weight"));
    });
    assert!(refusal(&path).contains("stands alone"));
    let (_dir, path) = changed("kohya", |tensors| {
        let (_, shape, data) = tensors.get_mut(&key("lora_up.weight")).unwrap();
        *shape = vec![32, 3];
        data.resize(32 * 3 * 2, 0);
    });
    assert!(refusal(&path).contains("do not go together"));
    let (_dir, path) = changed("kohya", |tensors| {
        tensors.get_mut(&key("lora_down.weight")).unwrap().2[..2].copy_from_slice(&half::f16::NAN.to_le_bytes());
    });
    assert!(refusal(&path).contains("NaN"));
    let (_dir, path) = changed("kohya", |tensors| {
        tensors.get_mut(&key("alpha")).unwrap().2.copy_from_slice(&f32::INFINITY.to_le_bytes());
    });
    assert!(refusal(&path).contains("alpha"));
    let (_dir, path) = changed("kohya", |tensors| {
        tensors.insert(key("alpha"), (Dtype::F32, vec![2], vec![0; 8]));
    });
    assert!(refusal(&path).contains("single number"));
    for (name, kind) in
        [("x.dora_scale", "DoRA"), ("x.hada_w1_a", "LoHa"), ("x.lokr_w1", "LoKr"), ("x.weight", "no key")]
    {
        let (_dir, path) =
            changed("kohya", |tensors| drop(tensors.insert(name.into(), (Dtype::F32, vec![1], vec![0; 4]))));
        assert!(refusal(&path).contains(kind));
    }
    let (_dir, path) = changed("kohya", BTreeMap::clear);
    assert!(refusal(&path).contains("changes nothing"));
    for bytes in [b"PK\x03\x04 and more".as_slice(), b"\x80\x02}q\x00(X\x05\x00\x00\x00"] {
        fs::write(&path, bytes).unwrap();
        let message = refusal(&path);
        assert!(message.contains("pickle") && message.contains("convert it"), "{message}");
    }
    fs::write(&path, b"").unwrap();
    refusal(&path);
    let message = LoraStack::open([(path, f64::NAN)]).unwrap_err().to_string();
    assert!(message.contains("weight is NaN"), "{message}");
}

#[test]
fn pefts_own_folder_has_its_alpha_beside_the_file() {
    let dir = tempfile::tempdir().unwrap();
    let bytes = fs::read(parts("lora/diffusers.safetensors")).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let renamed = |name: &str| {
        let name = name.strip_prefix("unet.")?;
        Some(format!("base_model.model.{}", name.replace("lora.down", "lora_A").replace("lora.up", "lora_B")))
    };
    let views = file.tensors().into_iter().filter_map(|(name, view)| Some((renamed(&name)?, view)));
    let path = dir.path().join("adapter_model.safetensors");
    fs::write(&path, safetensors::serialize(views, None).unwrap()).unwrap();
    let io = tensors(&golden("sd1/io.safetensors"));
    let run = |path: &Path, weight| {
        let loras = LoraStack::open([(path, weight)]).unwrap();
        bits(&denoised(&unet("sd1", &loras, LoadOptions::default()).unwrap(), &io))
    };
    let reference = parts("lora/diffusers.safetensors");
    assert_eq!(run(&path, 1.0), run(&reference, 1.0));
    // The rank is 4.
    let config = dir.path().join("adapter_config.json");
    fs::write(&config, r#"{"peft_type": "LORA", "r": 4, "lora_alpha": 2, "target_modules": ["to_q"]}"#).unwrap();
    assert_eq!(run(&path, 1.0), run(&reference, 0.5));
    fs::write(&config, r#"{"peft_type": "LORA", "use_dora": true}"#).unwrap();
    let message = LoraStack::open([(path, 1.0)]).unwrap_err().to_string();
    assert!(message.contains("use_dora") && message.contains("adapter_config.json"), "{message}");
}
