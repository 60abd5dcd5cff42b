//! Scan: every row is read and decoded once; what is broken gets a reason instead of ending the run.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use arrow_array::RecordBatch;
use evenset_core::{Fingerprint, Group, SampleId};
use evenset_data::{Dataset, Limits, Mode, ResolvedView, Table, Unit};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use crate::columns::{self, Reader};
use crate::error::{PipelineError, Result};
use crate::job::{Job, OnError, Role};
use crate::pictures::{Pictures, Unfit};
use crate::run::{Context, Stage, StageReport, fingerprint, read_json_of, write_json};
use crate::units;

/// Prefix of the columns that hold attribute values, so that no attribute can hide one of our own columns.
const ATTRIBUTE: &str = "attribute.";
const OK: &str = "ok";
const REJECTED: &str = "rejected";
/// Left out by the job's `where`.
const FILTERED: &str = "filtered";
const SUMMARY: &str = "summary.json";
const REJECTED_ROWS: &str = "rejected.parquet";

/// Reads and decodes every row of the dataset.
pub struct ScanStage<'a> {
    /// The job.
    pub job: &'a Job,
    /// The opened dataset.
    pub dataset: &'a Dataset,
    /// Its attributes and which rows are looked at.
    pub view: &'a ResolvedView,
}

/// A usable row.
#[derive(Clone, Debug)]
pub struct Row {
    /// Name of the image by its bytes.
    pub id: SampleId,
    /// The unit of the dataset it is in.
    pub unit: usize,
    /// Its place in the unit.
    pub row: usize,
    /// What its split is for.
    pub role: Role,
    /// Width in pixels.
    pub width: u32,
    /// Height in pixels.
    pub height: u32,
    /// Whether the image has no colour channels.
    pub grey: bool,
    /// One value an attribute (label first); `None` where it is missing.
    pub values: Vec<Option<String>>,
    /// Whether it has the pictures that a guide needs: masks and what ControlNets are shown. True where the job needs none.
    pub guides: bool,
}

/// What the scan found.
#[derive(Debug)]
pub struct Scan {
    /// Label and attributes, in the order of [`Row::values`].
    pub columns: Vec<String>,
    /// Usable rows, in the dataset's order.
    pub rows: Vec<Row>,
    /// Rows that were left out, by split and reason.
    pub summary: ScanSummary,
}

/// Counts of a scan, as they are saved beside its units.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct ScanSummary {
    /// Usable rows of each split.
    pub rows: BTreeMap<String, u64>,
    /// Rows of each split that the job's `where` leaves out.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub filtered: BTreeMap<String, u64>,
    /// Rejected rows by reason, with the first files.
    pub rejected: Vec<RejectedReason>,
    /// Usable training rows that guide no candidate, since they lack a picture that belongs to them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub unfit: Vec<RejectedReason>,
    /// Images that stand in `train` and in a held-out split too.
    pub leaked: u64,
}

impl ScanSummary {
    /// What a reader must know where rows were rejected.
    pub(crate) fn rejected_note(&self) -> Option<String> {
        let rows: u64 = self.rejected.iter().map(|reason| reason.rows).sum();
        let mut reasons: Vec<String> =
            self.rejected.iter().take(3).map(|reason| format!("{} ({})", reason.reason, reason.rows)).collect();
        if self.rejected.len() > reasons.len() {
            reasons.push("and others".into());
        }
        let were = if rows == 1 { "1 row was".to_owned() } else { format!("{rows} rows were") };
        (rows > 0).then(|| format!("{were} rejected: {}; `evenset scan JOB` shows the first, and `scan-*/rejected.parquet` in the run has all", reasons.join(", ")))
    }

    /// What a reader must know where the job leaves rows out: a misspelt value leaves out all that it should keep.
    pub(crate) fn filtered_note(&self) -> Option<String> {
        let filtered: u64 = self.filtered.values().sum();
        let rows = filtered + self.rows.values().sum::<u64>();
        (filtered > 0).then(|| format!("`where` leaves out {filtered} of {rows} rows"))
    }
}

/// Rows that were rejected for one reason.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct RejectedReason {
    /// Why.
    pub reason: String,
    /// How many rows.
    pub rows: u64,
    /// The first of them, at most twenty.
    pub examples: Vec<String>,
}

impl Scan {
    /// Usable rows of one role, in order.
    pub fn role(&self, role: Role) -> impl Iterator<Item = &Row> {
        self.rows.iter().filter(move |row| row.role == role)
    }

