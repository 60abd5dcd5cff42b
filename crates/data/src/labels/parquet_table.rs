//! Parquet files as a table of labels.

use std::collections::HashSet;
use std::sync::Arc;

use arrow_array::ArrayRef;
use arrow_schema::{DataType, Schema};
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::{
    ArrowReaderMetadata, ArrowReaderOptions, ParquetRecordBatchReader, ParquetRecordBatchReaderBuilder,
};
use parquet::column::page::PageReader;
use parquet::errors::ParquetError;
use parquet::file::serialized_reader::SerializedPageReader;
use rayon::prelude::*;

use super::arrays;
use super::batch::{Batch, BatchReader, Column};
use super::file::LabelFile;
use super::pages::{self, PageColumn};
use super::ranged::Ranged;
use super::words::{Cells, Interner};
use crate::error::DataError;
use crate::features::{Feature, Features};
use crate::guard::guarded;
use crate::parquet_footer::{check_columns, check_row_counts, rows_of};

/// Rows of a part at least, where there are so many: what one thread reads at a time.
const PART_ROWS: usize = 2_000_000;
/// Parts at most.
const MAX_PARTS: usize = 256;

/// Files whose footers are read.
#[derive(Debug)]
pub(crate) struct ParquetTable {
    files: Vec<ParquetLabels>,
    pub features: Features,
    /// The first column of images with a path for each.
    image: Option<String>,
    missing: Arc<HashSet<String>>,
}

#[derive(Debug)]
struct ParquetLabels {
    file: LabelFile,
    footer: ArrowReaderMetadata,
}

impl ParquetTable {
    /// Reads the footers, in parallel, and compares the columns.
    pub fn open(files: &[LabelFile], missing: Arc<HashSet<String>>) -> Result<Self, DataError> {
        let files = files.par_iter().map(ParquetLabels::open).collect::<Result<Vec<_>, _>>()?;
        let schema = files.first().map(|first| Arc::clone(first.footer.schema()));
        let schema = schema.unwrap_or_else(|| Arc::new(Schema::empty()));
        let features = Features::of_schema(&schema);
        for file in &files {
            check_columns(file.file.path(), file.footer.schema(), &schema, &features)?;
        }
        let has_path = |name: &str| match schema.field_with_name(name).map(|field| field.data_type()) {
            Ok(DataType::Struct(parts)) => parts.iter().any(|part| part.name() == "path"),
            _ => false,
        };
        let image = features.iter().find(|(name, feature)| **feature == Feature::Image && has_path(name));
        let image = image.map(|(name, _)| name.to_owned());
        Ok(Self { features, image, missing, files })
    }

    /// The columns with their types, in order.
    pub fn schema(&self) -> Arc<Schema> {
        self.files.first().map_or_else(|| Arc::new(Schema::empty()), |file| Arc::clone(file.footer.schema()))
    }

    /// Whether rows have the path of an image file.
    pub fn has_image_path(&self) -> bool {
        self.image.is_some()
    }

    /// The rows of all files.
    pub fn rows(&self) -> u64 {
        self.groups().map(|(file, group)| self.group_rows(file, group) as u64).sum()
    }

    fn groups(&self) -> impl Iterator<Item = (usize, usize)> {
        let count = |file: &ParquetLabels| file.footer.metadata().num_row_groups();
        self.files.iter().enumerate().flat_map(move |(index, file)| (0..count(file)).map(move |group| (index, group)))
    }

    fn group_rows(&self, file: usize, group: usize) -> usize {
        rows_of(self.files[file].footer.metadata().row_group(group))
    }

    /// Runs of row groups of about equal length. Only the footers decide where they end, so every machine cuts alike.
    pub fn parts(&self) -> Vec<Vec<(usize, usize)>> {
        let total = usize::try_from(self.rows()).unwrap_or(usize::MAX);
        let enough = PART_ROWS.max(total / MAX_PARTS);
        let (mut parts, mut part, mut rows) = (Vec::new(), Vec::new(), 0);
        for (file, group) in self.groups() {
            part.push((file, group));
            rows += self.group_rows(file, group);
            if rows >= enough {
                parts.push(std::mem::take(&mut part));
                rows = 0;
            }
        }
        if !part.is_empty() {
            parts.push(part);
        }
        parts
    }

    /// Reads the row groups of a part.
    pub fn reader(&self, part: Vec<(usize, usize)>, columns: Vec<Column>, batch_rows: usize) -> PartReader<'_> {
        PartReader { table: self, groups: part.into_iter(), columns, batch_rows, open: None, group: None }
    }
}

