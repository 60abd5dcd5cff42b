//! Prompts from the job file to the requests.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::collections::BTreeMap;

use evenset_core::{Group, MISSING, Seed};
use evenset_plan::{CheckedPrompts, PlanError, Prompts, requests, requests_with};

fn group(garment: &str, colour: &str) -> Group {
    Group::new([("garment", garment), ("colour", colour)]).unwrap()
}

fn groups() -> Vec<Group> {
    let mut groups: Vec<Group> =
        ["coat", "umbrella"].iter().flat_map(|g| ["red", "orange"].iter().map(|c| group(g, c))).collect();
    groups.push(group("coat", MISSING));
    groups
}

fn check(json: &str) -> Result<CheckedPrompts, String> {
    let prompts: Prompts = serde_json::from_str(json).map_err(|error| error.to_string())?;
    prompts.check(&groups()).map_err(|error| error.to_string())
}

fn first(json: &str, group: &Group) -> String {
    check(json).unwrap().prompt(Seed(7), group, 0, 0).unwrap().prompt
}

#[test]
fn phrases_articles_plurals_and_braces_are_filled_in() {
    for (template, prompt) in [
        ("a photo of {a garment}", "a photo of an umbrella"),
        ("{A colour} {garment}, {{sharp}}", "An orange umbrella, {sharp}"),
        ("many {garment:plural}", "many umbrellas"),
        ("{Garment}: {Garment:plural}", "Umbrella: Umbrellas"),
    ] {
        let json = serde_json::json!({ "template": template }).to_string();
        assert_eq!(first(&json, &group("umbrella", "orange")), prompt);
    }
    let json = r#"{"template":"{a garment} or {garment:plural}",
        "phrases":{"garment":{"coat":{"one":"woollen overcoat","many":"woollies"},"umbrella":"brolly"}}}"#;
    assert_eq!(first(json, &group("coat", "red")), "a woollen overcoat or woollies");
    assert_eq!(first(json, &group("umbrella", "red")), "a brolly or brollies");
}

#[test]
fn later_overrides_win_for_the_groups_that_they_are_for() {
    let json = r#"{"template":"{garment} {place}","words":{"place":["home"]},"negative":"blur","overrides":[
        {"where":{"garment":"coat"},"phrases":{"garment":{"coat":"parka"}},"words":{"place":["outside"]}},
        {"where":{"garment":"coat","colour":"red"},"template":"red {garment} {weather}","words":{"weather":["sun"]},
         "negative":["rain on {garment:plural}"]}]}"#;
    let checked = check(json).unwrap();
    let said = |g: &Group| checked.prompt(Seed(7), g, 0, 0).unwrap();
    assert_eq!(said(&group("umbrella", "red")).prompt, "umbrella home");
    assert_eq!(said(&group("coat", "orange")).prompt, "parka outside");
    assert_eq!(said(&group("coat", "orange")).negative.as_deref(), Some("blur"));
    let red = said(&group("coat", "red"));
    assert_eq!((red.prompt.as_str(), red.negative.as_deref()), ("red parka sun", Some("rain on parkas")));
}

