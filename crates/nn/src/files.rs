//! Weights that lie in safetensors files as other programs write them: one file or several shards, `f32`, `f16` or
//! `bf16`.
//!
//! A tensor is mapped into memory when it is asked for and unmapped once its values have been taken over, so that a
//! network is never in memory twice.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use candle_core::{DType, Device, Tensor};
use memmap2::{Mmap, MmapOptions};
use safetensors::{Dtype, SafeTensors};
use serde::Deserialize;

use crate::error::{Error, Result};
use crate::param::Param;

/// Where one tensor lies.
#[derive(Debug)]
struct Entry {
    shard: usize,
    dtype: Dtype,
    shape: Vec<usize>,
    /// The first byte in the file and the length in bytes.
    offset: u64,
    length: usize,
}

/// One file.
#[derive(Debug)]
struct Shard {
    path: PathBuf,
    file: File,
}

/// A tensor that was asked for.
struct Found<'a> {
    shard: &'a Shard,
    entry: &'a Entry,
    stored: DType,
}

/// The tensors of one network in one or more safetensors files.
#[derive(Debug)]
pub(crate) struct WeightFiles {
    /// What errors call the whole: the file, or the index of the shards.
    path: PathBuf,
    shards: Vec<Shard>,
    entries: BTreeMap<String, Entry>,
    /// Names that were read, as the file spells them.
    used: Mutex<BTreeSet<String>>,
}

/// The list of shards that `save_pretrained` writes beside them.
#[derive(Deserialize)]
struct Index {
    weight_map: BTreeMap<String, String>,
}

impl WeightFiles {
    /// Reads the header of a file, or of every shard of an index (a name that ends in `.json`).
    pub(crate) fn open(path: &Path) -> Result<Self> {
        let paths = match path.extension().is_some_and(|extension| extension == "json") {
            true => shard_paths(path)?,
            false => vec![path.to_owned()],
        };
        let mut files =
            Self { path: path.to_owned(), shards: Vec::new(), entries: BTreeMap::new(), used: Mutex::default() };
        for path in paths {
            files.add_shard(path)?;
        }
        Ok(files)
    }

    fn add_shard(&mut self, path: PathBuf) -> Result<()> {
        let failed = |source| Error::File { path: path.clone(), source };
        let malformed = |reason: String| Error::Malformed { path: path.clone(), reason };
        let file = File::open(&path).map_err(failed)?;
        // SAFETY: see `map`; only the header's pages are touched, and the map ends with this function.
        let bytes = unsafe { Mmap::map(&file) }.map_err(failed)?;
        // Checks that the header is short, that the tensors lie one behind another and that they fill the file.
        let (header, metadata) = SafeTensors::read_metadata(&bytes).map_err(|error| malformed(error.to_string()))?;
        for name in metadata.offset_keys() {
            let Some(info) = metadata.info(&name) else { continue };
            let (start, end) = info.data_offsets;
            let entry = Entry {
                shard: self.shards.len(),
                dtype: info.dtype,
                shape: info.shape.clone(),
                offset: (8 + header + start) as u64,
                length: end - start,
            };
            if self.entries.insert(name.clone(), entry).is_some() {
                return Err(malformed(format!("tensor `{name}` is in another shard too")));
            }
        }
        self.shards.push(Shard { path, file });
        Ok(())
    }

    /// The tensor `name` of the given shape in `dtype` on `device`.
    ///
    /// The weight of a 1x1 convolution and that of a linear map are the same numbers and stand in for one another.
    /// Attention in autoencoders of an early layout is found under the names that it had then.
    pub(crate) fn read(&self, name: &str, shape: &[usize], dtype: DType, device: &Device) -> Result<Tensor> {
        let Found { shard, entry, stored } = self.find(name, shape)?;
        let tensor = match entry.length {
            0 => Tensor::zeros(shape, stored, device)?,
            _ => Tensor::from_raw_buffer(&self.map(shard, entry)?, stored, shape, device)?,
        };
        Ok(tensor.to_dtype(dtype)?)
    }

    /// [`read`](Self::read) for a constant weight: packed straight from the file where that is possible.
    pub(crate) fn read_param(&self, name: &str, shape: &[usize], dtype: DType, device: &Device) -> Result<Param> {
        let Found { shard, entry, stored } = self.find(name, shape)?;
        if device.is_cpu() && stored == dtype && entry.length > 0 {
            let bytes = self.map(shard, entry)?;
            if let Some(param) = Param::from_bytes(&bytes, stored, shape) {
                return Ok(param);
            }
        }
        Ok(Param::constant(&self.read(name, shape, dtype, device)?)?)
    }

