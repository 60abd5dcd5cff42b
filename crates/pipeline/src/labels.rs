//! Counting a table of labels, for a job or on its own: no image is looked at.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use evenset_audit::images::ImageReport;
use evenset_audit::{Audit, AuditConfig, Comparison, Cube, Reference, ReferenceConfig, ReferenceFile};
use evenset_core::{Fingerprint, Group, MISSING, Progress, Seed};
use evenset_data::{Dataset, DatasetSpec, Derive, Filter, LabelColumn, LabelSpec, LabelTable, ResolvedView, View};
use evenset_plan::{JointShare, Match, Shares, Target, Targets};

use crate::error::{PipelineError, Result};
use crate::job::{Job, Plan, Role};
use crate::stages::looks::look_at;

/// Whether a path is not a plain path on this machine: standard input, a pattern, or an address.
pub(crate) fn may_be_elsewhere(path: &Path) -> bool {
    let text = path.to_string_lossy();
    text == "-" || text.contains("://") || (text.contains(['*', '?', '[']) && !path.exists())
}

/// What is to be counted in a table that no job speaks of.
#[derive(Clone, Debug, Default)]
pub struct Question {
    /// The table: a path, a pattern, an address, or `-`.
    pub path: String,
    /// The attributes; empty: guessed.
    pub attributes: Vec<String>,
    /// Attributes made from columns.
    pub derive: BTreeMap<String, Derive>,
    /// Which rows.
    pub filters: Vec<Filter>,
    /// The attribute that a model is to learn; none: guessed where the attributes are.
    pub label: Option<String>,
    /// Read only the split of this role.
    pub split: Option<String>,
    /// Role to the split's name in the data.
    pub splits: BTreeMap<String, String>,
    /// Column that says how many rows a row stands for.
    pub count: Option<String>,
    /// Words that stand for a missing value.
    pub missing: Vec<String>,
    /// Columns that name pictures of an image folder's images.
    pub pictures: Vec<String>,
    /// Whether images are looked at, where there are any.
    pub images: bool,
}

impl Question {
    /// What a job asks of its dataset, of the training rows where it names splits.
    pub fn of_job(job: &Job) -> Self {
        let splits = job.dataset.spec().splits;
        Self {
            path: job.dataset.path.to_string_lossy().into_owned(),
            attributes: job.dataset.columns(),
            derive: job.derive.clone(),
            filters: job.filters.clone(),
            label: job.dataset.label.clone(),
            split: splits.contains_key(Role::Train.name()).then(|| Role::Train.name().to_owned()),
            splits,
            count: job.dataset.count.clone(),
            missing: job.dataset.missing.clone(),
            pictures: job.dataset_spec().pictures,
            images: false,
        }
    }

    /// The table that it is about.
    ///
    /// # Errors
    /// Where there is no such table.
    pub fn open(&self) -> Result<LabelTable> {
        let Self { path, missing, splits, split, pictures, .. } = self.clone();
        Ok(LabelTable::open(&LabelSpec { path, missing, splits, split, pictures })?)
    }

    fn dataset(&self) -> DatasetSpec {
        DatasetSpec { path: self.path.clone().into(), splits: self.splits.clone(), ..DatasetSpec::default() }
    }

    /// The attributes, with the column of counts last where there is one.
    pub(crate) fn view(&self) -> View {
        let attributes = self.attributes.iter().chain(&self.count).cloned().collect();
        View { attributes, derive: self.derive.clone(), filters: self.filters.clone() }
    }
}

/// A counted table.
#[derive(Debug)]
pub struct Survey {
    /// The table, for messages.
    pub source: String,
    /// The attribute that a model is to learn.
    pub label: Option<String>,
    /// The counts.
    pub cube: Cube,
    /// What the pixels say, where that was asked for.
    pub images: Option<ImageReport>,
    /// What was guessed and what might surprise.
    pub remarks: Vec<String>,
}

