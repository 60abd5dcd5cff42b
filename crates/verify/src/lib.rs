//! Gates: every generated image is kept, or dropped with a reason.
//!
//! [`Verifier::train`] learns from real images only what real images look like: a classifier of their attributes, and the
//! thresholds of every gate from a held-out part. [`Verifier::verify`] then shows each candidate to the gates, the
//! cheapest first; a candidate that one gate drops is not shown to the next. [`Acceptance`] counts, group by group and
//! gate by gate, who got through, because filters are biased too. [`recognise`] has models that were trained elsewhere.

mod acceptance;
mod calibration;
mod config;
mod error;
pub mod gates;
mod nearest;
mod real;
pub mod recognise;
mod sight;
mod stored;
mod verifier;

pub use acceptance::{Acceptance, GateShare, GroupShare, Share, wilson};
pub use calibration::{AttributeCalibration, Calibration, GroupRecall};
pub use config::{AttributesConfig, DecodeConfig, GateConfig, InDistributionConfig, NoveltyConfig};
pub use error::VerifyError;
pub use evenset_nn::classifier::ImageSet;
pub use real::RealImages;
pub use sight::View;
pub use verifier::{Candidate, Verdict, Verifier};
