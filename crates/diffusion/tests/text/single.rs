//! Single files of original names: the same images come out as from the folders whose weights they hold, byte for byte, and
//! `tests/pipelines.rs` compares folders with diffusers. `tests/golden/make_single_files.py` says how files are put together.

use std::collections::BTreeMap;
use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};

use candle_core::{DType, Device};
use evenset_core::{Seed, Silent};
use evenset_diffusion::SchedulerKind;
use evenset_diffusion::stable_diffusion::{
    Additions, DrawSettings, Family, FileShapes, ModelFile, ModelFolder, ModelSource, Prediction, Prompt,
    PromptRequest, StableDiffusion, StableDiffusionConfig, Start, StatedPrediction,
};
use evenset_nn::models::Variant;
use evenset_nn::models::clip::TextConfig;
use flate2::read::GzDecoder;
use safetensors::Dtype;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use crate::assemble::{Raw, assembled, tables, written};
use crate::{FAMILIES, copy, golden, model, set};

const CPU: &Device = &Device::Cpu;
/// Words of CLIP, and the numbers of a text's ends among them.
const WORDS: usize = 49_408;
const ENDS: [usize; 2] = [WORDS - 2, WORDS - 1];
/// The `scheduler_config.json` of the published folders.
const PNDM: &str = r#"{"_class_name": "PNDMScheduler", "_diffusers_version": "0.6.0", "beta_end": 0.012,
    "beta_schedule": "scaled_linear", "beta_start": 0.00085, "clip_sample": false, "num_train_timesteps": 1000,
    "set_alpha_to_one": false, "skip_prk_steps": true, "steps_offset": 1, "trained_betas": null}"#;
const DDIM: &str = r#"{"_class_name": "DDIMScheduler", "_diffusers_version": "0.8.0", "beta_end": 0.012,
    "beta_schedule": "scaled_linear", "beta_start": 0.00085, "clip_sample": false, "num_train_timesteps": 1000,
    "prediction_type": "v_prediction", "set_alpha_to_one": false, "skip_prk_steps": true, "steps_offset": 1,
    "trained_betas": null}"#;
const EULER: &str = r#"{"_class_name": "EulerDiscreteScheduler", "_diffusers_version": "0.19.0.dev0",
    "beta_end": 0.012, "beta_schedule": "scaled_linear", "beta_start": 0.00085, "clip_sample": false,
    "interpolation_type": "linear", "num_train_timesteps": 1000, "prediction_type": "epsilon", "sample_max_value": 1.0,
    "set_alpha_to_one": false, "skip_prk_steps": true, "steps_offset": 1, "timestep_spacing": "leading",
    "trained_betas": null, "use_karras_sigmas": false}"#;

/// A small model whose texts have all of CLIP's words, with the noise levels of the published models.
fn whole(family: &str) -> tempfile::TempDir {
    let dir = copy(family);
    let second: &[&str] = if family == "sdxl" { &["", "_2"] } else { &[""] };
    for suffix in second {
        let fills = if family == "sd2" || *suffix == "_2" { "!" } else { "<|endoftext|>" };
        write_tokenizer(&dir.path().join(format!("tokenizer{suffix}")), fills);
        widen(&dir.path().join(format!("text_encoder{suffix}")));
    }
    let scheduler = dir.path().join("scheduler/scheduler_config.json");
    let (class, config) = match family {
        "sd1" => ("PNDMScheduler", PNDM),
        "sd2" => ("DDIMScheduler", DDIM),
        _ => ("EulerDiscreteScheduler", EULER),
    };
    fs::write(scheduler, config).unwrap();
    set(&dir.path().join("model_index.json"), "scheduler", json!(["diffusers", class]));
    dir
}

/// CLIP's whole tokenizer in the files that published folders have.
fn write_tokenizer(dir: &Path, fills: &str) {
    let bundled = Path::new(env!("CARGO_MANIFEST_DIR")).join("../nn/src/models/clip/vocabulary/merges.txt.gz");
    let mut merges = String::new();
    GzDecoder::new(fs::File::open(bundled).unwrap()).read_to_string(&mut merges).unwrap();
    let byte = |range: std::ops::RangeInclusive<u32>| range.filter_map(char::from_u32);
    let signs: Vec<char> =
        byte(33..=126).chain(byte(161..=172)).chain(byte(174..=255)).chain(byte(256..=323)).collect();
    let words = signs.iter().map(char::to_string).chain(signs.iter().map(|sign| format!("{sign}</w>")));
    let words = words.chain(merges.lines().map(|pair| pair.replace(' ', "")));
    let words = words.chain(["<|startoftext|>", "<|endoftext|>"].map(str::to_owned));
    let words: serde_json::Map<String, Value> = words.enumerate().map(|(i, word)| (word, i.into())).collect();
    assert_eq!(words.len(), WORDS);
    fs::remove_dir_all(dir).unwrap();
    fs::create_dir_all(dir).unwrap();
    fs::write(dir.join("vocab.json"), Value::Object(words).to_string()).unwrap();
    fs::write(dir.join("merges.txt"), format!("#version: 0.2\n{merges}")).unwrap();
    let special = |content: &str| {
        json!({"__type": "AddedToken", "content": content, "lstrip": false, "normalized": true, "rstrip": false,
               "single_word": false})
    };
    let config = json!({"bos_token": special("<|startoftext|>"), "eos_token": special("<|endoftext|>"),
                        "unk_token": special("<|endoftext|>"), "pad_token": fills, "model_max_length": 77,
                        "tokenizer_class": "CLIPTokenizer"});
    fs::write(dir.join("tokenizer_config.json"), config.to_string()).unwrap();
}

