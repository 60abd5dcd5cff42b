//! Images from a hosted model: any server that speaks OpenAI's images API (`POST /images/generations` with JSON,
//! `POST /images/edits` with a form), as hosted models and many local servers do.
//! <https://platform.openai.com/docs/api-reference/images>
//!
//! Here every image may cost money and the other side is a stranger. So each request is counted against a budget before
//! it is sent, what comes back is read up to a cap and is an image or a stated reason, tries are bounded, and the key is
//! read from the environment and shown nowhere. `exchange` is one request on the wire, `retry` says what is tried again
//! and when, `answer` what an answer means, `ledger` what was spent; [`HttpGenerator`] puts them together.

mod address;
mod answer;
mod body;
mod config;
mod exchange;
mod fields;
mod generator;
mod key;
mod ledger;
mod picture;
pub(crate) mod retry;

pub(crate) use exchange::chain;

pub use config::{Budget, HttpConfig, ImageSize};
pub use fields::FieldValue;
pub use generator::{HostedEdit, HostedImage, HostedOutcome, HostedRequest, HttpGenerator, Rejection};
pub use key::KeyVariable;
pub use ledger::{FileLedger, Ledger, Spent};
