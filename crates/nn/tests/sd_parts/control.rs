//! ControlNets of both layouts, and UNets that listen to them.

use candle_core::Tensor;
use evenset_nn::models::{ControlNetConfig, ControlNetModel, ControlResiduals, LoadOptions, UNet2DConditionModel};
use evenset_nn::no_grad;
use evenset_nn::ops::with_candle;

use crate::{CPU, Tensors, assert_near, bits, conditions, golden, parts, tensors};

const MODELS: [(&str, &str); 2] = [("controlnet-sd1", "sd1"), ("controlnet-sdxl", "sdxl")];

/// Some of the images.
fn rows(io: &Tensors, start: usize, count: usize) -> Tensors {
    io.iter().map(|(name, x)| (name.clone(), x.narrow(0, start, count).unwrap())).collect()
}

fn inputs(name: &str, base: &str) -> Tensors {
    let mut io = tensors(&golden(base).join("io.safetensors"));
    io.extend(tensors(&parts(name).join("io.safetensors")));
    io
}

fn run(control: &ControlNetModel, unet: &UNet2DConditionModel, io: &Tensors) -> (ControlResiduals, Tensor) {
    no_grad(|| {
        let conditions = conditions(io);
        let said = control.forward(&io["x"], &io["timesteps"], &conditions, &io["image"], 0.8).unwrap();
        let out = unet.forward_with(&io["x"], &io["timesteps"], &conditions, Some(&said), None).unwrap();
        (said, out)
    })
}

fn models(name: &str, base: &str) -> (ControlNetModel, UNet2DConditionModel) {
    let options = LoadOptions::default();
    let control = ControlNetModel::from_pretrained(&parts(name), CPU, options).unwrap();
    (control, UNet2DConditionModel::from_pretrained(&golden(base), CPU, options).unwrap())
}

#[test]
fn residuals_and_the_steered_result_are_diffusers_at_batch_one_and_three() {
    for (name, base) in MODELS {
        let (control, unet) = models(name, base);
        let io = inputs(name, base);
        let (_, all) = run(&control, &unet, &io);
        for (start, count) in [(0, 3), (0, 1), (2, 1)] {
            let io = rows(&io, start, count);
            let (said, out) = run(&control, &unet, &io);
            assert_near(&format!("{name}, out"), &out, &io["out"]);
            assert_near(&format!("{name}, mid"), &said.mid.to_nchw().unwrap(), &io["mid"]);
            for (i, found) in said.down.iter().enumerate() {
                assert_near(&format!("{name}, down {i}"), &found.to_nchw().unwrap(), &io[&format!("down.{i}")]);
            }
            assert!(!io.contains_key(&format!("down.{}", said.down.len())), "{name}: a residual is missing");
            assert_eq!(
                bits(&out),
                bits(&all.narrow(0, start, count).unwrap()),
                "{name}: an image depends on its batch"
            );
        }
        let (_, slow) = with_candle(|| run(&control, &unet, &io));
        assert_near(&format!("{name}, other devices"), &slow, &io["out"]);
    }
}

#[test]
fn two_controlnets_add_up_and_a_scale_of_zero_says_nothing() {
    let (control, unet) = models("controlnet-sd1", "sd1");
    let io = inputs("controlnet-sd1", "sd1");
    let conditions = conditions(&io);
    no_grad(|| {
        let said = |scale| control.forward(&io["x"], &io["timesteps"], &conditions, &io["image"], scale).unwrap();
        let sum = said(0.3).add(&said(0.5)).unwrap();
        let out = unet.forward_with(&io["x"], &io["timesteps"], &conditions, Some(&sum), None).unwrap();
        assert_near("a sum", &out, &io["out"]);
        let plain = unet.forward(&io["x"], &io["timesteps"], &conditions).unwrap();
        let none = unet.forward_with(&io["x"], &io["timesteps"], &conditions, Some(&said(0.0)), None).unwrap();
        assert_eq!(crate::values(&plain), crate::values(&none));
    });
}

#[test]
fn what_does_not_fit_is_an_error_and_no_panic() {
    let (control, unet) = models("controlnet-sd1", "sd1");
    let io = inputs("controlnet-sd1", "sd1");
    let conditions = conditions(&io);
    no_grad(|| {
        let image = io["image"].narrow(3, 0, 20).unwrap();
        let error = control.forward(&io["x"], &io["timesteps"], &conditions, &image, 1.0).unwrap_err().to_string();
        assert!(error.contains("2 times as high"), "{error}");
        let grey = io["image"].narrow(1, 0, 1).unwrap();
        assert!(control.forward(&io["x"], &io["timesteps"], &conditions, &grey, 1.0).is_err());
        let mut said = control.forward(&io["x"], &io["timesteps"], &conditions, &io["image"], 1.0).unwrap();
        said.down.pop();
        let error = unet.forward_with(&io["x"], &io["timesteps"], &conditions, Some(&said), None).unwrap_err();
        assert!(error.to_string().contains("another UNet"), "{error}");
        let (other, _) = models("controlnet-sdxl", "sdxl");
        let xl = inputs("controlnet-sdxl", "sdxl");
        let conditions_xl = crate::conditions(&xl);
        let said = other.forward(&xl["x"], &xl["timesteps"], &conditions_xl, &xl["image"], 1.0).unwrap();
        assert!(unet.forward_with(&io["x"], &io["timesteps"], &conditions, Some(&said), None).is_err());
    });
}

#[test]
fn keys_and_values_that_no_controlnet_has_are_refused_by_name() {
    let text = std::fs::read_to_string(parts("controlnet-sd1/config.json")).unwrap();
    let config: serde_json::Map<String, serde_json::Value> = serde_json::from_str(&text).unwrap();
    for (key, value) in [
        ("colour", serde_json::json!(3)),
        ("global_pool_conditions", true.into()),
        ("controlnet_conditioning_channel_order", "gbr".into()),
        ("conditioning_embedding_out_channels", serde_json::json!([])),
        ("conditioning_embedding_out_channels", serde_json::json!([0])),
        ("conditioning_channels", 0.into()),
        ("class_embed_type", "simple_projection".into()),
        ("mid_block_type", serde_json::Value::Null),
        ("addition_embed_type", "text".into()),
        ("num_attention_heads", 4.into()),
        ("encoder_hid_dim", 8.into()),
        ("_class_name", "UNet2DConditionModel".into()),
    ] {
        let mut config = config.clone();
        config.insert(key.into(), value);
        let text = serde_json::Value::Object(config).to_string();
        let message = ControlNetConfig::from_json(&text).unwrap_err().to_string();
        assert!(message.starts_with(&format!("`{key}`")), "{key}: {message}");
    }
}
