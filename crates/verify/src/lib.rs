//! Gates: every generated image is kept, or dropped with a reason.
//!
//! [`Verifier::train`] learns from real images only what real images look like: a classifier of their attributes, and the
//! thresholds of every gate from a held-out part. [`Verifier::verify`] then shows each candidate to the gates, the
//! cheapest first; a candidate that one gate drops is not shown to the next. [`Acceptance`] counts, group by group and
//! gate by gate, who got through, because filters are biased too, and [`bias_warnings`] says whether they are.
//!
//! Two reports look at whole sets and drop nothing: [`shortcut_report`] says whether something trivial tells generated
//! images from real ones, [`diversity_report`] how diverse the accepted images of a group are next to the real ones.
//!
//! [`recognise`] has models that were trained elsewhere.

mod acceptance;
mod bias;
mod calibration;
mod config;
mod corrected;
mod diversity;
mod error;
pub mod gates;
mod nearest;
mod outside;
mod phash;
mod program;
mod real;
pub mod recognise;
mod shortage;
mod shortcut;
mod sight;
mod stored;
mod vendi;
mod verifier;
mod views;

pub use acceptance::{Acceptance, GateShare, GroupShare, Share, wilson};
pub use bias::{BiasWarning, bias_warnings};
pub use calibration::{AttributeCalibration, BalancedTables, Calibration, GroupRecall};
pub use config::{
    AttributesConfig, CommandConfig, DecodeConfig, DiversityConfig, GateConfig, InDistributionConfig, NoveltyConfig,
    OnError, ShortcutConfig,
};
pub use corrected::{CorrectedCount, Sighting, corrected};
pub use diversity::{GroupDiversity, diversity_report};
pub use error::VerifyError;
pub use evenset_nn::classifier::ImageSet;
pub use outside::scripts_of_command;
pub use real::RealImages;
pub use shortcut::{Auc, CueAuc, GroupShortcut, ShortcutFigures, ShortcutReport, SmallGroups, shortcut_report};
pub use sight::View;
pub use verifier::{Candidate, Verdict, Verifier};