    /// Index of a column in [`Row::values`].
    pub fn column(&self, name: &str) -> Option<usize> {
        self.columns.iter().position(|column| column == name)
    }

    /// Held-out images that stand in the training split too, byte for byte.
    pub fn copies(&self) -> BTreeSet<SampleId> {
        let train: BTreeSet<SampleId> = self.role(Role::Train).map(|row| row.id).collect();
        let held_out = self.rows.iter().filter(|row| row.role != Role::Train);
        held_out.map(|row| row.id).filter(|id| train.contains(id)).collect()
    }

    /// The group of a row by these columns; none where a value is missing.
    pub fn group(&self, row: &Row, grouping: &[String]) -> Option<Group> {
        grouping.iter().try_fold(Group::default(), |group, name| {
            Some(group.with(name, row.values.get(self.column(name)?)?.as_deref()?))
        })
    }
}

impl Stage for ScanStage<'_> {
    type Output = Scan;

    fn name(&self) -> String {
        "scan".into()
    }

    fn fingerprint(&self) -> Fingerprint {
        let units: Vec<&str> = self.dataset.units.iter().map(|unit| unit.fingerprint.as_str()).collect();
        // Where the dataset lies does not matter, only what is in it.
        let dataset = &self.job.dataset;
        fingerprint("scan", &(self.what(), &dataset.image, dataset.on_error, &dataset.splits, units), &[])
    }

    fn run(&self, folder: &Path, context: &Context<'_>) -> Result<StageReport> {
        let columns = self.job.dataset.columns();
        let units: Vec<(Fingerprint, u64)> =
            self.dataset.units.iter().map(|unit| (self.unit_fingerprint(unit), unit.rows as u64)).collect();
        let report = units::map(folder, "scan", &units, context, |index| {
            let done = self.scan_unit(index, &columns)?;
            context.progress.advance(units[index].1);
            Ok(done)
        })?;
        let summary = self.summarise(folder)?;
        write_json(&folder.join(SUMMARY), &summary)?;
        Ok(report)
    }

    fn load(&self, folder: &Path) -> Result<Scan> {
        let columns = self.job.dataset.columns();
        let mut rows = Vec::new();
        for (index, unit) in self.dataset.units.iter().enumerate() {
            for batch in units::read_one(folder, index)? {
                rows.extend(usable_rows(&batch, folder, index, role(&unit.split), &columns)?);
            }
        }
        let summary: ScanSummary = read_json_of(&folder.join(SUMMARY))?;
        if !rows.iter().any(|row| row.role == Role::Train) {
            let rejected = summary.rejected.iter().map(|reason| reason.rows).sum();
            let filtered: u64 = summary.filtered.values().sum();
            let why = if filtered > 0 { "`where` leaves them out" } else { "the training split is empty" };
            return Err(PipelineError::NoRows {
                path: self.job.dataset.path.clone(),
                rows: rejected + filtered + rows.len() as u64,
                rejected,
                reason: summary.rejected.first().map_or(why.into(), |r| r.reason.clone()),
            });
        }
        Ok(Scan { columns, rows, summary })
    }
}

