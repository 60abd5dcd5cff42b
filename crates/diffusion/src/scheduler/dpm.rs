//! DPM-Solver++, of order 1 to 3, as an ODE or with fresh noise (SDE): Lu et al. 2022, "DPM-Solver++: Fast Solver for
//! Guided Sampling of Diffusion Probabilistic Models" (diffusers' `DPMSolverMultistepScheduler`).

use std::collections::VecDeque;

use candle_core::Tensor;
use serde_json::Value;

use super::level::{Level, combine};
use super::settings::Settings;
use super::sigmas::{Final, Ramp, all_differ, interpolated, last_sigma, rounded, sigma_table, timesteps_at};
use super::walk::{Draws, Grid, Stepper, Walk};
use super::{Scheduler, table};
use crate::error::Result;

/// Under so many steps, the last two are of lower order.
const FEW_STEPS: usize = 15;

/// What the file says.
#[derive(Clone, Copy, Debug)]
pub(super) struct DpmSettings {
    order: usize,
    stochastic: bool,
    /// `solver_type` heun rather than midpoint.
    heun: bool,
    lower_order_final: bool,
    euler_at_final: bool,
    ramp: Ramp,
    /// Timesteps on Karras' curve are rounded, but not with the squared cosine.
    rounds_karras: bool,
    last: Final,
    /// The least logarithm of signal over noise that is walked (`lambda_min_clipped`).
    least_lambda: f64,
}

impl DpmSettings {
    pub fn read(settings: &Settings<'_>) -> Result<Self> {
        settings.only_off(&["use_lu_lambdas", "use_flow_sigmas", "use_dynamic_shifting"])?;
        if let Some("learned" | "learned_range") = settings.values.get("variance_type").and_then(Value::as_str) {
            return Err(settings.refuse("variance_type", "null, as the model's second half is not read"));
        }
        Ok(Self {
            order: settings.count("solver_order", 2, 1, 3)?,
            // DEIS's name for its own algorithm means this one, and other solvers' types mean the midpoint.
            stochastic: settings.choice(
                "algorithm_type",
                "dpmsolver++",
                &[("dpmsolver++", false), ("sde-dpmsolver++", true), ("deis", false)],
            )?,
            heun: settings.choice(
                "solver_type",
                "midpoint",
                &[("midpoint", false), ("heun", true), ("logrho", false), ("bh1", false), ("bh2", false)],
            )?,
            lower_order_final: settings.flag("lower_order_final", true)?,
            euler_at_final: settings.flag("euler_at_final", false)?,
            ramp: Ramp::read(settings)?,
            rounds_karras: !table::is_squared_cosine(settings),
            last: Final::read(settings)?,
            least_lambda: match settings.values.get("lambda_min_clipped").and_then(Value::as_str) {
                Some("-Infinity") => f64::NEG_INFINITY,
                _ => settings.number("lambda_min_clipped", f64::NEG_INFINITY, -1e6, 1e6)?,
            },
        })
    }
}

pub(super) fn grid(scheduler: &Scheduler, settings: &DpmSettings, steps: usize) -> Result<Grid> {
    let train = scheduler.table.len();
    let sigmas_by_timestep = sigma_table(&scheduler.table);
    let lambda = |alpha: &f32| f64::from(alpha.sqrt().ln() - (1.0 - alpha).sqrt().ln());
    let used = scheduler.table.iter().filter(|alpha| lambda(alpha) >= settings.least_lambda).count();
    let mut timesteps = scheduler.spacing.above_first(train, used.max(1), scheduler.steps_offset, steps);
    let (least, most) = ends(&sigmas_by_timestep);
    let mut sigmas = match settings.ramp.sigmas(most, least, steps) {
        Some(curve) => {
            timesteps = timesteps_at(&sigmas_by_timestep, &curve);
            if settings.ramp.is_karras() && settings.rounds_karras {
                timesteps.iter_mut().for_each(|timestep| *timestep = timestep.round_ties_even());
            }
            curve
        }
        None => timesteps.iter().map(|timestep| interpolated(&sigmas_by_timestep, *timestep)).collect(),
    };
    sigmas.push(last_sigma(scheduler, settings.last));
    let sigmas: Vec<f64> = sigmas.into_iter().map(rounded).collect();
    all_differ(&sigmas, steps)?;
    Ok(Grid { timesteps: timesteps.into_iter().map(f64::trunc).collect(), sigmas })
}

