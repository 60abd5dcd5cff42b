//! A text-to-image model that others trained.

use std::path::PathBuf;
use std::sync::OnceLock;
use std::time::SystemTime;

use candle_core::Device;
use evenset_core::Progress;
use evenset_diffusion::stable_diffusion::{
    DrawSettings, Prompt, PromptRequest, StableDiffusion, StableDiffusionConfig, Start,
};
use serde::{Deserialize, Serialize};

use super::{Asked, Drawn, Generator, GeneratorCard, GuidePixels, in_words};
use crate::error::{PipelineError, Result};
use crate::images::Frame;
use crate::job::Sampler;

/// What is known of the model's files.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Weights {
    /// One hash over the model's files.
    pub(crate) sha256: String,
    /// One hash over the LoRAs' files, where there are some.
    pub(crate) lora_sha256: Option<String>,
}

/// A model with its settings. Its weights are loaded when the first image is drawn: a finished run is read again without.
pub(crate) struct Pretrained {
    model: OnceLock<StableDiffusion>,
    family: String,
    /// Its own solver.
    solver: String,
    settings: DrawSettings,
    config: StableDiffusionConfig,
    weights: Weights,
    files: Vec<FileState>,
}

/// A file as it was when it was hashed: its length, and when it was last written.
pub(crate) type FileState = (PathBuf, u64, Option<SystemTime>);

/// How these files are now.
pub(crate) fn states(files: Vec<PathBuf>) -> Result<Vec<FileState>> {
    let state = |path: PathBuf| {
        let metadata = std::fs::metadata(&path).map_err(PipelineError::io(&path))?;
        Ok((path, metadata.len(), metadata.modified().ok()))
    };
    files.into_iter().map(state).collect()
}

impl Pretrained {
    /// The model of these files, whose networks may be `loaded` already.
    pub(crate) fn new(
        config: &StableDiffusionConfig,
        sampler: &Sampler,
        weights: Weights,
        files: Vec<FileState>,
        loaded: Option<StableDiffusion>,
    ) -> Result<Self> {
        let source = config.source()?;
        let settings = sampler.draw_settings(config, source.facts());
        Ok(Self {
            model: loaded.map(OnceLock::from).unwrap_or_default(),
            family: source.facts().family.to_string(),
            solver: source.scheduler()?.class_name().unwrap_or_default().to_owned(),
            settings,
            config: config.clone(),
            weights,
            files,
        })
    }

    fn model(&self) -> Result<&StableDiffusion> {
        if let Some(model) = self.model.get() {
            return Ok(model);
        }
        let model = self.config.load(&Device::Cpu)?;
        // Gates may have been trained since: another snapshot of the hub, say, is another run's model.
        let now = states(self.config.files()?)?;
        if let Some((path, ..)) = now.iter().zip(&self.files).find(|(now, then)| now != then).map(|(now, _)| now) {
            let why = "this file of the model changed after it was hashed; start the run again";
            return Err(PipelineError::damaged(path)(why));
        }
        Ok(self.model.get_or_init(|| model))
    }
}

impl Generator for Pretrained {
    fn card(&self) -> GeneratorCard {
        let own = || self.solver.clone();
        GeneratorCard {
            kind: "stable-diffusion",
            id: self.config.id(),
            size: self.family.clone(),
            sha256: Some(self.weights.sha256.clone()),
            lora_sha256: self.weights.lora_sha256.clone(),
            parameters: None,
            training_steps: None,
            loss: Vec::new(),
            sampler: self.settings.scheduler.map_or_else(own, |kind| kind.name().to_owned()),
            steps: Some(self.settings.steps as u64),
            guidance: Some(self.settings.guidance),
            device: format!("cpu {}", format!("{:?}", self.config.dtype).to_lowercase()),
        }
    }

    fn frame(&self) -> Frame {
        let (width, height) = (self.settings.width as u32, self.settings.height as u32);
        Frame { width, height, grey: false, scaled: true }
    }

    fn draw(&self, asked: &[Asked<'_>], progress: &dyn Progress) -> Result<Vec<Drawn>> {
        let wanted: Vec<PromptRequest> = asked.iter().map(prompt_request).collect();
        let images = self.model()?.generate(&wanted, &self.settings, progress)?;
        Ok(images.into_iter().map(Drawn::from).collect())
    }
}

/// What is left of a guide to start from. Image to image begins with traces of the image even at full strength; who shows a
/// ControlNet the guide's pose and lets everything else change wants none of its colours, so it begins with noise alone.
fn start(strength: f64, guide: &GuidePixels) -> Option<Start> {
    let from_noise = strength >= 1.0 && guide.mask.is_none() && !guide.controls.is_empty();
    (!from_noise).then(|| Start { pixels: guide.image.clone(), strength, mask: guide.mask.clone() })
}

fn prompt_request(asked: &Asked<'_>) -> PromptRequest {
    let request = asked.request;
    let prompt = Prompt { negative: request.negative_prompt.clone(), ..Prompt::new(in_words(request)) };
    let started = asked.start.and_then(|start| start.strength).zip(asked.guide.as_ref());
    PromptRequest {
        start: started.and_then(|(strength, guide)| start(strength, guide)),
        controls: asked.guide.as_ref().map(|guide| guide.controls.clone()).unwrap_or_default(),
        guidance: asked.start.and_then(|start| start.guidance),
        ..PromptRequest::new(prompt, request.seed)
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    #[test]
    fn a_file_that_changed_after_it_was_hashed_is_named_before_anything_is_drawn_with_it() {
        fn copy(from: &Path, to: &Path) {
            std::fs::create_dir_all(to).unwrap();
            for entry in std::fs::read_dir(from).unwrap().map(Result::unwrap) {
                match entry.file_type().unwrap().is_dir() {
                    true => copy(&entry.path(), &to.join(entry.file_name())),
                    false => drop(std::fs::copy(entry.path(), to.join(entry.file_name())).unwrap()),
                }
            }
        }
        let dir = tempfile::tempdir().unwrap();
        let golden = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/golden/prompts/sd1/model");
        copy(Path::new(golden), dir.path());
        let config = StableDiffusionConfig::at(dir.path().to_string_lossy());
        let weights = Weights { sha256: String::new(), lora_sha256: None };
        let files = states(config.files().unwrap()).unwrap();
        let late = || Pretrained::new(&config, &Sampler::default(), weights.clone(), files.clone(), None).unwrap();
        assert!(late().model().is_ok());
        let index = dir.path().join("model_index.json");
        std::fs::write(&index, std::fs::read_to_string(&index).unwrap() + "\n").unwrap();
        let error = late().model().unwrap_err().to_string();
        assert!(error.contains("model_index.json") && error.contains("start the run again"), "{error}");
    }

    #[test]
    fn a_guide_of_full_strength_gives_a_control_network_its_pictures_and_nothing_else() {
        let guide = |mask: Option<Vec<u8>>, controls: usize| GuidePixels {
            image: vec![7; 12],
            mask,
            controls: vec![vec![0; 12]; controls],
        };
        assert_eq!(start(1.0, &guide(None, 1)), None);
        assert_eq!(start(0.9, &guide(None, 1)).unwrap().strength, 0.9);
        assert_eq!(start(1.0, &guide(None, 0)).unwrap().pixels, [7; 12]);
        assert_eq!(start(1.0, &guide(Some(vec![255; 4]), 1)).unwrap().mask, Some(vec![255; 4]));
    }
}
