//! Generate: one round's requests become candidates.

use std::path::Path;

use arrow_array::RecordBatch;
use evenset_core::{Fingerprint, Group, Seed};
use evenset_data::Dataset;
use evenset_plan::{AskPolicy, CheckedPrompts, Request};

use super::scan::Row;
use crate::columns::{self, Reader};
use crate::error::{PipelineError, Result};
use crate::generator::{Asked, Drawn, Generator, GeneratorCard, GuidePixels};
use crate::guides::{Guides, Start};
use crate::images::{self, Frame};
use crate::job::Sampler;
use crate::pictures;
use crate::rounds::{Progress as RoundsProgress, asks};
use crate::run::{Context, Done, Stage, StageReport, fingerprint};
use crate::units;

const REQUESTS: &str = "requests.parquet";
/// Images that are drawn at once.
const BATCH: usize = 64;

/// Draws the candidates of one round.
pub struct GenerateStage<'a> {
    /// From 1.
    pub round: u32,
    /// What is still missing, and how candidates fared so far.
    pub so_far: &'a RoundsProgress,
    /// What `so_far` was counted from: the plan, or the verification of the round before.
    pub after: &'a Fingerprint,
    /// How images are drawn.
    pub sampler: &'a Sampler,
    /// Images per unit.
    pub unit: usize,
    /// The job's seed.
    pub seed: Seed,
    /// What each request says in words, where the job has prompts.
    pub prompts: Option<&'a CheckedPrompts>,
    /// The model.
    pub model: &'a Done<Box<dyn Generator>>,
    /// Whether every real image is grey: generated ones are then written grey too.
    pub grey: bool,
    /// How many images a round may ask for.
    pub ask: &'a AskPolicy,
    /// The images that candidates of small groups start from, and the dataset that they are read from.
    pub guides: Option<(&'a Guides<'a>, &'a Dataset)>,
    /// For each of the model's ControlNets the column of the pictures that it is shown.
    pub controls: Vec<&'a str>,
}

/// A generated image before the gates.
#[derive(Clone, Debug)]
pub struct Candidate {
    /// What asked for it.
    pub request: Request,
    /// The image as a PNG file.
    pub png: Vec<u8>,
    /// Why there is no image to look at, where there is none; the PNG file is then blank.
    pub flaw: Option<String>,
    /// How it was started, where the job has guides for its group.
    pub start: Option<Start>,
}

/// How a request is started, and the real image where there is one.
type Begin<'a> = Option<(Start, Option<&'a Row>)>;

impl Stage for GenerateStage<'_> {
    type Output = Vec<Candidate>;

    fn name(&self) -> String {
        format!("generate-{}", self.round)
    }

    fn fingerprint(&self) -> Fingerprint {
        // The unit size is left out: an image depends on its request alone, and units have fingerprints of their own.
        // What is asked for depends on more than the rounds before: on the floor, and on how many images a sweep wants.
        let asks = asks(self.so_far, self.ask).ok();
        let guides = self.guides.map(|(guides, _)| (guides.config, guides.label));
        fingerprint(&self.name(), &(self.sampler, self.seed, asks, guides), &[self.after, &self.model.fingerprint])
    }

    fn run(&self, folder: &Path, context: &Context<'_>) -> Result<StageReport> {
        let requests = self.requests()?;
        evenset_data::write_parquet(&folder.join(REQUESTS), &request_table(&requests)?)?;
        let starts = self.starts(&requests);
        let chunks: Vec<&[Request]> = requests.chunks(self.unit).collect();
        let starts: Vec<&[Begin<'_>]> = starts.chunks(self.unit).collect();
        let units: Vec<(Fingerprint, u64)> =
            chunks.iter().map(|chunk| (chunk_fingerprint(chunk), chunk.len() as u64)).collect();
        let task = format!("generate, round {}", self.round);
        units::map(folder, &task, &units, context, |index| {
            let batch = self.draw(chunks[index], starts[index], context)?;
            Ok((batch, StageReport { rows: chunks[index].len() as u64, rejected: 0 }))
        })
    }

    fn load(&self, folder: &Path) -> Result<Vec<Candidate>> {
        let requests = self.requests()?;
        let mut candidates = Vec::with_capacity(requests.len());
        for batch in units::read(folder, requests.len())? {
            read_candidates(&Reader { batch: &batch, path: folder }, &mut candidates)?;
        }
        let drawn = candidates.iter().map(|candidate| &candidate.request.id);
        if !drawn.eq(requests.iter().map(|request| &request.id)) {
            return Err(PipelineError::damaged(&folder.join("units"))("its images are of other requests"));
        }
        Ok(candidates)
    }
}

