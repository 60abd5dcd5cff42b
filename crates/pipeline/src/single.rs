//! One image for one prompt, without a dataset and without a run.

use std::path::{Path, PathBuf};

use candle_core::Device;
use evenset_core::{Progress, Seed};
use evenset_data::Image;
use evenset_diffusion::SchedulerKind;
use evenset_diffusion::stable_diffusion::{DrawSettings, Prompt, PromptRequest, StableDiffusionConfig, Start};

use crate::error::{PipelineError, Result};
use crate::pictures;

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
    /// A picture for each of the model's ControlNets, in their order.
    pub controls: Vec<PathBuf>,
}

impl Single {
    /// The image as a PNG file whose `parameters` say how it was made.
    ///
    /// # Errors
    /// What the model, a picture or a setting gives; an image that is not finite.
    pub fn draw(&self, progress: &dyn Progress) -> Result<Vec<u8>> {
        self.model.validate()?;
        self.model.fetch(progress)?;
        progress.begin("load the model", 1);
        let model = self.model.load(&Device::Cpu)?;
        progress.advance(1);
        progress.end();
        let facts = &model.components().facts;
        let default = self.model.settings(facts);
        let image = self.image.as_ref().map(|(path, _)| pictures::read(path)).transpose()?;
        let [width, height] = match (&image, self.model.width, self.model.height) {
            (Some(image), None, None) => like(image, default.width * default.height),
            _ => [default.width, default.height],
        };
        let settings = DrawSettings {
            width,
            height,
            scheduler: self.sampler,
            steps: self.steps.unwrap_or(default.steps),
            guidance: self.guidance.unwrap_or(default.guidance),
            ..default
        };
        settings.validate(facts)?;
        let controls = self.controls.iter().map(|path| pixels(path, &settings)).collect::<Result<_>>()?;
        let prompt = Prompt { negative: self.negative_prompt.clone(), ..Prompt::new(&self.prompt) };
        let start = self.start(&settings)?;
        let request = PromptRequest { start, controls, ..PromptRequest::new(prompt, Seed(self.seed)) };
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
        let strength = self.image.iter().map(|(_, strength)| format!(", Denoising strength: {strength}"));
        let parameters = format!(
            "{}{negative}\nSteps: {}, Sampler: {}, CFG scale: {}, Seed: {}, Size: {}x{}, Model: {}{}",
            self.prompt,
            settings.steps,
            settings.scheduler.map_or(model.solver(), |kind| kind.name()),
            settings.guidance,
            self.seed,
            settings.width,
            settings.height,
            self.model.id(),
            strength.collect::<String>(),
        );
        let text = [("parameters", parameters.as_str())];
        Ok(evenset_data::encode_png(image.width, image.height, image.channels, &image.pixels, &text))
    }

    /// The picture to start from, at the size of the image.
    fn start(&self, settings: &DrawSettings) -> Result<Option<Start>> {
        let Some((path, strength)) = &self.image else { return Ok(None) };
        let mask = self.mask.as_ref().map(|mask| pixels(mask, settings)).transpose()?;
        let mask = mask.map(|rgb| pictures::mask(&rgb));
        Ok(Some(Start { pixels: pixels(path, settings)?, strength: *strength, mask }))
    }
}

/// Width and height of the shape of a picture with about so many pixels, multiples of 8.
fn like(image: &Image, pixels: usize) -> [usize; 2] {
    let scale = (pixels as f64 / (f64::from(image.width) * f64::from(image.height)).max(1.0)).sqrt();
    [image.width, image.height].map(|side| ((f64::from(side) * scale / 8.0).round() as usize).clamp(1, 512) * 8)
}

/// A picture at the size of the image, RGB: its middle where it has another shape.
fn pixels(path: &Path, settings: &DrawSettings) -> Result<Vec<u8>> {
    let image = pictures::read(path)?;
    let (width, height) = (settings.width as u32, settings.height as u32);
    Ok(evenset_data::cover(&image.rgb, image.width, image.height, width, height))
}