/// Counts a table.
///
/// # Errors
/// Whatever reading and counting can give, and [`PipelineError::NoAttributes`] where none can be guessed.
pub fn survey(question: &Question, progress: &dyn Progress) -> Result<Survey> {
    let table = question.open()?;
    let mut question = question.clone();
    let mut remarks: Vec<String> = table.warnings().to_vec();
    if question.attributes.is_empty() {
        remarks.extend(guess(&table, &mut question)?);
    }
    if question.images && Dataset::open(&question.dataset()).is_err() {
        remarks.push("there are no images to look at".to_owned());
        question.images = false;
    }
    let view = table.view(&question.view(), progress)?;
    remarks.extend(view.notes().iter().cloned());
    remarks.extend(question.split.iter().map(|split| format!("only the rows of the split {split}")));
    let cube = count(&table, &view, question.count.is_some(), progress)?;
    let images = if question.images {
        let mut dataset = Dataset::open(&question.dataset())?;
        dataset.units.retain(|unit| question.split.as_ref().is_none_or(|split| *split == unit.split));
        let attributes = table.view(&Question { count: None, ..question.clone() }.view(), progress)?;
        Some(look_at(&dataset, &attributes, Seed(0), progress)?)
    } else {
        None
    };
    Ok(Survey { source: question.path, label: question.label, cube, images, remarks })
}

/// Fills in the attributes and the label, and says what was guessed.
fn guess(table: &LabelTable, question: &mut Question) -> Result<Vec<String>> {
    let guess = table.guess()?;
    let attributes: Vec<String> =
        guess.attributes.iter().filter(|name| Some(*name) != question.count.as_ref()).cloned().collect();
    let left_out: Vec<String> = guess.left_out.iter().map(|(name, why)| format!("{name} ({why})")).collect();
    if attributes.is_empty() {
        return Err(PipelineError::NoAttributes { path: question.path.clone(), left_out: left_out.join("; ") });
    }
    if question.label.is_none() {
        question.label = guess.label.filter(|label| attributes.contains(label));
    }
    let label = question.label.as_ref().map(|label| format!(", the label {label}")).unwrap_or_default();
    let mut remarks = vec![format!("guessed the attributes {}{label}; `--by` names others", attributes.join(", "))];
    if !left_out.is_empty() {
        remarks.push(format!("left out: {}", left_out.join("; ")));
    }
    question.attributes = attributes;
    Ok(remarks)
}

impl Survey {
    /// What the counts say.
    ///
    /// # Errors
    /// As [`evenset_audit::audit`]; whatever reading the reference can give.
    pub fn audit(&self, config: &AuditConfig, seed: Seed, progress: &dyn Progress) -> Result<Audit> {
        let reference = reference(config, self.cube.attributes(), progress)?;
        let audit = evenset_audit::audit(&self.cube, config, self.label.as_deref(), reference.as_ref(), seed)?;
        Ok(Audit { images: self.images.clone(), ..audit })
    }

    /// This table beside another one.
    ///
    /// # Errors
    /// As [`evenset_audit::compare`].
    pub fn compare(&self, other: &Self, config: &AuditConfig, seed: Seed) -> Result<Comparison> {
        Ok(evenset_audit::compare([(&self.source, &self.cube), (&other.source, &other.cube)], config, seed)?)
    }
}

/// Counts the rows of a table. With `weighted`, the last attribute of the view says how often each row counts.
pub(crate) fn count(table: &LabelTable, view: &ResolvedView, weighted: bool, progress: &dyn Progress) -> Result<Cube> {
    let names: Vec<String> = view.attributes().into_iter().map(str::to_owned).collect();
    let counted = names.len() - usize::from(weighted && !names.is_empty());
    let (attributes, weight) = names.split_at(counted);
    // One cube for each thread and not for each part of the table, of which there may be thousands. Nothing that leaves
    // a cube depends on the order in which it saw the rows.
    let empty = Cube::new(attributes.to_vec())?;
    let cubes: Vec<Mutex<Cube>> = (0..=rayon::current_num_threads()).map(|_| Mutex::new(empty.clone())).collect();
    table.fold(
        view,
        progress,
        || (),
        |(), columns: &[LabelColumn]| -> Result<()> {
            let place = rayon::current_thread_index().map_or(0, |thread| thread + 1) % cubes.len();
            let (columns, weights) = columns.split_at(counted);
            let weights =
                weights.first().zip(weight.first()).map(|(column, name)| row_weights(name, column)).transpose()?;
            let mut cube = cubes[place].lock().unwrap_or_else(PoisonError::into_inner);
            Ok(cube.add_columns(columns, weights.as_deref())?)
        },
    )?;
    let mut all = empty;
    for cube in cubes {
        all.merge(&cube.into_inner().unwrap_or_else(PoisonError::into_inner))?;
    }
    Ok(all)
}

/// How often each row counts.
fn row_weights(name: &str, column: &LabelColumn) -> Result<Vec<u64>> {
    let wrong = |value: &str| PipelineError::Count { column: name.to_owned(), value: value.to_owned() };
    let values = column.values.iter().map(|value| value.as_deref().unwrap_or(MISSING));
    let numbers: Vec<Result<u64, &str>> = values.map(|value| value.parse().map_err(|_| value)).collect();
    column.codes.iter().map(|&code| numbers[code as usize].map_err(wrong)).collect()
}

