//! Reading a table: in parallel over its parts, in batches, with derived attributes and filters applied.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use evenset_core::Progress;
use rayon::prelude::*;

use super::batch::{Batch, Column};
use super::column::LabelColumn;
use super::derive::Step;
use super::evaluate::Evaluator;
use super::filter::Filter;
use super::quantiles::quantile_edges;
use super::scalar::{Scalar, Scalars};
use super::table::{LabelTable, Part};
use super::view::{Attribute, Names, ResolvedView, View};
use super::words::{Cells, Interner};
use super::{arrays, table::LabelInfo};
use crate::error::DataError;
use crate::guard::guarded;
use crate::table::Table;

impl LabelTable {
    /// Finds the columns of a view in the table, and computes the edges of its quantiles in a first reading.
    ///
    /// # Errors
    /// [`DataError::NoSuchColumn`] with the nearest name, [`DataError::NotAnAttribute`], [`DataError::Derive`],
    /// [`DataError::Filter`]; whatever reading the table can give where there are quantiles.
    pub fn view(&self, view: &View, progress: &dyn Progress) -> Result<ResolvedView, DataError> {
        let names = Names { columns: self.columns(), derive: &view.derive };
        names.check()?;
        for filter in &view.filters {
            filter.validate()?;
        }
        let missing = self.spec().missing.iter().cloned().collect();
        let mut resolved = ResolvedView { missing: Arc::new(missing), ..ResolvedView::default() };
        let wanted = view.attributes.iter().chain(view.filters.iter().map(|filter| &filter.column));
        let (edges, notes) = quantile_edges(self, &names, wanted, progress)?;
        for name in &view.attributes {
            let attribute = names.attribute(name, &edges, &mut resolved)?;
            resolved.attributes.push(attribute);
        }
        if self.by_own_split {
            let own = self.own_split_filter(&mut resolved)?;
            resolved.filters.extend(own);
        }
        for filter in &view.filters {
            let mut attribute = names.attribute(&filter.column, &edges, &mut resolved)?;
            attribute.any_number = true;
            resolved.filters.push((attribute, filter.clone()));
        }
        (resolved.edges, resolved.notes) = (edges, notes);
        Ok(resolved)
    }

    /// Keeps the rows whose column `split` names the role that was asked for.
    fn own_split_filter(&self, resolved: &mut ResolvedView) -> Result<Option<(Attribute, Filter)>, DataError> {
        let Some(role) = &self.spec().split else { return Ok(None) };
        let none = BTreeMap::new();
        let names = Names { columns: self.columns(), derive: &none };
        let mut attribute = names.attribute("split", &BTreeMap::new(), resolved)?;
        attribute.steps.push(Step::Role(self.spec().splits.clone()));
        let is_in = Some(Scalars(vec![Scalar(role.clone())]));
        Ok(Some((attribute, Filter { column: "split".to_owned(), is_in, ..Filter::default() })))
    }

    /// Reads the table in parallel and gives each batch of rows that pass the filters to `add`: one [`LabelColumn`] for
    /// each attribute of the view, in its order. `new` makes what a part of the table is added to; the parts come back
    /// in the order of the data, so the result does not depend on the number of threads.
    ///
    /// At any time only some batches are in memory. A batch may be empty, and a value may stand in a column that no row
    /// of the batch has.
    ///
    /// # Errors
    /// What `add` gives; [`DataError`] for damaged files, for values that cannot be derived or compared, and
    /// [`DataError::Interrupted`] where a stop was asked for.
    pub fn fold<T: Send, E: From<DataError> + Send>(
        &self,
        view: &ResolvedView,
        progress: &dyn Progress,
        new: impl Fn() -> T + Sync,
        add: impl Fn(&mut T, &[LabelColumn]) -> Result<(), E> + Sync,
    ) -> Result<Vec<T>, E> {
        progress.begin("reading labels", self.rows().unwrap_or_default());
        let parts = self.parts();
        let result = parts.into_par_iter().map(|part| {
            let mut sum = new();
            self.read_part(part, view, progress, |columns| add(&mut sum, columns))?;
            Ok(sum)
        });
        let result = result.collect();
        progress.end();
        result
    }

    fn read_part<E: From<DataError>>(
        &self,
        part: Part,
        view: &ResolvedView,
        progress: &dyn Progress,
        mut add: impl FnMut(&[LabelColumn]) -> Result<(), E>,
    ) -> Result<(), E> {
        let path = Path::new(&self.spec().path);
        // A view without attributes still counts its rows, so there must be a column to count.
        let mut sources = view.sources.clone();
        if sources.is_empty() {
            sources.push(Column::Split);
        }
        let mut batch = Batch::new(sources.len());
        let mut reader = self.reader(part, sources)?;
        let mut evaluator = Evaluator::new(view);
        while guarded(path, || reader.next(&mut batch))? {
            progress.check().map_err(DataError::from)?;
            let rows = batch.rows as u64;
            evaluator.compact(&mut batch)?;
            add(&evaluator.columns)?;
            progress.advance(rows);
        }
        Ok(())
    }

    /// Gives the first rows of the table in order, batch after batch, until `add` says that it has seen enough.
    pub(crate) fn first_rows(
        &self,
        columns: &[&LabelInfo],
        mut add: impl FnMut(&Batch) -> bool,
    ) -> Result<(), DataError> {
        let path = Path::new(&self.spec().path);
        for part in self.parts() {
            let sources: Vec<Column> = columns.iter().map(|column| column.source.clone()).collect();
            let mut batch = Batch::new(sources.len());
            let mut reader = self.reader(part, sources)?;
            while guarded(path, || reader.next(&mut batch))? {
                if !add(&batch) {
                    return Ok(());
                }
            }
        }
        Ok(())
    }
}

impl ResolvedView {
    /// The attributes of the rows of a table of images that belong to a split, and which of the rows pass the filters.
    /// All rows are there; one that does not pass has a missing value where it cannot have one.
    ///
    /// # Errors
    /// [`DataError::NoSuchColumn`], [`DataError::NotAnAttribute`], [`DataError::ClassOutOfRange`],
    /// [`DataError::Derive`], [`DataError::Filter`].
    pub fn apply(&self, table: &Table, split: &str) -> Result<(Vec<LabelColumn>, Vec<bool>), DataError> {
        let mut batch = Batch::new(self.sources.len());
        batch.rows = table.rows();
        batch.address = "dataset".to_owned();
        for (source, cells) in self.sources.iter().zip(&mut batch.cells) {
            match source {
                Column::Split => cells.fill(Some(split), table.rows()),
                Column::ImagePath => {
                    let mut interner = Interner::new(self.missing.clone(), false);
                    cells.codes = (0..table.rows()).map(|row| interner.code(table.path(row))).collect();
                    cells.words = interner.words();
                }
                Column::Own(name) => *cells = self.cells(table, name)?,
            }
        }
        let mut evaluator = Evaluator::new(self);
        let keep = evaluator.all(&batch)?;
        Ok((evaluator.columns, keep))
    }

    fn cells(&self, table: &Table, name: &str) -> Result<Cells, DataError> {
        let array = table.column(name)?;
        let mut interner = Interner::new(self.missing.clone(), array.data_type().is_floating());
        let mut cells = Cells::default();
        arrays::push(name, array, table.features.get(name), &mut interner, &mut cells.codes)?;
        cells.words = interner.words();
        Ok(cells)
    }
}
