//! The training loop that all architectures share.

use std::f64::consts::PI;

use candle_core::{Tensor, Var};
use evenset_core::{Progress, Seed};

use super::inputs::{Changes, Inputs, batch};
use super::objective::{Objective, Steering};
use super::sampling::Rows;
use super::{Architecture, Classifier, ClassifierConfig, Head, Sampling};
use crate::{AdamW, AdamWConfig, Error, Result, ops};

/// Gradients longer than this are scaled down.
const CLIP_NORM: f64 = 1.0;
/// Share of the steps in which the learning rate rises from zero.
const WARM_UP: f64 = 0.05;

/// Everything that a training needs.
#[derive(Clone, Copy, Debug)]
pub struct Training<'a> {
    /// What is learned from; images are changed at random as the configuration says.
    pub inputs: Inputs<'a>,
    /// What is learned.
    pub heads: &'a [Head],
    /// How inputs are drawn.
    pub sampling: &'a Sampling,
    /// One for each input, multiplied with its loss; a mean of one keeps the step size as it is.
    pub loss_weights: Option<&'a [f32]>,
    /// What is made small.
    pub objective: Objective<'a>,
    /// Size and length.
    pub config: &'a ClassifierConfig,
    /// Where everything random comes from.
    pub seed: Seed,
}

/// Looks at the classifier while it is trained; the weights of the best look are kept.
#[derive(Clone, Copy)]
pub struct Checks<'a> {
    /// Steps between two looks; there is always one after the last step.
    pub every: u32,
    /// How good the classifier is: the first number decides, the second among equals; of equal looks the last is kept.
    pub judge: &'a dyn Fn(&Classifier) -> Result<[f64; 2]>,
}

/// The look whose weights were kept.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Kept {
    /// Steps made until then.
    pub step: u32,
    /// What the judge said.
    pub score: [f64; 2],
}

/// How a batch is mixed: for each row the place of its partner, and the share of the row itself.
type Mix<'a> = Option<(&'a [usize], f64)>;

