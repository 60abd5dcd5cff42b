//! Parquet in the layout of the Hugging Face hub: `data/{split}-{i:05}-of-{n:05}.parquet`.
//!
//! Image bytes are stored uncompressed and PLAIN (they are compressed already, and a reader can map them), the other
//! columns with Snappy; a page index and small row groups let the dataset viewer show any row without reading a shard.
//! Pages, row groups and shards end where the sizes of the rows say, whatever batches the rows came in.

use std::collections::{BTreeMap, HashMap};
use std::fs::{self, File};
use std::io::{self, BufWriter};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow_array::cast::AsArray;
use arrow_array::{Array, ArrayRef, RecordBatch, StringArray};
use arrow_schema::{ArrowError, DataType, Schema, SchemaRef};
use arrow_select::concat::concat_batches;
use parquet::arrow::ArrowWriter;
use parquet::basic::{Compression, Encoding};
use parquet::file::metadata::KeyValue;
use parquet::file::properties::WriterProperties;
use parquet::schema::types::ColumnPath;

use super::sizes::row_bytes;
use super::{DatasetWriter, ShardInfo, check_no_files, check_split_name};
use crate::columns::{image_array, image_fields, text_at};
use crate::error::DataError;
use crate::features::{Feature, Features, METADATA_KEY};
use crate::files::base_name;
use crate::rows::base_properties;

const FOLDER: &str = "data";
const TEMPORARY: &str = "tmp";
/// Rows handed to the Parquet library at once: pages end only between chunks.
const CHUNK_ROWS: usize = 512;
/// Bytes of a chunk at most, unless one row has more.
const CHUNK_BYTES: u64 = 4 << 20;

/// Where files and row groups end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ParquetOptions {
    /// Size of a file at most, unless one row has more. The hub recommends 500 MB.
    pub max_shard_bytes: u64,
    /// Uncompressed size of a row group at most, unless one row has more. The dataset viewer fails above 286 MiB.
    pub row_group_bytes: u64,
    /// Rows of a row group at most.
    pub row_group_rows: usize,
}

impl Default for ParquetOptions {
    fn default() -> Self {
        Self { max_shard_bytes: 500_000_000, row_group_bytes: 100_000_000, row_group_rows: 10_000 }
    }
}

/// Writes Parquet shards; see the layout in [`DatasetWriter`] and [`ParquetOptions`].
pub struct ParquetWriter {
    folder: PathBuf,
    format: Format,
    splits: BTreeMap<String, Split>,
}

/// What all files have in common.
struct Format {
    schema: SchemaRef,
    images: Vec<String>,
    properties: WriterProperties,
    options: ParquetOptions,
}

/// The rows of one split on their way to the disk.
#[derive(Default)]
struct Split {
    /// Slices that make up the current chunk.
    pending: Vec<RecordBatch>,
    open: Option<Shard>,
    closed: Vec<(PathBuf, u64)>,
    chunk: Fill,
    group: Fill,
    shard: Fill,
}

struct Shard {
    path: PathBuf,
    writer: ArrowWriter<BufWriter<File>>,
}

/// How full a chunk, a row group or a shard is.
#[derive(Clone, Copy, Default)]
struct Fill {
    rows: usize,
    bytes: u64,
}

impl Fill {
    fn is_full_for(&self, bytes: u64, max_rows: usize, max_bytes: u64) -> bool {
        self.rows > 0 && (self.rows >= max_rows || self.bytes.saturating_add(bytes) > max_bytes)
    }

    fn add(&mut self, bytes: u64) {
        self.rows += 1;
        self.bytes = self.bytes.saturating_add(bytes);
    }
}