#[test]
fn mistakes_are_found_before_anything_is_drawn() {
    for (json, message) in [
        (r#"{"template":"a {size}"}"#, "prompt `a {size}`, column 3: `size` is neither an attribute nor a word slot"),
        (r#"{"template":[]}"#, "`prompts.template` is empty"),
        (r#"{"template":["a"," "]}"#, "`prompts.template` is empty"),
        (r#"{"template":"a","words":{"place":[]}}"#, "`prompts.words.place` is empty"),
        (r#"{"template":"a","words":{"colour":["x"]}}"#, "`prompts.words.colour` is also an attribute"),
        (r#"{"template":"a","phrases":{"size":{"x":"y"}}}"#, "`prompts.phrases` names `size`, but groups are made of"),
        (
            r#"{"template":"a","phrases":{"colour":{"blue":"y"}}}"#,
            "`prompts.phrases` names the value `blue` of `colour`, which has `orange`, `red`",
        ),
        (r#"{"template":"a","phrases":{"colour":{"red":[]}}}"#, "`prompts.phrases.colour.red` is empty"),
        (
            r#"{"template":"a","overrides":[{"where":{"colour":"blue"}}]}"#,
            "`prompts.overrides[0].where` names the value `blue`",
        ),
        (r#"{"template":"a","overrides":[{"where":{},"template":"{x}"}]}"#, "prompt `{x}`, column 1"),
        (r#"{"template":"a","negative":"{garment"}"#, "prompt `{garment`, column 1: this brace"),
        (r#"{"template":"a","tempalte":"b"}"#, "unknown field `tempalte`"),
        (r#"{}"#, "missing field `template`"),
    ] {
        let error = check(json).unwrap_err();
        assert!(error.starts_with(message), "{error}");
    }
}

const VARIED: &str = r#"{"template":["{a garment} {place}","{place}: {garment}"],
    "phrases":{"garment":{"coat":["coat","jacket","parka"]}},
    "words":{"place":["at home","outside","in a studio"],"light":["dim","bright"]},
    "negative":["blur","noise"]}"#;

#[test]
fn within_a_group_every_choice_is_used_equally_often_and_none_is_locked_to_another() {
    let checked = check(VARIED).unwrap();
    let n = 1801;
    let all = requests_with(Seed(7), 1, &[(group("coat", "red"), n)], Some(&checked)).unwrap();
    let mut joint: BTreeMap<(usize, usize, usize), u64> = BTreeMap::new();
    let (mut templates, mut wordings, mut places) = ([0u64; 2], [0u64; 3], [0u64; 3]);
    for request in &all {
        let prompt = request.prompt.as_deref().unwrap();
        let at = |words: &[&str]| words.iter().position(|word| prompt.contains(word)).unwrap();
        let template = usize::from(prompt.contains(':'));
        let (wording, place) = (at(&["coat", "jacket", "parka"]), at(&["at home", "outside", "in a studio"]));
        templates[template] += 1;
        wordings[wording] += 1;
        places[place] += 1;
        *joint.entry((template, wording, place)).or_default() += 1;
    }
    for used in [&templates[..], &wordings, &places] {
        assert!(used.iter().max().unwrap() - used.iter().min().unwrap() <= 1, "{used:?}");
    }
    let expected = n as f64 / 18.0;
    assert_eq!(joint.len(), 18);
    assert!(joint.values().all(|&n| (n as f64 - expected).abs() < 5.0 * expected.sqrt()), "{joint:?}");
}

#[test]
fn a_prompt_depends_on_seed_group_round_and_index_alone() {
    let checked = check(VARIED).unwrap();
    let few = requests_with(Seed(7), 1, &[(group("coat", "red"), 3)], Some(&checked)).unwrap();
    let asks = [(group("umbrella", "red"), 5), (group("coat", "red"), 40)];
    let many = requests_with(Seed(7), 1, &asks, Some(&checked)).unwrap();
    assert_eq!(few[..], many[5..8]);
    for request in &many {
        let said = checked.prompt(Seed(7), &request.group, 1, request.index).unwrap();
        assert_eq!((Some(said.prompt), said.negative), (request.prompt.clone(), request.negative_prompt.clone()));
    }
    let other = requests_with(Seed(8), 1, &asks, Some(&checked)).unwrap();
    assert!(many.iter().zip(&other).any(|(a, b)| a.prompt != b.prompt));
    // Prompts change nothing else about a request, and without them none is written.
    let plain = requests(Seed(7), 1, &asks).unwrap();
    assert!(plain.iter().zip(&many).all(|(a, b)| (&a.id, a.seed) == (&b.id, b.seed) && a.prompt.is_none()));
    assert!(!serde_json::to_string(&plain[0]).unwrap().contains("prompt"));
}

#[test]
fn a_missing_value_never_reaches_a_prompt() {
    let checked = check(r#"{"template":"{colour} {garment}"}"#).unwrap();
    let missing = group("coat", MISSING);
    let error = requests_with(Seed(7), 0, &[(missing.clone(), 1)], Some(&checked)).unwrap_err();
    assert_eq!(error, PlanError::Unprompted { group: missing, attribute: "colour".into() });
    let json = serde_json::json!({"template": "{colour}", "phrases": {"colour": {MISSING: "x"}}}).to_string();
    assert!(check(&json).unwrap_err().contains("names the value `(missing)`"));
}

#[test]
fn the_schema_refuses_unknown_keys_and_has_a_line_for_every_key() {
    let schema = serde_json::to_value(schemars::schema_for!(Prompts)).unwrap();
    assert_eq!(schema["additionalProperties"], false);
    for (key, property) in schema["properties"].as_object().unwrap() {
        assert!(property["description"].is_string(), "{key}");
    }
}
