//! [`conv2d`](super::conv2d) on the CPU, channels last.

use candle_core::Result;

use super::{ConvExtras, Maps, Padding, slow};
use crate::param::Param;

pub(super) fn conv2d(
    x: &Maps,
    weight: &Param,
    stride: usize,
    padding: Padding,
    extras: ConvExtras<'_>,
) -> Result<Maps> {
    let first = |x: &Maps| Ok::<_, candle_core::Error>(Maps::first(x.to_nchw()?));
    let residual = extras.residual.map(first).transpose()?;
    let extras = ConvExtras { residual: residual.as_ref(), ..extras };
    let y = slow::conv2d(&first(x)?, weight, stride, padding, extras)?;
    Maps::from_nchw(&y.values)
}
