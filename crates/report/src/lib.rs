//! The report page, its charts, terminal tables and the dataset card.
//!
//! Pure functions from plain data to text: [`render`] draws a [`ReportData`] as one self-contained HTML page,
//! [`terminal`] draws tables for a terminal, [`dataset_card`] and [`train_py()`] write the files that lie beside a
//! balanced dataset. Nothing here reads files, asks the clock or prints.

mod card;
pub mod charts;
mod data;
pub mod document;
mod html;
pub mod terminal;
pub mod text;
mod train_py;
mod words;

pub use card::{CardData, CardGenerator, CardGroup, CardSplit, Feature, FeatureKind, dataset_card};
pub use data::{
    Acceptance, Arm, Auc, Balance, BalanceChange, BiasWarning, Calibration, Checks, CorrectedAttribute, CorrectedCount,
    Cue, Dataset, Distances, Diversity, Evidence, Gain, GateRow, Generator, GroupAccuracy, GroupDistances, GroupRow,
    GroupShortcut, GuideRow, HeldOut, HeldOutGroup, Hook, Interval, KernelDistance, LossPoint, Note, NoteLevel,
    OutputFile, Outputs, Picture, Plan, Rate, ReasonCount, RejectedPicture, RejectedRows, ReportData, Round, Shortcut,
    ShortcutFigures, SkippedArm, SmallGroups, SplitRows, Sweep, SweepShare, Threshold, Verdict,
};
pub use html::{Headline, headline, render};
pub use train_py::train_py;

/// Why a report could not be made.
#[derive(Debug, thiserror::Error)]
pub enum ReportError {
    /// The page's template failed on this data.
    #[error("the report page could not be rendered; please report this with the run's `report --json`: {0}")]
    Template(#[from] minijinja::Error),
}