/// Repeats the rows of a text encoder's table until each of CLIP's words has one.
fn widen(dir: &Path) {
    let path = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path());
    let path = path.into_iter().find(|path| path.extension().is_some_and(|end| end == "safetensors")).unwrap();
    let mut tensors = crate::assemble::folder(dir);
    let name = tensors.keys().find(|name| name.ends_with("token_embedding.weight")).unwrap().clone();
    let (_, shape, data) = tensors.get_mut(&name).unwrap();
    let row = data.len() / shape[0];
    *data = data.iter().copied().cycle().take(WORDS * row).collect();
    shape[0] = WORDS;
    fs::rename(written(dir, &tensors), path).unwrap();
    let config = dir.join("config.json");
    let legacy = fs::read_to_string(&config).unwrap().contains("\"eos_token_id\": 2,");
    set(&config, "vocab_size", WORDS.into());
    set(&config, "bos_token_id", ENDS[0].into());
    set(&config, "eos_token_id", if legacy { 2 } else { ENDS[1] }.into());
}

/// The tensors of the single file of a folder.
fn tensors(family: &str, folder: &Path) -> BTreeMap<String, Raw> {
    assembled(&tables(&golden("single-files.json"))[family], folder)
}

/// A configuration of diffusers without what it says of its writer.
fn config<T: DeserializeOwned>(path: &Path) -> T {
    let mut values: serde_json::Map<String, Value> = serde_json::from_slice(&fs::read(path).unwrap()).unwrap();
    values.retain(|key, _| !key.starts_with('_'));
    serde_json::from_value(Value::Object(values)).unwrap()
}

/// The sizes of the small models, which are none of the published ones.
fn shapes(folder: &Path) -> FileShapes {
    let second = folder.join("text_encoder_2/config.json");
    FileShapes {
        unet: config(&folder.join("unet/config.json")),
        vae: config(&folder.join("vae/config.json")),
        text: TextConfig::read(&folder.join("text_encoder/config.json")).unwrap(),
        text_2: second.is_file().then(|| TextConfig::read(&second).unwrap()),
    }
}

fn images(source: Box<dyn ModelSource>, scheduler: Option<SchedulerKind>) -> Vec<Vec<u8>> {
    let model = StableDiffusion::load(source, &Additions::default(), CPU, DType::F32).unwrap();
    let settings =
        DrawSettings { height: 16, width: 24, steps: 3, scheduler, ..DrawSettings::of(&model.components().facts) };
    let pixels: Vec<u8> = (0..16 * 24 * 3).map(|i| (i * 31 % 256) as u8).collect();
    let words = Prompt::new("A photograph of an astronaut riding a horse, hooray!! ☃").without("blurry!");
    let none = PromptRequest::new(Prompt::new("naïve smörgåsbord"), Seed(2));
    let from = PromptRequest { start: Some(Start { pixels, strength: 0.7, mask: None }), ..none.clone() };
    let drawn = model.generate(&[PromptRequest::new(words, Seed(1)), none, from], &settings, &Silent).unwrap();
    assert!(drawn.iter().all(|image| image.finite));
    drawn.into_iter().map(|image| image.pixels).collect()
}

#[test]
fn a_single_file_draws_the_images_of_its_folder() {
    for family in FAMILIES {
        let (folder, scratch) = (whole(family), tempfile::tempdir().unwrap());
        let path = written(scratch.path(), &tensors(family, folder.path()));
        let stated = (family == "sd2").then_some(Prediction::V);
        let file = ModelFile::open_as(&path, &shapes(folder.path()), stated).unwrap();
        let whole = ModelFolder::open(folder.path(), Variant::Whole).unwrap();
        assert_eq!(file.facts(), whole.facts(), "{family}");
        for solver in [None, Some(SchedulerKind::Dpmpp2mKarras)] {
            assert!(
                images(Box::new(file.clone()), solver) == images(Box::new(whole.clone()), solver),
                "{family} {solver:?}"
            );
        }
    }
}

