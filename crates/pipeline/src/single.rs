//! One image for one prompt, without a dataset and without a run.

use std::path::{Path, PathBuf};

use candle_core::Device;
use evenset_core::{Progress, Seed};
use evenset_data::Image;
use evenset_diffusion::SchedulerKind;
use evenset_diffusion::stable_diffusion::{
    DrawSettings, Prompt, PromptRequest, StableDiffusionConfig, Start, check_settings,
};

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
        let source = self.model.source()?;
        let facts = source.facts();
        let default = self.model.settings(facts);
        let image = self.image.as_ref().map(|(path, _)| pictures::read(path)).transpose()?;
        let [width, height] = match (&image, self.model.width, self.model.height) {
            (Some(image), width, height) => like(image, [width, height], default.width * default.height),
            (None, ..) => [default.width, default.height],
        };
        let settings = DrawSettings {
            width,
            height,
            scheduler: self.sampler,
            steps: self.steps.unwrap_or(default.steps),
            guidance: self.guidance.unwrap_or(default.guidance),
            ..default
        };
        let strength = self.image.as_ref().map(|(_, strength)| *strength);
        check_settings(source.as_ref(), &settings, strength.as_slice())?;
        let controls = self.controls.iter().map(|path| pixels(path, &settings)).collect::<Result<_>>()?;
        let prompt = Prompt { negative: self.negative_prompt.clone(), ..Prompt::new(&self.prompt) };
        let start = self.start(&settings)?;
        let request = PromptRequest { start, controls, ..PromptRequest::new(prompt, Seed(self.seed)) };
        progress.begin("load the model", 1);
        let model = self.model.load(&Device::Cpu)?;
        progress.advance(1);
        progress.end();
        progress.begin("draw", 1);
        let image = model.generate(&[request], &settings, progress)?.pop().filter(|image| image.finite);
        progress.advance(1);
        progress.end();
        let image = image.ok_or_else(|| {
            let why = "the image holds numbers that are not finite; check the weights, or take `f32`";
            PipelineError::damaged(model.source().path())(why)
        })?;
        let acts = settings.guidance > 1.0 && facts.guidance_embedding.is_none();
        if self.negative_prompt.is_some() && !acts {
            tracing::warn!("without guidance above 1 nothing is steered away from: `--negative` has no effect");
        }
        let negative = self
            .negative_prompt
            .iter()
            .filter(|_| acts)
            .map(|words| format!("\nNegative prompt: {words}"))
            .collect::<String>();
        let strength = strength.iter().map(|strength| format!(", Denoising strength: {strength}"));
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

/// Width and height of the shape of a picture, multiples of 8 where they are not given: with about so many pixels, unless
/// one of them is.
fn like(image: &Image, given: [Option<u32>; 2], pixels: usize) -> [usize; 2] {
    let own = [image.width, image.height].map(|side| f64::from(side.max(1)));
    let scale = match given {
        [Some(width), _] => f64::from(width) / own[0],
        [None, Some(height)] => f64::from(height) / own[1],
        [None, None] => (pixels as f64 / (own[0] * own[1])).sqrt(),
    };
    let free = own.map(|side| ((side * scale / 8.0).round() as usize).clamp(1, 512) * 8);
    [given[0].map_or(free[0], |width| width as usize), given[1].map_or(free[1], |height| height as usize)]
}

/// A picture at the size of the image, RGB: its middle where it has another shape.
fn pixels(path: &Path, settings: &DrawSettings) -> Result<Vec<u8>> {
    let image = pictures::read(path)?;
    let (width, height) = (settings.width as u32, settings.height as u32);
    Ok(evenset_data::cover(&image.rgb, image.width, image.height, width, height))
}
