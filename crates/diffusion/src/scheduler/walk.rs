//! One way from noise to an image: which timesteps the model sees, where the walk starts, and the loop.

use candle_core::Tensor;

use super::level::{Level, Prediction, in_f32};
use super::{Scheduler, Solver, ddim, ddpm, dpm, euler, heun, lcm, pndm, unipc};
use crate::error::{DiffusionError, Result};

/// A model's prediction for scaled inputs `[batch, channels, height, width]` at a timestep, in the inputs' shape. Guidance
/// is the model's own affair.
pub type Model<'a> = dyn FnMut(&Tensor, f64) -> Result<Tensor> + 'a;

/// Standard normal noise for the `i`-th draw of a walk, in the inputs' shape; each image of a batch has its own.
pub type NoiseSource<'a> = dyn FnMut(usize) -> Result<Tensor> + 'a;

/// What becomes of `x` after the `i`-th call of the model; returns it as it is, or blended with something.
pub type AfterStep<'a> = dyn FnMut(usize, Tensor) -> Result<Tensor> + 'a;

/// All calls of the model at full strength, and the noise levels around them.
#[derive(Clone, Debug, Default)]
pub(super) struct Grid {
    /// The timestep of each call.
    pub timesteps: Vec<f64>,
    /// For solvers over sigma: the level before each call, and what follows the last. Empty for solvers over the table.
    pub sigmas: Vec<f64>,
}

/// The way from noise to an image in a number of steps.
#[derive(Clone, Debug)]
pub struct Walk<'a> {
    pub(super) scheduler: &'a Scheduler,
    /// Steps at full strength (`num_inference_steps`).
    pub(super) steps: usize,
    pub(super) grid: Grid,
    /// The first call that is made.
    pub(super) begin: usize,
    is_partial: bool,
}

/// A solver with what it remembers of the calls before.
pub(super) trait Stepper {
    /// `x` after call `index` (of those at full strength), which gave `prediction` for `x`.
    fn step(&mut self, index: usize, x: &Tensor, prediction: &Tensor, draws: &mut Draws<'_, '_>) -> Result<Tensor>;
}

/// The noise of a walk, draw by draw.
pub(super) struct Draws<'a, 'b> {
    source: &'a mut NoiseSource<'b>,
    drawn: usize,
}

impl Draws<'_, '_> {
    /// The next draw, in the shape of `x`.
    pub fn next(&mut self, x: &Tensor) -> Result<Tensor> {
        let noise = in_f32(&(self.source)(self.drawn)?)?;
        self.drawn += 1;
        same_shape("noise", &noise, x)?;
        Ok(noise)
    }
}

impl<'a> Walk<'a> {
    pub(super) fn new(scheduler: &'a Scheduler, steps: usize, strength: f64) -> Result<Self> {
        let train = scheduler.table.len();
        if !(1..=train).contains(&steps) {
            return Err(setting("steps", format!("{steps} is not between 1 and the model's {train} timesteps")));
        }
        if !(0.0..=1.0).contains(&strength) {
            return Err(setting("strength", format!("{strength} is not between 0 and 1")));
        }
        let keeps_steps = matches!(&scheduler.solver, Solver::Lcm(settings) if settings.keeps_steps);
        let grid = match &scheduler.solver {
            Solver::Ddim(_) | Solver::Ddpm(_) => ddim::grid(scheduler, steps),
            Solver::Pndm(settings) => pndm::grid(scheduler, settings, steps)?,
            Solver::Euler(settings) => euler::grid(scheduler, settings, steps),
            Solver::EulerAncestral => euler::ancestral_grid(scheduler, steps),
            Solver::Heun(ramp) => heun::grid(scheduler, *ramp, steps),
            Solver::Dpm(settings) => dpm::grid(scheduler, settings, steps)?,
            Solver::UniPc(settings) => unipc::grid(scheduler, settings, steps)?,
            Solver::Lcm(settings) => lcm::grid(scheduler, settings, steps, if keeps_steps { strength } else { 1.0 })?,
        };
        let calls_per_step = if let Solver::Heun(_) = scheduler.solver { 2 } else { 1 };
        let run = if keeps_steps { steps } else { (steps as f64 * strength) as usize };
        let begin = (steps - run.min(steps)) * calls_per_step;
        if run == 0 || begin >= grid.timesteps.len() {
            let reason = format!("{strength} of {steps} steps leaves none to walk; raise it, or take more steps");
            return Err(setting("strength", reason));
        }
        let walk = Self { scheduler, steps, grid, begin, is_partial: strength < 1.0 };
        walk.check_levels()?;
        Ok(walk)
    }

    /// The timestep of each call of the model, as it is given to it. Heun's method calls twice a step but for the last,
    /// and PNDM makes one call more than steps.
    pub fn timesteps(&self) -> &[f64] {
        self.grid.timesteps.get(self.begin..).unwrap_or_default()
    }

    /// The ratio of noise to signal before call `i`; infinite where no signal is left, 0 after the last call.
    pub fn sigma(&self, i: usize) -> f64 {
        match i < self.timesteps().len() {
            true => self.level(self.begin + i).map_or(f64::NAN, Level::sigma),
            false => 0.0,
        }
    }

    /// Where the walk starts: standard normal `noise` in the solver's size (`init_noise_sigma`), or `clean` noised to
    /// the first level of the walk (diffusers' image-to-image). Both `[batch, channels, height, width]`.
    ///
    /// # Errors
    /// [`DiffusionError::Setting`] for a strength under 1 without anything to start from; what a tensor operation gives.
    pub fn start(&self, noise: &Tensor, clean: Option<&Tensor>) -> Result<Tensor> {
        match clean {
            Some(clean) => self.noised(clean, noise, 0),
            None if self.is_partial => {
                Err(setting("strength", "under 1 it needs an image to start from; 1 starts from noise".into()))
            }
            None => Ok((in_f32(noise)? * self.first_noise())?),
        }
    }

