//! What each verb does.

use std::io::Write;
use std::path::Path;

use anyhow::Result;
use evenset_pipeline::engine::{self, Finished, Goal, Outcome};
use evenset_pipeline::{Job, PipelineError, Plan, Price, job, price, stages, status};

use crate::args::{Args, JobArgs, Verb};
use crate::progress::Reporter;
use crate::{draw, exit, output};

/// Runs the verb and gives the exit code.
pub fn run(args: &Args) -> Result<u8> {
    let reporter = Reporter::start(args.quiet || !args.verb.is_long())?;
    let (goal, job) = match &args.verb {
        Verb::Schema { markdown: false } => return print_json(&job::schema()),
        Verb::Schema { markdown: true } => {
            print(&job::reference())?;
            return Ok(exit::DONE);
        }
        Verb::Status { run, json } => return show_status(run, *json),
        Verb::Report(report) if report.job_or_run.is_dir() => return show_report(&report.job_or_run, report.json),
        Verb::Report(report) => {
            let (set, job) = (report.set.clone(), report.job_or_run.clone());
            (
                Goal::Report,
                &JobArgs {
                    job,
                    set,
                    overwrite: report.overwrite,
                    stop_at_plateau: report.stop_at_plateau,
                    json: report.json,
                    dry_run: report.dry_run,
                },
            )
        }
        Verb::Run(job) => (Goal::Report, job),
        Verb::Scan(job) => (Goal::Scan, job),
        Verb::Audit(audit) => return crate::audit::run(audit, &reporter),
        Verb::Plan(job) => (Goal::Plan, job),
        Verb::Models { paths, check, json } => return draw::models(paths, *check, *json, &reporter),
        Verb::Generate(generate) => {
            if let Some(prompt) = &generate.prompt {
                return draw::draw(generate, prompt, &reporter);
            }
            let (set, job) = (generate.set.clone(), generate.job.clone().unwrap_or_default());
            let (json, dry_run) = (generate.json, generate.dry_run);
            (Goal::Generate, &JobArgs { job, set, overwrite: false, stop_at_plateau: false, json, dry_run })
        }
        Verb::Verify(job) => (Goal::Verify, job),
        Verb::Write(job) => (Goal::Write, job),
        Verb::Evidence(job) => (Goal::Evidence, job),
    };
    let mut set = job.set.clone();
    if job.stop_at_plateau {
        set.push("verify.stop_at_plateau=true".into());
    }
    let resolved = Job::read(&job.job, &set).map_err(PipelineError::from)?;
    if job.dry_run && goal < Goal::Plan {
        print(&format!("{}\n", engine::would_read(&resolved, &reporter)?))?;
        return Ok(exit::DONE);
    }
    if job.dry_run && goal >= Goal::Write {
        stages::write::check_output(&resolved, job.overwrite)?;
    }
    let goal = if job.dry_run { Goal::Plan } else { goal };
    let outcome = engine::run(&resolved, goal, job.overwrite, &reporter)?;
    let price = match &outcome {
        // A price holds a clock: what machines read is the same in every run unless it is asked for.
        Outcome::Images(finished) if goal == Goal::Plan && (job.dry_run || !job.json) => {
            price::price(&resolved, finished, &reporter)?
        }
        _ => None,
    };
    reporter.finish();
    match outcome {
        Outcome::Images(finished) if goal == Goal::Plan => {
            let plan = finished.plan.as_ref().map(|plan| &plan.output);
            let notes: Vec<String> = finished.notes.iter().cloned().chain(price::bill(&resolved, &finished)?).collect();
            show_plan(&resolved, plan, price.as_ref(), &notes, job)
        }
        Outcome::Images(finished) => show(&resolved, goal, &finished, job.json),
        Outcome::Labels(labelled) => {
            let plan = labelled.plan.as_ref().map(|plan| &plan.output);
            show_plan(&resolved, plan, None, &labelled.notes, job)
        }
    }
}

fn show_plan(job: &Job, plan: Option<&Plan>, price: Option<&Price>, notes: &[String], args: &JobArgs) -> Result<u8> {
    let Some(plan) = plan else {
        print("the job has no `plan`\n")?;
        return Ok(exit::DONE);
    };
    if args.json {
        print_json(&output::plan_json(plan, price, notes)?)?;
    } else {
        print(&output::plan(job, plan, price, notes))?;
        if args.dry_run {
            print("dry run: nothing was trained, generated or written\n")?;
        }
    }
    let missed = plan.targets.iter().any(|target| !target.satisfied);
    Ok(if missed { exit::TARGET_MISSED } else { exit::DONE })
}

fn show(job: &Job, goal: Goal, finished: &Finished, json: bool) -> Result<u8> {
    let shown = show_found(job, goal, finished, json)?;
    match &finished.hook_failure {
        Some(failure) => Err(PipelineError::Hook(failure.clone()).into()),
        None => Ok(shown),
    }
}

fn show_found(job: &Job, goal: Goal, finished: &Finished, json: bool) -> Result<u8> {
    if json {
        print_json(&output::json(job, goal, finished)?)?;
    } else {
        print(&output::text(job, goal, finished)?)?;
    }
    // Whoever asks for evidence alone must not take a refused test split for a success.
    let refused = finished.obstacle.as_ref().filter(|obstacle| obstacle.refused && goal == Goal::Evidence);
    if let Some(obstacle) = refused {
        anyhow::bail!("{}", obstacle.why);
    }
    Ok(if finished.targets_met() { exit::DONE } else { exit::TARGET_MISSED })
}

fn show_report(run: &Path, json: bool) -> Result<u8> {
    let data = stages::report::read(run)?;
    if json {
        return print_json(&data);
    }
    print(&output::headline(&data))?;
    print(&format!("report: {}\n", run.join(stages::report::PAGE).display()))?;
    Ok(exit::DONE)
}

fn show_status(run: &Path, json: bool) -> Result<u8> {
    let stages = status::status(run)?;
    if json {
        return print_json(&stages);
    }
    print(&output::status(&stages))?;
    Ok(exit::DONE)
}

pub(crate) fn print_json<T: serde::Serialize>(value: &T) -> Result<u8> {
    let mut out = std::io::BufWriter::new(std::io::stdout().lock());
    serde_json::to_writer_pretty(&mut out, value).map_err(std::io::Error::from)?;
    writeln!(out)?;
    out.flush()?;
    Ok(exit::DONE)
}

pub(crate) fn print(text: &str) -> Result<()> {
    std::io::stdout().lock().write_all(text.as_bytes())?;
    Ok(())
}
