//! How a long loop says where it is, and is asked to stop.

/// The loop was asked to stop; what is finished is on disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("interrupted; run the same command again to go on from here")]
pub struct Interrupted;

/// What a long piece of work tells while it runs. The command line draws it; libraries only call it.
///
/// One task is open at a time in one thread of work: `begin`, any number of `advance` and `note`, `end`.
pub trait Progress: Sync + Send {
    /// A task of `total` steps begins.
    fn begin(&self, task: &str, total: u64);
    /// `steps` more steps are done.
    fn advance(&self, steps: u64);
    /// A short remark on the state of the task, for example `loss 0.123`.
    fn note(&self, remark: &str);
    /// The task is over.
    fn end(&self);
    /// Whether the user asked for an end (Ctrl-C).
    fn stop_requested(&self) -> bool;

    /// Fails if an end was asked for; loops call it between steps.
    ///
    /// # Errors
    /// [`Interrupted`] once [`stop_requested`](Self::stop_requested) is true.
    fn check(&self) -> Result<(), Interrupted> {
        if self.stop_requested() { Err(Interrupted) } else { Ok(()) }
    }
}

/// Says nothing and never stops: for tests and for callers that do not care.
#[derive(Debug, Default, Clone, Copy)]
pub struct Silent;

impl Progress for Silent {
    fn begin(&self, _task: &str, _total: u64) {}
    fn advance(&self, _steps: u64) {}
    fn note(&self, _remark: &str) {}
    fn end(&self) {}
    fn stop_requested(&self) -> bool {
        false
    }
}
