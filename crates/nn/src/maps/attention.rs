//! [`attention`](super::attention) on the CPU: heads of images, and blocks of their queries, in parallel.

use std::sync::OnceLock;

use candle_core::{CpuStorage, CustomOp3, Layout, Result, Shape, Tensor, bail};
use rayon::prelude::*;

use crate::kernels::flash::{Head, QUERIES, Shared};
use crate::kernels::scratch::with_scratch;
use crate::ops::host::{output, unfilled, values};

pub(super) fn attention(q: &Tensor, k: &Tensor, v: &Tensor, heads: usize) -> Result<Tensor> {
    let (batch, queries, width) = q.dims3()?;
    let (_, keys, _) = k.dims3()?;
    if k.dims() != [batch, keys, width] || v.dims() != k.dims() || batch * queries * keys * width == 0 {
        bail!("queries {:?}, keys {:?} and values {:?} do not agree", q.shape(), k.shape(), v.shape());
    }
    if heads == 0 || !width.is_multiple_of(heads) {
        bail!("a width of {width} does not divide into {heads} attention heads");
    }
    let head = Head { queries, keys, width: width / heads, stride: width };
    let op = Attention { heads, head, logarithms: OnceLock::new() };
    q.contiguous()?.apply_op3(&k.contiguous()?, &v.contiguous()?, op)
}

struct Attention {
    heads: usize,
    head: Head,
    /// `[batch, heads, queries]`, from the forward pass: what the softmax divided by, which spares the backward pass the
    /// search for it.
    logarithms: OnceLock<Vec<f32>>,
}

impl Attention {
    /// Where the values of head `index` (of all images' heads) begin, with `tokens` an image.
    fn start(&self, index: usize, tokens: usize) -> usize {
        index / self.heads * tokens * self.head.stride + index % self.heads * self.head.width
    }
}

impl CustomOp3 for Attention {
    fn name(&self) -> &'static str {
        "evenset attention of tokens"
    }

    fn cpu_fwd(
        &self,
        q: &CpuStorage,
        q_layout: &Layout,
        k: &CpuStorage,
        k_layout: &Layout,
        v: &CpuStorage,
        v_layout: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let (q, k, v) = (values(q, q_layout)?, values(k, k_layout)?, values(v, v_layout)?);
        let Head { queries, keys, .. } = self.head;
        // SAFETY: every query of every head is written below.
        let mut out = unsafe { unfilled(q.len()) };
        let mut logarithms = vec![0.0; q.len() / self.head.width];
        let shared = Shared(out.as_mut_ptr());
        logarithms.par_chunks_mut(queries).enumerate().for_each(|(index, logarithms)| {
            let (queries_at, keys_at) = (self.start(index, queries), self.start(index, keys));
            with_scratch([keys * self.head.row(); 2], |[packed_k, packed_v]| {
                self.head.pack(&k[keys_at..], packed_k);
                self.head.pack(&v[keys_at..], packed_v);
                let packed: [&[f32]; 2] = [packed_k, packed_v];
                logarithms.par_chunks_mut(QUERIES).enumerate().for_each(|(block, logarithms)| {
                    let span = (block * QUERIES, logarithms.len());
                    // SAFETY: the head begins inside the result, and each block of queries is one task's.
                    unsafe { self.head.forward(span, &q[queries_at..], packed, shared.add(queries_at), logarithms) };
                });
            });
        });
        let _ = self.logarithms.set(logarithms);
        output(out, q_layout.shape())
    }
}
