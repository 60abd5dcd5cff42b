//! The price of a plan before it is paid: what this machine does in a second, and how many candidates it takes.
//!
//! The rates are measured here and now: with an untrained model of the job's size on images of the job's size (a network
//! takes as long whatever its weights are), or with a first image of a model that others trained. No clock enters any output of a run.

use std::path::Path;
use std::time::Instant;

use candle_core::Device;
use evenset_core::{Group, Progress, Seed, Silent};
use evenset_diffusion::http::Ledger;
use evenset_diffusion::stable_diffusion::{
    DrawSettings, Prompt, PromptRequest, StableDiffusionConfig, Start, check_settings,
};
use evenset_diffusion::{AttributeVocabulary, ConditionalConfig, ConditionalModel, ImageRequest, TrainingSet};
use evenset_plan::{Acceptance, Plan, Price, Rates};

use crate::engine::Finished;
use crate::error::{PipelineError, Result};
use crate::generator::Hosted;
use crate::images::Frame;
use crate::job::{Job, Model};
use crate::stages::report;

/// Training steps of the shorter and of the longer measurement; their difference has no set-up in it.
const STEPS: [u64; 2] = [2, 6];
/// Images drawn at once by the measurement: as many as a batch of the rounds, or as the plan needs.
const DRAWN: usize = 32;
/// Rows of the stand-in dataset.
const ROWS: usize = 64;

/// What the plan of a finished walk is expected to cost on this machine; `None` without a plan, where nothing is missing,
/// for a hosted model and for one whose weights are not there.
///
/// # Errors
/// Whatever training and drawing can give.
pub fn price(job: &Job, finished: &Finished, progress: &dyn Progress) -> Result<Option<Price>> {
    let Some(plan) = finished.plan.as_ref().map(|plan| &plan.output).filter(|plan| plan.images > 0) else {
        return Ok(None);
    };
    match &job.generate.model {
        // What a server needs is not known before it is asked, and asking costs money.
        Model::Http(_) => return Ok(None),
        // Who is missing can be asked before the weights are there.
        Model::StableDiffusion(config) => {
            if let Err(error) = config.source() {
                tracing::warn!("the price is not known without the model: {error}");
                return Ok(None);
            }
        }
        Model::Conditional(_) => {}
    }
    progress.begin("measure this machine", 3);
    let rates = match (rates(job, finished, plan, progress), &job.generate.model) {
        // Who is missing is known all the same. What the job says wrong is an error now, and not first when it is run.
        (Err(error), Model::StableDiffusion(_)) if progress.check().is_ok() && !error.is_usage() => {
            progress.end();
            tracing::warn!("the price is not known: {error}");
            return Ok(None);
        }
        (rates, _) => rates?,
    };
    progress.end();
    Ok(Some(evenset_plan::price(plan, &earlier(&job.run), &rates)?))
}

/// What the plan of a finished walk is expected to cost at a hosted model, and whether its budget pays for that, in a sentence;
/// `None` for other models and where nothing is missing. Nothing is asked of the server.
///
/// # Errors
/// A ledger of earlier tries that cannot be read.
pub fn bill(job: &Job, finished: &Finished) -> Result<Option<String>> {
    let plan = finished.plan.as_ref().map(|plan| &plan.output).filter(|plan| plan.images > 0);
    let (Model::Http(config), Some(plan)) = (&job.generate.model, plan) else { return Ok(None) };
    // Of the price only the number of images is used: how fast a server is shows when it is asked.
    let unknown = Rates { training_seconds: 0.0, images_per_second: 1.0, memory_bytes: 0 };
    let candidates = evenset_plan::price(plan, &earlier(&job.run), &unknown)?.candidates.ceil() as u64;
    let left = config.budget.left(&Hosted::ledger(&job.run).load()?);
    let about = match (config.budget.price_per_image, &config.budget.currency) {
        (Some(price), Some(currency)) => format!(" for about {:.2} {currency}", price * candidates as f64),
        _ => String::new(),
    };
    let enough = match left >= candidates {
        true => format!("the budget pays for {left}"),
        false => format!("the budget pays for {left} and ends the run then; raise it to reach the target"),
    };
    Ok(Some(format!("about {candidates} images will be asked of {}{about}; {enough}", config.model)))
}

/// How candidates of each group fared in the last finished run of this job.
fn earlier(run: &Path) -> Vec<Acceptance> {
    let Ok(report) = report::read(run) else { return Vec::new() };
    let known = report.groups.into_iter().filter(|group| group.generated > 0);
    known
        .map(|group| Acceptance { group: group.values, accepted: group.accepted, requested: group.generated })
        .collect()
}

fn rates(job: &Job, finished: &Finished, plan: &Plan, progress: &dyn Progress) -> Result<Rates> {
    match &job.generate.model {
        Model::Conditional(config) => rates_of_trained(config, job, finished, plan, progress),
        Model::StableDiffusion(config) => rates_of_pretrained(config, job, progress),
        Model::Http(_) => Ok(Rates { training_seconds: 0.0, images_per_second: f64::INFINITY, memory_bytes: 0 }),
    }
}

