//! Single networks that stand beside a model: ControlNets and small decoders.

use std::path::{Path, PathBuf};

use evenset_nn::models::{AutoencoderTinyConfig, Layout, Variant};

use super::facts::{ModelFacts, in_file};
use super::files::{Files, read_json, read_text, unusable};
use super::hub::{self, HubCache};
use crate::error::Result;

/// The classes of diffusers that stand beside a model.
pub(super) const CONTROL: &str = "ControlNetModel";
const DECODER: &str = "AutoencoderTiny";

/// A network's folder that is whole, with `config.json` beside its weights.
#[derive(Clone, Debug)]
pub(super) struct NetworkFolder {
    pub(super) dir: PathBuf,
    pub(super) files: Vec<PathBuf>,
}

impl NetworkFolder {
    /// The folder, or the network of this name in the hub's cache, checked to be whole and of this class without reading its
    /// weights.
    pub(super) fn open(name: &str, class: &str, cache: Option<&HubCache>, variant: Variant) -> Result<Self> {
        let (dir, within) = hub::locate(name, cache)?;
        if dir.is_file() {
            return Err(unusable(
                &dir,
                "a file; name the folder that has the network's `config.json` beside its weights",
            ));
        }
        if !dir.join("config.json").is_file() && dir.join("model_index.json").is_file() {
            return Err(unusable(&dir, "a whole model, not a single network; name the folder of the network alone"));
        }
        let mut files = Files::new(&dir, within.as_deref(), variant);
        files.need("config.json")?;
        files.need_weights("", Layout::Diffusers)?;
        let remedy = match within {
            Some(_) => format!("fetch them with `hf download {}`", name.split('@').next().unwrap_or_default()),
            None => format!("copy them from where it comes from (`hf download NAME --local-dir {}`)", dir.display()),
        };
        let folder = Self { files: files.finish(remedy)?, dir };
        match class_of(&folder.dir) {
            Some(other) if other != class => Err(unusable(
                &folder.config(),
                format!("a `{other}`, not a `{class}`; name the folder of a network of that class"),
            )),
            _ => Ok(folder),
        }
    }

    /// Its configuration.
    pub(super) fn config(&self) -> PathBuf {
        self.dir.join("config.json")
    }
}

/// The folder of a small decoder, checked to be whole and to belong to the model of these `facts`.
pub(super) fn small_decoder(
    name: &str,
    facts: &ModelFacts,
    cache: Option<&HubCache>,
    variant: Variant,
) -> Result<NetworkFolder> {
    let folder = NetworkFolder::open(name, DECODER, cache, variant)?;
    let path = folder.config();
    let config = in_file(&path, AutoencoderTinyConfig::from_json(&read_text(&path)?))?;
    let (found, wanted) = (
        (config.latent_channels(), config.downsampling(), config.out_channels()),
        (facts.latent_channels, facts.downsampling, 3),
    );
    match found == wanted {
        true => Ok(folder),
        false => Err(unusable(
            &path,
            format!(
                "decodes latents of {} channels to images of {} channels, {} times as high and wide; this model needs {}, {} \
                 and {} times; take the small decoder of its family (`madebyollin/taesd` for 1.x and 2.x, `madebyollin/taesdxl` \
                 for XL)",
                found.0, found.2, found.1, wanted.0, wanted.2, wanted.1
            ),
        )),
    }
}

/// The class that a single network's folder names, where evenset takes it beside a model.
pub fn single_network(dir: &Path) -> Option<&'static str> {
    let class = class_of(dir)?;
    [CONTROL, DECODER].into_iter().find(|known| *known == class)
}

/// Every file of a single network, checked to be whole.
///
/// # Errors
/// What is missing or damaged, by its path.
pub fn network_files(dir: &Path, class: &str) -> Result<Vec<PathBuf>> {
    Ok(NetworkFolder::open(&dir.to_string_lossy(), class, None, Variant::Whole)?.files)
}

fn class_of(dir: &Path) -> Option<String> {
    Some(read_json(&dir.join("config.json")).ok()?.get("_class_name")?.as_str()?.to_owned())
}
