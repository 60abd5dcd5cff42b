//! Opening a labelled image dataset, whatever its layout, and reading it unit by unit.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow_array::{RecordBatch, RecordBatchOptions};
use arrow_schema::{FieldRef, Schema, SchemaRef};
use serde::{Deserialize, Serialize};

use crate::decode::Limits;
use crate::error::DataError;
use crate::features::Features;
use crate::files::images;
use crate::folder_source::FolderSource;
use crate::images::ImageColumn;
use crate::parquet_layout::parquet_files;
use crate::parquet_source::ParquetSource;
use crate::pictures::file_at;
use crate::table::Table;
use crate::unit::{Source, Unit};

/// Which data to open.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DatasetSpec {
    /// A Parquet file, or a folder of Parquet files or images.
    pub path: PathBuf,
    /// The image column; by default the first that holds images. For image folders, the name that it gets (`image`).
    pub image: Option<String>,
    /// Role (`train`, `validation`, `test`) to the split's name in the data. Empty: the usual names are recognised, and
    /// data without splits is all `train`.
    pub splits: BTreeMap<String, String>,
    /// Columns of pictures that belong to the images, such as masks: stored as images can be. Units have another fingerprint
    /// where these pictures change.
    #[serde(default)]
    pub pictures: Vec<String>,
}

/// How a dataset is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// Parquet files with the images in a column.
    Parquet,
    /// Image files in folders.
    ImageFolder,
}

/// A labelled image dataset whose rows are listed and cut into units, but not read.
#[derive(Debug)]
pub struct Dataset {
    /// How it is stored.
    pub kind: Kind,
    /// The name of the image column.
    pub image: String,
    /// What the columns hold.
    pub features: Features,
    /// The units, split after split in the order train, validation, test.
    pub units: Vec<Unit>,
    /// What was left out and might surprise: images that are in no split or not in the metadata.
    pub warnings: Vec<String>,
    /// How large an image file may be; a larger one becomes an entry of [`Table::errors`].
    pub limits: Limits,
    path: PathBuf,
    schema: SchemaRef,
    contents: Contents,
}

#[derive(Debug)]
enum Contents {
    Parquet(ParquetSource),
    Folder(FolderSource),
}

/// What a source finds out when it is opened.
pub(crate) struct Opened<S> {
    pub source: S,
    pub image: String,
    pub features: Features,
    pub fields: Vec<FieldRef>,
    pub units: Vec<Unit>,
    pub warnings: Vec<String>,
}

impl Dataset {
    /// Lists the rows, finds the columns, and hashes the content so that every unit has its fingerprint. No image is
    /// decoded. The order of rows and units depends on names and content only.
    ///
    /// # Errors
    /// [`DataError`]: nothing there, an unknown split or image column, files that contradict each other, damaged files.
    pub fn open(spec: &DatasetSpec) -> Result<Self, DataError> {
        let path = &spec.path;
        let root = path.canonicalize().map_err(|error| match error.kind() {
            std::io::ErrorKind::NotFound => DataError::NotFound { path: path.clone() },
            _ => DataError::io(path, error),
        })?;
        let files = if root.is_dir() { parquet_files(&root, spec)? } else { vec![single_file(&root)?] };
        let dataset = if files.is_empty() {
            let opened = FolderSource::open(&root, spec)?;
            Self::new(Kind::ImageFolder, spec, opened, Contents::Folder)
        } else {
            let opened = ParquetSource::open(&root, files, spec)?;
            Self::new(Kind::Parquet, spec, opened, Contents::Parquet)
        };
        if dataset.units.is_empty() {
            return Err(DataError::NoData { path: path.clone(), found: what_stands_in(&root) });
        }
        for warning in &dataset.warnings {
            tracing::warn!("{}: {warning}", path.display());
        }
        Ok(dataset)
    }

    fn new<S>(kind: Kind, spec: &DatasetSpec, opened: Opened<S>, contents: impl FnOnce(S) -> Contents) -> Self {
        Self {
            kind,
            image: opened.image,
            features: opened.features,
            units: opened.units,
            warnings: opened.warnings,
            limits: Limits::default(),
            path: spec.path.clone(),
            schema: Arc::new(Schema::new(opened.fields)),
            contents: contents(opened.source),
        }
    }

    /// The columns of every [`Table`] in order, the image column among them.
    pub fn schema(&self) -> SchemaRef {
        Arc::clone(&self.schema)
    }

