//! The conditional model as a whole, on images small enough to learn in seconds.

use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

use candle_core::Device;
use evenset_core::{Group, Progress, Seed, Silent};

use super::*;
use crate::{DiffusionError, SamplerConfig};

const SIDE: usize = 8;

/// 8x8 RGB images: `shape` is which pixels are lit, `colour` the colour of the light. `columns & blue` is missing.
fn shapes() -> TrainingSet {
    let mut set = TrainingSet {
        width: SIDE as u32,
        height: SIDE as u32,
        channels: 3,
        pixels: Vec::new(),
        attributes: vec![
            vocabulary("shape", &["rows", "plain", "columns"]),
            vocabulary("colour", &["red", "green", "blue"]),
        ],
        conditions: Vec::new(),
    };
    for i in 0..80usize {
        let (shape, colour) = ((i % 8) / 3, (i % 8) % 3);
        let bright = 180 + (i * 7 % 60) as u8;
        for y in 0..SIDE {
            for x in 0..SIDE {
                let lit = [y % 4 < 2, true, x % 4 < 2][shape];
                set.pixels.extend((0..3).map(|channel| if lit && channel == colour { bright } else { 0 }));
            }
        }
        set.conditions.push(vec![Some(shape as u32), Some(colour as u32)]);
    }
    set
}

fn vocabulary(name: &str, values: &[&str]) -> AttributeVocabulary {
    AttributeVocabulary { name: name.into(), values: values.iter().map(|value| (*value).to_owned()).collect() }
}

fn config(steps: u64) -> ConditionalConfig {
    ConditionalConfig {
        size: Size::Tiny,
        steps: Some(steps),
        batch: 8,
        checkpoint_every: 3,
        ..ConditionalConfig::default()
    }
}

fn inverted(shows: &str, noise: f64) -> Option<Inversion> {
    Some(Inversion { shows: shows.parse().unwrap(), noise })
}

fn requests(groups: &[&str]) -> Vec<ImageRequest> {
    let request = |(i, group): (usize, &&str)| ImageRequest::new(group.parse().unwrap(), Seed(i as u64));
    groups.iter().enumerate().map(request).collect()
}

/// A model whose training hardly began: its images are noise, but its own.
fn untrained(dir: &Path) -> ConditionalModel {
    train(&shapes(), &config(3), Seed(1), dir, &Silent, &Device::Cpu).unwrap()
}

/// Asks for a stop at the `n`-th check.
struct StopAt(u64, AtomicU64);

impl Progress for StopAt {
    fn begin(&self, _: &str, _: u64) {}
    fn advance(&self, _: u64) {}
    fn note(&self, _: &str) {}
    fn end(&self) {}
    fn stop_requested(&self) -> bool {
        self.1.fetch_add(1, Ordering::Relaxed) >= self.0
    }
}

fn files(dir: &Path) -> Vec<(String, Vec<u8>)> {
    let read = |entry: fs::DirEntry| (entry.file_name().into_string().unwrap(), fs::read(entry.path()).unwrap());
    let mut files: Vec<_> = fs::read_dir(dir).unwrap().map(|entry| read(entry.unwrap())).collect();
    files.sort();
    files
}

#[test]
fn a_training_stopped_at_any_step_resumes_to_the_same_bytes() {
    let whole = tempfile::tempdir().unwrap();
    train(&shapes(), &config(8), Seed(1), whole.path(), &Silent, &Device::Cpu).unwrap();
    let names: Vec<String> = files(whole.path()).into_iter().map(|(name, _)| name).collect();
    assert_eq!(names, ["config.json", "loss.csv", "model.safetensors"]);
    let loss = fs::read_to_string(whole.path().join("loss.csv")).unwrap();
    assert_eq!(loss.lines().count(), 9);

    // Stops before the first step, between two checkpoints, on one, and twice in one place.
    let stopped = tempfile::tempdir().unwrap();
    for steps in [0, 2, 0, 3, 2] {
        let stop = StopAt(steps, AtomicU64::new(0));
        let result = train(&shapes(), &config(8), Seed(1), stopped.path(), &stop, &Device::Cpu);
        assert!(matches!(result, Err(DiffusionError::Interrupted(_))));
    }
    train(&shapes(), &config(8), Seed(1), stopped.path(), &Silent, &Device::Cpu).unwrap();
    assert!(files(whole.path()) == files(stopped.path()), "resumed files differ");
}

