//! Configurations, files and inputs that are wrong: each is an error that says where and what, and never a panic.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use candle_core::{DType, Tensor};
use evenset_nn::models::{
    AutoencoderKLConfig, AutoencoderTinyConfig, Conditions, LoadOptions, UNet2DConditionConfig, UNet2DConditionModel,
    UNet2DConfig,
};
use evenset_nn::no_grad;
use evenset_nn::ops::with_candle;
use safetensors::{Dtype, SafeTensors};
use serde_json::{Map, Value, json};
use tempfile::TempDir;

use crate::{CPU, GOLDEN, Model, golden, images, inputs_and_results};

const WEIGHTS: &str = "diffusion_pytorch_model.safetensors";
const INDEX: &str = "diffusion_pytorch_model.safetensors.index.json";
const SHARD: &str = "diffusion_pytorch_model-00002-of-00002.safetensors";

/// A copy of a golden folder that a test may spoil.
fn copy(name: &str) -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    for entry in fs::read_dir(golden(name)).unwrap() {
        let entry = entry.unwrap();
        fs::copy(entry.path(), dir.path().join(entry.file_name())).unwrap();
    }
    dir
}

/// Why the model in `dir` cannot be loaded, which must say every one of `words`.
fn assert_refused(dir: &Path, words: &[&str]) {
    let Err(error) = Model::load(dir, LoadOptions::default()) else { panic!("{words:?}: nothing was refused") };
    let message = error.to_string();
    assert!(words.iter().all(|word| message.contains(word)), "{message}: {words:?} expected");
}

/// What a configuration with some of its keys set to other values is refused with.
fn refusal(name: &str, changes: &Value) -> Option<String> {
    let text = fs::read_to_string(golden(name).join("config.json")).unwrap();
    let mut config: Map<String, Value> = serde_json::from_str(&text).unwrap();
    config.extend(changes.as_object().unwrap().clone());
    let text = Value::Object(config).to_string();
    let result = match name {
        "vae" => AutoencoderKLConfig::from_json(&text).map(drop),
        "vae-tiny" => AutoencoderTinyConfig::from_json(&text).map(drop),
        "pixel" => UNet2DConfig::from_json(&text).map(drop),
        _ => UNet2DConditionConfig::from_json(&text).map(drop),
    };
    result.err().map(|error| error.to_string())
}