impl ParquetLabels {
    fn open(file: &LabelFile) -> Result<Self, DataError> {
        let ranged = Ranged::new(file.handle()?.into()).map_err(|error| DataError::io(file.path(), error))?;
        let footer = guarded(file.path(), || {
            ArrowReaderMetadata::load(&ranged, ArrowReaderOptions::new()).map_err(|error| failed(file, error))
        })?;
        check_row_counts(file.path(), &footer)?;
        Ok(Self { file: file.clone(), footer })
    }
}

/// An error of the Parquet library; one of an object store inside it comes out as it was.
fn failed(file: &LabelFile, error: ParquetError) -> DataError {
    let ParquetError::External(inner) = error else { return DataError::parquet(file.path(), error) };
    match inner.downcast::<std::io::Error>() {
        Ok(error) => match error.downcast::<DataError>() {
            Ok(error) => error,
            Err(error) => DataError::io(file.path(), error),
        },
        Err(other) => DataError::parquet(file.path(), ParquetError::External(other)),
    }
}

/// Row groups, one after the other.
pub(crate) struct PartReader<'a> {
    table: &'a ParquetTable,
    groups: std::vec::IntoIter<(usize, usize)>,
    columns: Vec<Column>,
    batch_rows: usize,
    /// The file at hand.
    open: Option<(usize, Ranged)>,
    group: Option<Group<'a>>,
}

/// The columns of an open row group.
struct Group<'a> {
    file: &'a LabelFile,
    columns: Vec<Source<'a>>,
    /// Rows that were given of how many, from where in the file.
    given: usize,
    rows: usize,
    first_row: u64,
}

enum Source<'a> {
    Pages(PageColumn),
    Arrow(ArrowColumn<'a>),
    Split,
}

impl BatchReader for PartReader<'_> {
    fn next(&mut self, batch: &mut Batch) -> Result<bool, DataError> {
        loop {
            match &mut self.group {
                Some(group) if group.given < group.rows => {
                    let file = group.file;
                    return guarded(file.path(), || group.read(self.batch_rows, batch)).map(|()| true);
                }
                _ => match self.groups.next() {
                    Some((file, group)) => self.group = Some(self.open_group(file, group)?),
                    None => return Ok(false),
                },
            }
        }
    }
}

impl<'a> PartReader<'a> {
    fn open_group(&mut self, index: usize, group: usize) -> Result<Group<'a>, DataError> {
        let table = self.table;
        let labels = &table.files[index];
        if self.open.as_ref().is_none_or(|(open, _)| *open != index) {
            let ranged = Ranged::new(labels.file.handle()?.into());
            self.open = Some((index, ranged.map_err(|error| DataError::io(labels.file.path(), error))?));
        }
        let Some((_, ranged)) = &self.open else { return Err(nothing_open(&labels.file)) };
        let open = |column: &Column| match column {
            Column::Split => Ok(Source::Split),
            Column::Own(name) => labels.column(table, ranged, group, name, None, self.batch_rows),
            Column::ImagePath => {
                let image = table.image.as_deref().unwrap_or_default();
                labels.column(table, ranged, group, image, Some("path"), self.batch_rows)
            }
        };
        let columns = guarded(labels.file.path(), || self.columns.iter().map(open).collect())?;
        let before = (0..group).map(|earlier| table.group_rows(index, earlier) as u64).sum();
        let rows = table.group_rows(index, group);
        Ok(Group { file: &labels.file, columns, given: 0, rows, first_row: before })
    }
}

fn nothing_open(file: &LabelFile) -> DataError {
    DataError::Parquet { path: file.path().to_path_buf(), problem: "it could not be opened".into() }
}

impl Group<'_> {
    fn read(&mut self, batch_rows: usize, batch: &mut Batch) -> Result<(), DataError> {
        let rows = batch_rows.min(self.rows - self.given);
        for (source, cells) in self.columns.iter_mut().zip(&mut batch.cells) {
            match source {
                Source::Split => cells.fill(Some(&self.file.split), rows),
                Source::Pages(column) => column
                    .read(rows, cells)
                    .map_err(|problem| DataError::Parquet { path: self.file.path().to_path_buf(), problem })?,
                Source::Arrow(column) => column.read(rows, cells)?,
            }
        }
        batch.rows = rows;
        batch.address.clone_from(&self.file.address);
        batch.first_row = self.first_row + self.given as u64;
        self.given += rows;
        Ok(())
    }
}

