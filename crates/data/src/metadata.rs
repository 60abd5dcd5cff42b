//! The metadata file of an image folder: `metadata.jsonl`, `metadata.csv` or `metadata.parquet`.
//!
//! One row an image, `file_name` relative to the metadata file, any other columns. The types of the columns are those
//! that hold every value of all metadata files of the dataset; rows may lack keys. A row that is not well-formed stays
//! a row, with the reason in place of its file.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow_array::{Array, ArrayRef, BooleanArray, Float64Array, Int64Array, RecordBatch, StringArray};
use arrow_schema::{Field, FieldRef, Schema};
use arrow_select::concat::concat_batches;
use serde_json::{Map, Number, Value};

use crate::columns::text_at;
use crate::error::DataError;
use crate::features::{Features, is_text};
use crate::files::Found;
use crate::rows::read_parquet;

const NAMES: [&str; 3] = ["metadata.jsonl", "metadata.csv", "metadata.parquet"];
const FILE_NAME: &str = "file_name";
const MAX_FILE_BYTES: u64 = 1 << 30;

/// All rows of the metadata files of a dataset, file after file.
pub(crate) struct Metadata {
    /// For each file its rows' file names as they stand there, or the reason why a row names none.
    pub names: Vec<Vec<Found>>,
    /// The other columns, over the rows of all files.
    pub columns: Vec<(FieldRef, ArrayRef)>,
    /// What these columns hold.
    pub features: Features,
}

/// The metadata file in a folder, if there is one.
pub(crate) fn find(folder: &Path) -> Result<Option<PathBuf>, DataError> {
    let mut found = NAMES.iter().map(|name| folder.join(name)).filter(|path| path.is_file());
    let first = found.next();
    if first.is_some() && found.next().is_some() {
        let problem =
            "more than one metadata file; keep one of metadata.jsonl, metadata.csv and metadata.parquet".into();
        return Err(DataError::Layout { path: folder.to_path_buf(), problem });
    }
    Ok(first)
}

/// Reads metadata files, which must all be of one format.
pub(crate) fn read(paths: &[PathBuf]) -> Result<Metadata, DataError> {
    let format = |path: &Path| path.extension().and_then(|extension| extension.to_str()).unwrap_or_default().to_owned();
    let first = paths.first().map(|path| format(path)).unwrap_or_default();
    if let Some(other) = paths.iter().find(|path| format(path) != first) {
        let problem = format!("the metadata of the other splits is .{first}; use one format in all splits");
        return Err(DataError::Layout { path: other.clone(), problem });
    }
    match first.as_str() {
        "parquet" => read_tables(paths),
        "csv" => {
            let mut files = paths.iter().map(|path| csv_rows(path)).collect::<Result<Vec<_>, _>>()?;
            type_csv_columns(&mut files);
            Ok(assemble(files))
        }
        _ => Ok(assemble(paths.iter().map(|path| jsonl_rows(path)).collect::<Result<_, _>>()?)),
    }
}

/// A row of a JSONL or CSV file: the file it names, and the other values.
type Row = (Found, Map<String, Value>);

fn jsonl_rows(path: &Path) -> Result<Vec<Row>, DataError> {
    let bytes = read_whole(path)?;
    let lines = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(&bytes).split(|&byte| byte == b'\n').enumerate();
    let rows = lines.filter(|(_, line)| !line.trim_ascii().is_empty()).map(|(index, line)| {
        let object: Result<Map<String, Value>, _> = serde_json::from_slice(line);
        match object {
            Ok(mut object) => match object.shift_remove(FILE_NAME) {
                Some(Value::String(name)) => (Found { path: name, problem: None }, object),
                Some(_) => broken_row(path, index + 1, "`file_name` is not a text"),
                None => broken_row(path, index + 1, "there is no `file_name`"),
            },
            Err(error) => broken_row(path, index + 1, &format!("not a JSON object: {error}")),
        }
    });
    let rows: Vec<Row> = rows.collect();
    if rows.iter().all(|(name, _)| name.problem.is_some()) && !rows.is_empty() {
        let problem = rows.first().and_then(|(name, _)| name.problem.clone()).unwrap_or_default();
        return Err(metadata_error(path, format!("no line is a JSON object with a `file_name`: {problem}")));
    }
    Ok(rows)
}