impl GenerateStage<'_> {
    fn requests(&self) -> Result<Vec<Request>> {
        Ok(evenset_plan::requests_with(self.seed, self.round, &asks(self.so_far, self.ask)?, self.prompts)?)
    }

    /// How each request is started.
    fn starts(&self, requests: &[Request]) -> Vec<Begin<'_>> {
        match self.guides {
            Some((guides, _)) => guides.starts(requests, &self.so_far.guides),
            None => vec![None; requests.len()],
        }
    }

    fn draw<'a>(&self, requests: &'a [Request], starts: &'a [Begin<'_>], context: &Context<'_>) -> Result<RecordBatch> {
        let generator = self.model.output.as_ref();
        let frame = Frame { grey: self.grey, ..generator.frame() };
        let mut guides = self.guide_pixels(starts, frame)?.into_iter();
        let ask = |(request, begin): (&'a Request, &'a Begin<'_>)| Asked {
            request,
            start: begin.as_ref().map(|(start, _)| start),
            guide: begin.as_ref().and_then(|(_, row)| row.as_ref()).and_then(|_| guides.next()),
        };
        let asked: Vec<Asked<'_>> = requests.iter().zip(starts).map(ask).collect();
        let mut images = Vec::with_capacity(asked.len());
        for asked in asked.chunks(BATCH) {
            images.extend(generator.draw(asked, context.progress)?);
            context.progress.advance(asked.len() as u64);
        }
        let card = generator.card();
        let encode = |(asked, drawn): (&Asked<'_>, &Drawn)| {
            images::encode(frame, &drawn.image.pixels, &[("parameters", &parameters(&card, asked, frame))])
        };
        let pngs: Vec<Vec<u8>> = asked.iter().zip(&images).map(encode).collect();
        let starts: Vec<Option<String>> =
            starts.iter().map(|start| serde_json::to_string(&start.as_ref()?.0).ok()).collect();
        let mut table = request_columns(requests);
        table.push(("flaw", columns::texts(images.iter().map(|drawn| drawn.flaw.as_deref()))));
        table.push(("start", columns::texts(starts.iter().map(Option::as_deref))));
        table.push(("png", columns::blobs(pngs.iter().map(Vec::as_slice))));
        columns::table(table)
    }

    /// The pixels of the guides and of their pictures, in the order of the requests that have one.
    fn guide_pixels(&self, starts: &[Begin<'_>], frame: Frame) -> Result<Vec<GuidePixels>> {
        let Some((guides, dataset)) = self.guides else { return Ok(Vec::new()) };
        let rows: Vec<&Row> = starts.iter().filter_map(|start| start.as_ref()?.1).collect();
        let load = |column: &str| -> Result<Vec<Vec<u8>>> {
            let pixels = images::load_column(dataset, column, &rows, frame, self.model.output.fit())?;
            Ok(pixels.chunks_exact(frame.bytes()).map(<[u8]>::to_vec).collect())
        };
        let pixels = |image| GuidePixels { image, mask: None, controls: Vec::with_capacity(self.controls.len()) };
        let mut found: Vec<GuidePixels> = load(&dataset.image)?.into_iter().map(pixels).collect();
        if let Some(column) = &guides.config.mask {
            for (guide, rgb) in found.iter_mut().zip(load(column)?) {
                guide.mask = Some(pictures::mask(&rgb));
            }
        }
        for column in &self.controls {
            for (guide, rgb) in found.iter_mut().zip(load(column)?) {
                guide.controls.push(rgb);
            }
        }
        Ok(found)
    }
}

