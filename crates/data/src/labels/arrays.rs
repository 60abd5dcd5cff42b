//! Arrow arrays as codes and words: the values that [`Table::values`](crate::Table::values) gives, but each distinct
//! value is turned into text once, and measurements stay numbers for bins and filters.

use std::collections::HashMap;
use std::hash::Hash;

use arrow_array::cast::AsArray;
use arrow_array::{Array, ArrayRef};
use arrow_schema::DataType;

use super::words::Interner;
use crate::columns::{float_at, integer_at, text_at};
use crate::error::DataError;
use crate::features::{Feature, is_text};

/// Largest whole number up to which every whole number is exact in a floating-point type.
const EXACT: f64 = 9_007_199_254_740_992.0;

/// Appends the codes of an array's rows.
pub(crate) fn push(
    column: &str,
    array: &ArrayRef,
    feature: Option<&Feature>,
    interner: &mut Interner,
    codes: &mut Vec<u32>,
) -> Result<(), DataError> {
    let rows = 0..array.len();
    match (feature, array.data_type()) {
        (Some(Feature::ClassLabel { names }), data_type) if data_type.is_integer() => {
            let name = |index: i128, row: usize| match usize::try_from(index).ok().and_then(|index| names.get(index)) {
                Some(name) => Ok(Some(name.clone())),
                None if index == -1 => Ok(None),
                None => Err(DataError::ClassOutOfRange {
                    column: column.to_owned(),
                    row,
                    index: i64::try_from(index).unwrap_or(i64::MAX),
                    classes: names.len(),
                }),
            };
            each(rows, |row| integer_at(array, row), name, interner, codes)
        }
        (_, DataType::Null) => each(rows, |_| None::<bool>, |_, _| Ok(None), interner, codes),
        (_, DataType::Boolean) => {
            let flags = array.as_boolean();
            let flag = |row| flags.is_valid(row).then(|| flags.value(row));
            each(rows, flag, |flag, _| Ok(Some(flag.to_string())), interner, codes)
        }
        (_, data_type) if data_type.is_integer() => {
            each(rows, |row| integer_at(array, row), |number, _| Ok(Some(number.to_string())), interner, codes)
        }
        (_, data_type) if data_type.is_floating() => {
            let bits = |row| float_at(array, row).map(f64::to_bits);
            each(rows, bits, |bits, _| Ok(number_text(f64::from_bits(bits))), interner, codes)
        }
        (_, data_type) if is_text(data_type) => {
            codes.extend(rows.map(|row| interner.code(text_at(array, row))));
            Ok(())
        }
        (_, DataType::Dictionary(_, _)) => push_dictionary(column, array, interner, codes),
        (_, other) => Err(not_an_attribute(column, &other.to_string())),
    }
}

/// The error for a type whose values cannot name groups.
pub(crate) fn not_an_attribute(column: &str, holds: &str) -> DataError {
    let problem = format!("holds {holds}, which cannot name groups; use text, whole numbers or yes/no");
    DataError::NotAnAttribute { column: column.to_owned(), problem }
}

/// A number as text: whole numbers as digits, NaN as missing. Whole numbers that are too large to be exact are written
/// with an exponent, so they are not taken for digits.
pub(crate) fn number_text(number: f64) -> Option<String> {
    if number.is_nan() {
        None
    } else if number == 0.0 {
        Some("0".to_owned())
    } else if number.fract() == 0.0 && number.abs() > EXACT {
        Some(format!("{number:e}"))
    } else {
        Some(number.to_string())
    }
}

/// Codes of rows whose value is `key`; the text is made once for each distinct one.
fn each<K: Copy + Eq + Hash>(
    rows: std::ops::Range<usize>,
    key: impl Fn(usize) -> Option<K>,
    text: impl Fn(K, usize) -> Result<Option<String>, DataError>,
    interner: &mut Interner,
    codes: &mut Vec<u32>,
) -> Result<(), DataError> {
    let mut known: HashMap<K, u32> = HashMap::new();
    let mut last: Option<(K, u32)> = None;
    for row in rows {
        let code = match (key(row), last) {
            (None, _) => interner.code(None),
            (Some(key), Some((same, code))) if key == same => code,
            (Some(key), _) => {
                let code = match known.get(&key) {
                    Some(&code) => code,
                    None => {
                        let code = interner.code(text(key, row)?.as_deref());
                        known.insert(key, code);
                        code
                    }
                };
                last = Some((key, code));
                code
            }
        };
        codes.push(code);
    }
    Ok(())
}

fn push_dictionary(
    column: &str,
    array: &ArrayRef,
    interner: &mut Interner,
    codes: &mut Vec<u32>,
) -> Result<(), DataError> {
    let dictionary = array.as_any_dictionary();
    if dictionary.values().is_empty() {
        codes.extend((0..array.len()).map(|_| interner.code(None)));
        return Ok(());
    }
    let mut words = Vec::new();
    push(column, dictionary.values(), None, interner, &mut words)?;
    let keys = dictionary.normalized_keys();
    for (row, &key) in keys.iter().enumerate() {
        let code = match words.get(key) {
            Some(&code) if array.is_valid(row) => code,
            _ => interner.code(None),
        };
        codes.push(code);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow_array::types::Int8Type;
    use arrow_array::{BooleanArray, DictionaryArray, Float64Array, Int64Array, StringArray};

    use super::*;

    fn texts(array: ArrayRef, feature: Option<&Feature>) -> Result<Vec<Option<String>>, DataError> {
        let (mut interner, mut codes) = (Interner::new(Arc::default(), false), Vec::new());
        push("c", &array, feature, &mut interner, &mut codes)?;
        let words = interner.words();
        Ok(codes.iter().map(|&code| words.values[code as usize].clone()).collect())
    }

    fn words(words: &[Option<&str>]) -> Vec<Option<String>> {
        words.iter().map(|word| word.map(str::to_owned)).collect()
    }

    type Case<'a> = (ArrayRef, Option<&'a Feature>, &'a [Option<&'a str>]);

    #[test]
    fn every_type_becomes_the_text_that_the_table_of_images_gives() {
        let dictionary: DictionaryArray<Int8Type> = [Some("red"), None, Some("red")].into_iter().collect();
        let label = Feature::ClassLabel { names: vec!["cat".into(), "dog".into()] };
        let cases: [Case<'_>; 6] = [
            (Arc::new(Int64Array::from(vec![Some(1), Some(-1), None])), Some(&label), &[Some("dog"), None, None]),
            (Arc::new(Int64Array::from(vec![Some(1), Some(-1), None])), None, &[Some("1"), Some("-1"), None]),
            (Arc::new(BooleanArray::from(vec![Some(true), None])), None, &[Some("true"), None]),
            (
                Arc::new(Float64Array::from(vec![3.0, -0.0, 0.5, f64::NAN, 1e300])),
                None,
                &[Some("3"), Some("0"), Some("0.5"), None, Some("1e300")],
            ),
            (Arc::new(StringArray::from(vec![Some(""), None])), None, &[Some(""), None]),
            (Arc::new(dictionary), None, &[Some("red"), None, Some("red")]),
        ];
        for (array, feature, expected) in cases {
            assert_eq!(texts(array, feature).unwrap(), words(expected));
        }
        let error = texts(Arc::new(Int64Array::from(vec![0, 7])), Some(&label)).unwrap_err().to_string();
        assert!(error.contains("row 1: class index 7 is outside the 2 class names"), "{error}");
    }
}
