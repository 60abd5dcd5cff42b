//! A model that somebody else runs.

use std::path::{Path, PathBuf};

use evenset_core::{Fingerprint, Progress};
use evenset_data::Limits;
use evenset_data::atomic::write_file;
use evenset_diffusion::Generated;
use evenset_diffusion::http::{
    FileLedger, HostedEdit, HostedOutcome, HostedRequest, HttpConfig, HttpGenerator, ImageSize,
};

use super::{Asked, Drawn, Generator, GeneratorCard, GuidePixels, in_words};
use crate::error::{PipelineError, Result};
use crate::images::Frame;

/// What was spent, in the run's folder: over all tries of a run.
const LEDGER: &str = "spent.json";

/// A hosted model with everything that it has drawn so far.
pub(crate) struct Hosted {
    model: HttpGenerator,
    config: HttpConfig,
    /// Where each image lies as soon as it has come: it may have been paid for, so no interruption may lose it.
    kept: PathBuf,
}

impl Hosted {
    /// Ready to ask; nothing is sent. `run` is the run's folder, `kept` that of its images.
    pub(crate) fn new(config: &HttpConfig, run: &Path, kept: &Path) -> Result<Self> {
        let ledger = Box::new(Self::ledger(run));
        let model = HttpGenerator::new(config.clone(), ledger, &|name| std::env::var(name).ok())?;
        Ok(Self { model, config: config.clone(), kept: kept.to_owned() })
    }

    /// What was spent by the run in this folder.
    pub(crate) fn ledger(run: &Path) -> FileLedger {
        FileLedger::new(run.join(LEDGER))
    }

    /// What came of a request in an earlier try.
    fn known(&self, asked: &Asked<'_>) -> Result<Option<Drawn>> {
        let (image, refusal) = self.paths(asked);
        if refusal.is_file() {
            let flaw = std::fs::read_to_string(&refusal).map_err(PipelineError::io(&refusal))?;
            return Ok(Some(self.nothing(flaw)));
        }
        if !image.is_file() {
            return Ok(None);
        }
        let bytes = std::fs::read(&image).map_err(PipelineError::io(&image))?;
        let found = evenset_data::decode(&bytes, &Limits::default()).map_err(PipelineError::damaged(&image))?;
        Ok(Some(Drawn::from(self.rgb(found.rgb))))
    }

    /// The files of a request: its image, or why there is none. They are named by all that is sent, so that other words for
    /// the same request are another image.
    fn paths(&self, asked: &Asked<'_>) -> (PathBuf, PathBuf) {
        let (prompt, guide) = (in_words(asked.request), asked.guide.as_ref());
        let image = guide.map(|guide| guide.image.as_slice()).unwrap_or_default();
        let mask = guide.and_then(|guide| Some(("mask", guide.mask.as_deref()?)));
        let sent = [("request", asked.request.id.as_bytes()), ("prompt", prompt.as_bytes()), ("guide", image)];
        let name: String = Fingerprint::of(sent.into_iter().chain(mask)).as_str().chars().take(24).collect();
        (self.kept.join(format!("{name}.png")), self.kept.join(format!("{name}.txt")))
    }

    fn rgb(&self, pixels: Vec<u8>) -> Generated {
        let ImageSize { width, height } = self.config.size;
        Generated { width, height, channels: 3, pixels, finite: true }
    }

    fn nothing(&self, flaw: String) -> Drawn {
        Drawn { image: self.rgb(vec![0; self.frame().bytes()]), flaw: Some(flaw) }
    }
}

impl Generator for Hosted {
    fn card(&self) -> GeneratorCard {
        GeneratorCard {
            kind: "http",
            id: self.config.model.clone(),
            size: String::new(),
            sha256: None,
            lora_sha256: None,
            parameters: None,
            training_steps: None,
            loss: Vec::new(),
            // Without the request's seed an image cannot be drawn again, and provenance must not promise it.
            sampler: if self.config.seed_field.is_some() { "hosted" } else { "hosted, unseeded" }.to_owned(),
            steps: None,
            guidance: None,
            device: self.config.base_url.clone(),
        }
    }

    fn frame(&self) -> Frame {
        let ImageSize { width, height } = self.config.size;
        Frame { width, height, grey: false, scaled: true }
    }

    fn draw(&self, asked: &[Asked<'_>], progress: &dyn Progress) -> Result<Vec<Drawn>> {
        let mut drawn: Vec<Option<Drawn>> = asked.iter().map(|asked| self.known(asked)).collect::<Result<_>>()?;
        let open: Vec<usize> = (0..asked.len()).filter(|&i| drawn[i].is_none()).collect();
        let requests: Vec<HostedRequest> = open.iter().map(|&i| self.request(&asked[i])).collect();
        self.model.generate(&requests, progress, &mut |at, outcome| -> Result<()> {
            let place = open[at];
            let (image, refusal) = self.paths(&asked[place]);
            drawn[place] = Some(match outcome {
                HostedOutcome::Drawn(hosted) => {
                    let Generated { width, height, channels, pixels, .. } = &hosted.image;
                    write_file(&image, &evenset_data::encode_png(*width, *height, *channels, pixels, &[]))?;
                    Drawn::from(hosted.image)
                }
                HostedOutcome::Rejected(rejection) => {
                    let flaw = rejection.to_string();
                    write_file(&refusal, flaw.as_bytes())?;
                    self.nothing(flaw)
                }
            });
            Ok(())
        })?;
        Ok(drawn.into_iter().flatten().collect())
    }
}

impl Hosted {
    fn request(&self, asked: &Asked<'_>) -> HostedRequest {
        let ImageSize { width, height } = self.config.size;
        // The API knows what is drawn anew and what stays, and nothing between.
        let whole = |mask: &Vec<u8>| mask.iter().map(|&grey| if grey >= 128 { 255 } else { 0 }).collect();
        let edit = |guide: &GuidePixels| HostedEdit {
            width,
            height,
            channels: 3,
            pixels: guide.image.clone(),
            mask: guide.mask.as_ref().map(whole),
        };
        HostedRequest {
            prompt: in_words(asked.request),
            seed: asked.request.seed,
            edit: asked.guide.as_ref().map(edit),
        }
    }
}
