//! Hook: the finished dataset goes to the user's own trainer.
//!
//! The program is started without a shell. It gets paths and figures as JSON on standard input and as `EVENSET_*`
//! environment variables; its output goes to `output.txt` in the stage's folder, its exit code to `hook.json`.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use evenset_core::Fingerprint;
use serde::{Deserialize, Serialize};

use super::write::Written;
use crate::error::{PipelineError, Result};
use crate::job::{Hook, Job};
use crate::run::{Context, Done, Stage, StageReport, fingerprint, read_json_of, write_json};

const RECORD: &str = "hook.json";
const OUTPUT: &str = "output.txt";
/// Bytes of output that the record, and so the report, keeps.
const TAIL: u64 = 4096;

/// Runs the user's trainer.
pub struct HookStage<'a> {
    /// The program.
    pub hook: &'a Hook,
    /// The job, for its name and columns.
    pub job: &'a Job,
    /// What was written.
    pub written: &'a Done<Written>,
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
        fingerprint("hook", self.hook, &[&self.written.fingerprint])
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
        let status = self.start(&command, &handover, &log, context)?;
        let record = HookRecord { command, exit_code: status.code(), output_tail: tail(&log)? };
        if !status.success() {
            let how = match status.code() {
                Some(code) => format!("ended with exit code {code}"),
                None => "was ended by a signal".to_owned(),
            };
            return Err(PipelineError::Hook { program: record.command.join(" "), how, log });
        }
        write_json(&folder.join(RECORD), &record)?;
        Ok(StageReport::default())
    }

    fn load(&self, folder: &Path) -> Result<HookRecord> {
        read_json_of(&folder.join(RECORD))
    }
}

impl HookStage<'_> {
    fn command(&self, handover: &Handover<'_>) -> Vec<String> {
        let (dataset, run) = (handover.dataset.to_string_lossy(), handover.run.to_string_lossy());
        let fill = |argument: &String| {
            argument.replace("{dataset}", &dataset).replace("{run}", &run).replace("{name}", handover.name)
        };
        self.hook.run.iter().map(fill).collect()
    }

    fn start(
        &self,
        command: &[String],
        handover: &Handover<'_>,
        log: &Path,
        context: &Context<'_>,
    ) -> Result<std::process::ExitStatus> {
        let failed = |how: String| PipelineError::Hook { program: command.join(" "), how, log: log.to_owned() };
        let output = File::create(log).map_err(PipelineError::io(log))?;
        let errors = output.try_clone().map_err(PipelineError::io(log))?;
        let [program, arguments @ ..] = command else { return Err(failed("is empty".into())) };
        let mut child = Command::new(program)
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
            .spawn()
            .map_err(|error| failed(format!("cannot be started ({error}); is it installed and on the PATH?")))?;
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
                return Ok(status);
            }
            let late = self.hook.timeout.is_some_and(|seconds| start.elapsed() > Duration::from_secs(seconds));
            if late || context.progress.stop_requested() {
                let _ = child.kill();
                let _ = child.wait();
                context.progress.check()?;
                return Err(failed(format!("was ended after its {} seconds", self.hook.timeout.unwrap_or_default())));
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
