//! Samplers against data whose ODE has a closed form: pixels that are normal with mean `M` and deviation `S` have
//! `D(x; sigma) = M + S² / (S² + sigma²) (x - M)`, and `(x - M) / sqrt(S² + sigma²)` is constant along the flow.

use std::cell::Cell;

use candle_core::{DType, Device, Tensor};
use evenset_core::Seed;

use super::*;

const M: f64 = 0.3;
const S: f64 = 0.5;

fn denoise(x: &Tensor, sigma: f64) -> Result<Tensor> {
    Ok((((x - M)? * (S * S / (S * S + sigma * sigma)))? + M)?)
}

fn noise(images: usize) -> Tensor {
    let values: Vec<f32> = (0..images).flat_map(|i| Seed(i as u64).normal(12)).collect();
    Tensor::from_vec(values, (images, 3, 2, 2), &Device::Cpu).unwrap().to_dtype(DType::F64).unwrap()
}

fn largest_difference(a: &Tensor, b: &Tensor) -> f64 {
    (a - b).unwrap().abs().unwrap().flatten_all().unwrap().max(0).unwrap().to_scalar().unwrap()
}

/// The error at `sigma_end` of a walk in `steps` steps.
fn error(build: impl Fn(Vec<f64>) -> Box<dyn Sampler>, steps: usize) -> f64 {
    let schedule = KarrasSchedule { sigma_min: 0.02, ..KarrasSchedule::default() };
    let mut sigmas = schedule.sigmas(steps + 1);
    sigmas.pop();
    let x = build(sigmas).sample(&denoise, &noise(2)).unwrap();
    let shrink = ((S * S + schedule.sigma_min.powi(2)) / (S * S + schedule.sigma_max.powi(2))).sqrt();
    let exact = ((((noise(2) * schedule.sigma_max).unwrap() - M).unwrap() * shrink).unwrap() + M).unwrap();
    largest_difference(&x, &exact)
}

#[test]
fn both_solvers_converge_at_second_order() {
    type Build = fn(Vec<f64>) -> Box<dyn Sampler>;
    let heun: Build = |sigmas| Box::new(Heun::new(sigmas));
    let dpmpp: Build = |sigmas| Box::new(Dpmpp2m::new(sigmas));
    for (name, build) in [("heun", heun), ("dpmpp-2m", dpmpp)] {
        let (coarse, fine) = (error(build, 80), error(build, 160));
        let order = (coarse / fine).log2();
        assert!((1.85..2.4).contains(&order), "{name}: order {order} from {coarse:.2e} to {fine:.2e}");
        assert!(fine < 2e-3, "{name}: {fine:.2e}");
    }
}

#[test]
fn the_default_samplers_draw_from_the_data_distribution() {
    for config in [SamplerConfig::default(), heun(18)] {
        let x = config.sampler(0).sample(&denoise, &noise(64)).unwrap();
        // The solution is affine in the noise. Few steps overshoot its slope by some per cent, and the mean is lost in the
        // starting noise up to 0.3 * 0.5 / 80.
        let values = |x: &Tensor| x.flatten_all().unwrap().to_vec1::<f64>().unwrap();
        for (x, n) in values(&x).into_iter().zip(values(&noise(64))) {
            assert!((x - M - S * n).abs() < 0.08 * (S * n).abs() + 0.003, "{config:?}: {x} from {n}");
        }
    }
}

#[test]
fn an_image_is_the_same_alone_and_in_a_batch() {
    for config in [SamplerConfig::default(), heun(5)] {
        let batch = config.sampler(0).sample(&denoise, &noise(3)).unwrap();
        for i in 0..3 {
            let alone = config.sampler(0).sample(&denoise, &noise(3).narrow(0, i, 1).unwrap()).unwrap();
            let (alone, within) = (alone.flatten_all().unwrap(), batch.get(i).unwrap().flatten_all().unwrap());
            assert_eq!(alone.to_vec1::<f64>().unwrap(), within.to_vec1::<f64>().unwrap());
        }
    }
}

#[test]
fn a_sampler_evaluates_the_model_as_often_as_it_says() {
    for (config, evaluations) in [(SamplerConfig::default(), 12), (heun(18), 35), (heun(1), 1)] {
        let count = Cell::new(0);
        let counting = |x: &Tensor, sigma: f64| {
            count.set(count.get() + 1);
            denoise(x, sigma)
        };
        config.sampler(0).sample(&counting, &noise(1)).unwrap();
        assert_eq!(count.get(), evaluations, "{config:?}");
    }
}

