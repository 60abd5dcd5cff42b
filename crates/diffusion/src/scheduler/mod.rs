//! diffusers' schedulers: how a model that was trained on a table of noise levels is walked from noise to an image.
//!
//! ```text
//! scheduler_config.json --SchedulerJson--> settings as written --SchedulerKind--> Scheduler --walk--> Walk --run--> x
//! ```
//!
//! [`SchedulerJson`] is the file as it was written, [`Scheduler`] the same with every default filled in and every value
//! checked, and [`Walk`] one way through it: so many steps, from so much noise. Each solver is one file, and follows the
//! class of diffusers 0.42 that its comment names. `beta`s and their products are computed in `f32` as diffusers does,
//! because every released model was trained with those; what follows from them is computed in `f64`, tensors in `f32`.
//!
//! All noise comes from the caller, and all arithmetic is by element (or by image), so an image is the same alone and in
//! a batch.

mod ddim;
mod ddpm;
mod dpm;
mod euler;
mod heun;
mod json;
mod kind;
mod lcm;
mod level;
mod limit;
mod pndm;
mod settings;
mod sigmas;
mod spacing;
mod table;
mod unipc;
mod walk;

pub use json::SchedulerJson;
pub use kind::SchedulerKind;
pub use walk::{AfterStep, Model, NoiseSource, Walk};

use level::{Level, Prediction};
use limit::Limit;
use settings::Settings;
use spacing::Spacing;

use crate::error::{DiffusionError, Result};

/// A solver with its noise levels: one checked `scheduler_config.json`.
#[derive(Clone, Debug)]
pub struct Scheduler {
    /// The share of the signal's variance that is left at each training timestep (`alphas_cumprod`).
    table: Vec<f32>,
    prediction: Prediction,
    limit: Limit,
    spacing: Spacing,
    steps_offset: usize,
    solver: Solver,
}

/// What each solver needs beyond that.
#[derive(Clone, Debug)]
enum Solver {
    Ddim(ddim::DdimSettings),
    Ddpm(ddpm::Variance),
    Pndm(pndm::PndmSettings),
    Euler(euler::EulerSettings),
    EulerAncestral,
    Heun(sigmas::Ramp),
    Dpm(dpm::DpmSettings),
    UniPc(unipc::UniPcSettings),
    Lcm(lcm::LcmSettings),
}

impl Scheduler {
    /// The scheduler of one class, from its settings.
    fn read(class: Class, settings: &Settings<'_>) -> Result<Self> {
        let solver = match class {
            Class::Ddim => Solver::Ddim(ddim::DdimSettings::read(settings)?),
            Class::Ddpm => Solver::Ddpm(ddpm::Variance::read(settings)?),
            Class::Pndm => Solver::Pndm(pndm::PndmSettings::read(settings)?),
            Class::Euler => Solver::Euler(euler::EulerSettings::read(settings)?),
            Class::EulerAncestral => Solver::EulerAncestral,
            Class::Heun => Solver::Heun(sigmas::Ramp::read(settings)?),
            Class::Dpm => Solver::Dpm(dpm::DpmSettings::read(settings)?),
            Class::UniPc => Solver::UniPc(unipc::UniPcSettings::read(settings)?),
            Class::Lcm => Solver::Lcm(lcm::LcmSettings::read(settings)?),
        };
        Ok(Self {
            table: table::read(class, settings)?,
            prediction: Prediction::read(class, settings)?,
            limit: Limit::read(class, settings)?,
            spacing: Spacing::read(class, settings)?,
            steps_offset: settings.count("steps_offset", 0, 0, table::MOST_TIMESTEPS)?,
            solver,
        })
    }

