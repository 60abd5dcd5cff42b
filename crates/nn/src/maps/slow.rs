//! The operations from candle's own: for devices and number types that this crate's kernels do not cover, and what the
//! tests compare the kernels with. Every one keeps its gradient.

use candle_core::{D, DType, Result, Tensor, bail};

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
    let values = if padding.before == padding.after && stride == 1 {
        planes_conv2d(&x.values, &weight, bias.as_ref(), stride, padding.before)?
    } else {
        // candle's gradient fails where height and width leave different remainders: what no window reaches is cut off.
        let fitted = |x: &Tensor, dim: usize| {
            let x = x.pad_with_zeros(dim, padding.before, padding.after)?;
            let (size, kernel) = (x.dim(dim)?, weight.dim(dim)?);
            if stride == 0 || kernel == 0 || size < kernel {
                bail!("a kernel of {kernel} with stride {stride} does not fit maps of {size}, their padding included");
            }
            x.narrow(dim, 0, (size - kernel) / stride * stride + kernel)
        };
        planes_conv2d(&fitted(&fitted(&x.values, 2)?, 3)?, &weight, bias.as_ref(), stride, 0)?
    };
    let result = Maps { values, order: x.order };
    match residual {
        Some(residual) => result.add(residual),
        None => Ok(result),
    }
}

/// A bias `[outputs]` or `[batch, outputs]`.
fn planes_conv2d(x: &Tensor, weight: &Tensor, bias: Option<&Tensor>, stride: usize, padding: usize) -> Result<Tensor> {
    let y = x.contiguous()?.conv2d(&weight.contiguous()?, padding, stride, 1, 1)?;
    match bias {
        None => Ok(y),
        Some(bias) if bias.rank() == 1 => y.broadcast_add(&bias.reshape((1, (), 1, 1))?),
        Some(bias) => y.broadcast_add(&bias.unsqueeze(2)?.unsqueeze(3)?),
    }
}

pub(super) fn group_norm(
    x: &Tensor,
    groups: usize,
    weight: &Tensor,
    bias: &Tensor,
    eps: f64,
    silu: bool,
) -> Result<Tensor> {
    let (batch, channels) = (x.dim(0)?, x.dim(1)?);
    if groups == 0 || !channels.is_multiple_of(groups) {
        bail!("{channels} channels do not divide into {groups} groups");
    }
    let dtype = x.dtype();
    let x = &wide(x)?;
    let (weight, bias) = (weight.to_dtype(x.dtype())?, bias.to_dtype(x.dtype())?);
    let grouped = x.contiguous()?.reshape((batch, groups, ()))?;
    let centred = grouped.broadcast_sub(&grouped.mean_keepdim(2)?)?;
    let scale = (centred.sqr()?.mean_keepdim(2)? + eps)?.sqrt()?;
    let normal = centred.broadcast_div(&scale)?.reshape((batch, channels, ()))?;
    let column = (1, channels, 1);
    let y = normal.broadcast_mul(&weight.reshape(column)?)?.broadcast_add(&bias.reshape(column)?)?;
    let y = y.reshape(x.shape())?;
    (if silu { y.silu()? } else { y }).to_dtype(dtype)
}

/// In `f32` where the number type is shorter: sums of many squares do not fit `f16`, and `bf16` has too few digits.
fn wide(x: &Tensor) -> Result<Tensor> {
    match x.dtype() {
        DType::F16 | DType::BF16 => x.to_dtype(DType::F32),
        _ => Ok(x.clone()),
    }
}

/// Spelled out: the gradient of candle's own overwrites where it should add.
pub(super) fn upsample_nearest(x: &Tensor, (height, width): (usize, usize)) -> Result<Tensor> {
    let (_, _, old_height, old_width) = x.dims4()?;
    if (height, width) == (2 * old_height, 2 * old_width) {
        let (b, c, h, w) = x.dims4()?;
        let spread = x.contiguous()?.reshape((b, c, h, 1, w, 1))?.broadcast_as((b, c, h, 2, w, 2))?;
        return spread.contiguous()?.reshape((b, c, height, width));
    }
    let pick = |x: &Tensor, dim, old: usize, new: usize| {
        let from: Vec<u32> = (0..new).map(|i| (i * old / new.max(1)) as u32).collect();
        x.index_select(&Tensor::from_vec(from, new, x.device())?, dim)
    };
    pick(&pick(x, 2, old_height, height)?, 3, old_width, width)
}

pub(super) fn avg_pool2x(x: &Tensor) -> Result<Tensor> {
    let (b, c, height, width) = x.dims4()?;
    if height < 2 || width < 2 {
        bail!("maps of {width}x{height} cannot be halved");
    }
    let (h, w) = (height / 2, width / 2);
    let even = x.narrow(2, 0, 2 * h)?.narrow(3, 0, 2 * w)?.contiguous()?;
    even.reshape((b, c, h, 2, w, 2))?.mean((3, 5))
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
    let weight = weight.tensor()?.to_dtype(x.dtype())?;
    let (outputs, inputs) = weight.dims2()?;
    let mut shape = x.dims().to_vec();
    match shape.last_mut() {
        Some(last) if *last == inputs => *last = outputs,
        _ => bail!("a linear map of {inputs} inputs cannot take {:?}", x.shape()),
    }
    // One plain product: candle folds a batch wrongly where the left side is not row-major.
    let y = x.contiguous()?.reshape(((), inputs))?.matmul(&weight.t()?.contiguous()?)?;
    let y = match bias {
        Some(bias) => y.broadcast_add(bias)?,
        None => y,
    };
    let y = y.reshape(shape)?;
    match residual {
        Some(residual) => y.add(residual),
        None => Ok(y),
    }
}

pub(super) fn layer_norm(x: &Tensor, weight: Option<&Tensor>, bias: Option<&Tensor>, eps: f64) -> Result<Tensor> {
    let dtype = x.dtype();
    let x = wide(x)?;
    let centred = x.broadcast_sub(&x.mean_keepdim(D::Minus1)?)?;
    let scale = (centred.sqr()?.mean_keepdim(D::Minus1)? + eps)?.sqrt()?;
    let mut y = centred.broadcast_div(&scale)?;
    if let Some(weight) = weight {
        y = y.broadcast_mul(&weight.to_dtype(x.dtype())?)?;
    }
    if let Some(bias) = bias {
        y = y.broadcast_add(&bias.to_dtype(x.dtype())?)?;
    }
    y.to_dtype(dtype)
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
    let shares = ops::softmax(&wide(&scores)?)?.to_dtype(q.dtype())?;
    let mixed = shares.matmul(&v)?;
    mixed.transpose(1, 2)?.contiguous()?.reshape((batch, queries, width))
}
