//! How images are drawn from a model.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::facts::{Distilled, ModelFacts};
use super::prompt::PromptOptions;
use crate::error::{DiffusionError, Result};
use crate::scheduler::SchedulerKind;

/// The solver, its steps and the guidance; what all images of a call have in common.
#[derive(Clone, Debug, PartialEq)]
pub struct DrawSettings {
    /// Height of the images in pixels, a multiple of the model's [`downsampling`](ModelFacts::downsampling).
    pub height: usize,
    /// Width, likewise.
    pub width: usize,
    /// Another solver than the model's own.
    pub scheduler: Option<SchedulerKind>,
    /// Steps from noise to image.
    pub steps: usize,
    /// Classifier-free guidance scale (Ho and Salimans 2022); 1 is none. Distilled models that are told the scale
    /// ([`guidance_embedding`](ModelFacts::guidance_embedding)) take it at the price of none.
    pub guidance: f64,
    /// How far the guided prediction is brought back to the contrast of the unguided one, 0 to 1 (Lin et al. 2023,
    /// section 3.4; diffusers' `guidance_rescale`).
    pub guidance_rescale: f64,
    /// Noise levels `[lowest, highest]` (sigma: noise over signal) between which guidance applies (Kynkäänniemi et al.
    /// 2024).
    pub guidance_interval: Option<[f64; 2]>,
    /// Whether both predictions of guidance come from one call of the network, at twice the memory, or from two. Images
    /// are the same.
    pub guided_at_once: bool,
    /// Whether calls of the network take its deep features from the call before.
    pub deep_cache: Option<DeepCache>,
    /// How prompts are read.
    pub prompts: PromptOptions,
    /// How closely images follow the pictures of each ControlNet; one for each that was loaded.
    pub controls: Vec<ControlSettings>,
}

/// Reuse of deep features between calls of the network (DeepCache, Ma et al. 2024): faster, and a little coarser. Solvers
/// call it once a step, Heun twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct DeepCache {
    /// The whole network is computed at every so manieth call (DeepCache's `cache_interval`), 1 to 100; 1 is every call.
    #[schemars(range(min = 1, max = 100))]
    pub interval: usize,
    /// How many results on the way down are computed at the other calls, beside the first convolution's (with two layers a
    /// level, as nearly all models have, DeepCache's `cache_branch_id`). Default: 0, the fastest.
    #[serde(default)]
    pub branch: usize,
}

impl DeepCache {
    /// With the whole network at every `interval`th step, at its fastest.
    pub fn every(interval: usize) -> Self {
        Self { interval, branch: 0 }
    }

    /// Says what is impossible with any model.
    pub(super) fn validate(&self) -> Result<()> {
        match self.interval {
            1..=100 => Ok(()),
            interval => {
                let reason = format!("an interval of {interval} is not between 1 and 100");
                Err(DiffusionError::Setting { key: "deep_cache", reason })
            }
        }
    }
}

/// How closely images follow a ControlNet's pictures.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ControlSettings {
    /// What its effect is multiplied with (diffusers' `controlnet_conditioning_scale`).
    pub scale: f64,
    /// The part of the walk in which it has one, as shares of the steps (`control_guidance_start`, `control_guidance_end`).
    pub interval: [f64; 2],
}

impl Default for ControlSettings {
    /// As the network was trained, all the way.
    fn default() -> Self {
        Self { scale: 1.0, interval: [0.0, 1.0] }
    }
}

impl ControlSettings {
    /// Whether it has an effect at call `call` of so many.
    pub(super) fn acts(&self, call: usize, calls: usize) -> bool {
        let share = |call: usize| call as f64 / calls.max(1) as f64;
        share(call) >= self.interval[0] && share(call + 1) <= self.interval[1]
    }
}

/// The longest side of an image in pixels.
const LONGEST_SIDE: usize = 4096;

impl DrawSettings {
    /// What suits a model: its own size and solver, 30 steps and guidance 7.5 as most are used; one step for Turbo and
    /// four for latent consistency, without guidance.
    pub fn of(facts: &ModelFacts) -> Self {
        let (height, width) = facts.native_size.unwrap_or((512, 512));
        let (steps, guidance) = match facts.distilled {
            None => (30, 7.5),
            Some(Distilled::Turbo) => (1, 1.0),
            // A latent consistency model is told the scale.
            Some(Distilled::Lcm) => (4, if facts.guidance_embedding.is_some() { 8.5 } else { 1.0 }),
        };
        Self {
            height,
            width,
            scheduler: None,
            steps,
            guidance,
            guidance_rescale: 0.0,
            guidance_interval: None,
            guided_at_once: true,
            deep_cache: None,
            prompts: PromptOptions::default(),
            controls: Vec::new(),
        }
    }

    /// Says which setting is impossible with this model. Steps are checked by the solver.
    ///
    /// # Errors
    /// [`DiffusionError::Setting`].
    pub fn validate(&self, facts: &ModelFacts) -> Result<()> {
        let fail = |key, reason| Err(DiffusionError::Setting { key, reason });
        for (key, side) in [("height", self.height), ("width", self.width)] {
            let unit = facts.downsampling.max(1);
            if !side.is_multiple_of(unit) || !(unit..=LONGEST_SIDE).contains(&side) {
                let nearest = ((side + unit / 2) / unit).max(1) * unit;
                let nearest = nearest.min(LONGEST_SIDE / unit * unit);
                let reason = format!("{side} is not a multiple of {unit} up to {LONGEST_SIDE}; take {nearest}");
                return fail(key, reason);
            }
        }
        check_guidance(self.guidance)?;
        if !(0.0..=1.0).contains(&self.guidance_rescale) {
            return fail("guidance_rescale", format!("{} is not between 0 and 1", self.guidance_rescale));
        }
        for ControlSettings { scale, interval: [start, end] } in &self.controls {
            if !scale.is_finite() || !(0.0..=1.0).contains(start) || !(start..=&1.0).contains(&end) {
                let reason = format!("a scale of {scale} from {start} to {end} of the steps; shares are from 0 to 1");
                return fail("controls", reason);
            }
        }
        if let Some(deep) = &self.deep_cache {
            deep.validate()?;
            if deep.branch >= facts.branches {
                let most = facts.branches.saturating_sub(1);
                return fail("deep_cache", format!("branch {} is not one of this network's, 0 to {most}", deep.branch));
            }
        }
        match self.guidance_interval {
            Some([low, high]) if !(0.0 <= low && low < high) => {
                fail("guidance_interval", format!("[{low}, {high}] is not a rising pair of noise levels from 0 up"))
            }
            _ => Ok(()),
        }
    }
}

/// Refuses a guidance scale outside 0 to 100.
pub(super) fn check_guidance(scale: f64) -> Result<()> {
    match (0.0..=100.0).contains(&scale) {
        true => Ok(()),
        false => {
            let reason = format!("{scale} is not between 0 and 100 (1 is no guidance)");
            Err(DiffusionError::Setting { key: "guidance", reason })
        }
    }
}
