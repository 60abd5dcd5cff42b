//! Tables of labels from outside: real files in temporary folders.

mod formats;
mod guessing;
mod images;
mod pages;
mod remote;
mod views;

use std::fs;
use std::path::Path;

use evenset_core::Silent;

use super::{LabelColumn, LabelSpec, LabelTable, View};
use crate::error::DataError;

/// Rows of texts; `-` is missing.
type Rows = Vec<Vec<String>>;

fn write(folder: &Path, files: &[(&str, &str)]) {
    for (name, content) in files {
        let path = folder.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    }
}

fn spec(path: &Path) -> LabelSpec {
    LabelSpec { path: path.to_str().unwrap().to_owned(), ..LabelSpec::default() }
}

fn open(path: &Path) -> Result<LabelTable, DataError> {
    LabelTable::open(&spec(path))
}

fn names(table: &LabelTable) -> Vec<&str> {
    table.columns().iter().map(|column| column.name.as_str()).collect()
}

/// Rows as texts from the columns of a batch.
fn texts(columns: &[LabelColumn]) -> Rows {
    let rows = columns.first().map_or(0, |column| column.codes.len());
    let text = |column: &LabelColumn, row: usize| {
        assert_eq!(column.codes.len(), rows);
        column.values[column.codes[row] as usize].clone().unwrap_or_else(|| "-".to_owned())
    };
    (0..rows).map(|row| columns.iter().map(|column| text(column, row)).collect()).collect()
}

/// All rows of a view.
fn view_rows(table: &LabelTable, view: &View) -> Result<Rows, DataError> {
    let view = table.view(view, &Silent)?;
    let add = |rows: &mut Rows, columns: &[LabelColumn]| {
        for column in columns {
            let distinct: std::collections::HashSet<_> = column.values.iter().collect();
            assert_eq!(distinct.len(), column.values.len(), "values stand once");
        }
        rows.extend(texts(columns));
        Ok::<_, DataError>(())
    };
    Ok(table.fold(&view, &Silent, Rows::new, add)?.concat())
}

/// All rows of some columns.
fn rows(table: &LabelTable, columns: &[&str]) -> Result<Rows, DataError> {
    let attributes = columns.iter().map(|&column| column.to_owned()).collect();
    view_rows(table, &View { attributes, ..View::default() })
}

/// Rows written as `a b|c d`.
fn expected(text: &str) -> Rows {
    text.split('|').map(|row| row.split(' ').map(str::to_owned).collect()).collect()
}
