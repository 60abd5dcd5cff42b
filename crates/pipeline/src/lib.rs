//! A job from its file to its report: job file, run folder, stages, units, rounds, hook.
//!
//! [`job`] reads and checks the job file. [`engine`] walks over the [`stages`] in their order; each is skipped if its
//! folder in the run is finished ([`mod@run`]), map stages resume unit by unit, and [`rounds`] go on until every target is
//! met by accepted images. [`status`] reads a run folder from outside.

mod columns;
mod companions;
pub mod describe;
pub mod engine;
mod error;
mod generator;
mod guided;
mod guides;
mod images;
pub mod job;
pub mod labels;
pub mod models;
mod pictures;
pub mod price;
mod provenance;
pub mod rounds;
pub mod run;
pub mod single;
pub mod stages;
pub mod status;
mod styles;
mod surplus;
pub mod tables;
mod trainings;
mod units;
mod values;
mod within;

/// What the command line needs to ask for an audit.
pub mod audit {
    pub use evenset_audit::{AuditConfig, CoverageConfig};
    pub use evenset_core::Seed;
    pub use evenset_data::Filter;
}

pub use engine::{Finished, Goal};
pub use error::PipelineError;
pub use evenset_diffusion::SchedulerKind;
pub use evenset_diffusion::stable_diffusion::{
    ControlConfig, DeepCache, LoraConfig, Precision, StableDiffusionConfig, StatedPrediction,
};
pub use evenset_nn::{Recycler, stop_idle_spinning};
pub use evenset_plan::{Plan, Price};
pub use job::Job;

/// The version of evenset, which is part of every fingerprint.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");