#[test]
fn what_is_stated_of_a_file_is_what_its_noise_levels_are_read_with() {
    let (folder, scratch) = (whole("sd2"), tempfile::tempdir().unwrap());
    let path = written(scratch.path(), &tensors("sd2", folder.path()));
    set(&folder.path().join("scheduler/scheduler_config.json"), "prediction_type", "epsilon".into());
    let noise = images(Box::new(ModelFolder::open(folder.path(), Variant::Whole).unwrap()), None);
    let stated = |prediction| ModelFile::open_as(&path, &shapes(folder.path()), Some(prediction)).unwrap();
    assert!(images(Box::new(stated(Prediction::Epsilon)), None) == noise);
    assert!(images(Box::new(stated(Prediction::V)), None) != noise);
    let unsaid = ModelFile::open_as(&path, &shapes(folder.path()), None).unwrap();
    let error = StableDiffusion::load(Box::new(unsaid), &Additions::default(), CPU, DType::F32).unwrap_err();
    assert!(error.to_string().contains("v-prediction"), "{error}");
}

/// Nothing but the tensors by which a published model is recognised.
fn marked(dir: &Path, width: usize, channels: usize, more: &[&str]) -> PathBuf {
    let mut tensors = BTreeMap::new();
    let mut add = |name: &str, shape: Vec<usize>| {
        let bytes = 2 * shape.iter().product::<usize>();
        tensors.insert(name.to_owned(), (Dtype::F16, shape, vec![0; bytes]));
    };
    add("model.diffusion_model.input_blocks.0.0.weight", vec![320, channels, 3, 3]);
    add("model.diffusion_model.input_blocks.2.1.transformer_blocks.0.attn2.to_k.weight", vec![320, width]);
    add("first_stage_model.decoder.conv_in.weight", vec![1]);
    more.iter().for_each(|name| add(name, vec![1]));
    written(dir, &tensors)
}

const XL: &str = "conditioner.embedders.1.model.transformer.resblocks.9.mlp.c_proj.bias";
const REFINER: &str = "conditioner.embedders.0.model.transformer.resblocks.9.mlp.c_proj.bias";

#[test]
fn a_file_says_what_kind_of_model_it_holds() {
    let dir = tempfile::tempdir().unwrap();
    let facts = |width, channels, more: &[&str], stated| {
        let file = ModelFile::open(&marked(dir.path(), width, channels, more), stated).unwrap();
        assert_eq!(file.files(), [file.path()]);
        (*file.facts(), file.scheduler().map(|scheduler| scheduler.class_name().unwrap().to_owned()))
    };
    let (sd1, solver) = facts(768, 4, &[], None);
    assert_eq!((sd1.family, sd1.prediction, sd1.inpainting), (Family::Sd1, Some(Prediction::Epsilon), false));
    assert_eq!((sd1.native_size, sd1.latent_channels, sd1.downsampling), (Some((512, 512)), 4, 8));
    assert_eq!((sd1.zeros_for_no_negative, solver.unwrap()), (false, "PNDMScheduler".into()));
    assert!(facts(768, 9, &[], None).0.inpainting);
    assert_eq!(facts(768, 4, &["v_pred"], None).0.prediction, Some(Prediction::V));

    let (unsaid, solver) = facts(1024, 4, &[], None);
    assert_eq!((unsaid.family, unsaid.prediction), (Family::Sd2, None));
    assert!(solver.unwrap_err().to_string().contains("model.safetensors"));
    let (v, solver) = facts(1024, 4, &[], Some(Prediction::V));
    assert_eq!((v.prediction, v.native_size), (Some(Prediction::V), Some((768, 768))));
    assert_eq!(solver.unwrap(), "DDIMScheduler");
    let (noise, _) = facts(1024, 4, &[], Some(Prediction::Epsilon));
    assert_eq!((noise.prediction, noise.native_size), (Some(Prediction::Epsilon), Some((512, 512))));

    let (xl, solver) = facts(2048, 4, &[XL], None);
    assert_eq!((xl.family, xl.prediction, xl.distilled), (Family::Xl, Some(Prediction::Epsilon), None));
    assert_eq!((xl.native_size, xl.zeros_for_no_negative), (Some((1024, 1024)), true));
    assert_eq!(solver.unwrap(), "EulerDiscreteScheduler");
    assert_eq!(facts(2048, 4, &[XL, "v_pred"], None).0.prediction, Some(Prediction::V));
}

#[test]
fn a_file_whose_noise_levels_end_in_noise_alone_is_walked_from_there() {
    let dir = tempfile::tempdir().unwrap();
    let noisiest = |more: &[&str]| {
        let file = ModelFile::open(&marked(dir.path(), 2048, 4, &[&[XL, "v_pred"], more].concat()), None).unwrap();
        format!("{:?}", file.scheduler().unwrap().scheduler(None).unwrap())
    };
    assert_ne!(noisiest(&[]), noisiest(&["ztsnr"]));
}

