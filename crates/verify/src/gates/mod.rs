//! The gates: one file each, and what they are shown.

mod attributes;
mod command;
mod copies;
mod decode;
mod diversity;
mod in_distribution;
mod looks;
mod novelty;
mod reason;
mod safety;
mod thresholds;

pub use attributes::Attributes;
pub(crate) use attributes::{Wish, wishes};
pub use command::ProgramGate;
pub use decode::{Decode, DecodeLimits};
pub(crate) use diversity::members;
pub use diversity::{Diversity, DiversityLimit};
pub use in_distribution::{InDistribution, InDistributionLimit};
pub use looks::Looks;
pub(crate) use looks::Scale;
pub use novelty::{Novelty, NoveltyLimits};
pub use reason::kind_of_reason;
pub(crate) use safety::checker_folders;
pub use safety::{OnnxSafetyConfig, Safety, SafetyConfig};
pub(crate) use thresholds::{Aim, Seen, UNCALIBRATED, seen};
pub use thresholds::{GroupThreshold, Threshold, Thresholds, images_needed};

use crate::{Candidate, VerifyError};

/// One check of candidates.
pub trait Gate: Send + Sync {
    /// The gate's name as it is written in jobs and verdicts.
    fn name(&self) -> &'static str;

    /// One outcome for each candidate shown, in their order.
    ///
    /// # Errors
    /// [`VerifyError::Tensor`] where the arithmetic fails.
    fn check(&self, shown: &Shown<'_>) -> Result<Vec<Outcome>, VerifyError>;
}

/// A check whose answer depends on which candidates were kept before: it is asked about one candidate at a time.
pub trait OrderedGate: Send + Sync {
    /// The gate's name as it is written in jobs and verdicts.
    fn name(&self) -> &'static str;

    /// Gets ready to judge the candidates in their order.
    ///
    /// # Errors
    /// [`VerifyError::Tensor`] where the arithmetic fails.
    fn begin<'a>(&'a self, shown: &'a Shown<'a>) -> Result<Box<dyn Session + 'a>, VerifyError>;
}

/// The candidates of one call, judged one after another.
pub trait Session {
    /// What the gate says about the candidate in row `row`, next to those that were kept before.
    ///
    /// # Errors
    /// [`VerifyError::Tensor`] where the arithmetic fails.
    fn judge(&mut self, row: usize) -> Result<Outcome, VerifyError>;

    /// The candidate that was judged last was kept by all gates.
    fn keep(&mut self, row: usize);

    /// Forgets which candidates were kept; those of earlier rounds stay.
    fn restart(&mut self);
}

/// What a gate says about one candidate.
#[derive(Clone, Debug, PartialEq)]
pub struct Outcome {
    /// Whether the candidate goes on.
    pub ruling: Ruling,
    /// What the gate measured; each gate says what it is. None where a program did not answer.
    pub score: Option<f64>,
}

impl Outcome {
    fn keep(score: f64) -> Self {
        Self { ruling: Ruling::Keep, score: Some(score) }
    }

    fn drop(score: f64, reason: String) -> Self {
        Self { ruling: Ruling::Drop(reason), score: Some(score) }
    }
}

/// Keep, or drop with a reason.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ruling {
    /// The candidate goes on to the next gate.
    Keep,
    /// The candidate is rejected; the reason starts with the gate's name.
    Drop(String),
}

/// The candidates that no gate has dropped so far, in the order of their requests.
#[derive(Clone, Debug)]
pub struct Shown<'a> {
    /// The candidates.
    pub candidates: Vec<&'a Candidate>,
    /// What the classifier sees in each; empty for gates that come before it.
    pub looks: Looks,
    /// What it sees in candidates that were accepted in earlier rounds.
    pub earlier: &'a Looks,
    /// The candidates that were accepted in earlier rounds, row by row of `earlier`.
    pub earlier_candidates: &'a [&'a Candidate],
}

impl Shown<'_> {
    /// Leaves only the candidates that were kept.
    pub(crate) fn retain(&mut self, outcomes: &[Outcome]) {
        let kept: Vec<usize> =
            outcomes.iter().enumerate().filter(|(_, outcome)| outcome.ruling == Ruling::Keep).map(|(i, _)| i).collect();
        self.candidates = kept.iter().filter_map(|&i| self.candidates.get(i).copied()).collect();
        self.looks = self.looks.select(&kept);
    }
}
