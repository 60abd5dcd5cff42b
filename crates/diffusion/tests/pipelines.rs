//! Whole drawings against diffusers' pipelines, for the same noise. `tests/golden/make_pipelines.py` made them.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::path::{Path, PathBuf};

use candle_core::{DType, Device, Tensor};
use evenset_core::{Seed, Silent};
use evenset_diffusion::stable_diffusion::{
    Additions, ControlSettings, DeepCache, DrawSettings, ModelFolder, Noise, Prompt, PromptRequest, StableDiffusion,
    StableDiffusionConfig, Start, Wanted,
};
use evenset_nn::LoraStack;
use evenset_nn::models::Variant;
use serde::Deserialize;

const CPU: &Device = &Device::Cpu;
const HEIGHT: usize = 24;
const WIDTH: usize = 16;
const PROMPTS: [&str; 3] = ["a red coat on a beach", "portrait of a woman, oil on canvas", ""];
const NEGATIVES: [&str; 3] = ["blurry", "", "a man standing"];

#[derive(Debug, Deserialize)]
struct Case {
    folder: String,
    kind: String,
    solver: Option<String>,
    steps: usize,
    guidance: f64,
    rescale: f64,
    batch: usize,
    strength: f64,
    /// DeepCache's interval and branch.
    deep_cache: Option<(usize, usize)>,
}

impl Case {
    fn settings(&self, model: &StableDiffusion) -> DrawSettings {
        DrawSettings {
            height: HEIGHT,
            width: WIDTH,
            scheduler: self.solver.as_ref().map(|name| serde_json::from_value(name.clone().into()).unwrap()),
            steps: self.steps,
            guidance: self.guidance,
            guidance_rescale: self.rescale,
            deep_cache: self.deep_cache.map(|(interval, branch)| DeepCache { interval, branch }),
            // The first all the way, the second in the middle of the walk.
            controls: match self.folder.as_str() {
                "control" => vec![
                    ControlSettings { scale: 0.9, ..ControlSettings::default() },
                    ControlSettings { scale: 0.5, interval: [0.2, 0.8] },
                ],
                _ => Vec::new(),
            },
            ..DrawSettings::of(&model.components().facts)
        }
    }

    fn start(&self, image: usize) -> Option<Start> {
        let pixels = picture(image);
        let free = |i: usize| if i / WIDTH >= 10 && i % WIDTH >= 5 { 255 } else { 0 };
        let mask = (self.kind == "inpaint").then(|| (0..HEIGHT * WIDTH).map(free).collect());
        (self.kind != "text").then_some(Start { pixels, strength: self.strength, mask })
    }

    /// The images of the case, `[batch, 3, height, width]`.
    fn draw(&self, model: &StableDiffusion, settings: &DrawSettings) -> Tensor {
        let components = model.components();
        let texts: Vec<_> = (0..self.batch)
            .map(|i| Prompt::new(PROMPTS[i]).without(NEGATIVES[i]))
            .map(|prompt| components.text.encode(&prompt, settings.prompts, true).unwrap())
            .collect();
        let starts: Vec<Option<Start>> = (0..self.batch).map(|i| self.start(i)).collect();
        let nets = settings.controls.len();
        let controls: Vec<Vec<Vec<u8>>> = (0..self.batch).map(|i| vec![picture(i); nets]).collect();
        let wanted: Vec<Wanted<'_>> = texts
            .iter()
            .zip(starts.iter().zip(&controls))
            .map(|(text, (start, controls))| Wanted { text, start: start.as_ref(), guidance: self.guidance, controls })
            .collect();
        let shape = (self.batch, components.facts.latent_channels, HEIGHT / 2, WIDTH / 2);
        let mut noise = |which: Noise| {
            let number = match which {
                Noise::Start => 0,
                Noise::Posterior => 1,
                // diffusers does not encode an image that it makes nothing of.
                Noise::MaskedPosterior => {
                    if self.strength < 1.0 {
                        2
                    } else {
                        1
                    }
                }
                Noise::Step(i) => 3 + i,
            };
            Ok(wave(shape, number))
        };
        let scheduler = model.scheduler(settings, self.kind == "inpaint").unwrap();
        let latents = components.draw(&scheduler, &wanted, settings, &mut noise, &Silent).unwrap();
        components.decode(&latents).unwrap()
    }
}

