//! The gates: one file each, and what they are shown.

mod attributes;
mod decode;
mod in_distribution;
mod looks;
mod novelty;
mod safety;

pub use attributes::Attributes;
pub(crate) use attributes::{Wish, wishes};
pub use decode::{Decode, DecodeLimits};
pub use in_distribution::{InDistribution, InDistributionLimit};
pub use looks::Looks;
pub(crate) use looks::Scale;
pub use novelty::{Novelty, NoveltyLimits};
pub use safety::{OnnxSafetyConfig, Safety, SafetyConfig};

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

/// What a gate says about one candidate.
#[derive(Clone, Debug, PartialEq)]
pub struct Outcome {
    /// Whether the candidate goes on.
    pub ruling: Ruling,
    /// What the gate measured; each gate says what it is.
    pub score: f64,
}

impl Outcome {
    fn keep(score: f64) -> Self {
        Self { ruling: Ruling::Keep, score }
    }

    fn drop(score: f64, reason: String) -> Self {
        Self { ruling: Ruling::Drop(reason), score }
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