#[test]
fn keys_and_values_that_no_model_has_are_refused_by_name() {
    let huge = u64::MAX;
    for (name, changes) in [
        ("sd1", json!({"colour": 3})),
        ("sd1", json!({"act_fn": "gelu"})),
        ("sd1", json!({"encoder_hid_dim": 8})),
        ("sd1", json!({"encoder_hid_dim_type": "text_proj"})),
        ("sd1", json!({"addition_embed_type": "image"})),
        ("sd1", json!({"addition_time_embed_dim": null, "addition_embed_type": "text_time"})),
        ("sd1", json!({"dual_cross_attention": true})),
        ("sd1", json!({"resnet_skip_time_act": true})),
        ("sd1", json!({"resnet_out_scale_factor": 1.5})),
        ("sd1", json!({"resnet_time_scale_shift": "spatial"})),
        ("sd1", json!({"attention_type": "gated"})),
        ("sd1", json!({"class_embeddings_concat": true})),
        ("sd1", json!({"mid_block_only_cross_attention": true})),
        ("sd1", json!({"cross_attention_norm": "group_norm"})),
        ("sd1", json!({"num_attention_heads": 4})),
        ("sd1", json!({"attention_head_dim": 5})),
        ("sd1", json!({"attention_head_dim": 0})),
        ("sd1", json!({"attention_head_dim": [4, 4, 4]})),
        ("sd1", json!({"attention_head_dim": null})),
        ("sd1", json!({"norm_num_groups": 5})),
        ("sd1", json!({"norm_num_groups": 0})),
        ("sd1", json!({"norm_num_groups": null})),
        ("sd1", json!({"norm_eps": -1e-5})),
        ("sd1", json!({"downsample_padding": huge})),
        ("sd1", json!({"down_block_types": ["SimpleCrossAttnDownBlock2D", "DownBlock2D"]})),
        ("sd1", json!({"up_block_types": ["UpBlock2D"]})),
        ("sd1", json!({"down_block_types": []})),
        ("sd1", json!({"block_out_channels": [32, 0]})),
        ("sd1", json!({"block_out_channels": [32, huge]})),
        ("sd1", json!({"block_out_channels": [32]})),
        ("sd1", json!({"layers_per_block": 0})),
        ("sd1", json!({"layers_per_block": huge})),
        ("sd1", json!({"layers_per_block": -1})),
        ("sd1", json!({"mid_block_type": "UNetMidBlock2DSimpleCrossAttn"})),
        ("sd1", json!({"mid_block_scale_factor": 0})),
        ("sd1", json!({"only_cross_attention": "yes"})),
        ("sd1", json!({"cross_attention_dim": [24]})),
        ("sd1", json!({"transformer_layers_per_block": [[1], 1], "reverse_transformer_layers_per_block": [1, [1]]})),
        ("sd1", json!({"transformer_layers_per_block": huge})),
        ("sd1", json!({"reverse_transformer_layers_per_block": [1]})),
        ("sd1", json!({"time_embedding_type": "learned"})),
        ("sd1", json!({"time_embedding_dim": 7, "time_embedding_type": "fourier"})),
        ("sd1", json!({"time_embedding_act_fn": "relu"})),
        ("sd1", json!({"timestep_post_act": "mish"})),
        ("sd1", json!({"freq_shift": 16})),
        ("sd1", json!({"conv_in_kernel": 4})),
        ("sd1", json!({"conv_out_kernel": huge})),
        ("sd1", json!({"projection_class_embeddings_input_dim": null, "class_embed_type": "projection"})),
        ("sd1", json!({"num_class_embeds": huge})),
        ("sd1", json!({"_class_name": "UNet2DModel"})),
        ("pixel", json!({"colour": [1, 2]})),
        ("pixel", json!({"cross_attention_dim": 8})),
        ("pixel", json!({"down_block_types": ["SkipDownBlock2D", "DownBlock2D"]})),
        ("pixel", json!({"down_block_types": ["CrossAttnDownBlock2D", "DownBlock2D"]})),
        ("pixel", json!({"up_block_types": ["CrossAttnUpBlock2D", "UpBlock2D"]})),
        ("pixel", json!({"mid_block_type": "UNetMidBlock2DCrossAttn"})),
        ("pixel", json!({"downsample_type": "fir"})),
        ("pixel", json!({"upsample_type": null})),
        ("pixel", json!({"downsample_padding": huge})),
        ("pixel", json!({"attention_head_dim": [8, 8]})),
        ("pixel", json!({"attention_head_dim": 100})),
        ("pixel", json!({"class_embed_type": "projection"})),
        ("pixel", json!({"num_train_timesteps": null, "time_embedding_type": "learned"})),
        ("pixel", json!({"resnet_time_scale_shift": "ada_group"})),
        ("pixel", json!({"freq_shift": 8})),
        ("vae", json!({"decoder_block_out_channels": [8]})),
        ("vae", json!({"act_fn": "relu"})),
        ("vae", json!({"down_block_types": ["DownBlock2D", "DownEncoderBlock2D", "DownEncoderBlock2D"]})),
        ("vae", json!({"norm_num_groups": 7})),
        ("vae", json!({"latent_channels": 0})),
        ("vae", json!({"scaling_factor": 0})),
        ("vae", json!({"latents_mean": [0, 0]})),
        ("vae", json!({"latents_std": [0, 1, 1, 1], "latents_mean": [0, 0, 0, 0]})),
        ("vae", json!({"shift_factor": 0.1, "latents_std": [1, 1, 1, 1], "latents_mean": [0, 0, 0, 0]})),
        ("vae", json!({"_class_name": "AutoencoderTiny"})),
        ("vae-tiny", json!({"colour": 3})),
        ("vae-tiny", json!({"act_fn": "mish"})),
        ("vae-tiny", json!({"upsample_fn": "bilinear"})),
        ("vae-tiny", json!({"upsampling_scaling_factor": 3})),
        ("vae-tiny", json!({"scaling_factor": 0})),
        ("vae-tiny", json!({"shift_factor": 0.1})),
        ("vae-tiny", json!({"latent_channels": 0})),
        ("vae-tiny", json!({"out_channels": huge})),
        ("vae-tiny", json!({"decoder_block_out_channels": [16]})),
        ("vae-tiny", json!({"decoder_block_out_channels": [16, 8]})),
        ("vae-tiny", json!({"encoder_block_out_channels": []})),
        ("vae-tiny", json!({"encoder_block_out_channels": [huge, huge]})),
        ("vae-tiny", json!({"num_decoder_blocks": [2, huge]})),
        ("vae-tiny", json!({"_class_name": "AutoencoderKL"})),
    ] {
        let key = changes.as_object().unwrap().keys().next().unwrap();
        let message = refusal(name, &changes).unwrap_or_else(|| panic!("{changes}: was taken"));
        assert!(message.starts_with(&format!("`{key}`")), "{changes}: {message}");
    }
}