#[test]
fn a_killed_training_goes_on_from_its_last_checkpoint_to_the_same_bytes() {
    let whole = tempfile::tempdir().unwrap();
    train(&shapes(), &config(5), Seed(1), whole.path(), &Silent, &Device::Cpu).unwrap();
    let killed = tempfile::tempdir().unwrap();
    let stop = StopAt(3, AtomicU64::new(0));
    train(&shapes(), &config(5), Seed(1), killed.path(), &stop, &Device::Cpu).unwrap_err();
    // What a kill may leave: an unfinished checkpoint, weights without a card.
    fs::create_dir(killed.path().join("checkpoint-4.tmp")).unwrap();
    fs::write(killed.path().join("checkpoint-4.tmp/state.json"), "{").unwrap();
    fs::write(killed.path().join("model.safetensors"), "half").unwrap();
    train(&shapes(), &config(5), Seed(1), killed.path(), &Silent, &Device::Cpu).unwrap();
    assert!(files(whole.path()) == files(killed.path()), "resumed files differ");
}

#[test]
fn a_finished_model_is_loaded_and_not_trained_again_and_another_one_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let model = untrained(dir.path());
    let before = files(dir.path());
    let never = StopAt(0, AtomicU64::new(0));
    let again = train(&shapes(), &config(3), Seed(1), dir.path(), &never, &Device::Cpu).unwrap();
    assert_eq!((again.sha256(), &files(dir.path())), (model.sha256(), &before));
    let other = train(&shapes(), &config(3), Seed(2), dir.path(), &Silent, &Device::Cpu);
    assert!(matches!(other, Err(DiffusionError::OtherTraining(_))));
    assert_eq!(model.loss_curve(dir.path()).unwrap().len(), 3);
    assert!(model.model_id().starts_with("conditional-tiny-"));
}

#[test]
fn a_checkpoint_of_another_training_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let stop = StopAt(1, AtomicU64::new(0));
    train(&shapes(), &config(3), Seed(1), dir.path(), &stop, &Device::Cpu).unwrap_err();
    let other = train(&shapes(), &config(4), Seed(1), dir.path(), &Silent, &Device::Cpu);
    assert!(matches!(other, Err(DiffusionError::OtherTraining(_))));
}

#[test]
fn damaged_files_are_named_with_the_folder_to_remove() {
    let dir = tempfile::tempdir().unwrap();
    let stop = StopAt(2, AtomicU64::new(0));
    train(&shapes(), &config(4), Seed(1), dir.path(), &stop, &Device::Cpu).unwrap_err();
    let checkpoint = dir.path().join("checkpoint-2");
    let retry = || train(&shapes(), &config(4), Seed(1), dir.path(), &Silent, &Device::Cpu).unwrap_err().to_string();
    for (file, content) in [("weights.safetensors", &b"too short"[..]), ("state.json", b"{")] {
        fs::write(checkpoint.join(file), content).unwrap();
        let error = retry();
        assert!(error.contains("damaged") && error.contains("checkpoint-2"), "{error}");
    }

    let dir = tempfile::tempdir().unwrap();
    untrained(dir.path());
    let load = || ConditionalModel::load(dir.path(), &Device::Cpu).unwrap_err().to_string();
    let mut weights = fs::read(dir.path().join("model.safetensors")).unwrap();
    *weights.last_mut().unwrap() ^= 1;
    fs::write(dir.path().join("model.safetensors"), weights).unwrap();
    assert!(load().contains("sha256"), "{}", load());
    fs::write(dir.path().join("config.json"), "{}").unwrap();
    assert!(load().contains("config.json") && load().contains("damaged"), "{}", load());
    fs::remove_file(dir.path().join("config.json")).unwrap();
    assert!(load().contains("no finished model"), "{}", load());
}

