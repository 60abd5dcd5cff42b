//! Small Parquet files of a run: the rows that one stage hands to the next.

use std::fs::File;
use std::path::Path;

use arrow_array::RecordBatch;
use arrow_schema::{DataType, Schema};
use parquet::arrow::ArrowWriter;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use parquet::basic::Compression;
use parquet::file::properties::{WriterProperties, WriterPropertiesBuilder};
use parquet::schema::types::ColumnPath;

use crate::atomic::AtomicFile;
use crate::error::DataError;
use crate::guard::guarded;

/// Who wrote a Parquet file, in its footer. Fixed, so that equal rows are equal bytes.
pub(crate) const CREATED_BY: &str = "evenset";
/// Files above this size are not read whole.
const MAX_FILE_BYTES: u64 = 4 << 30;
/// Rows of the batches that [`read_parquet`] gives.
const BATCH_ROWS: usize = 4096;

/// Writes a batch as one Parquet file, atomically; the same bytes for the same batch. The folder must exist.
///
/// # Errors
/// [`DataError::DiskFull`], [`DataError::Io`], or [`DataError::Parquet`] for types that Parquet cannot hold.
pub fn write_parquet(path: &Path, batch: &RecordBatch) -> Result<(), DataError> {
    let at = |error| DataError::parquet(path, error);
    let file = AtomicFile::create(path)?;
    let properties = without_dictionaries(base_properties(), batch.schema_ref()).build();
    let mut writer = ArrowWriter::try_new(file, batch.schema(), Some(properties)).map_err(at)?;
    writer.write(batch).map_err(at)?;
    writer.into_inner().map_err(at)?.commit()
}

/// Reads a whole Parquet file of at most 4 GiB.
///
/// # Errors
/// [`DataError::TooLarge`], [`DataError::Io`], or [`DataError::Parquet`] where the file is damaged.
pub fn read_parquet(path: &Path) -> Result<Vec<RecordBatch>, DataError> {
    let io = |error| DataError::io(path, error);
    let at = |error| DataError::parquet(path, error);
    let file = File::open(path).map_err(io)?;
    let bytes = file.metadata().map_err(io)?.len();
    if bytes > MAX_FILE_BYTES {
        return Err(DataError::TooLarge { path: path.to_path_buf(), bytes, limit: MAX_FILE_BYTES });
    }
    guarded(path, || {
        let reader = ParquetRecordBatchReaderBuilder::try_new(file).map_err(at)?;
        let reader = reader.with_batch_size(BATCH_ROWS).build().map_err(at)?;
        reader.collect::<Result<_, _>>().map_err(|error| at(error.into()))
    })
}

/// Snappy everywhere, our name in the footer.
pub(crate) fn base_properties() -> WriterPropertiesBuilder {
    WriterProperties::builder().set_created_by(CREATED_BY.to_owned()).set_compression(Compression::SNAPPY)
}

/// Image files do not repeat: a dictionary of them would only cost memory.
fn without_dictionaries(mut properties: WriterPropertiesBuilder, schema: &Schema) -> WriterPropertiesBuilder {
    for field in schema.fields() {
        if matches!(field.data_type(), DataType::Binary | DataType::LargeBinary) {
            let column = ColumnPath::new(vec![field.name().clone()]);
            properties = properties.set_column_dictionary_enabled(column, false);
        }
    }
    properties
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow_array::{ArrayRef, BinaryArray, Int64Array};

    use super::*;

    #[test]
    fn rows_come_back_and_equal_rows_are_equal_bytes() {
        let folder = tempfile::tempdir().unwrap();
        let columns: Vec<(&str, ArrayRef)> = vec![
            ("n", Arc::new(Int64Array::from_iter_values(0..5000))),
            ("png", Arc::new(BinaryArray::from_iter_values((0..5000u32).map(u32::to_le_bytes)))),
        ];
        let batch = RecordBatch::try_from_iter(columns).unwrap();
        let paths = ["a", "b"].map(|name| folder.path().join(name));
        for path in &paths {
            write_parquet(path, &batch).unwrap();
        }
        let read = read_parquet(&paths[0]).unwrap();
        assert_eq!(read.iter().map(RecordBatch::num_rows).sum::<usize>(), 5000);
        assert_eq!(read[0], batch.slice(0, read[0].num_rows()));
        assert_eq!(std::fs::read(&paths[0]).unwrap(), std::fs::read(&paths[1]).unwrap());
    }

    #[test]
    fn a_damaged_file_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("broken.parquet");
        std::fs::write(&path, "PAR1 and then nothing").unwrap();
        let error = read_parquet(&path).unwrap_err();
        assert!(matches!(error, DataError::Parquet { .. }) && error.to_string().contains("broken.parquet"), "{error}");
    }
}
