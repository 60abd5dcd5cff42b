//! WebDataset tar shards: `{split}-{i:05}.tar` with the members `{key}.png|jpg|webp`, `.cls`, `.txt` and `.json`.
//!
//! Every sample of a dataset has members of the same extensions, because loaders take the first samples for the pattern
//! of all: the Hugging Face loader gives no image at all for a `.png` among `.jpg`. So the first image decides the
//! extension of all images; image libraries, which look at the bytes, read a PNG that is called `.jpg`. Keys count the rows of a split. Times, owners and modes are fixed, so equal rows are equal bytes. Beside each
//! tar stand the files that img2dataset writes: `{shard}.parquet` (all columns but the image) and `{shard}_stats.json`.

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow_array::{Array, ArrayRef, RecordBatch, StringArray};
use arrow_schema::{DataType, Field, FieldRef, Schema};
use arrow_select::concat::concat_batches;
use serde_json::{Value, json};

use super::{DatasetWriter, ShardInfo, check_no_files, check_split_name};
use crate::atomic::{AtomicFile, write_file};
use crate::columns::{bytes_at, child, integer_at, text_at};
use crate::error::DataError;
use crate::features::{Feature, Features, METADATA_KEY};
use crate::header::Format;
use crate::json::{cell, row_object};
use crate::rows::write_parquet;
use crate::table::no_such_column;

/// The name that loaders give to the key of a sample.
const KEY: &str = "__key__";
/// Tar pads headers and contents to this.
const BLOCK: u64 = 512;

/// What goes where in a sample.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WebDatasetOptions {
    /// The column of the images. Default: the first that is one in the features.
    pub image: Option<String>,
    /// The column whose class index becomes `.cls` (-1 where it is missing). Its class name is in `.json`. A column of
    /// text has no class index: it stands in `.json` alone.
    pub label: Option<String>,
    /// The column that becomes `.txt`, and is left out of `.json`.
    pub caption: Option<String>,
    /// Samples of a shard at most.
    pub max_shard_samples: u64,
    /// Size of a shard at most, unless one sample has more.
    pub max_shard_bytes: u64,
}

impl Default for WebDatasetOptions {
    fn default() -> Self {
        Self { image: None, label: None, caption: None, max_shard_samples: 10_000, max_shard_bytes: 500_000_000 }
    }
}

/// Writes tar shards; see [`WebDatasetOptions`].
pub struct WebDatasetWriter {
    folder: PathBuf,
    features: Features,
    image: String,
    /// The format of the first image.
    format: Option<Format>,
    options: WebDatasetOptions,
    splits: BTreeMap<String, Split>,
}

#[derive(Default)]
struct Split {
    rows: u64,
    shards: Vec<ShardInfo>,
    open: Option<Shard>,
}

struct Shard {
    name: String,
    tar: tar::Builder<AtomicFile>,
    samples: u64,
    bytes: u64,
    /// What the sidecar holds: all columns but the image.
    rows: Vec<RecordBatch>,
}

/// The members of one sample: extension and content.
type Members<'a> = Vec<(&'static str, std::borrow::Cow<'a, [u8]>)>;

impl WebDatasetWriter {
    /// Begins a dataset in `folder`, which is made if needed. `features` say what the columns hold.
    ///
    /// # Errors
    /// [`DataError::Exists`] where the folder holds tars already; [`DataError::NoImageColumn`]; [`DataError::Io`].
    pub fn create(folder: &Path, features: &Features, options: WebDatasetOptions) -> Result<Self, DataError> {
        fs::create_dir_all(folder).map_err(|error| DataError::io(folder, error))?;
        check_no_files(folder, "tar")?;
        let first =
            || features.iter().find(|(_, feature)| **feature == Feature::Image).map(|(name, _)| name.to_owned());
        let image = options.image.clone().or_else(first);
        let problem = || "none of the features is an image".to_owned();
        let image = image.ok_or_else(|| DataError::NoImageColumn { path: folder.to_path_buf(), problem: problem() })?;
        let (folder, features) = (folder.to_path_buf(), features.clone());
        Ok(Self { folder, features, image, format: None, options, splits: BTreeMap::new() })
    }
}

