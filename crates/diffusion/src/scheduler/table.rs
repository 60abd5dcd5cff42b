//! The table of noise levels that a model was trained on: `alphas_cumprod`, in `f32` operation by operation as PyTorch
//! computes it.

use serde_json::Value;

use super::Class;
use super::settings::Settings;
use crate::error::Result;

/// The longest table; all released models have 1000.
pub(super) const MOST_TIMESTEPS: usize = 10_000;

/// How the added variance rises with the timestep.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum BetaSchedule {
    Linear,
    ScaledLinear,
    SquaredCosine,
}

/// The share of the signal's variance at each timestep.
pub(super) fn read(class: Class, settings: &Settings<'_>) -> Result<Vec<f32>> {
    let mut betas = betas(class, settings)?;
    let zero_snr = rescales(class, settings)?;
    if zero_snr {
        betas = rescaled_to_zero_snr(&betas);
    }
    let mut table = products(&betas);
    // Solvers that divide by the signal get the least that `f16` holds in place of 0.
    if let (true, Class::Euler | Class::EulerAncestral | Class::Dpm | Class::UniPc, Some(last)) =
        (zero_snr, class, table.last_mut())
    {
        *last = f32::from_bits(0x3380_0000);
    }
    let zeros = table.iter().filter(|alpha| **alpha == 0.0).count();
    if table.iter().any(|alpha| !(0.0..1.0).contains(alpha)) || zeros > usize::from(zero_snr) {
        let key = if settings.values.contains_key("trained_betas") { "trained_betas" } else { "beta_end" };
        let supported = "values that, with `beta_start`, `beta_schedule`, `num_train_timesteps` and \
                         `rescale_betas_zero_snr`, leave some signal and add some noise at every timestep";
        return Err(settings.refuse(key, supported));
    }
    Ok(table)
}

/// True where the last timestep is to be noise alone ("Common Diffusion Noise Schedules and Sample Steps are Flawed", Lin
/// et al. 2023); two classes do not know that setting.
fn rescales(class: Class, settings: &Settings<'_>) -> Result<bool> {
    match class {
        Class::Pndm | Class::Heun => Ok(false),
        _ => settings.flag("rescale_betas_zero_snr", false),
    }
}

/// True where the schedule is the squared cosine, for which some timesteps are not rounded.
pub(super) fn is_squared_cosine(settings: &Settings<'_>) -> bool {
    settings.values.get("beta_schedule").and_then(Value::as_str) == Some("squaredcos_cap_v2")
}

fn betas(class: Class, settings: &Settings<'_>) -> Result<Vec<f32>> {
    let (start, end, schedule) = match class {
        Class::Heun => (0.00085, 0.012, "linear"),
        Class::Lcm => (0.00085, 0.012, "scaled_linear"),
        _ => (0.0001, 0.02, "linear"),
    };
    let timesteps = settings.count("num_train_timesteps", 1000, 2, MOST_TIMESTEPS)?;
    if let Some(trained) = settings.values.get("trained_betas").filter(|betas| !betas.is_null()) {
        return trained_betas(trained, timesteps)
            .ok_or_else(|| settings.refuse("trained_betas", format!("null or {timesteps} numbers between 0 and 1")));
    }
    let start = settings.number("beta_start", start, 1e-9, 0.999)?;
    let end = settings.number("beta_end", end, 1e-9, 0.999)?;
    let schedule = settings.choice(
        "beta_schedule",
        schedule,
        &[
            ("linear", BetaSchedule::Linear),
            ("scaled_linear", BetaSchedule::ScaledLinear),
            ("squaredcos_cap_v2", BetaSchedule::SquaredCosine),
        ],
    )?;
    Ok(match schedule {
        BetaSchedule::Linear => linspace(start, end, timesteps),
        BetaSchedule::ScaledLinear => {
            linspace(start.sqrt(), end.sqrt(), timesteps).into_iter().map(|root| root * root).collect()
        }
        BetaSchedule::SquaredCosine => squared_cosine(timesteps),
    })
}

fn trained_betas(values: &Value, timesteps: usize) -> Option<Vec<f32>> {
    let values = values.as_array().filter(|values| values.len() == timesteps)?;
    values.iter().map(|beta| beta.as_f64().filter(|beta| (0.0..1.0).contains(beta)).map(|beta| beta as f32)).collect()
}

/// `torch.linspace` in `f32`: from both ends to the middle.
pub(super) fn linspace(start: f64, end: f64, steps: usize) -> Vec<f32> {
    let (start, end) = (start as f32, end as f32);
    let step = (end - start) / (steps.max(2) - 1) as f32;
    let at = |i: usize| match i < steps / 2 {
        true => step.mul_add(i as f32, start),
        false => (-step).mul_add((steps - i - 1) as f32, end),
    };
    (0..steps).map(at).collect()
}

/// Nichol and Dhariwal 2021: the signal falls with a squared cosine; no step adds more than 0.999.
fn squared_cosine(timesteps: usize) -> Vec<f32> {
    let signal = |t: f64| ((t + 0.008) / 1.008 * std::f64::consts::PI / 2.0).cos().powi(2);
    let at = |i: usize| i as f64 / timesteps as f64;
    (0..timesteps).map(|i| (1.0 - signal(at(i + 1)) / signal(at(i))).min(0.999) as f32).collect()
}

/// The running products of `1 - beta`; the product is kept in `f64`, as `torch.cumprod` does.
fn products(betas: &[f32]) -> Vec<f32> {
    let multiply = |product: &mut f64, beta: &f32| {
        *product *= f64::from(1.0 - beta);
        Some(*product as f32)
    };
    betas.iter().scan(1.0f64, multiply).collect()
}

/// Shifts and stretches the signal so that the last timestep has none and the first has what it had.
fn rescaled_to_zero_snr(betas: &[f32]) -> Vec<f32> {
    let roots: Vec<f32> = products(betas).into_iter().map(f32::sqrt).collect();
    let (Some(&first), Some(&last)) = (roots.first(), roots.last()) else { return Vec::new() };
    let stretch = first / (first - last);
    let signal: Vec<f32> = roots.iter().map(|root| ((root - last) * stretch).powi(2)).collect();
    let before = std::iter::once(1.0).chain(signal.iter().copied());
    signal.iter().zip(before).map(|(signal, before)| 1.0 - signal / before).collect()
}