#[test]
fn an_image_depends_on_its_request_alone() {
    let dir = tempfile::tempdir().unwrap();
    let model = untrained(dir.path());
    let groups = ["shape=rows & colour=red", "colour=blue & shape=columns", "shape=columns", "(all)", "colour=red"];
    let sampler = SamplerConfig::Dpmpp2m { steps: 3, guidance: 2.0, guidance_interval: None, guided: None };
    let draw = |requests: &[ImageRequest]| model.generate(requests, &sampler, &Silent).unwrap();
    let together = draw(&requests(&groups));
    assert_eq!(together.len(), groups.len());
    for (request, image) in requests(&groups).into_iter().zip(&together) {
        let alone = draw(std::slice::from_ref(&request)).remove(0);
        assert_eq!(&alone, image, "{}", request.group);
    }
    let mut reversed = requests(&groups);
    reversed.reverse();
    assert!(draw(&reversed).iter().eq(together.iter().rev()));
    let other_seed = ImageRequest { seed: Seed(99), ..requests(&groups)[0].clone() };
    assert_ne!(draw(&[other_seed])[0], together[0]);
}

#[test]
fn images_have_the_size_of_the_dataset_even_where_the_network_needs_padding() {
    let mut set = shapes();
    (set.width, set.height, set.channels) = (7, 5, 1);
    set.pixels = (0..7 * 5 * set.conditions.len()).map(|i| (i % 251) as u8).collect();
    let dir = tempfile::tempdir().unwrap();
    let model = train(&set, &config(2), Seed(1), dir.path(), &Silent, &Device::Cpu).unwrap();
    let sampler = SamplerConfig::Heun { steps: 2, guidance: 1.0, guidance_interval: None, guided: None };
    let image = model.generate(&requests(&["(all)"]), &sampler, &Silent).unwrap().remove(0);
    assert_eq!((image.width, image.height, image.channels, image.pixels.len()), (7, 5, 1, 35));
    let groups: Vec<Group> = vec!["colour=red".parse().unwrap(), "colour=blue".parse().unwrap()];
    let sheet = model.sample_grid(&groups, 3, &sampler, Seed(5), &Silent).unwrap();
    assert_eq!((sheet.width, sheet.height, sheet.pixels.len()), (25, 12, 300));
}

#[test]
fn a_request_for_something_unknown_says_what_is_known() {
    let dir = tempfile::tempdir().unwrap();
    let model = untrained(dir.path());
    let refusal =
        |group| model.generate(&requests(&[group]), &SamplerConfig::default(), &Silent).unwrap_err().to_string();
    let error = refusal("shape=rows & colour=pink");
    assert!(error.contains("`colour=pink`") && error.contains("`red`, `green`, `blue`"), "{error}");
    assert!(refusal("size=big").contains("`shape`, `colour`"));
}

#[test]
fn drawing_stops_when_asked() {
    let dir = tempfile::tempdir().unwrap();
    let model = untrained(dir.path());
    let stop = StopAt(0, AtomicU64::new(0));
    let result = model.generate(&requests(&["(all)"]), &SamplerConfig::default(), &stop);
    assert!(matches!(result, Err(DiffusionError::Interrupted(_))));
}

#[test]
fn a_training_that_diverges_ends_with_advice() {
    let dir = tempfile::tempdir().unwrap();
    let config = config(100);
    let set = shapes();
    // Clipping survives any learning rate for a while, so the weights are poisoned through a checkpoint.
    let stop = StopAt(1, AtomicU64::new(0));
    train(&set, &config, Seed(1), dir.path(), &stop, &Device::Cpu).unwrap_err();
    poison(&dir.path().join("checkpoint-1/weights.safetensors"));
    let error = train(&set, &config, Seed(1), dir.path(), &Silent, &Device::Cpu).unwrap_err();
    assert!(matches!(error, DiffusionError::Diverged { step: 21, in_a_row: 20 }), "{error}");
    assert!(error.to_string().contains("lower `learning_rate`"));
}

