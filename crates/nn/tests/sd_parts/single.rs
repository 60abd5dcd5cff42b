//! Single files of original names: the same bytes come out as from the folders whose weights they hold.

use std::collections::BTreeMap;
use std::fs;

use evenset_nn::models::clip::{ClipTextEncoder, TextAdditions, TextConfig};
use evenset_nn::models::{
    AutoencoderKL, AutoencoderKLConfig, LoadOptions, UNet2DConditionConfig, UNet2DConditionModel,
};
use evenset_nn::{Error, LoraStack, Part, SingleFile, no_grad};
use safetensors::Dtype;

use crate::assemble::{self, Raw, tables, written};
use crate::{CPU, bits, denoised, encoded, golden, ids, parts, tensors};

const TEXT: &str = "recognise/text-encoder";
const TEXT_EARLY: &str = "recognise/text-encoder-early";

/// The tensors of a single file, by its table.
fn assembled(name: &str) -> BTreeMap<String, Raw> {
    assemble::assembled(&tables(&parts("tables.json"))[name], &golden(""))
}

/// Tensors that training leaves in a file beside the weights.
fn with_leftovers(mut tensors: BTreeMap<String, Raw>) -> BTreeMap<String, Raw> {
    for name in
        ["alphas_cumprod", "model_ema.decay", "cond_stage_model.model.logit_scale", "first_stage_model.loss.logvar"]
    {
        tensors.insert(name.into(), (Dtype::F32, vec![1], vec![0; 4]));
    }
    tensors
}

fn unet_config(base: &str) -> UNet2DConditionConfig {
    UNet2DConditionConfig::from_json(&fs::read_to_string(golden(base).join("config.json")).unwrap()).unwrap()
}

fn open_unet(file: &SingleFile, base: &str, loras: &LoraStack) -> evenset_nn::Result<UNet2DConditionModel> {
    UNet2DConditionModel::from_single_file(file, &unet_config(base), CPU, LoadOptions::default(), loras)
}

fn open_text(file: &SingleFile, config: &TextConfig, part: Part) -> evenset_nn::Result<ClipTextEncoder> {
    ClipTextEncoder::from_single_file(file, config, CPU, LoadOptions::default(), &TextAdditions::none(part))
}

fn from_folder(name: &str) -> ClipTextEncoder {
    ClipTextEncoder::from_pretrained(&golden(name), CPU, LoadOptions::default()).unwrap()
}

#[test]
fn the_unets_of_single_files_give_the_bytes_of_their_folders() {
    for (name, base) in [("v1", "sd1"), ("xl", "sdxl")] {
        let dir = tempfile::tempdir().unwrap();
        let file = SingleFile::open(&written(dir.path(), &with_leftovers(assembled(name)))).unwrap();
        let io = tensors(&golden(base).join("io.safetensors"));
        let single = open_unet(&file, base, &LoraStack::default()).unwrap();
        let whole = UNet2DConditionModel::from_pretrained(&golden(base), CPU, LoadOptions::default()).unwrap();
        assert_eq!(bits(&denoised(&single, &io)), bits(&denoised(&whole, &io)), "{name}");
    }
}

#[test]
fn a_lora_finds_its_layers_in_a_single_file_too() {
    for (name, base, lora) in [("v1", "sd1", "kohya"), ("xl", "sdxl", "original")] {
        let dir = tempfile::tempdir().unwrap();
        let file = SingleFile::open(&written(dir.path(), &assembled(name))).unwrap();
        let io = tensors(&golden(base).join("io.safetensors"));
        let loras = LoraStack::open([(parts("lora").join(format!("{lora}.safetensors")), 1.0)]).unwrap();
        let single = open_unet(&file, base, &loras).unwrap();
        let options = LoadOptions::default();
        let whole = UNet2DConditionModel::from_pretrained_with(&golden(base), CPU, options, &loras).unwrap();
        assert_eq!(bits(&denoised(&single, &io)), bits(&denoised(&whole, &io)), "{name}");
    }
}

#[test]
fn the_autoencoder_of_a_single_file_and_one_of_its_own_give_the_bytes_of_the_folder() {
    let config = fs::read_to_string(golden("vae/config.json")).unwrap();
    let config = AutoencoderKLConfig::from_json(&config).unwrap();
    let io = tensors(&golden("vae/io.safetensors"));
    let whole = AutoencoderKL::from_pretrained(&golden("vae"), CPU, LoadOptions::default()).unwrap();
    let results = |vae: &AutoencoderKL| {
        no_grad(|| {
            let posterior = vae.encode(&io["image"]).unwrap();
            [posterior.mean, posterior.logvar, vae.decode(&io["z"]).unwrap()].map(|x| bits(&x))
        })
    };
    let v1 = assembled("v1");
    let within =
        v1.iter().filter_map(|(name, raw)| Some((name.strip_prefix("first_stage_model.")?.to_owned(), raw.clone())));
    for tensors in [with_leftovers(v1.clone()), within.collect()] {
        let dir = tempfile::tempdir().unwrap();
        let file = SingleFile::open(&written(dir.path(), &tensors)).unwrap();
        assert!(file.has_vae());
        let single = AutoencoderKL::from_single_file(&file, &config, CPU, LoadOptions::default()).unwrap();
        assert_eq!(results(&single), results(&whole));
    }
}

