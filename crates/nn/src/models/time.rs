//! Timesteps, class labels and other numbers become a vector that every residual block sees.

use std::f64::consts::TAU;

use candle_core::{D, DType, Device, Result, Tensor, bail};

use crate::grad_mode::used;
use crate::layers::Linear;
use crate::ops;
use crate::weights::{Init, Scope};

/// How a number becomes features.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum FeaturesPlan {
    /// Sines and cosines at geometrically spaced frequencies (Vaswani et al. 2017).
    Positional {
        width: usize,
        /// Cosines before sines.
        flip: bool,
        /// How much the number of frequencies is short of that to which the last would be 1 / 10000.
        shift: f64,
    },
    /// Sines and cosines at random frequencies (Tancik et al. 2020) of the number, or of its logarithm.
    Fourier { width: usize, flip: bool, log: bool, scale: f32 },
    /// A row of a table for each whole number.
    Learned { rows: usize, width: usize },
}

impl FeaturesPlan {
    pub(super) fn width(self) -> usize {
        match self {
            Self::Positional { width, .. } | Self::Fourier { width, .. } | Self::Learned { width, .. } => width,
        }
    }
}

/// Numbers become features.
#[derive(Clone, Debug)]
pub(super) struct Features {
    plan: FeaturesPlan,
    /// Frequencies `[1, width / 2]`, or the table.
    table: Tensor,
}

impl Features {
    pub(super) fn new(scope: &Scope, plan: FeaturesPlan) -> crate::Result<Self> {
        let table = match plan {
            FeaturesPlan::Positional { width, shift, .. } => frequencies(width, shift, scope.device())?,
            FeaturesPlan::Fourier { width, scale, .. } => {
                let weight = scope.constant("weight", &[width / 2], Init::Normal { std: scale })?;
                weight.unsqueeze(0)?.affine(TAU, 0.0)?
            }
            FeaturesPlan::Learned { rows, width } => scope.get("weight", &[rows, width], Init::Normal { std: 1.0 })?,
        };
        Ok(Self { plan, table })
    }

    /// `[n]` to `[n, width]`, in `f32` as the sines of large angles need it.
    pub(super) fn forward(&self, x: &Tensor) -> Result<Tensor> {
        x.dims1()?;
        let x = x.to_dtype(DType::F32)?;
        match self.plan {
            FeaturesPlan::Positional { width, flip, .. } => {
                self.waves(&x, flip)?.pad_with_zeros(D::Minus1, 0, width % 2)
            }
            FeaturesPlan::Fourier { flip, log, .. } => self.waves(&if log { x.log()? } else { x }, flip),
            FeaturesPlan::Learned { .. } => used(&self.table).index_select(&x.to_dtype(DType::U32)?, 0),
        }
    }

    fn waves(&self, x: &Tensor, flip: bool) -> Result<Tensor> {
        let angles = x.unsqueeze(1)?.broadcast_mul(&self.table)?;
        let (sines, cosines) = (angles.sin()?, angles.cos()?);
        Tensor::cat(&if flip { [cosines, sines] } else { [sines, cosines] }, D::Minus1)
    }
}

/// `10000^(-i / (n - shift))` for `n = width / 2` frequencies, rounded where PyTorch rounds them.
fn frequencies(width: usize, shift: f64, device: &Device) -> Result<Tensor> {
    let n = width / 2;
    let factor = -(10000f64.ln()) as f32;
    let span = (n as f64 - shift) as f32;
    let values: Vec<f32> = (0..n).map(|i| (factor * i as f32 / span).exp()).collect();
    Tensor::from_vec(values, (1, n), device)
}

/// `linear_1`, SiLU, `linear_2`.
#[derive(Clone, Debug)]
pub(super) struct Embedding {
    linear_1: Linear,
    linear_2: Linear,
    cond_proj: Option<Linear>,
    silu_after: bool,
}

impl Embedding {
    pub(super) fn new(scope: &Scope, inputs: usize, outputs: usize) -> crate::Result<Self> {
        Self::with_condition(scope, inputs, outputs, None, false)
    }

    /// `condition` is the width of a vector that is projected and added to the input; `silu_after` adds a last SiLU.
    pub(super) fn with_condition(
        scope: &Scope,
        inputs: usize,
        outputs: usize,
        condition: Option<usize>,
        silu_after: bool,
    ) -> crate::Result<Self> {
        let projection = |width| Linear::with_bias(&scope.sub("cond_proj"), width, inputs, false);
        Ok(Self {
            linear_1: Linear::new(&scope.sub("linear_1"), inputs, outputs)?,
            linear_2: Linear::new(&scope.sub("linear_2"), outputs, outputs)?,
            cond_proj: condition.map(projection).transpose()?,
            silu_after,
        })
    }

    pub(super) fn forward(&self, x: &Tensor) -> Result<Tensor> {
        self.forward_with(x, None)
    }

    pub(super) fn forward_with(&self, x: &Tensor, condition: Option<&Tensor>) -> Result<Tensor> {
        let x = match (&self.cond_proj, condition) {
            (Some(projection), Some(condition)) => x.add(&projection.forward(condition)?)?,
            (None, Some(_)) => bail!("this network takes no `timestep_cond`: its `time_cond_proj_dim` is null"),
            _ => x.clone(),
        };
        let y = self.linear_2.forward(&ops::silu(&self.linear_1.forward(&x)?)?)?;
        if self.silu_after { ops::silu(&y) } else { Ok(y) }
    }
}

/// How a class label becomes a vector as wide as the time embedding.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ClassPlan {
    /// A table with a row for each class.
    Table { classes: usize },
    /// As a timestep.
    Timestep,
    /// The label is the vector.
    Identity,
    /// A vector of this width through [`Embedding`].
    Projection { inputs: usize },
    /// A vector of this width through a linear map.
    Linear { inputs: usize },
}

/// Class labels become vectors.
#[derive(Clone, Debug)]
pub(super) enum Classes {
    Table(Tensor),
    Timestep(Embedding),
    Identity,
    Projection(Embedding),
    Linear(Linear),
}

impl Classes {
    /// `features` is the width of a timestep's features, `width` that of the time embedding.
    pub(super) fn new(scope: &Scope, plan: ClassPlan, features: usize, width: usize) -> crate::Result<Self> {
        Ok(match plan {
            ClassPlan::Table { classes } => {
                Self::Table(scope.get("weight", &[classes, width], Init::Normal { std: 1.0 })?)
            }
            ClassPlan::Timestep => Self::Timestep(Embedding::new(scope, features, width)?),
            ClassPlan::Identity => Self::Identity,
            ClassPlan::Projection { inputs } => Self::Projection(Embedding::new(scope, inputs, width)?),
            ClassPlan::Linear { inputs } => Self::Linear(Linear::new(scope, inputs, width)?),
        })
    }

    /// `labels` is `[batch]` for a table and for labels like timesteps, otherwise `[batch, inputs]`; the result is
    /// `[batch, width]` in `dtype`.
    pub(super) fn forward(&self, labels: &Tensor, features: &Features, dtype: DType) -> Result<Tensor> {
        let vector = || labels.to_dtype(dtype);
        match self {
            Self::Table(table) => used(table).index_select(&labels.to_dtype(DType::U32)?, 0),
            Self::Timestep(embedding) => embedding.forward(&features.forward(labels)?.to_dtype(dtype)?),
            Self::Identity => vector(),
            Self::Projection(embedding) => embedding.forward(&vector()?),
            Self::Linear(linear) => linear.forward(&vector()?),
        }
    }
}
