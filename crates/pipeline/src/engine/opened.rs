//! What a job reads: its images, where it has any, and its labels.

use evenset_core::Progress;
use evenset_data::{DataError, Dataset, LabelTable, ResolvedView};

use crate::error::Result;
use crate::job::Job;
use crate::labels;
use crate::pictures;

/// What a job would read, without reading it and without a run folder.
///
/// # Errors
/// Where the data or its columns are not there.
pub fn would_read(job: &Job, progress: &dyn Progress) -> Result<String> {
    let (dataset, table) = open(job)?;
    view(job, &table, progress)?;
    let rows = table.rows().map_or_else(|| "rows not counted yet".to_owned(), |rows| format!("{rows} rows"));
    let images = if dataset.is_some() { "with images" } else { "without images" };
    let names = job.dataset.columns().join(", ");
    Ok(format!(
        "would read {}: {rows}, {images}, counted by {names}; run folder {}",
        table.describe(),
        job.run.display()
    ))
}

/// Opens the data: its images, where it has any, and its labels.
pub(super) fn open(job: &Job) -> Result<(Option<Dataset>, LabelTable)> {
    let (path, question) = (&job.dataset.path, labels::Question::of_job(job));
    if labels::may_be_elsewhere(path) || labels::is_text_table(path) {
        return Ok((None, question.open()?));
    }
    match Dataset::open(&job.dataset_spec()) {
        Ok(dataset) => {
            pictures::refuse_image_as_mask(job, &dataset.image)?;
            Ok((Some(dataset), question.open()?))
        }
        // Where it is not a table either, the first error says more.
        Err(error @ (DataError::NoImageColumn { .. } | DataError::NoData { .. })) => match question.open() {
            Ok(table) if job.dataset.image.is_none() => Ok((None, table)),
            _ => Err(error.into()),
        },
        Err(error) => Err(pictures::of_key(job, error)),
    }
}

/// Finds the job's attributes in the data; an error names the key of the job that is wrong.
pub(super) fn view(job: &Job, table: &LabelTable, progress: &dyn Progress) -> Result<ResolvedView> {
    let names: Vec<&str> = table.columns().iter().map(|column| column.name.as_str()).collect();
    let label = job.dataset.label.iter().map(|label| ("dataset.label", label));
    let attributes = job.dataset.attributes.iter().map(|attribute| ("dataset.attributes", attribute));
    let count = job.dataset.count.iter().map(|count| ("dataset.count", count));
    for (key, column) in label.chain(attributes).chain(count) {
        if !names.contains(&column.as_str()) && !job.derive.contains_key(column) {
            let nearest = evenset_data::nearest(column, names.iter().copied());
            let guess = nearest.map(|name| format!("; did you mean `{name}`?")).unwrap_or_default();
            // A metadata file takes the place of class folders, as in the Python library `datasets`.
            let folders = key == "dataset.label" && job.dataset.path.is_dir() && names.contains(&"path");
            let derive = format!(
                "; beside a metadata file the names of folders are no column: if they are the label, write `derive: \
                 {{{column}: {{from: path, regex: '([^/]+)/[^/]+$'}}}}`"
            );
            let folders = if folders { derive.as_str() } else { "" };
            let message =
                format!("`{column}` is not a column of the dataset; it has {}{guess}{folders}", names.join(", "));
            return Err(job.invalid(key, message).into());
        }
    }
    table.view(&labels::Question::of_job(job).view(), progress).map_err(|error| match &error {
        DataError::Derive { attribute, .. } => job.invalid(&format!("derive.{attribute}"), error.to_string()).into(),
        DataError::Filter(_) | DataError::NoSuchColumn { .. } => job.invalid("where", error.to_string()).into(),
        _ => error.into(),
    })
}
