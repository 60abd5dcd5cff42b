//! Targets, deficits and requests: how many images are missing from which group.
//!
//! Pure functions on counts. A [`Target`] says which distribution is aimed at and [`Limits`] what may be spent;
//! [`plan`] turns counts into additions, exactly and with the fewest images, and explains itself. [`requests`] turns
//! additions into single images to generate, and [`next_asks`] says how many a round asks for, given how many
//! candidates of each group were accepted so far.

mod cells;
mod error;
mod fill;
mod plan;
mod requests;
mod target;

pub use error::PlanError;
pub use plan::{Plan, PlannedGroup, TargetOutcome, plan};
pub use requests::{Acceptance, AskPolicy, MAX_REQUESTS, Request, next_asks, requests};
pub use target::{AtLeast, Attributes, Limits, Match, Parity, Ratio, Target};
