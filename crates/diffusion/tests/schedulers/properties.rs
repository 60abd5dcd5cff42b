//! What holds for every solver, without anybody else's numbers.

use std::collections::BTreeSet;
use std::path::Path;

use candle_core::{Device, Tensor};
use evenset_diffusion::scheduler::{SchedulerJson, SchedulerKind};

use super::{FILE, STABLE, kinds, model, normal, scheduler, values, walked};

fn every_kind() -> Vec<(SchedulerKind, evenset_diffusion::Scheduler)> {
    let text = format!(r#"{{"_class_name": "PNDMScheduler", "skip_prk_steps": true, "clip_sample": false, {STABLE}}}"#);
    let json = SchedulerJson::parse(&text, Path::new(FILE)).unwrap();
    kinds().into_iter().map(|kind| (kind, json.scheduler(Some(kind)).unwrap())).collect()
}

#[test]
fn an_image_is_the_same_alone_and_in_a_batch() {
    let limited = [
        scheduler("DDIMScheduler", &[r#""thresholding": true"#, r#""sample_max_value": 1.5"#]),
        scheduler("UniPCMultistepScheduler", &[r#""thresholding": true"#, r#""solver_order": 3"#]),
        scheduler("HeunDiscreteScheduler", &[r#""clip_sample": true"#]),
    ];
    for scheduler in every_kind().into_iter().map(|(_, scheduler)| scheduler).chain(limited) {
        let walk = scheduler.walk(6, 1.0).unwrap();
        let start = walk.start(&normal(1, 3), None).unwrap();
        let together = walked(&walk, &start, |i| normal(10 + i as u64, 3)).unwrap();
        for image in 0..3 {
            let one = |tensor: &Tensor| tensor.narrow(0, image, 1).unwrap().contiguous().unwrap();
            let alone = walked(&walk, &one(&start), |i| one(&normal(10 + i as u64, 3))).unwrap();
            assert_eq!(values(&alone), values(&one(&together)), "{} image {image}", scheduler.class_name());
        }
    }
}

#[test]
fn a_model_that_knows_the_image_brings_it_back() {
    // It predicts exactly the noise that was mixed in, so the last step ends at the image (PNDM at the first level of the
    // table).
    let clean = (normal(5, 2) * 0.5).unwrap();
    for (kind, scheduler) in every_kind() {
        let walk = scheduler.walk(20, 1.0).unwrap();
        let noise = normal(6, 2);
        let x = walk.start(&noise, Some(&clean)).unwrap();
        let sigmas: Vec<f64> = (0..walk.timesteps().len()).map(|i| walk.sigma(i)).collect();
        let mut call = 0;
        let mut knows = |x: &Tensor, _: f64| -> evenset_diffusion::Result<Tensor> {
            // x is at a variance of 1 here: signal * clean + noise level * noise.
            let (signal, level) = (1.0 / sigmas[call].hypot(1.0), sigmas[call] / sigmas[call].hypot(1.0));
            call += 1;
            Ok(((x - (&clean * signal)?)? * (1.0 / level))?)
        };
        let end = walk.run(&x, &mut knows, &mut |i| Ok(normal(20 + i as u64, 2)), &mut |_, x| Ok(x)).unwrap();
        let worst = values(&(end - &clean).unwrap()).into_iter().fold(0.0f32, |most, d| most.max(d.abs()));
        let most = if kind == SchedulerKind::Pndm { 0.15 } else { 2e-4 };
        assert!(worst < most, "{}: {worst}", kind.name());
    }
}

#[test]
fn draws_are_asked_for_in_order_and_by_stochastic_solvers_only() {
    for (kind, scheduler) in every_kind() {
        let walk = scheduler.walk(5, 1.0).unwrap();
        let mut asked = Vec::new();
        let start = walk.start(&normal(1, 1), None).unwrap();
        let mut noise = |i: usize| -> evenset_diffusion::Result<Tensor> {
            asked.push(i);
            Ok(normal(i as u64, 1))
        };
        walk.run(&start, &mut |x, t| model(x, t), &mut noise, &mut |_, x| Ok(x)).unwrap();
        let expected = match kind.name() {
            "ddpm" | "dpmpp-2m-sde" | "dpmpp-2m-sde-karras" => 5,
            "euler-ancestral" | "lcm" => 4,
            _ => 0,
        };
        assert_eq!(asked, (0..expected).collect::<Vec<usize>>(), "{}", kind.name());
    }
}

#[test]
fn a_weaker_walk_is_the_end_of_a_full_one() {
    for (kind, scheduler) in every_kind() {
        let full = scheduler.walk(20, 1.0).unwrap();
        let part = scheduler.walk(20, 0.3).unwrap();
        let (all, end) = (full.timesteps(), part.timesteps());
        assert_eq!(end, &all[all.len() - end.len()..], "{}", kind.name());
        let calls = match kind.name() {
            "heun" => 11,
            "pndm" => 7,
            _ => 6,
        };
        assert_eq!(end.len(), calls, "{}", kind.name());
        assert_eq!(part.sigma(0), full.sigma(all.len() - end.len()));
        assert_eq!(part.sigma(end.len()), 0.0);
    }
}

#[test]
fn what_is_returned_after_a_step_is_walked_on() {
    for (kind, scheduler) in every_kind() {
        let walk = scheduler.walk(4, 1.0).unwrap();
        let start = walk.start(&normal(1, 1), None).unwrap();
        let fixed = normal(2, 1);
        let last = walk.timesteps().len() - 1;
        let mut steps = Vec::new();
        let mut after = |i: usize, x: Tensor| -> evenset_diffusion::Result<Tensor> {
            steps.push(i);
            Ok(if i == last { fixed.clone() } else { x })
        };
        let end = walk.run(&start, &mut |x, t| model(x, t), &mut |i| Ok(normal(i as u64, 1)), &mut after).unwrap();
        assert_eq!(values(&end), values(&fixed), "{}", kind.name());
        assert_eq!(steps, (0..=last).collect::<Vec<_>>());
    }
}

#[test]
fn the_timesteps_of_stable_diffusion_are_known() {
    let timesteps = |class: &str, settings: &[&str], steps| {
        scheduler(class, settings).walk(steps, 1.0).unwrap().timesteps().to_vec()
    };
    let skip = r#""skip_prk_steps": true"#;
    assert_eq!(timesteps("PNDMScheduler", &[skip], 5), [801.0, 601.0, 601.0, 401.0, 201.0, 1.0]);
    assert_eq!(timesteps("DDIMScheduler", &[], 4), [751.0, 501.0, 251.0, 1.0]);
    let trailing = r#""timestep_spacing": "trailing""#;
    assert_eq!(timesteps("EulerAncestralDiscreteScheduler", &[trailing], 1), [999.0]);
    assert_eq!(timesteps("EulerDiscreteScheduler", &[trailing], 4), [999.0, 749.0, 499.0, 249.0]);
    assert_eq!(timesteps("LCMScheduler", &[], 4), [999.0, 759.0, 499.0, 259.0]);
    assert_eq!(timesteps("HeunDiscreteScheduler", &[trailing], 2), [999.0, 499.0, 499.0]);
}

#[test]
fn trailing_timesteps_are_as_many_as_steps() {
    // NumPy's strides give 62 points for 61 steps, the last at timestep -1.
    let trailing = scheduler("DDIMScheduler", &[r#""timestep_spacing": "trailing""#]);
    for steps in 1..=1000 {
        let walk = trailing.walk(steps, 1.0).unwrap();
        assert_eq!(walk.timesteps().len(), steps);
        assert!(walk.timesteps().windows(2).all(|pair| pair[0] > pair[1]) && walk.timesteps()[steps - 1] >= 0.0);
    }
}

#[test]
fn a_solver_keeps_its_name_through_a_job_file() {
    let mut names = BTreeSet::new();
    for kind in kinds() {
        let text = serde_json::to_string(&kind).unwrap();
        assert_eq!(text, format!("\"{}\"", kind.name()));
        assert_eq!(serde_json::from_str::<SchedulerKind>(&text).unwrap(), kind);
        names.insert(kind.name());
    }
    assert_eq!(names.len(), 12);
    assert!(serde_json::from_str::<SchedulerKind>("\"dpm\"").is_err());
}

#[test]
fn outdated_files_of_stable_diffusion_are_repaired_as_its_pipeline_does() {
    let text = r#"{"_class_name": "DDIMScheduler", "beta_schedule": "scaled_linear"}"#;
    let outdated = SchedulerJson::parse(text, Path::new(FILE)).unwrap().scheduler(None).unwrap();
    assert_eq!(outdated.walk(2, 1.0).unwrap().timesteps(), [500.0, 0.0]);
    let repaired = outdated.clone().for_stable_diffusion();
    let walk = repaired.walk(2, 1.0).unwrap();
    assert_eq!(walk.timesteps(), [501.0, 1.0]);
    // The repaired one lets large values through, which the file's own clips to 1.
    let far = Tensor::full(20.0f32, (1, 4, 6, 5), &Device::Cpu).unwrap();
    let last =
        |walk: &evenset_diffusion::scheduler::Walk<'_>| values(&walked(walk, &far, |_| normal(1, 1)).unwrap())[0];
    assert!(last(&walk) > 10.0, "{}", last(&walk));
    assert!(last(&outdated.walk(2, 1.0).unwrap()) < 1.1);

    let prk = scheduler("PNDMScheduler", &[]);
    assert!(prk.walk(3, 1.0).is_err());
    assert_eq!(prk.for_stable_diffusion_inpaint().walk(3, 1.0).unwrap().timesteps(), [667.0, 334.0, 334.0, 1.0]);
}

#[test]
fn halves_are_computed_in_full_precision() {
    let scheduler = scheduler("EulerDiscreteScheduler", &[]);
    let walk = scheduler.walk(3, 1.0).unwrap();
    let half = |tensor: &Tensor| tensor.to_dtype(candle_core::DType::F16).unwrap();
    let start = walk.start(&half(&normal(1, 1)), None).unwrap();
    let end =
        walk.run(&start, &mut |x, t| Ok(half(&model(x, t)?)), &mut |i| Ok(normal(i as u64, 1)), &mut |_, x| Ok(x));
    let end = end.unwrap();
    assert_eq!(end.dtype(), candle_core::DType::F32);
    assert!(values(&end).into_iter().all(f32::is_finite));
}
