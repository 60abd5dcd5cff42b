//! What is refused, and that every refusal names the thing.

use std::path::Path;

use candle_core::{Device, Tensor};
use evenset_diffusion::scheduler::{SchedulerJson, SchedulerKind};

use super::{FILE, message, model, normal, scheduler, try_scheduler};

/// Refusals that name the file, the key and the value.
fn names_all(class: &str, setting: &str) {
    let message = message(try_scheduler(class, &[setting]));
    let (key, value) = setting.split_once(": ").unwrap();
    for part in [FILE, &key.replace('"', "`"), value] {
        assert!(message.contains(part), "{class} with {setting}: {message}");
    }
}

#[test]
fn settings_that_cannot_be_computed_are_refused_by_file_key_and_value() {
    for (class, setting) in [
        ("DDIMScheduler", r#""colour": 3"#),
        ("DDIMScheduler", r#""beta_schedule": "sigmoid""#),
        ("DDIMScheduler", r#""beta_schedule": 3"#),
        ("DDIMScheduler", r#""beta_end": 2.0"#),
        ("DDIMScheduler", r#""beta_end": "0.012""#),
        ("DDIMScheduler", r#""beta_start": -0.1"#),
        ("DDIMScheduler", r#""num_train_timesteps": 0"#),
        ("DDIMScheduler", r#""num_train_timesteps": 99999999999"#),
        ("DDIMScheduler", r#""num_train_timesteps": 1000.5"#),
        ("DDIMScheduler", r#""trained_betas": [0.1,0.2]"#),
        ("DDIMScheduler", r#""trained_betas": "many""#),
        ("DDIMScheduler", r#""prediction_type": "flow_prediction""#),
        ("DDIMScheduler", r#""timestep_spacing": "middle""#),
        ("DDIMScheduler", r#""steps_offset": -1"#),
        ("DDIMScheduler", r#""clip_sample": "yes""#),
        ("DDIMScheduler", r#""clip_sample_range": 0.0"#),
        ("DDIMScheduler", r#""set_alpha_to_one": 1"#),
        ("DDPMScheduler", r#""variance_type": "learned_range""#),
        ("DDPMScheduler", r#""variance_type": "fixed_large_log""#),
        ("PNDMScheduler", r#""prediction_type": "sample""#),
        ("EulerAncestralDiscreteScheduler", r#""prediction_type": "sample""#),
        ("EulerDiscreteScheduler", r#""interpolation_type": "cubic""#),
        ("EulerDiscreteScheduler", r#""timestep_type": "other""#),
        ("EulerDiscreteScheduler", r#""final_sigmas_type": "one""#),
        ("EulerDiscreteScheduler", r#""sigma_min": 0"#),
        ("DPMSolverMultistepScheduler", r#""algorithm_type": "dpmsolver""#),
        ("DPMSolverMultistepScheduler", r#""solver_order": 4"#),
        ("DPMSolverMultistepScheduler", r#""solver_type": "rk4""#),
        ("DPMSolverMultistepScheduler", r#""use_lu_lambdas": true"#),
        ("DPMSolverMultistepScheduler", r#""use_flow_sigmas": true"#),
        ("DPMSolverMultistepScheduler", r#""variance_type": "learned""#),
        ("DPMSolverMultistepScheduler", r#""lambda_min_clipped": "low""#),
        ("UniPCMultistepScheduler", r#""predict_x0": false"#),
        ("UniPCMultistepScheduler", r#""lower_order_final": false"#),
        ("UniPCMultistepScheduler", r#""solver_p": {}"#),
        ("UniPCMultistepScheduler", r#""disable_corrector": [-1]"#),
        ("UniPCMultistepScheduler", r#""use_dynamic_shifting": true"#),
        ("LCMScheduler", r#""original_inference_steps": 0"#),
        ("LCMScheduler", r#""timestep_scaling": -1.0"#),
        ("FlowMatchEulerDiscreteScheduler", r#""_class_name": "FlowMatchEulerDiscreteScheduler""#),
        ("LMSDiscreteScheduler", r#""_class_name": "LMSDiscreteScheduler""#),
    ] {
        names_all(class, setting);
    }
    let two = message(try_scheduler(
        "HeunDiscreteScheduler",
        &[r#""use_karras_sigmas": true"#, r#""use_beta_sigmas": true"#],
    ));
    assert!(two.contains("`use_beta_sigmas`: true") && two.contains(FILE), "{two}");
    let crossed = message(try_scheduler("EulerDiscreteScheduler", &[r#""sigma_min": 5.0"#, r#""sigma_max": 2.0"#]));
    assert!(crossed.contains("sigma_min") && crossed.contains("sigma_max"), "{crossed}");
}

#[test]
fn settings_of_other_classes_are_known_and_left_alone() {
    for setting in [r#""skip_prk_steps": true"#, r#""use_flow_sigmas": true"#, r#""_name_or_path": "somewhere""#] {
        assert!(try_scheduler("DDIMScheduler", &[setting]).is_ok(), "{setting}");
    }
    assert!(try_scheduler("EulerDiscreteScheduler", &[r#""use_karras_sigmas": null"#, r#""sigma_min": null"#]).is_ok());
}

#[test]
fn a_class_without_a_solver_here_lends_its_noise_levels_to_another() {
    let text = r#"{"_class_name": "LMSDiscreteScheduler", "beta_schedule": "scaled_linear", "prediction_type": "v_prediction"}"#;
    let json = SchedulerJson::parse(text, Path::new(FILE)).unwrap();
    assert_eq!(json.class_name(), Some("LMSDiscreteScheduler"));
    let refused = message(json.scheduler(None));
    assert!(refused.contains("LMSDiscreteScheduler") && refused.contains("dpmpp-2m"), "{refused}");
    assert_eq!(json.scheduler(Some(SchedulerKind::Euler)).unwrap().class_name(), "EulerDiscreteScheduler");
    let nameless = message(SchedulerJson::parse("{}", Path::new(FILE)).unwrap().scheduler(None));
    assert!(nameless.contains("_class_name") && nameless.contains(FILE), "{nameless}");
}

#[test]
fn pythons_infinities_are_read() {
    let clipped =
        |value: &str| try_scheduler("DPMSolverMultistepScheduler", &[&format!(r#""lambda_min_clipped": {value}"#)]);
    let timesteps = |value: &str| clipped(value).unwrap().walk(4, 1.0).unwrap().timesteps().to_vec();
    assert_eq!(timesteps("-Infinity"), [999.0, 749.0, 500.0, 250.0]);
    assert!(timesteps("-1.0")[0] < 999.0);
    for value in ["Infinity", "NaN"] {
        assert!(message(clipped(value)).contains(value));
    }
    // A word inside a string stays what it is, also behind an escaped quote.
    let inside = message(try_scheduler("DDIMScheduler", &[r#""beta_schedule": "a \" NaN""#]));
    assert!(inside.contains(r#""a \" NaN""#), "{inside}");
}

#[test]
fn files_that_are_cut_off_or_no_json_are_named() {
    let whole = r#"{"_class_name": "DDIMScheduler", "beta_start": 0.00085, "clip_sample": false}"#;
    for end in 0..whole.len() {
        let error = message(SchedulerJson::parse(&whole[..end], Path::new(FILE)));
        assert!(error.contains(FILE), "cut at {end}: {error}");
    }
    assert!(SchedulerJson::parse(whole, Path::new(FILE)).is_ok());
    for text in ["[1]", "null", "\"text\"", "\u{0}", "{\"a\": \"\\", "-Infinity", "{\"\\ud800\": NaN"] {
        assert!(message(SchedulerJson::parse(text, Path::new(FILE))).contains(FILE), "{text}");
    }

    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("scheduler_config.json");
    assert!(message(SchedulerJson::open(&path)).contains("scheduler_config.json"));
    std::fs::write(&path, whole.repeat(20_000)).unwrap();
    let long = message(SchedulerJson::open(&path));
    assert!(long.contains("scheduler_config.json") && long.contains("too many"), "{long}");
    std::fs::write(&path, whole).unwrap();
    assert_eq!(SchedulerJson::open(&path).unwrap().class_name(), Some("DDIMScheduler"));
}

#[test]
fn long_values_are_shortened_in_messages() {
    let long = message(try_scheduler("DDIMScheduler", &[&format!(r#""beta_schedule": "{}""#, "é".repeat(5000))]));
    assert!(long.chars().count() < 600, "{}", long.len());
}

#[test]
fn walks_that_are_impossible_say_why() {
    let ddim = scheduler("DDIMScheduler", &[]);
    for (steps, strength, part) in [
        (0, 1.0, "`steps`"),
        (1001, 1.0, "`steps`"),
        (20, 1.5, "`strength`"),
        (20, f64::NAN, "`strength`"),
        (4, 0.2, "`strength`"),
    ] {
        assert!(message(ddim.walk(steps, strength)).contains(part), "{steps} {strength}");
    }
    // The offset leads out of the table.
    assert!(message(ddim.walk(1000, 1.0)).contains("timestep 1000"));
    assert!(message(scheduler("LCMScheduler", &[]).walk(51, 1.0)).contains("50"));
    assert!(message(scheduler("PNDMScheduler", &[]).walk(3, 1.0)).contains("4 or more"));
    let leading = r#""timestep_spacing": "leading""#;
    for class in ["DPMSolverMultistepScheduler", "UniPCMultistepScheduler"] {
        assert!(message(scheduler(class, &[leading]).walk(1000, 1.0)).contains("noise level"), "{class}");
    }
    let blind = [r#""rescale_betas_zero_snr": true"#, r#""timestep_spacing": "trailing""#];
    assert!(message(scheduler("DDIMScheduler", &blind).walk(10, 1.0)).contains("no signal"));
    // A weaker walk does not see the last timestep.
    assert!(scheduler("DDIMScheduler", &blind).walk(10, 0.5).is_ok());
}

#[test]
fn wrong_shapes_and_missing_images_are_errors() {
    let scheduler = scheduler("EulerAncestralDiscreteScheduler", &[]);
    let part = scheduler.walk(10, 0.5).unwrap();
    assert!(message(part.start(&normal(1, 1), None)).contains("`strength`"));
    assert!(part.start(&normal(1, 1), Some(&normal(2, 2))).is_err());
    let walk = scheduler.walk(2, 1.0).unwrap();
    let (x, other) = (normal(1, 2), Tensor::zeros((2, 8, 6, 5), candle_core::DType::F32, &Device::Cpu).unwrap());
    let wide = walk.run(&x, &mut |_, _| Ok(other.clone()), &mut |i| Ok(normal(i as u64, 2)), &mut |_, x| Ok(x));
    assert!(message(wide).contains("prediction"));
    let single = walk.run(&x, &mut |x, t| model(x, t), &mut |i| Ok(normal(i as u64, 1)), &mut |_, x| Ok(x));
    assert!(message(single).contains("noise"));
}

#[test]
fn odd_values_of_any_setting_end_in_a_walk_or_a_message() {
    let keys = "algorithm_type beta_end beta_schedule beta_start clip_sample clip_sample_range disable_corrector \
                dynamic_thresholding_ratio euler_at_final final_sigmas_type flow_shift interpolation_type lambda_min_clipped \
                lower_order_final num_train_timesteps original_inference_steps predict_x0 prediction_type \
                rescale_betas_zero_snr sample_max_value set_alpha_to_one shift_terminal sigma_max sigma_min skip_prk_steps \
                solver_order solver_p solver_type steps_offset thresholding time_shift_type timestep_scaling \
                timestep_spacing timestep_type trained_betas use_beta_sigmas use_dynamic_shifting use_exponential_sigmas \
                use_flow_sigmas use_karras_sigmas use_lu_lambdas variance_type";
    let odd = [
        "null",
        "true",
        "false",
        "0",
        "1",
        "2",
        "3",
        "60",
        "-1",
        "0.5",
        "1e-5",
        "1e308",
        "-0.0",
        "\"\"",
        "\"leading\"",
        "\"trailing\"",
        "\"sigma_min\"",
        "\"sample\"",
        "[]",
        "[1]",
        "{}",
        "NaN",
        "-Infinity",
    ];
    let classes = SchedulerKind::ALL.map(|kind| {
        let file = SchedulerJson::parse("{}", Path::new(FILE)).unwrap();
        file.scheduler(Some(kind)).unwrap().class_name()
    });
    let (mut walked, mut refused) = (0, 0);
    for class in classes {
        for (key, value) in keys.split_whitespace().flat_map(|key| odd.iter().map(move |value| (key, value))) {
            let scheduler = match try_scheduler(class, &[&format!("\"{key}\": {value}")]) {
                Ok(scheduler) => scheduler,
                Err(error) => {
                    refused += 1;
                    assert!(error.to_string().contains(FILE) && error.to_string().contains(key), "{error}");
                    continue;
                }
            };
            for (steps, strength) in [(1, 1.0), (3, 0.7)] {
                let Ok(walk) = scheduler.walk(steps, strength) else { continue };
                let x = walk.start(&normal(1, 1), Some(&normal(2, 1))).unwrap();
                let end = walk.run(&x, &mut |x, t| model(x, t), &mut |i| Ok(normal(i as u64, 1)), &mut |_, x| Ok(x));
                walked += usize::from(end.is_ok());
            }
        }
    }
    assert!(walked > 1000 && refused > 1000, "{walked} {refused}");
}
