//! Did balancing help? The same small classifier, trained on the data as it was, on the usual balancing baselines and
//! on the balanced data, and compared group by group on real held-out images.
//!
//! [`run_arm`] trains and tests one classifier: one [`Arm`] with one seed, an [`ArmRun`] that can be stored and resumed
//! on its own. [`summarise`] puts the runs together into [`Evidence`]: means over the seeds, intervals over test images
//! and seeds together, and a verdict. The verdict is *helped* only where the balanced data beats the best baseline, not
//! merely the data as it was; with no gain it says so.
//!
//! [`run_share`] and [`summarise_sweep`] show how many generated images are enough, [`run_balanced`] and
//! [`summarise_step`] whether the last ones still helped, [`hold_out`] and
//! [`summarise_held_out`] judge groups that the generator has never seen, and [`distances`](mod@distances) compares
//! generated and real images without any classifier of the label.

mod analysis;
mod arms;
mod bootstrap;
mod config;
mod data;
pub mod distances;
mod error;
mod held_out;
mod metrics;
mod paired;
mod predictions;
mod sentence;
mod step;
mod student;
mod summary;
mod sweep;
mod table;
#[cfg(test)]
mod testing;

pub use arms::{Arm, ArmRun, Baseline, GroupOutcome, ShareRun, Variant, run_arm, run_balanced, run_share};
pub use bootstrap::{Estimate, Interval};
pub use config::{ClassifierKind, EvidenceConfig};
pub use data::{EvidenceData, Labelled, Skipped, arms_for};
pub use error::Error;
pub use evenset_nn::classifier::FeatureSet;
pub use held_out::{HeldOutSummary, hold_out, summarise_held_out};
pub use metrics::Metric;
pub use predictions::{Prediction, Predictions};
pub use step::{StepSummary, summarise_step};
pub use summary::{ArmSummary, Comparison, Evidence, GroupSummary, SEEDS_FOR_A_VERDICT, Verdict, summarise};
pub use sweep::{ShareSummary, SweepSummary, summarise_sweep};
