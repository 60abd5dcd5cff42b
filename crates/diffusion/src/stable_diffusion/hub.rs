//! Models of the Hugging Face hub that lie in its local cache. Nothing is fetched from here (see
//! [`fetch`](super::fetch)).
//!
//! The cache's layout is that of the package `huggingface_hub`: `models--owner--name/refs/<revision>` holds a commit,
//! `snapshots/<commit>` the files, which are links into `blobs`.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use evenset_nn::models::Variant;

use super::files::unusable;
use super::folder::ModelFolder;
use crate::error::{DiffusionError, Result};

/// The longest id of a model, owner and name together; the hub's own limit.
const LONGEST: usize = 96;
/// The longest content of a file under `refs`.
const LONGEST_REF: u64 = 1 << 10;

/// A model's name on the hub.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HubId {
    owner: String,
    name: String,
    revision: String,
}

impl HubId {
    /// `owner/name`, or `owner/name@revision`; a branch, a tag or a commit, `main` where nothing is said. None for what
    /// cannot be such an id.
    pub fn parse(text: &str) -> Option<Self> {
        let (id, revision) = text.split_once('@').unwrap_or((text, "main"));
        let (owner, name) = id.split_once('/')?;
        let is_name = |name: &str| {
            let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
            let ends = name.starts_with(['.', '-']) || name.ends_with(['.', '-']);
            !name.is_empty() && name.chars().all(allowed) && !ends && !name.contains("..") && !name.contains("--")
        };
        let is_revision = |revision: &str| {
            let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-' | '+');
            let is_part = |part: &str| !part.is_empty() && !part.starts_with('.') && part.chars().all(allowed);
            revision.len() <= 256 && revision.split('/').all(is_part)
        };
        let valid = id.len() <= LONGEST && is_name(owner) && is_name(name) && is_revision(revision);
        valid.then(|| Self { owner: owner.into(), name: name.into(), revision: revision.into() })
    }

    /// `owner/name`.
    pub fn id(&self) -> String {
        format!("{}/{}", self.owner, self.name)
    }

    /// Owner and name.
    pub(super) fn parts(&self) -> (&str, &str) {
        (&self.owner, &self.name)
    }

    /// The branch, tag or commit.
    pub fn revision(&self) -> &str {
        &self.revision
    }
}

/// The hub's local cache.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HubCache(PathBuf);

impl HubCache {
    /// The cache in this folder, which need not exist.
    pub fn at(root: impl Into<PathBuf>) -> Self {
        Self(root.into())
    }

    /// Where `huggingface_hub` keeps it: `HF_HUB_CACHE`, `HUGGINGFACE_HUB_CACHE`, `HF_HOME/hub`,
    /// `XDG_CACHE_HOME/huggingface/hub` or `~/.cache/huggingface/hub`; `variable` reads the environment. None where no
    /// variable says even where home is.
    pub fn from_environment(variable: impl Fn(&str) -> Option<OsString>) -> Option<Self> {
        path_in(&variable, "HF_HUB_CACHE")
            .or_else(|| path_in(&variable, "HUGGINGFACE_HUB_CACHE"))
            .or_else(|| Some(home(&variable)?.join("hub")))
            .map(Self)
    }

    /// The folder.
    pub fn root(&self) -> &Path {
        &self.0
    }

    /// The models that are there, at their `main`, in the order of their names; nothing where there is no cache.
    pub fn models(&self) -> Vec<HubId> {
        let entries = std::fs::read_dir(&self.0).into_iter().flatten().flatten();
        let id = |name: &str| HubId::parse(&name.strip_prefix("models--")?.replacen("--", "/", 1));
        let mut models: Vec<HubId> = entries.filter_map(|entry| id(entry.file_name().to_str()?)).collect();
        models.sort_by_key(HubId::id);
        models
    }

    /// The folder of all that is kept of a model.
    pub(super) fn repository(&self, id: &HubId) -> PathBuf {
        self.0.join(format!("models--{}--{}", id.owner, id.name))
    }

