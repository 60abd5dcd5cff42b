//! Filters: which rows are counted.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::scalar::{Scalars, number};

/// A condition on one column; rows that do not meet it are left out. Several conditions in one filter must all hold.
///
/// A row whose value is missing meets no condition but `missing: true`, as in SQL: `not: unknown` leaves it out too.
/// Texts are compared letter by letter, numbers by `min`, `max`, `above` and `below`. Filters are tested in the order
/// in which they stand: a row that one leaves out is not looked at by those after it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Filter {
    /// The column or derived attribute that is looked at.
    pub column: String,
    /// Keep rows with this value, or one of these.
    #[serde(default, rename = "in", skip_serializing_if = "Option::is_none")]
    pub is_in: Option<Scalars>,
    /// Leave out rows with this value, or one of these; a missing value is left out as well.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub not: Option<Scalars>,
    /// Keep rows whose number is this or larger.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub min: Option<f64>,
    /// Keep rows whose number is this or smaller.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max: Option<f64>,
    /// Keep rows whose number is larger than this.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub above: Option<f64>,
    /// Keep rows whose number is smaller than this.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub below: Option<f64>,
    /// `true`: keep only rows without a value; `false`: keep only rows with one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub missing: Option<bool>,
}

/// Why a filter cannot be applied.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FilterError {
    /// A condition that cannot be read.
    #[error("{}", caret(text, *at, expected))]
    Syntax {
        /// The condition as given.
        text: String,
        /// The byte in it where something else was expected.
        at: usize,
        /// What was expected there.
        expected: String,
    },
    /// Conditions that cannot be met or say nothing.
    #[error("filter on `{column}`: {problem}")]
    Condition {
        /// The column of the filter.
        column: String,
        /// What is wrong, and the remedy.
        problem: String,
    },
    /// A cell that is not a number where numbers are compared.
    #[error(
        "filter on `{column}`: `{value}` ({address}, row {row}) is not a number; leave such rows out before with \
         `{{column: {column}, not: {value}}}`, or name the word as missing"
    )]
    NotANumber {
        /// The column of the filter.
        column: String,
        /// The cell.
        value: String,
        /// The file.
        address: String,
        /// The row in it, from 1 on.
        row: u64,
    },
}

/// What a filter says of a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    Drop,
    Keep,
    NotANumber,
}

impl Filter {
    /// Checks what can be checked without data.
    ///
    /// # Errors
    /// [`FilterError::Condition`]: no condition, an impossible one, an empty list, a limit that is no number.
    pub fn validate(&self) -> Result<(), FilterError> {
        let refuse =
            |problem: &str| Err(FilterError::Condition { column: self.column.clone(), problem: problem.to_owned() });
        let limits = [self.min, self.max, self.above, self.below];
        let compares = self.is_in.is_some() || self.not.is_some() || limits.iter().any(Option::is_some);
        if self.column.is_empty() {
            return refuse("`column` is empty; name a column");
        }
        if !compares && self.missing.is_none() {
            return refuse("there is no condition; use `in`, `not`, `min`, `max`, `above`, `below` or `missing`");
        }
        if compares && self.missing == Some(true) {
            return refuse("a missing value meets no other condition; use `missing: true` alone");
        }
        if [&self.is_in, &self.not].into_iter().flatten().any(|list| list.0.is_empty()) {
            return refuse("a list is empty; name a value");
        }
        if limits.iter().flatten().any(|limit| limit.is_nan()) {
            return refuse("a limit is not a number");
        }
        let low = self.min.into_iter().chain(self.above).fold(f64::NEG_INFINITY, f64::max);
        let high = self.max.into_iter().chain(self.below).fold(f64::INFINITY, f64::min);
        if low > high {
            return refuse(&format!("no number is at least {low} and at most {high}"));
        }
        Ok(())
    }

    /// Whether the filter compares numbers.
    fn is_numeric(&self) -> bool {
        self.min.or(self.max).or(self.above).or(self.below).is_some()
    }

