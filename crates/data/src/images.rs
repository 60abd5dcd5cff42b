//! Building the image column of a table.

use std::sync::Arc;

use arrow_array::ArrayRef;
use arrow_array::builder::{BinaryBuilder, StringBuilder};
use arrow_schema::{ArrowError, DataType, Field, FieldRef};

use crate::columns::{image_array, image_fields};

/// Offsets in a binary column are 32 bits wide.
const MAX_BYTES: u64 = i32::MAX as u64;

/// An image column that grows row by row, and the reasons for the rows without bytes.
#[derive(Default)]
pub(crate) struct ImageColumn {
    bytes: BinaryBuilder,
    path: StringBuilder,
    errors: Vec<(usize, String)>,
    rows: usize,
    total: u64,
}

impl ImageColumn {
    /// The Arrow field of an image column.
    pub fn field(name: &str) -> FieldRef {
        Arc::new(Field::new(name, DataType::Struct(image_fields()), true))
    }

    /// Adds a row: the bytes of the file, or the reason why there are none.
    pub fn push(&mut self, content: Result<&[u8], String>, path: Option<&str>) {
        let content = content.and_then(|bytes| {
            let total = self.total + bytes.len() as u64;
            if total > MAX_BYTES { Err(too_much()) } else { Ok((bytes, total)) }
        });
        match content {
            Ok((bytes, total)) => {
                self.total = total;
                self.bytes.append_value(bytes);
            }
            Err(reason) => {
                self.errors.push((self.rows, reason));
                self.bytes.append_null();
            }
        }
        self.path.append_option(path);
        self.rows += 1;
    }

    /// How many rows were added.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// The column and the rows without bytes.
    pub fn finish(mut self) -> Result<(ArrayRef, Vec<(usize, String)>), ArrowError> {
        let column = image_array(self.bytes.finish(), self.path.finish())?;
        Ok((Arc::new(column), self.errors))
    }
}

fn too_much() -> String {
    format!("the images of this run of rows are more than {MAX_BYTES} bytes together; write smaller row groups")
}
