//! Feature maps in the order that the device's kernels like, and the operations on them.
//!
//! This crate's CPU kernels keep the channels of a pixel beside one another: a pixel is then a row of a matrix, so that
//! convolutions, linear maps and attention are products of matrices without a transposition between them. candle's
//! kernels on other devices want one plane for each channel. [`Maps`] hides which it is; networks are written once.

mod attention;
mod conv;
mod linear;
mod norm;
mod pointwise;
mod slow;

use candle_core::{Result, Tensor, bail};

use crate::ops::fast;
use crate::param::Param;

/// A batch of feature maps: `[batch, channels, height, width]`, wherever the channels lie in memory.
#[derive(Clone, Debug)]
pub struct Maps {
    /// `[batch, height, width, channels]` or `[batch, channels, height, width]`.
    values: Tensor,
    order: Order,
}

/// Where the channels lie.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Order {
    /// One plane for each channel: candle's operations.
    ChannelsFirst,
    /// The channels of a pixel beside one another: this crate's kernels.
    ChannelsLast,
}

impl Maps {
    fn first(values: Tensor) -> Self {
        Self { values, order: Order::ChannelsFirst }
    }

    fn last(values: Tensor) -> Self {
        Self { values, order: Order::ChannelsLast }
    }

    /// From `[batch, channels, height, width]`.
    ///
    /// # Errors
    /// A tensor that has not four dimensions.
    pub fn from_nchw(x: &Tensor) -> Result<Self> {
        x.dims4()?;
        match fast(&[x]) {
            true => Ok(Self::last(pointwise::nchw_to_nhwc(x)?)),
            false => Ok(Self::first(x.contiguous()?)),
        }
    }

    /// As a contiguous tensor `[batch, channels, height, width]`.
    ///
    /// # Errors
    /// Those of the copy.
    pub fn to_nchw(&self) -> Result<Tensor> {
        match self.order {
            Order::ChannelsFirst => Ok(self.values.clone()),
            Order::ChannelsLast => pointwise::nhwc_to_nchw(&self.values),
        }
    }

    /// From tokens `[batch, height * width, channels]`, row by row of the map.
    ///
    /// # Errors
    /// Another number of tokens than `height * width`.
    pub fn from_tokens(tokens: &Tensor, (height, width): (usize, usize)) -> Result<Self> {
        let (batch, count, channels) = tokens.dims3()?;
        if Some(count) != height.checked_mul(width) {
            bail!("{count} tokens are not a map of {width}x{height}");
        }
        match fast(&[tokens]) {
            true => Ok(Self::last(tokens.contiguous()?.reshape((batch, height, width, channels))?)),
            false => {
                let planes = tokens.transpose(1, 2)?.contiguous()?;
                Ok(Self::first(planes.reshape((batch, channels, height, width))?))
            }
        }
    }

    /// As tokens `[batch, height * width, channels]`.
    ///
    /// # Errors
    /// Those of the copy.
    pub fn to_tokens(&self) -> Result<Tensor> {
        match self.order {
            Order::ChannelsFirst => self.values.flatten_from(2)?.transpose(1, 2)?.contiguous(),
            Order::ChannelsLast => self.values.flatten(1, 2),
        }
    }

    /// Batch, channels, height and width.
    pub fn dims(&self) -> (usize, usize, usize, usize) {
        let dims = self.values.dims();
        match self.order {
            Order::ChannelsFirst => (dims[0], dims[1], dims[2], dims[3]),
            Order::ChannelsLast => (dims[0], dims[3], dims[1], dims[2]),
        }
    }

    /// The batch.
    pub fn batch(&self) -> usize {
        self.dims().0
    }

    /// The channels.
    pub fn channels(&self) -> usize {
        self.dims().1
    }

    /// Height and width.
    pub fn size(&self) -> (usize, usize) {
        let (_, _, height, width) = self.dims();
        (height, width)
    }

    /// An error for maps of two kinds: some made inside [`with_candle`](crate::ops::with_candle), others outside.
    fn in_order_of(&self, other: &Self) -> Result<()> {
        match self.order == other.order {
            true => Ok(()),
            false => bail!("maps whose channels lie first and maps whose channels lie last do not go together"),
        }
    }

    /// The sum with maps of the same shape.
    ///
    /// # Errors
    /// Shapes that differ.
    pub fn add(&self, other: &Self) -> Result<Self> {
        self.in_order_of(other)?;
        Ok(Self { values: crate::ops::add(&self.values, &other.values)?, order: self.order })
    }

    /// Every value times `factor`.
    ///
    /// # Errors
    /// Those of candle.
    pub fn scale(&self, factor: f64) -> Result<Self> {
        Ok(Self { values: (&self.values * factor)?, order: self.order })
    }

    /// `x * sigmoid(x)` of every value.
    ///
    /// # Errors
    /// Those of candle.
    pub fn silu(&self) -> Result<Self> {
        Ok(Self { values: crate::ops::silu(&self.values)?, order: self.order })
    }

    /// `max(x, 0)` of every value.
    ///
    /// # Errors
    /// Those of candle.
    pub fn relu(&self) -> Result<Self> {
        Ok(Self { values: self.values.relu()?, order: self.order })
    }

    /// The channels of `self`, then those of `other`.
    ///
    /// # Errors
    /// Another batch or size.
    pub fn concat_channels(&self, other: &Self) -> Result<Self> {
        self.in_order_of(other)?;
        match self.order {
            Order::ChannelsFirst => Ok(Self::first(Tensor::cat(&[&self.values, &other.values], 1)?)),
            Order::ChannelsLast => Ok(Self::last(pointwise::concat_last(&self.values, &other.values)?)),
        }
    }

