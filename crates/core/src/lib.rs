//! The words that every room of evenset shares.
//!
//! Plain Rust without I/O and without tensors: [`Group`] and [`Pattern`] say who is counted, [`SampleId`] names an
//! image by its bytes, [`seed`] turns (job seed, group, round, index, purpose) into numbers that never depend on the
//! order of the work, [`wilson`] says how sure a
//! share is, [`Fingerprint`] says whether a finished piece of work is still the one asked for, and
//! [`Progress`] is how a long loop reports and is asked to stop.

mod fingerprint;
mod group;
mod interval;
mod names;
mod progress;
mod sample;
pub mod seed;

pub use fingerprint::Fingerprint;
pub use group::{Group, GroupError, Pattern};
pub use interval::{Z95, wilson};
pub use names::nearest;
pub use progress::{Interrupted, Progress, Silent};
pub use sample::{ParseSampleIdError, SampleId};
pub use seed::Seed;

/// The value that stands for a missing one: rows without a value for an attribute are a group of their own.
pub const MISSING: &str = "(missing)";
