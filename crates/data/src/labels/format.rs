//! The format of a file of labels, by its name or by its first bytes.

use std::io::Read;

use super::file::LabelFile;
use crate::error::DataError;

/// How a table is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Format {
    Parquet,
    /// Comma, tab or semicolon separated.
    Delimited,
    JsonLines,
}

impl Format {
    /// By the extension, below a possible `.gz`.
    pub fn of_name(name: &str) -> Option<Self> {
        let name = name.to_lowercase();
        let name = name.strip_suffix(".gz").unwrap_or(&name);
        match name.rsplit_once('.')?.1 {
            "parquet" | "pq" => Some(Self::Parquet),
            "csv" | "tsv" | "tab" => Some(Self::Delimited),
            "jsonl" | "ndjson" => Some(Self::JsonLines),
            _ => None,
        }
    }

    /// By the first bytes: Parquet's mark, a brace, or else cells.
    pub fn of_content(file: &LabelFile) -> Result<Self, DataError> {
        let mut begin = Vec::new();
        file.stream()?.take(4096).read_to_end(&mut begin).map_err(|error| DataError::io(file.path(), error))?;
        let text = begin.strip_prefix(b"\xef\xbb\xbf").unwrap_or(&begin).trim_ascii_start();
        Ok(match text.first() {
            _ if begin.starts_with(b"PAR1") => Self::Parquet,
            Some(b'{') => Self::JsonLines,
            _ => Self::Delimited,
        })
    }

    /// The format's name in messages.
    pub fn name(self) -> &'static str {
        match self {
            Self::Parquet => "Parquet",
            Self::Delimited => "CSV",
            Self::JsonLines => "JSONL",
        }
    }
}

/// Whether a name is that of a data file of any format, and not the metadata of an image folder.
pub(crate) fn is_table_name(name: &str) -> bool {
    Format::of_name(name).is_some() && !name.starts_with("metadata.")
}
