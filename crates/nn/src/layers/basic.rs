//! Layers that many networks have, initialised as PyTorch does.

use candle_core::{Result, Tensor};

use crate::grad_mode::used;
use crate::maps;
use crate::param::Param;
use crate::weights::{Init, Scope};

/// A linear map of the last dimension.
#[derive(Clone, Debug)]
pub struct Linear {
    weight: Param,
    bias: Option<Tensor>,
}

impl Linear {
    /// Creates `weight` `[outputs, inputs]` and `bias` `[outputs]` in `scope`.
    ///
    /// # Errors
    /// [`Error::Shape`](crate::Error::Shape) where the scope holds another layer.
    pub fn new(scope: &Scope, inputs: usize, outputs: usize) -> crate::Result<Self> {
        Self::with_bias(scope, inputs, outputs, true)
    }

    /// The same, without a bias on request.
    ///
    /// # Errors
    /// As [`new`](Self::new).
    pub fn with_bias(scope: &Scope, inputs: usize, outputs: usize, bias: bool) -> crate::Result<Self> {
        let init = Init::KaimingUniform { fan_in: inputs };
        let weight = scope.param("weight", &[outputs, inputs], init)?;
        let bias = bias.then(|| scope.get("bias", &[outputs], init)).transpose()?;
        Ok(Self { weight, bias })
    }

    /// `[.., inputs]` to `[.., outputs]`.
    ///
    /// # Errors
    /// Another last dimension.
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        maps::linear(x, &self.weight, self.bias.as_ref().map(used).as_ref(), None)
    }

    /// The same, added to `residual` `[.., outputs]`.
    ///
    /// # Errors
    /// Shapes that do not agree.
    pub fn forward_onto(&self, x: &Tensor, residual: &Tensor) -> Result<Tensor> {
        maps::linear(x, &self.weight, self.bias.as_ref().map(used).as_ref(), Some(residual))
    }
}

/// A table with one row for each index.
#[derive(Clone, Debug)]
pub struct Embedding {
    weight: Tensor,
}

impl Embedding {
    /// Creates `weight` `[rows, width]`, standard normal, in `scope`.
    ///
    /// # Errors
    /// [`Error::Shape`](crate::Error::Shape) where the scope holds another layer.
    pub fn new(scope: &Scope, rows: usize, width: usize) -> crate::Result<Self> {
        Self::with_init(scope, rows, width, Init::Normal { std: 1.0 })
    }

    /// The same with another start.
    ///
    /// # Errors
    /// As [`new`](Self::new).
    pub fn with_init(scope: &Scope, rows: usize, width: usize, init: Init) -> crate::Result<Self> {
        Ok(Self { weight: scope.get("weight", &[rows, width], init)? })
    }

    /// `[n]` indices (`u32`) to `[n, width]`.
    ///
    /// # Errors
    /// An index beyond the table, or indices that are not a vector of `u32`.
    pub fn forward(&self, indices: &Tensor) -> Result<Tensor> {
        used(&self.weight).index_select(indices, 0)
    }
}
