//! What is wrong with a value, in the job's words: serde speaks of fields, variants, structs and `u64`.

use evenset_core::nearest;

/// What serde says of a key or a value, reworded; `of_type` where it is a part's `type`.
pub(super) fn reworded(message: &str, of_type: bool) -> String {
    if let Some(rest) = message.strip_prefix("unknown field `") {
        return unknown("key", rest);
    }
    if let Some(rest) = message.strip_prefix("unknown variant `") {
        return unknown(if of_type { "type" } else { "value" }, rest);
    }
    if let Some(rest) = message.strip_prefix("missing field ") {
        return format!("missing key {rest}");
    }
    let wrong = ["invalid type: ", "invalid value: "].iter().find_map(|prefix| message.strip_prefix(prefix));
    if let Some((found, expected)) = wrong.and_then(|rest| rest.rsplit_once(", expected ")) {
        return format!("{}; expected {}", found_in_words(found), expected_in_words(expected));
    }
    if let Some((length, expected)) = message.strip_prefix("invalid length ").and_then(|m| m.split_once(", expected "))
    {
        return match expected.starts_with("struct ") {
            true => "a list; expected keys and values".to_owned(),
            false => format!("a list of {length}; expected {}", expected_in_words(expected)),
        };
    }
    // An alternative says only what it is.
    if message.starts_with("a ") || message.starts_with("an ") || message.starts_with('`') {
        return format!("expected {message}");
    }
    message.to_owned()
}

/// `rest` is the unknown name, a backtick, and what is known.
fn unknown(what: &str, rest: &str) -> String {
    let (name, known) = rest.split_once('`').unwrap_or((rest, ""));
    // Every other piece between backticks is a name.
    let names: Vec<&str> = known.split('`').skip(1).step_by(2).collect();
    let guess = nearest(name, names.iter().copied()).map(|name| format!("; did you mean `{name}`?"));
    let expected = match names.as_slice() {
        [] => ", none is expected here".to_owned(),
        [one] => format!(", expected `{one}`"),
        many => format!(", expected one of {}", many.iter().map(|n| format!("`{n}`")).collect::<Vec<_>>().join(", ")),
    };
    format!("unknown {what} `{name}`{expected}{}", guess.unwrap_or_default())
}

/// What was written.
fn found_in_words(found: &str) -> String {
    let inside = |quote: char| found.split_once(quote).map_or(found, |(_, rest)| rest.trim_end_matches(quote));
    match found.split([' ', '`', '"']).next() {
        Some("string") => format!("the text `{}`", inside('"')),
        Some("integer" | "floating") => format!("the number `{}`", inside('`')),
        Some("boolean") => format!("`{}`", inside('`')),
        Some("null" | "unit") => "nothing".to_owned(),
        Some("sequence") => "a list".to_owned(),
        Some("map") => "keys and values".to_owned(),
        _ => found.to_owned(),
    }
}

/// What can stand there.
fn expected_in_words(expected: &str) -> String {
    let words = match expected {
        "a boolean" => "true or false",
        "u64" | "usize" | "u128" => "a whole number, 0 or more",
        "i8" | "i16" | "i32" | "i64" | "isize" => "a whole number",
        "f32" | "f64" => "a number",
        "a string" | "a borrowed string" | "string" => "a text",
        "path string" => "a path",
        "a sequence" => "a list",
        "a map" | "map" => "keys and values",
        "fewer elements in array" => "a shorter list",
        "string or map" | "map with a single key" | "variant identifier" => "a name",
        _ => "",
    };
    if !words.is_empty() {
        return words.to_owned();
    }
    let most = match expected {
        "u8" => u8::MAX.into(),
        "u16" => u16::MAX.into(),
        "u32" => u32::MAX,
        _ => 0,
    };
    if most > 0 {
        return format!("a whole number from 0 to {most}");
    }
    let sized = ["a tuple of size ", "an array of length "].iter().find_map(|prefix| expected.strip_prefix(prefix));
    if let Some(size) = sized {
        return format!("a list of {size}");
    }
    match expected.split(' ').collect::<Vec<_>>().as_slice() {
        ["struct", _] | ["struct", "variant", _] => "keys and values".to_owned(),
        ["internally", "tagged", "enum", _] => "keys and values, `type` among them".to_owned(),
        ["enum", _] => "a name".to_owned(),
        _ => expected.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use evenset_evidence::EvidenceConfig;
    use evenset_plan::{GuidesConfig, Targets};
    use evenset_verify::GateConfig;
    use serde::de::DeserializeOwned;

    use super::*;
    use crate::job::written::{Format, Model, WrittenDataset};

    /// What is said of `value` where a `T` should stand.
    fn said<T: DeserializeOwned + std::fmt::Debug>(value: &str) -> String {
        let value: serde_json::Value = serde_json::from_str(value).unwrap();
        reworded(&serde_json::from_value::<T>(value).unwrap_err().to_string(), false)
    }

    #[test]
    fn unknown_names_are_told_with_the_known_ones_and_the_one_that_was_probably_meant() {
        assert_eq!(
            said::<EvidenceConfig>(r#"{"sedes": 3}"#),
            "unknown key `sedes`, expected one of `seeds`, `classifier`, `baselines`, `variants`, `steps`, `batch`, \
             `width`, `hidden`, `learning_rate`, `augment`, `flip`, `smallest_group`, `validation_share`, `group_dro_step`, \
             `generated_weight`, `sweep`, `held_out_groups`; did you mean `seeds`?"
        );
        assert_eq!(
            said::<Format>(r#""parqet""#),
            "unknown value `parqet`, expected one of `parquet`, `webdataset`; did you mean `parquet`?"
        );
        assert_eq!(
            said::<Format>(r#""tfrecord""#),
            "unknown value `tfrecord`, expected one of `parquet`, `webdataset`"
        );
        assert!(said::<GateConfig>(r#""noveltie""#).ends_with("did you mean `novelty`?"));
        let message = serde_json::from_str::<Model>(r#"{"type": "conditionel"}"#).unwrap_err().to_string();
        let message = message.split(" at line").next().unwrap();
        let told = reworded(message, true);
        assert!(told.starts_with("unknown type `conditionel`, expected "), "{told}");
        assert!(told.ends_with("; did you mean `conditional`?"), "{told}");
        assert_eq!(said::<Targets>(r#"{"of": "colour"}"#), "missing key `type`");
    }

    #[test]
    fn values_of_the_wrong_kind_are_told_with_what_can_stand_there() {
        assert_eq!(said::<GuidesConfig>(r#"{"inversion": "yes"}"#), "the text `yes`; expected true or false");
        assert_eq!(said::<u64>(r#""seven""#), "the text `seven`; expected a whole number, 0 or more");
        assert_eq!(said::<u32>("-1"), "the number `-1`; expected a whole number from 0 to 4294967295");
        assert_eq!(said::<f64>("true"), "`true`; expected a number");
        assert_eq!(said::<String>("2020"), "the number `2020`; expected a text");
        assert_eq!(said::<Vec<String>>(r#"{"a": 1}"#), "keys and values; expected a list");
        assert_eq!(said::<[f64; 2]>("[1]"), "a list of 1; expected a list of 2");
        assert_eq!(said::<[f64; 2]>("[1, 2, 3]"), "a list of 3; expected a shorter list");
        for said in [said::<EvidenceConfig>("3"), said::<EvidenceConfig>(r#""none""#), said::<WrittenDataset>("[]")] {
            assert!(said.ends_with("; expected keys and values"), "{said}");
        }
        assert!(said::<Targets>("3").starts_with("the number `3`; expected a target"));
    }
}
