//! Recognisers and the gate `safety` on the small models of `tests/golden/recognise`, against onnxruntime and PyTorch.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::path::{Path, PathBuf};

use evenset_core::Group;
use evenset_nn::classifier::ImageSet;
use evenset_verify::Candidate;
use evenset_verify::gates::{Gate, Looks, Ruling, Safety, SafetyConfig, Shown};
use evenset_verify::recognise::{Recogniser, RecogniserConfig, open};
use serde_json::{Value, json};

fn golden(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden/recognise").join(name)
}

fn strings(names: &[&str]) -> Vec<String> {
    names.iter().map(|&name| name.to_owned()).collect()
}

fn attributes() -> Vec<(String, Vec<String>)> {
    vec![
        ("kind".into(), strings(&["coat", "bag", "shoe", "hat"])),
        ("colour".into(), strings(&["red", "green", "blue"])),
    ]
}

fn opened(config: Value) -> Result<Box<dyn Recogniser>, String> {
    let config: RecogniserConfig = serde_json::from_value(config).unwrap();
    open(&config, &attributes()).map_err(|error| error.to_string())
}

fn refusal(config: Value) -> String {
    match opened(config) {
        Ok(_) => panic!("nothing was refused"),
        Err(error) => error,
    }
}

/// Small pictures, each another one.
fn pictures(count: usize, width: usize, height: usize) -> ImageSet {
    let pixels = (0..count * width * height * 3).map(|i| ((i * 7 + i / 5 * 31 + i / 97 * 13) % 256) as u8);
    ImageSet::new(width, height, pixels.collect()).unwrap()
}

fn clip(prompts: Value) -> Value {
    json!({"type": "clip", "path": golden("clip"), "prompts": prompts})
}

#[test]
fn clip_covers_the_attributes_that_have_sentences_and_every_image_stands_alone() {
    for model in ["clip", "clip-f16", "siglip"] {
        let config = json!({
            "type": "clip",
            "path": golden(model),
            "prompts": {"kind": ["a photo of a {value}", "a drawing of the {value}"], "colour": "something {value}"},
            "words": {"kind": {"hat": "bright café"}},
        });
        let recogniser = opened(config).unwrap();
        let images = pictures(19, 40, 33);
        let all = recogniser.recognise(&images).unwrap();
        let shapes: Vec<_> = all.iter().map(|of| (of.name.as_str(), of.classes, of.probabilities.len())).collect();
        assert_eq!(shapes, [("colour", 3, 57), ("kind", 4, 76)]);
        for prediction in &all {
            for i in 0..images.len() {
                assert!((prediction.row(i).iter().sum::<f32>() - 1.0).abs() < 1e-5);
            }
            assert_ne!(prediction.row(0), prediction.row(1));
        }
        for rows in [vec![0], vec![17, 18], vec![5, 0, 18]] {
            let some = recogniser.recognise(&images.select(rows.iter().copied())).unwrap();
            for (some, all) in some.iter().zip(&all) {
                let expected: Vec<f32> = rows.iter().flat_map(|&row| all.row(row)).copied().collect();
                assert_eq!(some.probabilities, expected, "{model} {rows:?}");
            }
        }
        assert!(recogniser.recognise(&pictures(0, 4, 4)).unwrap().iter().all(|of| of.probabilities.is_empty()));
    }
}

#[test]
fn a_clip_that_does_not_fit_the_job_or_is_not_there_is_refused() {
    assert!(refusal(clip(json!({"color": "a {value}"}))).contains("did you mean `colour`"));
    assert!(refusal(clip(json!({"colour": "a coat"}))).contains("`{value}`"));
    let nowhere = json!({"type": "clip", "path": "nowhere", "prompts": {"colour": "a {value}"}});
    assert!(refusal(nowhere).contains("nowhere"));
    assert!(refusal(json!({"type": "trained"})).contains("trained on the job's real images"));
}

fn candidate(request_index: usize, images: &ImageSet, i: usize) -> Candidate {
    Candidate {
        request_index,
        group: Group::new([("colour", "red")]).unwrap(),
        width: images.width() as u32,
        height: images.height() as u32,
        flaw: None,
        rgb: images.image(i).to_vec(),
    }
}

