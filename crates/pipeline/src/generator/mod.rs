//! What images are drawn from: one small trait, one file a kind of model.

mod conditional;
mod hosted;
mod stable_diffusion;

use evenset_core::Progress;
use evenset_diffusion::Generated;
use evenset_plan::Request;

pub(crate) use conditional::Conditional;
pub(crate) use hosted::Hosted;
pub(crate) use stable_diffusion::{FileState, Pretrained, Weights, states};

use crate::error::Result;
use crate::guides::Start;
use crate::images::{Fit, Frame};

/// A model that is ready to draw.
pub trait Generator {
    /// What provenance says of it.
    fn card(&self) -> GeneratorCard;

    /// The size of its images.
    fn frame(&self) -> Frame;

    /// How real images that candidates start from come into its frame.
    fn fit(&self) -> Fit {
        Fit::Crop
    }

    /// One image for each of `asked`, in their order, and each depending on itself alone (a hosted model's on its server
    /// too). `progress` is only asked whether to stop.
    ///
    /// # Errors
    /// What the model gives.
    fn draw(&self, asked: &[Asked<'_>], progress: &dyn Progress) -> Result<Vec<Drawn>>;
}

/// What came of a request.
#[derive(Clone, Debug, PartialEq)]
pub struct Drawn {
    /// The image, black where there is none.
    pub image: Generated,
    /// Why there is no image to look at, where there is none.
    pub flaw: Option<String>,
}

impl From<Generated> for Drawn {
    fn from(image: Generated) -> Self {
        Self { flaw: flaw(&image), image }
    }
}

/// What is wrong with an image before anybody looks at it.
pub(crate) fn flaw(image: &Generated) -> Option<String> {
    (!image.finite).then(|| "the generator met NaN or infinity while drawing it".to_owned())
}

/// A model in the words of provenance columns, dataset cards and reports.
#[derive(Clone, Debug, PartialEq)]
pub struct GeneratorCard {
    /// The kind of model, as the job names it.
    pub kind: &'static str,
    /// A short name.
    pub id: String,
    /// Its size or family.
    pub size: String,
    /// SHA-256 of its weights; none for a hosted model.
    pub sha256: Option<String>,
    /// SHA-256 of each LoRA's file, where it has some.
    pub lora_sha256: Option<String>,
    /// How many weights it has, where it was trained here.
    pub parameters: Option<u64>,
    /// The steps of its training, where it was trained here.
    pub training_steps: Option<u64>,
    /// The loss at training steps.
    pub loss: Vec<(u64, f64)>,
    /// The solver's name.
    pub sampler: String,
    /// Its steps; not known of a hosted model.
    pub steps: Option<u64>,
    /// The guidance scale, 1 being none; not known of a hosted model.
    pub guidance: Option<f64>,
    /// Device and number type it ran on, or the server's address.
    pub device: String,
}

/// One image that is asked for.
#[derive(Clone, Debug)]
pub struct Asked<'a> {
    /// What it shows, in attributes and in words.
    pub request: &'a Request,
    /// How it is started, where the job has guides for its group.
    pub start: Option<&'a Start>,
    /// The real image that it starts from.
    pub guide: Option<GuidePixels>,
}

/// A real image that a candidate starts from, with the pictures that belong to it, all in the generator's frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GuidePixels {
    /// `[height, width, 3]`.
    pub image: Vec<u8>,
    /// `[height, width]`, where only a part may change: from 128 up, the pixel is drawn anew.
    pub mask: Option<Vec<u8>>,
    /// For each of the model's ControlNets what it is shown, `[height, width, 3]`.
    pub controls: Vec<Vec<u8>>,
}

/// What a request says in words: its prompt, or its values where the job has no prompts (`garment=coat & colour=blue` is
/// `coat, blue`).
fn in_words(request: &Request) -> String {
    let values = || request.group.values().collect::<Vec<_>>().join(", ");
    request.prompt.clone().unwrap_or_else(values)
}
