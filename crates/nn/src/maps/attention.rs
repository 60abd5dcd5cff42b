//! [`attention`](super::attention) on the CPU: heads of images, and blocks of their queries, in parallel.

use std::sync::OnceLock;

use candle_core::{CpuStorage, CustomOp3, Layout, Result, Shape, Tensor, bail};
use rayon::prelude::*;

use crate::kernels::flash::{Head, Known, QUERIES};
use crate::kernels::gemm::PANEL;
use crate::kernels::scratch::with_scratch;
use crate::kernels::target::Target;
use crate::ops::host::{Values, gradient, output, unfilled, values};

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
        let shared = Target::new(&mut out);
        logarithms.par_chunks_mut(queries).enumerate().for_each(|(index, logarithms)| {
            let (queries_at, keys_at) = (self.start(index, queries), self.start(index, keys));
            with_scratch([keys * self.head.row(); 2], |[packed_k, packed_v]| {
                self.head.pack(&k[keys_at..], 1.0, packed_k);
                self.head.pack(&v[keys_at..], 1.0, packed_v);
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

    fn bwd(
        &self,
        q: &Tensor,
        k: &Tensor,
        v: &Tensor,
        result: &Tensor,
        grad: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
        let grad = grad.contiguous()?;
        let (q_values, k_values, v_values) = (Values::of(q)?, Values::of(k)?, Values::of(v)?);
        let (result_values, grad_values) = (Values::of(result)?, Values::of(&grad)?);
        let arguments = [q_values.get()?, k_values.get()?, v_values.get()?];
        let [q_out, k_out, v_out] = self.gradients(arguments, result_values.get()?, grad_values.get()?)?;
        Ok((gradient(q_out, q)?, gradient(k_out, k)?, gradient(v_out, v)?))
    }
}

impl Attention {
    /// The gradients of queries, keys and values.
    fn gradients(&self, [q, k, v]: [&[f32]; 3], result: &[f32], gradient: &[f32]) -> Result<[Vec<f32>; 3]> {
        let Some(logarithms) = self.logarithms.get() else {
            bail!("attention has gradients only after its forward pass");
        };
        let Head { queries, keys, .. } = self.head;
        let size = keys * self.head.row();
        let per_part = self.panels_per_part();
        let parts = queries.div_ceil(PANEL).div_ceil(per_part);
        // SAFETY: every token of every head is written below.
        let [mut q_out, mut k_out, mut v_out] = [q, k, v].map(|x| unsafe { unfilled(x.len()) });
        let outs = [&mut q_out, &mut k_out, &mut v_out].map(|out| Target::new(out));
        logarithms.par_chunks(queries).enumerate().for_each(|(index, logarithms)| {
            let (queries_at, keys_at) = (self.start(index, queries), self.start(index, keys));
            let (mut k_sums, mut v_sums) = (vec![0.0; parts * size], vec![0.0; parts * size]);
            // SAFETY: the head begins inside the gradients.
            let [q_out, k_out, v_out] =
                unsafe { [outs[0].add(queries_at), outs[1].add(keys_at), outs[2].add(keys_at)] };
            with_scratch([size; 2], |[packed_k, packed_v]| {
                self.head.pack(&k[keys_at..], 1.0, packed_k);
                self.head.pack(&v[keys_at..], 1.0, packed_v);
                let [q, gradient, result] = [q, gradient, result].map(|x| &x[queries_at..]);
                let known = Known { q, gradient, result, k: packed_k, v: packed_v, logarithms };
                let sums = k_sums.par_chunks_mut(size).zip(v_sums.par_chunks_mut(size));
                sums.enumerate().for_each(|(part, (k_sums, v_sums))| {
                    let first = part * per_part * PANEL;
                    for first in (first..queries.min(first + per_part * PANEL)).step_by(PANEL) {
                        let span = (first, PANEL.min(queries - first));
                        // SAFETY: each panel of queries is one task's.
                        unsafe { self.head.backward(span, &known, q_out, [k_sums, v_sums]) };
                    }
                });
            });
            // SAFETY: the keys and values of the head are this task's.
            unsafe {
                self.head.unpack(&mut k_sums, k_out);
                self.head.unpack(&mut v_sums, v_out);
            }
        });
        Ok([q_out, k_out, v_out])
    }

    /// Panels of queries whose gradients of keys and values are summed by one task: all, where the heads of an image are
    /// enough to occupy the threads. It depends on the shape of an image alone, and with it the order of the sums.
    fn panels_per_part(&self) -> usize {
        const TASKS: usize = 8;
        let panels = self.head.queries.div_ceil(PANEL);
        panels.div_ceil((TASKS / self.heads).clamp(1, panels))
    }
}