    /// What the filter says of a value.
    pub(crate) fn verdict(&self, value: Option<&str>) -> Verdict {
        let keep = |kept: bool| if kept { Verdict::Keep } else { Verdict::Drop };
        let Some(text) = value else { return keep(self.missing == Some(true)) };
        let listed = self.is_in.as_ref().is_none_or(|list| list.contains(text))
            && self.not.as_ref().is_none_or(|list| !list.contains(text))
            && self.missing != Some(true);
        if !listed || !self.is_numeric() {
            return keep(listed);
        }
        let Some(number) = number(text) else { return Verdict::NotANumber };
        keep(
            self.min.is_none_or(|min| number >= min)
                && self.max.is_none_or(|max| number <= max)
                && self.above.is_none_or(|above| number > above)
                && self.below.is_none_or(|below| number < below),
        )
    }
}

/// The text with a mark below the place, and what was expected there.
fn caret(text: &str, at: usize, expected: &str) -> String {
    let line: String = text.chars().map(|letter| if letter.is_control() { ' ' } else { letter }).collect();
    let before = text.get(..at).unwrap_or(text).chars().count();
    format!("expected {expected}\n  {line}\n  {:before$}^", "")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filter(json: &str) -> Filter {
        serde_json::from_str(json).unwrap()
    }

    #[test]
    fn the_keys_of_a_job_file_are_read_and_written_back() {
        let text = r#"{"column":"age","in":["18","true"],"not":["a"],"min":1.0,"missing":false}"#;
        let read = filter(r#"{"column": "age", "in": [18.0, true], "not": "a", "min": 1, "missing": false}"#);
        assert_eq!(serde_json::to_string(&read).unwrap(), text);
        assert_eq!(filter(text), read);
        assert!(serde_json::from_str::<Filter>(r#"{"column": "a", "is": 1}"#).is_err());
        assert!(serde_json::from_str::<Filter>(r#"{"in": 1}"#).is_err());
    }

    #[test]
    fn limits_are_inclusive_or_not_and_a_missing_value_meets_only_missing_true() {
        let cases = [
            (r#"{"column":"a","min":18}"#, "18", true),
            (r#"{"column":"a","above":18}"#, "18", false),
            (r#"{"column":"a","max":18}"#, "18.0", true),
            (r#"{"column":"a","below":18}"#, "18", false),
            (r#"{"column":"a","min":1,"below":3,"not":2}"#, "2", false),
            (r#"{"column":"a","in":["x",1]}"#, "1", true),
            (r#"{"column":"a","missing":false}"#, "x", true),
            (r#"{"column":"a","missing":true}"#, "x", false),
        ];
        for (json, value, kept) in cases {
            let verdict = filter(json).verdict(Some(value));
            assert_eq!(verdict, if kept { Verdict::Keep } else { Verdict::Drop }, "{json} of {value}");
            let missing = filter(json).verdict(None) == Verdict::Keep;
            assert_eq!(missing, json.contains("true"), "{json}");
        }
        assert_eq!(filter(r#"{"column":"a","min":1}"#).verdict(Some("x")), Verdict::NotANumber);
        assert_eq!(filter(r#"{"column":"a","min":1,"not":"x"}"#).verdict(Some("x")), Verdict::Drop);
    }

    #[test]
    fn filters_that_say_nothing_or_cannot_be_met_are_refused() {
        for (json, problem) in [
            (r#"{"column":"a"}"#, "no condition"),
            (r#"{"column":"","missing":true}"#, "name a column"),
            (r#"{"column":"a","missing":true,"not":1}"#, "alone"),
            (r#"{"column":"a","in":[]}"#, "empty"),
            (r#"{"column":"a","min":3,"max":2}"#, "at least 3 and at most 2"),
        ] {
            let error = filter(json).validate().unwrap_err().to_string();
            assert!(error.contains(problem), "{error}");
        }
        assert_eq!(filter(r#"{"column":"a","missing":true}"#).validate(), Ok(()));
    }
}