impl ScanStage<'_> {
    fn unit_fingerprint(&self, unit: &Unit) -> Fingerprint {
        fingerprint("scan-unit", &(&unit.fingerprint, self.what(), &self.job.dataset.image), &[])
    }

    /// Everything that decides which rows are looked at and what values they have.
    fn what(&self) -> impl Serialize + '_ {
        let edges: Vec<(&String, &[f64])> =
            self.job.derive.keys().filter_map(|name| Some((name, self.view.edges(name)?))).collect();
        (self.job.view(), &self.job.dataset.missing, edges, Pictures::of(self.job))
    }

    fn scan_unit(&self, index: usize, columns: &[String]) -> Result<(RecordBatch, StageReport)> {
        let unit = &self.dataset.units[index];
        let table = self.dataset.read(unit)?;
        let (values, kept) = self.view.apply(&table, &unit.split)?;
        let looked: Vec<Looked> = (0..table.batch.num_rows()).into_par_iter().map(|row| look(&table, row)).collect();
        if self.job.dataset.on_error == OnError::Fail
            && let Some((row, reason)) =
                looked.iter().enumerate().find_map(|(row, looked)| looked.result.as_ref().err().map(|e| (row, e)))
        {
            let file = file_name(&table, unit, row);
            return Err(PipelineError::BrokenRow { file, reason: reason.clone() });
        }
        let unfit = self.unfit(unit, &table, &looked, &kept);
        if self.job.dataset.on_error == OnError::Fail
            && let Some((row, reason)) = unfit.iter().enumerate().find_map(|(row, unfit)| match unfit {
                Some(Unfit::Broken(reason)) => Some((row, reason)),
                _ => None,
            })
        {
            return Err(PipelineError::BrokenRow { file: file_name(&table, unit, row), reason: reason.clone() });
        }
        let ok = |looked: &Looked| looked.result.as_ref().ok().copied();
        let mut batch = vec![
            ("row", columns::numbers((0..looked.len()).map(|row| row as u64))),
            ("id", columns::strings(looked.iter().map(|l| l.id.map(|id| id.to_string()).unwrap_or_default()))),
            ("file", columns::strings((0..looked.len()).map(|row| file_name(&table, unit, row)))),
            ("split", columns::strings(looked.iter().map(|_| unit.split.clone()))),
            ("width", columns::numbers(looked.iter().map(|l| ok(l).map_or(0, |size| size.0.into())))),
            ("height", columns::numbers(looked.iter().map(|l| ok(l).map_or(0, |size| size.1.into())))),
            ("grey", columns::flags(looked.iter().map(|l| ok(l).is_some_and(|size| size.2)))),
            ("status", columns::texts(looked.iter().zip(&kept).map(|(l, kept)| Some(status(l, *kept))))),
            ("error", columns::texts(looked.iter().map(|l| l.result.as_ref().err().map(String::as_str)))),
            ("unfit", columns::texts(unfit.iter().map(|unfit| unfit.as_ref().map(Unfit::reason)))),
        ];
        let names: Vec<String> = columns.iter().map(|column| format!("{ATTRIBUTE}{column}")).collect();
        for (name, values) in names.iter().zip(&values) {
            batch
                .push((name, columns::texts(values.codes.iter().map(|&code| values.values[code as usize].as_deref()))));
        }
        let count =
            |wanted: &str| looked.iter().zip(&kept).filter(|(l, kept)| status(l, **kept) == wanted).count() as u64;
        Ok((columns::table(batch)?, StageReport { rows: count(OK), rejected: count(REJECTED) }))
    }

    /// Why rows guide no candidate: of training rows that are usable, where the job needs pictures of guides.
    fn unfit(&self, unit: &Unit, table: &Table, looked: &[Looked], kept: &[bool]) -> Vec<Option<Unfit>> {
        let pictures = Pictures::of(self.job);
        let asked = !pictures.columns.is_empty() && role(&unit.split) == Role::Train;
        let check = |row: usize| {
            let usable = asked && status(&looked[row], kept[row]) == OK;
            usable.then(|| pictures.check(self.dataset, unit, table, row).err()).flatten()
        };
        (0..looked.len()).into_par_iter().map(check).collect()
    }

    /// Collects the rejected rows into one table, and counts.
    fn summarise(&self, folder: &Path) -> Result<ScanSummary> {
        let mut summary = ScanSummary::default();
        let (mut reasons, mut unfit): (Reasons, Reasons) = Default::default();
        let mut train = BTreeSet::new();
        let mut held_out = BTreeSet::new();
        let mut rejected: [Vec<Option<String>>; 3] = Default::default();
        for (index, unit) in self.dataset.units.iter().enumerate() {
            for batch in units::read_one(folder, index)? {
                let reader = Reader { batch: &batch, path: folder };
                let (ids, files) = (reader.strings("id")?, reader.strings("file")?);
                let rows = reader.strings("status")?.into_iter().zip(reader.texts("error")?);
                let rows = rows.zip(reader.texts("unfit")?);
                for ((((status, error), guides_not), file), id) in rows.zip(files).zip(ids) {
                    if let Some(reason) = guides_not {
                        count_reason(&mut unfit, &reason, &file);
                    }
                    if status == FILTERED {
                        *summary.filtered.entry(unit.split.clone()).or_default() += 1;
                        continue;
                    }
                    let Some(error) = error else {
                        *summary.rows.entry(unit.split.clone()).or_default() += 1;
                        let seen = if role(&unit.split) == Role::Train { &mut train } else { &mut held_out };
                        seen.insert(id);
                        continue;
                    };
                    count_reason(&mut reasons, &error, &file);
                    for (column, value) in rejected.iter_mut().zip([file, unit.split.clone(), error]) {
                        column.push(Some(value));
                    }
                }
            }
        }
        let [files, splits, errors] = &rejected;
        let column = |values: &[Option<String>]| columns::texts(values.iter().map(Option::as_deref));
        let status = columns::texts(files.iter().map(|_| Some(REJECTED)));
        let table = columns::table(vec![
            ("file", column(files)),
            ("split", column(splits)),
            ("status", status),
            ("error", column(errors)),
        ])?;
        evenset_data::write_parquet(&folder.join(REJECTED_ROWS), &table)?;
        summary.leaked = train.intersection(&held_out).count() as u64;
        summary.rejected = most_frequent_first(reasons);
        summary.unfit = most_frequent_first(unfit);
        Ok(summary)
    }
}

