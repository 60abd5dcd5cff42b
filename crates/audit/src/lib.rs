//! Representation statistics: one pass over the rows fills a cube of counts, every grouping is a roll-up of it.
//!
//! A [`Cube`] counts the rows of every combination of attribute values; cubes of parts of a dataset merge by `+`. An
//! [`audit`] reads groupings off the cube: counts and shares with intervals, how uneven the groups are, and how
//! strongly pairs of attributes go together. [`statistics`] holds the formulas, each with its source, and [`images`] is
//! about the pixels.

mod audit;
mod coverage;
mod cube;
mod error;
pub mod images;
pub mod statistics;

pub use audit::{
    AssociatedCell, Association, Audit, AuditConfig, ComparedGroup, ComparedGrouping, Comparison, GroupCount, Grouping,
    Intervals, LabelParity, LeftOut, LonelyValue, MissingCount, Reference, ReferenceConfig, ReferenceDistance,
    ReferenceFile, Reversal, audit, compare,
};
pub use coverage::{Coverage, CoverageConfig, UncoveredPattern, coverage};
pub use cube::{Cube, MAX_GROUPS, MAX_VALUES};
pub use error::AuditError;
