//! Did balancing help? The same small classifier, trained on the data as it was, on the usual balancing baselines and
//! on the balanced data, and compared group by group on real held-out images.
//!
//! [`run_arm`] trains and tests one classifier: one [`Arm`] with one seed, an [`ArmRun`] that can be stored and resumed
//! on its own. [`summarise`] puts the runs together into [`Evidence`]: means over the seeds, intervals over test images
//! and seeds together, and a verdict. The verdict is *helped* only where the balanced data beats the best baseline, not
//! merely the data as it was; with no gain it says so.

mod arm;
mod bootstrap;
mod config;
mod data;
mod error;
mod outcomes;
mod summary;

pub use arm::{ArmRun, GroupOutcome, run_arm};
pub use bootstrap::Interval;
pub use config::{Arm, Baseline, EvidenceConfig};
pub use data::{EvidenceData, Labelled};
pub use error::Error;
pub use outcomes::Outcomes;
pub use summary::{ArmSummary, Comparison, Evidence, GroupSummary, Verdict, summarise};