/// The script's picture of this number.
fn picture(image: usize) -> Vec<u8> {
    let size = HEIGHT * WIDTH * 3;
    (image * size..(image + 1) * size).map(|i| (i * 37 % 256) as u8).collect()
}

/// The script's stand-in for noise: number `i` of kind `which`.
fn wave(shape: (usize, usize, usize, usize), which: usize) -> Tensor {
    let value = |i: usize| {
        let i = i as f64;
        (2f64.sqrt() * (i * 2.399963 + i * i * 0.0137 + which as f64 * 1.7).sin()) as f32
    };
    let n = shape.0 * shape.1 * shape.2 * shape.3;
    Tensor::from_vec((0..n).map(value).collect(), shape, CPU).unwrap()
}

fn golden(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden").join(name)
}

/// The folder of a case; models of nine channels and of latent consistency are put together from two.
fn folder(name: &str, scratch: &Path) -> PathBuf {
    if !["inpaint", "lcm"].contains(&name) {
        return golden("prompts").join(name).join("model");
    }
    let dir = scratch.join(name);
    copy_into(&golden("prompts/sd1/model"), &dir);
    copy_into(&golden("pipelines").join(name), &dir.join("unet"));
    if name == "lcm" {
        let renamed = |file: &str, from: &str, to: &str| {
            let text = fs::read_to_string(dir.join(file)).unwrap();
            assert!(text.contains(from), "{file}: {text}");
            fs::write(dir.join(file), text.replace(from, to)).unwrap();
        };
        renamed("model_index.json", "StableDiffusionPipeline", "LatentConsistencyModelPipeline");
        renamed("model_index.json", "PNDMScheduler", "LCMScheduler");
        renamed("scheduler/scheduler_config.json", "PNDMScheduler", "LCMScheduler");
    }
    dir
}

fn copy_into(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        match entry.file_type().unwrap().is_dir() {
            true => copy_into(&entry.path(), &to.join(entry.file_name())),
            false => drop(fs::copy(entry.path(), to.join(entry.file_name())).unwrap()),
        }
    }
}

fn load(name: &str) -> StableDiffusion {
    let scratch = tempfile::tempdir().unwrap();
    let additions = match name {
        "control" => Additions { controls: vec![golden("pipelines/control"); 2], ..Additions::default() },
        "small-decoder" => Additions { small_decoder: Some(golden("vae-tiny")), ..Additions::default() },
        "lora" => {
            let loras = LoraStack::open([(golden("pipelines/lora.safetensors"), 0.8)]).unwrap();
            Additions { loras, ..Additions::default() }
        }
        _ => Additions::default(),
    };
    let base = if ["control", "lora", "small-decoder"].contains(&name) { "sd1" } else { name };
    let folder = ModelFolder::open(&folder(base, scratch.path()), Variant::Whole).unwrap();
    StableDiffusion::load(Box::new(folder), &additions, CPU, DType::F32).unwrap()
}

/// `|found - expected| / |expected|` in the L2 norm.
fn relative_error(found: &Tensor, expected: &Tensor) -> f64 {
    let values = |x: &Tensor| x.flatten_all().unwrap().to_vec1::<f32>().unwrap();
    let norm = |x: Vec<f32>| x.into_iter().map(|x| f64::from(x).powi(2)).sum::<f64>().sqrt();
    let (found, expected) = (values(found), values(expected));
    norm(found.iter().zip(&expected).map(|(a, b)| a - b).collect()) / norm(expected)
}

