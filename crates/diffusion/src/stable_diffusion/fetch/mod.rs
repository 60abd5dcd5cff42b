//! Fetching a model of the Hugging Face hub into its local cache, as the package `huggingface_hub` lays it out: files lie in
//! `blobs` under their hashes, and `snapshots/<commit>` links to them.
//!
//! Only files that a [`ModelFolder`](super::ModelFolder) reads are fetched, never a pickle or a program. The hub says each
//! file's size and hash beforehand: no more bytes than that are written, a file that broke off goes on where it was, and
//! none gets its name before its hash was found right. `refs` is written last.
//!
//! The crate `hf-hub` (1.0) does not serve here: it neither goes on with files that broke off nor compares their hashes.

mod listing;
mod transfer;

use std::ffi::OsString;
use std::fs;
use std::path::Path;

use evenset_core::Progress;
use evenset_data::atomic::write_file;
use evenset_nn::models::{Layout, Variant, weight_names};
use reqwest::header::{HeaderMap, HeaderValue};
use serde_json::Value;
use url::Url;

use super::files::{TOKENIZER_FILES, read_json, unusable};
use super::folder::facts_of;
use super::hub::{self, HubCache, HubId};
use super::index::Index;
use crate::error::{DiffusionError, Result};
use listing::{Listed, Listing};
use transfer::{Meter, Transfer};

/// The hub.
const ENDPOINT: &str = "https://huggingface.co";
/// The parts that come with a tokenizer's files, and those with weights.
const TOKENIZERS: [&str; 2] = ["tokenizer", "tokenizer_2"];
const NETWORKS: [(&str, Layout); 4] = [
    ("text_encoder", Layout::Transformers),
    ("text_encoder_2", Layout::Transformers),
    ("unet", Layout::Diffusers),
    ("vae", Layout::Diffusers),
];
/// The longest description or configuration; real ones have a few kilobytes.
const LONGEST_TEXT: u64 = 16 << 20;

/// What is to be fetched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A whole model, with `model_index.json`.
    Pipeline,
    /// One network with its `config.json` beside its weights, such as a ControlNet.
    Network,
}

/// The hub and who asks it.
#[derive(Clone, Debug)]
pub struct Hub {
    endpoint: Url,
    token: Option<HeaderValue>,
}

impl Hub {
    /// What `huggingface_hub` reads too: `HF_ENDPOINT`, and as the token for models whose terms were accepted `HF_TOKEN` or
    /// the file that `hf auth login` writes (`HF_TOKEN_PATH`, or `token` in `HF_HOME`). `variable` reads the environment.
    ///
    /// # Errors
    /// [`DiffusionError::Fetch`] for an endpoint that is none, or where `HF_HUB_OFFLINE` forbids it.
    pub fn from_environment(variable: impl Fn(&str) -> Option<OsString>) -> Result<Self> {
        let text = |name: &str| variable(name)?.into_string().ok().filter(|text| !text.is_empty());
        let fail = |what: String, problem: &str| DiffusionError::Fetch { what, problem: problem.to_owned() };
        if text("HF_HUB_OFFLINE").is_some_and(|value| is_yes(&value)) {
            return Err(fail(
                "`download: true`".into(),
                "HF_HUB_OFFLINE is set; unset it, or fetch the model elsewhere",
            ));
        }
        let endpoint = text("HF_ENDPOINT").unwrap_or_else(|| ENDPOINT.into());
        let problem = "HF_ENDPOINT is no address of a server, as https://huggingface.co";
        let url = Url::parse(&endpoint).ok().filter(|url| matches!(url.scheme(), "http" | "https") && url.has_host());
        let url = url.ok_or_else(|| fail(endpoint, problem))?;
        let file = hub::path_in(&variable, "HF_TOKEN_PATH").or_else(|| Some(hub::home(&variable)?.join("token")));
        let token = text("HF_TOKEN").or_else(|| fs::read_to_string(file?).ok());
        // A token goes over no wire where anyone could read it.
        let safe =
            url.scheme() == "https" || url.host_str().is_some_and(|host| matches!(host, "127.0.0.1" | "localhost"));
        let header = |token: String| {
            let mut header = HeaderValue::try_from(format!("Bearer {}", token.trim())).ok()?;
            header.set_sensitive(true);
            Some(header)
        };
        Ok(Self { endpoint: url, token: token.filter(|_| safe).and_then(header) })
    }