/// The distribution that an audit holds the data against, where its configuration names one.
pub(crate) fn reference(
    config: &AuditConfig,
    attributes: &[String],
    progress: &dyn Progress,
) -> Result<Option<Reference>> {
    Ok(match &config.reference {
        None => None,
        Some(ReferenceConfig::Shares(shares)) => Some(Reference::Shares(shares.clone())),
        Some(ReferenceConfig::File(file)) => Some(Reference::Population {
            name: file.file.display().to_string(),
            cube: population(file, attributes, progress)?,
        }),
    })
}

/// The counts of a reference table over those of `attributes` that it has.
pub(crate) fn population(file: &ReferenceFile, attributes: &[String], progress: &dyn Progress) -> Result<Cube> {
    let table = open_reference(&file.file)?;
    let has = |name: &&String| table.columns().iter().any(|column| column.name == **name);
    let attributes: Vec<String> = attributes.iter().filter(has).cloned().collect();
    if attributes.is_empty() {
        let columns: Vec<&str> = table.columns().iter().map(|column| column.name.as_str()).collect();
        return Err(PipelineError::NoReference { path: file.file.clone(), columns: columns.join(", ") });
    }
    let view = View { attributes: attributes.iter().chain(&file.count).cloned().collect(), ..View::default() };
    let view = table.view(&view, progress)?;
    count(&table, &view, file.count.is_some(), progress)
}

/// The plan with the shares of every target that names a file: the table's own columns are the target's attributes, and
/// where it has a column `count`, that says how many people or things a row stands for.
pub(crate) fn with_shares(plan: &Plan, progress: &dyn Progress) -> Result<Plan> {
    let read = |target: &Target| -> Result<Target> {
        let Target::Match(Match { of, shares: None, file: Some(file) }) = target else { return Ok(target.clone()) };
        let path = PathBuf::from(file);
        let table = open_reference(&path)?;
        let has = |name: &str| table.columns().iter().any(|column| column.name == name);
        if !has("count") && has("share") {
            return Err(PipelineError::ShareColumn(path));
        }
        let reference = ReferenceFile { file: path, count: has("count").then(|| "count".to_owned()) };
        let groups = population(&reference, &of.0, progress)?.roll_up(&of.0)?;
        let known = groups.into_iter().filter(|(group, _)| group.is_complete());
        let known: Vec<(Group, u64)> = known.collect();
        let total = known.iter().map(|(_, count)| *count as f64).sum::<f64>().max(1.0);
        let joint = known.into_iter().map(|(group, count)| JointShare {
            values: group.pairs().map(|(name, value)| (name.to_owned(), value.to_owned())).collect(),
            share: count as f64 / total,
        });
        Ok(Target::Match(Match { of: of.clone(), shares: Some(Shares::Joint(joint.collect())), file: None }))
    };
    let target = match &plan.target {
        Targets::One(target) => Targets::One(read(target)?),
        Targets::Many(targets) => Targets::Many(targets.iter().map(read).collect::<Result<_>>()?),
    };
    Ok(Plan { target, ..plan.clone() })
}

fn open_reference(path: &Path) -> Result<LabelTable> {
    Ok(LabelTable::open(&LabelSpec { path: path.to_string_lossy().into_owned(), ..LabelSpec::default() })?)
}

/// What changes when a reference table does.
pub(crate) fn reference_fingerprint(config: &AuditConfig) -> Result<Option<Fingerprint>> {
    match &config.reference {
        Some(ReferenceConfig::File(ReferenceFile { file, .. })) => Ok(Some(open_reference(file)?.fingerprint()?)),
        _ => Ok(None),
    }
}

/// Whether a command-line argument names a job and not a table.
pub fn is_job(path: &Path) -> bool {
    path.extension()
        .is_some_and(|extension| extension.eq_ignore_ascii_case("yaml") || extension.eq_ignore_ascii_case("yml"))
}

/// The text files that are tables whatever stands in them.
pub(crate) fn is_text_table(path: &Path) -> bool {
    let plain = if path.extension().is_some_and(|e| e.eq_ignore_ascii_case("gz")) {
        path.with_extension("")
    } else {
        PathBuf::from(path)
    };
    let extension = plain.extension().map(|extension| extension.to_string_lossy().to_lowercase());
    extension.is_some_and(|extension| ["csv", "tsv", "jsonl", "ndjson"].contains(&extension.as_str()))
}
