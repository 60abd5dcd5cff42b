//! Where the data files of a dataset are, and which split each belongs to.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use crate::dataset::DatasetSpec;
use crate::error::DataError;
use crate::files::{base_name, entries, extension, join};
use crate::layout::{Split, UNSPLIT, choose, role_of, split_of_stem};

/// The splits that are read, each with its files.
pub(crate) type SplitFiles = Vec<(Split, Vec<String>)>;

/// The Parquet files of a folder, relative to it and sorted: in it, in `data/`, and in folders named after a split.
pub(crate) fn parquet_files(root: &Path, spec: &DatasetSpec) -> Result<Vec<String>, DataError> {
    data_files(root, &spec.splits, is_data_file)
}

/// The files that `is_data` accepts by name, relative to the folder and sorted: in it, in `data/`, and in folders named
/// after a split.
pub(crate) fn data_files(
    root: &Path,
    splits: &BTreeMap<String, String>,
    is_data: impl Fn(&str) -> bool,
) -> Result<Vec<String>, DataError> {
    let mut found = Vec::new();
    let is_split = |name: &str| role_of(name).is_some() || splits.values().any(|split| split == name);
    let mut folders = vec![String::new()];
    while let Some(folder) = folders.pop() {
        let path = root.join(&folder);
        for entry in entries(&path).map_err(|error| DataError::io(&path, error))? {
            let name = join(&folder, &entry.name);
            let may_hold_splits = folder.is_empty() || folder == "data";
            if entry.is_folder && may_hold_splits && (is_split(&entry.name) || name == "data") {
                folders.push(name);
            } else if !entry.is_folder && is_data(&entry.name) {
                found.push(name);
            }
        }
    }
    found.sort();
    Ok(found)
}

/// A Parquet file that is not the metadata of an image folder.
pub(crate) fn is_data_file(name: &str) -> bool {
    extension(name).as_deref() == Some("parquet") && name != "metadata.parquet"
}

/// The files of each split that is read, and what is left out. One file alone has no split, whatever its name.
pub(crate) fn split_files(
    root: &Path,
    names: &[String],
    wanted: &BTreeMap<String, String>,
    alone: bool,
) -> Result<(SplitFiles, Vec<String>), DataError> {
    let split_of = |name: &String| {
        let folder = name.rsplit_once('/').map(|(folder, _)| base_name(folder)).filter(|folder| *folder != "data");
        let stem = base_name(name).rsplit_once('.').map_or(base_name(name), |(stem, _)| stem);
        folder.map(str::to_owned).or_else(|| split_of_stem(stem, wanted))
    };
    let mut labelled: Vec<(&String, Option<String>)> = names.iter().map(|name| (name, split_of(name))).collect();
    let known = |split: &String| role_of(split).is_some() || wanted.values().any(|name| name == split);
    if alone || !labelled.iter().any(|(_, split)| split.as_ref().is_some_and(known)) {
        labelled.iter_mut().for_each(|(_, split)| *split = Some(UNSPLIT.to_owned()));
    }
    let found: BTreeSet<String> = labelled.iter().filter_map(|(_, split)| split.clone()).collect();
    let splits = choose(root, wanted, &found)?;
    let files = |split: &Split| {
        let own = labelled.iter().filter(|(_, name)| name.as_ref() == Some(&split.name));
        own.map(|(name, _)| (*name).clone()).collect()
    };
    let splits: SplitFiles = splits.into_iter().map(|split| (split.clone(), files(&split))).collect();
    let left_out: Vec<&str> =
        names.iter().filter(|name| !splits.iter().any(|(_, files)| files.contains(name))).map(String::as_str).collect();
    let warning = || format!("{} files belong to no split that is read: {}", left_out.len(), left_out.join(", "));
    let warnings = if left_out.is_empty() { Vec::new() } else { vec![warning()] };
    Ok((splits, warnings))
}
