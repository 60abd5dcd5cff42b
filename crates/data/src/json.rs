//! One cell of a column as JSON.

use arrow_array::cast::AsArray;
use arrow_array::types::{
    Date32Type, Date64Type, TimestampMicrosecondType, TimestampMillisecondType, TimestampNanosecondType,
    TimestampSecondType,
};
use arrow_array::{Array, RecordBatch};
use arrow_schema::{DataType, TimeUnit};
use serde_json::{Map, Number, Value};

use crate::columns::{bytes_at, float_at, integer_at, text_at};
use crate::features::{Feature, Features, is_text};

/// The cell as JSON: a class label by its name, dates as text, bytes as their count, what has no form in JSON as null.
pub(crate) fn cell(array: &dyn Array, row: usize, feature: Option<&Feature>) -> Value {
    if row >= array.len() || array.is_null(row) {
        return Value::Null;
    }
    if let Some(whole) = integer_at(array, row) {
        return match feature {
            Some(Feature::ClassLabel { names }) => class_name(names, whole),
            _ => i64::try_from(whole).map(Value::from).or_else(|_| u64::try_from(whole).map(Value::from)).into_value(),
        };
    }
    match array.data_type() {
        DataType::Boolean => Value::Bool(array.as_boolean().value(row)),
        data_type if is_text(data_type) => text_at(array, row).into_value(),
        data_type if data_type.is_floating() => float_at(array, row).and_then(Number::from_f64).into_value(),
        DataType::Dictionary(_, _) => {
            let dictionary = array.as_any_dictionary();
            dictionary.normalized_keys().get(row).map(|&key| cell(dictionary.values(), key, None)).into_value()
        }
        DataType::Struct(fields) => {
            let columns = array.as_struct().columns().iter();
            fields.iter().zip(columns).map(|(field, column)| (field.name().clone(), cell(column, row, None))).collect()
        }
        DataType::List(_) => items(&array.as_list::<i32>().value(row)),
        DataType::LargeList(_) => items(&array.as_list::<i64>().value(row)),
        DataType::FixedSizeList(_, _) => items(&array.as_fixed_size_list().value(row)),
        DataType::Date32 => {
            array.as_primitive::<Date32Type>().value_as_date(row).map(|date| date.to_string()).into_value()
        }
        DataType::Date64 => {
            array.as_primitive::<Date64Type>().value_as_date(row).map(|date| date.to_string()).into_value()
        }
        DataType::Timestamp(unit, _) => {
            let time = match unit {
                TimeUnit::Second => array.as_primitive::<TimestampSecondType>().value_as_datetime(row),
                TimeUnit::Millisecond => array.as_primitive::<TimestampMillisecondType>().value_as_datetime(row),
                TimeUnit::Microsecond => array.as_primitive::<TimestampMicrosecondType>().value_as_datetime(row),
                TimeUnit::Nanosecond => array.as_primitive::<TimestampNanosecondType>().value_as_datetime(row),
            };
            time.map(|time| time.to_string()).into_value()
        }
        _ => bytes_at(array, row).map(|bytes| format!("({} bytes)", bytes.len())).into_value(),
    }
}

/// A row as a JSON object of the columns that `keep` names, in column order.
pub(crate) fn row_object(
    batch: &RecordBatch,
    row: usize,
    features: &Features,
    keep: impl Fn(&str) -> bool,
) -> Map<String, Value> {
    let schema = batch.schema();
    let columns = schema.fields().iter().zip(batch.columns()).filter(|(field, _)| keep(field.name()));
    columns.map(|(field, array)| (field.name().clone(), cell(array, row, features.get(field.name())))).collect()
}

fn class_name(names: &[String], index: i128) -> Value {
    usize::try_from(index).ok().and_then(|index| names.get(index)).map(String::as_str).into_value()
}

fn items(array: &dyn Array) -> Value {
    (0..array.len()).map(|row| cell(array, row, None)).collect()
}

/// Nothing, or a failed conversion, is null.
trait IntoValue {
    fn into_value(self) -> Value;
}

impl<T: Into<Value>> IntoValue for Option<T> {
    fn into_value(self) -> Value {
        self.map_or(Value::Null, Into::into)
    }
}

impl<T: Into<Value>, E> IntoValue for Result<T, E> {
    fn into_value(self) -> Value {
        self.ok().into_value()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow_array::types::Int32Type;
    use arrow_array::{ArrayRef, DictionaryArray, Float64Array, Int64Array, ListArray, StringArray, UInt64Array};
    use serde_json::json;

    use super::*;

    #[test]
    fn a_row_becomes_an_object_with_class_names_in_column_order() {
        let list = ListArray::from_iter_primitive::<Int32Type, _, _>([Some([Some(1), None])]);
        let dictionary: DictionaryArray<Int32Type> = ["red"].into_iter().collect();
        let columns: Vec<(&str, ArrayRef)> = vec![
            ("label", Arc::new(Int64Array::from(vec![1]))),
            ("text", Arc::new(StringArray::from(vec!["x"]))),
            ("nan", Arc::new(Float64Array::from(vec![f64::NAN]))),
            ("list", Arc::new(list)),
            ("colour", Arc::new(dictionary)),
            ("big", Arc::new(UInt64Array::from(vec![u64::MAX]))),
            ("left_out", Arc::new(Int64Array::from(vec![1]))),
        ];
        let batch = RecordBatch::try_from_iter(columns).unwrap();
        let mut features = Features::of_schema(&batch.schema());
        features.insert("label", Feature::ClassLabel { names: vec!["cat".into(), "dog".into()] });
        let object = row_object(&batch, 0, &features, |name| name != "left_out");
        let expected = json!({
            "label": "dog", "text": "x", "nan": null, "list": [1, null], "colour": "red", "big": u64::MAX
        });
        assert_eq!(Value::Object(object).to_string(), expected.to_string());
    }
}
