//! Write: the balanced dataset, real rows first, generated rows in `train` only.
//!
//! Real images pass through byte for byte. That generated images go to `train` and nowhere else is in the types: a
//! candidate has no split, and `Writers::generated` is the only function that writes one.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow_array::RecordBatch;
use arrow_schema::SchemaRef;
use evenset_core::{Fingerprint, SampleId};
use evenset_data::atomic::AtomicFolder;
use evenset_data::{
    Dataset, DatasetWriter, Features, Format, ParquetOptions, ParquetWriter, Styled, WebDatasetOptions,
    WebDatasetWriter,
};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use super::scan::{Row, Scan};
use crate::error::{PipelineError, Result};
use crate::generator::Generator;
use crate::images::Frame;
use crate::job::{self, Job, Role};
use crate::provenance::{Layout, Origin};
use crate::rounds::Accepted;
use crate::run::{Context, Done, Stage, StageReport, fingerprint, read_json, read_json_of, write_json};
use crate::styles::Styles;
use crate::surplus::LeftOut;

const RECORD: &str = "written.json";
/// The file in the output folder that says which job made it.
const MARKER: &str = "evenset.json";
/// Folder of the tar shards in the output folder.
const WEBDATASET: &str = "webdataset";

/// Makes the text files that stand beside the data: names and contents.
pub type Companions<'a> = dyn Fn(&Written) -> Result<Vec<(String, String)>> + 'a;

/// Writes the balanced dataset.
pub struct WriteStage<'a> {
    /// The job.
    pub job: &'a Job,
    /// The images.
    pub dataset: &'a Dataset,
    /// The scanned rows.
    pub scan: &'a Done<Scan>,
    /// The size that models work at, which the texts beside the data name.
    pub frame: Frame,
    /// Accepted candidates that fill the plan.
    pub accepted: &'a [Accepted],
    /// What drew them, where any were drawn.
    pub model: Option<&'a Done<Box<dyn Generator>>>,
    /// The plan's fingerprint.
    pub plan: &'a Fingerprint,
    /// The fingerprint of the last round.
    pub rounds: &'a Fingerprint,
    /// The stages that drew and judged the generated images.
    pub made_from: &'a MadeFrom,
    /// Text files that stand beside the data: name and content, given what was written.
    pub companions: &'a Companions<'a>,
    /// Training rows that the plan leaves out.
    pub(crate) left_out: &'a LeftOut,
}

/// What was written.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Written {
    /// Real rows over all splits.
    pub rows_real: u64,
    /// Generated rows, all of them in `train`.
    pub rows_generated: u64,
    /// Rows of each split.
    pub splits: Vec<(String, u64)>,
    /// Generated images that were given a file like a real one's (`write.match_real`).
    #[serde(default)]
    pub matched: u64,
    /// Generated images that could not be: lossy WebP and rare kinds of JPEG, which became PNG files of the right size.
    #[serde(default)]
    pub unmatched: u64,
    /// Columns and what they hold.
    pub features: Features,
    /// The data files.
    pub files: Vec<WrittenFile>,
}

/// One data file.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct WrittenFile {
    /// Path under the output folder.
    pub path: String,
    /// The split it belongs to.
    pub split: String,
    /// Its rows.
    pub rows: u64,
    /// Its bytes.
    pub bytes: u64,
    /// SHA-256 of its bytes.
    pub sha256: String,
}

/// The marker in the output folder.
#[derive(Serialize, Deserialize)]
struct Marker {
    evenset: String,
    job: String,
    fingerprint: Fingerprint,
    /// What the generated images come from: the stages that drew and judged them.
    #[serde(default)]
    made_from: MadeFrom,
}

/// Stages by name, each with its fingerprint.
pub type MadeFrom = BTreeMap<String, Fingerprint>;

/// Refuses, before any work, an output folder that another job made, or nobody knows who.
pub fn check_output(job: &Job, overwrite: bool) -> Result<()> {
    let out = &job.write.out;
    if overwrite || is_empty_or_absent(out)? {
        return Ok(());
    }
    match read_json::<Marker>(&out.join(MARKER)) {
        Ok(Some(marker)) if marker.job == job.name => Ok(()),
        _ => Err(PipelineError::OutputExists(out.clone())),
    }
}

