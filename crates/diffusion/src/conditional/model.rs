//! A trained conditional model and its files.

use std::path::Path;

use candle_core::Device;
use evenset_core::{Fingerprint, Seed};
use serde::{Deserialize, Serialize};

use super::batches::Frame;
use super::config::ConditionalConfig;
use super::files;
use super::loss_curve::LossCurve;
use super::network::Network;
use super::set::{AttributeVocabulary, TrainingSet, check_shape, check_vocabulary};
use crate::edm::Preconditioning;
use crate::error::{DiffusionError, Result};

const WEIGHTS: &str = "model.safetensors";
const CARD: &str = "config.json";
const FORMAT: &str = "evenset-conditional-1";

/// What `config.json` says: everything about a model but its weights.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Card {
    format: String,
    config: ConditionalConfig,
    width: u32,
    height: u32,
    channels: u32,
    pub(crate) attributes: Vec<AttributeVocabulary>,
    /// Mean of each channel, for pixels from -1 to 1.
    mean: Vec<f64>,
    sigma_data: f64,
    /// Hash of data, settings and seed.
    pub(crate) training: Fingerprint,
    /// Training steps that changed nothing because the loss was not finite.
    skipped_steps: u64,
    weights_sha256: String,
}

impl Card {
    /// The card of a training that begins.
    pub(crate) fn new(set: &TrainingSet, config: &ConditionalConfig, training: Fingerprint) -> Self {
        let (mean, sigma_data) = set.statistics();
        Self {
            format: FORMAT.into(),
            config: config.clone(),
            width: set.width,
            height: set.height,
            channels: set.channels,
            attributes: set.attributes.clone(),
            mean,
            sigma_data,
            training,
            skipped_steps: 0,
            weights_sha256: String::new(),
        }
    }

    /// Writes the network's weights and then the card, which names their hash.
    pub(crate) fn save(self, network: &Network, skipped_steps: u64, dir: &Path) -> Result<()> {
        let (weights, path) = (dir.join(WEIGHTS), dir.join(CARD));
        network.weights.save(&weights)?;
        let card = Self { skipped_steps, weights_sha256: files::sha256(&weights)?, ..self };
        let text = serde_json::to_vec_pretty(&card).map_err(|error| damaged(dir, CARD, error))?;
        files::write(&path, &text)
    }

    /// The card in a folder, checked; `None` where there is none.
    pub(crate) fn find(dir: &Path) -> Result<Option<Self>> {
        let Some(text) = files::read(&dir.join(CARD))? else { return Ok(None) };
        let card: Self = serde_json::from_str(&text).map_err(|error| damaged(dir, CARD, error))?;
        let fail = |reason: String| damaged(dir, CARD, reason);
        if card.format != FORMAT {
            return Err(fail(format!("its format is `{}`, expected `{FORMAT}`", card.format)));
        }
        check_shape(card.width, card.height, card.channels).map_err(fail)?;
        check_vocabulary(&card.attributes).map_err(fail)?;
        let numbers = card.mean.iter().all(|mean| mean.is_finite()) && card.sigma_data.is_finite();
        if card.mean.len() != card.channels as usize || !numbers || card.sigma_data <= 0.0 {
            return Err(fail("`mean` and `sigma_data` do not describe pixels".into()));
        }
        Ok(Some(card))
    }

    pub(crate) fn frame(&self) -> Frame {
        Frame {
            width: self.width as usize,
            height: self.height as usize,
            multiple: self.config.multiple(),
            mean: self.mean.clone(),
        }
    }

    pub(crate) fn edm(&self) -> Preconditioning {
        Preconditioning { sigma_data: self.sigma_data }
    }
}

/// A trained model: draws images of the dataset's size for a group.
#[derive(Clone, Debug)]
pub struct ConditionalModel {
    pub(crate) card: Card,
    pub(crate) network: Network,
}

impl ConditionalModel {
    /// The model that [`train`](super::train) left in `dir`.
    ///
    /// # Errors
    /// [`DiffusionError::File`] where there is none; [`DiffusionError::Damaged`] where a file is not what was written.
    pub fn load(dir: &Path, device: &Device) -> Result<Self> {
        let missing = || std::io::Error::new(std::io::ErrorKind::NotFound, "there is no finished model here");
        let card = Card::find(dir)?.ok_or_else(|| DiffusionError::file(&dir.join(CARD))(missing()))?;
        let path = dir.join(WEIGHTS);
        if files::sha256(&path)? != card.weights_sha256 {
            return Err(damaged(dir, WEIGHTS, format!("its sha256 is not the one in {CARD}")));
        }
        let network = Network::new(&card.config, card.channels, &card.attributes, Seed(0), device)?;
        network.weights.load(&path)?;
        Ok(Self { card, network })
    }

    /// A short name for provenance columns: kind, size and the start of the weights' hash.
    pub fn model_id(&self) -> String {
        let hash = self.sha256();
        format!("conditional-{}-{}", self.card.config.size, hash.get(..12).unwrap_or(hash))
    }

    /// SHA-256 of `model.safetensors`, in hexadecimal.
    pub fn sha256(&self) -> &str {
        &self.card.weights_sha256
    }

    /// The settings that it was trained with.
    pub fn config(&self) -> &ConditionalConfig {
        &self.card.config
    }

    /// The attributes and values that it can be asked for.
    pub fn attributes(&self) -> &[AttributeVocabulary] {
        &self.card.attributes
    }

    /// Width, height and channels of the images that it draws.
    pub fn shape(&self) -> (u32, u32, u32) {
        (self.card.width, self.card.height, self.card.channels)
    }

    /// How many weights it has.
    pub fn parameters(&self) -> usize {
        self.network.weights.count()
    }

    /// (step, loss) of the training in `dir`, one pair a step; steps that were skipped are left out.
    ///
    /// # Errors
    /// [`DiffusionError::File`] and [`DiffusionError::Damaged`].
    pub fn loss_curve(&self, dir: &Path) -> Result<Vec<(u64, f64)>> {
        Ok(LossCurve::load(dir)?.points())
    }
}

fn damaged(dir: &Path, file: &str, reason: impl ToString) -> DiffusionError {
    DiffusionError::Damaged { path: dir.join(file), folder: dir.to_owned(), reason: reason.to_string() }
}
