//! CSV and its relatives: cells stay text, each distinct one is kept once.

use std::collections::HashSet;
use std::io::Read;
use std::sync::Arc;

use csv::{ByteRecord, Reader, ReaderBuilder};

use super::batch::{Batch, BatchReader, Column};
use super::bounded::Bounded;
use super::file::LabelFile;
use super::kinds::MAX_COLUMNS;
use super::words::Interner;
use crate::error::DataError;

/// Cells that stand for no value, beside those that the user names.
pub(crate) const MISSING: [&str; 5] = ["", "NaN", "nan", "null", "NULL"];

/// An open file behind its header.
pub(crate) struct Delimited {
    file: LabelFile,
    reader: Reader<Bounded<Box<dyn Read + Send>>>,
    /// The names of the columns.
    pub header: Vec<String>,
    record: ByteRecord,
}

impl Delimited {
    /// Opens a file and reads its header.
    pub fn open(file: &LabelFile) -> Result<Self, DataError> {
        let delimiter = delimiter(file)?;
        let bounded = Bounded::new(file.stream()?);
        let mut reader =
            ReaderBuilder::new().delimiter(delimiter).flexible(true).buffer_capacity(1 << 17).from_reader(bounded);
        let header = reader.byte_headers().map_err(|error| malformed(file, 1, &error))?;
        if header.len() > MAX_COLUMNS {
            let problem = format!("{} columns; the most is {MAX_COLUMNS}. Is it a table of labels?", header.len());
            return Err(DataError::Malformed { path: file.path().to_path_buf(), line: 1, problem });
        }
        let (mut names, mut seen) = (Vec::new(), HashSet::new());
        for name in header {
            let name = std::str::from_utf8(name).map_err(|_| not_utf8(file, 1))?.trim();
            if !seen.insert(name) {
                let problem = format!("column `{name}` stands twice in the first line; rename one of the two");
                return Err(DataError::Malformed { path: file.path().to_path_buf(), line: 1, problem });
            }
            names.push(name.to_owned());
        }
        Ok(Self { file: file.clone(), reader, header: names, record: ByteRecord::new() })
    }

    /// The next row; none at the end.
    pub fn next_row(&mut self) -> Result<Option<&ByteRecord>, DataError> {
        self.reader.get_ref().begin();
        let read = self.reader.read_byte_record(&mut self.record);
        let line = self.record.position().map_or(0, csv::Position::line);
        if !read.map_err(|error| malformed(&self.file, line, &error))? {
            return Ok(None);
        }
        if self.record.len() != self.header.len() {
            let problem = format!(
                "{} cells for {} columns; cells that hold the delimiter need quotes",
                self.record.len(),
                self.header.len()
            );
            return Err(DataError::Malformed { path: self.file.path().to_path_buf(), line, problem });
        }
        Ok(Some(&self.record))
    }

    /// The text of a cell of the row at hand.
    pub fn text(&self, place: usize) -> Result<&str, DataError> {
        let cell = self.record.get(place).unwrap_or_default();
        let line = self.record.position().map_or(0, csv::Position::line);
        std::str::from_utf8(cell).map_err(|_| not_utf8(&self.file, line))
    }
}

/// By the extension, else by what the first line holds.
fn delimiter(file: &LabelFile) -> Result<u8, DataError> {
    let name = file.address.to_lowercase();
    let name = name.strip_suffix(".gz").unwrap_or(&name);
    if name.ends_with(".tsv") || name.ends_with(".tab") {
        return Ok(b'\t');
    }
    let mut begin = Vec::new();
    file.stream()?.take(1 << 16).read_to_end(&mut begin).map_err(|error| DataError::io(file.path(), error))?;
    let mut quoted = false;
    let mut found = Vec::new();
    for &byte in &begin {
        match byte {
            b'"' => quoted = !quoted,
            b'\n' if !quoted => break,
            b',' | b';' | b'\t' if !quoted => found.push(byte),
            _ => {}
        }
    }
    Ok([b',', b';', b'\t'].into_iter().find(|delimiter| found.contains(delimiter)).unwrap_or(b','))
}

fn not_utf8(file: &LabelFile, line: u64) -> DataError {
    let problem = "the text is not UTF-8; save the file as UTF-8".to_owned();
    DataError::Malformed { path: file.path().to_path_buf(), line, problem }
}

fn malformed(file: &LabelFile, line: u64, error: &csv::Error) -> DataError {
    DataError::Malformed { path: file.path().to_path_buf(), line, problem: error.to_string() }
}

/// Reads the wanted cells of a file.
pub(crate) struct DelimitedReader {
    file: Delimited,
    /// The place of each wanted column; none for the split.
    places: Vec<Option<usize>>,
    interners: Vec<Interner>,
    batch_rows: usize,
    given: u64,
}

impl DelimitedReader {
    /// Opens the columns of a file.
    pub fn open(
        file: &LabelFile,
        columns: &[Column],
        missing: &Arc<HashSet<String>>,
        batch_rows: usize,
    ) -> Result<Self, DataError> {
        let file = Delimited::open(file)?;
        let place = |column: &Column| match column {
            Column::Own(name) => file.header.iter().position(|own| own == name),
            Column::Split | Column::ImagePath => None,
        };
        let places = columns.iter().map(place).collect();
        let interners = columns.iter().map(|_| Interner::new(Arc::clone(missing), false)).collect();
        Ok(Self { file, places, interners, batch_rows, given: 0 })
    }
}

impl BatchReader for DelimitedReader {
    fn next(&mut self, batch: &mut Batch) -> Result<bool, DataError> {
        batch.cells.iter_mut().for_each(super::words::Cells::clear);
        self.interners.iter_mut().for_each(Interner::begin);
        let mut rows = 0;
        while rows < self.batch_rows && self.file.next_row()?.is_some() {
            for ((place, interner), cells) in self.places.iter().zip(&mut self.interners).zip(&mut batch.cells) {
                if let Some(place) = place {
                    cells.codes.push(interner.code(Some(self.file.text(*place)?)));
                }
            }
            rows += 1;
        }
        for ((place, interner), cells) in self.places.iter().zip(&mut self.interners).zip(&mut batch.cells) {
            match place {
                Some(_) => cells.words = interner.words(),
                None => cells.fill(Some(&self.file.file.split), rows),
            }
        }
        batch.rows = rows;
        batch.address.clone_from(&self.file.file.address);
        batch.first_row = self.given;
        self.given += rows as u64;
        Ok(rows > 0)
    }
}
