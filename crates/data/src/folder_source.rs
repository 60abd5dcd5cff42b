//! Image folders: `{split}/{class}/*.png`, `{class}/*.png`, or images with a metadata file.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow_array::{ArrayRef, Int64Array, RecordBatch, RecordBatchOptions};
use arrow_schema::{DataType, Field, FieldRef, Schema};
use evenset_core::Fingerprint;
use rayon::prelude::*;

use crate::dataset::{DatasetSpec, Opened};
use crate::decode::Limits;
use crate::error::DataError;
use crate::features::{Feature, Features};
use crate::files::{Found, checked_name, entries, hash_inside, images, is_image_name, join, read_inside};
use crate::images::ImageColumn;
use crate::json::row_object;
use crate::layout::{Split, UNSPLIT, choose, role_of};
use crate::metadata::{self, Metadata};
use crate::pictures::{self, Place, path_at};
use crate::unit::{Source, Unit, cut};

const LABEL: &str = "label";
const IMAGE: &str = "image";

/// An image folder whose files are listed and hashed.
#[derive(Debug)]
pub(crate) struct FolderSource {
    root: PathBuf,
    /// One a row, split after split.
    files: Vec<Found>,
    /// The columns beside the image, over all rows.
    columns: Vec<(FieldRef, ArrayRef)>,
    /// By the role of a split: the folder that paths in its metadata are relative to.
    folders: BTreeMap<String, String>,
}

/// The rows of a folder before any image is read.
pub(crate) struct Listing {
    pub splits: Vec<Split>,
    /// For each split the folder that paths in its metadata are relative to.
    folders: Vec<String>,
    /// The rows of each split.
    pub files: Vec<Vec<Found>>,
    /// The columns beside the image, over all rows.
    pub columns: Vec<(FieldRef, ArrayRef)>,
    pub features: Features,
    pub warnings: Vec<String>,
}

impl Listing {
    /// A column of pictures, one a row: the path as it stands there, and the folder that it is relative to.
    fn paths<'a>(&'a self, column: &str) -> impl Iterator<Item = (&'a str, Option<&'a str>)> + use<'a> {
        let column = self.columns.iter().find(|(field, _)| field.name() == column).map(|(_, array)| array);
        let rows = self.folders.iter().zip(&self.files).flat_map(|(folder, files)| files.iter().map(move |_| folder));
        rows.enumerate().map(move |(row, folder)| (folder.as_str(), column.and_then(|column| path_at(column, row))))
    }

    /// The files that these columns name.
    fn pictures(&self, columns: &[String]) -> BTreeSet<String> {
        let named = columns.iter().flat_map(|column| self.paths(column));
        named.filter_map(|(folder, path)| checked_name(folder, path?).ok()).collect()
    }
}

impl FolderSource {
    /// Lists, hashes and cuts the folder. `root` must be canonical.
    pub fn open(root: &Path, spec: &DatasetSpec) -> Result<Opened<Self>, DataError> {
        let image = spec.image.clone().unwrap_or_else(|| IMAGE.to_owned());
        let listing = list(root, spec)?;
        if listing.columns.iter().any(|(field, _)| *field.name() == image) {
            let problem = format!("the metadata has a column `{image}`, which is the name of the images; rename it");
            return Err(DataError::Layout { path: root.to_path_buf(), problem });
        }
        let columns = listing.columns.iter().map(|(field, _)| (field.name().as_str(), field.data_type()));
        let own = ImageColumn::field(&image);
        pictures::check(&spec.pictures, columns.chain([(image.as_str(), own.data_type())]))?;
        let mut features = Features::new();
        features.insert(image.clone(), Feature::Image);
        for (name, feature) in listing.features.iter() {
            features.insert(name, feature.clone());
        }
        let units = units(root, &listing, &image, &spec.pictures, &features)?;
        let fields = listing.columns.iter().map(|(field, _)| Arc::clone(field));
        let fields = std::iter::once(ImageColumn::field(&image)).chain(fields).collect();
        let files = listing.files.into_iter().flatten().collect();
        let roles = listing.splits.iter().map(|split| split.role.clone());
        let folders = roles.zip(listing.folders).collect();
        let source = Self { root: root.to_path_buf(), files, columns: listing.columns, folders };
        Ok(Opened { source, image, features, fields, units, warnings: listing.warnings })
    }

