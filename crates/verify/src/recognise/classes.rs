//! A model's classes and the job's values of an attribute: they must be the same names, in whatever order.

use std::collections::BTreeSet;
use std::path::Path;

use evenset_core::nearest;

use crate::VerifyError;

/// Names of a list that a message shows.
const SHOWN: usize = 20;

/// The values of `attribute` among the job's.
///
/// # Errors
/// [`VerifyError::Model`] listing the job's attributes.
pub(crate) fn values_of<'a>(
    path: &Path,
    attribute: &str,
    attributes: &'a [(String, Vec<String>)],
) -> Result<&'a [String], VerifyError> {
    let known = attributes.iter().find(|(name, _)| name == attribute);
    known.map(|(_, values)| values.as_slice()).ok_or_else(|| {
        let names = || attributes.iter().map(|(name, _)| name.as_str());
        let reason = format!(
            "it is to recognise `{attribute}`, which is no attribute of the job{}; the attributes are: {}",
            suggestion(attribute, names()),
            listed(names())
        );
        VerifyError::Model { path: path.to_owned(), reason }
    })
}

/// For each of the job's values its place among the model's classes.
///
/// # Errors
/// [`VerifyError::Model`] with both lists, where a value is missing among the classes, a class is no value, or a class
/// stands twice.
#[cfg_attr(not(feature = "onnx"), allow(dead_code))]
pub(crate) fn places(
    path: &Path,
    attribute: &str,
    classes: &[String],
    values: &[String],
) -> Result<Vec<usize>, VerifyError> {
    let failed = |reason: String| VerifyError::Model { path: path.to_owned(), reason };
    let names = |list: &[String]| listed(list.iter().map(String::as_str));
    let mut met = BTreeSet::new();
    if let Some(twice) = classes.iter().find(|class| !met.insert(*class)) {
        return Err(failed(format!(
            "class `{twice}` of `{attribute}` stands twice in `classes`; name each class once"
        )));
    }
    let of_value = |value: &String| classes.iter().position(|class| class == value);
    let missing: Vec<&String> = values.iter().filter(|value| of_value(value).is_none()).collect();
    let extra: Vec<&String> = classes.iter().filter(|class| !values.contains(class)).collect();
    if missing.is_empty() && extra.is_empty() {
        return Ok(values.iter().filter_map(of_value).collect());
    }
    let described =
        |name: &&String, others: &[String]| format!("`{name}`{}", suggestion(name, others.iter().map(String::as_str)));
    let mut wrong = Vec::new();
    if !missing.is_empty() {
        let missing: Vec<String> = missing.iter().take(SHOWN).map(|name| described(name, classes)).collect();
        wrong.push(format!("no class for {}", missing.join(", ")));
    }
    if !extra.is_empty() {
        let extra: Vec<String> = extra.iter().take(SHOWN).map(|name| described(name, values)).collect();
        wrong.push(format!("no value for class {}", extra.join(", ")));
    }
    Err(failed(format!(
        "its classes are not the values of `{attribute}`: {}. Classes: {}. Values: {}. Name the classes in `classes` as the \
         dataset names the values, in the order of the model's outputs",
        wrong.join("; "),
        names(classes),
        names(values)
    )))
}

fn suggestion<'a>(name: &str, names: impl IntoIterator<Item = &'a str>) -> String {
    nearest(name, names).map(|name| format!(" (did you mean `{name}`?)")).unwrap_or_default()
}

/// The first names of a list.
fn listed<'a>(names: impl IntoIterator<Item = &'a str>) -> String {
    let names: Vec<&str> = names.into_iter().collect();
    match names.len() {
        0 => "none".to_owned(),
        count if count > SHOWN => format!("{} and {} more", names[..SHOWN].join(", "), count - SHOWN),
        _ => names.join(", "),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn strings(names: &[&str]) -> Vec<String> {
        names.iter().map(|&name| name.to_owned()).collect()
    }

    #[test]
    fn the_order_is_free() {
        let found =
            places(Path::new("m"), "colour", &strings(&["red", "green", "blue"]), &strings(&["blue", "red", "green"]));
        assert_eq!(found.unwrap(), [2, 0, 1]);
    }

    #[test]
    fn other_names_are_an_error_with_both_lists_and_the_nearest_name() {
        let error =
            places(Path::new("m.onnx"), "colour", &strings(&["red", "bleu", "gold"]), &strings(&["blue", "red"]));
        let error = error.unwrap_err().to_string();
        for part in [
            "m.onnx",
            "no class for `blue` (did you mean `bleu`?)",
            "no value for class `bleu` (did you mean `blue`?), `gold`",
            "Classes: red, bleu, gold. Values: blue, red.",
        ] {
            assert!(error.contains(part), "{part}: {error}");
        }
        let twice =
            places(Path::new("m"), "colour", &strings(&["red", "red"]), &strings(&["red"])).unwrap_err().to_string();
        assert!(twice.contains("`red` of `colour` stands twice"), "{twice}");
    }

    #[test]
    fn an_attribute_that_the_job_lacks_is_named_with_the_nearest() {
        let attributes = [("colour".to_owned(), strings(&["red"]))];
        let error = values_of(Path::new("m"), "color", &attributes).unwrap_err().to_string();
        assert!(error.contains("`color`") && error.contains("did you mean `colour`"), "{error}");
        assert_eq!(values_of(Path::new("m"), "colour", &attributes).unwrap(), ["red"]);
    }
}