#[test]
fn guidance_pushes_away_from_the_unconditional_prediction() {
    let value = |x: f64| Tensor::new(&[x], &Device::Cpu).unwrap();
    let guided = |guidance: Guidance, sigma| {
        let x = guidance.apply(sigma, || Ok(value(3.0)), || Ok(value(1.0))).unwrap();
        x.to_vec1::<f64>().unwrap()[0]
    };
    assert_eq!(guided(Guidance { scale: 1.5, interval: None }, 2.0), 4.0);
    assert_eq!(guided(Guidance { scale: 0.0, interval: None }, 2.0), 1.0);
    let within = Guidance { scale: 1.5, interval: Some([0.5, 3.0]) };
    assert_eq!([guided(within, 0.4), guided(within, 2.0), guided(within, 3.1)], [3.0, 4.0, 3.0]);
}

#[test]
fn without_guidance_the_unconditional_model_is_not_asked() {
    let guidance = Guidance { scale: 1.0, interval: None };
    let conditional = || Ok(Tensor::new(&[3f64], &Device::Cpu)?);
    assert!(guidance.apply(2.0, conditional, || panic!("asked")).is_ok());
}

#[test]
fn a_configuration_reads_with_defaults_and_refuses_what_it_does_not_know() {
    let read = |text: &str| serde_json::from_str::<SamplerConfig>(text);
    assert_eq!(read(r#"{"type":"dpmpp-2m"}"#).unwrap(), SamplerConfig::default());
    assert_eq!(read(r#"{"type":"heun"}"#).unwrap(), heun(18));
    let error = read(r#"{"type":"heun","step":3}"#).unwrap_err().to_string();
    assert!(error.contains("step") && error.contains("guidance"), "{error}");
    assert!(read(r#"{"type":"euler"}"#).unwrap_err().to_string().contains("dpmpp-2m"));
}

#[test]
fn impossible_settings_are_named() {
    let said = |text: &str| serde_json::from_str::<SamplerConfig>(text).unwrap().validate().unwrap_err().to_string();
    assert!(said(r#"{"type":"heun","steps":0}"#).contains("`steps`: 0"));
    assert!(said(r#"{"type":"heun","guidance":-1}"#).contains("`guidance`: -1"));
    assert!(said(r#"{"type":"heun","guidance_interval":[2,1]}"#).contains("guidance_interval"));
    assert!(SamplerConfig::default().validate().is_ok());
}

fn heun(steps: u64) -> SamplerConfig {
    SamplerConfig::Heun { steps, guidance: 1.5, guidance_interval: None, guided: None }
}

#[test]
fn the_inverse_leads_to_the_noise_that_an_image_is_drawn_from() {
    let (image, seen) = (((noise(2) * S).unwrap() + M).unwrap(), noise(4).narrow(0, 2, 2).unwrap());
    let dpmpp = SamplerConfig::Dpmpp2m { steps: 200, guidance: 1.0, guidance_interval: None, guided: None };
    for config in [dpmpp, heun(200)] {
        // Where 199 steps are left out only the lowest level is left, far from the one to begin at.
        for (skipped, from) in [(0, 0.0), (0, 0.1), (120, 0.0), (120, 0.1), (199, 0.1)] {
            let (inverse, sampler) = (config.inverse(skipped, from), config.sampler(skipped));
            let (low, high) = (inverse.first_sigma(), sampler.first_sigma());
            assert!((low - if skipped < 199 { from } else { 0.0 }).abs() < 0.011, "{low} {from}");
            let up = inverse.sample(&denoise, &((&image / low).unwrap() + &seen).unwrap()).unwrap();
            let noisy = (&image + (&seen * low).unwrap()).unwrap();
            let grow = ((S * S + high * high) / (S * S + low * low)).sqrt();
            let exact = (((&noisy - M).unwrap() * grow).unwrap() + M).unwrap();
            assert!(largest_difference(&up, &exact) < 4e-3 * high, "{config:?} {skipped}");
            // What is drawn is the image that would have this noise on it, not the noise.
            let shrunk = (((noisy - M).unwrap() * (S / (S * S + low * low).sqrt())).unwrap() + M).unwrap();
            let back = sampler.sample(&denoise, &(up / high).unwrap()).unwrap();
            assert!(largest_difference(&back, &shrunk) < 2e-3, "{config:?} {skipped}");
        }
    }
}