    /// The address of `parts` below the endpoint.
    fn address(&self, parts: &[&str]) -> Url {
        let mut url = self.endpoint.clone();
        if let Ok(mut path) = url.path_segments_mut() {
            path.pop_if_empty().extend(parts);
        }
        url
    }

    fn headers(&self) -> HeaderMap {
        self.token.iter().map(|token| (reqwest::header::AUTHORIZATION, token.clone())).collect()
    }

    /// Fetches what is missing of a model into `cache`. `progress` counts megabytes.
    ///
    /// # Errors
    /// [`DiffusionError::Fetch`] names the model or the file and the remedy: a hub that cannot be reached or turns the
    /// request away, a model that has no files of weights which can be read, a file of another size or hash than the hub
    /// says; [`DiffusionError::File`] for a disk that cannot be written, [`DiffusionError::Interrupted`]. What was fetched
    /// stays, and the next call goes on from there.
    pub fn fetch(
        &self,
        id: &HubId,
        kind: Kind,
        variant: Variant,
        cache: &HubCache,
        progress: &dyn Progress,
    ) -> Result<()> {
        let transfer = Transfer::new(self.headers(), progress)?;
        let (owner, name) = id.parts();
        let mut address = self.address(&["api", "models", owner, name, "revision", id.revision()]);
        address.set_query(Some("blobs=true"));
        let listing = Listing::parse(&transfer.text(&address, &id.id())?, &id.id())?;
        let repository = cache.repository(id);
        let snapshot = repository.join("snapshots").join(&listing.commit);
        let model = Fetching { hub: self, id, listing: &listing, repository: &repository, snapshot: &snapshot };

        model.texts(kind, &transfer)?;
        let weights = match kind {
            Kind::Pipeline => model.weights(&model.networks()?, variant)?,
            Kind::Network => model.weights(&[("", Layout::Diffusers)], variant)?,
        };
        let bytes: u64 = weights.iter().map(|file| file.size).sum();
        progress.begin(&format!("fetch {} (MB)", id.id()), Meter::megabytes(bytes));
        let mut meter = Meter::new(progress);
        for file in weights {
            model.file(file, &transfer, &mut meter)?;
        }
        progress.end();
        let reference = repository.join("refs").join(id.revision());
        if let Some(folder) = reference.parent() {
            fs::create_dir_all(folder).map_err(DiffusionError::file(folder))?;
        }
        Ok(write_file(&reference, listing.commit.as_bytes())?)
    }
}

/// Whether an environment variable's value means yes, as `huggingface_hub` reads it.
fn is_yes(value: &str) -> bool {
    matches!(value.to_ascii_uppercase().as_str(), "1" | "ON" | "YES" | "TRUE")
}

/// One model on its way into the cache.
struct Fetching<'a> {
    hub: &'a Hub,
    id: &'a HubId,
    listing: &'a Listing,
    repository: &'a Path,
    snapshot: &'a Path,
}