/// Gives a batch's features from its rows, the step's number and how it is mixed.
type Features<'a> = &'a dyn Fn(&[usize], u32, Mix<'_>) -> Result<Tensor>;

/// The best weights so far.
struct Best {
    kept: Kept,
    weights: Vec<(Var, Tensor)>,
}

impl Best {
    /// Judges the classifier as it is, and keeps its weights if none were better.
    fn look(best: &mut Option<Self>, classifier: &Classifier, checks: &Checks<'_>, step: u32) -> Result<()> {
        let score = (checks.judge)(classifier)?;
        if best.as_ref().is_none_or(|best| score >= best.kept.score) {
            let copy = |(_, var): (String, Var)| {
                let values = var.as_detached_tensor().copy()?;
                Ok((var, values))
            };
            let weights = classifier.weights.vars().into_iter().map(copy).collect::<Result<_>>()?;
            *best = Some(Self { kept: Kept { step, score }, weights });
        }
        Ok(())
    }

    fn restore(self) -> Result<Kept> {
        for (var, values) in &self.weights {
            var.set(values)?;
        }
        Ok(self.kept)
    }
}

impl Classifier {
    /// Trains a classifier; with `checks`, the weights of the best look are those it ends with.
    ///
    /// # Errors
    /// [`Error::Config`] where inputs, labels and weights do not fit each other, [`Error::Interrupted`] when the
    /// progress asks for an end, [`Error::Tensor`] and [`Error::NonFiniteGradient`] where the arithmetic fails, and what
    /// the judge says.
    pub fn train(
        training: &Training<'_>,
        checks: Option<&Checks<'_>>,
        progress: &dyn Progress,
    ) -> Result<(Self, Option<Kept>)> {
        check(training)?;
        let Training { inputs, config, seed, .. } = *training;
        let classifier = Self::untrained(Self::describe(training), seed.derive("weights"))?;
        if config.architecture == Architecture::Linear {
            // Nothing to break the symmetry of: starting without an opinion, it has none to unlearn.
            classifier.weights.vars().iter().try_for_each(|(_, var)| var.set(&var.zeros_like()?))?;
        }
        let changes = Changes { augment: config.augment, rand_augment: config.rand_augment };
        let (description, device) = (&classifier.description, classifier.weights.device());
        let features = |rows: &[usize], step: u32, mix: Mix<'_>| {
            let x = batch(&inputs, rows, changes, seed.derive("augment").index(step.into()), description, device)?;
            let x = match mix {
                Some((partners, share)) => mixed(&x, partners, share)?,
                None => x,
            };
            classifier.network.features(&x)
        };
        let kept = classifier.learn(training, classifier.weights.vars(), &features, None, checks, progress)?;
        Ok((classifier, kept))
    }

    /// Trains the heads alone, from where they are, on the features that the rest of the network gives; inputs are not
    /// changed at random. With `checks`, the heads end as the best look found them, the first of which is at the start.
    ///
    /// # Errors
    /// As [`train`](Self::train), and [`Error::Config`] for inputs or heads that are not this classifier's.
    pub fn train_heads(
        &self,
        training: &Training<'_>,
        checks: Option<&Checks<'_>>,
        progress: &dyn Progress,
    ) -> Result<Option<Kept>> {
        check(training)?;
        if !matches!(training.objective, Objective::Mean) || training.heads.len() != self.network.heads.len() {
            return Err(Error::Config("heads are trained as they are, all of them, on the mean loss".into()));
        }
        let all = self.inspect_inputs(&training.inputs)?.features;
        let width = self.feature_width();
        let features = |rows: &[usize], _: u32, _: Mix<'_>| {
            let values: Vec<f32> = rows.iter().flat_map(|row| &all[row * width..(row + 1) * width]).copied().collect();
            Ok(Tensor::from_vec(values, (rows.len(), width), self.weights.device())?)
        };
        let mut vars = self.weights.vars();
        vars.retain(|(name, _)| name.starts_with("heads."));
        let mut best = None;
        if let Some(checks) = checks {
            Best::look(&mut best, self, checks, 0)?;
        }
        self.learn(training, vars, &features, best, checks, progress)
    }

    /// The loop.
    fn learn(
        &self,
        training: &Training<'_>,
        vars: Vec<(String, Var)>,
        features: Features<'_>,
        mut best: Option<Best>,
        checks: Option<&Checks<'_>>,
        progress: &dyn Progress,
    ) -> Result<Option<Kept>> {
        let Training { inputs, heads, sampling, loss_weights, config, seed, objective } = *training;
        let optimiser = AdamWConfig { weight_decay: config.weight_decay, ..AdamWConfig::default() };
        let mut optimiser = AdamW::new(vars, optimiser);
        let mut rows = Rows::new(inputs.len(), sampling, seed.derive("rows"));
        let mut steering = Steering::new(objective, seed.derive("objective"));
        progress.begin("train the classifier", u64::from(config.steps));
        for step in 0..config.steps {
            progress.check()?;
            let rows = rows.next(config.batch as usize);
            let mix = steering.mix(step, rows.len());
            let features = features(&rows, step, mix.as_ref().map(|(partners, share)| (partners.as_slice(), *share)))?;
            let logits = self.network.logits(&features)?;
            let weights: Vec<f32> = rows.iter().map(|&row| loss_weights.map_or(1.0, |all| all[row])).collect();
            let loss = match &mix {
                Some((partners, share)) => {
                    let others: Vec<usize> = partners.iter().map(|&partner| rows[partner]).collect();
                    let other_weights = partners.iter().map(|&partner| weights[partner] * (1.0 - share) as f32);
                    let other_weights: Vec<f32> = other_weights.collect();
                    let weights: Vec<f32> = weights.iter().map(|weight| weight * *share as f32).collect();
                    sum(loss(&logits, heads, &rows, &weights)?, loss(&logits, heads, &others, &other_weights)?)?
                }
                None => {
                    let weights = steering.weights(weights, &rows, heads, &logits)?;
                    loss(&logits, heads, &rows, &weights)?
                }
            };
            if let Some(loss) = loss {
                optimiser.step(&loss.backward()?, learning_rate(config, step), Some(CLIP_NORM))?;
                if step % 50 == 0 {
                    progress.note(&format!("loss {:.3}", loss.to_scalar::<f32>()?));
                }
            }
            progress.advance(1);
            let done = step + 1;
            if let Some(checks) = checks.filter(|checks| done == config.steps || done % checks.every.max(1) == 0) {
                Best::look(&mut best, self, checks, done)?;
            }
        }
        progress.end();
        best.map(Best::restore).transpose()
    }
}

/// `share` of each row and the rest of its partner's.
fn mixed(x: &Tensor, partners: &[usize], share: f64) -> Result<Tensor> {
    let partners: Vec<u32> = partners.iter().map(|&partner| partner as u32).collect();
    let others = x.index_select(&Tensor::new(partners, x.device())?, 0)?;
    Ok(((x * share)? + (others * (1.0 - share))?)?)
}

