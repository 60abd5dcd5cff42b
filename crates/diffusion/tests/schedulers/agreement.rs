//! Every class with many settings against diffusers.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;

use candle_core::{Device, Tensor};
use evenset_diffusion::scheduler::{SchedulerJson, SchedulerKind};
use serde::Deserialize;
use serde_json::Value;

use super::{FILE, model, scheduler, values};

/// The largest relative L2 difference of a last image.
const MOST: f64 = 1e-4;

/// One line of `cases.json`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Case {
    config: Value,
    steps: usize,
    strength: Option<f64>,
    batch: usize,
    mask: bool,
    kind: Option<SchedulerKind>,
    calls: usize,
}

struct Golden {
    cases: Vec<Case>,
    tensors: HashMap<String, Tensor>,
}

impl Golden {
    fn open() -> Self {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden/schedulers");
        let cases = std::fs::read(folder.join("cases.json")).unwrap();
        Self {
            cases: serde_json::from_slice(&cases).unwrap(),
            tensors: candle_core::safetensors::load(folder.join("values.safetensors"), &Device::Cpu).unwrap(),
        }
    }

    fn first(&self, name: &str, images: usize) -> Tensor {
        self.tensors[name].narrow(0, 0, images).unwrap()
    }
}

/// What a walk of this crate gave.
struct Walked {
    class: String,
    timesteps: Vec<f64>,
    sigmas: Vec<f64>,
    sample: Vec<f32>,
}

fn walk(golden: &Golden, case: &Case) -> Walked {
    let json = SchedulerJson::parse(&case.config.to_string(), Path::new(FILE)).unwrap();
    let scheduler = json.scheduler(case.kind).unwrap();
    let walk = scheduler.walk(case.steps, case.strength.unwrap_or(1.0)).unwrap();
    let (noise, clean) = (golden.first("noise", case.batch), golden.first("clean", case.batch));
    let from_noise = case.strength.is_none() || (case.mask && case.strength == Some(1.0));
    let x = walk.start(&noise, (!from_noise).then_some(&clean)).unwrap();
    let mask = golden.tensors["mask"].broadcast_as(x.shape()).unwrap();
    let kept = (1.0 - &mask).unwrap();
    let mut seen = Vec::new();
    let sample = walk
        .run(
            &x,
            &mut |x, timestep| {
                seen.push(timestep);
                model(x, timestep)
            },
            &mut |i| Ok(golden.tensors["draws"].get(i)?.narrow(0, 0, case.batch)?),
            &mut |i, x| match case.mask {
                true => Ok(((walk.noised(&clean, &noise, i + 1)? * &kept)? + (x * &mask)?)?),
                false => Ok(x),
            },
        )
        .unwrap();
    assert_eq!(seen, walk.timesteps(), "the model saw other timesteps");
    Walked {
        class: scheduler.class_name().to_owned(),
        timesteps: seen,
        sigmas: (0..case.calls).map(|i| walk.sigma(i)).collect(),
        sample: values(&sample),
    }
}

/// The relative L2 difference to `golden`.
fn difference(found: &[f32], golden: &[f32]) -> f64 {
    assert_eq!(found.len(), golden.len());
    let square = |value: f64| value * value;
    let apart: f64 = found.iter().zip(golden).map(|(a, b)| square(f64::from(*a) - f64::from(*b))).sum();
    let size: f64 = golden.iter().map(|value| square(f64::from(*value))).sum();
    (apart / size).sqrt()
}

#[test]
fn every_class_walks_as_diffusers_does() {
    let golden = Golden::open();
    let flat = |name: &str| values(&golden.tensors[name]);
    let (samples, timesteps, sigmas) = (flat("samples"), flat("timesteps"), flat("sigmas"));
    let (mut sample_at, mut call_at) = (0, 0);
    let mut largest: BTreeMap<String, (f64, String)> = BTreeMap::new();
    let mut wrong = Vec::new();
    for case in &golden.cases {
        let found = walk(&golden, case);
        let name = format!(
            "{} steps={} strength={:?} batch={} mask={} kind={:?}",
            case.config, case.steps, case.strength, case.batch, case.mask, case.kind
        );
        let calls = call_at..call_at + case.calls;
        let size = found.sample.len();
        let expected = &samples[sample_at..sample_at + size];
        (sample_at, call_at) = (sample_at + size, calls.end);

        let integral = timesteps[calls.clone()].iter().all(|t| t.fract() == 0.0);
        let tolerance = if integral { 0.0 } else { 2e-4 };
        let same_timesteps = found.timesteps.len() == case.calls
            && found
                .timesteps
                .iter()
                .zip(&timesteps[calls.clone()])
                .all(|(a, b)| (a - f64::from(*b)).abs() <= tolerance);
        if !same_timesteps {
            wrong.push(format!("{name}: timesteps {:?}, not {:?}", found.timesteps, &timesteps[calls.clone()]));
        }
        let same = |(a, b): (&f64, &f32)| *a == f64::from(*b) || (a / f64::from(*b) - 1.0).abs() < 1e-5;
        if !found.sigmas.iter().zip(&sigmas[calls.clone()]).all(same) {
            wrong.push(format!("{name}: sigmas {:?}, not {:?}", found.sigmas, &sigmas[calls]));
        }
        let difference = difference(&found.sample, expected);
        if difference.is_nan() || difference > MOST {
            wrong.push(format!("{name}: differs by {difference:.2e}"));
        }
        let entry = largest.entry(found.class).or_default();
        if difference > entry.0 {
            *entry = (difference, name);
        }
    }
    assert_eq!((sample_at, call_at), (samples.len(), timesteps.len()));
    for (class, (difference, name)) in &largest {
        println!("{class}: at most {difference:.2e}, in {name}");
    }
    assert!(wrong.is_empty(), "{} of {} cases:\n{}", wrong.len(), golden.cases.len(), wrong.join("\n"));
    assert_eq!(largest.len(), 9);
}

#[test]
fn a_strength_shortens_the_schedule_of_latent_consistency_and_not_its_walk() {
    // `LCMScheduler.set_timesteps(steps, strength=strength)` of diffusers 0.42.
    let cases: [(f64, usize, &[f64]); 5] = [
        (0.3, 8, &[299.0, 279.0, 239.0, 199.0, 159.0, 119.0, 79.0, 39.0]),
        (0.5, 4, &[499.0, 379.0, 259.0, 139.0]),
        (0.6, 4, &[599.0, 459.0, 299.0, 159.0]),
        (0.8, 1, &[799.0]),
        (1.0, 4, &[999.0, 759.0, 499.0, 259.0]),
    ];
    let lcm = scheduler("LCMScheduler", &[]).for_latent_consistency();
    for (strength, steps, expected) in cases {
        assert_eq!(lcm.walk(steps, strength).unwrap().timesteps(), expected, "{strength} of {steps}");
    }
    // As other pipelines use it, the walk is shortened.
    let other = scheduler("LCMScheduler", &[]);
    assert_eq!(other.walk(4, 0.5).unwrap().timesteps(), [499.0, 259.0]);
    assert!(lcm.walk(8, 0.1).unwrap_err().to_string().contains("8 are more than the 5"));
}
