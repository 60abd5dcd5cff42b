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
        let tensor = tensor.detach();
        let packed = match sizes(tensor.dims()) {
            Some(sizes) if tensor.device().is_cpu() => pack(sizes, &tensor)?,
            _ => None,
        };
        Ok(match packed {
            Some(packed) => Self::packed_as(tensor.dims(), packed),
            None => Self::new(tensor),
        })
    }

    /// A constant on the CPU from its bytes in a file; `None` where they cannot be read in place.
    pub(crate) fn from_bytes(bytes: &[u8], dtype: DType, dims: &[usize]) -> Option<Self> {
        /// The bytes as numbers, where they are aligned and as many as the weight needs.
        fn numbers<T: Copy>(bytes: &[u8], sizes: Sizes) -> Option<&[T]> {
            // SAFETY: the callers' types are plain numbers, for which every pattern of bits is a value.
            let (before, numbers, after) = unsafe { bytes.align_to::<T>() };
            let count = sizes.outputs * sizes.inputs * sizes.taps;
            (before.is_empty() && after.is_empty() && numbers.len() == count).then_some(numbers)
        }
        if cfg!(target_endian = "big") {
            return None;
        }
        let sizes = sizes(dims)?;
        let weight = match dtype {
            DType::F32 => Plain::F32(numbers(bytes, sizes)?),
            DType::F16 => Plain::F16(numbers(bytes, sizes)?),
            DType::BF16 => Plain::Bf16(numbers(bytes, sizes)?),
            _ => return None,
        };
        Some(Self::packed_as(dims, Packed::new(sizes, weight)))
    }

    fn packed_as(dims: &[usize], packed: Packed) -> Self {
        Self { dims: dims.to_vec(), kind: Kind::Packed(Arc::new(packed)) }
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

/// `None` for shapes that are not those of a convolution or linear map, and for empty ones.
fn sizes(dims: &[usize]) -> Option<Sizes> {
    let sizes = match *dims {
        [outputs, inputs] => Sizes { outputs, inputs, taps: 1 },
        [outputs, inputs, height, width] => Sizes { outputs, inputs, taps: height * width },
        _ => return None,
    };
    (sizes.outputs * sizes.inputs * sizes.taps > 0).then_some(sizes)
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