    /// Where paths in the columns of a split lead.
    pub fn place(&self, role: &str) -> Place<'_> {
        Place { root: &self.root, under: self.folders.get(role).map_or("", String::as_str) }
    }

    /// The image column and the others for `files`, which must be the rows from `first_row` on. None where they are not.
    pub fn read(&self, first_row: usize, files: &[String], limits: &Limits) -> Option<(ImageColumn, Vec<ArrayRef>)> {
        let rows = self.files.get(first_row..first_row.checked_add(files.len())?)?;
        if rows.iter().zip(files).any(|(row, file)| row.path != *file) {
            return None;
        }
        let read = |row: &Found| match &row.problem {
            Some(problem) => Err(problem.clone()),
            None => read_inside(&self.root, &row.path, limits.max_bytes),
        };
        let contents: Vec<Result<Vec<u8>, String>> = rows.par_iter().map(read).collect();
        let mut images = ImageColumn::default();
        for (row, content) in rows.iter().zip(contents) {
            images.push(content.as_deref().map_err(Clone::clone), Some(&row.path));
        }
        Some((images, self.columns.iter().map(|(_, array)| array.slice(first_row, files.len())).collect()))
    }
}

/// Lists the images and reads the metadata. `root` must be canonical.
pub(crate) fn list(root: &Path, spec: &DatasetSpec) -> Result<Listing, DataError> {
    let io = |error| DataError::io(root, error);
    let top = entries(root).map_err(io)?;
    let folders: BTreeSet<String> =
        top.iter().filter(|entry| entry.is_folder && !entry.unreadable_name).map(|entry| entry.name.clone()).collect();
    let usual: BTreeSet<String> = folders.iter().filter(|name| role_of(name).is_some()).cloned().collect();
    let mut found = if spec.splits.is_empty() { usual.clone() } else { folders.clone() };
    let unsplit = usual.is_empty() && !spec.splits.values().any(|name| folders.contains(name));
    if unsplit {
        found = BTreeSet::from([UNSPLIT.to_owned()]);
    }
    let splits = choose(root, &spec.splits, &found)?;
    let under = |split: &Split| if unsplit { String::new() } else { split.name.clone() };
    let mut warnings = Vec::new();
    let metadata = metadata_files(root, &splits, under)?;
    let by_classes = metadata.is_none();
    let listing = match metadata {
        None => {
            refuse_metadata_in_class_folders(root, &splits, under)?;
            by_class_folders(root, splits, under).map_err(io)?
        }
        Some((paths, true)) => by_shared_metadata(splits, unsplit, &metadata::read(&paths)?),
        Some((paths, false)) => by_split_metadata(splits, under, metadata::read(&paths)?),
    };
    let beside = listing.pictures(&spec.pictures);
    if !unsplit {
        warn_of_images_outside(root, &listing.splits, &beside, &mut warnings).map_err(io)?;
    }
    warnings.extend_from_slice(&listing.warnings);
    if !by_classes {
        count_unlisted(root, &listing, &beside, under, &mut warnings).map_err(io)?;
    }
    Ok(Listing { warnings, ..listing })
}

/// The metadata files, and whether it is one for all splits.
fn metadata_files(
    root: &Path,
    splits: &[Split],
    under: impl Fn(&Split) -> String,
) -> Result<Option<(Vec<PathBuf>, bool)>, DataError> {
    let shared = metadata::find(root)?;
    let mut own = Vec::new();
    for split in splits.iter().filter(|split| !under(split).is_empty()) {
        own.push((split, metadata::find(&root.join(under(split)))?));
    }
    let layout = |path: PathBuf, problem: String| Err(DataError::Layout { path, problem });
    match (shared, own.iter().find_map(|(_, path)| path.clone())) {
        (Some(_), Some(path)) => {
            layout(path, "there is another metadata file in the dataset's folder; keep one of the two".into())
        }
        (Some(path), None) => Ok(Some((vec![path], true))),
        (None, Some(path)) => {
            if let Some((split, _)) = own.iter().find(|(_, path)| path.is_none()) {
                let problem = format!("split `{}` has no metadata file; every split needs one, or none", split.name);
                return layout(path, problem);
            }
            Ok(Some((own.into_iter().filter_map(|(_, path)| path).collect(), false)))
        }
        (None, None) => Ok(None),
    }
}