/// Rows by the reason why they are left out.
type Reasons = BTreeMap<String, RejectedReason>;

fn count_reason(reasons: &mut Reasons, why: &str, file: &str) {
    let reason = reasons.entry(why.to_owned()).or_default();
    reason.reason = why.to_owned();
    reason.rows += 1;
    if reason.examples.len() < 20 {
        reason.examples.push(file.to_owned());
    }
}

fn most_frequent_first(reasons: Reasons) -> Vec<RejectedReason> {
    let mut reasons: Vec<RejectedReason> = reasons.into_values().collect();
    reasons.sort_by(|a, b| b.rows.cmp(&a.rows).then_with(|| a.reason.cmp(&b.reason)));
    reasons
}

/// What becomes of a row: a broken one is left out by `where` all the same, as its labels say so.
fn status(looked: &Looked, kept: bool) -> &'static str {
    match &looked.result {
        _ if !kept => FILTERED,
        Ok(_) => OK,
        Err(_) => REJECTED,
    }
}

/// What a look at one row found: width, height and whether it is grey, or why it is broken.
struct Looked {
    id: Option<SampleId>,
    result: Result<(u32, u32, bool), String>,
}

fn look(table: &Table, row: usize) -> Looked {
    if let Some((_, error)) = table.errors.iter().find(|(broken, _)| *broken == row) {
        return Looked { id: None, result: Err(error.clone()) };
    }
    let Some((bytes, _)) = table.image(row) else {
        return Looked { id: None, result: Err("no image in this row".into()) };
    };
    let result = evenset_data::decode(bytes, &Limits::default())
        .map(|image| (image.width, image.height, matches!(image.mode, Mode::L | Mode::La)))
        .map_err(|error| error.to_string());
    Looked { id: Some(SampleId::of(bytes)), result }
}

fn file_name(table: &Table, unit: &Unit, row: usize) -> String {
    let path = table.image(row).and_then(|(_, path)| path.map(str::to_owned));
    path.unwrap_or_else(|| format!("{} unit {} row {row}", unit.split, unit.index))
}

pub(crate) fn role(split: &str) -> Role {
    match split {
        "test" => Role::Test,
        "validation" => Role::Validation,
        _ => Role::Train,
    }
}

fn usable_rows(batch: &RecordBatch, path: &Path, unit: usize, role: Role, columns: &[String]) -> Result<Vec<Row>> {
    let reader = Reader { batch, path };
    let (status, ids, places) = (reader.strings("status")?, reader.strings("id")?, reader.numbers("row")?);
    let unfit = reader.texts("unfit")?;
    let (widths, heights, grey) = (reader.numbers("width")?, reader.numbers("height")?, reader.flags("grey")?);
    let values: Vec<Vec<Option<String>>> =
        columns.iter().map(|column| reader.texts(&format!("{ATTRIBUTE}{column}"))).collect::<Result<_>>()?;
    let size = |n: u64| u32::try_from(n).unwrap_or(u32::MAX);
    (0..batch.num_rows())
        .filter(|&i| status[i] == OK)
        .map(|i| {
            Ok(Row {
                id: ids[i].parse().map_err(PipelineError::damaged(path))?,
                unit,
                row: usize::try_from(places[i]).unwrap_or(usize::MAX),
                role,
                width: size(widths[i]),
                height: size(heights[i]),
                grey: grey[i],
                values: values.iter().map(|column| column[i].clone()).collect(),
                guides: unfit[i].is_none(),
            })
        })
        .collect()
}