#[test]
fn the_safety_gate_judges_each_candidate_by_itself() {
    for folder in [golden("safety"), golden("safety").join("safety_checker")] {
        let config: SafetyConfig = serde_json::from_value(json!({"model": folder})).unwrap();
        let gate = match Safety::open(&config) {
            Ok(gate) => gate,
            Err(error) => {
                let error = error.to_string();
                assert!(folder.ends_with("safety_checker") && error.contains("no safety checker here"), "{error}");
                continue;
            }
        };
        let images = pictures(5, 50, 40);
        let candidates: Vec<Candidate> = (0..5).map(|i| candidate(i, &images, i)).collect();
        let none = Looks::default();
        let check = |candidates: Vec<&Candidate>| {
            gate.check(&Shown { candidates, looks: Looks::default(), earlier: &none, earlier_candidates: &[] }).unwrap()
        };
        let all = check(candidates.iter().collect());
        assert_eq!((gate.name(), all.len()), ("safety", 5));
        for (outcome, candidate) in all.iter().zip(&candidates) {
            assert_eq!(check(vec![candidate])[0], *outcome);
            match &outcome.ruling {
                Ruling::Keep => assert!(outcome.score.unwrap() <= 0.0),
                Ruling::Drop(reason) => {
                    assert!(outcome.score.unwrap() > 0.0 && reason.starts_with("safety: near unsafe concept"))
                }
            }
        }
        assert!(check(Vec::new()).is_empty());
        // Candidates of several sizes are judged one by one.
        let other = pictures(1, 33, 64);
        let mixed = [candidate(0, &images, 0), candidate(1, &other, 0)];
        assert_eq!(check(mixed.iter().collect())[0], all[0]);
    }
    for config in [
        json!({}),
        json!({"model": "a", "onnx": {"path": "b", "classes": [], "unsafe": [], "input": {"width": 1, "height": 1}, "output": "logits"}}),
    ] {
        let config: SafetyConfig = serde_json::from_value(config).unwrap();
        assert!(Safety::open(&config).unwrap_err().to_string().contains("needs one model"));
    }
}

#[cfg(not(feature = "onnx"))]
#[test]
fn a_build_without_onnx_says_how_to_get_it() {
    let config = json!({"type": "onnx", "path": "a.onnx", "attribute": "colour", "classes": ["red"],
                        "input": {"width": 1, "height": 1}, "output": "logits"});
    assert!(refusal(config).contains("--features onnx"));
}

#[cfg(feature = "onnx")]
mod onnx {
    use candle_core::{D, Device, Tensor};
    use evenset_nn::ops::softmax;

    use super::*;

    /// The pictures of the golden files.
    fn images(io: &std::collections::HashMap<String, Tensor>) -> ImageSet {
        let images = &io["images"];
        let (_, height, width, _) = images.dims4().unwrap();
        ImageSet::new(width, height, images.flatten_all().unwrap().to_vec1().unwrap()).unwrap()
    }

    fn io() -> std::collections::HashMap<String, Tensor> {
        candle_core::safetensors::load(golden("onnx/io.safetensors"), &Device::Cpu).unwrap()
    }

    fn config(name: &str) -> Value {
        json!({
            "type": "onnx", "path": golden("onnx").join(format!("{name}.onnx")), "attribute": "kind",
            "classes": ["hat", "coat", "bag", "shoe"],
            "input": {"width": 12, "height": 10, "mean": [0.5, 0.4, 0.3], "std": [0.2, 0.25, 0.3]},
            "output": "logits",
        })
    }

    fn with(name: &str, key: &str, value: Value) -> Value {
        let mut config = config(name);
        match config["input"].get(key).is_some() || ["layout", "colour", "scale"].contains(&key) {
            true => config["input"][key] = value,
            false => config[key] = value,
        }
        config
    }

    #[test]
    fn every_form_of_a_batch_gives_onnxruntimes_probabilities_in_the_jobs_order() {
        let io = io();
        let images = images(&io);
        let configs = [
            ("symbolic", config("symbolic")),
            ("one", config("one")),
            ("fixed", config("fixed")),
            ("nhwc", with("nhwc", "layout", json!("nhwc"))),
            ("shares", with("shares", "output", json!("probabilities"))),
            ("bytes", {
                let mut config = with("bytes", "output_name", json!("logits"));
                config["input"] = json!({"width": 12, "height": 10, "scale": 1.0});
                config
            }),
        ];
        for (name, config) in configs {
            let recogniser = opened(config).unwrap();
            let all = recogniser.recognise(&images).unwrap();
            assert_eq!((all.len(), all[0].name.as_str(), all[0].classes), (1, "kind", 4));
            let expected = match name {
                "shares" => io[name].clone(),
                _ => softmax(&io[name]).unwrap(),
            };
            assert_eq!(expected.dim(D::Minus1).unwrap(), 4);
            for (i, expected) in expected.to_vec2::<f32>().unwrap().iter().enumerate() {
                // The job's order is coat, bag, shoe, hat; the model's begins with hat.
                let expected = [expected[1], expected[2], expected[3], expected[0]];
                for (found, expected) in all[0].row(i).iter().zip(expected) {
                    assert!((found - expected).abs() < 1e-5, "{name} {i}: {found} {expected}");
                }
                let alone = recogniser.recognise(&images.select([i])).unwrap();
                assert_eq!(alone[0].probabilities, all[0].row(i), "{name} {i}");
            }
            assert!(recogniser.recognise(&pictures(2, 31, 17)).unwrap()[0].probabilities.len() == 8);
        }
    }

