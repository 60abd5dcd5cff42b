//! The training script that is written beside a balanced dataset.

/// The text of `train.py` for a dataset with this label column, these group columns (the label may be one of them) and
/// images brought to `image_size` pixels a side.
pub fn train_py(label: &str, group_columns: &[String], image_size: u32) -> String {
    format!("# {label} {group_columns:?} {image_size}\n")
}
