//! Parquet files with an image column, as the Hugging Face library `datasets` writes them.

use std::borrow::Cow;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow_array::{Array, ArrayRef, RecordBatch};
use arrow_schema::{DataType, Field, FieldRef, Schema};
use arrow_select::concat::concat;
use evenset_core::Fingerprint;
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::{ArrowReaderMetadata, ArrowReaderOptions, ParquetRecordBatchReaderBuilder};
use parquet::file::metadata::{PageIndexPolicy, RowGroupMetaData};
use rayon::prelude::*;

use crate::columns::{as_images, image_fields};
use crate::dataset::{DatasetSpec, Opened};
use crate::decode::Limits;
use crate::error::DataError;
use crate::features::{Feature, Features, is_binary};
use crate::files::hash;
use crate::guard::guarded;
use crate::images::ImageColumn;
use crate::layout::Split;
use crate::parquet_footer::{check_columns, check_row_counts, rows_of};
use crate::parquet_layout::split_files;
use crate::pictures::{self, Place, Storage, file_at, no_image, path_at};
use crate::table::no_such_column;
use crate::unit::{Source, Unit, cut};

/// Rows decoded at a time.
const BATCH_ROWS: usize = 1024;

/// Opened Parquet files.
#[derive(Debug)]
pub(crate) struct ParquetSource {
    /// The folder that paths in the image column are relative to.
    folder: PathBuf,
    files: Vec<ParquetFile>,
}

#[derive(Debug)]
struct ParquetFile {
    /// Relative to the dataset.
    name: String,
    path: PathBuf,
    footer: ArrowReaderMetadata,
    bytes: u64,
    hash: blake3::Hash,
}

impl ParquetSource {
    /// Reads the footers, hashes the files, and cuts the rows of the splits into units. `names` are relative to `root`.
    pub fn open(root: &Path, names: Vec<String>, spec: &DatasetSpec) -> Result<Opened<Self>, DataError> {
        let folder = if root.is_dir() { root } else { root.parent().unwrap_or(root) };
        let (splits, warnings) = split_files(root, &names, &spec.splits, !root.is_dir())?;
        let chosen: Vec<&String> = splits.iter().flat_map(|(_, names)| names).collect();
        let files = chosen.par_iter().map(|name| ParquetFile::open(folder, name)).collect::<Result<Vec<_>, _>>()?;
        let Some(first) = files.first() else {
            return Err(DataError::NoData { path: root.to_path_buf(), found: "no Parquet file is in a split".into() });
        };
        let schema = Arc::clone(first.footer.schema());
        let mut features = Features::of_schema(&schema);
        for file in &files {
            check_columns(&file.path, file.footer.schema(), &schema, &features)?;
        }
        let image = image_column(root, &schema, &features, spec.image.as_deref())?;
        pictures::check(
            &spec.pictures,
            schema.fields().iter().map(|field| (field.name().as_str(), field.data_type())),
        )?;
        features.insert(image.clone(), Feature::Image);
        // Masks and the like leave in the images' own type too, so that they can be written again.
        let is_picture = |field: &FieldRef| {
            features.get(field.name()) == Some(&Feature::Image)
                && Storage::of(field.data_type()) == Some(Storage::Struct)
        };
        let field = |field: &FieldRef| match *field.name() == image || is_picture(field) {
            true => ImageColumn::field(field.name()),
            false => Arc::clone(field),
        };
        let fields = schema.fields().iter().map(field).collect();
        let source = Self { folder: folder.to_path_buf(), files };
        let units = source.units(&splits, &image, &spec.pictures, &features)?;
        Ok(Opened { source, image, features, fields, units, warnings })
    }

