//! Weights as the kernels read them.
//!
//! The weight of a convolution `[outputs, inputs, taps]` (a linear map has one tap) is a matrix with one row for each tap
//! and input and one column for each output. It is kept in panels of [`PANEL`] columns, each `[taps, inputs, columns]`,
//! so that the kernels read it from front to back. The last panel is as wide as it must be, in steps of [`STEP`], with
//! zeros beyond the last output.

use std::mem::MaybeUninit;
use std::ops::Range;

use candle_core::DType;
use half::slice::HalfFloatSliceExt;
use half::{bf16, f16};
use rayon::prelude::*;

use super::gemm::{PANEL, STEP};

/// The sizes of a weight.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Sizes {
    pub(crate) outputs: usize,
    pub(crate) inputs: usize,
    pub(crate) taps: usize,
}

/// A packed weight.
#[derive(Debug)]
pub(crate) struct Packed {
    pub(crate) sizes: Sizes,
    values: Values,
}

#[derive(Debug)]
enum Values {
    F32(Vec<f32>),
    F16(Vec<f16>),
    Bf16(Vec<bf16>),
}

/// A weight as a tensor holds it, `[outputs, inputs, taps]`.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Plain<'a> {
    F32(&'a [f32]),
    F16(&'a [f16]),
    Bf16(&'a [bf16]),
}

impl Sizes {
    /// Panels that the outputs fill.
    pub(crate) fn panels(&self) -> usize {
        self.outputs.div_ceil(PANEL)
    }

    /// Columns of a panel that hold outputs.
    pub(crate) fn real_columns(&self, panel: usize) -> usize {
        (self.outputs - panel * PANEL).min(PANEL)
    }

    /// Columns of a panel.
    pub(crate) fn columns(&self, panel: usize) -> usize {
        self.real_columns(panel).next_multiple_of(STEP)
    }

    /// Rows of every panel.
    pub(crate) fn rows(&self) -> usize {
        self.taps * self.inputs
    }

    fn length(&self) -> usize {
        self.rows() * self.outputs.next_multiple_of(STEP)
    }

    fn start(&self, panel: usize) -> usize {
        panel * PANEL * self.rows()
    }
}

impl Packed {
    /// Packs `weight`, in its own number type.
    pub(crate) fn new(sizes: Sizes, weight: Plain<'_>) -> Self {
        let from = |output: usize, input: usize, tap: usize| (output * sizes.inputs + input) * sizes.taps + tap;
        let values = match weight {
            Plain::F32(values) => Values::F32(pack(sizes, values, 0.0, from)),
            Plain::F16(values) => Values::F16(pack(sizes, values, f16::ZERO, from)),
            Plain::Bf16(values) => Values::Bf16(pack(sizes, values, bf16::ZERO, from)),
        };
        Self { sizes, values }
    }

    /// Packs the weight that carries a gradient back: outputs and inputs change places and the taps their order.
    /// `sizes` are those of `weight` itself.
    pub(crate) fn transposed(sizes: Sizes, weight: &[f32]) -> Self {
        let Sizes { outputs, inputs, taps } = sizes;
        let from = |input: usize, output: usize, tap: usize| (output * inputs + input) * taps + taps - 1 - tap;
        let sizes = Sizes { outputs: inputs, inputs: outputs, taps };
        Self { sizes, values: Values::F32(pack(sizes, weight, 0.0, from)) }
    }

    /// Rows of a panel, in `f32`: where they lie, or copied to `buffer`, which holds as many.
    pub(crate) fn rows<'a>(&'a self, panel: usize, rows: Range<usize>, buffer: &'a mut [f32]) -> &'a [f32] {
        let columns = self.sizes.columns(panel);
        let start = self.sizes.start(panel);
        let span = start + rows.start * columns..start + rows.end * columns;
        match &self.values {
            Values::F32(values) => &values[span],
            Values::F16(values) => {
                let buffer = &mut buffer[..span.len()];
                values[span].convert_to_f32_slice(buffer);
                buffer
            }
            Values::Bf16(values) => {
                let buffer = &mut buffer[..span.len()];
                values[span].convert_to_f32_slice(buffer);
                buffer
            }
        }
    }

    /// The panels of a weight that is kept in `bf16`.
    #[cfg(target_arch = "x86_64")]
    pub(crate) fn bf16(&self) -> Option<Bf16Panels<'_>> {
        match &self.values {
            Values::Bf16(values) => Some(Bf16Panels { sizes: self.sizes, values }),
            _ => None,
        }
    }

    /// The number type in which the weight is kept.
    pub(crate) fn dtype(&self) -> DType {
        match self.values {
            Values::F32(_) => DType::F32,
            Values::F16(_) => DType::F16,
            Values::Bf16(_) => DType::BF16,
        }
    }

    /// Whether [`rows`](Self::rows) needs its buffer.
    pub(crate) fn is_half(&self) -> bool {
        !matches!(self.values, Values::F32(_))
    }

    /// The weight as a tensor holds it.
    pub(crate) fn unpacked(&self) -> Unpacked {
        match &self.values {
            Values::F32(values) => Unpacked::F32(unpack(self.sizes, values)),
            Values::F16(values) => Unpacked::F16(unpack(self.sizes, values)),
            Values::Bf16(values) => Unpacked::Bf16(unpack(self.sizes, values)),
        }
    }
}

/// A packed weight in `bf16`.
#[cfg(target_arch = "x86_64")]
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bf16Panels<'a> {
    pub(crate) sizes: Sizes,
    values: &'a [bf16],
}

