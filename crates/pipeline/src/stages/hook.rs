//! Hook: the finished dataset goes to the user's own trainer.
//!
//! The program is started without a shell. It gets paths and figures as JSON on standard input and as `EVENSET_*`
//! environment variables, and works in the folder that evenset was started in; its output goes to `output.txt` in the
//! stage's folder, its exit code to `hook.json`. It runs after the evidence and before the report, which tells how it
//! ended: a trainer that fails takes neither of them along.

use std::fmt;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use evenset_core::Fingerprint;
use evenset_verify::scripts_of_command;
use serde::{Deserialize, Serialize};

use super::verifier::hashed;
use super::write::Written;
use crate::error::{PipelineError, Result};
use crate::job::{Hook, Job};
use crate::run::{Context, Done, Stage, StageReport, fingerprint, read_json_of, write_json};

const RECORD: &str = "hook.json";
const OUTPUT: &str = "output.txt";
/// Bytes of output that the record, and so the report, keeps.
const TAIL: u64 = 4096;
/// Lines of it that an error repeats.
const LAST_LINES: usize = 10;

/// Runs the user's trainer.
pub struct HookStage<'a> {
    /// The program.
    pub hook: &'a Hook,
    /// The job, for its name and columns.
    pub job: &'a Job,
    /// What was written.
    pub written: &'a Done<Written>,
    /// The scripts that its command line names, each with its SHA-256 (see [`outside`]).
    pub outside: Vec<(PathBuf, String)>,
}

/// The scripts that a hook's command line names, each with its SHA-256: a script that was mended is started again.
///
/// # Errors
/// Where one cannot be read.
pub fn outside(hook: &Hook, job: &Job) -> Result<Vec<(PathBuf, String)>> {
    let (dataset, run) = (job.write.out.to_string_lossy(), job.run.to_string_lossy());
    let fill = |argument: &String| argument.replace("{dataset}", &dataset).replace("{run}", &run);
    let command: Vec<String> = hook.run.iter().map(fill).collect();
    hashed(scripts_of_command(&command).into_iter())
}

/// How the program ended.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct HookRecord {
    /// The program and its arguments, placeholders replaced.
    pub command: Vec<String>,
    /// Its exit code; `None` where a signal ended it.
    pub exit_code: Option<i32>,
    /// The end of what it printed.
    pub output_tail: String,
}

/// How the program failed.
#[derive(Clone, Debug, Serialize)]
pub struct HookFailure {
    /// What it was, and what it printed.
    pub record: HookRecord,
    /// How it ended, as the end of a sentence that begins with the program.
    pub how: String,
    /// Where all that it printed is.
    pub log: PathBuf,
}

impl fmt::Display for HookFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { record, how, log } = self;
        write!(f, "hook: `{}` {how}; its output is in `{}`", record.command.join(" "), log.display())?;
        let lines: Vec<&str> = record.output_tail.trim_end().lines().collect();
        if lines.is_empty() {
            return Ok(());
        }
        let last = &lines[lines.len().saturating_sub(LAST_LINES)..];
        write!(f, " and ends with:\n{}", last.join("\n"))
    }
}

/// What the program reads on standard input.
#[derive(Serialize)]
struct Handover<'a> {
    name: &'a str,
    dataset: PathBuf,
    run: PathBuf,
    label: Option<&'a str>,
    attributes: &'a [String],
    formats: &'a [crate::job::Format],
    rows_real: u64,
    rows_generated: u64,
}

