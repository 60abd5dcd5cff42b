//! A model that somebody else runs.

use std::cell::OnceCell;
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
/// The images that came, in the run's folder and not in a stage's: no change of the job or of evenset may lose what was paid.
const KEPT: &str = "hosted";

/// A hosted model with everything that it has drawn so far.
pub(crate) struct Hosted {
    /// Opened where something is to be drawn: a finished run is read again without the key.
    model: OnceCell<HttpGenerator>,
    config: HttpConfig,
    run: PathBuf,
}

impl Hosted {
    /// Asked nothing yet; `run` is the run's folder.
    pub(crate) fn new(config: &HttpConfig, run: &Path) -> Self {
        Self { model: OnceCell::new(), config: config.clone(), run: run.to_owned() }
    }

    /// Checks settings and key; nothing is sent.
    pub(crate) fn open(&self) -> Result<&HttpGenerator> {
        if let Some(model) = self.model.get() {
            return Ok(model);
        }
        let kept = self.run.join(KEPT);
        std::fs::create_dir_all(&kept).map_err(PipelineError::io(&kept))?;
        let ledger = Box::new(Self::ledger(&self.run));
        let model = HttpGenerator::new(self.config.clone(), ledger, &|name| std::env::var(name).ok())?;
        Ok(self.model.get_or_init(|| model))
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

    /// The files of a request: its image, or why there is none. They are named by all that is sent and by whom it is sent to,
    /// so that other words for the same request are another image. How it is asked, and how much may be spent, is not in it.
    fn paths(&self, asked: &Asked<'_>) -> (PathBuf, PathBuf) {
        let (prompt, guide) = (in_words(asked.request), asked.guide.as_ref());
        let image = guide.map(|guide| guide.image.as_slice()).unwrap_or_default();
        let mask = guide.and_then(|guide| Some(("mask", guide.mask.as_deref()?)));
        let HttpConfig { base_url, model, size, fields, seed_field, .. } = &self.config;
        let base = base_url.trim_end_matches('/');
        // Plain data always serialises.
        let server = serde_json::to_vec(&(base, model, size, fields, seed_field)).unwrap_or_default();
        let sent = [
            ("server", server.as_slice()),
            ("request", asked.request.id.as_bytes()),
            ("prompt", prompt.as_bytes()),
            ("guide", image),
        ];
        let name: String = Fingerprint::of(sent.into_iter().chain(mask)).as_str().chars().take(24).collect();
        let kept = self.run.join(KEPT);
        (kept.join(format!("{name}.png")), kept.join(format!("{name}.txt")))
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
        if requests.is_empty() {
            return Ok(drawn.into_iter().flatten().collect());
        }
        self.open()?.generate(&requests, progress, &mut |at, outcome| -> Result<()> {
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