/// A few steps of one image, with the real weights: they take as long whatever is drawn.
fn rates_of_pretrained(config: &StableDiffusionConfig, job: &Job, progress: &dyn Progress) -> Result<Rates> {
    let source = config.source()?;
    let settings = job.generate.sampler.draw_settings(config, source.facts());
    let strengths = job.generate.guides.as_ref().map_or(&[][..], |guides| &guides.strengths);
    check_settings(source.as_ref(), &settings, strengths)?;
    let model = config.load(&Device::Cpu)?;
    progress.advance(2);
    let seconds = |steps: usize| -> Result<f64> {
        progress.check()?;
        let start = Instant::now();
        let request = stand_in_request(&settings, model.components().facts.inpainting);
        model.generate(&[request], &DrawSettings { steps, ..settings.clone() }, &Silent)?;
        Ok(start.elapsed().as_secs_f64())
    };
    // The difference has neither text encoder nor autoencoder in it. Where steps reuse features, it is of a whole turn.
    let turn = settings.deep_cache.map_or(1, |deep| deep.interval).clamp(1, settings.steps.saturating_sub(1).max(1));
    let (one, more) = (seconds(1)?, seconds(1 + turn)?);
    let step = (more - one).max(0.0) / turn as f64;
    let image = one + step * settings.steps.saturating_sub(1) as f64;
    progress.advance(1);
    Ok(Rates { training_seconds: 0.0, images_per_second: 1.0 / image.max(1e-6), memory_bytes: peak_memory() })
}

/// An image with whatever a model must be given beside a prompt: black pictures for ControlNets, a black image that is free
/// everywhere for a network of nine channels.
fn stand_in_request(settings: &DrawSettings, inpainting: bool) -> PromptRequest {
    let pixels = settings.height * settings.width;
    let start = || Start { pixels: vec![0; 3 * pixels], strength: 1.0, mask: Some(vec![255; pixels]) };
    PromptRequest {
        start: inpainting.then(start),
        controls: vec![vec![0; 3 * pixels]; settings.controls.len()],
        ..PromptRequest::new(Prompt::new("a photo"), Seed(0))
    }
}

fn rates_of_trained(
    config: &ConditionalConfig,
    job: &Job,
    finished: &Finished,
    plan: &Plan,
    progress: &dyn Progress,
) -> Result<Rates> {
    let sampler = job.generate.sampler.conditional().map_err(|(_, why)| job.invalid("generate.sampler", why))?;
    let set = stand_in(finished);
    let folder = tempfile::tempdir().map_err(PipelineError::io(Path::new("a temporary folder")))?;
    let mut seconds = [0.0; 2];
    let mut model: Option<ConditionalModel> = None;
    for (seconds, steps) in seconds.iter_mut().zip(STEPS) {
        progress.check()?;
        let config = ConditionalConfig { steps: Some(steps), ..config.clone() };
        let start = Instant::now();
        let folder = folder.path().join(steps.to_string());
        model = Some(evenset_diffusion::train(&set, &config, Seed(0), &folder, &Silent, &Device::Cpu)?);
        *seconds = start.elapsed().as_secs_f64();
        progress.advance(1);
    }
    let step = (seconds[1] - seconds[0]).max(0.0) / (STEPS[1] - STEPS[0]) as f64;
    let wanted = requests(&set, usize::try_from(plan.images).unwrap_or(DRAWN).min(DRAWN));
    let start = Instant::now();
    if let Some(model) = &model {
        model.generate(&wanted, &sampler, &Silent)?;
    }
    let drawing = start.elapsed().as_secs_f64().max(1e-6);
    progress.advance(1);
    Ok(Rates {
        training_seconds: step * config.steps() as f64,
        images_per_second: wanted.len() as f64 / drawing,
        memory_bytes: peak_memory(),
    })
}

/// Black images of the job's size with the job's attributes.
fn stand_in(finished: &Finished) -> TrainingSet {
    let Frame { width, height, .. } = finished.frame;
    let scan = &finished.scan.output;
    let rows: Vec<_> = scan.rows.iter().collect();
    let attributes: Vec<AttributeVocabulary> = scan
        .columns
        .iter()
        .enumerate()
        .map(|(i, name)| AttributeVocabulary { name: name.clone(), values: crate::stages::model::vocabulary(&rows, i) })
        .collect();
    let condition =
        |row: usize| attributes.iter().map(|attribute| Some((row % attribute.values.len().max(1)) as u32)).collect();
    TrainingSet {
        width,
        height,
        channels: 3,
        pixels: vec![0; ROWS * width as usize * height as usize * 3],
        conditions: (0..ROWS).map(condition).collect(),
        attributes,
    }
}

fn requests(set: &TrainingSet, images: usize) -> Vec<ImageRequest> {
    let first = |group: Group, attribute: &AttributeVocabulary| match attribute.values.first() {
        Some(value) => group.with(&attribute.name, value),
        None => group,
    };
    let group = set.attributes.iter().fold(Group::default(), first);
    (0..images.max(1)).map(|i| ImageRequest::new(group.clone(), Seed(i as u64))).collect()
}

/// The most memory that this process held so far, in bytes; 0 where the system does not say.
fn peak_memory() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kilobytes = line.and_then(|line| line.trim().trim_end_matches("kB").trim().parse::<u64>().ok());
    kilobytes.unwrap_or(0) * 1024
}