impl DatasetWriter for WebDatasetWriter {
    fn write(&mut self, split: &str, batch: &RecordBatch) -> Result<(), DataError> {
        check_split_name(&self.folder, split)?;
        let columns = || batch.schema_ref().fields().iter().map(|field| field.name().as_str());
        for column in
            [Some(&self.image), self.options.label.as_ref(), self.options.caption.as_ref()].into_iter().flatten()
        {
            if batch.column_by_name(column).is_none() {
                let names: Vec<&str> = columns().collect();
                return Err(no_such_column(column, names.iter().copied()));
            }
        }
        if self.format.is_none() && batch.num_rows() > 0 {
            self.format = self.image_bytes(batch, 0).and_then(Format::of);
        }
        let mut state = self.splits.remove(split).unwrap_or_default();
        let written = self.add_rows(split, &mut state, batch);
        self.splits.insert(split.to_owned(), state);
        written
    }

    fn finish(mut self: Box<Self>) -> Result<Vec<ShardInfo>, DataError> {
        let mut shards = Vec::new();
        for (name, mut split) in std::mem::take(&mut self.splits) {
            self.close(&name, &mut split)?;
            shards.append(&mut split.shards);
        }
        Ok(shards)
    }
}

impl WebDatasetWriter {
    fn add_rows(&self, split: &str, state: &mut Split, batch: &RecordBatch) -> Result<(), DataError> {
        let mut start = 0;
        let first_key = state.rows;
        for row in 0..batch.num_rows() {
            let members = self.members(batch, row).map_err(|problem| DataError::Unwritable {
                path: self.folder.clone(),
                split: split.to_owned(),
                row: state.rows,
                problem,
            })?;
            let bytes: u64 =
                members.iter().map(|(_, content)| BLOCK + (content.len() as u64).next_multiple_of(BLOCK)).sum();
            let full = state.open.as_ref().is_some_and(|shard| {
                shard.samples >= self.options.max_shard_samples || shard.bytes + bytes > self.options.max_shard_bytes
            });
            if full {
                self.keep_rows(state, batch, first_key, start..row)?;
                start = row;
                self.close(split, state)?;
            }
            let shard = match &mut state.open {
                Some(shard) => shard,
                None => state.open.insert(self.open(split, state.shards.len())?),
            };
            shard.append(&self.folder, state.rows, &members)?;
            shard.samples += 1;
            shard.bytes += bytes;
            state.rows += 1;
        }
        self.keep_rows(state, batch, first_key, start..batch.num_rows())
    }