    /// diffusers' name of the solver's class, such as `DDIMScheduler`.
    pub fn class_name(&self) -> &'static str {
        self.class().name()
    }

    /// Timesteps that the model was trained with.
    pub fn train_timesteps(&self) -> usize {
        self.table.len()
    }

    /// The same with what `StableDiffusionPipeline` and `StableDiffusionImg2ImgPipeline` of diffusers 0.42 repair in
    /// outdated files: `steps_offset` is 1 and `clip_sample` is off. Their XL forms repair nothing.
    pub fn for_stable_diffusion(mut self) -> Self {
        self.steps_offset = 1;
        if let Limit::Clip(_) = self.limit {
            self.limit = Limit::None;
        }
        self
    }

    /// The same with what `StableDiffusionInpaintPipeline` of diffusers 0.42 repairs in outdated files: `steps_offset` is
    /// 1 and `skip_prk_steps` is on.
    pub fn for_stable_diffusion_inpaint(mut self) -> Self {
        self.steps_offset = 1;
        if let Solver::Pndm(pndm) = &mut self.solver {
            pndm.skip_prk_steps = true;
        }
        self
    }

    /// The same as `LatentConsistencyModelImg2ImgPipeline` of diffusers 0.42 uses `LCMScheduler`: under strength 1 as many
    /// steps are walked, from a lower level.
    pub fn for_latent_consistency(mut self) -> Self {
        if let Solver::Lcm(lcm) = &mut self.solver {
            lcm.keeps_steps = true;
        }
        self
    }

    /// The way through `steps` steps; with a `strength` under 1 only the last `steps * strength` of them (rounded down, the
    /// rule of diffusers' image-to-image pipelines; see [`for_latent_consistency`](Self::for_latent_consistency) for
    /// another). A walk under strength 1 starts at a noised image.
    ///
    /// # Errors
    /// [`DiffusionError::Setting`] for no steps, more than the model was trained with or than the solver can separate, a
    /// strength outside 0 to 1 or one that leaves no step, and for predictions that say nothing at the first timestep.
    pub fn walk(&self, steps: usize, strength: f64) -> Result<Walk<'_>> {
        Walk::new(self, steps, strength)
    }

    fn class(&self) -> Class {
        match self.solver {
            Solver::Ddim(_) => Class::Ddim,
            Solver::Ddpm(_) => Class::Ddpm,
            Solver::Pndm(_) => Class::Pndm,
            Solver::Euler(_) => Class::Euler,
            Solver::EulerAncestral => Class::EulerAncestral,
            Solver::Heun(_) => Class::Heun,
            Solver::Dpm(_) => Class::Dpm,
            Solver::UniPc(_) => Class::UniPc,
            Solver::Lcm(_) => Class::Lcm,
        }
    }

    /// The level at a timestep of the table.
    fn level(&self, timestep: f64) -> Result<Level> {
        let found = (timestep >= 0.0).then(|| self.table.get(timestep as usize)).flatten();
        found.map(|&alpha| Level::of_alpha(f64::from(alpha))).ok_or_else(|| DiffusionError::Setting {
            key: "steps",
            reason: format!(
                "they lead to timestep {timestep}, but the model knows 0 to {}; take fewer steps or a lower `steps_offset`",
                self.table.len() - 1
            ),
        })
    }

    /// The level at a timestep of the table, or what follows the last step.
    fn level_or(&self, timestep: f64, last: f64) -> Result<Level> {
        if timestep < 0.0 { Ok(Level::of_alpha(last)) } else { self.level(timestep) }
    }
}

/// The classes that can be walked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Class {
    Ddim,
    Ddpm,
    Pndm,
    Euler,
    EulerAncestral,
    Heun,
    Dpm,
    UniPc,
    Lcm,
}

impl Class {
    const ALL: [Self; 9] = [
        Self::Ddim,
        Self::Ddpm,
        Self::Pndm,
        Self::Euler,
        Self::EulerAncestral,
        Self::Heun,
        Self::Dpm,
        Self::UniPc,
        Self::Lcm,
    ];

    /// diffusers' name.
    fn name(self) -> &'static str {
        match self {
            Self::Ddim => "DDIMScheduler",
            Self::Ddpm => "DDPMScheduler",
            Self::Pndm => "PNDMScheduler",
            Self::Euler => "EulerDiscreteScheduler",
            Self::EulerAncestral => "EulerAncestralDiscreteScheduler",
            Self::Heun => "HeunDiscreteScheduler",
            Self::Dpm => "DPMSolverMultistepScheduler",
            Self::UniPc => "UniPCMultistepScheduler",
            Self::Lcm => "LCMScheduler",
        }
    }
}