impl Fetching<'_> {
    /// Everything that is no weights, and the indexes of weights.
    fn texts(&self, kind: Kind, transfer: &Transfer<'_>) -> Result<()> {
        let mut names = Vec::new();
        let network = |part: &str, layout| {
            let variants = [Variant::Whole, Variant::Fp16];
            let indexes = variants.into_iter().flat_map(move |variant| weight_names(layout, variant));
            let indexes = indexes.filter(|name| name.ends_with(".json"));
            ["config.json"].into_iter().chain(indexes).map(|name| within(part, name)).collect::<Vec<_>>()
        };
        match kind {
            Kind::Pipeline => {
                names.extend(["model_index.json", "scheduler/scheduler_config.json"].map(str::to_owned));
                for part in TOKENIZERS {
                    names.extend(TOKENIZER_FILES.iter().map(|file| within(part, file)));
                }
                names.extend(NETWORKS.iter().flat_map(|(part, layout)| network(part, *layout)));
            }
            Kind::Network => names = network("", Layout::Diffusers),
        }
        names.sort();
        names.dedup();
        let mut meter = Meter::silent();
        for file in names.iter().filter_map(|name| self.listing.file(name)) {
            if file.size > LONGEST_TEXT {
                return Err(self.failed(&file.name, format!("{} bytes are too many for a configuration", file.size)));
            }
            self.file(file, transfer, &mut meter)?;
        }
        Ok(())
    }

    /// The networks of a whole model. Whatever is no model that can be drawn with is refused before gigabytes of it are
    /// fetched.
    fn networks(&self) -> Result<Vec<(&'static str, Layout)>> {
        let path = self.snapshot.join("model_index.json");
        if !path.is_file() {
            let problem =
                "the hub has no `model_index.json` of it, so it is no model in diffusers' layout; name another";
            return Err(self.failed(&self.id.id(), problem));
        }
        let index = Index::read(&path)?;
        facts_of(self.snapshot, &index)?;
        let is_part = |part: &str| index.xl || !part.ends_with("_2");
        Ok(NETWORKS.into_iter().filter(|(part, _)| is_part(part)).collect())
    }

    /// The files of weights that these networks are read from.
    fn weights(&self, networks: &[(&str, Layout)], variant: Variant) -> Result<Vec<&Listed>> {
        let mut weights = Vec::new();
        for &(part, layout) in networks {
            let mut names = weight_names(layout, variant).map(|name| within(part, name));
            let Some(first) = names.find_map(|name| self.listing.file(&name)) else {
                let problem = format!(
                    "the hub has no `.safetensors` of {}, and other files of weights are never read since they can run any \
                     program; name a model or a revision that has them",
                    if part.is_empty() { "it".to_owned() } else { format!("its `{part}`") }
                );
                return Err(self.failed(&self.id.id(), problem));
            };
            match first.name.ends_with(".json") {
                true => weights.extend(self.shards(part, first)?),
                false => weights.push(first),
            }
        }
        Ok(weights)
    }

    /// The shards that an index names.
    fn shards(&self, part: &str, index: &Listed) -> Result<Vec<&Listed>> {
        let path = self.snapshot.join(&index.name);
        let values = read_json(&path)?;
        let map = values.get("weight_map").and_then(Value::as_object);
        let mut names: Vec<&str> = map.into_iter().flatten().filter_map(|(_, name)| name.as_str()).collect();
        names.sort_unstable();
        names.dedup();
        let shard = |name: &str| {
            let absent = || unusable(&path, format!("names the shard `{name}`, which the hub does not have"));
            let is_plain = name.ends_with(".safetensors") && !name.contains(['/', '\\']);
            self.listing.file(&within(part, name)).filter(|_| is_plain).ok_or_else(absent)
        };
        names.into_iter().map(shard).collect()
    }

    /// Fetches one file, unless it is there, and links it.
    fn file(&self, file: &Listed, transfer: &Transfer<'_>, meter: &mut Meter<'_>) -> Result<()> {
        let (owner, name) = self.id.parts();
        let parts = [owner, name, "resolve", &self.listing.commit];
        let address = self.hub.address(&parts.into_iter().chain(file.name.split('/')).collect::<Vec<_>>());
        let blobs = self.repository.join("blobs");
        let blob = transfer.fetch(&address, file, &blobs, meter)?;
        link(&blob, file, self.snapshot)
    }

    fn failed(&self, what: &str, problem: impl Into<String>) -> DiffusionError {
        DiffusionError::Fetch { what: what.to_owned(), problem: problem.into() }
    }
}

/// The name of a file of a part, which is the model itself where it has no name.
fn within(part: &str, name: &str) -> String {
    if part.is_empty() { name.to_owned() } else { format!("{part}/{name}") }
}

/// Puts a blob under its name.
fn link(blob: &Path, file: &Listed, snapshot: &Path) -> Result<()> {
    let path = snapshot.join(&file.name);
    let Some(folder) = path.parent() else { return Ok(()) };
    fs::create_dir_all(folder).map_err(DiffusionError::file(folder))?;
    if path.is_file() {
        return Ok(());
    }
    // A link that leads nowhere, from a cache that was cleaned by hand.
    if path.is_symlink() {
        fs::remove_file(&path).map_err(DiffusionError::file(&path))?;
    }
    let up = "../".repeat(2 + file.name.matches('/').count());
    let target = format!("{up}blobs/{}", file.hash.text());
    place(blob, Path::new(&target), &path).map_err(DiffusionError::file(&path))
}

#[cfg(unix)]
fn place(_blob: &Path, target: &Path, path: &Path) -> std::io::Result<()> {
    std::os::unix::fs::symlink(target, path)
}

/// Where links need rights that users do not have, `huggingface_hub` has the file itself there too.
#[cfg(not(unix))]
fn place(blob: &Path, _target: &Path, path: &Path) -> std::io::Result<()> {
    fs::hard_link(blob, path).or_else(|_| fs::copy(blob, path).map(|_| ()))
}
