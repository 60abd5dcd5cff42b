//! The model that is trained on the dataset itself.

use evenset_core::Progress;
use evenset_diffusion::{ConditionalModel, Guide, ImageRequest, SamplerConfig};

use super::{Asked, Drawn, Generator, GeneratorCard};
use crate::error::Result;
use crate::images::{Fit, Frame};

/// A trained model with its sampler.
pub(crate) struct Conditional {
    pub(crate) model: ConditionalModel,
    pub(crate) sampler: SamplerConfig,
    pub(crate) frame: Frame,
    /// The loss at training steps.
    pub(crate) loss: Vec<(u64, f64)>,
}

impl Generator for Conditional {
    fn card(&self) -> GeneratorCard {
        let config = self.model.config();
        GeneratorCard {
            kind: "conditional",
            id: self.model.model_id(),
            size: config.size.to_string(),
            sha256: Some(self.model.sha256().to_owned()),
            lora_sha256: None,
            parameters: Some(self.model.parameters() as u64),
            training_steps: Some(config.steps()),
            loss: self.loss.clone(),
            sampler: self.sampler.name().to_owned(),
            steps: Some(self.sampler.steps()),
            guidance: Some(self.sampler.guidance()),
            device: "cpu f32".to_owned(),
        }
    }

    fn frame(&self) -> Frame {
        self.frame
    }

    fn fit(&self) -> Fit {
        Fit::Stretch
    }

    fn draw(&self, asked: &[Asked<'_>], progress: &dyn Progress) -> Result<Vec<Drawn>> {
        let wanted: Vec<ImageRequest> = asked.iter().map(image_request).collect();
        let images = self.model.generate(&wanted, &self.sampler, progress)?;
        Ok(images.into_iter().map(Drawn::from).collect())
    }
}

fn image_request(asked: &Asked<'_>) -> ImageRequest {
    let mut image = ImageRequest::new(asked.request.group.clone(), asked.request.seed);
    if let Some(start) = asked.start {
        image.guidance = start.guidance;
        if let (Some(guide), Some(strength)) = (&asked.guide, start.strength) {
            image.guide = Some(Guide { pixels: guide.image.clone(), strength, inverted: start.inverted.clone() });
        }
    }
    image
}