/// A metadata file one folder too deep would be passed over, and the folder taken for a class.
fn refuse_metadata_in_class_folders(
    root: &Path,
    splits: &[Split],
    under: impl Fn(&Split) -> String,
) -> Result<(), DataError> {
    for split in splits {
        let folder = root.join(under(split));
        for entry in entries(&folder).map_err(|error| DataError::io(&folder, error))? {
            if let Some(path) = metadata::find(&folder.join(&entry.name)).ok().flatten() {
                let problem = "metadata in a folder below the split is not read; move it up into the folder of the \
                               split, and let `file_name` begin with the folder's name"
                    .to_owned();
                return Err(DataError::Layout { path, problem });
            }
        }
    }
    Ok(())
}

/// One metadata file beside the split folders: the first part of `file_name` says the split.
fn by_shared_metadata(splits: Vec<Split>, unsplit: bool, metadata: &Metadata) -> Listing {
    let mut rows: BTreeMap<usize, Vec<(usize, Found)>> = BTreeMap::new();
    let mut elsewhere = 0;
    for (place, name) in metadata.names.iter().flatten().enumerate() {
        let file = resolved("", name);
        let first = file.path.split('/').next().unwrap_or_default();
        let split = splits.iter().position(|split| unsplit || split.name == first);
        match split {
            Some(split) => rows.entry(split).or_default().push((place, file)),
            // A row without a readable name must still be seen: it goes to the first split.
            None if file.problem.is_some() => rows.entry(0).or_default().push((place, file)),
            None => elsewhere += 1,
        }
    }
    let elsewhere = (elsewhere > 0).then(|| format!("{elsewhere} rows of the metadata lie in no split that is read"));
    let warnings = elsewhere.into_iter().collect();
    let order: arrow_array::UInt64Array = rows.values().flatten().map(|(place, _)| *place as u64).collect();
    let taken = metadata.columns.iter().filter_map(|(field, array)| {
        let array = arrow_select::take::take(array, &order, None).ok()?;
        Some((Arc::clone(field), array))
    });
    let columns = taken.collect();
    let mut files = vec![Vec::new(); splits.len()];
    for (split, rows) in rows {
        files[split] = rows.into_iter().map(|(_, file)| file).collect();
    }
    let folders = vec![String::new(); splits.len()];
    Listing { splits, folders, files, columns, features: metadata.features.clone(), warnings }
}

fn by_split_metadata(splits: Vec<Split>, under: impl Fn(&Split) -> String, metadata: Metadata) -> Listing {
    let files = splits.iter().zip(&metadata.names);
    let files = files.map(|(split, names)| names.iter().map(|name| resolved(&under(split), name)).collect()).collect();
    let folders = splits.iter().map(&under).collect();
    Listing { splits, folders, files, columns: metadata.columns, features: metadata.features, warnings: Vec::new() }
}

/// A metadata row's file relative to the dataset, or why it names none that may be read.
fn resolved(under: &str, name: &Found) -> Found {
    if name.problem.is_some() {
        return Found { path: join(under, &name.path), problem: name.problem.clone() };
    }
    match checked_name(under, &name.path) {
        Ok(path) => Found { path, problem: None },
        Err(problem) => Found { path: name.path.clone(), problem: Some(problem) },
    }
}

fn by_class_folders(root: &Path, splits: Vec<Split>, under: impl Fn(&Split) -> String) -> std::io::Result<Listing> {
    let files: Vec<Vec<Found>> = splits.iter().map(|split| images(root, &under(split))).collect::<Result<_, _>>()?;
    let class = |split: &Split, file: &Found| {
        let prefix = under(split).len();
        let (folder, _) = file.path.get(prefix..)?.trim_start_matches('/').rsplit_once('/')?;
        Some(folder.rsplit('/').next()?.to_owned())
    };
    let rows = splits.iter().zip(&files).flat_map(|(split, files)| files.iter().map(move |file| (split, file)));
    let classes: Vec<Option<String>> = rows.map(|(split, file)| class(split, file)).collect();
    let names: Vec<String> = classes.iter().flatten().cloned().collect::<BTreeSet<_>>().into_iter().collect();
    let (mut columns, mut features): (Vec<(FieldRef, ArrayRef)>, _) = (Vec::new(), Features::new());
    if !names.is_empty() {
        let index = |class: &Option<String>| names.binary_search(class.as_ref()?).ok().map(|index| index as i64);
        let labels: ArrayRef = Arc::new(Int64Array::from_iter(classes.iter().map(index)));
        columns.push((Arc::new(Field::new(LABEL, DataType::Int64, true)), labels));
        features.insert(LABEL, Feature::ClassLabel { names });
    }
    let folders = vec![String::new(); splits.len()];
    Ok(Listing { splits, folders, files, columns, features, warnings: Vec::new() })
}

