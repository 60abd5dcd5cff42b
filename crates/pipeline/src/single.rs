//! One image for one prompt, without a dataset and without a run.

use std::path::PathBuf;

use candle_core::Device;
use evenset_core::{Progress, Seed};
use evenset_data::Limits;
use evenset_diffusion::SchedulerKind;
use evenset_diffusion::stable_diffusion::{DrawSettings, Prompt, PromptRequest, StableDiffusionConfig, Start};

use crate::error::{PipelineError, Result};

/// What is to be drawn.
#[derive(Clone, Debug)]
pub struct Single {
    /// The model.
    pub model: StableDiffusionConfig,
    /// What the image shows.
    pub prompt: String,
    /// What it steers away from.
    pub negative_prompt: Option<String>,
    /// Where its noise comes from.
    pub seed: u64,
    /// Another solver than the model's own.
    pub sampler: Option<SchedulerKind>,
    /// Steps from noise to image; the model's usual number without.
    pub steps: Option<usize>,
    /// The guidance scale; the model's usual one without.
    pub guidance: Option<f64>,
    /// A picture to start from, and how much of it may change, above 0 and at most 1.
    pub image: Option<(PathBuf, f64)>,
    /// A picture that is white where `image` is to be drawn anew and black where it stays.
    pub mask: Option<PathBuf>,
}

impl Single {
    /// The image as a PNG file whose `parameters` say how it was made.
    ///
    /// # Errors
    /// What the model, a picture or a setting gives; an image that is not finite.
    pub fn draw(&self, progress: &dyn Progress) -> Result<Vec<u8>> {
        self.model.validate()?;
        progress.begin("load the model", 1);
        let model = self.model.load(&Device::Cpu)?;
        progress.advance(1);
        progress.end();
        let facts = &model.components().facts;
        let default = DrawSettings::of(facts);
        let side = |side: Option<u32>, default: usize| side.map_or(default, |side| side as usize);
        let settings = DrawSettings {
            height: side(self.model.height, default.height),
            width: side(self.model.width, default.width),
            scheduler: self.sampler,
            steps: self.steps.unwrap_or(default.steps),
            guidance: self.guidance.unwrap_or(default.guidance),
            guidance_rescale: self.model.guidance_rescale,
            prompts: self.model.prompts,
            ..default
        };
        settings.validate(facts)?;
        let prompt = Prompt { negative: self.negative_prompt.clone(), ..Prompt::new(&self.prompt) };
        let request = PromptRequest { start: self.start(&settings)?, ..PromptRequest::new(prompt, Seed(self.seed)) };
        progress.begin("draw", 1);
        let image = model.generate(&[request], &settings, progress)?.pop().filter(|image| image.finite);
        progress.advance(1);
        progress.end();
        let image = image.ok_or_else(|| {
            let why = "the image holds numbers that are not finite; check the weights, or take `f32`";
            PipelineError::damaged(model.source().path())(why)
        })?;
        let negative =
            self.negative_prompt.iter().map(|words| format!("\nNegative prompt: {words}")).collect::<String>();
        let parameters = format!(
            "{}{negative}\nSteps: {}, Sampler: {}, CFG scale: {}, Seed: {}, Size: {}x{}, Model: {}",
            self.prompt,
            settings.steps,
            settings.scheduler.map_or(model.solver(), |kind| kind.name()),
            settings.guidance,
            self.seed,
            settings.width,
            settings.height,
            self.model.id(),
        );
        let text = [("parameters", parameters.as_str())];
        Ok(evenset_data::encode_png(image.width, image.height, image.channels, &image.pixels, &text))
    }

    /// The picture to start from, at the size of the image.
    fn start(&self, settings: &DrawSettings) -> Result<Option<Start>> {
        let Some((path, strength)) = &self.image else { return Ok(None) };
        let (width, height) = (settings.width as u32, settings.height as u32);
        let pixels = |path: &PathBuf| -> Result<Vec<u8>> {
            let bytes = std::fs::read(path).map_err(PipelineError::io(path))?;
            let image = evenset_data::decode(&bytes, &Limits::default()).map_err(PipelineError::damaged(path))?;
            Ok(evenset_data::fit(&image.rgb, image.width, image.height, width, height))
        };
        let mask = match &self.mask {
            Some(mask) => {
                Some(pixels(mask)?.chunks_exact(3).map(|rgb| rgb.iter().copied().max().unwrap_or(0)).collect())
            }
            None => None,
        };
        Ok(Some(Start { pixels: pixels(path)?, strength: *strength, mask }))
    }
}