impl ParquetWriter {
    /// Begins a dataset in `folder`, which is made if needed. `features` become the `huggingface` metadata; a column
    /// without a feature is left for the reader to infer.
    ///
    /// # Errors
    /// [`DataError::Exists`] where `data/` holds Parquet files already; [`DataError::SchemaMismatch`] where an image
    /// column is not struct<bytes: binary, path: utf8>; [`DataError::Io`].
    pub fn create(
        folder: &Path,
        schema: SchemaRef,
        features: &Features,
        options: ParquetOptions,
    ) -> Result<Self, DataError> {
        let data = folder.join(FOLDER);
        fs::create_dir_all(&data).map_err(|error| DataError::io(&data, error))?;
        check_no_files(&data, "parquet")?;
        let images: Vec<String> = features
            .iter()
            .filter(|(_, feature)| **feature == Feature::Image)
            .map(|(name, _)| name.to_owned())
            .collect();
        for name in &images {
            let expected = DataType::Struct(image_fields());
            if schema.field_with_name(name).map(|field| field.data_type()).ok() != Some(&expected) {
                let problem = format!("the image column `{name}` must be {expected}");
                return Err(DataError::SchemaMismatch { path: folder.to_path_buf(), problem });
            }
        }
        let properties = properties(&images, features);
        // pyarrow looks for the features in the Arrow schema, other readers in the footer: they stand in both.
        let metadata = HashMap::from([(METADATA_KEY.to_owned(), features.to_metadata_json())]);
        let schema = Arc::new(Schema::new(schema.fields().clone()).with_metadata(metadata));
        let format = Format { schema, images, properties, options };
        Ok(Self { folder: folder.to_path_buf(), format, splits: BTreeMap::new() })
    }
}

impl DatasetWriter for ParquetWriter {
    fn write(&mut self, split: &str, batch: &RecordBatch) -> Result<(), DataError> {
        check_split_name(&self.folder, split)?;
        let batch = self.format.conform(&self.folder, batch)?;
        let data = self.folder.join(FOLDER);
        self.splits.entry(split.to_owned()).or_default().write(&self.format, &data, split, &batch)
    }

    fn finish(mut self: Box<Self>) -> Result<Vec<ShardInfo>, DataError> {
        for (name, split) in &mut self.splits {
            split.end_shard(&self.format, &self.folder.join(FOLDER), name)?;
        }
        let mut shards = Vec::new();
        for (name, split) in &self.splits {
            for (index, (temporary, rows)) in split.closed.iter().enumerate() {
                let file = format!("{name}-{index:05}-of-{:05}.parquet", split.closed.len());
                let path = Path::new(FOLDER).join(file);
                let target = self.folder.join(&path);
                fs::rename(temporary, &target).map_err(|error| DataError::io(&target, error))?;
                shards.push(ShardInfo::of(&self.folder, path, name, *rows)?);
            }
        }
        Ok(shards)
    }
}

impl Drop for ParquetWriter {
    /// Removes what was not finished.
    fn drop(&mut self) {
        for split in self.splits.values_mut() {
            let open = split.open.take().map(|shard| shard.path);
            for path in split.closed.iter().map(|(path, _)| path).chain(open.as_ref()) {
                let _ = fs::remove_file(path);
            }
        }
    }
}

impl Split {
    fn write(&mut self, format: &Format, data: &Path, name: &str, batch: &RecordBatch) -> Result<(), DataError> {
        let ParquetOptions { max_shard_bytes, row_group_bytes, row_group_rows } = format.options;
        let mut start = 0;
        for (row, bytes) in row_bytes(batch).into_iter().enumerate() {
            let shard_full = self.shard.is_full_for(bytes, usize::MAX, max_shard_bytes);
            let group_full = shard_full || self.group.is_full_for(bytes, row_group_rows, row_group_bytes);
            if group_full || self.chunk.is_full_for(bytes, CHUNK_ROWS, CHUNK_BYTES) {
                self.pending.push(batch.slice(start, row - start));
                start = row;
                match (shard_full, group_full) {
                    (true, _) => self.end_shard(format, data, name)?,
                    (_, true) => self.end_group(format, data, name)?,
                    _ => self.end_chunk(format, data, name)?,
                }
            }
            self.chunk.add(bytes);
            self.group.add(bytes);
            self.shard.add(bytes);
        }
        self.pending.push(batch.slice(start, batch.num_rows() - start));
        Ok(())
    }

    fn end_chunk(&mut self, format: &Format, data: &Path, name: &str) -> Result<(), DataError> {
        if self.chunk.rows == 0 {
            return Ok(());
        }
        let chunk = concat_batches(&format.schema, &self.pending).map_err(DataError::arrow("rows for Parquet"))?;
        let shard = match &mut self.open {
            Some(shard) => shard,
            None => self.open.insert(Shard::create(format, data, name, self.closed.len())?),
        };
        shard.writer.write(&chunk).map_err(|error| DataError::parquet(&shard.path, error))?;
        self.pending.clear();
        self.chunk = Fill::default();
        Ok(())
    }