/// Images beside or outside the split folders are not read; say so.
fn warn_of_images_outside(
    root: &Path,
    splits: &[Split],
    beside: &BTreeSet<String>,
    warnings: &mut Vec<String>,
) -> std::io::Result<()> {
    let mut loose = 0;
    for entry in entries(root)? {
        if !entry.is_folder {
            loose += usize::from(is_image_name(&entry.name) && !beside.contains(&entry.name));
        } else if !splits.iter().any(|split| split.name == entry.name) {
            let count = images(root, &entry.name)?.iter().filter(|file| !beside.contains(&file.path)).count();
            if count > 0 {
                warnings.push(format!("{count} images in `{}` belong to no split that is read", entry.name));
            }
        }
    }
    if loose > 0 {
        warnings.push(format!("{loose} images beside the split folders belong to no split"));
    }
    Ok(())
}

/// Where metadata lists the images, images that it does not list are not read; say how many.
fn count_unlisted(
    root: &Path,
    listing: &Listing,
    beside: &BTreeSet<String>,
    under: impl Fn(&Split) -> String,
    warnings: &mut Vec<String>,
) -> std::io::Result<()> {
    for (split, files) in listing.splits.iter().zip(&listing.files) {
        let listed: BTreeSet<&str> = files.iter().map(|file| file.path.as_str()).collect();
        let is_known = |path: &str| listed.contains(path) || beside.contains(path);
        let unlisted = images(root, &under(split))?.iter().filter(|file| !is_known(&file.path)).count();
        if unlisted > 0 {
            warnings
                .push(format!("{unlisted} images of split `{}` are not in its metadata and are not read", split.name));
        }
    }
    Ok(())
}

fn units(
    root: &Path,
    listing: &Listing,
    image: &str,
    pictures: &[String],
    features: &Features,
) -> Result<Vec<Unit>, DataError> {
    let schema = Schema::new(listing.columns.iter().map(|(field, _)| Arc::clone(field)).collect::<Vec<_>>());
    let arrays = listing.columns.iter().map(|(_, array)| Arc::clone(array)).collect();
    let total = listing.files.iter().map(Vec::len).sum();
    let options = RecordBatchOptions::new().with_row_count(Some(total));
    let batch = RecordBatch::try_new_with_options(Arc::new(schema), arrays, &options)
        .map_err(DataError::arrow("the columns of the image folder"))?;
    let described = features.to_metadata_json();
    let beside: Vec<Vec<String>> =
        pictures.iter().filter(|column| *column != image).map(|column| contents(root, listing, column)).collect();
    let mut units = Vec::new();
    let mut first_of_split = 0;
    for (split, files) in listing.splits.iter().zip(&listing.files) {
        let hashed: Vec<Result<(u64, blake3::Hash), String>> = files
            .par_iter()
            .map(|file| file.problem.clone().map_or_else(|| hash_inside(root, &file.path), Err))
            .collect();
        for run in cut(hashed.iter().map(|hashed| hashed.as_ref().map_or(0, |(size, _)| *size))) {
            let contents: Vec<String> = run
                .clone()
                .map(|row| {
                    let content = hashed[row].as_ref().map_or_else(Clone::clone, |(_, hash)| hash.to_hex().to_string());
                    let values = row_object(&batch, first_of_split + row, features, |_| true);
                    format!("{}\0{content}\0{}", files[row].path, serde_json::Value::Object(values))
                })
                .collect();
            let parts = [("split", &split.role), ("image", &image.to_owned()), ("features", &described)];
            let parts = parts.into_iter().chain(contents.iter().map(|content| ("row", content)));
            let rows = first_of_split + run.start..first_of_split + run.end;
            let parts =
                parts.chain(beside.iter().flat_map(|contents| &contents[rows.clone()]).map(|one| ("picture", one)));
            units.push(Unit {
                index: units.len(),
                split: split.role.clone(),
                source: Source::Files {
                    first_row: first_of_split + run.start,
                    files: files[run.clone()].iter().map(|file| file.path.clone()).collect(),
                },
                rows: run.len(),
                fingerprint: Fingerprint::of(parts.map(|(name, part)| (name, part.as_bytes()))),
            });
        }
        first_of_split += files.len();
    }
    Ok(units)
}

/// What the files are that a column of pictures names, one a row.
fn contents(root: &Path, listing: &Listing, column: &str) -> Vec<String> {
    let paths: Vec<(&str, Option<&str>)> = listing.paths(column).collect();
    paths.par_iter().map(|&(under, path)| Place { root, under }.content(path).1).collect()
}
