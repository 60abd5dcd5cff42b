//! Weights that lie in safetensors files as other programs write them: one file or several shards, `f32`, `f16` or
//! `bf16`, under diffusers' names or those of the first releases of Stable Diffusion.
//!
//! A tensor is mapped into memory when it is asked for and unmapped once its values have been taken over, so that a
//! network is never in memory twice. What LoRAs add to a weight is added at that moment.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use candle_core::{DType, Device, Tensor};
use memmap2::{Mmap, MmapOptions};
use safetensors::{Dtype, SafeTensors};
use serde::Deserialize;

use crate::error::{Error, Result};
use crate::lora::Merger;
use crate::original::{Original, Place, Take};
use crate::param::Param;
use crate::pickle;

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

impl Entry {
    fn bytes(&self) -> Bytes {
        Bytes { offset: self.offset, length: self.length, transposed: None }
    }
}

/// One file.
#[derive(Debug)]
struct Shard {
    path: PathBuf,
    file: File,
}

/// A tensor that was asked for, or the part of one.
struct Found<'a> {
    shard: &'a Shard,
    stored: DType,
    bytes: Bytes,
}

/// Where the numbers of a tensor lie.
#[derive(Clone, Copy)]
struct Bytes {
    offset: u64,
    length: usize,
    /// The shape in the file where the numbers lie the other way around there.
    transposed: Option<(usize, usize)>,
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
    /// How the file spells the names that are asked for, where not as diffusers does.
    original: Option<Original>,
    /// What is added to the weights.
    merger: Option<Merger>,
    metadata: BTreeMap<String, String>,
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
        let mut files = Self {
            path: path.to_owned(),
            shards: Vec::new(),
            entries: BTreeMap::new(),
            used: Mutex::default(),
            original: None,
            merger: None,
            metadata: BTreeMap::new(),
        };
        for path in paths {
            files.add_shard(path)?;
        }
        Ok(files)
    }

    /// The same files, in which names are found where `original` says.
    pub(crate) fn with_original(mut self, original: Original) -> Self {
        self.original = Some(original);
        self
    }

    /// The same files, to whose weights `merger` adds.
    pub(crate) fn with_merger(mut self, merger: Option<Merger>) -> Self {
        self.merger = merger;
        self
    }

    /// What errors call the files.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// What the first file says of itself.
    pub(crate) fn metadata(&self) -> &BTreeMap<String, String> {
        &self.metadata
    }

    /// Every name as the files spell it.
    pub(crate) fn names(&self) -> impl Iterator<Item = &str> {
        self.entries.keys().map(String::as_str)
    }

    /// The shape of a tensor by its name in the files.
    pub(crate) fn shape(&self, name: &str) -> Option<&[usize]> {
        self.entries.get(name).map(|entry| entry.shape.as_slice())
    }

    /// A tensor by its name in the files, whole and in `f32` on the host.
    pub(crate) fn read_whole(&self, name: &str) -> Result<Tensor> {
        let shape = self.shape(name).unwrap_or_default().to_vec();
        self.read(name, &shape, DType::F32, &Device::Cpu)
    }

    /// A single number of any number type.
    pub(crate) fn read_number(&self, name: &str) -> Result<f64> {
        let missing = || Error::Missing { path: self.path.clone(), name: name.to_owned() };
        let entry = self.entries.get(name).ok_or_else(missing)?;
        let shard = self.shards.get(entry.shard).ok_or_else(missing)?;
        let wrong = || Error::Mismatch {
            path: shard.path.clone(),
            name: name.to_owned(),
            expected: "a single number".into(),
            found: format!("{:?} {:?}", entry.dtype, entry.shape),
        };
        if entry.shape.iter().any(|size| *size != 1) || entry.length == 0 {
            return Err(wrong());
        }
        let bytes = self.map(shard, entry.bytes())?;
        number(entry.dtype, &bytes).ok_or_else(wrong)
    }

    /// How many residual blocks each level of a UNet has.
    pub(crate) fn unet_layers(&self) -> usize {
        match &self.original {
            Some(original) => original.unet_layers(),
            None => {
                let block =
                    |name: &str| Some(name.strip_prefix("down_blocks.0.resnets.")?.split('.').next()?.to_owned());
                self.names().filter_map(block).collect::<BTreeSet<_>>().len()
            }
        }
    }

    fn add_shard(&mut self, path: PathBuf) -> Result<()> {
        let failed = |source| Error::File { path: path.clone(), source };
        let malformed = |reason: String| Error::Malformed { path: path.clone(), reason };
        let file = File::open(&path).map_err(failed)?;
        // SAFETY: see `map`; only the header's pages are touched, and the map ends with this function.
        let bytes = unsafe { Mmap::map(&file) }.map_err(failed)?;
        pickle::refuse(&path, &bytes)?;
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
        if self.shards.is_empty() {
            let pairs = metadata.metadata().iter().flatten();
            self.metadata = pairs.map(|(key, value)| (key.clone(), value.clone())).collect();
        }
        self.shards.push(Shard { path, file });
        Ok(())
    }

    /// The tensor `name` of the given shape in `dtype` on `device`.
    ///
    /// The weight of a 1x1 convolution and that of a linear map are the same numbers and stand in for one another.
    /// Attention in autoencoders of an early layout is found under the names that it had then. What LoRAs add is added
    /// in `f32` on the host.
    pub(crate) fn read(&self, name: &str, shape: &[usize], dtype: DType, device: &Device) -> Result<Tensor> {
        match &self.merger {
            Some(merger) if merger.changes(name) => {
                let base = self.read_as_stored(name, shape, DType::F32, &Device::Cpu)?;
                Ok(merger.merge(name, base)?.to_dtype(dtype)?.to_device(device)?)
            }
            _ => self.read_as_stored(name, shape, dtype, device),
        }
    }

    fn read_as_stored(&self, name: &str, shape: &[usize], dtype: DType, device: &Device) -> Result<Tensor> {
        let found = self.find(name, shape)?;
        let tensor = match (found.bytes.length, found.bytes.transposed) {
            (0, _) => Tensor::zeros(shape, found.stored, device)?,
            (_, None) => Tensor::from_raw_buffer(&self.map(found.shard, found.bytes)?, found.stored, shape, device)?,
            (_, Some(stored)) => {
                let rows = [stored.0, stored.1];
                let tensor =
                    Tensor::from_raw_buffer(&self.map(found.shard, found.bytes)?, found.stored, &rows, &Device::Cpu)?;
                tensor.t()?.contiguous()?.to_device(device)?
            }
        };
        Ok(tensor.to_dtype(dtype)?)
    }

    /// [`read`](Self::read) for a constant weight: packed straight from the file where that is possible.
    pub(crate) fn read_param(&self, name: &str, shape: &[usize], dtype: DType, device: &Device) -> Result<Param> {
        let found = self.find(name, shape)?;
        let as_stored =
            found.bytes.transposed.is_none() && !self.merger.as_ref().is_some_and(|merger| merger.changes(name));
        if as_stored && device.is_cpu() && found.stored == dtype && found.bytes.length > 0 {
            let bytes = self.map(found.shard, found.bytes)?;
            if let Some(param) = Param::from_bytes(&bytes, found.stored, shape) {
                return Ok(param);
            }
        }
        Ok(Param::constant(&self.read(name, shape, dtype, device)?)?)
    }

    /// Where a tensor lies, once it is known to be what is asked for.
    fn find(&self, asked: &str, shape: &[usize]) -> Result<Found<'_>> {
        let missing = || Error::Missing { path: self.path.clone(), name: asked.to_owned() };
        let (Place { key: name, take }, entry) = self.locate(asked).ok_or_else(missing)?;
        let shard = self.shards.get(entry.shard).ok_or_else(missing)?;
        let stored = match entry.dtype {
            Dtype::F32 => Some(DType::F32),
            Dtype::F16 => Some(DType::F16),
            Dtype::BF16 => Some(DType::BF16),
            _ => None,
        };
        let Some((stored, bytes)) = stored.zip(taken(entry, take, shape)) else {
            return Err(Error::Mismatch {
                path: shard.path.clone(),
                name,
                expected: format!("F32, F16 or BF16 {}", in_file(take, shape)),
                found: format!("{:?} {:?}", entry.dtype, entry.shape),
            });
        };
        self.used.lock().unwrap_or_else(PoisonError::into_inner).insert(name);
        Ok(Found { shard, stored, bytes })
    }

    /// The place of a name that is asked for.
    fn locate(&self, asked: &str) -> Option<(Place, &Entry)> {
        let places = match &self.original {
            Some(original) => original.places(asked),
            None => {
                let names = std::iter::once(asked.to_owned()).chain(early_name(asked));
                names.map(Place::whole).collect()
            }
        };
        places.into_iter().find_map(|place| {
            let entry = self.entries.get(&place.key)?;
            Some((place, entry))
        })
    }

    fn map(&self, shard: &Shard, bytes: Bytes) -> Result<Mmap> {
        let mut options = MmapOptions::new();
        // SAFETY: the bytes are only read, and only while the map lives, which is until the tensor's own memory holds
        // them. As with every memory map, another program must not cut the file short in that moment.
        unsafe { options.offset(bytes.offset).len(bytes.length).map(&shard.file) }
            .map_err(|source| Error::File { path: shard.path.clone(), source })
    }

    /// The files that hold tensors.
    pub(crate) fn paths(&self) -> Vec<PathBuf> {
        self.shards.iter().map(|shard| shard.path.clone()).collect()
    }

    /// Whether there is a tensor `name`.
    pub(crate) fn has(&self, name: &str) -> bool {
        match &self.original {
            Some(_) => self.locate(name).is_some(),
            None => self.entries.contains_key(name),
        }
    }

    /// An error where the files hold a tensor that nobody has read, or a LoRA one that changed nothing. Counted positions,
    /// which early versions of transformers stored beside the weights, are none.
    pub(crate) fn finish(&self) -> Result<()> {
        let used = self.used.lock().unwrap_or_else(PoisonError::into_inner);
        let of_network = |name: &str| self.original.as_ref().is_none_or(|original| original.holds(name));
        let left = |name: &str| !used.contains(name) && !name.ends_with("embeddings.position_ids") && of_network(name);
        match self.entries.iter().find(|(name, _)| left(name)) {
            Some((name, entry)) => {
                let path = self.shards.get(entry.shard).map_or(&self.path, |shard| &shard.path);
                Err(Error::Unexpected { path: path.clone(), name: name.clone() })
            }
            None => self.merger.as_ref().map_or(Ok(()), Merger::finish),
        }
    }
}

