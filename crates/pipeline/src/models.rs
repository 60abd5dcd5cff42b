//! Models on this machine: what there is, whether it is whole, and what each can do.

use std::path::{Path, PathBuf};

use evenset_core::Progress;
use evenset_diffusion::stable_diffusion::hub::HubCache;
use evenset_diffusion::stable_diffusion::{
    Distilled, ModelFacts, ModelFile, ModelFolder, ModelSource, Prediction, network_files, single_network,
};
use evenset_nn::models::Variant;
use serde::Serialize;

use crate::error::Result;

/// A model that was found.
#[derive(Clone, Debug, Serialize)]
pub struct Installed {
    /// What a job calls it: a hub id, a folder or a file.
    pub name: String,
    /// Where it lies: the folder, or the single file.
    pub folder: PathBuf,
    /// Bytes of its files.
    pub bytes: u64,
    /// What kind of model it is, where it can be used.
    pub family: Option<String>,
    /// What it can do.
    pub can: Vec<String>,
    /// What is wrong with it: a part that is missing or damaged, or a kind of model that is not known.
    pub problem: Option<String>,
    /// How many files have the hash that their names in the hub's cache say, where they were hashed.
    pub verified: Option<usize>,
}

/// A model that is whole.
struct Whole {
    family: String,
    can: Vec<String>,
    files: Vec<PathBuf>,
}

/// A model that was opened, or why it cannot be.
type Opened = std::result::Result<Whole, String>;

/// The pipelines of diffusers, ControlNets and small decoders in the hub's local cache, where others lie too, and the models in `paths`, which are folders and
/// single files. With `check`, files of the cache are hashed: there, a large file's name is its SHA-256.
///
/// # Errors
/// [`Interrupted`](evenset_core::Interrupted). What is wrong with a model is said of that model.
pub fn installed(paths: &[PathBuf], check: bool, progress: &dyn Progress) -> Result<Vec<Installed>> {
    let mut found: Vec<(String, Opened, PathBuf)> = Vec::new();
    let cache = HubCache::from_environment(|name| std::env::var_os(name));
    for id in cache.iter().flat_map(HubCache::models) {
        if let Some(cache) = &cache {
            // What is neither a pipeline of diffusers nor a network beside one is somebody else's: a language model, say.
            let folder = cache.find(&id).ok();
            let is_ours =
                |folder: &PathBuf| folder.join("model_index.json").is_file() || single_network(folder).is_some();
            let Some(folder) = folder.filter(is_ours) else { continue };
            let opened = match single_network(&folder) {
                Some(class) => network(&folder, class),
                None => pipeline(cache.open(&id, Variant::Whole)),
            };
            found.push((id.id(), opened, folder));
        }
    }
    for path in paths {
        let opened = match (ModelFile::is_meant(path), single_network(path)) {
            (true, _) => usable(ModelFile::open(path, None)),
            (false, Some(class)) => network(path, class),
            (false, None) => pipeline(ModelFolder::open(path, Variant::Whole)),
        };
        found.push((path.display().to_string(), opened, path.clone()));
    }
    if check {
        progress.begin("hash the models", found.len() as u64);
    }
    let mut models = Vec::with_capacity(found.len());
    for (name, opened, folder) in found {
        progress.check()?;
        models.push(describe(name, opened, folder, check)?);
        if check {
            progress.advance(1);
        }
    }
    if check {
        progress.end();
    }
    Ok(models)
}

/// A model's folder, with a solver that is known.
fn pipeline(model: evenset_diffusion::Result<ModelFolder>) -> Opened {
    usable(model.and_then(|model| model.scheduler().map(|_| model)))
}

fn usable<M: ModelSource>(model: evenset_diffusion::Result<M>) -> Opened {
    let whole = |model: M| Whole {
        family: model.facts().family.to_string(),
        can: abilities(model.facts()),
        files: model.files().to_vec(),
    };
    model.map(whole).map_err(|error| error.to_string())
}

/// A network that stands beside a model.
fn network(folder: &Path, class: &'static str) -> Opened {
    let (family, can) = match class {
        "ControlNetModel" => ("ControlNet", "makes images follow a picture (`generate.model.controls`)"),
        _ => ("small decoder", "decodes faster and coarser (`generate.model.small_decoder`)"),
    };
    let whole = |files| Whole { family: family.to_owned(), can: vec![can.to_owned()], files };
    network_files(folder, class).map(whole).map_err(|error| error.to_string())
}

fn describe(name: String, opened: Opened, folder: PathBuf, check: bool) -> Result<Installed> {
    let whole = match opened {
        Ok(whole) => whole,
        Err(problem) => {
            let (bytes, family, can, verified) = (0, None, Vec::new(), None);
            return Ok(Installed { name, folder, bytes, family, can, problem: Some(problem), verified });
        }
    };
    let bytes = whole.files.iter().filter_map(|file| std::fs::metadata(file).ok()).map(|data| data.len()).sum();
    let (mut verified, mut problem) = (None, None);
    if check {
        let mut good = 0;
        for file in &whole.files {
            match expected_sha256(file) {
                Some(expected) if evenset_data::sha256_file(file)? == expected => good += 1,
                Some(_) => problem = Some(format!("{} is damaged: fetch the model again", file.display())),
                None => {}
            }
        }
        verified = Some(good);
    }
    Ok(Installed { name, folder, bytes, family: Some(whole.family), can: whole.can, problem, verified })
}

fn abilities(facts: &ModelFacts) -> Vec<String> {
    let mut can = match facts.inpainting {
        true => vec!["inpaint (nine channels)".to_owned()],
        false => ["text to image", "image to image", "inpaint"].map(str::to_owned).to_vec(),
    };
    if let Some((height, width)) = facts.native_size {
        can.push(format!("{width}x{height}"));
    }
    can.push(match facts.prediction {
        Some(Prediction::Epsilon) => "predicts noise".into(),
        Some(Prediction::V) => "predicts v".into(),
        Some(Prediction::Sample) => "predicts the image".into(),
        None => "predicts noise or v, which the file does not show: say it as `prediction`".into(),
    });
    match facts.distilled {
        Some(Distilled::Turbo) => can.push("Turbo: 1 to 4 steps".into()),
        Some(Distilled::Lcm) => can.push("latent consistency: 2 to 8 steps".into()),
        None => {}
    }
    can
}

/// The hash that a file of the hub's cache must have: large ones are links to files that are named by it.
fn expected_sha256(file: &Path) -> Option<String> {
    let target = std::fs::read_link(file).ok()?;
    let name = target.file_name()?.to_str()?;
    let is_sha256 = name.len() == 64 && name.chars().all(|c| c.is_ascii_hexdigit());
    is_sha256.then(|| name.to_ascii_lowercase())
}
