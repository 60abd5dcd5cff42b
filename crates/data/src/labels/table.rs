//! Opening a table of labels, whatever its format, without reading its rows.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::io::Read;
use std::path::PathBuf;
use std::sync::Arc;

use arrow_schema::DataType;
use evenset_core::Fingerprint;
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use super::batch::{BATCH_ROWS, BatchReader, Column};
use super::delimited::{self, Delimited, DelimitedReader};
use super::file::LabelFile;
use super::folder::FolderTable;
use super::format::Format;
use super::json_lines::JsonReader;
use super::kinds;
use super::locate::{Located, locate};
use super::parquet_table::ParquetTable;
use crate::error::DataError;
use crate::features::{Feature, Features, is_text};
use crate::layout::ROLES;

/// Which table to open.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LabelSpec {
    /// A file, a folder, a pattern such as `data/*.parquet`, `-` for standard input, or an address of an object store
    /// (`s3://`, `gs://`, `az://`, `http://`, `https://`).
    pub path: String,
    /// Words that stand for a missing value. In CSV empty cells, `NaN`, `nan`, `null` and `NULL` always do.
    pub missing: Vec<String>,
    /// Role (`train`, `validation`, `test`) to the split's name in the data; see [`DatasetSpec`](crate::DatasetSpec).
    pub splits: BTreeMap<String, String>,
    /// Read only the split of this role.
    pub split: Option<String>,
    /// Columns that name pictures of an image folder's images: these files are no images that were forgotten.
    pub pictures: Vec<String>,
}

/// What the values of a column are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum LabelKind {
    /// Words, class labels among them; mixed types too.
    Text,
    /// Whole numbers.
    Integer,
    /// Numbers that are not all whole.
    Float,
    /// Yes or no.
    Boolean,
    /// Image files. They are not read, and name no groups.
    Image,
    /// Lists, objects, bytes, times: they name no groups.
    Other,
}

/// A column of a table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LabelInfo {
    /// Its name.
    pub name: String,
    /// What its values are; in text files by the first rows.
    pub kind: LabelKind,
    pub(crate) source: Column,
}

/// A table of labels that is opened, but not read.
#[derive(Debug)]
pub struct LabelTable {
    spec: LabelSpec,
    contents: Contents,
    columns: Vec<LabelInfo>,
    warnings: Vec<String>,
    /// The rows are restricted to a role by the table's own column `split`.
    pub(crate) by_own_split: bool,
    /// Rows of a batch.
    pub(crate) batch_rows: usize,
}

#[derive(Debug)]
enum Contents {
    Parquet(ParquetTable, Vec<LabelFile>),
    Delimited(Vec<LabelFile>, Arc<HashSet<String>>),
    JsonLines { files: Vec<LabelFile>, measured: HashSet<String>, missing: Arc<HashSet<String>> },
    Images(FolderTable),
}

/// What one thread reads at a time.
pub(crate) enum Part {
    Groups(Vec<(usize, usize)>),
    File(usize),
    Rows(usize, std::ops::Range<usize>),
}

impl LabelTable {
    /// Finds the files and the columns. Only footers, headers and the first rows are read, and no image.
    ///
    /// # Errors
    /// [`DataError`]: nothing there, no columns, files with different columns, damaged files, an unknown split, an
    /// object store that does not answer.
    pub fn open(spec: &LabelSpec) -> Result<Self, DataError> {
        if spec.path == "-" {
            return Self::from_reader(std::io::stdin().lock(), spec);
        }
        match locate(spec)? {
            Located::Files { files, format, warnings } => Self::of_files(spec, files, format, warnings),
            Located::Images(root) => {
                let (mut table, warnings) = FolderTable::open(&root, spec, missing_words(spec, &[]))?;
                if let Some(role) = &spec.split {
                    check_role(spec, role, table.roles())?;
                    table.restrict(role);
                }
                let own = table.columns.iter();
                let own = own.map(|(field, _)| column_of(field.name(), field.data_type(), &table.features)).collect();
                let columns = with_pseudo(own, true);
                Ok(Self::new(spec, Contents::Images(table), columns, warnings))
            }
        }
    }

    /// Like [`open`](Self::open), with what a reader gives in place of the path. The format is recognised by the first
    /// bytes. What comes is kept in a temporary file of at most 64 GiB.
    ///
    /// # Errors
    /// As [`open`](Self::open); [`DataError::TooLarge`], [`DataError::DiskFull`].
    pub fn from_reader(reader: impl Read, spec: &LabelSpec) -> Result<Self, DataError> {
        let file = LabelFile::spool("standard input", reader)?;
        let format = Format::of_content(&file)?;
        Self::of_files(spec, vec![file], format, Vec::new())
    }