    /// The names of the columns in order, the image column among them.
    pub fn columns(&self) -> Vec<String> {
        self.schema.fields().iter().map(|field| field.name().clone()).collect()
    }

    /// How many rows there are in all splits.
    pub fn rows(&self) -> usize {
        self.units.iter().map(|unit| unit.rows).sum()
    }

    /// The roles of the splits, in the order train, validation, test.
    pub fn splits(&self) -> Vec<&str> {
        let mut splits: Vec<&str> = self.units.iter().map(|unit| unit.split.as_str()).collect();
        splits.dedup();
        splits
    }

    /// Reads the rows of a unit; files are read in parallel.
    ///
    /// An image file that is missing, too large, out of the folder or unreadable is an entry of [`Table::errors`].
    ///
    /// # Errors
    /// [`DataError::Stale`] where the unit does not fit the data, [`DataError::Parquet`], [`DataError::Io`].
    pub fn read(&self, unit: &Unit) -> Result<Table, DataError> {
        let stale = || DataError::Stale { path: self.path.clone(), unit: unit.index };
        let (images, others) = match (&self.contents, &unit.source) {
            (Contents::Parquet(parquet), Source::Parquet { file, first_row }) => {
                parquet.read(&self.schema, &self.image, file, *first_row, unit.rows, &self.limits)?.ok_or_else(stale)?
            }
            (Contents::Folder(folder), Source::Files { first_row, files }) => {
                folder.read(*first_row, files, &self.limits).ok_or_else(stale)?
            }
            _ => return Err(stale()),
        };
        if images.rows() != unit.rows {
            return Err(stale());
        }
        self.table(images, others)
    }

    /// The file in a row of one of [`DatasetSpec::pictures`] or of the image column; none where the row has none. `table` is
    /// what [`read`](Self::read) gave for `unit`. Paths are relative to the metadata file that they stand in, or to the
    /// dataset's folder.
    ///
    /// # Errors
    /// The reason why the file cannot be read, as in [`Table::errors`].
    pub fn picture<'a>(
        &self,
        unit: &Unit,
        table: &'a Table,
        column: &str,
        row: usize,
    ) -> Result<Option<Cow<'a, [u8]>>, String> {
        if column == table.image {
            return match table.error(row) {
                Some(reason) => Err(reason.to_owned()),
                None => Ok(table.image(row).map(|(bytes, _)| Cow::Borrowed(bytes))),
            };
        }
        let place = match &self.contents {
            Contents::Parquet(parquet) => parquet.place(),
            Contents::Folder(folder) => folder.place(&unit.split),
        };
        file_at(table.column(column).map_err(|error| error.to_string())?, row, place, &self.limits)
    }

    /// The image column in its place among the others.
    fn table(&self, images: ImageColumn, others: Vec<arrow_array::ArrayRef>) -> Result<Table, DataError> {
        let context = || DataError::arrow(self.path.display().to_string());
        let rows = images.rows();
        let (column, errors) = images.finish().map_err(context())?;
        let mut columns = others;
        let place = self.schema.index_of(&self.image).map_err(context())?;
        columns.insert(place.min(columns.len()), column);
        let options = RecordBatchOptions::new().with_row_count(Some(rows));
        let batch = RecordBatch::try_new_with_options(self.schema(), columns, &options).map_err(context())?;
        Ok(Table { batch, features: self.features.clone(), image: self.image.clone(), errors })
    }
}

/// Checks that a path to one file names a Parquet file.
fn single_file(path: &Path) -> Result<String, DataError> {
    let mut magic = [0; 4];
    let parquet = File::open(path).and_then(|mut file| file.read_exact(&mut magic)).is_ok() && &magic == b"PAR1";
    let named = path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("parquet"));
    let name = path.file_name().and_then(|name| name.to_str());
    match name.filter(|_| parquet || named) {
        Some(name) => Ok(name.to_owned()),
        None => Err(DataError::NoData { path: path.to_path_buf(), found: "the file is not Parquet".into() }),
    }
}

fn what_stands_in(root: &Path) -> String {
    if !root.is_dir() {
        return "the file has no rows".into();
    }
    match images(root, "").map(|found| found.len()) {
        Ok(0) | Err(_) => "there are no rows: neither Parquet files nor images".into(),
        Ok(count) => format!("none of its {count} images belongs to a split that is read"),
    }
}
