//! A weight as the layers of a network hold it.

use candle_core::{DType, Result, Tensor};

use crate::grad_mode::used;

/// The weight of a convolution, `[outputs, inputs, kernel height, kernel width]`, or of a linear map,
/// `[outputs, inputs]`.
#[derive(Clone, Debug)]
pub struct Param {
    tensor: Tensor,
}

impl Param {
    /// A weight that is a tensor: a variable that training moves, or a constant.
    pub fn new(tensor: Tensor) -> Self {
        Self { tensor }
    }

    /// The weight's shape.
    pub fn dims(&self) -> &[usize] {
        self.tensor.dims()
    }

    /// The number type in which the weight is kept.
    pub fn dtype(&self) -> DType {
        self.tensor.dtype()
    }

    /// The weight as a tensor; without gradient inside [`no_grad`](crate::no_grad).
    ///
    /// # Errors
    /// Memory for the copy that a packed weight needs.
    pub fn tensor(&self) -> Result<Tensor> {
        Ok(used(&self.tensor))
    }
}