fn sum(a: Option<Tensor>, b: Option<Tensor>) -> Result<Option<Tensor>> {
    Ok(match (a, b) {
        (Some(a), Some(b)) => Some(ops::add(&a, &b)?),
        (a, b) => a.or(b),
    })
}

/// The weighted loss of a batch over its number of rows, summed over the heads; none where no row with a weight has a
/// label.
fn loss(logits: &[Tensor], heads: &[Head], rows: &[usize], row_weights: &[f32]) -> Result<Option<Tensor>> {
    let mut total = None;
    for (head, logits) in heads.iter().zip(logits) {
        let labels: Vec<Option<u32>> = rows.iter().map(|&row| head.labels[row]).collect();
        let weight = |(&weight, label): (&f32, &Option<u32>)| if label.is_some() { weight } else { 0.0 };
        let weights: Vec<f32> = row_weights.iter().zip(&labels).map(weight).collect();
        let all: f32 = weights.iter().sum();
        if all <= 0.0 {
            continue;
        }
        let labels: Vec<u32> = labels.into_iter().map(Option::unwrap_or_default).collect();
        // The weighted mean, times the sum of the weights over the batch: each image pulls with its own weight.
        let mean = ops::cross_entropy(logits, &labels, Some(&weights))?;
        total = sum(total, Some((mean * f64::from(all / rows.len() as f32))?))?;
    }
    Ok(total)
}

/// Linear warm-up, then half a cosine down to zero.
fn learning_rate(config: &ClassifierConfig, step: u32) -> f64 {
    let (step, steps) = (f64::from(step), f64::from(config.steps));
    let warm_up = (WARM_UP * steps).ceil();
    if step < warm_up {
        return config.learning_rate * (step + 1.0) / warm_up;
    }
    config.learning_rate * 0.5 * (1.0 + (PI * (step - warm_up) / (steps - warm_up).max(1.0)).cos())
}

fn check(training: &Training<'_>) -> Result<()> {
    let Training { inputs, heads, sampling, loss_weights, config, objective, .. } = *training;
    let rows = inputs.len();
    let refuse = |reason: String| Err(Error::Config(format!("a classifier cannot be trained: {reason}")));
    if rows == 0 || config.steps == 0 || config.batch == 0 {
        return refuse(format!("{rows} images, {} steps, batches of {}", config.steps, config.batch));
    }
    for Head { name, classes, labels } in heads {
        if labels.len() != rows {
            return refuse(format!("{rows} images have {} labels of `{name}`", labels.len()));
        }
        if let Some(label) = labels.iter().flatten().find(|&&label| label as usize >= classes.len()) {
            return refuse(format!("`{name}` has {} classes but label {label} occurs", classes.len()));
        }
    }
    if let Sampling::Weighted(weights) = sampling {
        let usable = weights.iter().all(|weight| weight.is_finite() && *weight >= 0.0);
        if weights.len() != rows || !usable || weights.iter().sum::<f64>() <= 0.0 {
            return refuse(format!("{rows} images need as many sampling weights, none negative and not all zero"));
        }
    }
    if let Some(reason) = objective.obstacle(rows) {
        return refuse(reason);
    }
    match loss_weights {
        Some(weights)
            if weights.len() != rows || !weights.iter().all(|weight| weight.is_finite() && *weight >= 0.0) =>
        {
            refuse(format!("{rows} images need as many loss weights, none negative"))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_learning_rate_rises_then_falls_to_zero() {
        let config = ClassifierConfig { steps: 100, learning_rate: 1.0, ..Default::default() };
        let rates: Vec<f64> = (0..100).map(|step| learning_rate(&config, step)).collect();
        assert!(rates[..5].is_sorted() && rates[4] == 1.0 && rates[5..].is_sorted_by(|a, b| a >= b));
        assert!(rates[99] < 0.001 && rates[0] > 0.0);
    }

    #[test]
    fn mixing_is_a_weighted_mean_of_partners() {
        let x = Tensor::new(&[[1f32, 2.0], [3.0, 6.0]], &candle_core::Device::Cpu).unwrap();
        let mixed = mixed(&x, &[1, 0], 0.75).unwrap().to_vec2::<f32>().unwrap();
        assert_eq!(mixed, [[1.5, 3.0], [2.5, 5.0]]);
    }
}
