//! The rows of one unit in memory.

use arrow_array::{Array, RecordBatch};

use crate::columns::{bytes_at, child, float_at, integer_at, text_at};
use crate::error::DataError;
use crate::features::Features;
use crate::values::values;
use evenset_core::nearest;

/// Rows with their image files, as [`Dataset::read`](crate::Dataset::read) gives them.
#[derive(Clone, Debug)]
pub struct Table {
    /// All columns; the image column is struct<bytes: binary, path: utf8>, every other one as it stands in the data.
    pub batch: RecordBatch,
    /// What the columns hold.
    pub features: Features,
    /// The name of the image column.
    pub image: String,
    /// Rows whose image file could not be read, by row, each with the reason. Their bytes are null.
    pub errors: Vec<(usize, String)>,
}

impl Table {
    /// How many rows there are.
    pub fn rows(&self) -> usize {
        self.batch.num_rows()
    }

    /// The image file of a row and its path; none where it could not be read.
    pub fn image(&self, row: usize) -> Option<(&[u8], Option<&str>)> {
        let bytes = child(self.batch.column_by_name(&self.image)?, "bytes")?;
        bytes_at(bytes, row).map(|bytes| (bytes, self.path(row)))
    }

    /// The path of a row's image file, whether it could be read or not.
    pub fn path(&self, row: usize) -> Option<&str> {
        text_at(child(self.batch.column_by_name(&self.image)?, "path")?, row)
    }

    /// The reason why a row's image file could not be read.
    pub fn error(&self, row: usize) -> Option<&str> {
        self.errors.iter().find(|(broken, _)| *broken == row).map(|(_, reason)| reason.as_str())
    }

    /// The values of an attribute as text, one a row, none where it is missing.
    ///
    /// A class label gives its class name (-1 and null are missing), a dictionary its words, booleans `true` and
    /// `false`, whole numbers their digits; floating-point numbers too where all of them are whole (NaN is missing).
    ///
    /// # Errors
    /// [`DataError::NoSuchColumn`] with the most similar name, [`DataError::ClassOutOfRange`], or
    /// [`DataError::NotAnAttribute`] for measurements and for types that cannot name groups.
    pub fn values(&self, column: &str) -> Result<Vec<Option<String>>, DataError> {
        values(column, self.column(column)?, self.features.get(column))
    }

    /// The values of a numeric column, one a row, none where it is missing or NaN. A class label gives its index.
    ///
    /// # Errors
    /// [`DataError::NoSuchColumn`], or [`DataError::NotAnAttribute`] where the column is not numeric.
    pub fn numbers(&self, column: &str) -> Result<Vec<Option<f64>>, DataError> {
        let array = self.column(column)?;
        if !array.data_type().is_integer() && !array.data_type().is_floating() {
            let problem = format!("holds {}, not numbers", array.data_type());
            return Err(DataError::NotAnAttribute { column: column.to_owned(), problem });
        }
        let number = |row| integer_at(array, row).map(|whole| whole as f64).or_else(|| float_at(array, row));
        Ok((0..array.len()).map(|row| number(row).filter(|number| !number.is_nan())).collect())
    }

    pub(crate) fn column(&self, column: &str) -> Result<&arrow_array::ArrayRef, DataError> {
        self.batch.column_by_name(column).ok_or_else(|| {
            let schema = self.batch.schema();
            no_such_column(column, schema.fields().iter().map(|field| field.name().as_str()))
        })
    }
}

/// The error for a column that is not there.
pub(crate) fn no_such_column<'a>(column: &str, columns: impl Iterator<Item = &'a str> + Clone) -> DataError {
    DataError::NoSuchColumn {
        column: column.to_owned(),
        nearest: nearest(column, columns.clone()).map(str::to_owned),
        columns: columns.map(str::to_owned).collect(),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow_array::types::Int8Type;
    use arrow_array::{
        ArrayRef, BooleanArray, DictionaryArray, Float32Array, Float64Array, Int64Array, LargeStringArray, StringArray,
        UInt64Array,
    };

    use super::*;
    use crate::features::Feature;

    fn table(columns: Vec<(&str, ArrayRef)>) -> Table {
        let batch = RecordBatch::try_from_iter(columns).unwrap();
        let mut features = Features::of_schema(&batch.schema());
        if features.get("label").is_some() {
            features.insert("label", Feature::ClassLabel { names: vec!["cat".into(), "dog".into()] });
        }
        Table { batch, features, image: "image".into(), errors: vec![] }
    }

    fn words(values: &[Option<&str>]) -> Vec<Option<String>> {
        values.iter().map(|value| value.map(str::to_owned)).collect()
    }

    #[test]
    fn every_type_that_can_name_a_group_becomes_text() {
        let dictionary: DictionaryArray<Int8Type> = [Some("red"), None, Some("red")].into_iter().collect();
        let table = table(vec![
            ("label", Arc::new(Int64Array::from(vec![Some(1), Some(-1), None]))),
            ("flag", Arc::new(BooleanArray::from(vec![Some(true), Some(false), None]))),
            ("big", Arc::new(UInt64Array::from(vec![u64::MAX, 0, 1]))),
            ("whole", Arc::new(Float32Array::from(vec![Some(3.0), Some(f32::NAN), None]))),
            ("text", Arc::new(LargeStringArray::from(vec![Some("a"), Some(""), None]))),
            ("colour", Arc::new(dictionary)),
        ]);
        assert_eq!(table.values("label").unwrap(), words(&[Some("dog"), None, None]));
        assert_eq!(table.values("flag").unwrap(), words(&[Some("true"), Some("false"), None]));
        assert_eq!(table.values("big").unwrap(), words(&[Some("18446744073709551615"), Some("0"), Some("1")]));
        assert_eq!(table.values("whole").unwrap(), words(&[Some("3"), None, None]));
        assert_eq!(table.values("text").unwrap(), words(&[Some("a"), Some(""), None]));
        assert_eq!(table.values("colour").unwrap(), words(&[Some("red"), None, Some("red")]));
    }

    #[test]
    fn a_class_index_without_a_name_is_an_error_that_names_it() {
        let error = table(vec![("label", Arc::new(Int64Array::from(vec![0, 7])))]).values("label").unwrap_err();
        assert!(error.to_string().contains("row 1: class index 7 is outside the 2 class names"), "{error}");
    }

    #[test]
    fn measurements_ask_for_bins_and_give_numbers() {
        let table = table(vec![("age", Arc::new(Float64Array::from(vec![Some(1.5), None])))]);
        assert!(table.values("age").unwrap_err().to_string().contains("bins"));
        assert_eq!(table.numbers("age").unwrap(), [Some(1.5), None]);
    }

    #[test]
    fn an_unknown_column_is_answered_with_the_columns_and_the_nearest_name() {
        let table = table(vec![("colour", Arc::new(StringArray::from(vec!["red"])))]);
        assert_eq!(
            table.values("color").unwrap_err().to_string(),
            "there is no column `color` (did you mean `colour`?); the columns are: colour"
        );
    }
}
