//! PNDM: Liu et al. 2022, "Pseudo Numerical Methods for Diffusion Models on Manifolds" (diffusers' `PNDMScheduler`): a
//! linear multistep method, started by three Runge-Kutta steps or, for Stable Diffusion (`skip_prk_steps`), by itself.

use candle_core::Tensor;

use super::Scheduler;
use super::ddim::final_alpha;
use super::level::{Prediction, combine};
use super::settings::Settings;
use super::walk::{Draws, Grid, Stepper, Walk};
use crate::error::{DiffusionError, Result};

/// Calls of the Runge-Kutta start: three steps of four.
const START: usize = 12;

/// What the file says.
#[derive(Clone, Copy, Debug)]
pub(super) struct PndmSettings {
    pub skip_prk_steps: bool,
    set_alpha_to_one: bool,
}

impl PndmSettings {
    pub fn read(settings: &Settings<'_>) -> Result<Self> {
        Ok(Self {
            skip_prk_steps: settings.flag("skip_prk_steps", false)?,
            set_alpha_to_one: settings.flag("set_alpha_to_one", false)?,
        })
    }
}

/// One call more than steps without the Runge-Kutta start, nine more with it.
pub(super) fn grid(scheduler: &Scheduler, settings: &PndmSettings, steps: usize) -> Result<Grid> {
    let train = scheduler.table.len();
    let spaced = scheduler.spacing.to_first(train, scheduler.steps_offset, steps);
    let falling: Vec<f64> = spaced.into_iter().map(f64::round_ties_even).collect();
    let timesteps = match (settings.skip_prk_steps, falling.as_slice()) {
        (true, [first, second, rest @ ..]) => {
            let mut timesteps = vec![*first, *second, *second];
            timesteps.extend(rest);
            timesteps
        }
        (true, few) => few.to_vec(),
        (false, [a, b, c, d, ..]) => {
            let half = (train / steps / 2) as f64;
            // Each step: at its start, twice in its middle, at its end, which is the next one's start.
            let mut timesteps = Vec::with_capacity(steps + START);
            for (start, end) in [(a, b), (b, c), (c, d)] {
                timesteps.extend([*start, end + half, end + half, *end]);
            }
            timesteps.extend(falling.iter().skip(3));
            timesteps
        }
        (false, _) => {
            let reason =
                format!("{steps} are too few for PNDM with Runge-Kutta steps; take 4 or more, or another solver");
            return Err(DiffusionError::Setting { key: "steps", reason });
        }
    };
    Ok(Grid { timesteps, sigmas: Vec::new() })
}

pub(super) struct Pndm<'a> {
    walk: &'a Walk<'a>,
    skip_prk_steps: bool,
    final_alpha: f64,
    stride: f64,
    /// Calls so far.
    calls: usize,
    /// The last predictions, the newest last; four at most.
    predictions: Vec<Tensor>,
    /// The sum of a Runge-Kutta step so far.
    sum: Option<Tensor>,
    /// The image that a step started from.
    origin: Option<Tensor>,
}

impl<'a> Pndm<'a> {
    pub fn new(walk: &'a Walk<'a>, settings: &PndmSettings) -> Self {
        Self {
            walk,
            skip_prk_steps: settings.skip_prk_steps,
            final_alpha: final_alpha(walk.scheduler, settings.set_alpha_to_one),
            stride: (walk.scheduler.table.len() / walk.steps) as f64,
            calls: 0,
            predictions: Vec::new(),
            sum: None,
            origin: None,
        }
    }

    fn timestep(&self, index: usize) -> f64 {
        self.walk.grid.timesteps.get(index).copied().unwrap_or(f64::NAN)
    }

    /// One of the four calls of a Runge-Kutta step.
    fn runge_kutta(&mut self, timestep: f64, x: &Tensor, prediction: &Tensor) -> Result<Tensor> {
        let half = ((self.walk.scheduler.table.len() / self.walk.steps) / 2) as f64;
        let next = timestep - if self.calls.is_multiple_of(2) { half } else { 0.0 };
        let from = self.timestep(self.calls / 4 * 4);
        let sum = |before: Option<Tensor>, factor: f64| match before {
            Some(before) => combine(&[(1.0, &before), (factor, prediction)]),
            None => combine(&[(factor, prediction)]),
        };
        let direction = match self.calls % 4 {
            0 => {
                self.predictions.push(prediction.clone());
                self.origin = Some(x.clone());
                self.sum = Some(sum(self.sum.take(), 1.0 / 6.0)?);
                prediction.clone()
            }
            3 => sum(self.sum.take(), 1.0 / 6.0)?,
            _ => {
                self.sum = Some(sum(self.sum.take(), 1.0 / 3.0)?);
                prediction.clone()
            }
        };
        let origin = self.origin.clone().unwrap_or_else(|| x.clone());
        self.transfer(&origin, from, next, &direction)
    }

    /// A step of the linear multistep method; the first is made twice, the second time by the mean of both ends.
    fn multistep(&mut self, timestep: f64, x: &Tensor, prediction: &Tensor) -> Result<Tensor> {
        if self.calls == 1 {
            let direction = match self.predictions.last() {
                Some(first) => combine(&[(0.5, prediction), (0.5, first)])?,
                None => prediction.clone(),
            };
            let origin = self.origin.take().unwrap_or_else(|| x.clone());
            return self.transfer(&origin, timestep + self.stride, timestep, &direction);
        }
        if self.calls == 0 {
            self.origin = Some(x.clone());
        }
        let surplus = self.predictions.len().saturating_sub(3);
        self.predictions.drain(..surplus);
        self.predictions.push(prediction.clone());
        let direction = match self.predictions.as_slice() {
            [a, b] => combine(&[(1.5, b), (-0.5, a)])?,
            [a, b, c] => combine(&[(23.0 / 12.0, c), (-16.0 / 12.0, b), (5.0 / 12.0, a)])?,
            [a, b, c, d] => combine(&[(55.0 / 24.0, d), (-59.0 / 24.0, c), (37.0 / 24.0, b), (-9.0 / 24.0, a)])?,
            _ => prediction.clone(),
        };
        self.transfer(x, timestep, timestep - self.stride, &direction)
    }

    /// Equation 9: from one timestep to another along predicted noise.
    fn transfer(&self, x: &Tensor, from: f64, to: f64, direction: &Tensor) -> Result<Tensor> {
        let level = self.walk.scheduler.level(from)?;
        let next = self.walk.scheduler.level_or(to, self.final_alpha)?;
        let normal = match self.walk.scheduler.prediction {
            Prediction::Epsilon => direction.clone(),
            kind => kind.normal(level, x, direction)?,
        };
        let (alpha, next_alpha) = (level.signal.powi(2), next.signal.powi(2));
        let divisor = alpha * next.noise + level.signal * level.noise * next.signal;
        combine(&[(next.signal / level.signal, x), (-(next_alpha - alpha) / divisor, &normal)])
    }
}

impl Stepper for Pndm<'_> {
    fn step(&mut self, index: usize, x: &Tensor, prediction: &Tensor, _: &mut Draws<'_, '_>) -> Result<Tensor> {
        let timestep = self.timestep(index);
        let x = match !self.skip_prk_steps && self.calls < START {
            true => self.runge_kutta(timestep, x, prediction)?,
            false => self.multistep(timestep, x, prediction)?,
        };
        self.calls += 1;
        Ok(x)
    }
}
