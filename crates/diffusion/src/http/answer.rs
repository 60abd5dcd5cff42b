//! What an answer means: an image, a refusal, or which of the many other things that servers say.

use base64::Engine;
use base64::alphabet::STANDARD;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use reqwest::StatusCode;
use serde::Deserialize;
use serde_json::Value;

use super::exchange::Reply;

/// Codes with which servers refuse a prompt or an image for its content.
const REFUSALS: [&str; 6] = [
    "content_policy_violation",
    "moderation_blocked",
    "content_filter",
    "contentFilter",
    "ResponsibleAIPolicyViolation",
    "image_generation_user_error",
];
/// Characters of a server's text that messages repeat.
const EXCERPT: usize = 300;
/// Characters of a prompt that a server has rewritten.
const LONGEST_PROMPT: usize = 32_000;
/// Base64 with and without its padding.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// The meaning of an answer to a request for one image.
#[derive(Debug, PartialEq)]
pub(super) enum Meaning {
    /// An image, and the prompt that the server made of the request's.
    Image(Encoded, Option<String>),
    /// The server does not draw this; the text is its reason.
    Refused(String),
    /// A success without a usable image.
    Unusable(String),
    /// The answer broke off.
    Torn(String),
    /// This server does not speak the API, or rejects what the job asks for.
    Wrong(String),
}

/// How an image is given.
#[derive(Debug, PartialEq)]
pub(super) enum Encoded {
    /// The bytes of an image file.
    Bytes(Vec<u8>),
    /// Where the image file is.
    Link(String),
}

#[derive(Deserialize)]
struct Images {
    data: Vec<Item>,
}

#[derive(Deserialize)]
struct Item {
    b64_json: Option<String>,
    url: Option<String>,
    revised_prompt: Option<String>,
}

/// Reads an answer that is not worth another try by its status alone.
pub(super) fn meaning(reply: &Reply) -> Meaning {
    if reply.status.is_redirection() {
        let to = reply.location.as_deref().map(excerpt).unwrap_or_default();
        return Meaning::Wrong(format!("a redirect to `{to}`, which is not followed; correct `base_url`"));
    }
    if !reply.status.is_success() {
        return match refusal(&reply.bytes) {
            Some(reason) => Meaning::Refused(reason),
            None => Meaning::Wrong(format!("{}{}", said(reply), remedy(reply.status))),
        };
    }
    if let Some(reason) = refusal(&reply.bytes) {
        return Meaning::Refused(reason);
    }
    match serde_json::from_slice::<Images>(&reply.bytes) {
        Ok(images) => image(images),
        Err(error) if error.is_eof() => Meaning::Torn("the answer ends in the middle".into()),
        Err(error) => Meaning::Wrong(format!(
            "expected JSON with `data` and an image in it ({error}), and came {}; check `base_url`",
            what_came(reply)
        )),
    }
}

/// The first image of an answer; one was asked for.
fn image(images: Images) -> Meaning {
    let Some(item) = images.data.into_iter().next() else {
        return Meaning::Unusable("the answer holds no image and no reason".into());
    };
    let revised = item.revised_prompt.map(|prompt| prompt.chars().take(LONGEST_PROMPT).collect());
    match (item.b64_json, item.url) {
        (Some(text), _) if !text.is_empty() => match BASE64.decode(text) {
            Ok(bytes) => Meaning::Image(Encoded::Bytes(bytes), revised),
            Err(error) => Meaning::Unusable(format!("`b64_json` is not base64 ({error})")),
        },
        (_, Some(link)) if !link.is_empty() => Meaning::Image(Encoded::Link(link), revised),
        _ => Meaning::Unusable("the answer has neither `b64_json` nor `url`".into()),
    }
}

/// Whether an answer refuses the request for its content.
pub(super) fn is_refusal(reply: &Reply) -> bool {
    !reply.status.is_success() && refusal(&reply.bytes).is_some()
}

/// The reason of a refusal for content; `None` for every other error.
fn refusal(bytes: &[u8]) -> Option<String> {
    let body: Value = serde_json::from_slice(bytes).ok()?;
    let error = body.get("error")?;
    let codes = ["/code", "/type", "/innererror/code", "/inner_error/code"];
    let code = codes.iter().filter_map(|path| error.pointer(path)?.as_str()).find(|code| REFUSALS.contains(code))?;
    let message = error.get("message").and_then(Value::as_str).map(excerpt).unwrap_or_default();
    Some(if message.is_empty() { code.to_owned() } else { format!("{code}: {message}") })
}

/// Status and message of an answer that is an error.
pub(super) fn said(reply: &Reply) -> String {
    let body: Option<Value> = serde_json::from_slice(&reply.bytes).ok();
    let text = |value: &Value| match value {
        Value::String(text) => Some(excerpt(text)),
        Value::Null | Value::Object(_) => None,
        other => Some(excerpt(&other.to_string())),
    };
    let places = ["/error/message", "/error", "/message", "/detail"];
    let message = body.as_ref().and_then(|body| places.iter().find_map(|place| text(body.pointer(place)?)));
    match message {
        Some(message) => format!("{}: {message}", reply.status),
        None if reply.bytes.is_empty() => reply.status.to_string(),
        None => format!("{} with {}", reply.status, what_came(reply)),
    }
}

