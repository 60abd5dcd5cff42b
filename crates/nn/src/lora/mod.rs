//! LoRA (Hu et al. 2021): small changes to a network's weights, kept in files of their own and added to the weights while
//! these are read.
//!
//! A file holds, for some layers, a matrix `down` `[rank, inputs]` and a matrix `up` `[outputs, rank]`; the layer's weight
//! becomes `W + weight * alpha / rank * up down`. Without an alpha it counts as the rank. Convolutions are treated as the
//! matrices that they are: `down` has the kernel, `up` has 1x1.
//!
//! Read are the names of diffusers (`unet.….lora.down.weight`, and the older `….processor.to_q_lora.down.weight`), of PEFT
//! (`lora_A`, `lora_B`) and of kohya's scripts (`lora_unet_…`, `lora_te_…`), the last also over the original names of the
//! UNet (`lora_unet_input_blocks_4_1_…`), as diffusers 0.42 and peft 0.21 read them. A file of another kind (DoRA, LoHa,
//! LoKr, ..) is refused by the name of its kind.

mod file;
mod merge;
mod names;
mod scale;

use std::collections::BTreeSet;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::error::{Error, Result};

use file::LoraFile;
pub(crate) use merge::Merger;

/// A network that a LoRA or a learned token can belong to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Part {
    /// The denoising network.
    UNet,
    /// The first or only text encoder (CLIP ViT-L in Stable Diffusion 1 and XL).
    TextEncoder,
    /// The second text encoder of Stable Diffusion XL.
    TextEncoder2,
}

impl fmt::Display for Part {
    /// diffusers' name of the folder.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::UNet => "unet",
            Self::TextEncoder => "text_encoder",
            Self::TextEncoder2 => "text_encoder_2",
        })
    }
}

/// LoRAs with their weights, added in their order. The default is none.
#[derive(Clone, Debug, Default)]
pub struct LoraStack {
    loras: Vec<(Arc<LoraFile>, f64)>,
}

impl LoraStack {
    /// Reads the headers of safetensors files, each with the weight that its changes get: 1 is what it was trained for, 0
    /// changes nothing, and a negative one is the opposite.
    ///
    /// # Errors
    /// [`Error::Lora`], [`Error::Pickle`], [`Error::Malformed`] and [`Error::File`], naming the file: a weight that is no
    /// finite number, a file that is no safetensors file, a key that no LoRA of a known kind has, a layer of which one of
    /// the matrices is missing, or whose matrices do not go together.
    pub fn open<P: Into<PathBuf>>(loras: impl IntoIterator<Item = (P, f64)>) -> Result<Self> {
        let open = |(path, weight): (P, f64)| {
            let path = path.into();
            match weight.is_finite() {
                true => Ok((Arc::new(LoraFile::open(&path)?), weight)),
                false => Err(refusal(&path, format!("its weight is {weight}; write a number, 1 for the full effect"))),
            }
        };
        Ok(Self { loras: loras.into_iter().map(open).collect::<Result<_>>()? })
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.loras.is_empty()
    }

    /// The networks that are changed.
    pub fn parts(&self) -> BTreeSet<Part> {
        self.loras.iter().flat_map(|(lora, _)| lora.parts()).collect()
    }

    /// Refuses a LoRA that changes a network other than `parts`: those that a model has.
    ///
    /// # Errors
    /// [`Error::Lora`] names the file and the network.
    pub fn only(&self, parts: &[Part]) -> Result<()> {
        for (lora, _) in &self.loras {
            if let Some(other) = lora.parts().into_iter().find(|part| !parts.contains(part)) {
                let (count, name) = lora.example(other);
                let reason = format!(
                    "made for another base model: {count} of its layers belong to {other} (`{name}`), which this model \
                     has not; use the LoRA with the model family it was trained on"
                );
                return Err(refusal(lora.path(), reason));
            }
        }
        Ok(())
    }

    /// What adds the changes of `part` to weights that are read, or `None` where there are none. `layers` counts the
    /// residual blocks of a UNet's level.
    pub(crate) fn merger(&self, part: Part, layers: usize) -> Option<Merger> {
        let loras = self.loras.iter().filter(|(lora, _)| lora.parts().contains(&part)).cloned().collect::<Vec<_>>();
        (!loras.is_empty()).then(|| Merger::new(loras, part, layers))
    }
}

fn refusal(path: &Path, reason: String) -> Error {
    Error::Lora { path: path.to_owned(), reason }
}
