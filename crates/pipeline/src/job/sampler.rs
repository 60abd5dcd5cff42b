//! How images are drawn from a model, whichever kind it is.

use evenset_diffusion::stable_diffusion::{DrawSettings, ModelFacts, StableDiffusionConfig};
use evenset_diffusion::{SamplerConfig, SchedulerKind};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Guidance that suits training data: close to what the model learned, and yet what was asked for.
const GUIDANCE_FOR_DATA: f64 = 2.0;

/// How images are drawn from the model.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Sampler {
    /// The solver. The conditional model knows `dpmpp-2m` (its default: second order at one evaluation a step, the best
    /// images for few steps) and `heun` (as in EDM, two evaluations a step). Stable Diffusion knows all, and takes its own
    /// `scheduler_config.json` by default.
    #[serde(rename = "type", skip_serializing_if = "Option::is_none")]
    pub kind: Option<SchedulerKind>,
    /// Steps from noise to image. Default: 12 (18 with `heun`) for the conditional model, 30 for Stable Diffusion, 1 for
    /// Turbo, 4 for latent consistency models.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1000))]
    pub steps: Option<u64>,
    /// Classifier-free guidance scale; 1 is none, 1.5 to 2 makes good training data. Default: 1.5 for the conditional
    /// model, 2 for Stable Diffusion, none for Turbo.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0.0, max = 100.0))]
    pub guidance: Option<f64>,
    /// Noise levels `[lowest, highest]` (sigma) between which guidance applies. Default: all.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub guidance_interval: Option<[f64; 2]>,
    /// The conditional model's attributes that guidance strengthens, given the others: `[garment]` steers away from "any
    /// garment that is yellow", and so from the garments that usually are. Default: all.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub guided: Option<Vec<String>>,
}

impl Sampler {
    /// For the conditional model.
    ///
    /// # Errors
    /// The key under `generate.sampler` that is wrong, and why.
    pub fn conditional(&self) -> Result<SamplerConfig, (&'static str, String)> {
        let Self { guidance_interval, guided, .. } = self.clone();
        let config = match self.kind {
            None | Some(SchedulerKind::Dpmpp2m) => {
                let default = SamplerConfig::default();
                SamplerConfig::Dpmpp2m {
                    steps: self.steps.unwrap_or(default.steps()),
                    guidance: self.guidance.unwrap_or(default.guidance()),
                    guidance_interval,
                    guided,
                }
            }
            Some(SchedulerKind::Heun) => SamplerConfig::Heun {
                steps: self.steps.unwrap_or(SamplerConfig::HEUN_STEPS),
                guidance: self.guidance.unwrap_or(SamplerConfig::default().guidance()),
                guidance_interval,
                guided,
            },
            Some(other) => {
                let why = format!("the conditional model knows `dpmpp-2m` and `heun`, not `{}`", other.name());
                return Err(("type", why));
            }
        };
        config.validate().map_err(|error| ("", error.to_string()))?;
        Ok(config)
    }

    /// For a Stable Diffusion model.
    pub fn draw_settings(&self, model: &StableDiffusionConfig, facts: &ModelFacts) -> DrawSettings {
        let default = model.settings(facts);
        DrawSettings {
            scheduler: self.kind,
            steps: self.steps.map_or(default.steps, |steps| usize::try_from(steps).unwrap_or(usize::MAX)),
            guidance: self.guidance.unwrap_or(match facts.distilled {
                None => GUIDANCE_FOR_DATA,
                Some(_) => default.guidance,
            }),
            guidance_interval: self.guidance_interval,
            ..default
        }
    }

    /// Whether Stable Diffusion can be drawn from so, as far as that shows without the model.
    ///
    /// # Errors
    /// As [`conditional`](Self::conditional).
    pub fn check_for_stable_diffusion(&self) -> Result<(), (&'static str, String)> {
        if self.guided.is_some() {
            return Err(("guided", "it is about the conditional model's attributes; remove it".into()));
        }
        if self.steps.is_some_and(|steps| !(1..=1000).contains(&steps)) {
            return Err(("steps", "not between 1 and 1000".into()));
        }
        if self.guidance.is_some_and(|guidance| !(0.0..=100.0).contains(&guidance)) {
            return Err(("guidance", "not between 0 and 100 (1 is no guidance)".into()));
        }
        Ok(())
    }

    /// Whether nothing is asked of a hosted model that only its server decides.
    ///
    /// # Errors
    /// As [`conditional`](Self::conditional).
    pub fn check_for_hosted(&self) -> Result<(), (&'static str, String)> {
        match *self == Self::default() {
            true => Ok(()),
            false => {
                Err(("", "a hosted model draws as its server does; remove it, or see `generate.model.fields`".into()))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_conditional_model_takes_its_own_solvers_and_refuses_others_by_name() {
        let read = |text: &str| serde_json::from_str::<Sampler>(text).unwrap();
        assert_eq!(read("{}").conditional().unwrap(), SamplerConfig::default());
        let heun = read(r#"{"type": "heun", "guidance": 2}"#).conditional().unwrap();
        assert_eq!((heun.name(), heun.steps(), heun.guidance()), ("heun", 18, 2.0));
        let (key, why) = read(r#"{"type": "unipc"}"#).conditional().unwrap_err();
        assert_eq!((key, why.as_str()), ("type", "the conditional model knows `dpmpp-2m` and `heun`, not `unipc`"));
        assert!(read(r#"{"steps": 0}"#).conditional().is_err());
    }

    #[test]
    fn stable_diffusion_has_no_attributes_to_guide() {
        let sampler = Sampler { guided: Some(vec!["garment".into()]), ..Sampler::default() };
        assert_eq!(sampler.check_for_stable_diffusion().unwrap_err().0, "guided");
        assert!(
            Sampler { kind: Some(SchedulerKind::UniPc), ..Sampler::default() }.check_for_stable_diffusion().is_ok()
        );
    }
}
