//! Targets, deficits and requests: how many images are missing from which group.
//!
//! Pure functions on counts. A [`Target`] says which distribution is aimed at and [`Limits`] what may be spent;
//! [`plan`] turns counts into additions, exactly and with the fewest images, and explains itself. [`requests`] turns
//! additions into single images to generate, and [`next_asks`] says how many a round asks for, given how many
//! candidates of each group were accepted so far.

mod attributes;
mod closed;
mod combine;
mod contradiction;
mod demand;
mod error;
mod explain;
mod fill;
mod limits;
mod model;
mod plan;
mod program;
mod repair;
mod requests;
mod shares;
mod table;
mod target;
mod weights;

pub use attributes::Attributes;
pub use error::PlanError;
pub use limits::{Limits, Surplus, Values};
pub use plan::{Plan, PlannedGroup, Search, TargetOutcome, plan, plan_with};
pub use requests::{Acceptance, AskPolicy, MAX_REQUESTS, Request, next_asks, requests};
pub use target::{
    AtLeast, Budget, Equal, Independent, JointShare, Marginal, Marginals, Match, Parity, Ratio, Shares, Target, Targets,
};
