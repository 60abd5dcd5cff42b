//! The job file: read with positions, checked, resolved.

mod error;
mod reference;
mod resolved;
mod sampler;
mod table;
mod tree;
mod words;
mod written;

pub use error::JobError;
pub use resolved::{Dataset, Generate, Hook, Job, Plan, Verify, Write};
pub use sampler::Sampler;
pub use table::TableJob;
pub use tree::Position;
pub use written::{Format, Model, OnBias, OnError, Role, WrittenJob};

/// The JSON Schema of a job file, for editors and for `evenset schema`.
pub fn schema() -> serde_json::Value {
    schemars::schema_for!(WrittenJob).to_value()
}

/// The job file's reference as Markdown: `docs/job-file.md`.
pub fn reference() -> String {
    reference::reference(&schema())
}
