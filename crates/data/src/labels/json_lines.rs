//! One JSON object a line: the wanted keys are read, the others are skipped.

use std::borrow::Cow;
use std::collections::HashSet;
use std::fmt;
use std::io::{BufRead, BufReader, Read};
use std::sync::Arc;

use serde::Deserializer;
use serde::de::{DeserializeSeed, IgnoredAny, MapAccess, SeqAccess, Visitor};

use super::arrays::number_text;
use super::batch::{Batch, BatchReader, Column};
use super::file::LabelFile;
use super::words::{Cells, Interner};
use crate::error::DataError;

/// Bytes of a line at most.
const MAX_LINE_BYTES: u64 = 256 << 20;

/// The value of a key.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Value<'a> {
    Missing,
    Text(Cow<'a, str>),
    Boolean(bool),
    Integer(i128),
    Float(f64),
    /// A list or an object.
    Nested,
}

/// A file, line after line.
pub(crate) struct Lines {
    file: LabelFile,
    reader: BufReader<Box<dyn Read + Send>>,
    line: Vec<u8>,
    number: u64,
}

impl Lines {
    /// Opens a file.
    pub fn open(file: &LabelFile) -> Result<Self, DataError> {
        let reader = BufReader::with_capacity(1 << 17, file.stream()?);
        Ok(Self { file: file.clone(), reader, line: Vec::new(), number: 0 })
    }

    /// Moves to the next line that is not blank; false at the end.
    pub fn advance(&mut self) -> Result<bool, DataError> {
        loop {
            self.line.clear();
            let read = self.reader.by_ref().take(MAX_LINE_BYTES).read_until(b'\n', &mut self.line);
            self.number += 1;
            match read.map_err(|error| DataError::io(self.file.path(), error))? {
                0 => return Ok(false),
                read if read as u64 == MAX_LINE_BYTES => return Err(self.malformed("the line has more than 256 MiB")),
                _ if self.text().trim_ascii().is_empty() => {}
                _ => return Ok(true),
            }
        }
    }

    fn text(&self) -> &[u8] {
        let mark: &[u8] = if self.number == 1 { b"\xef\xbb\xbf" } else { b"" };
        self.line.strip_prefix(mark).unwrap_or(&self.line)
    }

    /// Gives each key of the line at hand to `key`, which says where its value goes, and each value to `value`.
    pub fn read<'a>(
        &'a self,
        key: impl FnMut(&str) -> Option<usize>,
        value: impl FnMut(usize, Value<'a>),
    ) -> Result<(), DataError> {
        let mut deserializer = serde_json::Deserializer::from_slice(self.text());
        deserializer
            .deserialize_map(Object { key, value })
            .and_then(|()| deserializer.end())
            .map_err(|error| self.malformed(&format!("not one JSON object: {error}")))
    }

    fn malformed(&self, problem: &str) -> DataError {
        DataError::Malformed { path: self.file.path().to_path_buf(), line: self.number, problem: problem.to_owned() }
    }
}

struct Object<K, V> {
    key: K,
    value: V,
}

impl<'de, K: FnMut(&str) -> Option<usize>, V: FnMut(usize, Value<'de>)> Visitor<'de> for Object<K, V> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(mut self, mut map: A) -> Result<(), A::Error> {
        while let Some(key) = map.next_key_seed(Key)? {
            match (self.key)(&key) {
                Some(place) => {
                    let value = map.next_value_seed(Scalar)?;
                    (self.value)(place, value);
                }
                None => {
                    map.next_value::<IgnoredAny>()?;
                }
            }
        }
        Ok(())
    }
}

/// A key without a copy where it has no escapes.
struct Key;

impl<'de> DeserializeSeed<'de> for Key {
    type Value = Cow<'de, str>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl<'de> Visitor<'de> for Key {
    type Value = Cow<'de, str>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a key")
    }

    fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Self::Value, E> {
        Ok(Cow::Borrowed(text))
    }

    fn visit_str<E>(self, text: &str) -> Result<Self::Value, E> {
        Ok(Cow::Owned(text.to_owned()))
    }
}

struct Scalar;

impl<'de> DeserializeSeed<'de> for Scalar {
    type Value = Value<'de>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Scalar {
    type Value = Value<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Self::Value, E> {
        Ok(Value::Text(Cow::Borrowed(text)))
    }