impl Stage for HookStage<'_> {
    type Output = HookRecord;

    fn name(&self) -> String {
        "hook".into()
    }

    fn fingerprint(&self) -> Fingerprint {
        fingerprint("hook", &(self.hook, &self.outside), &[&self.written.fingerprint])
    }

    fn run(&self, folder: &Path, context: &Context<'_>) -> Result<StageReport> {
        let absolute = |path: &Path| std::path::absolute(path).map_err(PipelineError::io(path));
        let handover = Handover {
            name: &self.job.name,
            dataset: absolute(&self.job.write.out)?,
            run: absolute(&self.job.run)?,
            label: self.job.dataset.label.as_deref(),
            attributes: &self.job.dataset.attributes,
            formats: &self.job.write.formats,
            rows_real: self.written.output.rows_real,
            rows_generated: self.written.output.rows_generated,
        };
        let log = folder.join(OUTPUT);
        let command = self.command(&handover);
        let (exit_code, failure) = match self.start(&command, &handover, &log, context)? {
            Ended::Exited(status) if status.success() => (status.code(), None),
            Ended::Exited(status) => match status.code() {
                Some(code) => (Some(code), Some(format!("failed with exit code {code}"))),
                None => (None, Some("was ended by a signal".to_owned())),
            },
            Ended::Never(how) => (None, Some(how)),
        };
        let record = HookRecord { command, exit_code, output_tail: tail(&log)? };
        if let Some(how) = failure {
            return Err(PipelineError::Hook(HookFailure { record, how, log }));
        }
        write_json(&folder.join(RECORD), &record)?;
        Ok(StageReport::default())
    }

    fn load(&self, folder: &Path) -> Result<HookRecord> {
        read_json_of(&folder.join(RECORD))
    }
}

/// How a program ended.
enum Ended {
    /// By itself, or by a signal from elsewhere.
    Exited(ExitStatus),
    /// It could not be started, or did not end in time; in words.
    Never(String),
}

impl HookStage<'_> {
    fn command(&self, handover: &Handover<'_>) -> Vec<String> {
        let (dataset, run) = (handover.dataset.to_string_lossy(), handover.run.to_string_lossy());
        let fill = |argument: &String| {
            argument.replace("{dataset}", &dataset).replace("{run}", &run).replace("{name}", handover.name)
        };
        self.hook.run.iter().map(fill).collect()
    }

    fn start(&self, command: &[String], handover: &Handover<'_>, log: &Path, context: &Context<'_>) -> Result<Ended> {
        let output = File::create(log).map_err(PipelineError::io(log))?;
        let errors = output.try_clone().map_err(PipelineError::io(log))?;
        let [program, arguments @ ..] = command else { return Ok(Ended::Never("is empty".to_owned())) };
        let started = Command::new(program)
            .args(arguments)
            .env("EVENSET_NAME", handover.name)
            .env("EVENSET_DATASET", &handover.dataset)
            .env("EVENSET_RUN", &handover.run)
            .env("EVENSET_LABEL", handover.label.unwrap_or_default())
            .env("EVENSET_ROWS_REAL", handover.rows_real.to_string())
            .env("EVENSET_ROWS_GENERATED", handover.rows_generated.to_string())
            .stdin(Stdio::piped())
            .stdout(output)
            .stderr(errors)
            .spawn();
        let mut child = match started {
            Ok(child) => child,
            Err(error) => {
                return Ok(Ended::Never(format!("cannot be started ({error}); is it installed and on the PATH?")));
            }
        };
        if let Some(mut input) = child.stdin.take() {
            let text = serde_json::to_vec(handover).map_err(PipelineError::damaged(log))?;
            // A program that does not read its input closes the pipe; that is its right.
            let _ = input.write_all(&text);
        }
        let start = Instant::now();
        context.progress.begin("hook", 1);
        loop {
            if let Some(status) = child.try_wait().map_err(PipelineError::io(log))? {
                context.progress.advance(1);
                context.progress.end();
                return Ok(Ended::Exited(status));
            }
            let late = self.hook.timeout.is_some_and(|seconds| start.elapsed() > Duration::from_secs(seconds));
            if late || context.progress.stop_requested() {
                let _ = child.kill();
                let _ = child.wait();
                context.progress.check()?;
                context.progress.end();
                let seconds = self.hook.timeout.unwrap_or_default();
                return Ok(Ended::Never(format!("was ended after its {seconds} seconds")));
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}

fn tail(log: &Path) -> Result<String> {
    let mut file = File::open(log).map_err(PipelineError::io(log))?;
    let length = file.metadata().map_err(PipelineError::io(log))?.len();
    file.seek(SeekFrom::Start(length.saturating_sub(TAIL))).map_err(PipelineError::io(log))?;
    let mut bytes = Vec::new();
    file.take(TAIL).read_to_end(&mut bytes).map_err(PipelineError::io(log))?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}