/// The `parameters` text chunk in the form that image tools read.
fn parameters(card: &GeneratorCard, asked: &Asked<'_>, frame: Frame) -> String {
    let Request { prompt, negative_prompt, group, seed, .. } = asked.request;
    let shown = prompt.clone().unwrap_or_else(|| group.to_string());
    let negative = negative_prompt.as_ref().map(|words| format!("\nNegative prompt: {words}")).unwrap_or_default();
    let guidance = asked.start.and_then(|start| start.guidance).or(card.guidance);
    let strength = asked.start.and_then(|start| start.strength);
    let facts = [
        card.steps.map(|steps| format!("Steps: {steps}")),
        Some(format!("Sampler: {}", card.sampler)),
        guidance.map(|guidance| format!("CFG scale: {guidance}")),
        Some(format!("Seed: {}", seed.0)),
        Some(format!("Size: {}x{}", frame.width, frame.height)),
        card.sha256.as_ref().map(|sha256| format!("Model hash: {}", sha256.get(..10).unwrap_or_default())),
        Some(format!("Model: {}", card.id)),
        strength.map(|strength| format!("Denoising strength: {strength}")),
    ];
    let facts: Vec<String> = facts.into_iter().flatten().collect();
    format!("{shown}{negative}\n{}", facts.join(", "))
}

fn chunk_fingerprint(requests: &[Request]) -> Fingerprint {
    Fingerprint::of(requests.iter().map(|request| ("request", request.id.as_bytes())))
}

fn request_columns(requests: &[Request]) -> Vec<(&'static str, arrow_array::ArrayRef)> {
    vec![
        ("id", columns::texts(requests.iter().map(|r| Some(r.id.as_str())))),
        ("group", columns::strings(requests.iter().map(|r| r.group.to_string()))),
        ("round", columns::numbers(requests.iter().map(|r| r.round.into()))),
        ("index", columns::numbers(requests.iter().map(|r| r.index))),
        ("seed", columns::numbers(requests.iter().map(|r| r.seed.0))),
        ("prompt", columns::texts(requests.iter().map(|r| r.prompt.as_deref()))),
        ("negative_prompt", columns::texts(requests.iter().map(|r| r.negative_prompt.as_deref()))),
    ]
}

/// Requests as a table.
pub(crate) fn request_table(requests: &[Request]) -> Result<RecordBatch> {
    columns::table(request_columns(requests))
}

fn read_candidates(reader: &Reader<'_>, candidates: &mut Vec<Candidate>) -> Result<()> {
    let (pngs, flaws) = (reader.blobs("png")?, reader.texts("flaw")?);
    let starts = reader.texts("start")?.into_iter().map(|start| match start {
        Some(start) => serde_json::from_str(&start).map(Some).map_err(PipelineError::damaged(reader.path)),
        None => Ok(None),
    });
    for (((request, png), flaw), start) in read_requests(reader)?.into_iter().zip(pngs).zip(flaws).zip(starts) {
        candidates.push(Candidate { request, png, flaw, start: start? });
    }
    Ok(())
}

fn read_requests(reader: &Reader<'_>) -> Result<Vec<Request>> {
    let (ids, groups) = (reader.strings("id")?, reader.parsed::<Group>("group")?);
    let (rounds, indices, seeds) = (reader.numbers("round")?, reader.numbers("index")?, reader.numbers("seed")?);
    let prompts = reader.texts("prompt")?.into_iter().zip(reader.texts("negative_prompt")?);
    let rows = ids.into_iter().zip(groups).zip(rounds).zip(indices.into_iter().zip(seeds)).zip(prompts);
    Ok(rows
        .map(|((((id, group), round), (index, seed)), (prompt, negative_prompt))| Request {
            id,
            group,
            round: u32::try_from(round).unwrap_or(u32::MAX),
            index,
            seed: Seed(seed),
            prompt,
            negative_prompt,
        })
        .collect())
}
