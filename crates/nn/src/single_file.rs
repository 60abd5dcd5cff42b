//! Whole models in one safetensors file under the names of the first releases: Stable Diffusion 1, 2 and XL as they are
//! passed around.
//!
//! The networks read their weights straight from the file: a name of diffusers is looked up under its original name, so
//! nothing is converted or written. What the file is shows in its names and shapes, as in diffusers'
//! `infer_diffusers_model_type` (0.42).

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use crate::error::{Error, Result};
use crate::files::WeightFiles;
use crate::lora::Part;
use crate::models::clip::TextConfig;
use crate::models::{AutoencoderKLJson, UNet2DConditionJson, published};
use crate::original::Original;

/// The text encoders' prefixes.
const CLIP: &str = "cond_stage_model.transformer.";
const CLIP_XL: &str = "conditioner.embedders.0.transformer.";
const OPEN_CLIP: &str = "cond_stage_model.model.";
const OPEN_CLIP_XL: &str = "conditioner.embedders.1.model.";
const OPEN_CLIP_REFINER: &str = "conditioner.embedders.0.model.";

/// Which model a file is a version of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Base {
    /// Stable Diffusion 1.x.
    V1,
    /// Stable Diffusion 2.x.
    V2,
    /// Stable Diffusion XL.
    Xl,
    /// The second network of Stable Diffusion XL, which takes the last steps.
    XlRefiner,
}

/// A model by its shape. Whether it predicts noise or `v` does not show in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Family {
    /// The model.
    pub base: Base,
    /// Channels that the UNet sees: 4, or 9 for inpainting (latents, mask, masked image), or 8 for InstructPix2Pix
    /// (latents, image).
    pub in_channels: usize,
}

impl Family {
    /// diffusers' configuration of the UNet.
    pub fn unet(self) -> UNet2DConditionJson {
        published::unet(self)
    }

    /// diffusers' configuration of the autoencoder.
    pub fn vae(self) -> AutoencoderKLJson {
        published::vae(self)
    }

    /// transformers' configuration of a text encoder; `None` where the model has none of that name.
    pub fn text_encoder(self, part: Part) -> Option<TextConfig> {
        match (self.base, part) {
            (Base::V1 | Base::Xl, Part::TextEncoder) => Some(TextConfig::vit_l()),
            (Base::V2, Part::TextEncoder) => Some(TextConfig::open_vit_h()),
            (Base::Xl | Base::XlRefiner, Part::TextEncoder2) => Some(TextConfig::open_vit_big_g()),
            _ => None,
        }
    }
}

/// A file whose header was read.
#[derive(Clone, Debug)]
pub struct SingleFile {
    path: PathBuf,
    shapes: BTreeMap<String, Vec<usize>>,
}