fn csv_rows(path: &Path) -> Result<Vec<Row>, DataError> {
    let bytes = read_whole(path)?;
    let mut reader = csv::ReaderBuilder::new().flexible(true).from_reader(bytes.as_slice());
    let header = reader.headers().map_err(|error| metadata_error(path, error.to_string()))?.clone();
    let columns: Vec<&str> = header.iter().map(str::trim).collect();
    if let Some(twice) = columns.iter().enumerate().find(|(i, name)| columns[..*i].contains(name)) {
        return Err(metadata_error(path, format!("column `{}` stands twice in the first line", twice.1)));
    }
    let Some(place) = columns.iter().position(|column| *column == FILE_NAME) else {
        let problem = format!("there is no column `file_name`; the columns are: {}", columns.join(", "));
        return Err(metadata_error(path, problem));
    };
    let mut rows = Vec::new();
    for (index, record) in reader.records().enumerate() {
        let line =
            record.as_ref().ok().and_then(csv::StringRecord::position).map_or(index + 2, |at| at.line() as usize);
        let row = match record {
            Ok(record) if record.len() != columns.len() => {
                broken_row(path, line, &format!("{} cells for {} columns", record.len(), columns.len()))
            }
            Ok(record) => {
                let cells = columns.iter().zip(record.iter()).filter(|(column, _)| **column != FILE_NAME);
                let value = |cell: &str| if cell.is_empty() { Value::Null } else { Value::String(cell.to_owned()) };
                let values = cells.map(|(column, cell)| ((*column).to_owned(), value(cell))).collect();
                (Found { path: record.get(place).unwrap_or_default().to_owned(), problem: None }, values)
            }
            Err(error) => broken_row(path, line, &error.to_string()),
        };
        rows.push(row);
    }
    Ok(rows)
}

/// A metadata row that names no file; it is called by its line.
fn broken_row(path: &Path, line: usize, problem: &str) -> Row {
    let file = path.file_name().unwrap_or_default().to_string_lossy();
    (Found { path: format!("{file}:{line}"), problem: Some(format!("line {line} of {file}: {problem}")) }, Map::new())
}

fn read_whole(path: &Path) -> Result<Vec<u8>, DataError> {
    let io = |error| DataError::io(path, error);
    let bytes = path.metadata().map_err(io)?.len();
    if bytes > MAX_FILE_BYTES {
        return Err(DataError::TooLarge { path: path.to_path_buf(), bytes, limit: MAX_FILE_BYTES });
    }
    fs::read(path).map_err(io)
}

fn metadata_error(path: &Path, problem: String) -> DataError {
    DataError::Metadata { path: path.to_path_buf(), problem }
}

/// The type of a column: the least one that holds all of its values.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Type {
    Unknown,
    Bool,
    Int,
    Float,
    Text,
}

impl Type {
    fn of(value: &Value) -> Self {
        match value {
            Value::Null => Self::Unknown,
            Value::Bool(_) => Self::Bool,
            Value::Number(number) if number.is_i64() => Self::Int,
            Value::Number(number) if number.is_f64() => Self::Float,
            _ => Self::Text,
        }
    }

    fn with(self, other: Self) -> Self {
        match (self, other) {
            (one, another) if one == another => one,
            (Self::Unknown, known) | (known, Self::Unknown) => known,
            (Self::Int, Self::Float) | (Self::Float, Self::Int) => Self::Float,
            _ => Self::Text,
        }
    }
}

fn type_of_column<'a>(values: impl Iterator<Item = &'a Value>) -> Type {
    values.fold(Type::Unknown, |known, value| known.with(Type::of(value)))
}

/// CSV holds only text. A column whose every cell reads as a number or as true/false becomes that; `007` is a text.
fn type_csv_columns(files: &mut [Vec<Row>]) {
    for column in column_names(files) {
        let cells = files.iter().flatten().filter_map(|(_, values)| values.get(&column));
        let typed: Vec<Value> = cells.map(typed_cell).collect();
        if type_of_column(typed.iter()) == Type::Text {
            continue;
        }
        let places = files.iter_mut().flatten().filter_map(|(_, values)| values.get_mut(&column));
        for (place, value) in places.zip(typed) {
            *place = value;
        }
    }
}

