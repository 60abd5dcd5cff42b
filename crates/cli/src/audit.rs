//! `evenset audit`: of a job's dataset, of any table of labels, or of two of them side by side.

use std::path::Path;

use anyhow::Result;
use evenset_pipeline::audit::{AuditConfig, CoverageConfig, Filter, Seed};
use evenset_pipeline::describe;
use evenset_pipeline::engine::{self, Finished, Goal, Outcome};
use evenset_pipeline::job::TableJob;
use evenset_pipeline::labels::{self, Question, Survey};
use evenset_pipeline::{Job, PipelineError, tables};
use evenset_report::document::Document;

use crate::args::AuditArgs;
use crate::output::canvas;
use crate::progress::Reporter;
use crate::{UsageError, exit, verbs};

/// Audits what the arguments name, and shows it.
pub fn run(args: &AuditArgs, reporter: &Reporter) -> Result<u8> {
    let data = Path::new(&args.data);
    if args.data == "-" && args.other.as_deref() == Some("-") {
        return Err(UsageError("only one of the two can be standard input".into()).into());
    }
    if args.dry_run {
        for data in std::iter::once(&args.data).chain(&args.other) {
            verbs::print(&format!("{}\n", would_read(args, data, reporter)?))?;
        }
        return Ok(exit::DONE);
    }
    match &args.other {
        Some(other) => side_by_side(args, other, reporter),
        // Flags that change what is counted have no place in a run, which is named by its job alone.
        None if labels::is_job(data) && !args.asks_otherwise() => of_job(args, reporter),
        None => of_table(args, reporter),
    }
}

impl AuditArgs {
    /// Whether something else is counted than the job says.
    fn asks_otherwise(&self) -> bool {
        !self.by.is_empty()
            || !self.filters.is_empty()
            || self.split.is_some()
            || self.label.is_some()
            || self.count.is_some()
            || !self.missing.is_empty()
    }
}

fn would_read(args: &AuditArgs, data: &str, reporter: &Reporter) -> Result<String> {
    if labels::is_job(Path::new(data)) {
        return Ok(engine::would_read(&job(args, data)?, reporter)?);
    }
    let table = Question { path: data.to_owned(), ..Question::default() }.open()?;
    let columns: Vec<&str> = table.columns().iter().map(|column| column.name.as_str()).collect();
    Ok(format!("would read {}: columns {}", table.describe(), columns.join(", ")))
}

fn of_job(args: &AuditArgs, reporter: &Reporter) -> Result<u8> {
    let job = job(args, &args.data)?;
    let outcome = engine::run(&job, Goal::Audit, false, reporter)?;
    reporter.finish();
    let (counts, notes) = match &outcome {
        Outcome::Images(finished) => {
            let Finished { counts: Some(counts), notes, .. } = finished.as_ref() else { return Ok(exit::DONE) };
            (counts, notes)
        }
        Outcome::Labels(labelled) => (&labelled.counts, &labelled.notes),
    };
    let audit = &counts.output.audit;
    let document = describe::audit(&job.name, audit, job.dataset.label.as_deref(), notes);
    show(args, &document, audit, || tables::audit(audit))
}

fn of_table(args: &AuditArgs, reporter: &Reporter) -> Result<u8> {
    let (survey, config, seed) = survey(args, &args.data, reporter)?;
    let audit = survey.audit(&config, seed, reporter)?;
    reporter.finish();
    let document = describe::audit(&survey.source, &audit, survey.label.as_deref(), &survey.remarks);
    show(args, &document, &audit, || tables::audit(&audit))
}

fn side_by_side(args: &AuditArgs, other: &str, reporter: &Reporter) -> Result<u8> {
    let (mut a, config, seed) = survey(args, &args.data, reporter)?;
    let (mut b, ..) = survey(args, other, reporter)?;
    (a.source, b.source) = short_names(&a.source, &b.source);
    let found = a.compare(&b, &config, seed)?;
    reporter.finish();
    let remarks: Vec<String> = [&a, &b]
        .iter()
        .flat_map(|survey| survey.remarks.iter().map(|remark| format!("{}: {remark}", survey.source)))
        .collect();
    let document = describe::comparison(&found, &remarks);
    show(args, &document, &found, || tables::comparison(&found))
}