impl SingleFile {
    /// Reads the header of a file.
    ///
    /// # Errors
    /// [`Error::Pickle`] for a `.ckpt`, [`Error::Malformed`] and [`Error::File`].
    pub fn open(path: &Path) -> Result<Self> {
        let files = WeightFiles::open(path)?;
        let shape = |name: &str| (name.to_owned(), files.shape(name).unwrap_or_default().to_vec());
        Ok(Self { path: path.to_owned(), shapes: files.names().map(shape).collect() })
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Which model this is.
    ///
    /// # Errors
    /// [`Error::SingleFile`] for a model that is none of [`Family`], by its name where it is known.
    pub fn family(&self) -> Result<Family> {
        let family = recognised(&|name: &str| self.shapes.get(name).map(Vec::as_slice));
        family.map_err(|reason| match self.names().find(|name| name.contains(".lora")) {
            Some(name) => {
                self.refusal(format!("`{name}` shows that this is a LoRA; name it beside the model it is for"))
            }
            None => self.refusal(reason),
        })
    }

    /// Whether the file says of itself that its UNet predicts `v`, as fine-tuned versions of Stable Diffusion XL do by a
    /// tensor `v_pred`. Where nothing is said, nothing is known.
    pub fn says_v_prediction(&self) -> bool {
        self.shapes.contains_key("v_pred")
    }

    /// Whether the file says of itself that its UNet was trained on noise levels that end in noise alone (Lin et al. 2023;
    /// diffusers' `rescale_betas_zero_snr`), as some of those versions do by a tensor `ztsnr`.
    pub fn says_zero_terminal_snr(&self) -> bool {
        self.shapes.contains_key("ztsnr")
    }

    /// Whether there is an autoencoder in the file; some leave it out.
    pub fn has_vae(&self) -> bool {
        let endings =
            ["first_stage_model.decoder.conv_in.weight", "vae.decoder.conv_in.weight", "decoder.conv_in.weight"];
        endings.iter().any(|name| self.shapes.contains_key(*name))
    }

    /// The weights of the UNet under diffusers' names.
    pub(crate) fn open_unet(&self) -> Result<WeightFiles> {
        self.view(Original::unet(self.names()))
    }

    /// The weights of the autoencoder under diffusers' names.
    pub(crate) fn open_vae(&self) -> Result<WeightFiles> {
        match self.has_vae() {
            true => self.view(Original::vae(self.names())),
            false => Err(self.refusal("there is no autoencoder in it; name the folder or file of one".into())),
        }
    }

    /// The weights of a text encoder under transformers' names.
    pub(crate) fn open_text_encoder(&self, part: Part) -> Result<WeightFiles> {
        let has = |prefix: &str| self.shapes.keys().any(|name| name.starts_with(prefix));
        let original = match part {
            Part::TextEncoder if has(CLIP) => Some(Original::clip(CLIP)),
            Part::TextEncoder if has(CLIP_XL) => Some(Original::clip(CLIP_XL)),
            Part::TextEncoder if has(OPEN_CLIP) => Some(Original::open_clip_without_end(OPEN_CLIP, self.names())),
            Part::TextEncoder2 if has(OPEN_CLIP_XL) => Some(Original::open_clip(OPEN_CLIP_XL)),
            Part::TextEncoder2 if has(OPEN_CLIP_REFINER) => Some(Original::open_clip(OPEN_CLIP_REFINER)),
            _ => None,
        };
        match original {
            Some(original) => self.view(original),
            None => Err(self.refusal(format!("there is no {part} in it; name a file with the whole model"))),
        }
    }

    fn names(&self) -> impl Iterator<Item = &str> + Clone {
        self.shapes.keys().map(String::as_str)
    }

    fn view(&self, original: Original) -> Result<WeightFiles> {
        Ok(WeightFiles::open(&self.path)?.with_original(original))
    }

    fn refusal(&self, reason: String) -> Error {
        Error::SingleFile { path: self.path.clone(), reason }
    }
}

/// Names that show a model of another kind.
const OTHERS: [(&str, &str); 10] = [
    ("model.diffusion_model.joint_blocks.0.context_block.adaLN_modulation.1.bias", "Stable Diffusion 3"),
    ("joint_blocks.0.context_block.adaLN_modulation.1.bias", "Stable Diffusion 3"),
    ("model.diffusion_model.double_blocks.0.img_attn.norm.key_norm.scale", "Flux"),
    ("double_blocks.0.img_attn.norm.key_norm.scale", "Flux"),
    ("edm_mean", "Playground 2.5"),
    ("edm_vpred.sigma_max", "CosXL"),
    ("clip_txt_mapper.weight", "Stable Cascade"),
    ("control_model.time_embed.0.weight", "a ControlNet"),
    ("controlnet_cond_embedding.conv_in.weight", "a ControlNet"),
    ("down_blocks.0.resnets.0.conv1.weight", "a UNet of diffusers without its folder"),
];

/// The model of which a file has tensors of the given shapes, or why there is none.
fn recognised<'a>(shape: &impl Fn(&str) -> Option<&'a [usize]>) -> Result<Family, String> {
    const FIRST: &str = "model.diffusion_model.input_blocks.0.0.weight";
    const XL: &str = "conditioner.embedders.1.model.transformer.resblocks.9.mlp.c_proj.bias";
    const REFINER: &str = "conditioner.embedders.0.model.transformer.resblocks.9.mlp.c_proj.bias";
    const TEXT: &str = "model.diffusion_model.input_blocks.2.1.transformer_blocks.0.attn2.to_k.weight";
    if let Some((name, kind)) = OTHERS.iter().find(|(name, _)| shape(name).is_some()) {
        return Err(format!(
            "`{name}` shows that this is {kind}; single files of Stable Diffusion 1, 2 and XL are supported"
        ));
    }
    let Some(&[_, in_channels, _, _]) = shape(FIRST) else {
        return Err(format!("no `{FIRST}`: this is no whole model of Stable Diffusion 1, 2 or XL; name another file"));
    };
    let text_width = shape(TEXT).and_then(<[usize]>::last).copied();
    let base = match (text_width, shape(XL).is_some(), shape(REFINER).is_some()) {
        (Some(1024), ..) => Base::V2,
        (_, true, _) => Base::Xl,
        (_, _, true) => Base::XlRefiner,
        (Some(768), ..) => Base::V1,
        (width, ..) => {
            let width = width.map_or("none".into(), |width| width.to_string());
            return Err(format!(
                "texts of width {width}: no Stable Diffusion 1 (768), 2 (1024) or XL; name another file"
            ));
        }
    };
    let allowed: &[usize] = match base {
        Base::V1 | Base::Xl => &[4, 8, 9],
        Base::V2 => &[4, 9],
        Base::XlRefiner => &[4],
    };
    match allowed.contains(&in_channels) {
        true => Ok(Family { base, in_channels }),
        false => Err(format!("a {base:?} model of {in_channels} channels; those of {allowed:?} are supported")),
    }
}

#[cfg(test)]
mod tests;
