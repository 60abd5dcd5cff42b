//! Euler's method over sigma: algorithm 2 of Karras et al. 2022 without churn (diffusers' `EulerDiscreteScheduler`), and
//! with fresh noise at each step (`EulerAncestralDiscreteScheduler`, after k-diffusion's `sample_euler_ancestral`).

use candle_core::Tensor;

use super::Scheduler;
use super::level::{Prediction, combine};
use super::settings::Settings;
use super::sigmas::{Final, Ramp, along_timesteps, last_sigma, rounded};
use super::walk::{Draws, Grid, Stepper, Walk};
use crate::error::Result;

/// What the file says.
#[derive(Clone, Copy, Debug)]
pub(super) struct EulerSettings {
    ramp: Ramp,
    last: Final,
    /// `interpolation_type` is `log_linear`.
    log_linear: bool,
    /// `timestep_type` is `continuous`: a model of velocities is told a quarter of sigma's logarithm.
    continuous: bool,
}

impl EulerSettings {
    pub fn read(settings: &Settings<'_>) -> Result<Self> {
        Ok(Self {
            ramp: Ramp::read(settings)?,
            last: Final::read(settings)?,
            log_linear: settings.choice("interpolation_type", "linear", &[("linear", false), ("log_linear", true)])?,
            continuous: settings.choice("timestep_type", "discrete", &[("discrete", false), ("continuous", true)])?,
        })
    }
}

pub(super) fn grid(scheduler: &Scheduler, settings: &EulerSettings, steps: usize) -> Grid {
    let (mut timesteps, mut sigmas) = along_timesteps(scheduler, settings.ramp, settings.log_linear, steps);
    sigmas.push(last_sigma(scheduler, settings.last));
    sigmas.iter_mut().for_each(|sigma| *sigma = rounded(*sigma));
    if settings.continuous && scheduler.prediction == Prediction::Velocity {
        timesteps = sigmas.iter().take(timesteps.len()).map(|sigma| rounded(0.25 * sigma.ln())).collect();
    }
    Grid { timesteps, sigmas }
}

pub(super) fn ancestral_grid(scheduler: &Scheduler, steps: usize) -> Grid {
    let (timesteps, mut sigmas) = along_timesteps(scheduler, Ramp::NONE, false, steps);
    sigmas.push(0.0);
    sigmas.iter_mut().for_each(|sigma| *sigma = rounded(*sigma));
    Grid { timesteps, sigmas }
}

pub(super) struct Euler<'a> {
    walk: &'a Walk<'a>,
}

impl<'a> Euler<'a> {
    pub fn new(walk: &'a Walk<'a>) -> Self {
        Self { walk }
    }
}

impl Stepper for Euler<'_> {
    fn step(&mut self, index: usize, x: &Tensor, prediction: &Tensor, _: &mut Draws<'_, '_>) -> Result<Tensor> {
        let clean = self.walk.scheduler.prediction.clean(self.walk.level(index)?, x, prediction)?;
        let left = self.walk.sigma_at(index + 1) / self.walk.sigma_at(index);
        combine(&[(left, x), (1.0 - left, &clean)])
    }
}

pub(super) struct EulerAncestral<'a> {
    walk: &'a Walk<'a>,
}

impl<'a> EulerAncestral<'a> {
    pub fn new(walk: &'a Walk<'a>) -> Self {
        Self { walk }
    }
}

impl Stepper for EulerAncestral<'_> {
    fn step(&mut self, index: usize, x: &Tensor, prediction: &Tensor, draws: &mut Draws<'_, '_>) -> Result<Tensor> {
        let clean = self.walk.scheduler.prediction.clean(self.walk.level(index)?, x, prediction)?;
        let (sigma, next) = (self.walk.sigma_at(index), self.walk.sigma_at(index + 1));
        // Down to less than the next level, and up to it with fresh noise.
        let share = next / sigma;
        let up = next * (1.0 - share * share).max(0.0).sqrt();
        let down = share * share;
        let x = combine(&[(down, x), (1.0 - down, &clean)])?;
        match up > 0.0 {
            true => combine(&[(1.0, &x), (up, &draws.next(&x)?)]),
            false => Ok(x),
        }
    }
}