fn typed_cell(cell: &Value) -> Value {
    let Value::String(text) = cell else { return Value::Null };
    match text.as_str() {
        "true" | "True" | "TRUE" => Value::Bool(true),
        "false" | "False" | "FALSE" => Value::Bool(false),
        // JSON's grammar of numbers has no leading zeros, signs or names for infinity.
        other => serde_json::from_str::<Number>(other).map_or_else(|_| cell.clone(), Value::Number),
    }
}

/// The columns of all rows in the order in which they first appear.
fn column_names(files: &[Vec<Row>]) -> Vec<String> {
    let mut order: Map<String, Value> = Map::new();
    for (_, values) in files.iter().flatten() {
        for name in values.keys() {
            if !order.contains_key(name) {
                order.insert(name.clone(), Value::Null);
            }
        }
    }
    order.into_iter().map(|(name, _)| name).collect()
}

fn assemble(files: Vec<Vec<Row>>) -> Metadata {
    let mut columns: Vec<(FieldRef, ArrayRef)> = Vec::new();
    for name in column_names(&files) {
        let values = || files.iter().flatten().map(|(_, values)| values.get(&name).unwrap_or(&Value::Null));
        let array: ArrayRef = match type_of_column(values()) {
            Type::Bool => Arc::new(BooleanArray::from_iter(values().map(Value::as_bool))),
            Type::Int => Arc::new(Int64Array::from_iter(values().map(Value::as_i64))),
            Type::Float => Arc::new(Float64Array::from_iter(values().map(Value::as_f64))),
            Type::Text | Type::Unknown => Arc::new(StringArray::from_iter(values().map(text_of))),
        };
        columns.push((Arc::new(Field::new(name, array.data_type().clone(), true)), array));
    }
    let schema = Schema::new(columns.iter().map(|(field, _)| Arc::clone(field)).collect::<Vec<_>>());
    let names = files.into_iter().map(|rows| rows.into_iter().map(|(name, _)| name).collect()).collect();
    Metadata { names, columns, features: Features::of_schema(&schema) }
}

fn text_of(value: &Value) -> Option<String> {
    match value {
        Value::Null => None,
        Value::String(text) => Some(text.clone()),
        other => Some(other.to_string()),
    }
}

fn read_tables(paths: &[PathBuf]) -> Result<Metadata, DataError> {
    let (mut tables, mut names): (Vec<RecordBatch>, _) = (Vec::new(), Vec::new());
    for path in paths {
        let batches = read_parquet(path)?;
        let Some(schema) = batches.first().map(RecordBatch::schema) else {
            names.push(Vec::new());
            continue;
        };
        if tables.first().is_some_and(|first| first.schema_ref().fields() != schema.fields()) {
            let problem = "its columns or their types differ from those of the other metadata files".into();
            return Err(DataError::SchemaMismatch { path: path.clone(), problem });
        }
        let table = concat_batches(&schema, &batches).map_err(DataError::arrow(path.display().to_string()))?;
        names.push(file_names(path, &table)?);
        tables.push(table);
    }
    let Some(schema) = tables.first().map(RecordBatch::schema) else {
        return Ok(Metadata { names, columns: Vec::new(), features: Features::new() });
    };
    let table = concat_batches(&schema, &tables).map_err(DataError::arrow("metadata.parquet"))?;
    let columns = schema.fields().iter().cloned().zip(table.columns().iter().cloned());
    let mut features = Features::of_schema(&schema);
    features.remove(FILE_NAME);
    Ok(Metadata { names, columns: columns.filter(|(field, _)| field.name() != FILE_NAME).collect(), features })
}

fn file_names(path: &Path, table: &RecordBatch) -> Result<Vec<Found>, DataError> {
    let column = table.column_by_name(FILE_NAME).filter(|column| is_text(column.data_type()));
    let column = column.ok_or_else(|| metadata_error(path, "there is no text column `file_name`".into()))?;
    let name = |row| match text_at(column, row) {
        Some(name) => Found { path: name.to_owned(), problem: None },
        None => broken_row(path, row + 1, "there is no `file_name`").0,
    };
    Ok((0..table.num_rows()).map(name).collect())
}

