//! Single files of original names, put together from folders by the tables in `tests/golden`. Tests of other rooms read
//! this file too.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use safetensors::tensor::TensorView;
use safetensors::{Dtype, SafeTensors};
use serde::Deserialize;

/// A row of the tables: the original name, a folder, the names there that lie behind one another, and whether rows and
/// columns change places.
#[derive(Deserialize)]
pub(crate) struct Row(String, String, Vec<String>, u8);

/// A tensor as a file has it.
pub(crate) type Raw = (Dtype, Vec<usize>, Vec<u8>);

/// The tables of a file, by the name of what they describe.
pub(crate) fn tables(path: &Path) -> BTreeMap<String, Vec<Row>> {
    serde_json::from_slice(&fs::read(path).unwrap()).unwrap()
}

/// The tensors that a table describes; `root` has its folders.
pub(crate) fn assembled(rows: &[Row], root: &Path) -> BTreeMap<String, Raw> {
    let mut folders: BTreeMap<&str, BTreeMap<String, Raw>> = BTreeMap::new();
    let mut made = BTreeMap::new();
    for Row(original, from, names, is_transposed) in rows {
        let tensors = folders.entry(from).or_insert_with(|| folder(&root.join(from)));
        let mut whole = tensors[&names[0]].clone();
        for name in &names[1..] {
            whole.1[0] += tensors[name].1[0];
            whole.2.extend(&tensors[name].2);
        }
        made.insert(original.clone(), if *is_transposed == 1 { transposed(&whole) } else { whole });
    }
    made
}

/// The tensors in the weights of a folder.
pub(crate) fn folder(dir: &Path) -> BTreeMap<String, Raw> {
    let mut all = BTreeMap::new();
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_none_or(|end| end != "safetensors") || path.ends_with("io.safetensors") {
            continue;
        }
        let bytes = fs::read(path).unwrap();
        let file = SafeTensors::deserialize(&bytes).unwrap();
        let raw = |view: TensorView<'_>| (view.dtype(), view.shape().to_vec(), view.data().to_vec());
        all.extend(file.tensors().into_iter().map(|(name, view)| (name, raw(view))));
    }
    all
}

/// Rows for columns.
fn transposed((dtype, shape, data): &Raw) -> Raw {
    let size = data.len() / shape.iter().product::<usize>();
    let (rows, columns) = (shape[0], shape[1]);
    let value = |(column, row): (usize, usize)| data[(row * columns + column) * size..][..size].to_vec();
    let places = (0..columns).flat_map(|column| (0..rows).map(move |row| (column, row)));
    (*dtype, vec![columns, rows], places.flat_map(value).collect())
}

/// Writes `model.safetensors` in `dir`.
pub(crate) fn written(dir: &Path, tensors: &BTreeMap<String, Raw>) -> PathBuf {
    let path = dir.join("model.safetensors");
    let views = tensors
        .iter()
        .map(|(name, (dtype, shape, data))| (name, TensorView::new(*dtype, shape.clone(), data).unwrap()));
    fs::write(&path, safetensors::serialize(views, None).unwrap()).unwrap();
    path
}