#[test]
fn values_in_published_files_are_taken_where_diffusers_takes_them() {
    for (name, changes) in [
        // Stable Diffusion XL's file.
        ("sdxl", json!({"upcast_attention": null, "sample_size": 128})),
        ("sd1", json!({"sample_size": [64, 96], "_name_or_path": "somewhere", "act_fn": "swish"})),
        ("pixel", json!({"decay": 0.9999, "inv_gamma": 1.0, "power": 0.75, "optimization_step": 100})),
        ("sd1", json!({"transformer_layers_per_block": [0, 1], "mid_block_only_cross_attention": false})),
        ("pixel", json!({"attention_head_dim": null, "mid_block_type": null, "sample_size": 32})),
        ("vae", json!({"shift_factor": 0.1159, "latents_mean": null})),
        // TAESD's file has neither of these two.
        ("vae-tiny", json!({"upsample_fn": "nearest", "shift_factor": 0, "_diffusers_version": "0.20.0.dev0"})),
    ] {
        assert_eq!(refusal(name, &changes), None, "{changes}");
    }
}

#[test]
fn a_configuration_that_is_no_configuration_names_its_file() {
    for (text, word) in
        [("", "JSON"), ("[]", "JSON"), ("{\"act_fn\": ", "JSON"), ("{\"act_fn\": \"gelu\"}", "`act_fn`")]
    {
        for name in ["sd1", "pixel", "vae"] {
            let dir = copy(name);
            let class = fs::read_to_string(dir.path().join("config.json")).unwrap();
            fs::write(dir.path().join("config.json"), text).unwrap();
            let error = match class {
                class if class.contains("AutoencoderKL") => {
                    evenset_nn::models::AutoencoderKL::from_pretrained(dir.path(), CPU, LoadOptions::default()).err()
                }
                class if class.contains("UNet2DModel") => {
                    evenset_nn::models::UNet2DModel::from_pretrained(dir.path(), CPU, LoadOptions::default()).err()
                }
                _ => UNet2DConditionModel::from_pretrained(dir.path(), CPU, LoadOptions::default()).err(),
            };
            let message = error.unwrap().to_string();
            assert!(message.contains("config.json") && message.contains(word), "{name}, {text}: {message}");
        }
    }
    let dir = copy("sd1");
    fs::write(dir.path().join("config.json"), " ".repeat(2 << 20)).unwrap();
    assert_refused(dir.path(), &["config.json", "too many"]);
    fs::remove_file(dir.path().join("config.json")).unwrap();
    assert_refused(dir.path(), &["config.json"]);
}

/// A tensor as a file has it.
type Raw = (Dtype, Vec<usize>, Vec<u8>);

/// Writes the tensors of `file` anew, changed.
fn rewrite(file: &Path, change: impl FnOnce(&mut BTreeMap<String, Raw>)) {
    let bytes = fs::read(file).unwrap();
    let read = SafeTensors::deserialize(&bytes).unwrap();
    let raw = |view: safetensors::tensor::TensorView<'_>| (view.dtype(), view.shape().to_vec(), view.data().to_vec());
    let mut tensors = read.tensors().into_iter().map(|(name, view)| (name, raw(view))).collect();
    change(&mut tensors);
    let views = tensors.iter().map(|(name, (dtype, shape, data))| {
        (name, safetensors::tensor::TensorView::new(*dtype, shape.clone(), data).unwrap())
    });
    fs::write(file, safetensors::serialize(views, None).unwrap()).unwrap();
}

#[test]
fn tensors_that_are_missing_unexpected_or_misshapen_are_named_with_their_file() {
    for (name, file) in [("sd1", WEIGHTS), ("pixel", WEIGHTS), ("vae", WEIGHTS), ("sdxl", SHARD)] {
        // Every other tensor of a model lies in its second shard.
        let path = |dir: &TempDir| dir.path().join(file);
        let tensor = {
            let mut names = Vec::new();
            rewrite(&path(&copy(name)), |tensors| names = tensors.keys().cloned().collect());
            names.into_iter().find(|name| name.ends_with("conv1.weight")).unwrap()
        };

        let dir = copy(name);
        rewrite(&path(&dir), |tensors| drop(tensors.remove(&tensor)));
        assert_refused(dir.path(), &["diffusion_pytorch_model", &tensor, "missing"]);

        let dir = copy(name);
        rewrite(&path(&dir), |tensors| drop(tensors.insert("extra.weight".into(), (Dtype::F32, vec![1], vec![0; 4]))));
        assert_refused(dir.path(), &[file, "extra.weight"]);

        let dir = copy(name);
        rewrite(&path(&dir), |tensors| tensors.get_mut(&tensor).unwrap().1.swap(0, 2));
        assert_refused(dir.path(), &[file, &tensor, "needs"]);

        let dir = copy(name);
        rewrite(&path(&dir), |tensors| {
            let (dtype, shape, data) = tensors.get_mut(&tensor).unwrap();
            *dtype = Dtype::F64;
            data.resize(8 * shape.iter().product::<usize>(), 0);
        });
        assert_refused(dir.path(), &[file, &tensor, "F64"]);
    }
}

