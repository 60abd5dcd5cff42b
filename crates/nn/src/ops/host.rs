//! The values of tensors on the host.

use std::ops::Range;

use candle_core::{CpuStorage, Layout, Result, Shape, Storage, StorageRef, Tensor, bail};

/// The values of a contiguous `f32` tensor on the host, locked for reading.
pub(crate) struct Values<'a> {
    storage: StorageRef<'a>,
    range: Range<usize>,
}

impl<'a> Values<'a> {
    pub(crate) fn of(tensor: &'a Tensor) -> Result<Self> {
        let (storage, layout) = tensor.storage_and_layout();
        match layout.contiguous_offsets() {
            Some((start, end)) => Ok(Self { storage, range: start..end }),
            None => bail!("a tensor of shape {:?} is not contiguous", tensor.shape()),
        }
    }

    /// [`of`](Self::of) a tensor that may not be there.
    pub(crate) fn of_optional(tensor: Option<&'a Tensor>) -> Result<Option<Self>> {
        tensor.map(Self::of).transpose()
    }

    pub(crate) fn get_optional(values: &Option<Self>) -> Result<Option<&[f32]>> {
        values.as_ref().map(Self::get).transpose()
    }

    pub(crate) fn get(&self) -> Result<&[f32]> {
        match &*self.storage {
            Storage::Cpu(storage) => Ok(&storage.as_slice()?[self.range.clone()]),
            _ => bail!("a tensor is not on the host"),
        }
    }
}

/// The values behind an argument of a custom operation. Operations make their arguments contiguous first.
pub(crate) fn values<'a>(storage: &'a CpuStorage, layout: &Layout) -> Result<&'a [f32]> {
    match layout.contiguous_offsets() {
        Some((start, end)) => Ok(&storage.as_slice()?[start..end]),
        None => bail!("a tensor of shape {:?} is not contiguous", layout.shape()),
    }
}

/// Memory for `length` values that hold anything: for results that are written whole, which zeros first would slow.
///
/// # Safety
/// Every value must be written before it is read.
#[allow(clippy::uninit_vec)]
pub(crate) unsafe fn unfilled(length: usize) -> Vec<f32> {
    let mut values = Vec::with_capacity(length);
    // SAFETY: the capacity is there; the caller writes the values before anybody reads them.
    unsafe { values.set_len(length) };
    values
}

/// What a custom operation's forward pass returns.
pub(crate) fn output(values: Vec<f32>, shape: impl Into<Shape>) -> Result<(CpuStorage, Shape)> {
    Ok((CpuStorage::F32(values), shape.into()))
}

/// A gradient, shaped as the tensor it belongs to.
pub(crate) fn gradient(values: Vec<f32>, of: &Tensor) -> Result<Option<Tensor>> {
    Tensor::from_vec(values, of.shape(), of.device()).map(Some)
}