/// Names by which two tables can be told apart: their last parts where these differ.
fn short_names(a: &str, b: &str) -> (String, String) {
    let last = |path: &str| {
        Path::new(path).file_name().map_or_else(|| path.to_owned(), |name| name.to_string_lossy().into_owned())
    };
    match (last(a), last(b)) {
        (x, y) if x != y => (x, y),
        _ if a != b => (a.to_owned(), b.to_owned()),
        _ => (format!("{a} (first)"), format!("{b} (second)")),
    }
}

/// Counts a table, or a job's dataset with the flags in place of the job's own keys.
fn survey(args: &AuditArgs, data: &str, reporter: &Reporter) -> Result<(Survey, AuditConfig, Seed)> {
    let (mut question, mut config, seed) = if labels::is_job(Path::new(data)) {
        let job = job(args, data)?;
        (Question::of_job(&job), job.audit.clone(), job.seed)
    } else {
        let TableJob { seed, derive, filters, audit } = TableJob::read(&args.set).map_err(PipelineError::from)?;
        (Question { path: data.to_owned(), derive, filters, ..Question::default() }, audit, Seed(seed))
    };
    if !args.by.is_empty() {
        question.attributes = args.by.iter().map(|name| name.trim().to_owned()).collect();
        if !args.set.iter().any(|assignment| assignment.starts_with("audit.groupings")) {
            config.groupings = None;
        }
        question.label = question.label.filter(|label| question.attributes.contains(label));
    }
    for text in &args.filters {
        question.filters.push(Filter::parse(text).map_err(|error| UsageError(format!("--where {error}")))?);
    }
    question.label = args.label.clone().or(question.label);
    question.split = args.split.clone().or(question.split);
    if let Some(count) = &args.count {
        // Of two tables, such as one's own rows and a census, only one may have counts.
        let alone = args.other.is_none();
        let has = || Ok::<_, PipelineError>(question.open()?.columns().iter().any(|column| column.name == *count));
        if alone || data == "-" || has()? {
            question.count = Some(count.clone());
        }
    }
    question.missing.extend(args.missing.iter().cloned());
    question.images = args.images;
    let CoverageConfig { threshold, max_level } = config.coverage;
    let coverage = CoverageConfig {
        threshold: args.threshold.unwrap_or(threshold),
        max_level: args.max_level.unwrap_or(max_level),
    };
    coverage.validate().map_err(|error| UsageError(error.to_string()))?;
    config.coverage = coverage;
    Ok((labels::survey(&question, reporter)?, config, seed))
}

/// The job, with the flags for coverage in it, so that they are part of its fingerprint.
fn job(args: &AuditArgs, path: &str) -> Result<Job> {
    let mut set = args.set.clone();
    set.extend(args.threshold.map(|rows| format!("audit.coverage.threshold={rows}")));
    set.extend(args.max_level.map(|level| format!("audit.coverage.max_level={level}")));
    Ok(Job::read(Path::new(path), &set).map_err(PipelineError::from)?)
}

/// Shows the result in every form that was asked for.
fn show<T: serde::Serialize>(
    args: &AuditArgs,
    document: &Document,
    result: &T,
    table: impl FnOnce() -> Result<tables::GroupTable, PipelineError>,
) -> Result<u8> {
    if let Some(path) = &args.html {
        tables::write_text(path, &document.html(evenset_pipeline::VERSION)?)?;
    }
    if let Some(path) = &args.parquet {
        table()?.write(path)?;
    }
    if args.json {
        return verbs::print_json(result);
    }
    let (width, color) = canvas();
    verbs::print(&document.terminal(width, color))?;
    for path in args.html.iter().chain(&args.parquet) {
        verbs::print(&format!("written: {}\n", path.display()))?;
    }
    Ok(exit::DONE)
}