impl ParquetLabels {
    /// Opens a column of a row group: its pages where that is possible, else through Arrow. `part` is a field of a
    /// struct column; only the bytes of that field are read.
    fn column<'a>(
        &'a self,
        table: &'a ParquetTable,
        ranged: &Ranged,
        group: usize,
        name: &str,
        part: Option<&str>,
        batch_rows: usize,
    ) -> Result<Source<'a>, DataError> {
        let schema = self.footer.schema();
        let lost = |_| nothing_open(&self.file);
        let root = schema.index_of(name).map_err(lost)?;
        let field = schema.field(root);
        let parquet_schema = self.footer.parquet_schema();
        let leaves: Vec<usize> = (0..parquet_schema.num_columns())
            .filter(|&leaf| parquet_schema.get_column_root_idx(leaf) == root)
            .filter(|&leaf| {
                part.is_none_or(|part| parquet_schema.column(leaf).path().parts().get(1).is_some_and(|own| own == part))
            })
            .collect();
        let metadata = self.footer.metadata().row_group(group);
        let end = |&leaf: &usize| {
            let (start, length) = metadata.column(leaf).byte_range();
            start.saturating_add(length)
        };
        let ranged = ranged.until(leaves.iter().map(end).max().unwrap_or_default());
        if let ([leaf], None) = (leaves.as_slice(), part) {
            let chunk = metadata.column(*leaf);
            if pages::is_readable(chunk, field.data_type()) {
                let optional = chunk.column_descr().max_def_level() == 1;
                let reader = SerializedPageReader::new(Arc::new(ranged), chunk, rows_of(metadata), None);
                let reader: Box<dyn PageReader> = Box::new(reader.map_err(|error| failed(&self.file, error))?);
                return Ok(Source::Pages(PageColumn::new(reader, optional, Arc::clone(&table.missing))));
            }
        }
        let mask = ProjectionMask::leaves(parquet_schema, leaves);
        let reader = ParquetRecordBatchReaderBuilder::new_with_metadata(ranged, self.footer.clone())
            .with_batch_size(batch_rows.min(rows_of(metadata).max(1)))
            .with_row_groups(vec![group])
            .with_projection(mask)
            .build()
            .map_err(|error| failed(&self.file, error))?;
        let measured = match field.data_type() {
            DataType::Dictionary(_, words) => words.is_floating(),
            other => other.is_floating(),
        };
        Ok(Source::Arrow(ArrowColumn {
            file: &self.file,
            column: name.to_owned(),
            feature: table.features.get(name),
            part: part.map(str::to_owned),
            reader,
            left: None,
            interner: Interner::new(Arc::clone(&table.missing), measured),
        }))
    }
}

/// A column of any type, through Arrow.
struct ArrowColumn<'a> {
    file: &'a LabelFile,
    column: String,
    feature: Option<&'a Feature>,
    part: Option<String>,
    reader: ParquetRecordBatchReader,
    left: Option<ArrayRef>,
    interner: Interner,
}

impl ArrowColumn<'_> {
    fn read(&mut self, rows: usize, cells: &mut Cells) -> Result<(), DataError> {
        cells.clear();
        self.interner.begin();
        while cells.codes.len() < rows {
            let array = match self.left.take() {
                Some(array) => array,
                None => self.next_array()?,
            };
            let given = array.len().min(rows - cells.codes.len());
            let taken = array.slice(0, given);
            let feature = self.feature.filter(|_| self.part.is_none());
            arrays::push(&self.column, &taken, feature, &mut self.interner, &mut cells.codes)?;
            self.left = (given < array.len()).then(|| array.slice(given, array.len() - given));
        }
        cells.words = self.interner.words();
        Ok(())
    }

    fn next_array(&mut self) -> Result<ArrayRef, DataError> {
        let damaged = |problem: String| DataError::Parquet { path: self.file.path().to_path_buf(), problem };
        let batch = match self.reader.next() {
            Some(batch) => batch.map_err(|error| match error {
                arrow_schema::ArrowError::ExternalError(inner) => failed(self.file, ParquetError::External(inner)),
                other => failed(self.file, other.into()),
            })?,
            None => return Err(damaged("its pages end before its rows do".into())),
        };
        let column = batch.columns().first().ok_or_else(|| damaged("a column is not there".into()))?;
        match &self.part {
            None => Ok(Arc::clone(column)),
            Some(part) => {
                let child = crate::columns::child(column, part);
                child.cloned().ok_or_else(|| damaged(format!("the images have no `{part}`")))
            }
        }
    }
}
