//! Targets, deficits and requests: how many images are missing from which group.
//!
//! Pure functions on counts. A [`Target`] says which distribution is aimed at and [`Limits`] what may be spent;
//! [`plan`] turns counts into additions, exactly and with the fewest images, and explains itself. [`requests`] turns
//! additions into single images to generate, and [`next_asks`] says how many a round asks for, given how many
//! candidates of each group were accepted so far. [`price`] says what a plan is expected to cost, and [`Prompts`] what a
//! text-to-image model is told for each request.

mod attributes;
mod closed;
mod combine;
mod contradiction;
mod demand;
mod error;
mod explain;
mod fill;
mod guides;
mod limits;
mod model;
mod plan;
mod price;
mod program;
mod prompts;
mod repair;
mod requests;
mod shares;
mod table;
mod target;
mod weights;

pub use attributes::Attributes;
pub use error::PlanError;
pub use guides::{GuideArm, GuideHistory, GuideSource, GuidesConfig};
pub use limits::{Limits, Surplus, Values};
pub use plan::{Plan, PlannedGroup, Search, TargetOutcome, plan, plan_with};
pub use price::{GroupPrice, Known, Price, Rates, price};
pub use prompts::{CheckedPrompts, Forms, Override, Phrase, Phrases, Prompt, PromptError, Prompts, Texts};
pub use requests::{Acceptance, AskPolicy, MAX_REQUESTS, Request, next_asks, requests, requests_with};
pub use target::{
    AtLeast, Budget, Equal, Independent, JointShare, Marginal, Marginals, Match, Parity, Ratio, Shares, Target, Targets,
};