/// Refuses, before the work of a stage, an output whose images come from the same stage with other settings or other data, or
/// from fewer rounds. What is written has the fingerprints of all that it was made from in its own, so it would be refused in
/// the end.
pub fn check_made_from<S: Stage>(job: &Job, overwrite: bool, stage: &S) -> Result<()> {
    let out = &job.write.out;
    let marker = if overwrite { None } else { read_json::<Marker>(&out.join(MARKER)).ok().flatten() };
    let other = |made_from: &MadeFrom| {
        !made_from.is_empty() && made_from.get(&stage.name()).is_none_or(|before| *before != stage.fingerprint())
    };
    match marker.is_some_and(|marker| other(&marker.made_from)) {
        true => Err(PipelineError::OutputExists(out.clone())),
        false => Ok(()),
    }
}

fn is_empty_or_absent(folder: &Path) -> Result<bool> {
    match std::fs::read_dir(folder) {
        Ok(mut entries) => Ok(entries.next().is_none()),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(true),
        Err(source) => Err(PipelineError::Io { path: folder.to_owned(), source }),
    }
}

impl Stage for WriteStage<'_> {
    type Output = Written;

    fn name(&self) -> String {
        "write".into()
    }

    fn fingerprint(&self) -> Fingerprint {
        let (write, label) = (&self.job.write, &self.job.dataset.label);
        let config = (&self.job.name, &write.formats, &write.license, &write.out, write.match_real, label, self.frame);
        fingerprint("write", &config, &[&self.scan.fingerprint, self.plan, self.rounds])
    }

    /// Whether the output is this one, with all its files at their full size.
    fn intact(&self, folder: &Path) -> bool {
        let whole = |file: &WrittenFile| {
            let length = self.job.write.out.join(&file.path).metadata().map(|found| found.len());
            length.is_ok_and(|length| length == file.bytes)
        };
        self.is_own() && self.load(folder).is_ok_and(|written| written.files.iter().all(whole))
    }

    fn run(&self, folder: &Path, context: &Context<'_>) -> Result<StageReport> {
        let out = &self.job.write.out;
        if !context.overwrite && !is_empty_or_absent(out)? && !self.is_own() {
            return Err(PipelineError::OutputExists(out.clone()));
        }
        let building = AtomicFolder::create(out, true)?;
        let written = self.write_into(building.path(), context)?;
        for (name, text) in (self.companions)(&written)? {
            evenset_data::atomic::write_file(&building.path().join(name), text.as_bytes())?;
        }
        let marker = Marker {
            evenset: crate::VERSION.into(),
            job: self.job.name.clone(),
            fingerprint: self.fingerprint(),
            made_from: self.made_from.clone(),
        };
        write_json(&building.path().join(MARKER), &marker)?;
        // The record first: a kill between the two leaves an output without a record, which is written again.
        write_json(&folder.join(RECORD), &written)?;
        building.commit()?;
        Ok(StageReport { rows: written.rows_real + written.rows_generated, rejected: 0 })
    }

    fn load(&self, folder: &Path) -> Result<Written> {
        read_json_of(&folder.join(RECORD))
    }
}

