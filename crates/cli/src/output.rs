//! Results for people (tables) and for machines (JSON).

use std::fmt::Write;
use std::io::IsTerminal;

use anyhow::Result;
use evenset_pipeline::engine::{Finished, Goal};
use evenset_pipeline::status::StageStatus;
use evenset_pipeline::{Job, Plan, Price, describe, stages};
use evenset_report::ReportData;
use evenset_report::terminal::{self, AcceptanceRow};
use serde_json::{Value, json};

/// How wide tables may be, and whether they have colours.
pub(crate) fn canvas() -> (usize, bool) {
    let width = terminal_size::terminal_size().map_or(100, |(width, _)| usize::from(width.0));
    let color = std::io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none();
    (width.clamp(40, 140), color)
}

/// What a verb found, as text.
pub fn text(job: &Job, goal: Goal, finished: &Finished) -> Result<String> {
    let mut text = String::new();
    match goal {
        Goal::Scan => scan(&mut text, finished)?,
        // Audits and plans are documents: see `audit.rs` and `plan`.
        Goal::Audit | Goal::Plan => {}
        Goal::Generate => {
            let candidates: usize = finished.rounds.iter().map(|round| round.candidates.len()).sum();
            let drawn = finished.model.is_some();
            writeln!(text, "{}", if drawn { "the first round's candidates are drawn" } else { "nothing is missing" })?;
            if candidates > 0 {
                writeln!(text, "candidates: {candidates}")?;
            }
        }
        Goal::Verify => verify(&mut text, job, finished)?,
        Goal::Write => written(&mut text, job, finished)?,
        Goal::Evidence => evidence(&mut text, finished),
        Goal::Report => {
            verify(&mut text, job, finished)?;
            text.push('\n');
            text.push_str(&headline(&stages::report::read(&job.run)?));
            written(&mut text, job, finished)?;
            if let Some(page) = &finished.report {
                writeln!(text, "report:  {}", page.display())?;
            }
        }
    }
    // What the looks at the gates call for stands with the gates, in plainer words.
    let checks = finished.checks.as_ref().map(|checks| &checks.output);
    let told = checks.into_iter().flat_map(|checks| checks.bias.iter().map(|warning| &warning.sentence));
    let shortcut = checks.and_then(|checks| checks.shortcut.as_ref()).map(|shortcut| &shortcut.sentence);
    let told: Vec<&String> = told.chain(shortcut).filter(|_| matches!(goal, Goal::Verify | Goal::Report)).collect();
    for note in finished.notes.iter().filter(|note| !told.contains(note)) {
        writeln!(text, "note: {note}")?;
    }
    Ok(text)
}

/// What a verb found, as JSON.
pub fn json(job: &Job, goal: Goal, finished: &Finished) -> Result<Value> {
    Ok(match goal {
        Goal::Scan => serde_json::to_value(&finished.scan.output.summary)?,
        Goal::Audit | Goal::Plan => Value::Null,
        Goal::Generate | Goal::Verify => json!({
            "targets_met": finished.targets_met(),
            "groups": finished.progress.groups,
            "rounds": finished.rounds.iter().map(|round| json!({
                "round": round.round,
                "requested": round.candidates.len(),
                "accepted": round.verdicts.iter().filter(|verdict| verdict.accepted).count(),
                "remaining": round.remaining,
            })).collect::<Vec<_>>(),
            "checks": finished.checks.as_ref().map(|checks| &checks.output),
        }),
        Goal::Write => json!({
            "path": job.write.out,
            "targets_met": finished.targets_met(),
            "written": finished.written.as_ref().map(|written| &written.output),
        }),
        Goal::Evidence => json!({
            "evidence": finished.evidence.as_ref().map(|evidence| &evidence.output),
            "held_out": finished.held_out.as_ref().map(|held_out| &held_out.output),
            "reason": finished.obstacle.as_ref().map(|obstacle| &obstacle.why),
            "notes": finished.notes,
        }),
        Goal::Report => serde_json::to_value(stages::report::read(&job.run)?)?,
    })
}

/// The answer of a finished run in a few lines.
pub fn headline(data: &ReportData) -> String {
    let (width, color) = canvas();
    let mut text = String::new();
    if let Some(evidence) = &data.evidence {
        text.push_str(&terminal::evidence_text(evidence, width, color));
    }
    text
}