#[test]
fn pipelines_draw_what_diffusers_draws_for_the_same_noise() {
    let cases: Vec<Case> = serde_json::from_slice(&fs::read(golden("pipelines/cases.json")).unwrap()).unwrap();
    let images: HashMap<String, Tensor> =
        candle_core::safetensors::load(golden("pipelines/images.safetensors"), CPU).unwrap();
    assert!(cases.len() >= 117);
    let mut models = BTreeMap::new();
    let (mut worst, mut wrong) = (0f64, Vec::new());
    for (i, case) in cases.iter().enumerate() {
        let model = models.entry(case.folder.clone()).or_insert_with(|| load(&case.folder));
        let found = case.draw(model, &case.settings(model));
        let expected = &images[&i.to_string()];
        assert_eq!(found.dims(), expected.dims());
        let error = relative_error(&found, expected);
        worst = worst.max(error);
        if error.is_nan() || error > 1e-3 {
            wrong.push(format!("{i} {case:?}: {error:.1e}"));
        }
    }
    println!("largest relative error: {worst:.1e}");
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

fn request(prompt: &str, seed: u64) -> PromptRequest {
    PromptRequest::new(Prompt::new(prompt), Seed(seed))
}

#[test]
fn an_image_is_the_same_alone_and_beside_others_of_any_kind() {
    for family in ["sd1", "sdxl"] {
        let model = load(family);
        let settings = DrawSettings { height: 16, width: 24, steps: 3, ..DrawSettings::of(&model.components().facts) };
        let pixels: Vec<u8> = (0..16 * 24 * 3).map(|i| (i * 31 % 256) as u8).collect();
        let start = |mask| Some(Start { pixels: pixels.clone(), strength: 0.7, mask });
        let requests = [
            request("a red coat", 1),
            PromptRequest { start: start(None), ..request("a blue coat", 2) },
            PromptRequest { guidance: Some(1.0), ..request("a red coat", 3) },
            request(&"many words ".repeat(60), 4),
            PromptRequest { start: start(Some(vec![255; 16 * 24])), ..request("a bag", 5) },
            request("a blue coat", 6),
        ];
        let together = model.generate(&requests, &settings, &Silent).unwrap();
        for (request, expected) in requests.iter().zip(&together) {
            let alone = model.generate(std::slice::from_ref(request), &settings, &Silent).unwrap();
            assert!(alone[0] == *expected, "{family} {request:?}");
            assert!(expected.finite && (expected.width, expected.height) == (24, 16));
        }
        let twice = DrawSettings { guided_at_once: false, ..settings };
        assert!(model.generate(&requests, &twice, &Silent).unwrap() == together);
    }
}

#[test]
fn reused_features_belong_to_one_image_and_to_one_kind_of_call() {
    for family in ["sd1", "sdxl"] {
        let model = load(family);
        let plain = DrawSettings { height: 16, width: 24, steps: 7, ..DrawSettings::of(&model.components().facts) };
        let cached = |interval| DrawSettings { deep_cache: Some(DeepCache { interval, branch: 0 }), ..plain.clone() };
        let requests = [request("a red coat", 1), request(&"many words ".repeat(60), 2), request("a bag", 3)];
        let draw = |settings: &DrawSettings| model.generate(&requests, settings, &Silent).unwrap();
        let (every, third) = (draw(&plain), draw(&cached(3)));
        assert!(draw(&cached(1)) == every, "{family}");
        for (request, (exact, reused)) in requests.iter().zip(every.iter().zip(&third)) {
            assert!(exact != reused, "{family}: nothing was reused");
            assert!(model.generate(std::slice::from_ref(request), &cached(3), &Silent).unwrap()[0] == *reused);
        }
        // Guidance begins and ends within the walk: what was kept of a guided call is no use to an unguided one.
        let between = DrawSettings { guidance_interval: Some([0.3, 5.0]), ..cached(3) };
        assert!(draw(&between) == draw(&DrawSettings { guided_at_once: false, ..between.clone() }), "{family}");
    }
}

#[test]
fn numbers_that_are_none_are_found_behind_a_decoder_that_hides_them() {
    let folder = ModelFolder::open(&golden("prompts/sd1/model"), Variant::Whole).unwrap();
    let additions = Additions {
        loras: LoraStack::open([(golden("pipelines/lora.safetensors"), 1e30)]).unwrap(),
        small_decoder: Some(golden("vae-tiny")),
        ..Additions::default()
    };
    let model = StableDiffusion::load(Box::new(folder), &additions, CPU, DType::F32).unwrap();
    let settings = DrawSettings { height: 16, width: 24, steps: 2, ..DrawSettings::of(&model.components().facts) };
    let image = model.generate(&[request("a bag", 1)], &settings, &Silent).unwrap().remove(0);
    assert!(!image.finite);
}

#[test]
fn a_prompt_changes_what_a_mask_frees_alone() {
    for (family, seed) in [("sd1", 1), ("sdxl", 2)] {
        let model = load(family);
        let settings = DrawSettings { height: 24, width: 24, steps: 4, ..DrawSettings::of(&model.components().facts) };
        let pixels: Vec<u8> = (0..24 * 24 * 3).map(|i| (i * 31 % 256) as u8).collect();
        let drawn = |prompt, value| {
            let start = Some(Start { pixels: pixels.clone(), strength: 1.0, mask: Some(vec![value; 24 * 24]) });
            let request = PromptRequest { start, ..request(prompt, seed) };
            model.generate(&[request], &settings, &Silent).unwrap().remove(0)
        };
        assert!(drawn("a red coat", 0) == drawn("a man standing", 127), "{family}");
        assert!(drawn("a red coat", 255) != drawn("a man standing", 128), "{family}");
    }
}

#[test]
fn impossible_settings_and_starts_are_named_with_their_remedy() {
    let model = load("sd1");
    let settings = DrawSettings { height: 16, width: 24, steps: 3, ..DrawSettings::of(&model.components().facts) };
    let refusal = |settings: &DrawSettings, request: PromptRequest| {
        model.generate(&[request], settings, &Silent).unwrap_err().to_string()
    };
    let odd = DrawSettings { width: 23, ..settings.clone() };
    assert_eq!(refusal(&odd, request("a", 1)), "`width`: 23 is not a multiple of 2 up to 4096; take 24");
    let none = DrawSettings { steps: 0, ..settings.clone() };
    assert!(refusal(&none, request("a", 1)).starts_with("`steps`: 0 is not between 1 and"));
    let reused =
        |interval, branch| DrawSettings { deep_cache: Some(DeepCache { interval, branch }), ..settings.clone() };
    assert_eq!(refusal(&reused(0, 0), request("a", 1)), "`deep_cache`: an interval of 0 is not between 1 and 100");
    let deep = refusal(&reused(2, 4), request("a", 1));
    assert_eq!(deep, "`deep_cache`: branch 4 is not one of this network's, 0 to 2");
    let start = |strength, mask| Some(Start { pixels: vec![0; 16 * 24 * 3], strength, mask });
    let far = PromptRequest { start: start(1.5, None), ..request("a", 1) };
    assert_eq!(refusal(&settings, far), "`strength`: 1.5 is not above 0 and at most 1");
    let short = PromptRequest { start: start(0.5, Some(vec![0; 7])), ..request("a", 1) };
    assert_eq!(refusal(&settings, short), "`mask`: 7 bytes are no mask of 24x16");
    let weak = PromptRequest { start: start(0.1, None), ..request("a", 1) };
    assert!(refusal(&settings, weak).contains("leaves none to walk"));

    let model = golden("prompts/sd1/model").display().to_string();
    let with = |small: PathBuf| StableDiffusionConfig {
        small_decoder: Some(small.display().to_string()),
        ..StableDiffusionConfig::at(&model)
    };
    assert!(
        with(golden("vae-tiny")).files().unwrap().contains(&golden("vae-tiny/diffusion_pytorch_model.safetensors"))
    );
    let foreign = with(golden("vae")).files().unwrap_err().to_string();
    assert!(foreign.contains("config.json") && foreign.contains("AutoencoderTiny"), "{foreign}");
    let scratch = tempfile::tempdir().unwrap();
    copy_into(&golden("vae-tiny"), scratch.path());
    let config = fs::read_to_string(scratch.path().join("config.json")).unwrap();
    let sixteen = config.replace("\"latent_channels\": 4", "\"latent_channels\": 16");
    fs::write(scratch.path().join("config.json"), sixteen).unwrap();
    let other = with(scratch.path().to_owned()).files().unwrap_err().to_string();
    assert!(other.contains("latents of 16 channels") && other.contains("madebyollin/taesd"), "{other}");

    let nine = load("inpaint");
    let unmasked = nine.generate(&[request("a", 1)], &settings, &Silent).unwrap_err().to_string();
    assert!(unmasked.contains("give guides and masks"), "{unmasked}");
}