/// The kind of an answer and its beginning.
pub(super) fn what_came(reply: &Reply) -> String {
    let kind = if reply.content_type.is_empty() { "no content type" } else { &reply.content_type };
    let start = &reply.bytes[..reply.bytes.len().min(4 * EXCERPT)];
    match start.is_empty() {
        true => format!("nothing ({})", excerpt(kind)),
        false => format!("{}: `{}`", excerpt(kind), excerpt(&String::from_utf8_lossy(start))),
    }
}

fn remedy(status: StatusCode) -> &'static str {
    match status.as_u16() {
        401 | 403 => "; check the key in the variable that `key_env` names",
        404 | 405 => "; check `base_url` and `model`",
        _ => "; check `model`, `size` and `fields`",
    }
}

/// A stranger's text on one line of bounded length.
fn excerpt(text: &str) -> String {
    let line: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).take(8 * EXCERPT).collect();
    let line = line.split_whitespace().collect::<Vec<_>>().join(" ");
    match line.chars().count() > EXCERPT {
        true => line.chars().take(EXCERPT).chain("...".chars()).collect(),
        false => line,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reply(status: u16, content_type: &str, body: &str) -> Reply {
        Reply {
            status: StatusCode::from_u16(status).unwrap(),
            content_type: content_type.into(),
            retry_after: None,
            location: Some("https://other.example/".into()),
            bytes: body.into(),
        }
    }

    fn of(status: u16, body: &str) -> Meaning {
        meaning(&reply(status, "application/json", body))
    }

    #[test]
    fn images_come_as_base64_or_as_a_link() {
        let bytes = |text: &str| Meaning::Image(Encoded::Bytes(text.into()), None);
        assert_eq!(of(200, r#"{"created":1,"data":[{"b64_json":"aGk="}]}"#), bytes("hi"));
        assert_eq!(of(200, r#"{"data":[{"b64_json":"aGk"}]}"#), bytes("hi"));
        let link = Meaning::Image(Encoded::Link("https://x/1.png".into()), Some("a cat".into()));
        assert_eq!(of(200, r#"{"data":[{"url":"https://x/1.png","b64_json":null,"revised_prompt":"a cat"}]}"#), link);
    }

    #[test]
    fn refusals_for_content_are_told_from_errors() {
        let refused = [
            (400, r#"{"error":{"code":"content_policy_violation","message":"unsafe"}}"#),
            (400, r#"{"error":{"code":"moderation_blocked","message":"unsafe"}}"#),
            (400, r#"{"error":{"code":null,"type":"image_generation_user_error","message":"unsafe"}}"#),
            (400, r#"{"error":{"code":"x","innererror":{"code":"ResponsibleAIPolicyViolation"},"message":"unsafe"}}"#),
            (403, r#"{"error":{"code":"contentFilter","message":"unsafe"}}"#),
            (200, r#"{"error":{"code":"content_filter","message":"unsafe"}}"#),
        ];
        for (status, body) in refused {
            assert!(matches!(of(status, body), Meaning::Refused(reason) if reason.ends_with(": unsafe")), "{body}");
        }
        let wrong = of(400, r#"{"error":{"code":"invalid_size","type":"invalid_request_error","message":"no 7x7"}}"#);
        assert!(matches!(wrong, Meaning::Wrong(text) if text.starts_with("400 Bad Request: no 7x7; check")));
    }

    #[test]
    fn errors_are_read_in_every_common_form() {
        let text = |status, body: &str| said(&reply(status, "application/json", body));
        assert_eq!(text(401, r#"{"error":{"message":"bad key"}}"#), "401 Unauthorized: bad key");
        assert_eq!(text(404, r#"{"error":"no such model"}"#), "404 Not Found: no such model");
        assert_eq!(text(422, r#"{"detail":[{"loc":["body"]}]}"#), r#"422 Unprocessable Entity: [{"loc":["body"]}]"#);
        assert_eq!(text(500, r#"{"message":"oh\nno"}"#), "500 Internal Server Error: oh no");
        assert_eq!(text(502, ""), "502 Bad Gateway");
        assert_eq!(text(503, "<b>"), "503 Service Unavailable with application/json: `<b>`");
    }

    #[test]
    fn what_is_no_answer_of_this_api_says_what_came() {
        let page = meaning(&reply(200, "text/html", "<html>\n<title>Sign in</title>"));
        assert!(matches!(page, Meaning::Wrong(text) if text.contains("text/html: `<html> <title>Sign in</title>`")));
        assert!(matches!(of(200, r#"{"images":[]}"#), Meaning::Wrong(text) if text.contains("missing field `data`")));
        assert!(matches!(of(200, r#"{"data":{}}"#), Meaning::Wrong(_)));
        assert!(matches!(of(302, ""), Meaning::Wrong(text) if text.contains("https://other.example/")));
        assert!(matches!(of(200, r#"{"data":[{"b64_js"#), Meaning::Torn(_)));
        assert!(matches!(of(200, ""), Meaning::Torn(_)));
    }

    #[test]
    fn an_answer_without_an_image_is_unusable() {
        for body in [r#"{"data":[]}"#, r#"{"data":[{}]}"#, r#"{"data":[{"b64_json":"?"}]}"#, r#"{"data":[{"url":""}]}"#]
        {
            assert!(matches!(of(200, body), Meaning::Unusable(_)), "{body}");
        }
    }

    #[test]
    fn a_strangers_text_is_one_short_line() {
        assert_eq!(excerpt("a\n\tb\u{7}c"), "a b c");
        assert_eq!(excerpt(&"x".repeat(5000)).chars().count(), EXCERPT + 3);
    }
}
