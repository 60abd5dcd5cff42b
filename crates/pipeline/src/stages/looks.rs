//! Looks: what the pixels of the images say, group by group.

use std::collections::{HashMap, HashSet};
use std::path::Path;

use evenset_audit::images::{Appearance, ImageNames, ImageRecord, ImageReport, ImageStatistics, audit_images};
use evenset_core::{Fingerprint, MISSING, Progress, SampleId, Seed};
use evenset_data::{Dataset, Limits, ResolvedView, Table};
use rayon::prelude::*;

use super::scan::Scan;
use crate::error::Result;
use crate::job::Role;
use crate::run::{Context, Done, Stage, StageReport, fingerprint, read_json_of, write_json};

const LOOKS: &str = "images.json";
/// Held-out images that stand, nearly, in another split too.
const OVERLAP: &str = "overlap.json";
/// What is kept of an image takes about 1.5 kB, so of a larger dataset every second, third, ... image is looked at.
const MOST_IMAGES: usize = 200_000;
/// Groups above this number would be groups of a few images: then the first attribute alone makes them.
const MOST_GROUPS: usize = 200;

/// Looks at the images of a scanned dataset.
pub struct LooksStage<'a> {
    /// The images.
    pub dataset: &'a Dataset,
    /// The usable rows.
    pub scan: &'a Done<Scan>,
    /// The job's seed.
    pub seed: Seed,
}

/// What was seen.
#[derive(Debug)]
pub struct Looked {
    /// For the audit.
    pub report: ImageReport,
    /// Held-out images that have a near-duplicate in another split.
    pub overlap: Vec<SampleId>,
}

impl Stage for LooksStage<'_> {
    type Output = Looked;

    fn name(&self) -> String {
        "looks".into()
    }

    fn fingerprint(&self) -> Fingerprint {
        fingerprint("looks", &self.seed, &[&self.scan.fingerprint])
    }

    fn run(&self, folder: &Path, context: &Context<'_>) -> Result<StageReport> {
        let scan = &self.scan.output;
        let (report, across) = look(self.dataset, &scan.columns, self.seed, context.progress, |unit, _| {
            let rows = scan.rows.iter().filter(|row| row.unit == unit);
            Ok(rows.map(|row| (row.row, row.values.clone())).collect())
        })?;
        let held_out: HashMap<(usize, usize), SampleId> =
            scan.rows.iter().filter(|row| row.role != Role::Train).map(|row| ((row.unit, row.row), row.id)).collect();
        let overlap: Vec<SampleId> = across.iter().filter_map(|place| held_out.get(place)).copied().collect();
        write_json(&folder.join(OVERLAP), &overlap)?;
        write_json(&folder.join(LOOKS), &report)?;
        Ok(StageReport { rows: report.images, rejected: 0 })
    }

    fn load(&self, folder: &Path) -> Result<Looked> {
        Ok(Looked { report: read_json_of(&folder.join(LOOKS))?, overlap: read_json_of(&folder.join(OVERLAP))? })
    }
}

/// Looks at the images of a dataset that was not scanned, as a view of its labels sees it.
///
/// # Errors
/// Whatever reading the dataset can give. Images that cannot be decoded are passed over.
pub(crate) fn look_at(
    dataset: &Dataset,
    view: &ResolvedView,
    seed: Seed,
    progress: &dyn Progress,
) -> Result<ImageReport> {
    let columns: Vec<String> = view.attributes().into_iter().map(str::to_owned).collect();
    let looked = look(dataset, &columns, seed, progress, |unit, table| {
        let (values, kept) = view.apply(table, &dataset.units[unit].split)?;
        let value =
            |row: usize| values.iter().map(|column| column.values[column.codes[row] as usize].clone()).collect();
        Ok((0..table.rows()).filter(|&row| kept[row]).map(|row| (row, value(row))).collect())
    })?;
    Ok(looked.0)
}

/// The rows of a unit that count, each with its values.
type Rows = Vec<(usize, Vec<Option<String>>)>;

/// What the images are like, and the places (unit and row) of those with a near-duplicate in another split.
fn look(
    dataset: &Dataset,
    columns: &[String],
    seed: Seed,
    progress: &dyn Progress,
    rows_of: impl Fn(usize, &Table) -> Result<Rows>,
) -> Result<(ImageReport, Vec<(usize, usize)>)> {
    let every = dataset.rows().div_ceil(MOST_IMAGES).max(1);
    let splits: Vec<String> = dataset.splits().into_iter().map(str::to_owned).collect();
    let mut known: Vec<Codes> = columns.iter().map(|_| Codes::default()).collect();
    let (mut records, mut files, mut split_of, mut places) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    progress.begin("look at images", dataset.rows() as u64);
    let mut seen = 0;
    for (index, unit) in dataset.units.iter().enumerate() {
        progress.check()?;
        let table = dataset.read(unit)?;
        let mut chosen = Vec::new();
        for (row, values) in rows_of(index, &table)? {
            if seen % every == 0 {
                let codes = known.iter_mut().zip(&values).map(|(known, value)| known.of(value.as_deref()));
                chosen.push((row, codes.collect()));
            }
            seen += 1;
        }
        let split = splits.iter().position(|name| *name == unit.split).unwrap_or(0) as u32;
        let looked: Vec<_> = chosen.into_par_iter().filter_map(|(row, codes)| record(&table, row, codes)).collect();
        for (record, row) in looked {
            records.push(record);
            files.push(table.path(row).map_or_else(|| format!("{} unit {index} row {row}", unit.split), str::to_owned));
            split_of.push(split);
            places.push((index, row));
        }
        progress.advance(unit.rows as u64);
    }
    let attributes: Vec<_> = columns.iter().cloned().zip(known.into_iter().map(|known| known.values)).collect();
    let grouping = grouping(&records, columns.len());
    let audit = audit_images(&records, &grouping, &split_of, seed);
    progress.end();
    let across = audit.across_splits.iter().filter_map(|&place| places.get(place)).copied().collect();
    let names = ImageNames { attributes: &attributes, grouping: &grouping, files: &files, splits: &splits };
    Ok((audit.named(&names), across))
}

/// The values of an attribute and the code of each.
#[derive(Default)]
struct Codes {
    values: Vec<String>,
    places: HashMap<String, u32>,
}

impl Codes {
    /// The code of a value; a new value gets the next one.
    fn of(&mut self, value: Option<&str>) -> u32 {
        let value = value.unwrap_or(MISSING);
        self.places.get(value).copied().unwrap_or_else(|| {
            let next = self.values.len() as u32;
            self.values.push(value.to_owned());
            self.places.insert(value.to_owned(), next);
            next
        })
    }
}

fn record(table: &Table, row: usize, codes: Vec<u32>) -> Option<(ImageRecord, usize)> {
    let (bytes, _) = table.image(row)?;
    let image = evenset_data::decode(bytes, &Limits::default()).ok()?;
    let statistics = ImageStatistics::of(&image, bytes.len() as u64);
    Some((ImageRecord { statistics, appearance: Appearance::of(&image), codes }, row))
}

/// All attributes, unless they make so many groups that each has only a few images.
fn grouping(records: &[ImageRecord], attributes: usize) -> Vec<usize> {
    let groups: HashSet<&[u32]> = records.iter().map(|record| record.codes.as_slice()).collect();
    if groups.len() <= MOST_GROUPS { (0..attributes).collect() } else { (0..attributes.min(1)).collect() }
}