    fn end_group(&mut self, format: &Format, data: &Path, name: &str) -> Result<(), DataError> {
        self.end_chunk(format, data, name)?;
        self.group = Fill::default();
        match &mut self.open {
            Some(shard) => shard.writer.flush().map_err(|error| DataError::parquet(&shard.path, error)),
            None => Ok(()),
        }
    }

    fn end_shard(&mut self, format: &Format, data: &Path, name: &str) -> Result<(), DataError> {
        self.end_group(format, data, name)?;
        let rows = self.shard.rows as u64;
        self.shard = Fill::default();
        match self.open.take() {
            Some(shard) => {
                self.closed.push((shard.path.clone(), rows));
                shard.close()
            }
            None => Ok(()),
        }
    }
}

impl Shard {
    fn create(format: &Format, data: &Path, name: &str, index: usize) -> Result<Self, DataError> {
        let path = data.join(format!(".{name}-{index:05}.parquet.{TEMPORARY}"));
        let file = File::create(&path).map_err(|error| DataError::io(&path, error))?;
        let (schema, properties) = (Arc::clone(&format.schema), format.properties.clone());
        let writer = ArrowWriter::try_new(BufWriter::new(file), schema, Some(properties));
        let writer = writer.map_err(|error| DataError::parquet(&path, error))?;
        Ok(Self { path, writer })
    }

    fn close(self) -> Result<(), DataError> {
        let buffered = self.writer.into_inner().map_err(|error| DataError::parquet(&self.path, error))?;
        let file = buffered.into_inner().map_err(io::IntoInnerError::into_error);
        file.and_then(|file| file.sync_all()).map_err(|error| DataError::io(&self.path, error))
    }
}

impl Format {
    /// The columns of the schema in its order, image paths cut down to base names.
    fn conform(&self, folder: &Path, batch: &RecordBatch) -> Result<RecordBatch, DataError> {
        let column = |name: &String| -> Result<ArrayRef, ArrowError> {
            let column = batch.column_by_name(name);
            let column = column.ok_or_else(|| ArrowError::SchemaError(format!("column `{name}` is missing")))?;
            if self.images.contains(name) { with_base_names(column) } else { Ok(Arc::clone(column)) }
        };
        let columns = self.schema.fields().iter().map(|field| column(field.name())).collect::<Result<_, _>>();
        columns
            .and_then(|columns| RecordBatch::try_new(Arc::clone(&self.schema), columns))
            .map_err(DataError::arrow(format!("rows for {}", folder.display())))
    }
}

fn with_base_names(column: &ArrayRef) -> Result<ArrayRef, ArrowError> {
    let wrong = || ArrowError::SchemaError("the image column is not struct<bytes: binary, path: utf8>".into());
    let image = column.as_struct_opt().ok_or_else(wrong)?;
    let bytes = image.column_by_name("bytes").and_then(|bytes| bytes.as_binary_opt()).ok_or_else(wrong)?;
    let path = image.column_by_name("path").ok_or_else(wrong)?;
    let names: StringArray = (0..path.len()).map(|row| text_at(path, row).map(base_name)).collect();
    Ok(Arc::new(image_array(bytes.clone(), names)?))
}

fn properties(images: &[String], features: &Features) -> WriterProperties {
    let metadata = KeyValue::new(METADATA_KEY.to_owned(), features.to_metadata_json());
    let mut properties = base_properties()
        .set_key_value_metadata(Some(vec![metadata]))
        .set_write_batch_size(CHUNK_ROWS)
        .set_max_row_group_row_count(None);
    for leaf in images.iter().flat_map(|name| [[name.as_str(), "bytes"], [name.as_str(), "path"]]) {
        let leaf = ColumnPath::new(leaf.iter().map(|&part| part.to_owned()).collect());
        properties = properties
            .set_column_compression(leaf.clone(), Compression::UNCOMPRESSED)
            .set_column_encoding(leaf.clone(), Encoding::PLAIN)
            .set_column_dictionary_enabled(leaf, false);
    }
    properties.build()
}