    /// Enlarged to `height` and `width` by repeating the nearest pixel, as PyTorch's `interpolate(mode="nearest")`:
    /// pixel `y` of the result is pixel `floor(y * old / new)`.
    ///
    /// # Errors
    /// Empty maps.
    pub fn upsample_nearest(&self, size: (usize, usize)) -> Result<Self> {
        match self.order {
            Order::ChannelsFirst => Ok(Self::first(slow::upsample_nearest(&self.values, size)?)),
            Order::ChannelsLast => Ok(Self::last(pointwise::upsample_nearest(&self.values, size)?)),
        }
    }

    /// The mean of every square of 2x2 pixels (PyTorch's `avg_pool2d(2)`; an odd last row or column is dropped).
    ///
    /// # Errors
    /// Maps smaller than two pixels.
    pub fn avg_pool2x(&self) -> Result<Self> {
        match self.order {
            Order::ChannelsFirst => Ok(Self::first(slow::avg_pool2x(&self.values)?)),
            Order::ChannelsLast => Ok(Self::last(pointwise::avg_pool2x(&self.values)?)),
        }
    }
}

/// Zeros around an image before it is convolved: `before` at the top and left, `after` at the bottom and right.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Padding {
    /// Rows at the top and columns at the left.
    pub before: usize,
    /// Rows at the bottom and columns at the right.
    pub after: usize,
}

impl Padding {
    /// The same on all four sides.
    pub fn all(size: usize) -> Self {
        Self { before: size, after: size }
    }
}

/// What a convolution adds to its result.
#[derive(Clone, Copy, Debug, Default)]
pub struct ConvExtras<'a> {
    /// `[outputs]`, one for each channel.
    pub bias: Option<&'a Tensor>,
    /// `[batch, outputs]`, one for each image and channel (a time embedding).
    pub shift: Option<&'a Tensor>,
    /// Maps of the result's shape (a residual connection).
    pub residual: Option<&'a Maps>,
}

/// Convolution with `weight` `[outputs, inputs, kernel height, kernel width]`.
///
/// # Errors
/// Shapes that do not agree, a zero stride, or a kernel larger than the padded image.
pub fn conv2d(x: &Maps, weight: &Param, stride: usize, padding: Padding, extras: ConvExtras<'_>) -> Result<Maps> {
    match x.order {
        Order::ChannelsFirst => slow::conv2d(x, weight, stride, padding, extras),
        Order::ChannelsLast => conv::conv2d(x, weight, stride, padding, extras),
    }
}

/// Group normalisation (Wu and He 2018), then SiLU where `silu` is set. `weight` and `bias` are `[channels]`.
///
/// # Errors
/// Shapes that do not agree, or channels that `groups` does not divide.
pub fn group_norm(x: &Maps, groups: usize, weight: &Tensor, bias: &Tensor, eps: f64, silu: bool) -> Result<Maps> {
    match x.order {
        Order::ChannelsFirst => Ok(Maps::first(slow::group_norm(&x.values, groups, weight, bias, eps, silu)?)),
        Order::ChannelsLast => Ok(Maps::last(norm::group_norm(&x.values, groups, weight, bias, eps, silu)?)),
    }
}

/// `x (1 + scale) + shift`, then SiLU where `silu` is set, with `time` `[batch, 2 channels]`: the scales, then the shifts.
///
/// # Errors
/// Shapes that do not agree.
pub fn scale_shift(x: &Maps, time: &Tensor, silu: bool) -> Result<Maps> {
    match x.order {
        Order::ChannelsFirst => Ok(Maps::first(slow::scale_shift(&x.values, time, silu)?)),
        Order::ChannelsLast => Ok(Maps::last(norm::scale_shift(&x.values, time, silu)?)),
    }
}

/// `x weight^T + bias + residual`: `x` is `[.., inputs]`, `weight` `[outputs, inputs]`, the result `[.., outputs]`.
///
/// # Errors
/// Shapes that do not agree.
pub fn linear(x: &Tensor, weight: &Param, bias: Option<&Tensor>, residual: Option<&Tensor>) -> Result<Tensor> {
    match fast(&[x]) {
        true => linear::linear(x, weight, bias, residual),
        false => slow::linear(x, weight, bias, residual),
    }
}

/// Normalisation over the last dimension (Ba et al. 2016), with a gradient. `weight` and `bias` are `[width]`.
///
/// # Errors
/// Shapes that do not agree.
pub fn layer_norm(x: &Tensor, weight: Option<&Tensor>, bias: Option<&Tensor>, eps: f64) -> Result<Tensor> {
    match fast(&[x]) {
        true => norm::layer_norm(x, weight, bias, eps),
        false => slow::layer_norm(x, weight, bias, eps),
    }
}

/// `x[.., ..n] * gelu(x[.., n..])` with the exact (erf) GELU: `[.., 2 n]` to `[.., n]` (Shazeer 2020).
///
/// # Errors
/// An odd last dimension.
pub fn geglu(x: &Tensor) -> Result<Tensor> {
    match fast(&[x]) {
        true => pointwise::geglu(x),
        false => slow::geglu(x),
    }
}

/// Multi-head attention: softmax over the keys of `q . k / sqrt(width / heads)`, applied to `v`.
///
/// `q` is `[batch, queries, width]`, `k` and `v` `[batch, keys, width]`, the result like `q`; head `i` holds the columns
/// `i * width / heads ..`.
///
/// # Errors
/// Shapes that do not agree, or a width that `heads` does not divide.
pub fn attention(q: &Tensor, k: &Tensor, v: &Tensor, heads: usize) -> Result<Tensor> {
    match fast(&[q, k, v]) {
        true => attention::attention(q, k, v, heads),
        false => slow::attention(q, k, v, heads),
    }
}
