//! One arm with one seed: train a classifier, test it on the real held-out images, group by group.
//!
//! All arms are alike but for what their name says: the same classifier, the same number of gradient steps of the same
//! size, the same initial weights for the same seed, the same images to choose the best step by.

mod names;
mod recipe;
mod run;
mod sweep;
pub(crate) mod validation;
mod weights;

pub use names::{Arm, Baseline, Variant};
pub use run::{ArmRun, GroupOutcome};
pub use sweep::{ShareRun, run_share};

use evenset_core::{Group, Progress, Seed};
use evenset_nn::classifier::{Checks, Classifier, ClassifierConfig, Head, Inputs, Kept, Objective, Sampling, Training};

use self::recipe::Recipe;
use self::validation::Validation;
use crate::{Error, EvidenceConfig, EvidenceData, Labelled, Predictions};

/// The name of the classifier's only head.
const LABEL: &str = "label";
/// Looks at the validation images in the course of a training.
const LOOKS: u32 = 20;
/// The last layer alone is trained for one step in so many.
const LAST_LAYER_SHARE: u32 = 5;

/// Trains the classifier of one arm with one seed and tests it on the real held-out images.
///
/// `seed` is the job's seed and `number` says which of [`EvidenceConfig::seeds`] this is; the arms of one number share
/// their initial weights, and all arms and numbers the images that are held out for validation.
///
/// # Errors
/// [`Error::Config`], [`Error::Empty`] and its like where the job or the parts are wrong; [`Error::Arm`] where this data
/// does not allow the arm ([`arms_for`](crate::arms_for) leaves it out); [`Error::Classifier`] where training fails or is
/// interrupted.
pub fn run_arm(
    arm: Arm,
    data: &EvidenceData,
    seed: Seed,
    number: u32,
    config: &EvidenceConfig,
    progress: &dyn Progress,
) -> Result<ArmRun, Error> {
    run_with(arm, data, &data.generated, seed, number, config, progress)
}

/// Trains `balanced` with these generated images in the place of those of the data.
///
/// # Errors
/// As [`run_arm`].
pub fn run_balanced(
    generated: &Labelled,
    data: &EvidenceData,
    seed: Seed,
    number: u32,
    config: &EvidenceConfig,
    progress: &dyn Progress,
) -> Result<ArmRun, Error> {
    run_with(Arm::Balanced, data, generated, seed, number, config, progress)
}

/// [`run_arm`] with these generated images.
fn run_with(
    arm: Arm,
    data: &EvidenceData,
    generated: &Labelled,
    seed: Seed,
    number: u32,
    config: &EvidenceConfig,
    progress: &dyn Progress,
) -> Result<ArmRun, Error> {
    config.check()?;
    data.check(config.classifier)?;
    let job = seed.derive("evidence");
    let seed = job.index(u64::from(number));
    let validation = Validation::of(data, config, job.derive("validation"));
    let recipe = Recipe::of(arm, data, generated, &validation.rows, config, seed.derive("recipe"))?;
    let (classifier, kept) = train(&recipe, data, &validation, config, seed, progress)?;

    let tested = inputs(&data.test, config, "test")?;
    let predicted = classifier.inspect_inputs(&tested)?.heads;
    let mut by_group = vec![Predictions::new(data.classes.len()); data.groups.len()];
    for (row, (&label, &group)) in data.test.labels.iter().zip(&data.test.groups).enumerate() {
        if let (Some(head), Some(predictions)) = (predicted.first(), by_group.get_mut(group as usize)) {
            let (class, confidence) = head.argmax(row);
            predictions.push(label, class, confidence);
        }
    }
    let groups = outcomes(data, by_group, config.smallest_group as usize);
    let mut run = ArmRun::new(arm, number, &data.label, groups);
    run.real_images = recipe.real as u32;
    run.generated_images = (recipe.train.labels.len() - recipe.real) as u32;
    run.validation_images = validation.images() as u32;
    run.kept_step = kept.map(|kept| kept.step);
    run.note = recipe.note;
    Ok(run)
}

/// The groups with test images, and whether each is large enough to be the worst; where none is, all are.
fn outcomes(data: &EvidenceData, by_group: Vec<Predictions>, smallest: usize) -> Vec<GroupOutcome> {
    let any_large = by_group.iter().any(|predictions| predictions.len() >= smallest);
    let tested = data.groups.iter().zip(by_group).filter(|(_, predictions)| !predictions.is_empty());
    let outcome = |(group, predictions): (&Group, Predictions)| {
        let counts = !any_large || predictions.len() >= smallest;
        GroupOutcome { group: group.clone(), counts, predictions }
    };
    tested.map(outcome).collect()
}

/// What the classifier looks at; `part` is for the error.
fn inputs<'a>(labelled: &'a Labelled, config: &EvidenceConfig, part: &'static str) -> Result<Inputs<'a>, Error> {
    labelled.inputs(config.classifier).ok_or(Error::NoFeatures(part))
}

/// Trains a classifier as the recipe says, and keeps the best look at the validation images.
fn train(
    recipe: &Recipe,
    data: &EvidenceData,
    validation: &Validation,
    config: &EvidenceConfig,
    seed: Seed,
    progress: &dyn Progress,
) -> Result<(Classifier, Option<Kept>), Error> {
    let head = |part: &Labelled| Head {
        name: LABEL.to_owned(),
        classes: data.classes.clone(),
        labels: part.labels.iter().map(|&label| Some(label)).collect(),
    };
    let last = if recipe.last_layer.is_some() { (config.steps / LAST_LAYER_SHARE).max(1) } else { 0 };
    let classifier_config = ClassifierConfig {
        architecture: config.architecture(),
        width: config.width,
        steps: (config.steps - last).max(1),
        batch: config.batch,
        learning_rate: config.learning_rate,
        augment: recipe.augment,
        rand_augment: recipe.rand_augment,
        ..ClassifierConfig::default()
    };
    let judge = |classifier: &Classifier| validation.judge(classifier, config.classifier);
    let every = (config.steps / LOOKS).max(1);
    let checks = (validation.images() > 0).then_some(Checks { every, judge: &judge });
    let training = Training {
        inputs: inputs(&recipe.train, config, "train")?,
        heads: &[head(&recipe.train)],
        sampling: &recipe.sampling,
        loss_weights: recipe.loss_weights.as_deref(),
        objective: recipe.objective(config),
        config: &classifier_config,
        seed,
    };
    let (classifier, kept) = Classifier::train(&training, checks.as_ref(), progress)?;
    let Some(real) = &recipe.last_layer else {
        return Ok((classifier, kept));
    };
    let training = Training {
        inputs: inputs(real, config, "train")?,
        heads: &[head(real)],
        sampling: &Sampling::Weighted(weights::inverse_group_size(real)),
        loss_weights: None,
        objective: Objective::Mean,
        config: &ClassifierConfig { steps: last, ..classifier_config.clone() },
        seed: seed.derive("last layer"),
    };
    let kept = match (classifier.train_heads(&training, checks.as_ref(), progress)?, kept) {
        // The look at the start is the one that training ended with.
        (Some(Kept { step: 0, .. }), kept) => kept,
        (Some(Kept { step, score }), _) => Some(Kept { step: classifier_config.steps + step, score }),
        (None, kept) => kept,
    };
    Ok((classifier, kept))
}
