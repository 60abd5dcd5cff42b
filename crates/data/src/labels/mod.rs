//! Tables of labels, with or without images.
//!
//! [`LabelTable::open`] finds the files of a table and its columns; [`LabelTable::view`] says what to read, what to
//! derive from it and which rows to keep; [`LabelTable::fold`] reads it in parallel. Whatever the format, a column is
//! its distinct words and a code a row ([`LabelColumn`]), so derived attributes and filters work on words.

mod arrays;
mod batch;
mod bounded;
mod column;
mod delimited;
mod derive;
mod evaluate;
mod file;
mod filter;
mod filter_text;
mod fold;
mod folder;
mod format;
mod guess;
mod hybrid;
mod json_lines;
mod kinds;
mod locate;
mod pages;
mod parquet_table;
mod quantiles;
mod ranged;
mod remote;
mod scalar;
mod table;
#[cfg(test)]
mod tests;
mod view;
mod words;

pub use column::LabelColumn;
pub use derive::Derive;
pub use filter::{Filter, FilterError};
pub use guess::Guess;
pub use scalar::{Scalar, Scalars};
pub use table::{LabelInfo, LabelKind, LabelSpec, LabelTable};
pub use view::{ResolvedView, View};