impl WriteStage<'_> {
    /// Whether this very job made the output, whatever became of it since.
    fn is_own(&self) -> bool {
        let marker = read_json::<Marker>(&self.job.write.out.join(MARKER)).ok().flatten();
        marker.is_some_and(|marker| marker.fingerprint == self.fingerprint())
    }

    fn write_into(&self, folder: &Path, context: &Context<'_>) -> Result<Written> {
        let mut layout = Layout::of(self.dataset, &self.scan.output.columns, self.origin())?;
        layout.weigh(self.rows(Role::Train), self.accepted);
        let mut writers = Writers::create(folder, self.job, &layout)?;
        let mut written = Written { features: layout.features.clone(), ..Written::default() };
        let total = self.scan.output.rows.len() - self.left_out.len() + self.accepted.len();
        context.progress.begin("write", total as u64);
        let mut styles = Styles::default();
        for role in [Role::Train, Role::Validation, Role::Test] {
            let before = written.rows_real + written.rows_generated;
            written.rows_real += self.write_real(role, &layout, &mut writers, &mut styles, context)?;
            if role == Role::Train {
                for chunk in self.accepted.chunks(1024) {
                    context.progress.check()?;
                    let files = self.files(chunk, &styles, &mut written)?;
                    writers.generated(&layout.generated(chunk, &files)?)?;
                    written.rows_generated += chunk.len() as u64;
                    context.progress.advance(chunk.len() as u64);
                }
            }
            let rows = written.rows_real + written.rows_generated - before;
            if rows > 0 {
                written.splits.push((role.name().to_owned(), rows));
            }
        }
        written.files = writers.finish()?;
        context.progress.end();
        Ok(written)
    }

    /// The real rows of a role that are written.
    fn rows(&self, role: Role) -> impl Iterator<Item = &Row> {
        let kept = move |row: &&Row| role != Role::Train || !self.left_out.contains(&(row.unit, row.row));
        self.scan.output.role(role).filter(kept)
    }

    /// The files of generated images: as they were drawn, or like real ones.
    fn files(&self, accepted: &[Accepted], styles: &Styles, written: &mut Written) -> Result<Vec<(Format, Vec<u8>)>> {
        if !self.job.write.match_real {
            return Ok(accepted.iter().map(|one| (Format::Png, one.candidate.png.clone())).collect());
        }
        let styled: Vec<Styled> = accepted.par_iter().map(|one| styles.apply(one)).collect::<Result<_>>()?;
        let alike = styled.iter().filter(|file| file.alike).count() as u64;
        written.matched += alike;
        written.unmatched += styled.len() as u64 - alike;
        Ok(styled.into_iter().map(|file| (file.format, file.bytes)).collect())
    }

    fn write_real(
        &self,
        role: Role,
        layout: &Layout,
        writers: &mut Writers,
        styles: &mut Styles,
        context: &Context<'_>,
    ) -> Result<u64> {
        let mut count = 0;
        for (index, unit) in self.dataset.units.iter().enumerate() {
            let rows: Vec<_> = self.rows(role).filter(|row| row.unit == index).collect();
            if rows.is_empty() {
                continue;
            }
            context.progress.check()?;
            let table = self.dataset.read(unit)?;
            let id = |row: &Row| table.image(row.row).map(|(bytes, _)| SampleId::of(bytes));
            if let Some(row) = rows.par_iter().find_first(|row| id(row) != Some(row.id)) {
                return Err(PipelineError::other_image(index, row.row));
            }
            if self.job.write.match_real && role == Role::Train {
                for row in &rows {
                    if let Some((bytes, _)) = table.image(row.row) {
                        styles.add(row, layout.group_of(row).as_deref(), bytes);
                    }
                }
            }
            writers.real(role, &layout.real(&table, &rows)?)?;
            count += rows.len() as u64;
            context.progress.advance(rows.len() as u64);
        }
        Ok(count)
    }

    fn origin(&self) -> Origin {
        Origin {
            generator: self.model.map(|model| model.output.card()),
            config_hash: self.model.map(|model| model.fingerprint.to_string()),
            plan_hash: self.plan.to_string(),
            grouping: self.job.plan.as_ref().map(|plan| plan.grouping.clone()).unwrap_or_default(),
        }
    }
}

/// The open writers, one a format.
struct Writers(Vec<(PathBuf, Box<dyn DatasetWriter>)>);

impl Writers {
    fn create(folder: &Path, job: &Job, layout: &Layout) -> Result<Self> {
        let mut writers = Vec::new();
        let schema: SchemaRef = Arc::clone(&layout.schema);
        for format in &job.write.formats {
            let writer: (PathBuf, Box<dyn DatasetWriter>) = match format {
                job::Format::Parquet => {
                    let options = ParquetOptions::default();
                    let writer = ParquetWriter::create(folder, Arc::clone(&schema), &layout.features, options)?;
                    (PathBuf::new(), Box::new(writer))
                }
                job::Format::Webdataset => {
                    let (image, label) = (Some(layout.image.clone()), job.dataset.label.clone());
                    let options = WebDatasetOptions { image, label, ..WebDatasetOptions::default() };
                    let writer = WebDatasetWriter::create(&folder.join(WEBDATASET), &layout.features, options)?;
                    (PathBuf::from(WEBDATASET), Box::new(writer))
                }
            };
            writers.push(writer);
        }
        Ok(Self(writers))
    }

    fn real(&mut self, role: Role, batch: &RecordBatch) -> Result<()> {
        self.0.iter_mut().try_for_each(|(_, writer)| Ok(writer.write(role.name(), batch)?))
    }

    fn generated(&mut self, batch: &RecordBatch) -> Result<()> {
        self.0.iter_mut().try_for_each(|(_, writer)| Ok(writer.write(Role::Train.name(), batch)?))
    }

    fn finish(self) -> Result<Vec<WrittenFile>> {
        let mut files = Vec::new();
        for (under, writer) in self.0 {
            files.extend(writer.finish()?.into_iter().map(|shard| WrittenFile {
                path: under.join(&shard.path).to_string_lossy().into_owned(),
                split: shard.split,
                rows: shard.rows,
                bytes: shard.bytes,
                sha256: shard.sha256,
            }));
        }
        Ok(files)
    }
}