    fn of_files(
        spec: &LabelSpec,
        mut files: Vec<LabelFile>,
        format: Format,
        warnings: Vec<String>,
    ) -> Result<Self, DataError> {
        let roles: BTreeSet<String> = files.iter().map(|file| file.split.clone()).collect();
        let missing = missing_words(spec, if format == Format::Delimited { &delimited::MISSING } else { &[] });
        let (all, columns) = match format {
            Format::Parquet => {
                let table = ParquetTable::open(&files, Arc::clone(&missing))?;
                let schema = table.schema();
                let fields = schema.fields().iter();
                let own = fields.map(|field| column_of(field.name(), field.data_type(), &table.features)).collect();
                let columns = with_pseudo(own, table.has_image_path());
                (Contents::Parquet(table, files.clone()), columns)
            }
            Format::Delimited => {
                let first = check_headers(&files)?;
                let own = kinds::of_delimited(&files[0], &first, &missing)?;
                (Contents::Delimited(files.clone(), Arc::clone(&missing)), with_pseudo(own, false))
            }
            Format::JsonLines => {
                let own = kinds::of_json(&files)?;
                let measured = own.iter().filter(|column| column.kind == LabelKind::Float);
                let measured = measured.map(|column| column.name.clone()).collect();
                let contents = Contents::JsonLines { files: files.clone(), measured, missing: Arc::clone(&missing) };
                (contents, with_pseudo(own, false))
            }
        };
        if !columns.iter().any(|column| column.source != Column::Split) {
            let found = "there are no columns; the file may be empty".to_owned();
            return Err(DataError::NoTable { path: spec.path.clone().into(), found });
        }
        let mut table = Self::new(spec, all, columns, warnings);
        let Some(role) = &spec.split else { return Ok(table) };
        let own_split = table.columns.iter().any(|column| column.source == Column::Own("split".to_owned()));
        if own_split && roles.len() < 2 {
            check_role(spec, role, ROLES.into_iter())?;
            table.by_own_split = true;
            return Ok(table);
        }
        check_role(spec, role, roles.iter().map(String::as_str))?;
        files.retain(|file| file.split == *role);
        match &mut table.contents {
            Contents::Parquet(parquet, own) => {
                *parquet = ParquetTable::open(&files, missing)?;
                *own = files;
            }
            Contents::Delimited(own, _) | Contents::JsonLines { files: own, .. } => *own = files,
            Contents::Images(_) => {}
        }
        Ok(table)
    }

    fn new(spec: &LabelSpec, contents: Contents, columns: Vec<LabelInfo>, warnings: Vec<String>) -> Self {
        for warning in &warnings {
            tracing::warn!("{}: {warning}", spec.path);
        }
        Self { spec: spec.clone(), contents, columns, warnings, by_own_split: false, batch_rows: BATCH_ROWS }
    }

    /// The columns in order. `split` (the role) and, of images, `path` come last where the table has none of that name.
    pub fn columns(&self) -> &[LabelInfo] {
        &self.columns
    }

    /// How many rows there are, where that is known without reading them.
    pub fn rows(&self) -> Option<u64> {
        match &self.contents {
            Contents::Parquet(table, _) if !self.by_own_split => Some(table.rows()),
            Contents::Images(table) => Some(table.rows()),
            _ => None,
        }
    }

    /// The table in one line, for messages: its path, its format, how many files.
    pub fn describe(&self) -> String {
        let files = |count: usize| if count == 1 { "1 file".to_owned() } else { format!("{count} files") };
        let what = match &self.contents {
            Contents::Parquet(_, own) => format!("Parquet, {}", files(own.len())),
            Contents::Delimited(own, _) => format!("CSV, {}", files(own.len())),
            Contents::JsonLines { files: own, .. } => format!("JSONL, {}", files(own.len())),
            Contents::Images(table) => format!("image folder, {} images", table.rows()),
        };
        let path = if self.spec.path == "-" { "standard input" } else { &self.spec.path };
        format!("{path} ({what})")
    }

    /// What was left out and might surprise.
    pub fn warnings(&self) -> &[String] {
        &self.warnings
    }

    /// Which table this is.
    pub fn spec(&self) -> &LabelSpec {
        &self.spec
    }

    /// Changes when the content does: hashes of local files, tag, size and date of objects in a store; of an image
    /// folder the names and labels, but not the images.
    ///
    /// # Errors
    /// [`DataError::Io`] where a file cannot be read any more.
    pub fn fingerprint(&self) -> Result<Fingerprint, DataError> {
        let (files, format) = match &self.contents {
            Contents::Images(table) => return table.fingerprint(),
            Contents::Parquet(_, files) => (files, "parquet"),
            Contents::Delimited(files, _) => (files, "csv"),
            Contents::JsonLines { files, .. } => (files, "jsonl"),
        };
        let versions = files.par_iter().map(LabelFile::version).collect::<Result<Vec<_>, _>>()?;
        let said = serde_json::json!([format, self.spec.missing, self.spec.splits, self.spec.split]).to_string();
        let parts = files
            .iter()
            .zip(&versions)
            .flat_map(|(file, version)| [("split", file.split.as_bytes()), ("version", version.as_bytes())]);
        Ok(Fingerprint::of([("spec", said.as_bytes())].into_iter().chain(parts)))
    }