#[test]
fn files_that_are_no_whole_model_are_refused_by_what_they_are() {
    let dir = tempfile::tempdir().unwrap();
    let refusal = |path: &Path, stated| {
        let error = ModelFile::open(path, stated).unwrap_err().to_string();
        assert!(error.contains(path.file_name().unwrap().to_str().unwrap()), "{error}");
        error
    };
    let refused = |width, channels, more: &[&str]| refusal(&marked(dir.path(), width, channels, more), None);
    assert!(refused(1280, 4, &[REFINER]).contains("refiner"));
    assert!(refused(768, 8, &[]).contains("`in_channels` is 8"));
    assert!(refused(768, 4, &["control_model.time_embed.0.weight"]).contains("a ControlNet"));
    assert!(refused(768, 4, &["edm_vpred.sigma_max"]).contains("CosXL"));
    let v = marked(dir.path(), 2048, 4, &[XL, "v_pred"]);
    assert!(refusal(&v, Some(Prediction::Epsilon)).contains("remove `prediction`"));

    let mut headless = tensors("sd1", &model("sd1"));
    headless.retain(|name, _| !name.starts_with("first_stage_model."));
    let error = ModelFile::open_as(&written(dir.path(), &headless), &shapes(&model("sd1")), None).unwrap_err();
    assert!(error.to_string().contains("no autoencoder"), "{error}");
    let lora = BTreeMap::from([("lora_unet_mid.lora_down.weight".to_owned(), (Dtype::F32, vec![1], vec![0; 4]))]);
    assert!(refusal(&written(dir.path(), &lora), None).contains("a LoRA"));

    let cut = marked(dir.path(), 768, 4, &[]);
    let bytes = fs::read(&cut).unwrap();
    fs::write(&cut, &bytes[..bytes.len() / 2]).unwrap();
    assert!(refusal(&cut, None).contains("fetch this file again"));
    fs::write(&cut, "version https://git-lfs.github.com/spec/v1\noid sha256:0\n").unwrap();
    assert!(refusal(&cut, None).contains("git lfs pull"));
    let pickle = dir.path().join("model.ckpt");
    fs::write(&pickle, b"PK\x03\x04").unwrap();
    assert!(refusal(&pickle, None).contains("convert it"));
    let index = dir.path().join("model_index.json");
    fs::write(&index, "{}").unwrap();
    assert!(refusal(&index, None).contains("not a model"));
}

#[test]
fn a_tensor_that_is_missing_or_of_another_shape_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let folder = whole("sd1");
    let name = "model.diffusion_model.input_blocks.1.0.in_layers.2.weight";
    let refused = |change: &dyn Fn(&mut BTreeMap<String, Raw>)| {
        let mut tensors = tensors("sd1", folder.path());
        change(&mut tensors);
        let file = ModelFile::open_as(&written(dir.path(), &tensors), &shapes(folder.path()), None).unwrap();
        let error = StableDiffusion::load(Box::new(file), &Additions::default(), CPU, DType::F32).unwrap_err();
        assert!(error.to_string().contains("model.safetensors"), "{error}");
        error.to_string()
    };
    assert!(refused(&|tensors| tensors.get_mut(name).unwrap().1.swap(0, 2)).contains(name));
    assert!(refused(&|tensors| drop(tensors.remove(name))).contains("down_blocks.0.resnets.0.conv1.weight"));
}

#[test]
fn a_job_names_a_file_as_it_names_a_folder() {
    let dir = tempfile::tempdir().unwrap();
    let path = marked(dir.path(), 1024, 4, &[]);
    let job = |path: &Path, prediction| StableDiffusionConfig {
        prediction,
        ..StableDiffusionConfig::at(path.display().to_string())
    };
    let said = job(&path, Some(StatedPrediction::VPrediction));
    assert_eq!((said.files().unwrap(), said.id()), (vec![path.clone()], "model".into()));
    assert!(job(&path, None).files().unwrap_err().to_string().contains("say it as `prediction`"));
    let absent = dir.path().join("absent.safetensors");
    assert!(job(&absent, None).source().unwrap_err().to_string().contains("no such file"));
    let error = job(&model("sd2"), Some(StatedPrediction::VPrediction)).source().unwrap_err().to_string();
    assert!(error.contains("scheduler_config.json") && error.contains("remove it"), "{error}");
    let read: StableDiffusionConfig =
        serde_json::from_value(json!({"path": "x.safetensors", "prediction": "v-prediction"})).unwrap();
    assert_eq!(read.prediction, said.prediction);
}