#[test]
fn text_encoders_under_either_naming_give_the_bytes_of_their_folders() {
    let (first, second) = (from_folder(TEXT_EARLY), from_folder(TEXT));
    let (first_config, second_config) = (*first.model().config(), *second.model().config());
    let tokens = ids(TEXT);
    let dir = tempfile::tempdir().unwrap();

    let file = SingleFile::open(&written(dir.path(), &with_leftovers(assembled("v1")))).unwrap();
    let single = open_text(&file, &first_config, Part::TextEncoder).unwrap();
    assert_eq!(bits(&encoded(&single, &tokens)), bits(&encoded(&first, &tokens)));
    assert!(open_text(&file, &second_config, Part::TextEncoder2).unwrap_err().to_string().contains("text_encoder_2"));

    let file = SingleFile::open(&written(dir.path(), &with_leftovers(assembled("xl")))).unwrap();
    let single = open_text(&file, &first_config, Part::TextEncoder).unwrap();
    assert_eq!(bits(&encoded(&single, &tokens)), bits(&encoded(&first, &tokens)));
    let single = open_text(&file, &second_config, Part::TextEncoder2).unwrap();
    no_grad(|| {
        let ((states, embeds), (whole, whole_embeds)) =
            (single.encode_xl(&tokens, 0).unwrap(), second.encode_xl(&tokens, 0).unwrap());
        assert_eq!(bits(&states), bits(&whole));
        assert_eq!(bits(&embeds), bits(&whole_embeds));
    });

    // Stable Diffusion 2 leaves the last of its layers and the projection out.
    let file = SingleFile::open(&written(dir.path(), &with_leftovers(assembled("v2")))).unwrap();
    let mut shorter = second_config;
    shorter.transformer.layers -= 1;
    let single = open_text(&file, &shorter, Part::TextEncoder).unwrap();
    no_grad(|| {
        assert_eq!(bits(&encoded(&single, &tokens)), bits(&second.model().encode(&tokens, 1).unwrap()));
        let output = single.model().forward(&tokens, false).unwrap();
        assert_eq!(bits(&single.text_embeds(&output).unwrap()), bits(&output.pooled));
    });
}

#[test]
fn files_that_are_damaged_or_something_else_are_refused_by_their_own_names() {
    let dir = tempfile::tempdir().unwrap();
    let refused = |change: &dyn Fn(&mut BTreeMap<String, Raw>)| {
        let mut tensors = assembled("v1");
        change(&mut tensors);
        let file = SingleFile::open(&written(dir.path(), &tensors)).unwrap();
        let message = open_unet(&file, "sd1", &LoraStack::default()).unwrap_err().to_string();
        assert!(message.contains("model.safetensors"), "{message}");
        message
    };
    let name = "model.diffusion_model.input_blocks.1.0.in_layers.2.weight";
    assert!(refused(&|tensors| drop(tensors.remove(name))).contains("conv1.weight"));
    assert!(refused(&|tensors| tensors.get_mut(name).unwrap().1.swap(0, 2)).contains(name));
    let extra = "model.diffusion_model.extra.weight";
    assert!(refused(&|tensors| drop(tensors.insert(extra.into(), (Dtype::F32, vec![1], vec![0; 4])))).contains(extra));

    let file = SingleFile::open(&written(dir.path(), &assembled("xl"))).unwrap();
    assert!(matches!(file.family(), Err(Error::SingleFile { .. })), "texts of width 24");
    assert!(!file.says_v_prediction());
    let mut marked = assembled("xl");
    marked.insert("v_pred".into(), (Dtype::F32, vec![0], vec![]));
    assert!(SingleFile::open(&written(dir.path(), &marked)).unwrap().says_v_prediction());
    let config = fs::read_to_string(golden("vae/config.json")).unwrap();
    let config = AutoencoderKLConfig::from_json(&config).unwrap();
    let message = AutoencoderKL::from_single_file(&file, &config, CPU, LoadOptions::default()).unwrap_err().to_string();
    assert!(message.contains("no autoencoder"), "{message}");

    let path = dir.path().join("model.ckpt");
    fs::write(&path, b"PK\x03\x04").unwrap();
    let message = SingleFile::open(&path).unwrap_err().to_string();
    assert!(message.contains("pickle") && message.contains("model.ckpt"), "{message}");
}
