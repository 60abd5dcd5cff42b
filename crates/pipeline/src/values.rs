//! Values of attributes that are probably mistakes: each would become a group of its own, and ask for images.

use std::collections::BTreeMap;

use evenset_audit::Cube;

use crate::error::Result;

/// Columns with more values hold something else than a vocabulary.
const MOST_VALUES: usize = 10_000;
/// Notes of one attribute.
const MOST_NOTES: usize = 3;

/// What a reader must know of values that are empty, or differ from others in nothing but case and blanks.
///
/// # Errors
/// None of a cube that was counted: an attribute that it does not have.
pub(crate) fn notes(cube: &Cube) -> Result<Vec<String>> {
    let mut notes = Vec::new();
    for attribute in cube.attributes() {
        let counts = cube.roll_up(std::slice::from_ref(attribute))?;
        if counts.len() > MOST_VALUES {
            continue;
        }
        let mut alike: BTreeMap<String, Vec<(&str, u64)>> = BTreeMap::new();
        for (group, count) in &counts {
            let value = group.get(attribute).unwrap_or_default();
            let plain = value.split_whitespace().collect::<Vec<_>>().join(" ").to_lowercase();
            alike.entry(plain).or_default().push((value, *count));
        }
        notes.extend(alike.iter().filter_map(|(plain, values)| note(attribute, plain, values)).take(MOST_NOTES));
    }
    Ok(notes)
}

fn note(attribute: &str, plain: &str, values: &[(&str, u64)]) -> Option<String> {
    if plain.is_empty() {
        let rows: u64 = values.iter().map(|(_, count)| count).sum();
        let rows = rows_of(rows);
        return Some(format!(
            "`{attribute}` is an empty text in {rows}, which counts as a value; `dataset.missing: ['']` takes it for a \
             missing one"
        ));
    }
    let [(most, _), ..] = *values else { return None };
    let (most, _) = values.iter().copied().fold((most, 0), |best, next| if next.1 > best.1 { next } else { best });
    let told: Vec<String> = values.iter().map(|(value, count)| format!("`{value}` ({})", rows_of(*count))).collect();
    (values.len() > 1).then(|| {
        format!(
            "`{attribute}` has {}, which differ in case and blanks alone; if they mean the same, `derive` with a `map` to \
             `{most}` makes them one",
            told.join(" and ")
        )
    })
}

fn rows_of(count: u64) -> String {
    if count == 1 { "1 row".to_owned() } else { format!("{count} rows") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn empty_values_and_other_spellings_are_noted() {
        let mut cube = Cube::new(vec!["light".to_owned()]).unwrap();
        for (value, rows) in [("dim", 7), ("DIM", 1), (" dim", 2), ("bright", 9), ("", 3)] {
            (0..rows).for_each(|_| cube.add(&[Some(value)]).unwrap());
        }
        (0..4).for_each(|_| cube.add(&[None]).unwrap());
        let [empty, alike] = &notes(&cube).unwrap()[..] else { panic!("two notes") };
        assert!(empty.contains("`light` is an empty text in 3 rows"), "{empty}");
        for part in ["`dim` (7 rows)", "`DIM` (1 row)", "` dim` (2 rows)", "a `map` to `dim`"] {
            assert!(alike.contains(part), "{alike}");
        }
    }
}
