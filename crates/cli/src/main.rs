//! `evenset`: measures who is missing from a labelled image dataset, generates the missing images, checks each one,
//! writes a balanced dataset, and shows on real held-out images whether it helped.
//!
//! The only place that prints: results to standard output, progress and errors to standard error.

mod args;
mod audit;
mod draw;
mod output;
mod progress;
mod verbs;

use std::io::{IsTerminal, Write};
use std::process::ExitCode;

use clap::Parser;
use evenset_pipeline::PipelineError;
use tracing_subscriber::EnvFilter;

use crate::args::{Args, Verb};

/// Training and sampling ask for the same large blocks of memory again and again.
#[global_allocator]
static MEMORY: evenset_pipeline::Recycler = evenset_pipeline::Recycler::new();

/// Exit codes, as `docs/command-line.md` lists them.
pub(crate) mod exit {
    pub const DONE: u8 = 0;
    pub const FAILED: u8 = 1;
    pub const USAGE: u8 = 2;
    pub const TARGET_MISSED: u8 = 3;
    pub const INTERRUPTED: u8 = 130;
}

/// A flag that makes no sense.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(crate) struct UsageError(pub(crate) String);

fn main() -> ExitCode {
    // SAFETY: first thing in `main`: no other thread exists and no tensor does.
    unsafe { evenset_pipeline::stop_idle_spinning() };
    let args = Args::parse();
    log_to_stderr(args.verbose);
    let code = match verbs::run(&args) {
        Ok(code) => code,
        Err(error) => {
            let code = exit_code(&error);
            // A closed pipe (`evenset ... | head`) is the reader's choice, not a failure.
            if error.downcast_ref::<std::io::Error>().is_some_and(|e| e.kind() == std::io::ErrorKind::BrokenPipe) {
                return ExitCode::from(exit::DONE);
            }
            let _ = match code {
                exit::INTERRUPTED => writeln!(std::io::stderr(), "{}", evenset_core::Interrupted),
                _ => writeln!(std::io::stderr(), "error: {error}"),
            };
            code
        }
    };
    ExitCode::from(code)
}

fn exit_code(error: &anyhow::Error) -> u8 {
    match error.downcast_ref::<PipelineError>() {
        Some(error) if error.interrupted() => exit::INTERRUPTED,
        Some(error) if error.is_usage() => exit::USAGE,
        Some(_) => exit::FAILED,
        None if error.is::<UsageError>() => exit::USAGE,
        None => exit::FAILED,
    }
}

fn log_to_stderr(verbose: u8) {
    let default = match verbose {
        0 => "warn",
        1 => "evenset=info,warn",
        2 => "evenset=debug,info",
        _ => "trace",
    };
    let levels: String =
        ["cli", "pipeline", "data", "audit", "plan", "nn", "diffusion", "verify", "evidence", "report"]
            .iter()
            .map(|room| {
                format!(
                    ",evenset_{room}={}",
                    if verbose == 1 {
                        "info"
                    } else if verbose == 0 {
                        "warn"
                    } else {
                        "debug"
                    }
                )
            })
            .collect();
    let filter =
        EnvFilter::try_from_env("EVENSET_LOG").unwrap_or_else(|_| EnvFilter::new(format!("{default}{levels}")));
    let color = std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none();
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(color)
        .with_target(false)
        .init();
}

impl Verb {
    /// Whether the verb shows progress on standard error.
    pub(crate) fn is_long(&self) -> bool {
        !matches!(self, Self::Schema { .. } | Self::Status { .. })
    }
}