/// Makes the last weight of a safetensors file not a number.
fn poison(path: &Path) {
    let mut bytes = fs::read(path).unwrap();
    let at = bytes.len() - 4;
    bytes[at..].copy_from_slice(&f32::NAN.to_le_bytes());
    fs::write(path, bytes).unwrap();
}

#[test]
fn training_lowers_the_loss_and_gives_a_combination_it_never_saw_its_colour() {
    let dir = tempfile::tempdir().unwrap();
    let steps = 250;
    let config = ConditionalConfig { batch: 16, warmup: 20, learning_rate: Some(8e-3), ..config(steps) };
    let config = ConditionalConfig { checkpoint_every: steps, ..config };
    let model = train(&shapes(), &config, Seed(1), dir.path(), &Silent, &Device::Cpu).unwrap();
    let curve = model.loss_curve(dir.path()).unwrap();
    let mean = |points: &[(u64, f64)]| points.iter().map(|(_, loss)| loss).sum::<f64>() / points.len() as f64;
    let (first, last) = (mean(&curve[..10]), mean(&curve[240..]));
    assert!(last < 0.55 * first, "loss went from {first} to {last}");

    let unseen = requests(&["shape=columns & colour=blue"; 16]);
    let images = model.generate(&unseen, &SamplerConfig::default(), &Silent).unwrap();
    let light = |channel: usize| {
        let values = images.iter().flat_map(|image| image.pixels.iter().skip(channel).step_by(3));
        values.map(|&value| f64::from(value)).sum::<f64>() / (16 * SIDE * SIDE) as f64
    };
    let [red, green, blue] = [light(0), light(1), light(2)];
    assert!(blue > 90.0 && red < 45.0 && green < 45.0, "red {red}, green {green}, blue {blue}");

    // An inverted guide comes back when what it shows is asked for, and else changes in that alone.
    let (set, shown) = (shapes(), "shape=rows & colour=red");
    let guide = set.pixels[..set.image_len()].to_vec();
    let sampler = SamplerConfig::Dpmpp2m { steps: 40, guidance: 1.0, guidance_interval: None, guided: None };
    let turned_into = |group: &str| {
        let guide = Guide { pixels: guide.clone(), strength: 1.0, inverted: inverted(shown, 0.0) };
        let request = ImageRequest { guide: Some(guide), ..requests(&[group])[0].clone() };
        model.generate(&[request], &sampler, &Silent).unwrap().remove(0).pixels
    };
    let pairs = |image: &[u8], from: usize, to: usize| -> f64 {
        let (old, new) = (guide.iter().skip(from).step_by(3), image.iter().skip(to).step_by(3));
        old.zip(new).map(|(a, b)| f64::from(a.abs_diff(*b))).sum::<f64>() / (SIDE * SIDE) as f64
    };
    let (same, other) = (turned_into(shown), turned_into("shape=rows & colour=blue"));
    assert!((0..3).all(|channel| pairs(&same, channel, channel) < 12.0), "{same:?}");
    // A short training, so the stripes come out faint; columns in place of rows would differ by about 100.
    let (moved, stayed) = (pairs(&other, 0, 2), pairs(&other, 0, 0));
    assert!(moved < 60.0 && moved < 0.7 * stayed, "red became blue but for {moved}, stayed red but for {stayed}");
}

