//! The pages of Parquet files against what the Arrow reader says of the same files.

use std::fs::File;
use std::path::Path;
use std::sync::Arc;

use arrow_array::cast::AsArray;
use arrow_array::{Array, ArrayRef, LargeStringArray, RecordBatch, StringArray};
use arrow_schema::{DataType, Field, Schema};
use parquet::arrow::ArrowWriter;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use parquet::basic::{Compression, Encoding};
use parquet::file::properties::{WriterProperties, WriterVersion};

use super::views::random;
use super::*;

/// The texts of all rows as the Arrow reader gives them.
fn by_arrow(path: &Path) -> Rows {
    let reader = ParquetRecordBatchReaderBuilder::try_new(File::open(path).unwrap()).unwrap().build().unwrap();
    let mut rows = Rows::new();
    for batch in reader {
        let batch = batch.unwrap();
        let text = |array: &ArrayRef, row: usize| {
            let text = match array.data_type() {
                DataType::Utf8 => array.as_string::<i32>().value(row),
                _ => array.as_string::<i64>().value(row),
            };
            if array.is_null(row) { "-".to_owned() } else { text.to_owned() }
        };
        rows.extend((0..batch.num_rows()).map(|row| batch.columns().iter().map(|array| text(array, row)).collect()));
    }
    rows
}

fn column(next: &mut impl FnMut(u64) -> u64, rows: usize) -> (Field, ArrayRef) {
    let (distinct, nulls, run) = (1 + next(400), next(3), 1 + next(30));
    let mut left = (0, None);
    let words: Vec<Option<String>> = (0..rows)
        .map(|_| {
            if left.0 == 0 {
                let null = nulls > 0 && next(2 + 10 * (nulls - 1)) == 0;
                let word = "w".repeat(next(4) as usize) + &next(distinct).to_string();
                left = (1 + next(run), (!null).then_some(word));
            }
            left.0 -= 1;
            left.1.clone()
        })
        .collect();
    let name = format!("c{}", next(1 << 40));
    match next(2) {
        0 => (Field::new(name, DataType::Utf8, nulls > 0), Arc::new(StringArray::from(words))),
        _ => (Field::new(name, DataType::LargeUtf8, nulls > 0), Arc::new(LargeStringArray::from(words))),
    }
}

#[test]
fn pages_give_the_rows_that_the_arrow_reader_gives() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.parquet");
    for seed in 0..150 {
        let mut next = random(seed);
        let rows = next(5000) as usize;
        let (fields, columns): (Vec<Field>, Vec<ArrayRef>) = (0..1 + next(4)).map(|_| column(&mut next, rows)).unzip();
        let version = [WriterVersion::PARQUET_1_0, WriterVersion::PARQUET_2_0][next(2) as usize];
        let compression = [Compression::UNCOMPRESSED, Compression::SNAPPY, Compression::ZSTD(Default::default())];
        let mut properties = WriterProperties::builder()
            .set_writer_version(version)
            .set_compression(compression[next(3) as usize])
            .set_max_row_group_row_count(Some(1 + next(3000) as usize))
            .set_data_page_row_count_limit(1 + next(700) as usize)
            .set_write_batch_size(1 + next(300) as usize)
            .set_dictionary_enabled(next(5) > 0);
        if next(2) == 0 {
            properties = properties.set_dictionary_page_size_limit(1 + next(600) as usize);
        }
        if next(2) == 0 {
            properties = properties.set_encoding(Encoding::PLAIN);
        }
        let batch = RecordBatch::try_new(Arc::new(Schema::new(fields)), columns).unwrap();
        let mut writer =
            ArrowWriter::try_new(File::create(&path).unwrap(), batch.schema(), Some(properties.build())).unwrap();
        writer.write(&batch).unwrap();
        writer.close().unwrap();

        let mut table = open(&path).unwrap();
        table.batch_rows = 1 + next(2000) as usize;
        let schema = batch.schema();
        let columns: Vec<&str> = schema.fields().iter().map(|field| field.name().as_str()).collect();
        assert_eq!(super::rows(&table, &columns).unwrap(), by_arrow(&path), "seed {seed}");
        assert_eq!(table.rows(), Some(rows as u64));
    }
}