#[test]
fn a_file_that_is_cut_off_anywhere_is_named() {
    for (name, file) in [("learned", WEIGHTS), ("sdxl", SHARD)] {
        let whole = fs::read(golden(name).join(file)).unwrap();
        let dir = copy(name);
        let header = 8 + u64::from_le_bytes(whole[..8].try_into().unwrap()) as usize;
        for length in [0, 1, 7, 8, 9, header / 2, header - 1, header, header + 1, whole.len() / 2, whole.len() - 1] {
            fs::write(dir.path().join(file), &whole[..length]).unwrap();
            assert_refused(dir.path(), &[file]);
        }
        for (i, byte) in [(0, 0xff), (7, 0xff), (8, b'['), (header - 2, b'x')] {
            let mut spoilt = whole.clone();
            spoilt[i] = byte;
            fs::write(dir.path().join(file), spoilt).unwrap();
            assert_refused(dir.path(), &[file]);
        }
        fs::write(dir.path().join(file), [whole.as_slice(), b"more"].concat()).unwrap();
        assert_refused(dir.path(), &[file]);
        fs::remove_file(dir.path().join(file)).unwrap();
        assert_refused(dir.path(), if name == "sdxl" { &[SHARD] } else { &["no weights", "safetensors"] });
    }
}

#[test]
fn an_index_cannot_lead_out_of_its_folder() {
    let outer = tempfile::tempdir().unwrap();
    let dir = outer.path().join("model");
    fs::create_dir_all(dir.join("sub")).unwrap();
    for entry in fs::read_dir(golden("sdxl")).unwrap() {
        let entry = entry.unwrap();
        fs::copy(entry.path(), dir.join(entry.file_name())).unwrap();
    }
    // The shard lies everywhere that the index will point, so that only its name can be what is wrong.
    let shard = fs::read(dir.join(SHARD)).unwrap();
    fs::write(outer.path().join(SHARD), &shard).unwrap();
    fs::write(dir.join("sub").join(SHARD), &shard).unwrap();
    let index = fs::read_to_string(dir.join(INDEX)).unwrap();
    let absolute = outer.path().join(SHARD).display().to_string();
    let spoilt =
        [format!("../{SHARD}"), absolute, format!("sub/{SHARD}"), format!("./{SHARD}"), "..".into(), "".into()];
    for name in spoilt {
        fs::write(dir.join(INDEX), index.replace(SHARD, &name)).unwrap();
        assert_refused(&dir, &[INDEX, &format!("`{name}`")]);
    }
    fs::write(dir.join(INDEX), index.replace(SHARD, "other.safetensors")).unwrap();
    assert_refused(&dir, &["other.safetensors"]);
    for text in ["", "{}", "[]", "{\"weight_map\": 3}"] {
        fs::write(dir.join(INDEX), text).unwrap();
        assert_refused(&dir, &[INDEX]);
    }
    fs::write(dir.join(INDEX), "{\"weight_map\": {}}").unwrap();
    assert_refused(&dir, &[INDEX, "missing"]);
    fs::copy(dir.join(SHARD), dir.join("twice.safetensors")).unwrap();
    fs::write(dir.join(INDEX), index.replacen(SHARD, "twice.safetensors", 1)).unwrap();
    assert_refused(&dir, &["twice.safetensors", "another shard"]);
    fs::write(dir.join(INDEX), index).unwrap();
    assert!(Model::load(&dir, LoadOptions::default()).is_ok());
}

