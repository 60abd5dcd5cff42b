//! How fast labels are read from a table and counted.
//!
//! `cargo run --release -p evenset-data --example label_speed FILE [arrow]` counts the values of each column of text of
//! FILE on two threads; with `arrow`, through the Arrow reader of the Parquet library, for comparison.
#![allow(clippy::print_stdout)]

use std::collections::BTreeMap;
use std::time::Instant;

use arrow_array::Array;
use arrow_array::cast::AsArray;
use arrow_array::types::Int32Type;
use evenset_core::Silent;
use evenset_data::{DataError, LabelColumn, LabelKind, LabelSpec, LabelTable, View};
use parquet::arrow::arrow_reader::{ArrowReaderMetadata, ParquetRecordBatchReaderBuilder};
use rayon::prelude::*;

/// For each column the rows of each value.
type Counts = Vec<BTreeMap<Option<String>, u64>>;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [path, rest @ ..] = arguments.as_slice() else { return Err("name a file".into()) };
    rayon::ThreadPoolBuilder::new().num_threads(2).build_global()?;
    let begin = Instant::now();
    let counts = if rest.is_empty() { through_codes(path)? } else { through_arrow(path)? };
    let seconds = begin.elapsed().as_secs_f64();
    let rows: u64 = counts.first().map_or(0, |column| column.values().sum());
    let values: usize = counts.iter().map(BTreeMap::len).sum();
    println!("{rows} rows, {} columns, {values} values: {seconds:.2} s, peak {} MB", counts.len(), peak_mb());
    Ok(())
}

fn through_codes(path: &str) -> Result<Counts, DataError> {
    let table = LabelTable::open(&LabelSpec { path: path.to_owned(), ..LabelSpec::default() })?;
    let columns = table.columns().iter().filter(|column| column.kind != LabelKind::Float && column.name != "split");
    let attributes: Vec<String> = columns.map(|column| column.name.clone()).collect();
    let view = table.view(&View { attributes: attributes.clone(), ..View::default() }, &Silent)?;
    let add = |counts: &mut Counts, columns: &[LabelColumn]| {
        for (counts, column) in counts.iter_mut().zip(columns) {
            add_codes(counts, column.codes.iter().map(|&code| code as usize), &column.values);
        }
        Ok::<_, DataError>(())
    };
    let parts = table.fold(&view, &Silent, || vec![BTreeMap::new(); attributes.len()], add)?;
    Ok(parts.into_iter().fold(vec![BTreeMap::new(); attributes.len()], merged))
}

fn through_arrow(path: &str) -> Result<Counts, Box<dyn std::error::Error>> {
    let footer = ArrowReaderMetadata::load(&std::fs::File::open(path)?, Default::default())?;
    let columns = footer.schema().fields().len();
    let group = |group: usize| -> Result<Counts, String> {
        let file = std::fs::File::open(path).map_err(|error| error.to_string())?;
        let builder = ParquetRecordBatchReaderBuilder::new_with_metadata(file, footer.clone());
        let reader = builder.with_batch_size(1 << 16).with_row_groups(vec![group]).build();
        let mut counts = vec![BTreeMap::new(); columns];
        for batch in reader.map_err(|error| error.to_string())? {
            for (counts, array) in counts.iter_mut().zip(batch.map_err(|error| error.to_string())?.columns()) {
                let array = array.as_dictionary_opt::<Int32Type>().ok_or("not a dictionary")?;
                let words = array.values().as_string::<i32>();
                let mut values: Vec<Option<String>> = words.iter().map(|word| word.map(str::to_owned)).collect();
                values.push(None);
                let null = values.len() - 1;
                let code = |row| if array.is_valid(row) { array.keys().value(row) as usize } else { null };
                add_codes(counts, (0..array.len()).map(code), &values);
            }
        }
        Ok(counts)
    };
    let groups = (0..footer.metadata().num_row_groups()).into_par_iter().map(group);
    let parts = groups.collect::<Result<Vec<Counts>, String>>()?;
    Ok(parts.into_iter().fold(vec![BTreeMap::new(); columns], merged))
}

fn add_codes(
    counts: &mut BTreeMap<Option<String>, u64>,
    codes: impl Iterator<Item = usize>,
    values: &[Option<String>],
) {
    let mut rows = vec![0; values.len()];
    codes.for_each(|code| rows[code] += 1);
    for (value, rows) in values.iter().zip(rows).filter(|(_, rows)| *rows > 0) {
        *counts.entry(value.clone()).or_default() += rows;
    }
}

fn merged(mut total: Counts, part: Counts) -> Counts {
    for (total, part) in total.iter_mut().zip(part) {
        for (value, rows) in part {
            *total.entry(value).or_default() += rows;
        }
    }
    total
}

/// The largest amount of memory that the process has held, where the system says it.
fn peak_mb() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok()).unwrap_or_default() / 1024
}