    /// The folder of a model's files.
    ///
    /// # Errors
    /// [`DiffusionError::NotInCache`] says how to fetch a model that is not there; [`DiffusionError::Model`] names a file
    /// of the cache that is damaged.
    pub fn find(&self, id: &HubId) -> Result<PathBuf> {
        let absent =
            || DiffusionError::NotInCache { id: id.id(), revision: id.revision.clone(), cache: self.0.clone() };
        let repository = self.repository(id);
        let snapshots = repository.join("snapshots");
        if is_commit(&id.revision) && snapshots.join(&id.revision).is_dir() {
            return Ok(snapshots.join(&id.revision));
        }
        let reference = repository.join("refs").join(&id.revision);
        if !reference.is_file() {
            return Err(absent());
        }
        let commit = read_ref(&reference)?;
        let snapshot = snapshots.join(commit);
        if snapshot.is_dir() { Ok(snapshot) } else { Err(absent()) }
    }

    /// The model in the cache, opened. A link that leads out of what the cache keeps of this model is not followed.
    ///
    /// # Errors
    /// As [`find`](Self::find) and [`ModelFolder::open`].
    pub fn open(&self, id: &HubId, variant: Variant) -> Result<ModelFolder> {
        let dir = self.find(id)?;
        ModelFolder::open_within(&dir, Some(&self.canonical(id)?), variant)
    }

    /// The folder of all that is kept of a model, without links. Not the cache's own: large models are often moved to another
    /// disk, and linked.
    fn canonical(&self, id: &HubId) -> Result<PathBuf> {
        let repository = self.repository(id);
        std::fs::canonicalize(&repository).map_err(DiffusionError::file(&repository))
    }
}

/// Where `huggingface_hub` keeps what is the user's: `HF_HOME`, `XDG_CACHE_HOME/huggingface` or `~/.cache/huggingface`.
pub(super) fn home(variable: &impl Fn(&str) -> Option<OsString>) -> Option<PathBuf> {
    let user = || path_in(variable, "HOME").or_else(|| path_in(variable, "USERPROFILE"));
    path_in(variable, "HF_HOME")
        .or_else(|| Some(path_in(variable, "XDG_CACHE_HOME")?.join("huggingface")))
        .or_else(|| Some(user()?.join(".cache/huggingface")))
}

/// The path that an environment variable holds.
pub(super) fn path_in(variable: &impl Fn(&str) -> Option<OsString>, name: &str) -> Option<PathBuf> {
    variable(name).filter(|value| !value.is_empty()).map(PathBuf::from)
}

/// The model that a job names: a local folder where there is one, otherwise a hub id that is looked up in `cache`.
///
/// # Errors
/// As [`ModelFolder::open`] and [`HubCache::open`]; a name that is neither.
pub fn open(model: &str, cache: Option<&HubCache>, variant: Variant) -> Result<ModelFolder> {
    let (dir, within) = locate(model, cache)?;
    ModelFolder::open_within(&dir, within.as_deref(), variant)
}

/// The folder that [`open`] opens, and the one that no link in it may lead out of, a path without links.
pub(super) fn locate(model: &str, cache: Option<&HubCache>) -> Result<(PathBuf, Option<PathBuf>)> {
    let path = Path::new(model);
    match (path.exists(), HubId::parse(model), cache) {
        (false, Some(id), Some(cache)) => Ok((cache.find(&id)?, Some(cache.canonical(&id)?))),
        (false, None, _) => Err(unusable(path, "there is no such folder, and it is no hub id (`owner/name`) either")),
        _ => Ok((path.to_owned(), None)),
    }
}

fn is_commit(text: &str) -> bool {
    text.len() == 40 && text.chars().all(|c| c.is_ascii_hexdigit())
}

/// The commit in a file under `refs`.
fn read_ref(path: &Path) -> Result<String> {
    let length = std::fs::metadata(path).map_err(DiffusionError::file(path))?.len();
    let text = match length <= LONGEST_REF {
        true => std::fs::read_to_string(path).map_err(DiffusionError::file(path))?,
        false => String::new(),
    };
    match text.trim() {
        commit if is_commit(commit) => Ok(commit.to_owned()),
        _ => Err(unusable(path, "holds no commit; fetch the model again")),
    }
}
