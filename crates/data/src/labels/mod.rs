//! Tables of labels, with or without images.

mod column;

pub use column::LabelColumn;
