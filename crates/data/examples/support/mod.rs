//! The pictures of MNIST and its relatives, from their own IDX files or from Parquet.
#![allow(dead_code, reason = "each example uses its own part of the support")]

use std::error::Error;
use std::fs::File;
use std::io::Read;
use std::path::Path;

use arrow_array::cast::AsArray;
use arrow_array::types::Int64Type;
use arrow_array::{Array, RecordBatch};
use flate2::read::GzDecoder;

pub type Fallible<T> = Result<T, Box<dyn Error + Send + Sync>>;

/// Width and height of a picture.
pub const SIDE: usize = 28;
const MOST_ENTRIES: usize = 100_000;

/// One half of a dataset.
#[derive(Default)]
pub struct Labelled {
    /// Grey levels, `[image, row, column]`.
    pub images: Vec<u8>,
    pub labels: Vec<u8>,
}

impl Labelled {
    /// From `HALF-images-idx3-ubyte` and `HALF-labels-idx1-ubyte`, gzipped or not; the test half is called `t10k`.
    pub fn of_idx(folder: &Path, half: &str) -> Fallible<Self> {
        let (count, images) = read_idx(folder, &format!("{half}-images-idx3-ubyte"), &[SIDE, SIDE])?;
        let (labels_count, labels) = read_idx(folder, &format!("{half}-labels-idx1-ubyte"), &[])?;
        if count != labels_count {
            return Err(format!("{half}: {count} images but {labels_count} labels; fetch both files again").into());
        }
        Ok(Self { images, labels })
    }

    /// From a Parquet file with an `image` of encoded bytes and a whole number `label`.
    pub fn of_parquet(path: &Path) -> Fallible<Self> {
        let mut all = Self::default();
        for batch in evenset_data::read_parquet(path)? {
            all.add(&batch).map_err(|problem| format!("{}: {problem}", path.display()))?;
        }
        Ok(all)
    }

    fn add(&mut self, batch: &RecordBatch) -> Fallible<()> {
        let images = batch.column_by_name("image").and_then(|column| column.as_struct_opt());
        let files = images.and_then(|images| images.column_by_name("bytes")?.as_binary_opt::<i32>());
        let labels = batch.column_by_name("label").and_then(|column| column.as_primitive_opt::<Int64Type>());
        let (Some(files), Some(labels)) = (files, labels) else {
            return Err("expected a column `image` (struct of bytes and path) and a column `label` (int64)".into());
        };
        for row in 0..batch.num_rows() {
            let image = evenset_data::decode(files.value(row), &evenset_data::Limits::default())?;
            if (image.width as usize, image.height as usize) != (SIDE, SIDE)
                || files.is_null(row)
                || labels.is_null(row)
            {
                return Err(format!("row {row} is no labelled picture of {SIDE}x{SIDE} pixels").into());
            }
            self.images.extend(image.rgb.chunks_exact(3).map(|pixel| pixel[0]));
            self.labels.push(u8::try_from(labels.value(row))?);
        }
        Ok(())
    }
}

/// How many entries an IDX file of bytes has, and the bytes. `shape` is the shape of one entry.
fn read_idx(folder: &Path, name: &str, shape: &[usize]) -> Fallible<(usize, Vec<u8>)> {
    let (plain, zipped) = (folder.join(name), folder.join(format!("{name}.gz")));
    let path = if plain.exists() { &plain } else { &zipped };
    let wrong = |problem: &str| format!("{}: {problem}; is it the dataset's own file?", path.display());
    let file = File::open(path).map_err(|error| format!("{}: {error}", path.display()))?;
    let mut reader: Box<dyn Read> = if plain.exists() { Box::new(file) } else { Box::new(GzDecoder::new(file)) };
    let mut number = || -> Fallible<usize> {
        let mut bytes = [0; 4];
        reader.read_exact(&mut bytes).map_err(|error| wrong(&error.to_string()))?;
        Ok(u32::from_be_bytes(bytes) as usize)
    };
    // 0x08 says that entries are unsigned bytes; the last byte is the number of dimensions.
    if number()? != 0x0800 + 1 + shape.len() {
        return Err(wrong("not an IDX file of bytes of this shape").into());
    }
    let count = number()?;
    for side in shape {
        if number()? != *side {
            return Err(wrong("images of another size").into());
        }
    }
    if count > MOST_ENTRIES {
        return Err(wrong(&format!("{count} entries")).into());
    }
    let mut bytes = vec![0; count * shape.iter().product::<usize>()];
    reader.read_exact(&mut bytes).map_err(|error| wrong(&error.to_string()))?;
    Ok((count, bytes))
}
