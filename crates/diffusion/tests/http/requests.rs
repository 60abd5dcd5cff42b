//! What is sent: fields, forms, and the key.

use std::collections::BTreeMap;

use evenset_core::{Seed, Silent};
use evenset_data::{Limits, Mode, decode};
use evenset_diffusion::http::{FileLedger, HostedEdit, HostedRequest, HttpGenerator};
use serde_json::{Value, json};

use crate::server::KEY;
use crate::support::{Case, body, draw, draw_with, environment, generator, requests};

#[test]
fn a_request_is_json_with_the_fields_of_the_job() {
    let case = Case::new("good");
    let fields = json!({"quality": "high", "steps": 4, "cfg": 7.5, "safe": false});
    draw(case.config(json!({"fields": fields, "seed_field": "seed"})), [7]);
    let entry = &case.log()[0];
    assert_eq!(
        (entry["method"].as_str(), entry["headers"]["content-type"].as_str()),
        (Some("POST"), Some("application/json"))
    );
    assert!(entry["path"].as_str().unwrap().ends_with("/images/generations"));
    assert!(entry["headers"]["user-agent"].as_str().unwrap().starts_with("evenset/"));
    assert_eq!(entry["headers"].get("authorization"), None);
    let sent: Value = serde_json::from_slice(&body(entry)).unwrap();
    let expected = json!({
        "model": "test-model", "prompt": "item 7", "n": 1, "size": "16x16", "quality": "high", "steps": 4, "cfg": 7.5,
        "safe": false, "seed": 0,
    });
    assert_eq!(sent, expected);
}

#[test]
fn seeds_fit_into_31_bits_and_differ() {
    let case = Case::new("good");
    let seeds = [Seed(u64::MAX), Seed(1 << 40)];
    let requests: Vec<HostedRequest> =
        seeds.map(|seed| HostedRequest { prompt: "item 1".into(), seed, edit: None }).into();
    let generator = generator(case.config(json!({"seed_field": "seed", "concurrency": 1})));
    assert!(draw_with(&generator, &requests, &Silent).error.is_none());
    let sent = |entry: &Value| serde_json::from_slice::<Value>(&body(entry)).unwrap()["seed"].as_u64();
    assert_eq!(case.log().iter().map(sent).collect::<Vec<_>>(), [Some((1 << 31) - 1), Some(128)]);
}

#[test]
fn an_edit_is_a_form_with_fields_image_and_mask() {
    let case = Case::new("good");
    let pixels: Vec<u8> = (0..4 * 2 * 3).collect();
    let mask = vec![0, 0, 255, 255, 0, 0, 255, 255];
    let edit = HostedEdit { width: 4, height: 2, channels: 3, pixels: pixels.clone(), mask: Some(mask) };
    let request = HostedRequest { prompt: "item 3\r\n--x \"ü\"".into(), seed: Seed(0), edit: Some(edit) };
    let settings = json!({"fields": {"quality": "low", "steps": 4}, "key_env": "TEST_KEY"});
    let drawn = draw_with(&generator(case.config(settings)), &[request], &Silent);
    assert_eq!(drawn.numbers(), [(0, 3)], "{:?}", drawn.error);

    let entry = &case.log()[0];
    assert!(entry["path"].as_str().unwrap().ends_with("/images/edits"));
    assert_eq!(entry["headers"]["authorization"], format!("Bearer {KEY}"));
    let kind = entry["headers"]["content-type"].as_str().unwrap();
    let parts = parts(&body(entry), kind.strip_prefix("multipart/form-data; boundary=").unwrap());
    let names: Vec<&str> = parts.keys().map(String::as_str).collect();
    assert_eq!(names, ["image", "mask", "model", "n", "prompt", "quality", "size", "steps"]);
    for (name, value) in [("model", "test-model"), ("n", "1"), ("quality", "low"), ("size", "16x16"), ("steps", "4")] {
        assert_eq!(parts[name], (format!("form-data; name=\"{name}\""), None, value.as_bytes().to_vec()));
    }
    assert_eq!(parts["prompt"].2, "item 3\r\n--x \"ü\"".as_bytes());

    let file = |name: &str| {
        let (disposition, kind, bytes) = &parts[name];
        assert_eq!(disposition, &format!("form-data; name=\"{name}\"; filename=\"{name}.png\""));
        assert_eq!(kind.as_deref(), Some("image/png"));
        decode(bytes, &Limits::default()).unwrap()
    };
    let (image, mask) = (file("image"), file("mask"));
    assert_eq!((image.width, image.height, image.mode, image.rgb), (4, 2, Mode::Rgb, pixels));
    // Transparent, so white when decoded, where it is to be redrawn; black where it stays.
    let rows = [[0; 6], [255; 6], [0; 6], [255; 6]].concat();
    assert_eq!((mask.width, mask.height, mask.mode, mask.rgb), (4, 2, Mode::Rgba, rows));
}