    #[test]
    fn a_file_that_cannot_be_run_is_refused_with_what_is_wrong() {
        for (config, expected) in [
            (config("unknown"), vec!["unknown.onnx", "com.example.FrobnicateRelu"]),
            (config("external"), vec!["external.onnx", "`w1` lies in another file"]),
            (config("huge"), vec!["huge.onnx", "`w1` claims the shape"]),
            (config("cut"), vec!["cut.onnx"]),
            (config("nowhere"), vec!["nowhere.onnx"]),
            (config("bytes"), vec!["several outputs", "features, logits"]),
            (with("bytes", "output_name", json!("other")), vec!["no output `other`", "features, logits"]),
            (with("one", "layout", json!("nhwc")), vec!["its input is [1, 3, 10, 12]", "[batch, 10, 12, 3]"]),
            (with("one", "width", json!(32)), vec!["its input is [1, 3, 10, 12]", "[batch, 3, 10, 32]"]),
            (with("one", "mean", json!([0.5])), vec!["`mean` has 1"]),
            (with("one", "colour", json!("grey")), vec!["`mean` has 3 numbers; write 1"]),
            (with("one", "classes", json!(["coat", "bag", "shoe", "cap"])), vec!["no class for `hat`", "`cap`"]),
            (with("one", "classes", json!(["coat", "bag", "shoe"])), vec!["no class for `hat`"]),
            (with("one", "attribute", json!("kinds")), vec!["did you mean `kind`"]),
            (with("one", "sha256", json!("00")), vec!["its SHA-256 is", "not 00"]),
            (with("one", "path", json!(golden("onnx"))), vec!["name the .onnx file itself"]),
        ] {
            let error = refusal(config);
            assert!(expected.iter().all(|part| error.contains(part)), "{error}: {expected:?} expected");
        }
        let mut wrong = config("one");
        wrong["attribute"] = json!("colour");
        wrong["classes"] = json!(["red", "green", "blue"]);
        let error = refusal(wrong);
        assert!(error.contains("its output is [1, 4], which is not [1, 3]"), "{error}");
    }

    #[test]
    fn outputs_that_are_not_what_the_job_says_are_errors_and_not_probabilities() {
        let io = io();
        let asked = |config| opened(config).unwrap().recognise(&images(&io)).unwrap_err().to_string();
        let error = asked(config("nan"));
        assert!(error.contains("nan.onnx") && error.contains("not finite"), "{error}");
        let error = asked(with("one", "output", json!("probabilities")));
        assert!(error.contains("write `output: logits`"), "{error}");
    }

    #[test]
    fn a_file_cut_anywhere_is_an_error_and_never_a_panic() {
        let whole = std::fs::read(golden("onnx/symbolic.onnx")).unwrap();
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("cut.onnx");
        for length in (0..whole.len()).step_by(61) {
            std::fs::write(&path, &whole[..length]).unwrap();
            refusal(with("one", "path", json!(path)));
        }
    }

    #[test]
    fn the_right_hash_is_accepted() {
        use sha2::{Digest, Sha256};
        let bytes = std::fs::read(golden("onnx/one.onnx")).unwrap();
        let hash: String = Sha256::digest(bytes).iter().map(|byte| format!("{byte:02X}")).collect();
        assert!(opened(with("one", "sha256", json!(hash))).is_ok());
    }

    #[test]
    fn a_classifier_whose_classes_are_unsafe_is_a_safety_gate() {
        let io = io();
        let images = images(&io);
        let gate = |unsafe_classes: Value, threshold: f64| {
            let mut onnx = config("symbolic");
            onnx.as_object_mut().unwrap().retain(|key, _| key != "type" && key != "attribute");
            onnx["unsafe"] = unsafe_classes;
            onnx["threshold"] = json!(threshold);
            let config: SafetyConfig = serde_json::from_value(json!({"onnx": onnx})).unwrap();
            Safety::open(&config).map_err(|error| error.to_string())
        };
        let expected = softmax(&io["symbolic"]).unwrap().to_vec2::<f32>().unwrap();
        let found = gate(json!(["bag", "hat", "bag"]), 0.5).unwrap().judge(&images).unwrap();
        for (outcome, expected) in found.iter().zip(&expected) {
            let total = f64::from(expected[0] + expected[2]);
            assert!((outcome.score - total).abs() < 1e-5);
            assert_eq!(outcome.ruling == Ruling::Keep, total < 0.5);
        }
        let dropped = gate(json!(["hat"]), 0.0).unwrap().judge(&images).unwrap();
        assert!(
            dropped.iter().all(
                |outcome| matches!(&outcome.ruling, Ruling::Drop(reason) if reason.starts_with("safety: hat seen"))
            )
        );
        assert!(gate(json!(["hats"]), 0.5).unwrap_err().contains("did you mean `hat`"));
        assert!(gate(json!([]), 0.5).unwrap_err().contains("names no class"));
        assert!(gate(json!(["hat"]), 1.5).unwrap_err().contains("threshold 1.5"));
    }
}
