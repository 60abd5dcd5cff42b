//! The training script that is written beside a balanced dataset: plain PyTorch, short enough to be read and changed.

const TEMPLATE: &str = include_str!("../templates/train.py");

/// The text of `train.py` for a dataset with this label column, these group columns (the label may be one of them) and
/// images brought to `image_size` pixels a side.
///
/// The script reads `data/train-*.parquet` and `data/test-*.parquet` under `--data` (its own folder by default), draws
/// rows by `sample_weight` or evenly over the groups, and prints the accuracy of every group of the test split.
pub fn train_py(label: &str, group_columns: &[String], image_size: u32) -> String {
    let group: Vec<String> = group_columns.iter().map(|column| python_string(column)).collect();
    let columns = format!("{}, [{}], {image_size}", python_string(label), group.join(", "));
    TEMPLATE.replace("{{ columns }}", &columns)
}

/// A Python string literal. Everything but plain ASCII is escaped, so no name can end the literal.
fn python_string(text: &str) -> String {
    let escaped: String = text
        .chars()
        .map(|c| match c {
            '"' | '\\' => format!("\\{c}"),
            ' '..='~' => c.to_string(),
            _ => format!("\\U{:08x}", u32::from(c)),
        })
        .collect();
    format!("\"{escaped}\"")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_script_knows_its_columns_and_size() {
        let script = train_py("garment", &["garment".to_owned(), "colour".to_owned()], 32);
        assert!(script.contains(r#"LABEL, GROUP, SIZE = "garment", ["garment", "colour"], 32"#));
        assert!(!script.contains("{{"));
    }

    #[test]
    fn hostile_column_names_stay_inside_their_literal() {
        let script = train_py("a\"\nimport os", &["färbung\\".to_owned()], 8);
        assert!(script.contains(r#"LABEL, GROUP, SIZE = "a\"\U0000000aimport os", ["f\U000000e4rbung\\"], 8"#));
    }

    #[test]
    fn a_column_named_like_a_placeholder_is_not_filled_in_again() {
        assert!(
            train_py("{{ columns }}", &["{{ columns }}".to_owned()], 8)
                .contains(r#""{{ columns }}", ["{{ columns }}"], 8"#)
        );
    }
}