    /// The column that a class label feature describes, if there is one.
    pub(crate) fn class_label(&self) -> Option<&str> {
        let features = match &self.contents {
            Contents::Parquet(table, _) => &table.features,
            Contents::Images(table) => &table.features,
            _ => return None,
        };
        features.iter().find(|(_, feature)| matches!(feature, Feature::ClassLabel { .. })).map(|(name, _)| name)
    }

    /// Pieces in order; each is read by one thread.
    pub(crate) fn parts(&self) -> Vec<Part> {
        match &self.contents {
            Contents::Parquet(table, _) => table.parts().into_iter().map(Part::Groups).collect(),
            Contents::Delimited(files, _) | Contents::JsonLines { files, .. } => {
                (0..files.len()).map(Part::File).collect()
            }
            Contents::Images(table) => table.parts().into_iter().map(|(split, rows)| Part::Rows(split, rows)).collect(),
        }
    }

    /// Reads a part.
    pub(crate) fn reader(&self, part: Part, columns: Vec<Column>) -> Result<Box<dyn BatchReader + '_>, DataError> {
        let rows = self.batch_rows;
        Ok(match (&self.contents, part) {
            (Contents::Parquet(table, _), Part::Groups(groups)) => Box::new(table.reader(groups, columns, rows)),
            (Contents::Delimited(files, missing), Part::File(file)) => {
                Box::new(DelimitedReader::open(&files[file], &columns, missing, rows)?)
            }
            (Contents::JsonLines { files, measured, missing }, Part::File(file)) => {
                let measured = |name: &str| measured.contains(name);
                Box::new(JsonReader::open(&files[file], columns, missing, measured, rows)?)
            }
            (Contents::Images(table), Part::Rows(split, run)) => Box::new(table.reader((split, run), columns, rows)),
            _ => return Err(DataError::NoTable { path: PathBuf::from(&self.spec.path), found: "it changed".into() }),
        })
    }
}

fn missing_words(spec: &LabelSpec, usual: &[&str]) -> Arc<HashSet<String>> {
    Arc::new(usual.iter().map(|word| (*word).to_owned()).chain(spec.missing.iter().cloned()).collect())
}

/// The role must be one, and in the data.
fn check_role<'a>(spec: &LabelSpec, role: &str, found: impl Iterator<Item = &'a str>) -> Result<(), DataError> {
    if !ROLES.contains(&role) {
        return Err(DataError::NoSuchRole { role: role.to_owned() });
    }
    let found: Vec<String> = found.map(str::to_owned).collect();
    if found.iter().any(|own| own == role) {
        return Ok(());
    }
    Err(DataError::NoSplit { path: spec.path.clone().into(), split: role.to_owned(), found })
}

/// All files need the columns of the first, in any order.
fn check_headers(files: &[LabelFile]) -> Result<Vec<String>, DataError> {
    let headers =
        files.par_iter().map(|file| Ok(Delimited::open(file)?.header)).collect::<Result<Vec<_>, DataError>>()?;
    let Some(first) = headers.first() else { return Ok(Vec::new()) };
    for (file, header) in files.iter().zip(&headers) {
        let differs = |problem| Err(DataError::SchemaMismatch { path: file.path().to_path_buf(), problem });
        if let Some(lost) = first.iter().find(|name| !header.contains(name)) {
            return differs(format!("column `{lost}` is missing"));
        }
        if let Some(extra) = header.iter().find(|name| !first.contains(name)) {
            return differs(format!("column `{extra}` is not in the other files"));
        }
    }
    Ok(first.clone())
}

fn column_of(name: &str, data_type: &DataType, features: &Features) -> LabelInfo {
    let kind = match (features.get(name), data_type) {
        (Some(Feature::Image), _) => LabelKind::Image,
        (Some(Feature::ClassLabel { .. }), _) => LabelKind::Text,
        (_, data_type) => kind_of(data_type),
    };
    LabelInfo { name: name.to_owned(), kind, source: Column::Own(name.to_owned()) }
}

fn kind_of(data_type: &DataType) -> LabelKind {
    match data_type {
        DataType::Boolean => LabelKind::Boolean,
        DataType::Null => LabelKind::Text,
        DataType::Dictionary(_, words) => kind_of(words),
        text if is_text(text) => LabelKind::Text,
        number if number.is_integer() => LabelKind::Integer,
        number if number.is_floating() => LabelKind::Float,
        _ => LabelKind::Other,
    }
}

/// The role of the split and the path of the image, where the table has no columns of these names.
fn with_pseudo(mut columns: Vec<LabelInfo>, images: bool) -> Vec<LabelInfo> {
    for (name, source, given) in [("split", Column::Split, true), ("path", Column::ImagePath, images)] {
        if given && !columns.iter().any(|column| column.name == name) {
            columns.push(LabelInfo { name: name.to_owned(), kind: LabelKind::Text, source });
        }
    }
    columns
}

impl LabelInfo {
    /// A column of a text file.
    pub(crate) fn own(name: String, kind: LabelKind) -> Self {
        Self { source: Column::Own(name.clone()), name, kind }
    }
}