#[cfg(target_arch = "x86_64")]
impl<'a> Bf16Panels<'a> {
    /// Rows of a panel.
    pub(crate) fn rows(&self, panel: usize, rows: Range<usize>) -> &'a [bf16] {
        let columns = self.sizes.columns(panel);
        let start = self.sizes.start(panel);
        &self.values[start + rows.start * columns..start + rows.end * columns]
    }
}

/// A weight `[outputs, inputs, taps]`.
#[derive(Debug)]
pub(crate) enum Unpacked {
    F32(Vec<f32>),
    F16(Vec<f16>),
    Bf16(Vec<bf16>),
}

fn pack<T: Copy + Send + Sync>(
    sizes: Sizes,
    weight: &[T],
    zero: T,
    from: impl Fn(usize, usize, usize) -> usize + Sync,
) -> Vec<T> {
    // Rows that are packed together: few enough that what they read stays in the nearest cache.
    const ROWS: usize = 16;
    let mut packed = Vec::with_capacity(sizes.length());
    // Not zeroed first: that would touch every page of a large weight on one thread.
    let spare = &mut packed.spare_capacity_mut()[..sizes.length()];
    spare.par_chunks_mut((PANEL * sizes.rows()).max(1)).enumerate().for_each(|(panel, to)| {
        let (real, columns) = (sizes.real_columns(panel), sizes.columns(panel));
        for row in to.chunks_exact_mut(columns) {
            row[real..].fill(MaybeUninit::new(zero));
        }
        for tap in 0..sizes.taps {
            for first in (0..sizes.inputs).step_by(ROWS) {
                let inputs = first..(first + ROWS).min(sizes.inputs);
                for column in 0..real {
                    for input in inputs.clone() {
                        let row = tap * sizes.inputs + input;
                        to[row * columns + column].write(weight[from(panel * PANEL + column, input, tap)]);
                    }
                }
            }
        }
    });
    // SAFETY: every row of every panel was written: its outputs, and zeros behind them.
    unsafe { packed.set_len(sizes.length()) };
    packed
}

fn unpack<T: Copy + Default + Send + Sync>(sizes: Sizes, packed: &[T]) -> Vec<T> {
    let mut weight = vec![T::default(); sizes.outputs * sizes.rows()];
    weight.par_chunks_mut(sizes.rows().max(1)).enumerate().for_each(|(output, to)| {
        let (panel, column) = (output / PANEL, output % PANEL);
        let columns = sizes.columns(panel);
        let from = &packed[sizes.start(panel)..];
        for input in 0..sizes.inputs {
            for tap in 0..sizes.taps {
                to[input * sizes.taps + tap] = from[(tap * sizes.inputs + input) * columns + column];
            }
        }
    });
    weight
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_packed_comes_back() {
        for (outputs, inputs, taps) in [(1, 1, 1), (64, 3, 9), (70, 20, 9), (200, 17, 1)] {
            let sizes = Sizes { outputs, inputs, taps };
            let weight: Vec<f32> = (0..outputs * inputs * taps).map(|i| i as f32).collect();
            let Unpacked::F32(found) = Packed::new(sizes, Plain::F32(&weight)).unpacked() else {
                panic!("the number type has changed")
            };
            assert_eq!(found, weight);
            let back = Packed::transposed(sizes, &weight);
            let Unpacked::F32(found) = back.unpacked() else { panic!("the number type has changed") };
            assert_eq!(found[taps - 1], weight[0]);
            assert_eq!(found[(outputs - 1) * taps], weight[(outputs - 1) * inputs * taps + taps - 1]);
        }
    }
}
