//! Solvers by name, for a job that walks a model's noise levels in another way than its file says.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::Class;

/// A solver to use in place of the one in a model's `scheduler_config.json`, with the file's noise levels, kind of
/// prediction and other settings.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
pub enum SchedulerKind {
    /// DDIM without noise of its own (Song et al. 2021).
    #[serde(rename = "ddim")]
    Ddim,
    /// The ancestral sampling of DDPM (Ho et al. 2020); needs many steps.
    #[serde(rename = "ddpm")]
    Ddpm,
    /// Pseudo numerical methods (Liu et al. 2022); the solver in most Stable Diffusion 1 files.
    #[serde(rename = "pndm")]
    Pndm,
    /// Euler's method over sigma (Karras et al. 2022).
    #[serde(rename = "euler")]
    Euler,
    /// Euler's method with fresh noise at each step.
    #[serde(rename = "euler-ancestral")]
    EulerAncestral,
    /// Heun's method over sigma: two evaluations of the model a step.
    #[serde(rename = "heun")]
    Heun,
    /// DPM-Solver++(2M) (Lu et al. 2022); the best images for 15 to 30 steps.
    #[serde(rename = "dpmpp-2m")]
    Dpmpp2m,
    /// DPM-Solver++(2M) over the noise levels of Karras et al. 2022.
    #[serde(rename = "dpmpp-2m-karras")]
    Dpmpp2mKarras,
    /// DPM-Solver++(2M) with fresh noise at each step.
    #[serde(rename = "dpmpp-2m-sde")]
    Dpmpp2mSde,
    /// DPM-Solver++(2M) with fresh noise at each step, over the noise levels of Karras et al. 2022.
    #[serde(rename = "dpmpp-2m-sde-karras")]
    Dpmpp2mSdeKarras,
    /// UniPC, a predictor with a corrector that costs nothing (Zhao et al. 2023); good under 15 steps.
    #[serde(rename = "unipc")]
    UniPc,
    /// Sampling of latent consistency models (Luo et al. 2023), for models distilled for it: 1 to 8 steps.
    #[serde(rename = "lcm")]
    Lcm,
}

impl SchedulerKind {
    /// All of them.
    pub const ALL: [Self; 12] = [
        Self::Ddim,
        Self::Ddpm,
        Self::Pndm,
        Self::Euler,
        Self::EulerAncestral,
        Self::Heun,
        Self::Dpmpp2m,
        Self::Dpmpp2mKarras,
        Self::Dpmpp2mSde,
        Self::Dpmpp2mSdeKarras,
        Self::UniPc,
        Self::Lcm,
    ];

    /// The name that the job gives it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Ddim => "ddim",
            Self::Ddpm => "ddpm",
            Self::Pndm => "pndm",
            Self::Euler => "euler",
            Self::EulerAncestral => "euler-ancestral",
            Self::Heun => "heun",
            Self::Dpmpp2m => "dpmpp-2m",
            Self::Dpmpp2mKarras => "dpmpp-2m-karras",
            Self::Dpmpp2mSde => "dpmpp-2m-sde",
            Self::Dpmpp2mSdeKarras => "dpmpp-2m-sde-karras",
            Self::UniPc => "unipc",
            Self::Lcm => "lcm",
        }
    }

    /// Changes a file's settings into those of this solver: only what its name says.
    pub(super) fn over(self, values: &mut Map<String, Value>) -> Class {
        let (stochastic, karras) = match self {
            Self::Ddim => return Class::Ddim,
            Self::Ddpm => return Class::Ddpm,
            Self::Pndm => return Class::Pndm,
            Self::Euler => return Class::Euler,
            Self::EulerAncestral => return Class::EulerAncestral,
            Self::Heun => return Class::Heun,
            Self::UniPc => return Class::UniPc,
            Self::Lcm => return Class::Lcm,
            Self::Dpmpp2m => (false, false),
            Self::Dpmpp2mKarras => (false, true),
            Self::Dpmpp2mSde => (true, false),
            Self::Dpmpp2mSdeKarras => (true, true),
        };
        let algorithm = if stochastic { "sde-dpmsolver++" } else { "dpmsolver++" };
        values.insert("algorithm_type".into(), json!(algorithm));
        values.insert("solver_order".into(), json!(2));
        values.insert("use_karras_sigmas".into(), json!(karras));
        if karras {
            for other in ["use_exponential_sigmas", "use_beta_sigmas", "use_lu_lambdas"] {
                values.insert(other.into(), json!(false));
            }
        }
        Class::Dpm
    }
}
