//! Small charts as SVG text, drawn for one row of a table each.
//!
//! Horizontal places are percentages of the picture's width and vertical ones are pixels, so a chart follows the width
//! of its column while dots stay round and lines stay thin; labels and numbers are the table's own cells, which readers
//! and screen readers get as text. Colours come from the page by class: `real`, `made`, `good`, `bad`, `grid`.

mod bars;
mod dots;
mod line;
mod scale;
mod svg;
mod sweep;

pub use bars::{part_bar, rate_bar, stacked_bar};
pub use dots::{axis, dot_on_interval, paired_dots};
pub use line::line_chart;
pub use scale::Scale;
pub use sweep::sweep_chart;
