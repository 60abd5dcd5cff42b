//! An image folder as a table of labels: names of files and their metadata, but no image.

use std::collections::HashSet;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use arrow_array::{ArrayRef, StringArray, UInt64Array};
use arrow_schema::FieldRef;
use arrow_select::take::take;
use evenset_core::Fingerprint;

use super::arrays;
use super::batch::{Batch, BatchReader, Column};
use super::table::LabelSpec;
use super::words::Interner;
use crate::dataset::DatasetSpec;
use crate::error::DataError;
use crate::features::Features;
use crate::folder_source::list;

/// Rows of a part at most.
const PART_ROWS: usize = 1_000_000;

/// The rows of an image folder that name an image.
#[derive(Debug)]
pub(crate) struct FolderTable {
    address: String,
    pub columns: Vec<(FieldRef, ArrayRef)>,
    pub features: Features,
    paths: ArrayRef,
    /// The splits in the order of the rows.
    splits: Vec<(String, Range<usize>)>,
    missing: Arc<HashSet<String>>,
}

impl FolderTable {
    /// Lists the folder. The second value holds warnings.
    pub fn open(
        root: &Path,
        spec: &LabelSpec,
        missing: Arc<HashSet<String>>,
    ) -> Result<(Self, Vec<String>), DataError> {
        let path = root.to_path_buf();
        let listing = list(
            root,
            &DatasetSpec { path, image: None, splits: spec.splits.clone(), pictures: spec.pictures.clone() },
        )?;
        let (mut kept, mut paths, mut splits): (Vec<u64>, Vec<&str>, Vec<_>) = (Vec::new(), Vec::new(), Vec::new());
        let mut row = 0;
        for (split, files) in listing.splits.iter().zip(&listing.files) {
            let first = kept.len();
            for file in files {
                if file.problem.is_none() {
                    kept.push(row);
                    paths.push(&file.path);
                }
                row += 1;
            }
            splits.push((split.role.clone(), first..kept.len()));
        }
        let mut warnings = listing.warnings;
        if kept.len() as u64 != row {
            warnings.push(format!("{} rows name no image that can be read and are left out", row - kept.len() as u64));
        }
        let kept = UInt64Array::from(kept);
        let taken = |(field, array): (FieldRef, ArrayRef)| Ok((field, take(&array, &kept, None)?));
        let columns = listing.columns.into_iter().map(taken).collect::<Result<_, _>>();
        let columns = columns.map_err(DataError::arrow(root.display().to_string()))?;
        let paths = Arc::new(StringArray::from(paths));
        let table = Self { address: spec.path.clone(), columns, features: listing.features, paths, splits, missing };
        Ok((table, warnings))
    }

    /// The roles of the splits.
    pub fn roles(&self) -> impl Iterator<Item = &str> {
        self.splits.iter().map(|(role, _)| role.as_str())
    }

    /// Leaves out the rows of other splits.
    pub fn restrict(&mut self, role: &str) {
        self.splits.retain(|(own, _)| own == role);
    }

    /// How many rows there are.
    pub fn rows(&self) -> u64 {
        self.splits.iter().map(|(_, rows)| rows.len() as u64).sum()
    }

    /// Runs of rows of one split each.
    pub fn parts(&self) -> Vec<(usize, Range<usize>)> {
        let runs = |(split, (_, rows)): (usize, &(String, Range<usize>))| {
            let end = rows.end;
            let begins = rows.clone().step_by(PART_ROWS);
            begins.map(move |begin| (split, begin..end.min(begin + PART_ROWS))).collect::<Vec<_>>()
        };
        self.splits.iter().enumerate().flat_map(runs).collect()
    }

    /// Reads the rows of a part.
    pub fn reader(
        &self,
        (split, rows): (usize, Range<usize>),
        columns: Vec<Column>,
        batch_rows: usize,
    ) -> FolderReader<'_> {
        let measured = |column: &Column| {
            let array = self.array(column);
            Interner::new(Arc::clone(&self.missing), array.is_some_and(|array| array.data_type().is_floating()))
        };
        let interners = columns.iter().map(measured).collect();
        FolderReader { table: self, split, rows, columns, interners, batch_rows }
    }

    fn array(&self, column: &Column) -> Option<&ArrayRef> {
        match column {
            Column::Own(name) => self.columns.iter().find(|(field, _)| field.name() == name).map(|(_, array)| array),
            Column::ImagePath => Some(&self.paths),
            Column::Split => None,
        }
    }

    /// Changes when a name, a label or a split does.
    pub fn fingerprint(&self) -> Result<Fingerprint, DataError> {
        let columns: Vec<Column> = self
            .columns
            .iter()
            .map(|(field, _)| Column::Own(field.name().clone()))
            .chain([Column::ImagePath])
            .collect();
        let described = self.features.to_metadata_json();
        let mut hasher = blake3::Hasher::new();
        let mut text = |part: &str| {
            hasher.update(&(part.len() as u64).to_le_bytes());
            hasher.update(part.as_bytes());
        };
        text(&described);
        for part in self.parts() {
            text(&self.splits[part.0].0);
            for row in part.1 {
                for column in &columns {
                    if let Some(array) = self.array(column) {
                        text(&crate::json::cell(array, row, None).to_string());
                    }
                }
            }
        }
        Ok(Fingerprint::of([("folder", hasher.finalize().as_bytes().as_slice())]))
    }
}

/// Rows of an image folder.
pub(crate) struct FolderReader<'a> {
    table: &'a FolderTable,
    split: usize,
    rows: Range<usize>,
    columns: Vec<Column>,
    interners: Vec<Interner>,
    batch_rows: usize,
}

impl BatchReader for FolderReader<'_> {
    fn next(&mut self, batch: &mut Batch) -> Result<bool, DataError> {
        let rows = self.rows.len().min(self.batch_rows);
        for ((column, interner), cells) in self.columns.iter().zip(&mut self.interners).zip(&mut batch.cells) {
            cells.clear();
            interner.begin();
            let Some(array) = self.table.array(column) else {
                cells.fill(self.table.splits.get(self.split).map(|(role, _)| role.as_str()), rows);
                continue;
            };
            let name = if let Column::Own(name) = column { name } else { "path" };
            let feature = self.table.features.get(name).filter(|_| matches!(column, Column::Own(_)));
            arrays::push(name, &array.slice(self.rows.start, rows), feature, interner, &mut cells.codes)?;
            cells.words = interner.words();
        }
        batch.rows = rows;
        batch.address.clone_from(&self.table.address);
        batch.first_row = self.rows.start as u64;
        self.rows.start += rows;
        Ok(rows > 0)
    }
}
