//! UniPC, of order 1 to 3: Zhao et al. 2023, "UniPC: A Unified Predictor-Corrector Framework for Fast Sampling of
//! Diffusion Models" (diffusers' `UniPCMultistepScheduler`), predicting images. The corrector uses the prediction that
//! the next step needs anyway.

use std::collections::VecDeque;

use candle_core::Tensor;

use super::Scheduler;
use super::dpm::ends;
use super::level::{Level, combine};
use super::settings::Settings;
use super::sigmas::{Final, Ramp, all_differ, interpolated, last_sigma, rounded, sigma_table, timesteps_at};
use super::walk::{Draws, Grid, Stepper, Walk};
use crate::error::{DiffusionError, Result};

/// What the file says.
#[derive(Clone, Debug)]
pub(super) struct UniPcSettings {
    order: usize,
    /// `solver_type` bh1 rather than bh2.
    is_bh1: bool,
    lower_order_final: bool,
    /// Calls after which nothing is corrected.
    disable_corrector: Vec<usize>,
    ramp: Ramp,
    last: Final,
}

impl UniPcSettings {
    pub fn read(settings: &Settings<'_>) -> Result<Self> {
        settings.only_off(&["use_flow_sigmas", "use_dynamic_shifting"])?;
        if !settings.flag("predict_x0", true)? {
            return Err(settings.refuse("predict_x0", "true"));
        }
        for key in ["solver_p", "shift_terminal"] {
            if settings.values.get(key).is_some_and(|value| !value.is_null()) {
                return Err(settings.refuse(key, "null"));
            }
        }
        let read = Self {
            order: settings.count("solver_order", 2, 1, 3)?,
            is_bh1: settings.choice(
                "solver_type",
                "bh2",
                &[("bh1", true), ("bh2", false), ("midpoint", false), ("heun", false), ("logrho", false)],
            )?,
            lower_order_final: settings.flag("lower_order_final", true)?,
            disable_corrector: disabled(settings)?,
            ramp: Ramp::read(settings)?,
            last: Final::read(settings)?,
        };
        if read.order > 1 && !read.lower_order_final && read.last == Final::Zero {
            return Err(settings.refuse("lower_order_final", "true, unless `final_sigmas_type` is \"sigma_min\""));
        }
        Ok(read)
    }
}

fn disabled(settings: &Settings<'_>) -> Result<Vec<usize>> {
    let Some(value) = settings.values.get("disable_corrector") else { return Ok(Vec::new()) };
    let calls: Option<Vec<usize>> = value
        .as_array()
        .and_then(|calls| calls.iter().map(|call| call.as_u64().and_then(|call| usize::try_from(call).ok())).collect());
    calls.ok_or_else(|| settings.refuse("disable_corrector", "a list of whole numbers from 0"))
}

pub(super) fn grid(scheduler: &Scheduler, settings: &UniPcSettings, steps: usize) -> Result<Grid> {
    let train = scheduler.table.len();
    let sigmas_by_timestep = sigma_table(&scheduler.table);
    let mut timesteps = scheduler.spacing.above_first(train, train, scheduler.steps_offset, steps);
    let (least, most) = ends(&sigmas_by_timestep);
    let mut last = last_sigma(scheduler, settings.last);
    let mut sigmas = match settings.ramp.sigmas(most, least, steps) {
        Some(curve) => {
            timesteps = timesteps_at(&sigmas_by_timestep, &curve);
            if settings.ramp.is_karras() {
                timesteps.iter_mut().for_each(|timestep| *timestep = timestep.round_ties_even());
            }
            if settings.last == Final::SigmaMin {
                last = curve.last().copied().unwrap_or(last);
            }
            curve
        }
        None => timesteps.iter().map(|timestep| interpolated(&sigmas_by_timestep, *timestep)).collect(),
    };
    sigmas.push(last);
    let sigmas: Vec<f64> = sigmas.into_iter().map(rounded).collect();
    all_differ(&sigmas, steps)?;
    Ok(Grid { timesteps: timesteps.into_iter().map(f64::trunc).collect(), sigmas })
}

pub(super) struct UniPc<'a> {
    walk: &'a Walk<'a>,
    settings: &'a UniPcSettings,
    /// Predicted images, the newest first; as many as the order.
    images: VecDeque<Tensor>,
    /// Where the last step started, corrected, and the order it had.
    before: Option<(Tensor, usize)>,
}

/// A step between two levels, with the systems of equations that its orders solve.
struct Step {
    /// The steps before, in units of this one; negative.
    ratios: Vec<f64>,
    /// What is left of the image's noise.
    kept: f64,
    /// The signal at its end.
    signal: f64,
    /// exp(-h) - 1.
    gone: f64,
    /// B(h) of the paper.
    scale: f64,
    /// The right side of the equations.
    right: Vec<f64>,
}

impl<'a> UniPc<'a> {
    pub fn new(walk: &'a Walk<'a>, settings: &'a UniPcSettings) -> Self {
        Self { walk, settings, images: VecDeque::new(), before: None }
    }

