//! A text-to-image model that others trained.

use evenset_core::Progress;
use evenset_diffusion::stable_diffusion::{
    DrawSettings, Prompt, PromptRequest, StableDiffusion, StableDiffusionConfig, Start,
};
use serde::{Deserialize, Serialize};

use super::{Asked, Drawn, Generator, GeneratorCard, in_words};
use crate::error::Result;
use crate::images::Frame;

/// What is known of the model's files.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Weights {
    /// One hash over the model's files.
    pub(crate) sha256: String,
    /// One hash over the LoRAs' files, where there are some.
    pub(crate) lora_sha256: Option<String>,
}

/// A loaded model with its settings.
pub(crate) struct Pretrained {
    pub(crate) model: StableDiffusion,
    pub(crate) settings: DrawSettings,
    pub(crate) config: StableDiffusionConfig,
    pub(crate) weights: Weights,
}

impl Generator for Pretrained {
    fn card(&self) -> GeneratorCard {
        let own = || self.model.solver().to_owned();
        GeneratorCard {
            kind: "stable-diffusion",
            id: self.config.id(),
            size: self.model.components().facts.family.to_string(),
            sha256: Some(self.weights.sha256.clone()),
            lora_sha256: self.weights.lora_sha256.clone(),
            parameters: None,
            training_steps: None,
            loss: Vec::new(),
            sampler: self.settings.scheduler.map_or_else(own, |kind| kind.name().to_owned()),
            steps: Some(self.settings.steps as u64),
            guidance: Some(self.settings.guidance),
            device: format!("cpu {}", format!("{:?}", self.model.components().dtype).to_lowercase()),
        }
    }

    fn frame(&self) -> Frame {
        let (width, height) = (self.settings.width as u32, self.settings.height as u32);
        Frame { width, height, grey: false, scaled: true }
    }

    fn draw(&self, asked: &[Asked<'_>], progress: &dyn Progress) -> Result<Vec<Drawn>> {
        let wanted: Vec<PromptRequest> = asked.iter().map(prompt_request).collect();
        let images = self.model.generate(&wanted, &self.settings, progress)?;
        Ok(images.into_iter().map(Drawn::from).collect())
    }
}

fn prompt_request(asked: &Asked<'_>) -> PromptRequest {
    let request = asked.request;
    let prompt = Prompt { negative: request.negative_prompt.clone(), ..Prompt::new(in_words(request)) };
    let started = asked.start.and_then(|start| start.strength).zip(asked.guide.clone());
    PromptRequest {
        start: started.map(|(strength, pixels)| Start { pixels, strength, mask: None }),
        guidance: asked.start.and_then(|start| start.guidance),
        ..PromptRequest::new(prompt, request.seed)
    }
}