/// What is taken of an entry; `None` where that is not of the shape that is asked for.
fn taken(entry: &Entry, take: Take, shape: &[usize]) -> Option<Bytes> {
    match take {
        Take::Whole => same_weight(&entry.shape, shape).then(|| entry.bytes()),
        Take::Third(i) => {
            let (rows, rest) = entry.shape.split_first()?;
            let part: Vec<usize> = std::iter::once(rows / 3).chain(rest.iter().copied()).collect();
            let length = entry.length / 3;
            let offset = entry.offset + (i * length) as u64;
            (rows % 3 == 0 && part == shape).then_some(Bytes { offset, length, transposed: None })
        }
        Take::Transposed => match (entry.shape.as_slice(), shape) {
            (&[rows, columns], &[a, b]) if (rows, columns) == (b, a) => {
                Some(Bytes { transposed: Some((rows, columns)), ..entry.bytes() })
            }
            _ => None,
        },
    }
}

/// The shape that a file must have where `shape` is asked for.
fn in_file(take: Take, shape: &[usize]) -> String {
    let mut shape = shape.to_vec();
    match (take, shape.as_mut_slice()) {
        (Take::Third(_), [rows, ..]) => *rows = rows.saturating_mul(3),
        (Take::Transposed, [rows, columns]) => std::mem::swap(rows, columns),
        _ => {}
    }
    format!("{shape:?}")
}

/// The number in `bytes`.
fn number(dtype: Dtype, bytes: &[u8]) -> Option<f64> {
    Some(match dtype {
        Dtype::F64 => f64::from_le_bytes(bytes.try_into().ok()?),
        Dtype::F32 => f32::from_le_bytes(bytes.try_into().ok()?).into(),
        Dtype::F16 => half::f16::from_le_bytes(bytes.try_into().ok()?).into(),
        Dtype::BF16 => half::bf16::from_le_bytes(bytes.try_into().ok()?).into(),
        Dtype::I64 => i64::from_le_bytes(bytes.try_into().ok()?) as f64,
        Dtype::I32 => i32::from_le_bytes(bytes.try_into().ok()?).into(),
        _ => return None,
    })
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
pub(crate) fn same_weight(stored: &[usize], asked: &[usize]) -> bool {
    fn matrix(shape: &[usize]) -> &[usize] {
        match shape {
            [_, _, 1] | [_, _, 1, 1] => &shape[..2],
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