    /// The step from call `from` to the next; `None` where it has no length.
    fn between(&self, from: usize, order: usize) -> Option<Step> {
        let lambda = |index: usize| -self.walk.sigma_at(index).ln();
        let h = lambda(from + 1) - lambda(from);
        if h == 0.0 {
            return None;
        }
        let (level, next) = (Level::of_sigma(self.walk.sigma_at(from)), Level::of_sigma(self.walk.sigma_at(from + 1)));
        let gone = (-h).exp_m1();
        let scale = if self.settings.is_bh1 { -h } else { gone };
        let (mut phi, mut factorial, mut right) = (gone / -h - 1.0, 1.0, Vec::new());
        for i in 1..=order {
            right.push(phi * factorial / scale);
            factorial *= (i + 1) as f64;
            phi = phi / -h - 1.0 / factorial;
        }
        let ratios = (1..order).map(|i| (lambda(from.saturating_sub(i)) - lambda(from)) / h).collect();
        Some(Step { ratios, kept: next.noise / level.noise, signal: next.signal, gone, scale, right })
    }

    /// The prediction for the next level, from the images so far.
    fn predict(&self, index: usize, x: &Tensor, order: usize) -> Result<Tensor> {
        let Some(step) = self.between(index, order) else { return Ok(x.clone()) };
        let rhos = match order {
            1 => Vec::new(),
            2 => vec![0.5],
            _ => solve(&step.ratios, &step.right)?,
        };
        step.to(x, &self.images, &rhos, None)
    }

    /// What the prediction should have been, with the image that the model sees behind it.
    fn correct(&self, index: usize, image: &Tensor, before: &Tensor, x: &Tensor, order: usize) -> Result<Tensor> {
        let Some(step) = self.between(index - 1, order) else { return Ok(x.clone()) };
        let mut ratios = step.ratios.clone();
        ratios.push(1.0);
        let mut rhos = if order == 1 { vec![0.5] } else { solve(&ratios, &step.right)? };
        let newest = rhos.pop().unwrap_or_default();
        step.to(before, &self.images, &rhos, Some((newest, image)))
    }

    fn order(&self, index: usize) -> usize {
        let left = self.walk.grid.timesteps.len() - index;
        let most = if self.settings.lower_order_final { self.settings.order.min(left) } else { self.settings.order };
        most.min(self.images.len())
    }
}

impl Step {
    /// `x` moved along this step: by the newest of `images`, by the differences of the older ones to it, and by that of
    /// an image at the step's end.
    fn to(&self, x: &Tensor, images: &VecDeque<Tensor>, rhos: &[f64], end: Option<(f64, &Tensor)>) -> Result<Tensor> {
        let mut terms = vec![(self.kept, x)];
        let mut newest = self.signal * -self.gone;
        // An order without differences has no use for the scale, which can be infinite at the last step.
        let scale = if rhos.is_empty() && end.is_none() { 0.0 } else { -self.signal * self.scale };
        for ((rho, ratio), image) in rhos.iter().zip(&self.ratios).zip(images.iter().skip(1)) {
            terms.push((scale * rho / ratio, image));
            newest -= scale * rho / ratio;
        }
        if let Some((rho, image)) = end {
            terms.push((scale * rho, image));
            newest -= scale * rho;
        }
        terms.extend(images.front().map(|image| (newest, image)));
        combine(&terms)
    }
}

impl Stepper for UniPc<'_> {
    fn step(&mut self, index: usize, x: &Tensor, prediction: &Tensor, _: &mut Draws<'_, '_>) -> Result<Tensor> {
        let scheduler = self.walk.scheduler;
        let image = scheduler.limit.apply(scheduler.prediction.clean(self.walk.level(index)?, x, prediction)?)?;
        let x = match self.before.take() {
            Some((before, order)) if !self.settings.disable_corrector.contains(&(index - 1)) => {
                self.correct(index, &image, &before, x, order)?
            }
            _ => x.clone(),
        };
        self.images.truncate(self.settings.order - 1);
        self.images.push_front(image);
        let order = self.order(index);
        let next = self.predict(index, &x, order)?;
        self.before = Some((x, order));
        Ok(next)
    }
}

/// Factors `rho` with `sum over k of ratio_k ^ i * rho_k = right_i` for i = 0, 1, ..; as many as ratios.
fn solve(ratios: &[f64], right: &[f64]) -> Result<Vec<f64>> {
    let size = ratios.len();
    let mut rows: Vec<Vec<f64>> = (0..size)
        .zip(right)
        .map(|(i, right)| ratios.iter().map(|ratio| ratio.powi(i as i32)).chain([*right]).collect())
        .collect();
    for column in 0..size {
        let pivot = (column..size)
            .max_by(|a, b| entry(&rows, *a, column).abs().total_cmp(&entry(&rows, *b, column).abs()))
            .unwrap_or(column);
        rows.swap(column, pivot);
        let pivot = rows.get(column).cloned().unwrap_or_default();
        for (_, row) in rows.iter_mut().enumerate().filter(|(i, _)| *i != column) {
            let factor = row.get(column).copied().unwrap_or(0.0) / pivot.get(column).copied().unwrap_or(0.0);
            row.iter_mut().zip(&pivot).for_each(|(entry, pivot)| *entry -= factor * pivot);
        }
    }
    let rhos: Vec<f64> = (0..size).map(|i| entry(&rows, i, size) / entry(&rows, i, i)).collect();
    match rhos.iter().all(|rho| rho.is_finite()) {
        true => Ok(rhos),
        false => Err(DiffusionError::Setting {
            key: "steps",
            reason: "two of them are at the same noise level; take fewer steps".into(),
        }),
    }
}

fn entry(rows: &[Vec<f64>], row: usize, column: usize) -> f64 {
    rows.get(row).and_then(|row| row.get(column)).copied().unwrap_or(0.0)
}
