//! A task inside a task: one bar for twenty trainings, not twenty bars.

use evenset_core::Progress;

/// Passes steps and stops on to a task that is open already; what is inside neither begins nor ends one.
pub(crate) struct Within<'a>(pub &'a dyn Progress);

impl Progress for Within<'_> {
    fn begin(&self, _task: &str, _total: u64) {}

    fn advance(&self, steps: u64) {
        self.0.advance(steps);
    }

    fn note(&self, _remark: &str) {}

    fn end(&self) {}

    fn stop_requested(&self) -> bool {
        self.0.stop_requested()
    }
}
