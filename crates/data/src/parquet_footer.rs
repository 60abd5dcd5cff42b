//! Checks of what the footers of a table's Parquet files say.

use std::path::Path;

use arrow_schema::Schema;
use parquet::arrow::arrow_reader::ArrowReaderMetadata;
use parquet::file::metadata::RowGroupMetaData;

use crate::error::DataError;
use crate::features::Features;

/// More rows than this in one file are a damaged footer.
const MAX_ROWS: i64 = 1 << 31;

/// The rows of a row group.
pub(crate) fn rows_of(group: &RowGroupMetaData) -> usize {
    usize::try_from(group.num_rows()).unwrap_or(0)
}

/// The row groups must add up to the rows of the file.
pub(crate) fn check_row_counts(path: &Path, footer: &ArrowReaderMetadata) -> Result<(), DataError> {
    let groups = footer.metadata().row_groups();
    let counted = groups.iter().try_fold(0i64, |sum, group| sum.checked_add(group.num_rows()));
    let sound = groups.iter().all(|group| group.num_rows() >= 0)
        && counted
            .is_some_and(|rows| (0..MAX_ROWS).contains(&rows) && rows == footer.metadata().file_metadata().num_rows());
    if sound {
        return Ok(());
    }
    let problem = "the row counts in its footer contradict each other".into();
    Err(DataError::Parquet { path: path.to_path_buf(), problem })
}

/// All files need the same columns in any order, and the same class names.
pub(crate) fn check_columns(
    path: &Path,
    schema: &Schema,
    expected: &Schema,
    features: &Features,
) -> Result<(), DataError> {
    let differs = |problem: String| Err(DataError::SchemaMismatch { path: path.to_path_buf(), problem });
    for field in expected.fields() {
        match schema.field_with_name(field.name()) {
            Err(_) => return differs(format!("column `{}` is missing", field.name())),
            Ok(own) if own.data_type() != field.data_type() => {
                let (own, other) = (own.data_type(), field.data_type());
                return differs(format!("column `{}` is {own}, elsewhere {other}", field.name()));
            }
            Ok(_) => {}
        }
    }
    if let Some(extra) = schema.fields().iter().find(|field| expected.field_with_name(field.name()).is_err()) {
        return differs(format!("column `{}` is not in the other files", extra.name()));
    }
    let own = Features::of_schema(schema);
    let mut names = features.iter().map(|(name, _)| name);
    match names.find(|name| own.class_names(name) != features.class_names(name)) {
        Some(name) => differs(format!("the class names of `{name}` differ from those of the other files")),
        None => Ok(()),
    }
}
