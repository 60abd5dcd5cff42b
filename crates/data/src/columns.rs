//! Looking into Arrow columns whose exact type a stranger chose.

use std::sync::Arc;

use arrow_array::cast::AsArray;
use arrow_array::types::{
    Float16Type, Float32Type, Float64Type, Int8Type, Int16Type, Int32Type, Int64Type, UInt8Type, UInt16Type,
    UInt32Type, UInt64Type,
};
use arrow_array::{Array, ArrayRef, BinaryArray, StringArray, StructArray};
use arrow_schema::{DataType, Field, Fields};

/// The Arrow type of every image column that leaves this crate: struct<bytes: binary, path: utf8>.
pub(crate) fn image_fields() -> Fields {
    Fields::from(vec![Field::new("bytes", DataType::Binary, true), Field::new("path", DataType::Utf8, true)])
}

/// An image column from its two parts.
pub(crate) fn image_array(bytes: BinaryArray, path: StringArray) -> Result<StructArray, arrow_schema::ArrowError> {
    StructArray::try_new(image_fields(), vec![Arc::new(bytes), Arc::new(path)], None)
}

/// A struct of image files in the one type that they leave this crate in, rows that are null staying so; anything else as
/// it is.
pub(crate) fn as_images(array: ArrayRef) -> Result<ArrayRef, arrow_schema::ArrowError> {
    let Some(files) = array.as_struct_opt().filter(|_| array.data_type() != &DataType::Struct(image_fields())) else {
        return Ok(array);
    };
    let Some(bytes) = files.column_by_name("bytes") else { return Ok(array) };
    let rows = 0..array.len();
    let path = |row| files.column_by_name("path").and_then(|path| text_at(path, row));
    let columns: Vec<ArrayRef> = vec![
        Arc::new(rows.clone().map(|row| bytes_at(bytes, row)).collect::<BinaryArray>()),
        Arc::new(rows.map(path).collect::<StringArray>()),
    ];
    Ok(Arc::new(StructArray::try_new(image_fields(), columns, files.nulls().cloned())?))
}

/// The text in a row of a text column of any kind; none where it is null or the column is not text.
pub(crate) fn text_at(array: &dyn Array, row: usize) -> Option<&str> {
    if row >= array.len() || array.is_null(row) {
        return None;
    }
    match array.data_type() {
        DataType::Utf8 => array.as_string_opt::<i32>().map(|texts| texts.value(row)),
        DataType::LargeUtf8 => array.as_string_opt::<i64>().map(|texts| texts.value(row)),
        DataType::Utf8View => array.as_string_view_opt().map(|texts| texts.value(row)),
        _ => None,
    }
}

/// The bytes in a row of a binary column of any kind; none where they are null or the column is not binary.
pub(crate) fn bytes_at(array: &dyn Array, row: usize) -> Option<&[u8]> {
    if row >= array.len() || array.is_null(row) {
        return None;
    }
    match array.data_type() {
        DataType::Binary => array.as_binary_opt::<i32>().map(|blobs| blobs.value(row)),
        DataType::LargeBinary => array.as_binary_opt::<i64>().map(|blobs| blobs.value(row)),
        DataType::BinaryView => array.as_binary_view_opt().map(|blobs| blobs.value(row)),
        _ => None,
    }
}

/// The whole number in a row of an integer column of any kind; none where it is null or the column holds none.
pub(crate) fn integer_at(array: &dyn Array, row: usize) -> Option<i128> {
    if row >= array.len() || array.is_null(row) {
        return None;
    }
    Some(match array.data_type() {
        DataType::Int8 => array.as_primitive_opt::<Int8Type>()?.value(row).into(),
        DataType::Int16 => array.as_primitive_opt::<Int16Type>()?.value(row).into(),
        DataType::Int32 => array.as_primitive_opt::<Int32Type>()?.value(row).into(),
        DataType::Int64 => array.as_primitive_opt::<Int64Type>()?.value(row).into(),
        DataType::UInt8 => array.as_primitive_opt::<UInt8Type>()?.value(row).into(),
        DataType::UInt16 => array.as_primitive_opt::<UInt16Type>()?.value(row).into(),
        DataType::UInt32 => array.as_primitive_opt::<UInt32Type>()?.value(row).into(),
        DataType::UInt64 => array.as_primitive_opt::<UInt64Type>()?.value(row).into(),
        _ => return None,
    })
}

/// The number in a row of a floating-point column; none where it is null or the column holds none.
pub(crate) fn float_at(array: &dyn Array, row: usize) -> Option<f64> {
    if row >= array.len() || array.is_null(row) {
        return None;
    }
    Some(match array.data_type() {
        DataType::Float16 => array.as_primitive_opt::<Float16Type>()?.value(row).to_f64(),
        DataType::Float32 => array.as_primitive_opt::<Float32Type>()?.value(row).into(),
        DataType::Float64 => array.as_primitive_opt::<Float64Type>()?.value(row),
        _ => return None,
    })
}

/// The field of a struct column by name.
pub(crate) fn child<'a>(array: &'a dyn Array, name: &str) -> Option<&'a ArrayRef> {
    array.as_struct_opt()?.column_by_name(name)
}