#[cfg(test)]
mod tests {
    use arrow_schema::DataType;

    use super::*;
    use crate::values::values;

    fn metadata(name: &str, content: &str) -> Result<Metadata, DataError> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(name);
        fs::write(&path, content).unwrap();
        read(&[path])
    }

    fn column(metadata: &Metadata, name: &str) -> (DataType, Vec<Option<String>>) {
        let (field, array) = metadata.columns.iter().find(|(field, _)| field.name() == name).unwrap();
        (field.data_type().clone(), values(name, array, None).unwrap())
    }

    fn words(words: [Option<&str>; 3]) -> Vec<Option<String>> {
        words.iter().map(|word| word.map(str::to_owned)).collect()
    }

    #[test]
    fn jsonl_columns_are_the_union_of_all_keys_with_the_type_that_holds_every_value() {
        let lines = "\u{feff}{\"file_name\":\"a.png\",\"n\":1,\"x\":1,\"mixed\":true}\n\n\
                     {\"file_name\":\"b.png\",\"n\":2,\"x\":2.0,\"mixed\":\"yes\",\"late\":false}\r\n\
                     {\"file_name\":\"c.png\",\"x\":null,\"nested\":{\"k\":[1]}}";
        let read = metadata("metadata.jsonl", lines).unwrap();
        assert_eq!(
            read.names[0].iter().map(|found| found.path.as_str()).collect::<Vec<_>>(),
            ["a.png", "b.png", "c.png"]
        );
        assert_eq!(column(&read, "n"), (DataType::Int64, words([Some("1"), Some("2"), None])));
        assert_eq!(column(&read, "x"), (DataType::Float64, words([Some("1"), Some("2"), None])));
        assert_eq!(column(&read, "mixed"), (DataType::Utf8, words([Some("true"), Some("yes"), None])));
        assert_eq!(column(&read, "late"), (DataType::Boolean, words([None, Some("false"), None])));
        assert_eq!(column(&read, "nested").1, words([None, None, Some("{\"k\":[1]}")]));
    }

    #[test]
    fn csv_columns_get_the_type_that_all_their_cells_have() {
        let text =
            "\u{feff}n,file_name,zip,flag,colour\n1,a.png,007,True,\"dark, blue\"\n,b.png,12,false,\n3,c.png,13,,red\n";
        let read = metadata("metadata.csv", text).unwrap();
        assert_eq!(column(&read, "n"), (DataType::Int64, words([Some("1"), None, Some("3")])));
        assert_eq!(column(&read, "zip"), (DataType::Utf8, words([Some("007"), Some("12"), Some("13")])));
        assert_eq!(column(&read, "flag"), (DataType::Boolean, words([Some("true"), Some("false"), None])));
        assert_eq!(column(&read, "colour"), (DataType::Utf8, words([Some("dark, blue"), None, Some("red")])));
    }

    #[test]
    fn a_row_that_is_not_well_formed_stays_a_row_with_its_line() {
        let read = metadata("metadata.jsonl", "{\"file_name\":\"a.png\"}\n{\"file_name\":\n{\"x\":1}").unwrap();
        let problems: Vec<_> = read.names[0].iter().map(|found| found.problem.clone().unwrap_or_default()).collect();
        assert_eq!(problems[0], "");
        assert!(problems[1].starts_with("line 2 of metadata.jsonl: not a JSON object"), "{problems:?}");
        assert_eq!(problems[2], "line 3 of metadata.jsonl: there is no `file_name`");
        let read = metadata("metadata.csv", "file_name,x\na.png,1\nb.png\n").unwrap();
        assert_eq!(read.names[0][1].problem.as_deref(), Some("line 3 of metadata.csv: 1 cells for 2 columns"));
    }

    #[test]
    fn a_file_without_any_file_name_is_refused() {
        let error = metadata("metadata.csv", "name,x\na.png,1\n").err().unwrap().to_string();
        assert!(error.contains("no column `file_name`; the columns are: name, x"), "{error}");
        assert!(metadata("metadata.jsonl", "not json").is_err());
    }
}
