//! Multi-head self-attention of texts and images.

use candle_core::{DType, Result, Tensor, bail};
use rayon::prelude::*;

use crate::kernels::masked::attend;
use crate::layers::Linear;
use crate::maps;
use crate::ops::host::{Values, unfilled};
use crate::ops::{fast, softmax};
use crate::weights::Scope;

/// Which keys a query sees.
#[derive(Clone, Debug, Default)]
pub(super) struct Mask {
    /// Whether a token sees itself and the ones before it only.
    pub(super) causal: bool,
    /// `[batch][keys]`: the tokens that are seen at all; all of them where nothing is said.
    pub(super) keys: Option<Vec<Vec<bool>>>,
}

impl Mask {
    fn is_open(&self) -> bool {
        !self.causal && self.keys.is_none()
    }

    /// The keys that query `i` of an image or text sees, of `count`.
    fn seen(&self, row: usize, i: usize, count: usize) -> Vec<bool> {
        let keys = self.keys.as_ref().and_then(|keys| keys.get(row));
        let is_seen = |j: usize| (!self.causal || j <= i) && keys.is_none_or(|keys| keys.get(j) == Some(&true));
        (0..count).map(is_seen).collect()
    }
}

/// Attention with its four projections, each with a bias.
#[derive(Clone, Debug)]
pub(super) struct SelfAttention {
    q: Linear,
    k: Linear,
    v: Linear,
    out: Linear,
    heads: usize,
}

impl SelfAttention {
    pub(super) fn new(scope: &Scope, width: usize, heads: usize) -> crate::Result<Self> {
        let linear = |name: &str| Linear::new(&scope.sub(name), width, width);
        Ok(Self { q: linear("q_proj")?, k: linear("k_proj")?, v: linear("v_proj")?, out: linear("out_proj")?, heads })
    }

    /// `x` `[batch, tokens, width]`; the result is added to `residual`.
    pub(super) fn forward(&self, x: &Tensor, mask: &Mask, residual: &Tensor) -> Result<Tensor> {
        let (q, k, v) = (self.q.forward(x)?, self.k.forward(x)?, self.v.forward(x)?);
        self.out.forward_onto(&masked(&q, &k, &v, self.heads, mask)?, residual)
    }
}

/// [`maps::attention`] where every query sees what `mask` shows it; zeros where that is nothing.
fn masked(q: &Tensor, k: &Tensor, v: &Tensor, heads: usize, mask: &Mask) -> Result<Tensor> {
    if mask.is_open() {
        return maps::attention(q, k, v, heads);
    }
    let (batch, count, width) = q.dims3()?;
    if k.dims() != q.dims() || v.dims() != q.dims() || heads == 0 || !width.is_multiple_of(heads) || width == 0 {
        bail!("queries {:?}, keys {:?} and values {:?} of {heads} heads do not agree", q.shape(), k.shape(), v.shape());
    }
    if !fast(&[q, k, v]) || [q, k, v].iter().any(|x| x.track_op()) {
        return with_candle(q, k, v, heads, mask);
    }
    let (q, k, v) = (q.contiguous()?, k.contiguous()?, v.contiguous()?);
    let (q_values, k_values, v_values) = (Values::of(&q)?, Values::of(&k)?, Values::of(&v)?);
    let (q_values, k_values, v_values) = (q_values.get()?, k_values.get()?, v_values.get()?);
    // SAFETY: every query writes its own part, and they are all of the result.
    let mut out = unsafe { unfilled(q_values.len()) };
    out.par_chunks_exact_mut(width).zip(q_values.par_chunks_exact(width)).enumerate().for_each(|(at, (out, q))| {
        let (row, i) = (at / count, at % count);
        let of_row = row * count * width..(row + 1) * count * width;
        let (seen, mut scores) = (mask.seen(row, i, count), vec![0.0; count]);
        attend(q, &k_values[of_row.clone()], &v_values[of_row], &seen, width / heads, &mut scores, out);
    });
    Tensor::from_vec(out, (batch, count, width), q.device())
}

/// The same from candle's operations: for other devices, and with a gradient.
fn with_candle(q: &Tensor, k: &Tensor, v: &Tensor, heads: usize, mask: &Mask) -> Result<Tensor> {
    let (batch, count, width) = q.dims3()?;
    // [batch, heads, tokens, width of a head]
    let split = |x: &Tensor| x.contiguous()?.reshape((batch, (), heads, width / heads))?.transpose(1, 2)?.contiguous();
    let (q, k, v) = (split(q)?, split(k)?, split(v)?);
    let seen: Vec<f32> = (0..batch * count)
        .flat_map(|at| mask.seen(at / count, at % count, count))
        .map(|seen| f32::from(u8::from(seen)))
        .collect();
    // [batch, 1, queries, keys]
    let seen = Tensor::from_vec(seen, (batch, 1, count, count), q.device())?;
    let scores = (q.matmul(&k.transpose(2, 3)?.contiguous()?)?.to_dtype(DType::F32)?
        * (1.0 / (width as f64 / heads as f64).sqrt()))?;
    let hidden = ((&seen - 1.0)? * 1e9)?;
    let shares = softmax(&scores.broadcast_add(&hidden)?)?.broadcast_mul(&seen)?.to_dtype(q.dtype())?;
    shares.matmul(&v)?.transpose(1, 2)?.contiguous()?.reshape((batch, count, width))
}

#[cfg(test)]
mod tests {
    use candle_core::Device;
    use evenset_core::Seed;

    use super::*;

    fn tokens(seed: u64) -> Tensor {
        Tensor::from_vec(Seed(seed).normal(3 * 5 * 8), (3, 5, 8), &Device::Cpu).unwrap()
    }

    fn values(x: &Tensor) -> Vec<f32> {
        x.flatten_all().unwrap().to_vec1().unwrap()
    }

    #[test]
    fn the_kernel_agrees_with_candles_operations_under_every_mask() {
        let (q, k, v) = (tokens(1), tokens(2), tokens(3));
        let padded = vec![vec![true; 5], vec![true, true, false, false, false], vec![false; 5]];
        for causal in [false, true] {
            for keys in [None, Some(padded.clone())] {
                let mask = Mask { causal, keys };
                let found = values(&masked(&q, &k, &v, 2, &mask).unwrap());
                let expected = values(&with_candle(&q, &k, &v, 2, &mask).unwrap());
                let worst = found.iter().zip(&expected).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
                assert!(worst < 1e-5, "{mask:?}: {worst}");
            }
        }
    }

    #[test]
    fn a_mask_that_hides_nothing_gives_plain_attention() {
        let (q, k, v) = (tokens(1), tokens(2), tokens(3));
        let all = Mask { causal: false, keys: Some(vec![vec![true; 5]; 3]) };
        let (found, plain) = (masked(&q, &k, &v, 4, &all).unwrap(), maps::attention(&q, &k, &v, 4).unwrap());
        assert!(values(&found).iter().zip(values(&plain)).all(|(a, b)| (a - b).abs() < 1e-5));
    }
}