#[test]
fn a_weak_guide_is_hardly_changed_and_the_strongest_one_hardly_matters() {
    let dir = tempfile::tempdir().unwrap();
    let (model, sampler) = (untrained(dir.path()), SamplerConfig::default());
    let set = shapes();
    let guide = set.pixels[..set.image_len()].to_vec();
    let guided = |strength: f64| {
        let guide = Guide { pixels: guide.clone(), strength, inverted: None };
        ImageRequest { guide: Some(guide), ..requests(&["shape=rows & colour=red"])[0].clone() }
    };
    let distance = |request: ImageRequest| {
        let image = model.generate(&[request], &sampler, &Silent).unwrap().remove(0);
        assert!(image.finite);
        image.pixels.iter().zip(&guide).map(|(a, b)| f64::from(a.abs_diff(*b))).sum::<f64>() / guide.len() as f64
    };
    let (weak, middle) = (distance(guided(0.1)), distance(guided(0.5)));
    assert!(weak < 4.0 && weak < middle, "{weak} {middle}");
    // At full strength the start is noise 80 times as strong as the image.
    let free = distance(requests(&["shape=rows & colour=red"])[0].clone());
    assert!((distance(guided(1.0)) - free).abs() < 25.0, "{free}");
}

#[test]
fn guides_strengths_and_guidances_do_not_change_the_images_beside_them() {
    let dir = tempfile::tempdir().unwrap();
    let (model, sampler) = (untrained(dir.path()), SamplerConfig::default());
    let guide = Guide { pixels: shapes().pixels[..SIDE * SIDE * 3].to_vec(), strength: 0.6, inverted: None };
    let mut all = requests(&["shape=rows & colour=red", "shape=plain & colour=red", "shape=columns & colour=blue"]);
    all.push(all[0].clone());
    all[1].guide = Some(guide.clone());
    all[2].guidance = Some(3.0);
    all[3].guide = Some(Guide { inverted: inverted("shape=plain & colour=red", 0.0), ..guide.clone() });
    all.push(all[0].clone());
    all[4].guide = Some(Guide { inverted: inverted("shape=plain & colour=red", 0.1), ..guide });
    let together = model.generate(&all, &sampler, &Silent).unwrap();
    assert!(together[4] != together[3] && together[3] != together[1]);
    // Without noise an inversion knows no seed.
    let other_seed = |i: usize| {
        let request = ImageRequest { seed: Seed(99), ..all[i].clone() };
        model.generate(&[request], &sampler, &Silent).unwrap().remove(0)
    };
    assert!(other_seed(3) == together[3] && other_seed(4) != together[4]);
    for (request, image) in all.iter().zip(&together) {
        assert_eq!(model.generate(std::slice::from_ref(request), &sampler, &Silent).unwrap()[0], *image);
    }
    let said = |request: ImageRequest| model.generate(&[request], &sampler, &Silent).unwrap_err().to_string();
    let wrong = Guide { pixels: vec![0; 5], strength: 0.5, inverted: None };
    assert!(said(ImageRequest { guide: Some(wrong), ..all[0].clone() }).contains("5 bytes for an image of 8x8x3"));
    let wrong = Guide { strength: 1.5, ..all[1].guide.clone().unwrap() };
    assert!(said(ImageRequest { guide: Some(wrong), ..all[0].clone() }).contains("1.5 is not above 0"));
    let wrong = Guide { inverted: inverted("shape=knots", 0.0), ..all[1].guide.clone().unwrap() };
    assert!(said(ImageRequest { guide: Some(wrong), ..all[0].clone() }).contains("knots"));
    let wrong = Guide { inverted: inverted("shape=plain", -1.0), ..all[1].guide.clone().unwrap() };
    assert!(said(ImageRequest { guide: Some(wrong), ..all[0].clone() }).contains("-1 is not a noise level"));
}

#[test]
fn strengths_run_as_many_steps_as_in_diffusers() {
    let sampler = SamplerConfig::default();
    // min(int(steps * strength), steps) of 12 steps, and never none.
    for (strength, run) in [(0.01, 1), (0.25, 3), (0.5, 6), (0.6, 7), (0.8, 9), (1.0, 12)] {
        assert_eq!(12 - sampler.skipped(strength), run, "{strength}");
    }
}
