//! Which part of the data is which split: by the job's word, or by the names that are usual.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use crate::error::DataError;

/// The roles in the order of the units.
pub(crate) const ROLES: [&str; 3] = ["train", "validation", "test"];
/// The name of the only split of data without splits.
pub(crate) const UNSPLIT: &str = "train";

/// A split that is read: its role and its name in the data.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Split {
    pub role: String,
    pub name: String,
}

/// The role that a usual name of a split stands for.
pub(crate) fn role_of(name: &str) -> Option<&'static str> {
    match name.to_lowercase().as_str() {
        "train" | "training" => Some("train"),
        "validation" | "valid" | "val" | "dev" => Some("validation"),
        "test" | "testing" | "eval" | "evaluation" => Some("test"),
        _ => None,
    }
}

/// The splits to read, in the order of [`ROLES`]: those of the job, else all whose names are usual.
///
/// `wanted` maps role to name in the data and `found` are the names there; both empty means one split, all `train`.
pub(crate) fn choose(
    path: &Path,
    wanted: &BTreeMap<String, String>,
    found: &BTreeSet<String>,
) -> Result<Vec<Split>, DataError> {
    if let Some(role) = wanted.keys().find(|role| !ROLES.contains(&role.as_str())) {
        return Err(DataError::NoSuchRole { role: role.clone() });
    }
    let mut splits: Vec<Split> = Vec::new();
    for role in ROLES {
        let names: Vec<&String> = match wanted.get(role) {
            Some(name) => vec![name],
            None if wanted.is_empty() => found.iter().filter(|name| role_of(name) == Some(role)).collect(),
            None => vec![],
        };
        if let [first, second, ..] = names[..] {
            let problem = format!("both `{first}` and `{second}` could be {role}; say which with `dataset.splits`");
            return Err(DataError::Layout { path: path.to_path_buf(), problem });
        }
        let Some(name) = names.first() else { continue };
        if !found.contains(*name) {
            let found = found.iter().cloned().collect();
            return Err(DataError::NoSplit { path: path.to_path_buf(), split: (*name).clone(), found });
        }
        if let Some(other) = splits.iter().find(|split| split.name == **name) {
            let problem = format!("`{name}` is both {} and {role}; a split can have one role only", other.role);
            return Err(DataError::Layout { path: path.to_path_buf(), problem });
        }
        splits.push(Split { role: role.to_owned(), name: (*name).clone() });
    }
    Ok(splits)
}

/// The split that a Parquet file's name says it belongs to.
///
/// `train.parquet`, `train-00000-of-00002.parquet` and `train_a.parquet` belong to `train`. The names in `wanted` are
/// recognised, the longest first, then the usual ones, then whatever stands before `-00000-of-00001`.
pub(crate) fn split_of_stem(stem: &str, wanted: &BTreeMap<String, String>) -> Option<String> {
    let follows =
        |name: &str| stem.strip_prefix(name).is_some_and(|rest| rest.is_empty() || rest.starts_with(['-', '_', '.']));
    if let Some(name) = wanted.values().filter(|name| follows(name)).max_by_key(|name| name.len()) {
        return Some(name.clone());
    }
    let shards = stem.match_indices('-').map(|(at, _)| stem.split_at(at)).find(|(_, rest)| is_shard_suffix(rest));
    if let Some((name, _)) = shards {
        return Some(name.to_owned());
    }
    let first = stem.split(['-', '_', '.']).next().unwrap_or(stem);
    role_of(first).map(|_| first.to_owned())
}

/// Whether the text begins with `-00000-of-00001` (any number of digits).
fn is_shard_suffix(text: &str) -> bool {
    let mut parts = text.trim_start_matches('-').splitn(4, '-');
    let number = |part: Option<&str>| part.is_some_and(|p| !p.is_empty() && p.bytes().all(|b| b.is_ascii_digit()));
    number(parts.next()) && parts.next() == Some("of") && number(parts.next())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(names: &[&str]) -> BTreeSet<String> {
        names.iter().map(|&name| name.to_owned()).collect()
    }

    fn wanted(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs.iter().map(|&(role, name)| (role.to_owned(), name.to_owned())).collect()
    }

    fn chosen(wanted: &BTreeMap<String, String>, found: &[&str]) -> Result<Vec<(String, String)>, String> {
        choose(Path::new("data"), wanted, &names(found))
            .map(|splits| splits.into_iter().map(|split| (split.role, split.name)).collect())
            .map_err(|error| error.to_string())
    }

    #[test]
    fn usual_names_are_recognised_and_come_in_the_order_of_the_roles() {
        let splits = chosen(&wanted(&[]), &["test", "val", "training", "extra"]).unwrap();
        assert_eq!(
            splits,
            [("train", "training"), ("validation", "val"), ("test", "test")].map(|(r, n)| (r.into(), n.into()))
        );
    }

    #[test]
    fn the_word_of_the_job_goes_first_and_a_wrong_one_is_answered_with_what_is_there() {
        let splits = chosen(&wanted(&[("train", "extra")]), &["train", "extra"]).unwrap();
        assert_eq!(splits, [("train".to_owned(), "extra".to_owned())]);
        let error = chosen(&wanted(&[("test", "tset")]), &["train", "test"]).unwrap_err();
        assert!(error.contains("no split `tset`; found: test, train"), "{error}");
        assert!(chosen(&wanted(&[("tests", "test")]), &["test"]).unwrap_err().contains("`tests` is not a role"));
    }

    #[test]
    fn one_split_cannot_be_both_train_and_test_and_one_role_cannot_have_two_splits() {
        let error = chosen(&wanted(&[("train", "a"), ("test", "a")]), &["a"]).unwrap_err();
        assert!(error.contains("both train and test"), "{error}");
        assert!(chosen(&wanted(&[]), &["val", "valid"]).unwrap_err().contains("say which"));
    }

    #[test]
    fn file_names_say_their_split() {
        let none = wanted(&[]);
        for stem in ["train", "train-00000-of-00002", "train-00000-of-00002-abc", "train_a"] {
            assert_eq!(split_of_stem(stem, &none).as_deref(), Some("train"), "{stem}");
        }
        assert_eq!(split_of_stem("train-clean-00001-of-00002", &none).as_deref(), Some("train-clean"));
        let clean = wanted(&[("train", "train-clean"), ("test", "train")]);
        assert_eq!(split_of_stem("train-clean-1", &clean).as_deref(), Some("train-clean"));
        assert_eq!(split_of_stem("0001", &none), None);
        assert_eq!(split_of_stem("trainer", &none), None);
    }
}
