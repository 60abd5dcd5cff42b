//! [`attention`](super::attention) on the CPU: heads of images in parallel.

use candle_core::{CpuStorage, CustomOp3, Layout, Result, Shape, Tensor, bail};
use rayon::prelude::*;

use super::host::{Values, gradient, output, values};
use crate::kernels::attention::{Gradients, Head};

pub(super) fn attention(q: &Tensor, k: &Tensor, v: &Tensor, heads: usize) -> Result<Tensor> {
    let (batch, channels, height, width) = q.dims4()?;
    if k.dims() != q.dims() || v.dims() != q.dims() || batch * channels * height * width == 0 {
        bail!("queries {:?}, keys {:?} and values {:?} must be alike", q.shape(), k.shape(), v.shape());
    }
    if heads == 0 || !channels.is_multiple_of(heads) {
        bail!("{channels} channels do not divide into {heads} attention heads");
    }
    let head = Head { width: channels / heads, pixels: height * width };
    q.contiguous()?.apply_op3(&k.contiguous()?, &v.contiguous()?, Attention { head })
}

struct Attention {
    head: Head,
}

impl CustomOp3 for Attention {
    fn name(&self) -> &'static str {
        "evenset attention"
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
        let size = self.head.width * self.head.pixels;
        let mut out = vec![0.0; q.len()];
        out.par_chunks_exact_mut(size)
            .zip(q.par_chunks_exact(size))
            .zip(k.par_chunks_exact(size).zip(v.par_chunks_exact(size)))
            .for_each(|((out, q), (k, v))| self.head.forward(q, k, v, out));
        output(out, q_layout.shape())
    }

    fn bwd(
        &self,
        q: &Tensor,
        k: &Tensor,
        v: &Tensor,
        _result: &Tensor,
        grad: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
        let grad = grad.contiguous()?;
        let (grad, q_values, k_values, v_values) = (Values::of(&grad)?, Values::of(q)?, Values::of(k)?, Values::of(v)?);
        let size = self.head.width * self.head.pixels;
        let chunks = |values: &[f32]| (0..values.len() / size).map(|i| i * size..(i + 1) * size).collect::<Vec<_>>();
        let (grad, q_values, k_values, v_values) = (grad.get()?, q_values.get()?, k_values.get()?, v_values.get()?);
        let [mut q_out, mut k_out, mut v_out] = [(); 3].map(|()| vec![0.0; grad.len()]);
        let outs = q_out.par_chunks_exact_mut(size).zip(k_out.par_chunks_exact_mut(size));
        outs.zip(v_out.par_chunks_exact_mut(size)).zip(chunks(grad)).for_each(|(((q, k), v), span)| {
            let arguments = [&q_values[span.clone()], &k_values[span.clone()], &v_values[span.clone()]];
            self.head.backward(arguments, &grad[span], Gradients { q, k, v });
        });
        Ok((gradient(q_out, q)?, gradient(k_out, k)?, gradient(v_out, v)?))
    }
}
