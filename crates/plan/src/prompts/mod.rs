//! Prompts: what a text-to-image model is told for one request.
//!
//! A job writes templates with placeholders ([`Prompts`]); checking them against the groups of the data
//! ([`CheckedPrompts`]) finds every mistake before any image is drawn. Where a template, a wording or a word can be
//! chosen, all choices are used equally often within each group, so that a balanced set stays balanced in what the
//! prompts vary.

mod checked;
mod draw;
mod english;
mod error;
mod template;
mod written;

pub use checked::{CheckedPrompts, Prompt};
pub use error::PromptError;
pub use written::{Forms, Override, Phrase, Phrases, Prompts, Texts};
