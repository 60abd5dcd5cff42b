//! Figures in words: an audit, a comparison or a plan as a document for people.

mod audit;
mod comparison;
mod plan;

use evenset_core::Group;
use evenset_report::document::{Kind, Sheet, SheetCell};
use evenset_report::text::number;

pub use audit::audit;
pub use comparison::comparison;
pub use plan::plan;

/// Rows of a long table that are seen at once.
const SHOWN: usize = 15;

fn sheet(caption: impl Into<String>, columns: &[(&str, Kind)], rows: Vec<Vec<SheetCell>>) -> Sheet {
    let columns = columns.iter().map(|(name, kind)| ((*name).to_owned(), *kind)).collect();
    Sheet { caption: caption.into(), columns, rows, shown: SHOWN }
}

/// The values of a group as they are read: `coat, blue`.
fn spoken(group: &Group) -> String {
    if group.is_empty() { "all rows".to_owned() } else { group.values().collect::<Vec<_>>().join(", ") }
}

fn list(names: &[String]) -> String {
    names.join(" x ")
}

/// A p value: exact figures only where they matter.
fn p_value(p: f64) -> String {
    if p < 1e-4 { "< 0.0001".to_owned() } else { number(p, 4) }
}

fn between(interval: [f64; 2], decimals: usize) -> String {
    format!("{} to {}", number(interval[0], decimals), number(interval[1], decimals))
}
