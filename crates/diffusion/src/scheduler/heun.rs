//! Heun's method over sigma: algorithm 2 of Karras et al. 2022 with its second-order correction, without churn
//! (diffusers' `HeunDiscreteScheduler`).

use candle_core::Tensor;

use super::Scheduler;
use super::level::combine;
use super::sigmas::{Ramp, along_timesteps, rounded};
use super::walk::{Draws, Grid, Stepper, Walk};
use crate::error::Result;

/// Every level but the first is visited twice: at the end of one step and at the start of the next.
pub(super) fn grid(scheduler: &Scheduler, ramp: Ramp, steps: usize) -> Grid {
    let (timesteps, sigmas) = along_timesteps(scheduler, ramp, false, steps);
    let mut sigmas: Vec<f64> = twice_but_first(&sigmas).into_iter().map(rounded).collect();
    sigmas.push(0.0);
    Grid { timesteps: twice_but_first(&timesteps), sigmas }
}

fn twice_but_first(values: &[f64]) -> Vec<f64> {
    values.iter().enumerate().flat_map(|(i, value)| std::iter::repeat_n(*value, if i == 0 { 1 } else { 2 })).collect()
}

pub(super) struct Heun<'a> {
    walk: &'a Walk<'a>,
    /// Where the step began, and the slope there.
    half: Option<(Tensor, Tensor)>,
}

impl<'a> Heun<'a> {
    pub fn new(walk: &'a Walk<'a>) -> Self {
        Self { walk, half: None }
    }
}

impl Stepper for Heun<'_> {
    fn step(&mut self, index: usize, x: &Tensor, prediction: &Tensor, _: &mut Draws<'_, '_>) -> Result<Tensor> {
        let scheduler = self.walk.scheduler;
        let sigma = self.walk.sigma_at(index);
        let clean = scheduler.limit.apply(scheduler.prediction.clean(self.walk.level(index)?, x, prediction)?)?;
        let slope = combine(&[(1.0 / sigma, x), (-1.0 / sigma, &clean)])?;
        match self.half.take() {
            None => {
                let next = combine(&[(1.0, x), (self.walk.sigma_at(index + 1) - sigma, &slope)])?;
                self.half = Some((x.clone(), slope));
                Ok(next)
            }
            Some((origin, before)) => {
                let half = (sigma - self.walk.sigma_at(index - 1)) / 2.0;
                combine(&[(1.0, &origin), (half, &before), (half, &slope)])
            }
        }
    }
}
