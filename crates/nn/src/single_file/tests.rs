//! The published models, by the names and shapes of some of their tensors: `tests/golden/make_sd_parts.py` has them from
//! diffusers, whose own recognition and configurations they are compared with.

use serde::Deserialize;

use super::*;
use crate::original::Take;

#[derive(Deserialize)]
struct Published {
    diffusers: String,
    in_channels: usize,
    text: BTreeMap<String, serde_json::Value>,
    unet: serde_json::Value,
    vae: serde_json::Value,
    /// diffusers' name, the original name, the network and the shape in the file.
    rows: Vec<(String, String, String, Vec<usize>)>,
}

fn published() -> BTreeMap<String, Published> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden/sd-parts/published.json");
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}

fn shapes(model: &Published) -> BTreeMap<String, Vec<usize>> {
    model.rows.iter().map(|(_, name, _, shape)| (name.clone(), shape.clone())).collect()
}

fn family(shapes: &BTreeMap<String, Vec<usize>>) -> Result<Family, String> {
    recognised(&|name: &str| shapes.get(name).map(Vec::as_slice))
}

#[test]
fn every_published_model_is_recognised_as_diffusers_does() {
    for (name, model) in published() {
        let expected = match model.diffusers.as_str() {
            "v1" | "inpainting" => Base::V1,
            "v2" => Base::V2,
            "xl_base" => Base::Xl,
            "xl_refiner" => Base::XlRefiner,
            other => panic!("{other}"),
        };
        assert_eq!(family(&shapes(&model)), Ok(Family { base: expected, in_channels: model.in_channels }), "{name}");
    }
}

#[test]
fn the_configurations_are_those_of_diffusers() {
    for (name, model) in published() {
        let family = family(&shapes(&model)).unwrap();
        let unet = crate::models::UNet2DConditionConfig::from_json(&model.unet.to_string()).unwrap();
        assert_eq!(family.unet().resolve().unwrap(), unet, "{name}");
        let vae = crate::models::AutoencoderKLConfig::from_json(&model.vae.to_string()).unwrap();
        assert_eq!(family.vae().resolve().unwrap(), vae, "{name}");
        for part in [Part::TextEncoder, Part::TextEncoder2] {
            let Some(config) = model.text.get(&part.to_string()) else {
                assert_eq!(family.text_encoder(part), None, "{name} {part}");
                continue;
            };
            let transformer = family.text_encoder(part).unwrap().transformer;
            let sizes = [transformer.width, transformer.hidden, transformer.layers, transformer.heads];
            let keys = ["hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads"];
            assert_eq!(
                sizes.map(Some),
                keys.map(|key| config[key].as_u64().map(|size| size as usize)),
                "{name} {part}"
            );
            let is_quick = transformer.activation == crate::models::clip::Activation::QuickGelu;
            assert_eq!(is_quick, config["hidden_act"] == "quick_gelu", "{name} {part}");
        }
    }
}

#[test]
fn every_name_of_diffusers_leads_to_the_original_one() {
    for (model_name, model) in published() {
        let names = || model.rows.iter().map(|(_, name, ..)| name.as_str());
        for (name, original, part, _) in &model.rows {
            let view = match part.as_str() {
                "unet" => Original::unet(names()),
                "vae" => Original::vae(names()),
                "text_encoder" if original.starts_with(OPEN_CLIP) => Original::open_clip(OPEN_CLIP),
                "text_encoder" if original.starts_with(CLIP) => Original::clip(CLIP),
                "text_encoder" => Original::clip(CLIP_XL),
                _ if model_name == "refiner" => Original::open_clip(OPEN_CLIP_REFINER),
                _ => Original::open_clip(OPEN_CLIP_XL),
            };
            let places = view.places(name);
            let found = places.iter().find(|place| names().any(|name| name == place.key));
            assert_eq!(found.map(|place| &place.key), Some(original), "{model_name} {name}: {places:?}");
            assert!(view.holds(original), "{original}");
            let is_projection = name == "text_projection.weight";
            assert_eq!(
                found.map(|place| place.take == Take::Transposed),
                Some(is_projection && part != "unet"),
                "{name}"
            );
        }
    }
}

#[test]
fn other_models_are_refused_by_name() {
    let v1 = shapes(&published()["v1"]);
    let with = |changes: &[(&str, &[usize])]| {
        let mut shapes = v1.clone();
        shapes.extend(changes.iter().map(|(name, shape)| ((*name).to_owned(), shape.to_vec())));
        family(&shapes).unwrap_err()
    };
    assert!(with(&[("edm_mean", &[4])]).contains("Playground"));
    assert!(with(&[("edm_vpred.sigma_max", &[])]).contains("CosXL"));
    assert!(with(&[("controlnet_cond_embedding.conv_in.weight", &[16, 3, 3, 3])]).contains("a ControlNet"));
    assert!(with(&[("double_blocks.0.img_attn.norm.key_norm.scale", &[4])]).contains("Flux"));
    assert!(with(&[("model.diffusion_model.input_blocks.0.0.weight", &[320, 7, 3, 3])]).contains("7 channels"));
    let text = "model.diffusion_model.input_blocks.2.1.transformer_blocks.0.attn2.to_k.weight";
    assert!(with(&[(text, &[320, 640])]).contains("640"));
    assert!(family(&BTreeMap::new()).unwrap_err().contains("no whole model"));
}
