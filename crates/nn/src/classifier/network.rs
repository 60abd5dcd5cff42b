//! The classifier's layers, and the description that rebuilds them.

use std::collections::BTreeSet;
use std::fmt;

use candle_core::Tensor;
use serde::{Deserialize, Serialize};

use super::cnn::Cnn;
use super::mlp::Mlp;
use crate::layers::Linear;
use crate::{Error, Result, Scope};

/// The longest input of a network without convolutions: beyond it, a network is larger than a check is worth.
const LONGEST_INPUT: usize = 1 << 22;

/// What stands between the inputs and the heads.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum Architecture {
    /// Convolutions, as wide as the configuration says; for images.
    #[default]
    Cnn,
    /// Layers of so many units with ReLU on all the numbers of an input at once; for images (their pixels, one after
    /// another) and feature vectors.
    Mlp(Vec<u32>),
    /// Nothing: each head is one linear map of the input.
    Linear,
}

/// What one input is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(super) enum InputShape {
    /// An RGB image.
    Image { width: usize, height: usize },
    /// A vector of so many numbers.
    Features(usize),
}

impl InputShape {
    /// How many numbers an input has; `None` beyond what memory can address.
    pub(super) fn numbers(self) -> Option<usize> {
        match self {
            Self::Image { width, height } => width.checked_mul(height)?.checked_mul(3),
            Self::Features(width) => Some(width),
        }
    }

    /// How many means and deviations normalise an input: one a colour, or one a number.
    fn scales(self) -> usize {
        match self {
            Self::Image { .. } => 3,
            Self::Features(width) => width,
        }
    }
}

impl fmt::Display for InputShape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Image { width, height } => write!(f, "{width}x{height} images"),
            Self::Features(width) => write!(f, "vectors of {width} features"),
        }
    }
}

/// What a classifier is, apart from its weights.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Description {
    pub(super) architecture: Architecture,
    pub(super) input: InputShape,
    pub(super) channels: u32,
    /// Mean and standard deviation over the training data: of each colour, in 0..=255, or of each feature.
    pub(super) mean: Vec<f32>,
    pub(super) deviation: Vec<f32>,
    pub(super) heads: Vec<HeadDescription>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct HeadDescription {
    pub(super) name: String,
    pub(super) classes: Vec<String>,
}

impl Description {
    /// Whether inputs go in as `[batch, 3, height, width]`, and not as `[batch, numbers]`.
    pub(super) fn has_planes(&self) -> bool {
        self.architecture == Architecture::Cnn
    }

    fn check(&self) -> Result<()> {
        let scales = self.input.scales();
        let usable = |values: &[f32]| values.len() == scales && values.iter().all(|value| value.is_finite());
        if !usable(&self.mean) || !usable(&self.deviation) || self.deviation.iter().any(|deviation| *deviation <= 0.0) {
            return Err(Error::Config(format!("a classifier needs {scales} means and as many positive deviations")));
        }
        let names: BTreeSet<&str> = self.heads.iter().map(|head| head.name.as_str()).collect();
        if names.len() != self.heads.len() || self.heads.iter().any(|head| head.classes.is_empty()) || names.is_empty()
        {
            return Err(Error::Config("a classifier needs at least one head, and names and classes for each".into()));
        }
        Ok(())
    }
}

/// The layers.
#[derive(Debug)]
pub(super) struct Network {
    trunk: Trunk,
    pub(super) heads: Vec<Linear>,
    pub(super) feature_width: usize,
}

#[derive(Debug)]
enum Trunk {
    Cnn(Cnn),
    Mlp(Mlp),
    None,
}

impl Network {
    pub(super) fn new(scope: &Scope, description: &Description) -> Result<Self> {
        description.check()?;
        let numbers = description.input.numbers().filter(|numbers| (1..=LONGEST_INPUT).contains(numbers));
        let too_long = || {
            let reason = format!("a classifier's input has 1 to {LONGEST_INPUT} numbers; resize the images");
            Err(Error::Config(reason))
        };
        let (trunk, feature_width) = match (&description.architecture, description.input, numbers) {
            (Architecture::Cnn, InputShape::Image { width, height }, _) => {
                let cnn = Cnn::new(scope, width, height, description.channels as usize)?;
                let width = cnn.feature_width;
                (Trunk::Cnn(cnn), width)
            }
            (Architecture::Cnn, InputShape::Features(_), _) => {
                let reason = "convolutions need images, not feature vectors; choose `mlp` or `linear`";
                return Err(Error::Config(reason.into()));
            }
            (_, _, None) => return too_long(),
            (Architecture::Mlp(hidden), _, Some(numbers)) => {
                let mlp = Mlp::new(scope, numbers, hidden)?;
                let width = mlp.feature_width;
                (Trunk::Mlp(mlp), width)
            }
            (Architecture::Linear, _, Some(numbers)) => (Trunk::None, numbers),
        };
        let head = |head: &HeadDescription| {
            Linear::new(&scope.sub("heads").sub(&head.name), feature_width, head.classes.len())
        };
        let heads = description.heads.iter().map(head).collect::<Result<_>>()?;
        Ok(Self { trunk, heads, feature_width })
    }

    /// `[batch, 3, height, width]` (convolutions) or `[batch, numbers]` to `[batch, feature_width]`.
    pub(super) fn features(&self, x: &Tensor) -> Result<Tensor> {
        match &self.trunk {
            Trunk::Cnn(cnn) => cnn.features(x),
            Trunk::Mlp(mlp) => Ok(mlp.features(x)?),
            Trunk::None => Ok(x.clone()),
        }
    }

    /// Each head's `[batch, classes]` from `[batch, feature_width]`.
    pub(super) fn logits(&self, features: &Tensor) -> Result<Vec<Tensor>> {
        Ok(self.heads.iter().map(|head| head.forward(features)).collect::<candle_core::Result<_>>()?)
    }
}
