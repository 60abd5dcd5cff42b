//! A document of findings, tables and grids: what `evenset audit` and `evenset plan` say.
//!
//! It is built once from the figures and drawn twice, as text for a terminal ([`Document::terminal`]) and as one
//! self-contained HTML page ([`Document::html`]), so the two cannot say different things.

mod html;
mod text;

use serde::Serialize;

use crate::data::Interval;

/// What is to be said, in the order in which it is read.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Document {
    /// What it is about: `audit of labels.csv`.
    pub title: String,
    /// The answer in one sentence.
    pub headline: String,
    /// Some numbers that stand out.
    pub figures: Vec<Figure>,
    /// What a reader should know first, most important first.
    pub findings: Vec<Finding>,
    /// The parts.
    pub sections: Vec<Section>,
    /// Remarks on how the figures came about.
    pub remarks: Vec<String>,
}

/// A number that stands out.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Figure {
    /// What it counts.
    pub label: String,
    /// The number as it is shown.
    pub value: String,
    /// What it means, in a few words.
    pub detail: String,
}

/// Something that the figures say.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// How it is meant.
    pub tone: Tone,
    /// One sentence.
    pub text: String,
}

/// How something is meant.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Tone {
    /// As it is.
    #[default]
    Plain,
    /// Less important.
    Soft,
    /// Reached.
    Good,
    /// Missing, or to be looked at.
    Bad,
}

/// A part of a document.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Section {
    /// Its heading.
    pub title: String,
    /// How to read it.
    pub intro: String,
    /// What stands in it.
    pub blocks: Vec<Block>,
    /// Whether only the page has it: the terminal is for what is read first.
    pub detail: bool,
}

/// A piece of a section.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub enum Block {
    /// A paragraph.
    Text(String),
    /// Rows under headings.
    Sheet(Sheet),
    /// Counts of two attributes as a coloured grid.
    Grid(Grid),
}

/// Rows under headings.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Sheet {
    /// What the rows are.
    pub caption: String,
    /// The columns' headings and kinds.
    pub columns: Vec<(String, Kind)>,
    /// One cell a column.
    pub rows: Vec<Vec<SheetCell>>,
    /// How many rows are seen at once; the page folds the others away, the terminal says how many there are.
    pub shown: usize,
}

/// What a column holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// Words, set left.
    Words,
    /// Numbers, set right.
    Number,
    /// A bar.
    Bar,
}

/// A cell.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub enum SheetCell {
    /// Text or a number, as it is shown.
    Text(String, Tone),
    /// A bar of parts one after the other, each from 0 to 1: what is there and what is to be added. The interval of the
    /// first part is drawn where the medium can.
    Bar {
        /// What is there.
        real: f64,
        /// What is added to it.
        made: f64,
        /// The interval of `real`.
        interval: Option<Interval>,
    },
}

impl SheetCell {
    /// Plain text.
    pub fn text(text: impl Into<String>) -> Self {
        Self::Text(text.into(), Tone::Plain)
    }

    /// Less important text.
    pub fn soft(text: impl Into<String>) -> Self {
        Self::Text(text.into(), Tone::Soft)
    }

    /// Text that warns.
    pub fn bad(text: impl Into<String>) -> Self {
        Self::Text(text.into(), Tone::Bad)
    }

    /// A bar of one part.
    pub fn bar(share: f64) -> Self {
        Self::Bar { real: share, made: 0.0, interval: None }
    }
}

/// Counts of two attributes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Grid {
    /// What is counted.
    pub caption: String,
    /// The attribute whose values are the rows.
    pub row_attribute: String,
    /// The attribute whose values are the columns.
    pub column_attribute: String,
    /// The values of the columns.
    pub columns: Vec<String>,
    /// The value of each row and its counts; `None` where there is no such group.
    pub rows: Vec<(String, Vec<Option<u64>>)>,
}

impl Grid {
    /// Grids wider or taller than this are lists instead.
    pub const MOST_COLUMNS: usize = 14;
    /// See [`MOST_COLUMNS`](Self::MOST_COLUMNS).
    pub const MOST_ROWS: usize = 40;
}

impl Document {
    /// The document as text for a terminal of `width` columns.
    pub fn terminal(&self, width: usize, color: bool) -> String {
        text::draw(self, width, color)
    }

    /// The document as one self-contained HTML page. `version` is the version of evenset.
    ///
    /// # Errors
    /// [`ReportError::Template`](crate::ReportError::Template) if the page cannot be rendered.
    pub fn html(&self, version: &str) -> Result<String, crate::ReportError> {
        html::draw(self, version)
    }
}