/// The stages of a run.
pub fn status(stages: &[StageStatus]) -> String {
    let (width, color) = canvas();
    let mut table = terminal::Table::new().left("stage").left("state").right("rows").right("rejected").left("folder");
    for stage in stages {
        let state = match (stage.done, stage.units) {
            (true, _) => "done".to_owned(),
            (false, Some(units)) => format!("unfinished, {units} units done"),
            (false, None) => "unfinished".to_owned(),
        };
        let number = |pick: &dyn Fn(&evenset_pipeline::run::StageReport) -> u64| {
            terminal::Cell::text(stage.report.as_ref().map(|report| pick(report).to_string()).unwrap_or_default())
        };
        table.row(vec![
            terminal::Cell::text(stage.stage.clone()),
            terminal::Cell::text(state),
            number(&|report| report.rows),
            number(&|report| report.rejected),
            terminal::Cell::dim(stage.folder.clone()),
        ]);
    }
    table.render(width, color)
}

fn scan(text: &mut String, finished: &Finished) -> Result<()> {
    let summary = &finished.scan.output.summary;
    for (split, rows) in &summary.rows {
        writeln!(text, "{split}: {rows} rows")?;
    }
    for rejected in &summary.rejected {
        writeln!(text, "rejected: {} rows: {}", rejected.rows, rejected.reason)?;
        for example in rejected.examples.iter().take(3) {
            writeln!(text, "  {example}")?;
        }
    }
    Ok(())
}

/// A plan for people.
pub fn plan(job: &Job, plan: &Plan, price: Option<&Price>, notes: &[String]) -> String {
    let (width, color) = canvas();
    describe::plan(&job.name, plan, price, notes).terminal(width, color)
}

/// A plan for machines.
pub fn plan_json(plan: &Plan, price: Option<&Price>, notes: &[String]) -> Result<Value> {
    let mut value = serde_json::to_value(plan)?;
    if let Some(object) = value.as_object_mut() {
        object.extend(price.map(serde_json::to_value).transpose()?.map(|price| ("price".to_owned(), price)));
        object.insert("notes".into(), notes.into());
    }
    Ok(value)
}

fn verify(text: &mut String, job: &Job, finished: &Finished) -> Result<()> {
    let (width, color) = canvas();
    let rows: Vec<AcceptanceRow> = finished
        .progress
        .groups
        .iter()
        .map(|group| AcceptanceRow {
            values: group.group.clone(),
            candidates: group.requested,
            accepted: group.accepted,
            interval: group.acceptance_interval(),
            reason: group.dropped.iter().max_by_key(|(gate, count)| (**count, std::cmp::Reverse(*gate))).map(mostly),
        })
        .collect();
    if !rows.is_empty() {
        text.push_str(&terminal::acceptance_table(&rows, width, color));
    }
    for round in &finished.rounds {
        let accepted = round.verdicts.iter().filter(|verdict| verdict.accepted).count();
        let (candidates, remaining) = (round.candidates.len(), round.remaining);
        writeln!(
            text,
            "round {}: {accepted} of {candidates} candidates accepted, {remaining} images missing",
            round.round
        )?;
    }
    if let Some(acceptance) = stages::report::acceptance(job, finished) {
        text.push_str(&terminal::gates_table(&acceptance, width, color));
    }
    if let Some(checks) = &finished.checks {
        text.push_str(&terminal::checks_text(&stages::report::checks(&checks.output), width));
    }
    let given_up = finished.progress.groups.iter().filter_map(|g| Some((g.group.clone(), g.unreachable.clone()?)));
    text.push_str(&terminal::given_up(&given_up.collect::<Vec<_>>(), width));
    if !finished.targets_met() {
        writeln!(text, "a target was not reached (exit code 3); the report says which and why")?;
    }
    Ok(())
}

/// The gate that dropped most of a group's candidates, and how many.
fn mostly((gate, dropped): (&String, &u64)) -> String {
    format!("{gate} ({dropped})")
}

fn written(text: &mut String, job: &Job, finished: &Finished) -> Result<()> {
    if let Some(written) = &finished.written {
        let (real, generated) = (written.output.rows_real, written.output.rows_generated);
        writeln!(text, "dataset: {} ({real} real rows, {generated} generated)", job.write.out.display())?;
    }
    Ok(())
}

fn evidence(text: &mut String, finished: &Finished) {
    let (width, color) = canvas();
    let held_out = finished.held_out.as_ref().map(|done| &done.output);
    if let Some(proof) = &finished.evidence {
        text.push_str(&terminal::evidence_text(&stages::report::evidence(&proof.output, held_out), width, color));
    }
}
