//! DDIM: Song et al. 2021, "Denoising Diffusion Implicit Models", equation 12 with eta = 0 (diffusers' `DDIMScheduler`).

use candle_core::Tensor;

use super::Scheduler;
use super::level::combine;
use super::settings::Settings;
use super::walk::{Draws, Grid, Stepper, Walk};
use crate::error::Result;

/// What the file says.
#[derive(Clone, Copy, Debug)]
pub(super) struct DdimSettings {
    /// True where the last step leads to a clean image, false where it leads to the table's first level.
    set_alpha_to_one: bool,
}

impl DdimSettings {
    pub fn read(settings: &Settings<'_>) -> Result<Self> {
        Ok(Self { set_alpha_to_one: settings.flag("set_alpha_to_one", true)? })
    }
}

/// The timesteps of DDIM and DDPM.
pub(super) fn grid(scheduler: &Scheduler, steps: usize) -> Grid {
    let timesteps = scheduler.spacing.to_first(scheduler.table.len(), scheduler.steps_offset, steps);
    Grid { timesteps: timesteps.into_iter().map(f64::round_ties_even).collect(), sigmas: Vec::new() }
}

/// The share of signal behind the last step.
pub(super) fn final_alpha(scheduler: &Scheduler, set_alpha_to_one: bool) -> f64 {
    match scheduler.table.first() {
        Some(&first) if !set_alpha_to_one => f64::from(first),
        _ => 1.0,
    }
}

pub(super) struct Ddim<'a> {
    walk: &'a Walk<'a>,
    final_alpha: f64,
    /// Timesteps from one call to the next.
    stride: f64,
}

impl<'a> Ddim<'a> {
    pub fn new(walk: &'a Walk<'a>, settings: &DdimSettings) -> Self {
        let final_alpha = final_alpha(walk.scheduler, settings.set_alpha_to_one);
        Self { walk, final_alpha, stride: (walk.scheduler.table.len() / walk.steps) as f64 }
    }
}

impl Stepper for Ddim<'_> {
    fn step(&mut self, index: usize, x: &Tensor, prediction: &Tensor, _: &mut Draws<'_, '_>) -> Result<Tensor> {
        let scheduler = self.walk.scheduler;
        let level = self.walk.level(index)?;
        let timestep = self.walk.grid.timesteps.get(index).copied().unwrap_or(f64::NAN);
        let next = scheduler.level_or(timestep - self.stride, self.final_alpha)?;
        let clean = scheduler.limit.apply(scheduler.prediction.clean(level, x, prediction)?)?;
        let normal = scheduler.prediction.normal(level, x, prediction)?;
        combine(&[(next.signal, &clean), (next.noise, &normal)])
    }
}
