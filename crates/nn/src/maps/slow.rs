//! The operations from candle's own: for devices and number types that this crate's kernels do not cover, and what the
//! tests compare the kernels with. Every one keeps its gradient.

use candle_core::{D, Result, Tensor, bail};

use super::{ConvExtras, Maps, Padding};
use crate::ops;
use crate::param::Param;

pub(super) fn conv2d(
    x: &Maps,
    weight: &Param,
    stride: usize,
    padding: Padding,
    extras: ConvExtras<'_>,
) -> Result<Maps> {
    let ConvExtras { bias, shift, residual } = extras;
    let bias = match (bias, shift) {
        (Some(bias), Some(shift)) => Some(shift.broadcast_add(bias)?),
        (bias, shift) => bias.or(shift).cloned(),
    };
    let weight = weight.tensor()?.to_dtype(x.values.dtype())?;
    let values = if padding.before == padding.after {
        ops::conv2d(&x.values, &weight, bias.as_ref(), stride, padding.before)?
    } else {
        let pad = |x: &Tensor, dim| x.pad_with_zeros(dim, padding.before, padding.after);
        ops::conv2d(&pad(&pad(&x.values, 2)?, 3)?, &weight, bias.as_ref(), stride, 0)?
    };
    let result = Maps { values, order: x.order };
    match residual {
        Some(residual) => result.add(residual),
        None => Ok(result),
    }
}

pub(super) fn upsample_nearest(x: &Tensor, (height, width): (usize, usize)) -> Result<Tensor> {
    let (_, _, old_height, old_width) = x.dims4()?;
    if (height, width) == (2 * old_height, 2 * old_width) {
        return ops::upsample_nearest2x(x);
    }
    let pick = |x: &Tensor, dim, old: usize, new: usize| {
        let from: Vec<u32> = (0..new).map(|i| (i * old / new.max(1)) as u32).collect();
        x.index_select(&Tensor::from_vec(from, new, x.device())?, dim)
    };
    pick(&pick(x, 2, old_height, height)?, 3, old_width, width)
}

pub(super) fn avg_pool2x(x: &Tensor) -> Result<Tensor> {
    let (_, _, height, width) = x.dims4()?;
    if height < 2 || width < 2 {
        bail!("maps of {width}x{height} cannot be halved");
    }
    ops::avg_pool2x(&x.narrow(2, 0, height / 2 * 2)?.narrow(3, 0, width / 2 * 2)?)
}

pub(super) fn scale_shift(x: &Tensor, time: &Tensor, silu: bool) -> Result<Tensor> {
    let (batch, channels, _, _) = x.dims4()?;
    if time.dims() != [batch, 2 * channels] {
        bail!("scales and shifts {:?} for maps {:?}", time.shape(), x.shape());
    }
    // [batch, channels, 1, 1]
    let part = |start| time.narrow(1, start, channels)?.contiguous()?.reshape((batch, channels, 1, 1));
    let y = x.broadcast_mul(&(part(0)? + 1.0)?)?.broadcast_add(&part(channels)?)?;
    if silu { y.silu() } else { Ok(y) }
}

pub(super) fn linear(x: &Tensor, weight: &Param, bias: Option<&Tensor>, residual: Option<&Tensor>) -> Result<Tensor> {
    let y = ops::linear(x, &weight.tensor()?.to_dtype(x.dtype())?, bias)?;
    match residual {
        Some(residual) => y.add(residual),
        None => Ok(y),
    }
}

pub(super) fn layer_norm(x: &Tensor, weight: Option<&Tensor>, bias: Option<&Tensor>, eps: f64) -> Result<Tensor> {
    let centred = x.broadcast_sub(&x.mean_keepdim(D::Minus1)?)?;
    let scale = (centred.sqr()?.mean_keepdim(D::Minus1)? + eps)?.sqrt()?;
    let mut y = centred.broadcast_div(&scale)?;
    if let Some(weight) = weight {
        y = y.broadcast_mul(weight)?;
    }
    match bias {
        Some(bias) => y.broadcast_add(bias),
        None => Ok(y),
    }
}

pub(super) fn geglu(x: &Tensor) -> Result<Tensor> {
    let width = x.dim(D::Minus1)?;
    if !width.is_multiple_of(2) {
        bail!("a gated layer needs an even width, not {width}");
    }
    let (hidden, gate) = (x.narrow(D::Minus1, 0, width / 2)?, x.narrow(D::Minus1, width / 2, width / 2)?);
    hidden.mul(&gate.contiguous()?.gelu_erf()?)
}

pub(super) fn attention(q: &Tensor, k: &Tensor, v: &Tensor, heads: usize) -> Result<Tensor> {
    let (batch, queries, width) = q.dims3()?;
    let (_, keys, _) = k.dims3()?;
    if k.dims() != [batch, keys, width] || v.dims() != k.dims() || batch * queries * keys * width == 0 {
        bail!("queries {:?}, keys {:?} and values {:?} do not agree", q.shape(), k.shape(), v.shape());
    }
    if heads == 0 || !width.is_multiple_of(heads) {
        bail!("a width of {width} does not divide into {heads} attention heads");
    }
    // [batch, heads, tokens, width of a head]
    let split = |x: &Tensor| x.contiguous()?.reshape((batch, (), heads, width / heads))?.transpose(1, 2)?.contiguous();
    let (q, k, v) = (split(q)?, split(k)?, split(v)?);
    let scale = 1.0 / ((width / heads) as f64).sqrt();
    let scores = (q.matmul(&k.transpose(2, 3)?.contiguous()?)? * scale)?;
    let mixed = ops::softmax(&scores)?.matmul(&v)?;
    mixed.transpose(1, 2)?.contiguous()?.reshape((batch, queries, width))
}
