//! A weight as the layers of a network hold it.

use std::sync::Arc;

use candle_core::{CpuStorage, DType, Device, Result, Storage, Tensor, bail};

use crate::grad_mode::used;
use crate::kernels::pack::{Packed, Plain, Sizes, Unpacked};

/// The weight of a convolution, `[outputs, inputs, kernel height, kernel width]`, or of a linear map,
/// `[outputs, inputs]`.
///
/// A constant on the CPU is kept in the order in which the kernels read it, and in its own number type.
#[derive(Clone, Debug)]
pub struct Param {
    dims: Vec<usize>,
    kind: Kind,
}

#[derive(Clone, Debug)]
enum Kind {
    Tensor(Tensor),
    Packed(Arc<Packed>),
}

impl Param {
    /// A weight that is a tensor: a variable that training moves, or what a caller computed.
    pub fn new(tensor: Tensor) -> Self {
        Self { dims: tensor.dims().to_vec(), kind: Kind::Tensor(tensor) }
    }

    /// A weight that stays as it is, which saves its packing at every call.
    ///
    /// # Errors
    /// Memory, or a device that does not give out its values.
    pub fn constant(tensor: &Tensor) -> Result<Self> {
        let sizes = match *tensor.dims() {
            [outputs, inputs] => Some(Sizes { outputs, inputs, taps: 1 }),
            [outputs, inputs, height, width] => Some(Sizes { outputs, inputs, taps: height * width }),
            _ => None,
        };
        let tensor = tensor.detach();
        match sizes {
            Some(sizes) if tensor.device().is_cpu() && tensor.elem_count() > 0 => {
                let dims = tensor.dims().to_vec();
                match pack(sizes, &tensor)? {
                    Some(packed) => Ok(Self { dims, kind: Kind::Packed(Arc::new(packed)) }),
                    None => Ok(Self::new(tensor)),
                }
            }
            _ => Ok(Self::new(tensor)),
        }
    }

    /// The weight's shape.
    pub fn dims(&self) -> &[usize] {
        &self.dims
    }

    /// The number type in which the weight is kept.
    pub fn dtype(&self) -> DType {
        match &self.kind {
            Kind::Tensor(tensor) => tensor.dtype(),
            Kind::Packed(packed) => packed.dtype(),
        }
    }

    /// The weight as a tensor; without gradient inside [`no_grad`](crate::no_grad).
    ///
    /// # Errors
    /// Memory for the copy that a packed weight needs.
    pub fn tensor(&self) -> Result<Tensor> {
        let dims = self.dims.as_slice();
        match &self.kind {
            Kind::Tensor(tensor) => Ok(used(tensor)),
            Kind::Packed(packed) => match packed.unpacked() {
                Unpacked::F32(values) => Tensor::from_vec(values, dims, &Device::Cpu),
                Unpacked::F16(values) => Tensor::from_vec(values, dims, &Device::Cpu),
                Unpacked::Bf16(values) => Tensor::from_vec(values, dims, &Device::Cpu),
            },
        }
    }

    /// The weight in the kernels' order, where it is kept in it.
    pub(crate) fn packed(&self) -> Option<&Packed> {
        match &self.kind {
            Kind::Tensor(_) => None,
            Kind::Packed(packed) => Some(packed),
        }
    }
}

/// `None` for a number type that is not packed.
fn pack(sizes: Sizes, tensor: &Tensor) -> Result<Option<Packed>> {
    let tensor = tensor.contiguous()?;
    let (storage, layout) = tensor.storage_and_layout();
    let (Storage::Cpu(storage), Some((start, end))) = (&*storage, layout.contiguous_offsets()) else {
        bail!("a weight of shape {:?} is not on the host", tensor.shape());
    };
    Ok(match storage {
        CpuStorage::F32(values) => Some(Packed::new(sizes, Plain::F32(&values[start..end]))),
        CpuStorage::F16(values) => Some(Packed::new(sizes, Plain::F16(&values[start..end]))),
        CpuStorage::BF16(values) => Some(Packed::new(sizes, Plain::Bf16(&values[start..end]))),
        _ => None,
    })
}