    /// Where paths in columns lead.
    pub fn place(&self) -> Place<'_> {
        Place { root: &self.folder, under: "" }
    }

    fn units(
        &self,
        splits: &[(Split, Vec<String>)],
        image: &str,
        pictures: &[String],
        features: &Features,
    ) -> Result<Vec<Unit>, DataError> {
        let described = features.to_metadata_json();
        let mut units = Vec::new();
        for (split, names) in splits {
            for file in self.files.iter().filter(|file| names.contains(&file.name)) {
                let referenced = self.referenced(file, image)?;
                let beside = pictures.iter().filter(|column| *column != image);
                let beside: Vec<_> = beside.map(|column| self.referenced(file, column)).collect::<Result<_, _>>()?;
                let sizes: Box<dyn Iterator<Item = u64>> = match &referenced {
                    Some(files) => Box::new(files.iter().map(|(size, _)| *size)),
                    None => Box::new(file.row_groups().iter().flat_map(row_sizes)),
                };
                for run in cut(sizes) {
                    let rows = format!("{}..{}", run.start, run.end);
                    let contents = referenced.as_ref().map_or(&[][..], |files| &files[run.clone()]);
                    let parts = [
                        ("split", split.role.as_bytes()),
                        ("image", image.as_bytes()),
                        ("features", described.as_bytes()),
                        ("file", file.hash.as_bytes()),
                        ("rows", rows.as_bytes()),
                    ];
                    let beside = beside.iter().flatten().flat_map(|files| &files[run.clone()]);
                    let parts = parts.into_iter().chain(contents.iter().map(|(_, hash)| ("content", hash.as_bytes())));
                    let parts = parts.chain(beside.map(|(_, hash)| ("picture", hash.as_bytes())));
                    units.push(Unit {
                        index: units.len(),
                        split: split.role.clone(),
                        source: Source::Parquet { file: file.name.clone(), first_row: run.start },
                        rows: run.len(),
                        fingerprint: Fingerprint::of(parts),
                    });
                }
            }
        }
        Ok(units)
    }

    /// Size and content of the files that an image column of paths names, one a row; none for other storage.
    fn referenced(&self, file: &ParquetFile, image: &str) -> Result<Option<Vec<(u64, String)>>, DataError> {
        let field = file.footer.schema().field_with_name(image);
        if field.ok().and_then(|field| Storage::of(field.data_type())) != Some(Storage::Paths) {
            return Ok(None);
        }
        let mut paths: Vec<Option<String>> = Vec::new();
        for batch in file.batches(0, file.rows(), Some(image))? {
            if let Some(column) = batch.column_by_name(image) {
                paths.extend((0..column.len()).map(|row| path_at(column, row).map(str::to_owned)));
            }
        }
        Ok(Some(paths.par_iter().map(|path| self.place().content(path.as_deref())).collect()))
    }

    /// The image column and the others of `rows` rows of a file; none where the file is not part of the dataset or
    /// changed its length.
    pub fn read(
        &self,
        schema: &Schema,
        image: &str,
        name: &str,
        first_row: usize,
        rows: usize,
        limits: &Limits,
    ) -> Result<Option<(ImageColumn, Vec<ArrayRef>)>, DataError> {
        let Some(file) = self.files.iter().find(|file| file.name == name) else { return Ok(None) };
        let length = file.path.metadata().map_err(|error| DataError::io(&file.path, error))?.len();
        if length != file.bytes || first_row.saturating_add(rows) > file.rows() {
            return Ok(None);
        }
        let batches = file.batches(first_row, rows, None)?;
        let mut images = ImageColumn::default();
        for batch in &batches {
            if let Some(column) = batch.column_by_name(image) {
                self.push_images(column, limits, &mut images);
            }
        }
        let others = schema.fields().iter().filter(|field| field.name() != image);
        let others = others.map(|field| joined(&file.path, &batches, field)).collect::<Result<_, _>>()?;
        Ok(Some((images, others)))
    }

    fn push_images(&self, column: &ArrayRef, limits: &Limits, images: &mut ImageColumn) {
        let read = |row: usize| match file_at(column, row, self.place(), limits) {
            Ok(file) => file.ok_or_else(no_image),
            Err(reason) => Err(reason),
        };
        let contents: Vec<Result<Cow<'_, [u8]>, String>> = (0..column.len()).into_par_iter().map(read).collect();
        for (row, content) in contents.iter().enumerate() {
            images.push(content.as_deref().map_err(Clone::clone), path_at(column, row));
        }
    }
}

