//! Multistep consistency sampling: Luo et al. 2023, "Latent Consistency Models", algorithm 3 (diffusers' `LCMScheduler`).

use candle_core::Tensor;

use super::Scheduler;
use super::level::combine;
use super::settings::Settings;
use super::table::MOST_TIMESTEPS;
use super::walk::{Draws, Grid, Stepper, Walk};
use crate::error::{DiffusionError, Result};

/// The deviation of the data that the boundary condition assumes.
const SIGMA_DATA: f64 = 0.5;

/// What the file says.
#[derive(Clone, Copy, Debug)]
pub(super) struct LcmSettings {
    /// Steps of the schedule that the model was distilled on; a walk visits some of them.
    original_inference_steps: usize,
    /// What timesteps are multiplied with in the boundary condition.
    timestep_scaling: f64,
    /// Whether a strength shortens the schedule and not the walk: `LatentConsistencyModelImg2ImgPipeline`.
    pub(super) keeps_steps: bool,
}

impl LcmSettings {
    pub fn read(settings: &Settings<'_>) -> Result<Self> {
        Ok(Self {
            original_inference_steps: settings.count("original_inference_steps", 50, 1, MOST_TIMESTEPS)?,
            timestep_scaling: settings.number("timestep_scaling", 10.0, 0.0, 1e6)?,
            keeps_steps: false,
        })
    }
}

/// Even strides down the first `share` of the distilled schedule; the spacing of the file plays no part.
pub(super) fn grid(scheduler: &Scheduler, settings: &LcmSettings, steps: usize, share: f64) -> Result<Grid> {
    let (original, train) = (settings.original_inference_steps, scheduler.table.len());
    let length = (original as f64 * share) as usize;
    if original > train || steps > length {
        let reason = match original > train {
            true => format!("`original_inference_steps` is {original}, above the model's {train} timesteps"),
            false if share < 1.0 => {
                format!("{steps} are more than the {length} that a strength of {share} leaves; raise it, or take fewer")
            }
            false => format!("{steps} are more than the {length} that the model was distilled on; take 1 to 8"),
        };
        return Err(DiffusionError::Setting { key: "steps", reason });
    }
    let stride = length as f64 / steps as f64;
    let at = |i: usize| ((length - (i as f64 * stride) as usize) * (train / original) - 1) as f64;
    Ok(Grid { timesteps: (0..steps).map(at).collect(), sigmas: Vec::new() })
}

pub(super) struct Lcm<'a> {
    walk: &'a Walk<'a>,
    timestep_scaling: f64,
}

impl<'a> Lcm<'a> {
    pub fn new(walk: &'a Walk<'a>, settings: &LcmSettings) -> Self {
        Self { walk, timestep_scaling: settings.timestep_scaling }
    }
}

impl Stepper for Lcm<'_> {
    fn step(&mut self, index: usize, x: &Tensor, prediction: &Tensor, draws: &mut Draws<'_, '_>) -> Result<Tensor> {
        let scheduler = self.walk.scheduler;
        let clean = scheduler.limit.apply(scheduler.prediction.clean(self.walk.level(index)?, x, prediction)?)?;
        let timestep = self.walk.grid.timesteps.get(index).copied().unwrap_or(f64::NAN);
        let scaled = timestep * self.timestep_scaling;
        let size = scaled.hypot(SIGMA_DATA);
        let denoised = combine(&[(scaled / size, &clean), ((SIGMA_DATA / size).powi(2), x)])?;
        match index + 1 < self.walk.grid.timesteps.len() {
            true => self.walk.level(index + 1)?.mix(&denoised, &draws.next(x)?),
            false => Ok(denoised),
        }
    }
}
