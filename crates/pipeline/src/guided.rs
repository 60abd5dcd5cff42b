//! Jobs in which every candidate must start from a real image: found out before anything is drawn.
//!
//! A ControlNet needs a picture for every image, and a network of nine channels a mask; both belong to real images. A
//! candidate without a guide would end such a job after hours.

use evenset_core::Group;
use evenset_diffusion::stable_diffusion::StableDiffusionConfig;

use crate::error::Result;
use crate::guides::Guides;
use crate::job::{Job, JobError, Model};

/// Refuses a job some of whose candidates would lack a guide. `groups` are those that candidates are drawn for. Where the
/// model's files are not there it is only checked with `needs_model`.
///
/// # Errors
/// [`JobError`], at the key that has to change; with `needs_model` what is wrong with the model's folder.
pub(crate) fn check<'a>(
    job: &Job,
    guides: Option<&Guides<'_>>,
    groups: impl Iterator<Item = &'a Group>,
    needs_model: bool,
) -> Result<()> {
    let Model::StableDiffusion(config) = &job.generate.model else { return Ok(()) };
    let groups: Vec<&Group> = groups.collect();
    if groups.is_empty() {
        return Ok(());
    }
    let Some(why) = needs_guides(job, config, needs_model)? else { return Ok(()) };
    let bad = |key: &str, message: String| Err(job.invalid(&format!("generate.{key}"), message).into());
    let Some(guides) = guides else { return bad("guides", format!("{why}; {}", remedy(config))) };
    if guides.config.noise {
        return bad("guides", format!("{why}, and some would start from noise; write `noise: false`"));
    }
    let largest = groups.iter().map(|group| guides.images(group)).max().unwrap_or(0);
    if let Some(group) = groups.iter().find(|group| guides.images(group) >= guides.config.below) {
        let (images, below) = (guides.images(group), guides.config.below);
        let message = format!(
            "{why}, and those for `{group}`, which has {images} real images, would start from noise with `below: {below}`; \
             write `below: {}` or more",
            largest + 1
        );
        return bad("guides", message);
    }
    if let Some(group) = groups.iter().find(|group| !guides.has_guide(group)) {
        let message = format!(
            "{why}, and no training image can guide `{group}`; add a source (`same-label`, `same-attributes`), or give \
             more real images their pictures"
        );
        return bad("guides", message);
    }
    Ok(())
}

/// Why every candidate needs a guide, where that is so.
fn needs_guides(job: &Job, config: &StableDiffusionConfig, needs_model: bool) -> Result<Option<String>> {
    let inpainting = match config.source() {
        Ok(model) => model.facts().inpainting,
        Err(error) if needs_model => return Err(error.into()),
        Err(_) => false,
    };
    let masked = job.generate.guides.as_ref().is_some_and(|guides| guides.mask.is_some());
    match (inpainting, masked) {
        (false, _) if config.controls.is_empty() => Ok(None),
        (false, _) => Ok(Some("a ControlNet needs a picture of a real image for every candidate".into())),
        (true, true) => Ok(Some("a model of nine channels needs a masked real image for every candidate".into())),
        (true, false) => {
            let message = format!("this model (nine channels) paints what a mask frees in a real image; {}", masks());
            let at: JobError = job.invalid("generate.guides.mask", message);
            Err(at.into())
        }
    }
}

fn remedy(config: &StableDiffusionConfig) -> String {
    match config.controls.is_empty() {
        true => masks(),
        false => "add `guides: {strengths: [1], noise: false, below: N}` with `below` above the largest group".into(),
    }
}

fn masks() -> String {
    "add `guides: {mask: COLUMN, noise: false, below: N}` with `below` above the largest group, or take a text-to-image model"
        .into()
}
