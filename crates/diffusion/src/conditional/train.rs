//! Training: one loop, deterministic in (data, settings, seed), that can stop after any step.

use std::fs;
use std::path::Path;

use candle_core::Device;
use evenset_core::{Fingerprint, Progress, Seed};
use evenset_nn::{AdamW, AdamWConfig, Ema};

use super::batches::Batches;
use super::checkpoint::{self, Parts, State};
use super::config::ConditionalConfig;
use super::loss_curve::LossCurve;
use super::model::{Card, ConditionalModel};
use super::network::Network;
use super::set::TrainingSet;
use crate::edm::Preconditioning;
use crate::error::{DiffusionError, Result};

/// Longest gradient; longer ones are scaled down to it.
const CLIP_NORM: f64 = 1.0;
/// Decay of the optimiser's mean square: trainings are short, so it forgets sooner than PyTorch's default.
const BETA2: f64 = 0.99;
/// Steps in a row without a finite loss after which training gives up.
const PATIENCE: u64 = 20;

/// Trains a model of `set` in the folder `dir`, which then holds `model.safetensors` (the averaged weights),
/// `config.json` and `loss.csv` (one row a step).
///
/// Where `dir` holds a checkpoint of the same training, it goes on from there and ends in the same bytes as if it had
/// never stopped; where it holds the finished model, that is loaded. A stop that `progress` asks for leaves a checkpoint.
///
/// # Errors
/// [`DiffusionError::Setting`] and [`DiffusionError::TrainingSet`] before any work; [`DiffusionError::OtherTraining`] where
/// `dir` holds something else; [`DiffusionError::Interrupted`] where a stop was asked for; [`DiffusionError::Diverged`]
/// where the loss stops being finite; [`DiffusionError::File`] and [`DiffusionError::Damaged`] for what is on disk.
pub fn train(
    set: &TrainingSet,
    config: &ConditionalConfig,
    seed: Seed,
    dir: &Path,
    progress: &dyn Progress,
    device: &Device,
) -> Result<ConditionalModel> {
    config.validate()?;
    set.validate()?;
    fs::create_dir_all(dir).map_err(DiffusionError::file(dir))?;
    let training = fingerprint(set, config, seed);
    if let Some(card) = Card::find(dir)? {
        if card.training != training {
            return Err(DiffusionError::OtherTraining(dir.to_owned()));
        }
        checkpoint::remove_all(dir)?;
        return ConditionalModel::load(dir, device);
    }
    let card = Card::new(set, config, training);
    let mut trainer = Trainer::new(set, config, &card, seed, device)?;
    trainer.parts().resume(dir)?;
    progress.begin(&format!("train the {} model", config.size), config.steps());
    let outcome = trainer.run(dir, progress);
    progress.end();
    outcome?;
    trainer.finish(card, dir)?;
    ConditionalModel::load(dir, device)
}

/// What the result depends on; how often checkpoints are made is left out.
fn fingerprint(set: &TrainingSet, config: &ConditionalConfig, seed: Seed) -> Fingerprint {
    let relevant = ConditionalConfig { checkpoint_every: 1, ..config.clone() };
    let parts =
        [("config", format!("{relevant:?}")), ("set", set.fingerprint().to_string()), ("seed", seed.0.to_string())];
    Fingerprint::of(parts.iter().map(|(name, text)| (*name, text.as_bytes())))
}

struct Trainer<'a> {
    config: &'a ConditionalConfig,
    device: &'a Device,
    edm: Preconditioning,
    batches: Batches<'a>,
    network: Network,
    optimizer: AdamW,
    ema: Ema,
    curve: LossCurve,
    state: State,
}

impl<'a> Trainer<'a> {
    fn new(
        set: &'a TrainingSet,
        config: &'a ConditionalConfig,
        card: &Card,
        seed: Seed,
        device: &'a Device,
    ) -> Result<Self> {
        let network = Network::new(config, set.channels, &set.attributes, seed.derive("weights"), device)?;
        let optimizer = AdamW::new(network.weights.vars(), AdamWConfig { beta2: BETA2, ..AdamWConfig::default() });
        let ema = Ema::new(&network.weights, config.ema)?;
        let batches = Batches::new(set, config, seed.derive("training"), card.frame(), card.edm());
        let state = State { training: card.training.clone(), step: 0, skipped: 0, skipped_in_a_row: 0 };
        tracing::debug!(weights = network.weights.count(), sigma_data = card.edm().sigma_data, "conditional model");
        Ok(Self { config, device, edm: card.edm(), batches, network, optimizer, ema, curve: LossCurve::new(), state })
    }

    fn parts(&mut self) -> Parts<'_> {
        Parts {
            weights: &self.network.weights,
            optimizer: &mut self.optimizer,
            ema: &mut self.ema,
            curve: &mut self.curve,
            state: &mut self.state,
        }
    }

    fn run(&mut self, dir: &Path, progress: &dyn Progress) -> Result<()> {
        progress.advance(self.state.step);
        let mut recent = None;
        while self.state.step < self.config.steps() {
            if let Err(stop) = progress.check() {
                self.parts().save(dir)?;
                return Err(stop.into());
            }
            let loss = self.step()?;
            if loss.is_finite() {
                let mean = recent.map_or(loss, |mean| 0.95 * mean + 0.05 * loss);
                progress.note(&format!("loss {mean:.4}"));
                recent = Some(mean);
            }
            progress.advance(1);
            if self.state.step.is_multiple_of(self.config.checkpoint_every) && self.state.step < self.config.steps() {
                self.parts().save(dir)?;
            }
        }
        Ok(())
    }

    /// One step of the algorithm: noise a batch, ask the network, move the weights and their average. Gives the loss.
    fn step(&mut self) -> Result<f64> {
        let batch = self.batches.at(self.state.step, self.device)?;
        let answer = self.network.forward(self.edm, &batch.input, &batch.sigmas, &batch.codes)?;
        // |D - y|² times the loss weight is the squared distance of the network's answer from its target.
        let loss = (answer - batch.target)?.sqr()?.mean_all()?;
        let value = f64::from(loss.to_scalar::<f32>()?);
        let learning_rate = self.config.learning_rate_at(self.state.step);
        let grad_norm = match value.is_finite() {
            true => match self.optimizer.step(&loss.backward()?, learning_rate, Some(CLIP_NORM)) {
                Err(evenset_nn::Error::NonFiniteGradient { norm }) => norm,
                other => other?,
            },
            false => f64::NAN,
        };
        self.state.step += 1;
        self.curve.push(self.state.step, value, grad_norm, learning_rate);
        match grad_norm.is_finite() {
            true => {
                self.ema.update()?;
                self.state.skipped_in_a_row = 0;
            }
            false => self.skip()?,
        }
        Ok(value)
    }

    /// Counts a step that changed nothing.
    fn skip(&mut self) -> Result<()> {
        self.state.skipped += 1;
        self.state.skipped_in_a_row += 1;
        let (step, in_a_row) = (self.state.step, self.state.skipped_in_a_row);
        tracing::warn!(step, "loss or gradient is not finite: step skipped");
        match in_a_row >= PATIENCE {
            true => Err(DiffusionError::Diverged { step, in_a_row }),
            false => Ok(()),
        }
    }

    /// Writes the finished model; its card last, which makes it one.
    fn finish(self, card: Card, dir: &Path) -> Result<()> {
        self.ema.copy_to(&self.network.weights)?;
        self.curve.save(dir)?;
        card.save(&self.network, self.state.skipped, dir)?;
        checkpoint::remove_all(dir)
    }
}