/// Content-Disposition, Content-Type and bytes of each part of a form.
fn parts(body: &[u8], boundary: &str) -> BTreeMap<String, (String, Option<String>, Vec<u8>)> {
    let find = |text: &[u8], what: &[u8]| text.windows(what.len()).position(|window| window == what);
    let (first, next) = (format!("--{boundary}\r\n"), format!("\r\n--{boundary}"));
    let mut rest = body.strip_prefix(first.as_bytes()).expect("the form does not begin with its boundary");
    let mut parts = BTreeMap::new();
    loop {
        let head = find(rest, b"\r\n\r\n").expect("a part without an empty line");
        let headers: BTreeMap<String, String> = std::str::from_utf8(&rest[..head])
            .unwrap()
            .split("\r\n")
            .map(|line| line.split_once(": ").unwrap())
            .map(|(name, value)| (name.to_lowercase(), value.to_owned()))
            .collect();
        let end = head + 4 + find(&rest[head + 4..], next.as_bytes()).expect("a part without an end");
        let disposition = headers["content-disposition"].clone();
        let name = disposition.split("name=\"").nth(1).unwrap().split('"').next().unwrap().to_owned();
        let part = (disposition, headers.get("content-type").cloned(), rest[head + 4..end].to_vec());
        assert!(parts.insert(name, part).is_none());
        rest = &rest[end + next.len()..];
        match rest.strip_prefix(b"\r\n") {
            Some(further) => rest = further,
            None => break,
        }
    }
    assert_eq!(rest, b"--\r\n");
    parts
}

#[test]
fn an_edit_without_a_mask_has_no_part_for_it() {
    let case = Case::new("good");
    let edit = HostedEdit { width: 2, height: 2, channels: 1, pixels: vec![9; 4], mask: None };
    let request = HostedRequest { prompt: "item 3".into(), seed: Seed(0), edit: Some(edit) };
    assert!(draw_with(&generator(case.config(json!({}))), &[request], &Silent).error.is_none());
    let sent = body(&case.log()[0]);
    assert!(!String::from_utf8_lossy(&sent).contains("name=\"mask\""));
}

#[test]
fn impossible_requests_are_named_before_anything_is_sent() {
    let case = Case::new("good");
    let generator = generator(case.config(json!({})));
    let edit = |width, pixels, mask| Some(HostedEdit { width, height: 2, channels: 3, pixels, mask });
    let wrong = [
        ("  ", None, "`prompt`"),
        ("a", edit(2, vec![0; 11], None), "`edit`: 11 bytes"),
        ("a", edit(0, vec![], None), "`edit`: 0x2x3"),
        ("a", edit(2, vec![0; 12], Some(vec![0; 5])), "`mask`: 5 bytes"),
    ];
    for (prompt, edit, reason) in wrong {
        let mut all = requests([1]);
        all.push(HostedRequest { prompt: prompt.into(), seed: Seed(0), edit });
        let said = draw_with(&generator, &all, &Silent).said();
        assert!(said.starts_with(reason), "{said}");
    }
    assert_eq!(case.asked(), 0);
}

#[test]
fn the_key_is_sent_to_the_server_and_not_to_its_links() {
    let drawn = draw(Case::new("auth").config(json!({"key_env": "TEST_KEY"})), [4]);
    assert_eq!(drawn.numbers(), [(0, 4)], "{:?}", drawn.error);

    let case = Case::new("url");
    draw(case.config(json!({"key_env": "TEST_KEY"})), [4]);
    let sent: Vec<(String, Option<String>)> = case
        .log()
        .iter()
        .map(|entry| {
            (entry["method"].as_str().unwrap().into(), entry["headers"]["authorization"].as_str().map(Into::into))
        })
        .collect();
    assert_eq!(sent, [("POST".into(), Some(format!("Bearer {KEY}"))), ("GET".into(), None)]);
}

#[test]
fn a_key_that_the_server_repeats_is_struck_from_the_error_and_debug_output_holds_none() {
    let case = Case::new("auth");
    let settings = case.config(json!({"key_env": "OTHER_KEY"}));
    let folder = tempfile::tempdir().unwrap();
    let ledger = || Box::new(FileLedger::new(folder.path().join("spent.json")));
    let other = |name: &str| (name == "OTHER_KEY").then(|| "the-wrong-key-1".to_owned());
    let generator = HttpGenerator::new(settings.clone(), ledger(), &other).unwrap();
    let drawn = draw_with(&generator, &requests([1]), &Silent);
    assert!(drawn.said().contains("401") && drawn.said().contains("Bearer [key]"), "{}", drawn.said());
    assert!(drawn.said().contains("key_env"), "{}", drawn.said());
    assert_eq!((case.asked(), drawn.spent.images), (1, 0));
    let shown = format!("{generator:?} {:?} {}", drawn.error, drawn.said());
    assert!(shown.contains("OTHER_KEY") && !shown.contains("the-wrong-key-1"), "{shown}");

    let said = HttpGenerator::new(settings, ledger(), &environment).unwrap_err().to_string();
    assert!(said.contains("`OTHER_KEY`") && said.contains("not set"), "{said}");
}