    fn visit_str<E>(self, text: &str) -> Result<Self::Value, E> {
        Ok(Value::Text(Cow::Owned(text.to_owned())))
    }

    fn visit_bool<E>(self, flag: bool) -> Result<Self::Value, E> {
        Ok(Value::Boolean(flag))
    }

    fn visit_i64<E>(self, number: i64) -> Result<Self::Value, E> {
        Ok(Value::Integer(number.into()))
    }

    fn visit_u64<E>(self, number: u64) -> Result<Self::Value, E> {
        Ok(Value::Integer(number.into()))
    }

    fn visit_f64<E>(self, number: f64) -> Result<Self::Value, E> {
        Ok(Value::Float(number))
    }

    fn visit_unit<E>(self) -> Result<Self::Value, E> {
        Ok(Value::Missing)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Self::Value, A::Error> {
        while items.next_element::<IgnoredAny>()?.is_some() {}
        Ok(Value::Nested)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut items: A) -> Result<Self::Value, A::Error> {
        while items.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
        Ok(Value::Nested)
    }
}

/// Reads the wanted keys of a file.
pub(crate) struct JsonReader {
    lines: Lines,
    columns: Vec<Column>,
    interners: Vec<Interner>,
    batch_rows: usize,
    given: u64,
}

impl JsonReader {
    /// Opens a file. `measured` says of a column whether all of its values are numbers, some of them not whole.
    pub fn open(
        file: &LabelFile,
        columns: Vec<Column>,
        missing: &Arc<HashSet<String>>,
        measured: impl Fn(&str) -> bool,
        batch_rows: usize,
    ) -> Result<Self, DataError> {
        let interner = |column: &Column| {
            let measured = matches!(column, Column::Own(name) if measured(name));
            Interner::new(Arc::clone(missing), measured)
        };
        let interners = columns.iter().map(interner).collect();
        Ok(Self { lines: Lines::open(file)?, columns, interners, batch_rows, given: 0 })
    }

    /// Appends the values of the line at hand to the batch.
    fn push_row(&mut self, batch: &mut Batch) -> Result<(), DataError> {
        let mut values = vec![Value::Missing; self.columns.len()];
        let place = |key: &str| self.columns.iter().position(|column| matches!(column, Column::Own(own) if own == key));
        self.lines.read(place, |place, value| values[place] = value)?;
        for (((column, value), interner), cells) in
            self.columns.iter().zip(&values).zip(&mut self.interners).zip(&mut batch.cells)
        {
            let code = match value {
                Value::Missing => interner.code(None),
                Value::Text(text) => interner.code(Some(text)),
                Value::Boolean(flag) => interner.code(Some(if *flag { "true" } else { "false" })),
                Value::Integer(number) => interner.code(Some(&number.to_string())),
                Value::Float(number) => interner.code(number_text(*number).as_deref()),
                Value::Nested => {
                    let Column::Own(name) = column else { continue };
                    let path = &self.lines.file.address;
                    let problem = format!(
                        "holds a list or an object in line {} of {path}, which cannot name groups; use text, whole \
                         numbers or yes/no",
                        self.lines.number
                    );
                    return Err(DataError::NotAnAttribute { column: name.clone(), problem });
                }
            };
            cells.codes.push(code);
        }
        Ok(())
    }
}

impl BatchReader for JsonReader {
    fn next(&mut self, batch: &mut Batch) -> Result<bool, DataError> {
        batch.cells.iter_mut().for_each(Cells::clear);
        self.interners.iter_mut().for_each(Interner::begin);
        let mut rows = 0;
        while rows < self.batch_rows && self.lines.advance()? {
            self.push_row(batch)?;
            rows += 1;
        }
        for ((column, interner), cells) in self.columns.iter().zip(&mut self.interners).zip(&mut batch.cells) {
            match column {
                Column::Own(_) => cells.words = interner.words(),
                Column::Split | Column::ImagePath => cells.fill(Some(&self.lines.file.split), rows),
            }
        }
        batch.rows = rows;
        batch.address.clone_from(&self.lines.file.address);
        batch.first_row = self.given;
        self.given += rows as u64;
        Ok(rows > 0)
    }
}