    /// The members of a row's sample, or the reason why it cannot be one.
    fn members<'a>(&self, batch: &'a RecordBatch, row: usize) -> Result<Members<'a>, String> {
        let bytes = self.image_bytes(batch, row).ok_or("the row has no image bytes; leave it out")?;
        let format = Format::of(bytes).ok_or("the image is neither PNG, JPEG nor WebP; leave the row out")?;
        let format = self.format.unwrap_or(format);
        let mut members: Members<'a> = vec![(format.extension(), bytes.into())];
        if let Some(label) = self.options.label.as_ref().and_then(|label| batch.column_by_name(label))
            && label.data_type().is_integer()
        {
            members.push(("cls", integer_at(label, row).unwrap_or(-1).to_string().into_bytes().into()));
        }
        if let Some(caption) = self.options.caption.as_ref().and_then(|caption| batch.column_by_name(caption)) {
            let text = match cell(caption, row, None) {
                Value::Null => String::new(),
                Value::String(text) => text,
                other => other.to_string(),
            };
            members.push(("txt", text.into_bytes().into()));
        }
        let others = |name: &str| name != self.image && self.options.caption.as_deref() != Some(name);
        let mut object = row_object(batch, row, &self.features, others);
        let path = batch.column_by_name(&self.image).and_then(|image| text_at(child(image, "path")?, row));
        if let Some(path) = path.filter(|_| !object.contains_key("path")) {
            object.insert("path".to_owned(), path.into());
        }
        members.push(("json", Value::Object(object).to_string().into_bytes().into()));
        Ok(members)
    }

    fn image_bytes<'a>(&self, batch: &'a RecordBatch, row: usize) -> Option<&'a [u8]> {
        bytes_at(child(batch.column_by_name(&self.image)?, "bytes")?, row)
    }

    fn open(&self, split: &str, index: usize) -> Result<Shard, DataError> {
        let name = format!("{split}-{index:05}");
        let file = AtomicFile::create(&self.folder.join(format!("{name}.tar")))?;
        Ok(Shard { name, tar: tar::Builder::new(file), samples: 0, bytes: 0, rows: Vec::new() })
    }

    /// Keeps the rows for the sidecar of the open shard, without their images.
    fn keep_rows(
        &self,
        state: &mut Split,
        batch: &RecordBatch,
        first_key: u64,
        rows: std::ops::Range<usize>,
    ) -> Result<(), DataError> {
        let Some(shard) = &mut state.open else { return Ok(()) };
        if rows.is_empty() {
            return Ok(());
        }
        let keys: StringArray = rows.clone().map(|row| Some(key(first_key + row as u64))).collect();
        let mut fields: Vec<FieldRef> = vec![Arc::new(Field::new(KEY, DataType::Utf8, false))];
        let mut columns: Vec<ArrayRef> = vec![Arc::new(keys)];
        let part = batch.slice(rows.start, rows.len());
        for (field, column) in part.schema().fields().iter().zip(part.columns()) {
            if *field.name() != self.image && field.name() != KEY {
                fields.push(Arc::clone(field));
                columns.push(Arc::clone(column));
            }
        }
        let mut features = self.features.clone();
        features.remove(&self.image);
        let metadata = HashMap::from([(METADATA_KEY.to_owned(), features.to_metadata_json())]);
        let schema = Arc::new(Schema::new(fields).with_metadata(metadata));
        shard.rows.push(RecordBatch::try_new(schema, columns).map_err(DataError::arrow("rows of a tar's sidecar"))?);
        Ok(())
    }

    fn close(&self, split: &str, state: &mut Split) -> Result<(), DataError> {
        let Some(shard) = state.open.take() else { return Ok(()) };
        let tar = format!("{}.tar", shard.name);
        let path = self.folder.join(&tar);
        shard.tar.into_inner().map_err(|error| DataError::io(&path, error))?.commit()?;
        let info = ShardInfo::of(&self.folder, tar.into(), split, shard.samples)?;
        if let Some(schema) = shard.rows.first().map(RecordBatch::schema) {
            let rows = concat_batches(&schema, &shard.rows).map_err(DataError::arrow("rows of a tar's sidecar"))?;
            write_parquet(&self.folder.join(format!("{}.parquet", shard.name)), &rows)?;
        }
        let stats = json!({
            "count": info.rows, "successes": info.rows, "failed_to_download": 0, "failed_to_resize": 0,
            "bytes": info.bytes, "sha256": info.sha256,
        });
        write_file(&self.folder.join(format!("{}_stats.json", shard.name)), format!("{stats:#}\n").as_bytes())?;
        state.shards.push(info);
        Ok(())
    }
}

impl Shard {
    fn append(&mut self, folder: &Path, row: u64, members: &Members<'_>) -> Result<(), DataError> {
        for (extension, content) in members {
            let mut header = tar::Header::new_ustar();
            header.set_entry_type(tar::EntryType::Regular);
            header.set_size(content.len() as u64);
            header.set_mode(0o644);
            header.set_mtime(0);
            header.set_uid(0);
            header.set_gid(0);
            let appended = self.tar.append_data(&mut header, format!("{}.{extension}", key(row)), content.as_ref());
            appended.map_err(|error| DataError::io(&folder.join(format!("{}.tar", self.name)), error))?;
        }
        Ok(())
    }
}

/// The key of a row: digits only, since a key ends at the first dot.
fn key(row: u64) -> String {
    format!("{row:09}")
}