#[test]
fn what_cannot_be_trained_is_refused() {
    let dir = golden("sd1");
    for dtype in [DType::F16, DType::BF16, DType::F64] {
        let message = Model::load(&dir, LoadOptions { dtype, ..LoadOptions::trainable() }).err().unwrap().to_string();
        assert!(message.contains("train"), "{message}");
    }
    assert!(Model::load(&dir, LoadOptions::default().with_dtype(DType::U8)).is_err());
    let dir = copy("sd1");
    let config = fs::read_to_string(dir.path().join("config.json")).unwrap();
    fs::write(dir.path().join("config.json"), config.replace("\"dropout\": 0.0", "\"dropout\": 0.1")).unwrap();
    assert!(Model::load(dir.path(), LoadOptions::default()).is_ok());
    let message = Model::load(dir.path(), LoadOptions::trainable()).err().unwrap().to_string();
    assert!(message.contains("`dropout`"), "{message}");
}

#[test]
fn inputs_that_do_not_fit_are_errors() {
    for (name, _) in GOLDEN {
        let model = Model::load(&golden(name), LoadOptions::default()).unwrap();
        let (all, _) = inputs_and_results(name);
        let required: &[&str] = if name.starts_with("vae") { &["image", "z"] } else { &["x", "timesteps"] };
        for (key, x) in &all {
            let fails = |what: &str, x: Option<Tensor>| {
                let mut inputs = all.clone();
                match x {
                    Some(x) => drop(inputs.insert(key.clone(), x)),
                    None => drop(inputs.remove(key)),
                }
                assert!(no_grad(|| model.run(&inputs)).is_err(), "{name}: {key} {what}");
            };
            fails("without dimensions", Some(Tensor::zeros((), x.dtype(), CPU).unwrap()));
            fails("with one dimension more", Some(x.unsqueeze(0).unwrap()));
            if !required.contains(&key.as_str()) && key != "timestep_cond" {
                fails("left out", None);
            }
            if !name.starts_with("vae") {
                fails("of two images", Some(x.narrow(0, 0, 2).unwrap()));
            }
            if x.rank() > 1 {
                let (axis, width) =
                    if x.rank() == 4 { (1, x.dims()[1]) } else { (x.rank() - 1, x.dims()[x.rank() - 1]) };
                fails("of another width", Some(x.narrow(axis, 0, width - 1).unwrap()));
                fails("of no width", Some(x.narrow(axis, 0, 0).unwrap()));
            }
        }
        if all.contains_key("class") && all["class"].dtype() != DType::F32 && name != "learned" {
            let mut inputs = all.clone();
            inputs.insert("class".into(), Tensor::new(&[0u32, 1, 5], CPU).unwrap());
            assert!(no_grad(|| model.run(&inputs)).is_err(), "{name}: a class beyond the last");
        }
    }
    // What a network does not take is not ignored.
    let sd1 = UNet2DConditionModel::from_pretrained(&golden("sd1"), CPU, LoadOptions::default()).unwrap();
    let (all, _) = inputs_and_results("sd1");
    let more = Tensor::zeros((3, 6), DType::F32, CPU).unwrap();
    let text = Conditions::text(&all["text"]);
    for conditions in [
        Conditions { class: Some(&more), ..text },
        Conditions { pooled_text: Some(&more), ..text },
        Conditions { time_ids: Some(&more), ..text },
        Conditions { timestep: Some(&more), ..text },
    ] {
        assert!(no_grad(|| sd1.forward(&all["x"], &all["timesteps"], &conditions)).is_err());
    }
}

#[test]
fn tiny_and_empty_images_do_not_panic() {
    for (name, _) in GOLDEN {
        let model = Model::load(&golden(name), LoadOptions::default()).unwrap();
        let (all, _) = inputs_and_results(name);
        for (height, width) in [(0, 4), (4, 0), (1, 1), (1, 5), (2, 1), (3, 2)] {
            let mut inputs = all.clone();
            for key in ["x", "image", "z"] {
                if let Some(x) = all.get(key) {
                    inputs.insert(key.into(), Tensor::ones((3, x.dims()[1], height, width), DType::F32, CPU).unwrap());
                }
            }
            // An error or a result: some networks halve a single pixel to itself.
            for candle in [false, true] {
                let run = || no_grad(|| model.run(&inputs));
                let result = if candle { with_candle(run) } else { run() };
                assert!(height * width > 0 || result.is_err(), "{name}: {height}x{width}");
            }
        }
        assert!(no_grad(|| model.run(&images(&all, &(0..0)))).is_err(), "{name}: no image at all");
        if let Some(text) = all.get("text") {
            let mut inputs = all.clone();
            inputs.insert("text".into(), text.narrow(1, 0, 0).unwrap());
            assert!(no_grad(|| model.run(&inputs)).is_err(), "{name}: a text of no tokens");
        }
    }
}