impl ParquetFile {
    fn open(folder: &Path, name: &str) -> Result<Self, DataError> {
        let path = folder.join(name);
        let io = |error| DataError::io(&path, error);
        let file = File::open(&path).map_err(io)?;
        let options = ArrowReaderOptions::new().with_page_index_policy(PageIndexPolicy::Optional);
        let footer = guarded(&path, || {
            ArrowReaderMetadata::load(&file, options).map_err(|error| DataError::parquet(&path, error))
        })?;
        check_row_counts(&path, &footer)?;
        let (bytes, hash) = hash(file).map_err(io)?;
        Ok(Self { name: name.to_owned(), path, footer, bytes, hash })
    }

    fn row_groups(&self) -> &[RowGroupMetaData] {
        self.footer.metadata().row_groups()
    }

    fn rows(&self) -> usize {
        self.row_groups().iter().map(rows_of).sum()
    }

    /// Reads `rows` rows from `first` on, of all columns or of one.
    fn batches(&self, first: usize, rows: usize, column: Option<&str>) -> Result<Vec<RecordBatch>, DataError> {
        let file = File::open(&self.path).map_err(|error| DataError::io(&self.path, error))?;
        let (mut groups, mut start, mut skipped) = (Vec::new(), 0, 0);
        for (index, group) in self.row_groups().iter().enumerate() {
            let end = start + rows_of(group);
            if end > first && start < first + rows {
                groups.push(index);
            } else if end <= first {
                skipped = end;
            }
            start = end;
        }
        let mut builder = ParquetRecordBatchReaderBuilder::new_with_metadata(file, self.footer.clone())
            .with_batch_size(BATCH_ROWS.min(rows.max(1)))
            .with_row_groups(groups)
            .with_offset(first - skipped)
            .with_limit(rows);
        if let Some(column) = column {
            let mask = ProjectionMask::columns(builder.parquet_schema(), [column]);
            builder = builder.with_projection(mask);
        }
        let at = |error| DataError::parquet(&self.path, error);
        let read = || builder.build().map_err(at)?.collect::<Result<_, _>>().map_err(|error| at(error.into()));
        guarded(&self.path, read)
    }
}

/// The image column: the one asked for, else the first that is one by its feature, by the name `image`, or by its type.
fn image_column(root: &Path, schema: &Schema, features: &Features, asked: Option<&str>) -> Result<String, DataError> {
    let no_image_column = |problem: String| Err(DataError::NoImageColumn { path: root.to_path_buf(), problem });
    if let Some(name) = asked {
        let names = schema.fields().iter().map(|field| field.name().as_str());
        let field = schema.field_with_name(name).map_err(|_| no_such_column(name, names))?;
        return match Storage::of(field.data_type()) {
            Some(_) => Ok(name.to_owned()),
            None => no_image_column(format!("column `{name}` holds {}", field.data_type())),
        };
    }
    let fields = || schema.fields().iter().filter(|field| Storage::of(field.data_type()).is_some());
    let by_feature = fields().find(|field| features.get(field.name()) == Some(&Feature::Image));
    let by_name = || fields().find(|field| field.name() == "image");
    let by_type = || fields().find(|field| is_binary(field.data_type()));
    match by_feature.or_else(by_name).or_else(by_type) {
        Some(field) => Ok(field.name().clone()),
        None => {
            let columns: Vec<&str> = schema.fields().iter().map(|field| field.name().as_str()).collect();
            no_image_column(format!("no column holds images; the columns are: {}", columns.join(", ")))
        }
    }
}

/// The average size of a row, once for each row of the group.
fn row_sizes(group: &RowGroupMetaData) -> impl Iterator<Item = u64> + use<> {
    let rows = rows_of(group);
    let bytes = u64::try_from(group.total_byte_size()).unwrap_or(0);
    std::iter::repeat_n(bytes / (rows as u64).max(1), rows)
}

/// One column over all batches.
fn joined(path: &Path, batches: &[RecordBatch], field: &Field) -> Result<ArrayRef, DataError> {
    let name = field.name();
    let parts: Vec<&dyn Array> =
        batches.iter().filter_map(|batch| batch.column_by_name(name).map(AsRef::as_ref)).collect();
    let context = || DataError::arrow(format!("{}: column `{name}`", path.display()));
    let column = concat(&parts).map_err(context())?;
    match field.data_type() {
        DataType::Struct(fields) if *fields == image_fields() => as_images(column).map_err(context()),
        _ => Ok(column),
    }
}