    /// `clean` at the noise level before call `i` of this walk; as it is where `i` is behind the last call.
    ///
    /// With `i + 1` after call `i`, this is what diffusers blends in where an inpainting mask keeps the image.
    ///
    /// # Errors
    /// What a tensor operation gives.
    pub fn noised(&self, clean: &Tensor, noise: &Tensor, i: usize) -> Result<Tensor> {
        match i < self.timesteps().len() {
            true => self.level(self.begin + i)?.mix(clean, noise),
            false => in_f32(clean),
        }
    }

    /// Walks from `x` (of [`start`](Self::start)) to a clean image, both `[batch, channels, height, width]`, in `f32`.
    ///
    /// `model` is called once for each of [`timesteps`](Self::timesteps). `noise` is asked by solvers that add noise, for
    /// draw 0, 1, .. in order. `after_step` sees `x` after each call.
    ///
    /// # Errors
    /// What the three functions or a tensor operation give.
    pub fn run(
        &self,
        x: &Tensor,
        model: &mut Model<'_>,
        noise: &mut NoiseSource<'_>,
        after_step: &mut AfterStep<'_>,
    ) -> Result<Tensor> {
        let mut stepper = self.stepper();
        let mut draws = Draws { source: noise, drawn: 0 };
        let mut x = in_f32(x)?;
        for (i, &timestep) in self.timesteps().iter().enumerate() {
            let index = self.begin + i;
            let prediction = in_f32(&model(&self.scaled(&x, index)?, timestep)?)?;
            same_shape("the model's prediction", &prediction, &x)?;
            x = stepper.step(index, &x, &prediction, &mut draws)?;
            x = after_step(i, x)?;
        }
        Ok(x)
    }

    /// The level before a call at full strength.
    pub(super) fn level(&self, index: usize) -> Result<Level> {
        let sigma = self.sigma_at(index);
        match self.scheduler.solver {
            Solver::Euler(_) | Solver::EulerAncestral | Solver::Heun(_) => Ok(Level::added(sigma)),
            Solver::Dpm(_) | Solver::UniPc(_) => Ok(Level::of_sigma(sigma)),
            _ => self.scheduler.level(self.grid.timesteps.get(index).copied().unwrap_or(f64::NAN)),
        }
    }

    /// The sigma before a call at full strength, or the final one.
    pub(super) fn sigma_at(&self, index: usize) -> f64 {
        self.grid.sigmas.get(index).copied().unwrap_or(f64::NAN)
    }

    fn stepper(&self) -> Box<dyn Stepper + '_> {
        match &self.scheduler.solver {
            Solver::Ddim(settings) => Box::new(ddim::Ddim::new(self, settings)),
            Solver::Ddpm(variance) => Box::new(ddpm::Ddpm::new(self, *variance)),
            Solver::Pndm(settings) => Box::new(pndm::Pndm::new(self, settings)),
            Solver::Euler(_) => Box::new(euler::Euler::new(self)),
            Solver::EulerAncestral => Box::new(euler::EulerAncestral::new(self)),
            Solver::Heun(_) => Box::new(heun::Heun::new(self)),
            Solver::Dpm(settings) => Box::new(dpm::Dpm::new(self, settings)),
            Solver::UniPc(settings) => Box::new(unipc::UniPc::new(self, settings)),
            Solver::Lcm(settings) => Box::new(lcm::Lcm::new(self, settings)),
        }
    }

    /// What the model sees of `x`: at a variance of about 1.
    fn scaled(&self, x: &Tensor, index: usize) -> Result<Tensor> {
        match self.scheduler.solver {
            Solver::Euler(_) | Solver::EulerAncestral | Solver::Heun(_) => {
                Ok((x * (1.0 / self.sigma_at(index).hypot(1.0)))?)
            }
            _ => Ok(x.clone()),
        }
    }

    fn first_noise(&self) -> f64 {
        let highest = self.grid.sigmas.iter().copied().fold(0.0, f64::max);
        match self.scheduler.solver {
            Solver::Euler(_) | Solver::EulerAncestral | Solver::Heun(_) => match self.scheduler.spacing {
                super::Spacing::Leading => highest.hypot(1.0),
                _ => highest,
            },
            _ => 1.0,
        }
    }

    /// Fails for calls beyond the table, and for predictions of noise where there is no signal to find.
    fn check_levels(&self) -> Result<()> {
        for index in self.begin..self.grid.timesteps.len() {
            let level = self.level(index)?;
            if self.scheduler.prediction == Prediction::Epsilon && level.signal == 0.0 {
                let reason = "a model that predicts noise says nothing at the last timestep, where no signal is left \
                              (`rescale_betas_zero_snr`); take `timestep_spacing` leading, or a solver over sigma such \
                              as euler or dpmpp-2m";
                return Err(setting("steps", reason.into()));
            }
        }
        Ok(())
    }
}

fn setting(key: &'static str, reason: String) -> DiffusionError {
    DiffusionError::Setting { key, reason }
}

fn same_shape(what: &str, tensor: &Tensor, x: &Tensor) -> Result<()> {
    match tensor.dims() == x.dims() {
        true => Ok(()),
        false => {
            let message = format!("{what} has shape {:?}, but the images {:?}", tensor.dims(), x.dims());
            Err(candle_core::Error::msg(message).into())
        }
    }
}
