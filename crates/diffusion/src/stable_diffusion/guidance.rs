//! Classifier-free guidance as diffusers 0.42's Stable Diffusion pipelines compute it.

use candle_core::{D, Device, Tensor};

use crate::error::Result;

/// `guided = negative + scale * (positive - negative)`, all `[batch, channels, height, width]` in `f32`, each image then
/// brought back towards the deviation of its `positive` by the share `rescale` (diffusers' `rescale_noise_cfg`).
pub(super) fn guided(positive: &Tensor, negative: &Tensor, scale: f64, rescale: f64) -> Result<Tensor> {
    let guided = (negative + ((positive - negative)? * scale)?)?;
    if rescale == 0.0 {
        return Ok(guided);
    }
    let factor = (deviation(positive)? / deviation(&guided)?)?;
    let factor = (factor * rescale)?.affine(1.0, 1.0 - rescale)?;
    Ok(guided.broadcast_mul(&factor)?)
}

/// Each image's standard deviation (with n - 1), `[batch, 1, 1, 1]`.
fn deviation(x: &Tensor) -> Result<Tensor> {
    let batch = x.dim(0)?;
    let rows = x.flatten_from(1)?;
    Ok(rows.var_keepdim(D::Minus1)?.sqrt()?.reshape((batch, 1, 1, 1))?)
}

/// What a network that is told the guidance scale is told: `[batch, width]` for `scale - 1`
/// (`LatentConsistencyModelPipeline.get_guidance_scale_embedding`).
pub(super) fn scale_embedding(scales: &[f64], width: usize, device: &Device) -> Result<Tensor> {
    let half = width / 2;
    let rate = 10_000f64.ln() / (half.max(2) - 1) as f64;
    let mut values = Vec::with_capacity(scales.len() * width);
    for scale in scales {
        let angle = |i: usize| 1000.0 * (scale - 1.0) * (-(i as f64) * rate).exp();
        values.extend((0..half).map(|i| angle(i).sin() as f32));
        values.extend((0..half).map(|i| angle(i).cos() as f32));
        values.extend(std::iter::repeat_n(0f32, width % 2));
    }
    Ok(Tensor::from_vec(values, (scales.len(), width), device)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn full_rescaling_gives_the_deviation_of_the_prediction_for_the_prompt() {
        let x = |scale: f32| {
            let values: Vec<f32> = (0..24).map(|i| scale * ((i * 7 % 24) as f32 - 11.5)).collect();
            Tensor::from_vec(values, (2, 1, 3, 4), &Device::Cpu).unwrap()
        };
        let (positive, negative) = (x(1.0), x(-0.5));
        let deviations = |x: &Tensor| deviation(x).unwrap().flatten_all().unwrap().to_vec1::<f32>().unwrap();
        let plain = guided(&positive, &negative, 3.0, 0.0).unwrap();
        let full = guided(&positive, &negative, 3.0, 1.0).unwrap();
        for ((wanted, full), plain) in deviations(&positive).iter().zip(deviations(&full)).zip(deviations(&plain)) {
            assert!((wanted - full).abs() < 1e-4 * wanted, "{wanted} {full}");
            assert!((plain - 4.0 * wanted).abs() < 1e-3 * wanted, "{wanted} {plain}");
        }
    }

    #[test]
    fn an_embedding_of_odd_width_ends_in_a_zero() {
        let found = scale_embedding(&[1.0], 5, &Device::Cpu).unwrap().to_vec2::<f32>().unwrap();
        assert_eq!(found, [[0.0, 0.0, 1.0, 1.0, 0.0]]);
    }
}