/// The least and the highest sigma of the table.
pub(super) fn ends(table: &[f32]) -> (f64, f64) {
    let end = |sigma: Option<&f32>| sigma.copied().map_or(f64::NAN, f64::from);
    (end(table.first()), end(table.last()))
}

pub(super) struct Dpm<'a> {
    walk: &'a Walk<'a>,
    settings: DpmSettings,
    /// Predicted images, the newest first; as many as the order.
    images: VecDeque<Tensor>,
}

/// What a step of length `h` in lambda multiplies the image's differences of order 0, 1 and 2 with, before the signal.
struct Factors {
    value: f64,
    slope: f64,
    curvature: f64,
}

impl<'a> Dpm<'a> {
    pub fn new(walk: &'a Walk<'a>, settings: &DpmSettings) -> Self {
        Self { walk, settings: *settings, images: VecDeque::new() }
    }

    /// Fewer predictions are used at the start, where there are no more, and at the end.
    fn order(&self, index: usize) -> usize {
        let all = self.walk.grid.timesteps.len();
        let few = self.settings.lower_order_final && all < FEW_STEPS;
        let last_is_first_order = self.settings.euler_at_final || few || self.settings.last == Final::Zero;
        let most = match all - index {
            1 if last_is_first_order => 1,
            2 if few => 2,
            _ => 3,
        };
        self.settings.order.min(self.images.len()).min(most)
    }

    fn factors(&self, h: f64, order: usize) -> Factors {
        // With fresh noise twice the length is walked, and the noise brings half of it back.
        let length = if self.settings.stochastic { 2.0 * h } else { h };
        let gone = (-length).exp_m1();
        let sign = if self.settings.stochastic { 1.0 } else { -1.0 };
        Factors {
            value: -gone,
            slope: if order == 2 && !self.settings.heun { -gone / 2.0 } else { gone / length + 1.0 },
            curvature: -((gone + length) / (length * length) + sign * 0.5),
        }
    }

    /// `- ln sigma`, half the logarithm of the ratio of signal to noise.
    fn lambda(&self, index: usize) -> f64 {
        -self.walk.sigma_at(index).ln()
    }
}

impl Stepper for Dpm<'_> {
    fn step(&mut self, index: usize, x: &Tensor, prediction: &Tensor, draws: &mut Draws<'_, '_>) -> Result<Tensor> {
        let scheduler = self.walk.scheduler;
        let level = self.walk.level(index)?;
        let image = scheduler.limit.apply(scheduler.prediction.clean(level, x, prediction)?)?;
        self.images.truncate(self.settings.order - 1);
        self.images.push_front(image);
        let noise = if self.settings.stochastic { Some(draws.next(x)?) } else { None };

        let order = self.order(index);
        let next = Level::of_sigma(self.walk.sigma_at(index + 1));
        let h = self.lambda(index + 1) - self.lambda(index);
        if h == 0.0 {
            return Ok(x.clone());
        }
        let Factors { value, slope, curvature } = self.factors(h, order);
        // Steps before this one, in units of it.
        let r0 = (self.lambda(index) - self.lambda(index.saturating_sub(1))) / h;
        let r1 = (self.lambda(index.saturating_sub(1)) - self.lambda(index.saturating_sub(2))) / h;
        let weights = match order {
            1 => [value, 0.0, 0.0],
            2 => [value + slope / r0, -slope / r0, 0.0],
            _ => {
                let (newer, older) =
                    ((slope * (2.0 * r0 + r1) + curvature) / (r0 + r1), (slope * r0 + curvature) / (r0 + r1));
                [value + newer / r0, -newer / r0 - older / r1, older / r1]
            }
        };
        let kept = next.noise / level.noise * if self.settings.stochastic { (-h).exp() } else { 1.0 };
        let mut terms = vec![(kept, x)];
        terms.extend(weights.iter().zip(&self.images).map(|(weight, image)| (next.signal * weight, image)));
        if let Some(noise) = &noise {
            terms.push((next.noise * (-(-2.0 * h).exp_m1()).sqrt(), noise));
        }
        combine(&terms)
    }
}
