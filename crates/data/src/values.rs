//! Attribute values as text: what a column's cell is called when groups are counted.

use arrow_array::cast::AsArray;
use arrow_array::{Array, ArrayRef};
use arrow_schema::DataType;

use crate::columns::{float_at, integer_at, text_at};
use crate::error::DataError;
use crate::features::{Feature, is_text};

/// See [`Table::values`](crate::Table::values).
pub(crate) fn values(
    column: &str,
    array: &ArrayRef,
    feature: Option<&Feature>,
) -> Result<Vec<Option<String>>, DataError> {
    match feature {
        Some(Feature::ClassLabel { names }) if array.data_type().is_integer() => class_names(column, array, names),
        _ => texts(column, array),
    }
}

fn class_names(column: &str, array: &ArrayRef, names: &[String]) -> Result<Vec<Option<String>>, DataError> {
    let name = |row| match integer_at(array, row) {
        None | Some(-1) => Ok(None),
        Some(index) => match usize::try_from(index).ok().and_then(|index| names.get(index)) {
            Some(name) => Ok(Some(name.clone())),
            None => {
                let index = i64::try_from(index).unwrap_or(i64::MAX);
                Err(DataError::ClassOutOfRange { column: column.to_owned(), row, index, classes: names.len() })
            }
        },
    };
    (0..array.len()).map(name).collect()
}

fn texts(column: &str, array: &ArrayRef) -> Result<Vec<Option<String>>, DataError> {
    let rows = 0..array.len();
    let refuse = |problem: String| Err(DataError::NotAnAttribute { column: column.to_owned(), problem });
    match array.data_type() {
        DataType::Null => Ok(vec![None; array.len()]),
        DataType::Boolean => {
            let flags = array.as_boolean();
            Ok(flags.iter().map(|flag| flag.map(|flag| flag.to_string())).collect())
        }
        data_type if data_type.is_integer() => {
            Ok(rows.map(|row| integer_at(array, row).map(|number| number.to_string())).collect())
        }
        data_type if is_text(data_type) => Ok(rows.map(|row| text_at(array, row).map(str::to_owned)).collect()),
        data_type if data_type.is_floating() => rows.map(|row| whole_number(column, array, row)).collect(),
        DataType::Dictionary(_, _) => {
            let dictionary = array.as_any_dictionary();
            let words = texts(column, dictionary.values())?;
            let keys = dictionary.normalized_keys();
            let word = |row: usize| words.get(*keys.get(row)?).cloned().flatten();
            Ok(rows.map(|row| if array.is_null(row) { None } else { word(row) }).collect())
        }
        other => refuse(format!("holds {other}, which cannot name groups; use text, whole numbers or yes/no")),
    }
}

fn whole_number(column: &str, array: &ArrayRef, row: usize) -> Result<Option<String>, DataError> {
    match float_at(array, row) {
        None => Ok(None),
        Some(number) if number.is_nan() => Ok(None),
        // Whole numbers up to 2^53 are exact in every floating-point type that can hold them.
        Some(number) if number.fract() == 0.0 && number.abs() <= 9_007_199_254_740_992.0 => {
            Ok(Some((number as i64).to_string()))
        }
        Some(number) => {
            let problem =
                format!("holds measurements such as {number}; say with `derive` and `bins` how to group them");
            Err(DataError::NotAnAttribute { column: column.to_owned(), problem })
        }
    }
}