    /// Where a tensor lies, once it is known to be what is asked for.
    fn find(&self, name: &str, shape: &[usize]) -> Result<Found<'_>> {
        let missing = || Error::Missing { path: self.path.clone(), name: name.to_owned() };
        let (name, entry) = match self.entries.get_key_value(name) {
            Some(found) => found,
            None => early_name(name).and_then(|name| self.entries.get_key_value(&name)).ok_or_else(missing)?,
        };
        let shard = self.shards.get(entry.shard).ok_or_else(missing)?;
        let stored = match entry.dtype {
            Dtype::F32 => Some(DType::F32),
            Dtype::F16 => Some(DType::F16),
            Dtype::BF16 => Some(DType::BF16),
            _ => None,
        };
        let (Some(stored), true) = (stored, same_weight(&entry.shape, shape)) else {
            return Err(Error::Mismatch {
                path: shard.path.clone(),
                name: name.clone(),
                expected: format!("F32, F16 or BF16 {shape:?}"),
                found: format!("{:?} {:?}", entry.dtype, entry.shape),
            });
        };
        self.used.lock().unwrap_or_else(PoisonError::into_inner).insert(name.clone());
        Ok(Found { shard, entry, stored })
    }

    fn map(&self, shard: &Shard, entry: &Entry) -> Result<Mmap> {
        let mut options = MmapOptions::new();
        // SAFETY: the bytes are only read, and only while the map lives, which is until the tensor's own memory holds
        // them. As with every memory map, another program must not cut the file short in that moment.
        unsafe { options.offset(entry.offset).len(entry.length).map(&shard.file) }
            .map_err(|source| Error::File { path: shard.path.clone(), source })
    }

    /// The files that hold tensors.
    pub(crate) fn paths(&self) -> Vec<PathBuf> {
        self.shards.iter().map(|shard| shard.path.clone()).collect()
    }

    /// Whether there is a tensor `name`.
    pub(crate) fn has(&self, name: &str) -> bool {
        self.entries.contains_key(name)
    }

    /// An error where the files hold a tensor that nobody has read. Counted positions, which early versions of
    /// transformers stored beside the weights, are none.
    pub(crate) fn finish(&self) -> Result<()> {
        let used = self.used.lock().unwrap_or_else(PoisonError::into_inner);
        let left = |name: &str| !used.contains(name) && !name.ends_with("embeddings.position_ids");
        match self.entries.iter().find(|(name, _)| left(name)) {
            Some((name, entry)) => {
                let path = self.shards.get(entry.shard).map_or(&self.path, |shard| &shard.path);
                Err(Error::Unexpected { path: path.clone(), name: name.clone() })
            }
            None => Ok(()),
        }
    }
}

/// The longest index that is read; a thousand tensors take a hundred kilobytes.
const INDEX_CAP: u64 = 64 << 20;

/// The files that an index names, each once; they lie beside it.
fn shard_paths(index: &Path) -> Result<Vec<PathBuf>> {
    let failed = |source| Error::File { path: index.to_owned(), source };
    let malformed = |reason: String| Error::Malformed { path: index.to_owned(), reason };
    let length = std::fs::metadata(index).map_err(failed)?.len();
    if length > INDEX_CAP {
        return Err(malformed(format!("{length} bytes are too many for an index")));
    }
    let text = std::fs::read_to_string(index).map_err(failed)?;
    let parsed: Index = serde_json::from_str(&text).map_err(|error| malformed(error.to_string()))?;
    let names: BTreeSet<String> = parsed.weight_map.into_values().collect();
    let path = |name: String| match Path::new(&name).file_name() {
        Some(file) if file == name.as_str() => Ok(index.with_file_name(name)),
        _ => Err(malformed(format!("shard `{name}` is not a file name"))),
    };
    names.into_iter().map(path).collect()
}

/// Whether a stored shape is the one asked for, apart from the ones at its end.
fn same_weight(stored: &[usize], asked: &[usize]) -> bool {
    fn matrix(shape: &[usize]) -> &[usize] {
        match shape {
            [outputs @ .., 1, 1] if outputs.len() == 2 => outputs,
            other => other,
        }
    }
    stored == asked || matrix(stored) == matrix(asked)
}

/// `to_q`, `to_k`, `to_v` and `to_out.0` were `query`, `key`, `value` and `proj_attn` in diffusers before 0.15.
fn early_name(name: &str) -> Option<String> {
    const NAMES: [(&str, &str); 4] =
        [(".to_q.", ".query."), (".to_k.", ".key."), (".to_v.", ".value."), (".to_out.0.", ".proj_attn.")];
    NAMES.iter().find(|(today, _)| name.contains(today)).map(|(today, early)| name.replace(today, early))
}
