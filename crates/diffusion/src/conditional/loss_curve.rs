//! The loss curve: `step,loss,grad_norm,learning_rate`, one row a step.

use std::fmt::Write;
use std::path::Path;

use super::files;
use crate::error::{DiffusionError, Result};

/// The curve's file name in a model's folder.
pub(crate) const FILE: &str = "loss.csv";
const HEADER: &str = "step,loss,grad_norm,learning_rate";

/// The rows so far, as text.
#[derive(Clone, Debug)]
pub(crate) struct LossCurve {
    text: String,
}

impl LossCurve {
    pub(crate) fn new() -> Self {
        Self { text: format!("{HEADER}\n") }
    }

    /// The curve that was saved in `folder`.
    pub(crate) fn load(folder: &Path) -> Result<Self> {
        let path = folder.join(FILE);
        match files::read(&path)? {
            Some(text) if text.starts_with(HEADER) => Ok(Self { text }),
            _ => Err(DiffusionError::Damaged { path, folder: folder.to_owned(), reason: "no loss curve in it".into() }),
        }
    }

    pub(crate) fn save(&self, folder: &Path) -> Result<()> {
        files::write(&folder.join(FILE), self.text.as_bytes())
    }

    /// Adds the row of one step (from 1). What is not finite reads `NaN` or `inf`: that step changed nothing.
    pub(crate) fn push(&mut self, step: u64, loss: f64, grad_norm: f64, learning_rate: f64) {
        // Writing to a string cannot fail.
        let _ = writeln!(self.text, "{step},{loss},{grad_norm},{learning_rate}");
    }

    /// (step, loss) of every step with a finite loss.
    pub(crate) fn points(&self) -> Vec<(u64, f64)> {
        let point = |line: &str| {
            let mut cells = line.split(',');
            let (step, loss) = (cells.next()?.parse().ok()?, cells.next()?.parse::<f64>().ok()?);
            loss.is_finite().then_some((step, loss))
        };
        self.text.lines().skip(1).filter_map(point).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_curve_reads_back_without_steps_that_had_no_loss() {
        let folder = tempfile::tempdir().unwrap();
        let mut curve = LossCurve::new();
        curve.push(1, 0.5, 2.0, 0.001);
        curve.push(2, f64::NAN, f64::NAN, 0.001);
        curve.push(3, 0.25, 1.0, 0.001);
        curve.save(folder.path()).unwrap();
        assert_eq!(LossCurve::load(folder.path()).unwrap().points(), [(1, 0.5), (3, 0.25)]);
    }
}
