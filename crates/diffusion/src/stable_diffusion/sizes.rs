//! What Stable Diffusion XL is told about sizes: micro-conditioning (Podell et al. 2023, section 2.2).

use candle_core::{Device, Tensor};

use crate::error::Result;

/// The sizes that one image is drawn as; each pair is height and width, or top and left, in pixels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SizeConditioning {
    /// How large the image is to look as if it had been before training scaled it: a small one looks coarse.
    pub original: (u32, u32),
    /// How much is to look cut off at the top and at the left: nothing for a centred subject.
    pub crop: (u32, u32),
    /// How large it is to look.
    pub target: (u32, u32),
}

impl SizeConditioning {
    /// diffusers' default for an image of this size: as large as it is, nothing cut off.
    pub fn of(height: u32, width: u32) -> Self {
        Self { original: (height, width), crop: (0, 0), target: (height, width) }
    }

    /// The six numbers in diffusers' order (`StableDiffusionXLPipeline._get_add_time_ids`).
    pub fn numbers(&self) -> [f32; 6] {
        let Self { original, crop, target } = self;
        [original.0, original.1, crop.0, crop.1, target.0, target.1].map(|pixels| pixels as f32)
    }
}

/// `[images, 6]` in `f32`, the network's `time_ids`.
///
/// # Errors
/// The device's.
pub fn time_ids(sizes: &[SizeConditioning], device: &Device) -> Result<Tensor> {
    let numbers: Vec<f32> = sizes.iter().flat_map(SizeConditioning::numbers).collect();
    Ok(Tensor::from_vec(numbers, (sizes.len(), 6), device)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_told_in_diffusers_order() {
        let sizes = SizeConditioning { original: (1, 2), crop: (3, 4), target: (5, 6) };
        let ids = time_ids(&[sizes, SizeConditioning::of(768, 1024)], &Device::Cpu).unwrap();
        let expected = [[1.0, 2.0, 3.0, 4.0, 5.0, 6.0], [768.0, 1024.0, 0.0, 0.0, 768.0, 1024.0]];
        assert_eq!(ids.to_vec2::<f32>().unwrap(), expected);
    }
}
