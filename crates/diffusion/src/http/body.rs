//! What a request carries: JSON for an image from a prompt, a form for an edit.

use bytes::Bytes;
use evenset_data::encode_png;
use serde_json::{Map, Value};
use sha2::{Digest, Sha256};

use super::config::HttpConfig;
use super::generator::{HostedEdit, HostedRequest};

/// The bytes of a request and what they are.
pub(super) struct Body {
    pub content_type: String,
    pub bytes: Bytes,
}

/// One part of a form.
struct Part<'a> {
    name: &'a str,
    /// Name of the file, for a part that is one.
    file: Option<&'static str>,
    bytes: Vec<u8>,
}

/// The body of a request: a form where an image is edited, else JSON.
pub(super) fn body(config: &HttpConfig, request: &HostedRequest) -> Body {
    match &request.edit {
        Some(edit) => form(config, request, edit),
        None => json(config, request),
    }
}

/// The fields that both have, in the order in which they are sent.
fn fields<'a>(config: &'a HttpConfig, request: &HostedRequest) -> Vec<(&'a str, Value)> {
    let mut fields = vec![
        ("model", Value::from(config.model.trim())),
        ("prompt", Value::from(request.prompt.as_str())),
        ("n", Value::from(1)),
        ("size", Value::from(config.size.to_string())),
    ];
    fields.extend(config.fields.iter().map(|(name, value)| (name.as_str(), value.json())));
    // Servers keep seeds in signed 32-bit integers at the least.
    fields.extend(config.seed_field.as_deref().map(|name| (name, Value::from(request.seed.0 >> 33))));
    fields
}

fn json(config: &HttpConfig, request: &HostedRequest) -> Body {
    let fields: Map<String, Value> =
        fields(config, request).into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
    Body { content_type: "application/json".into(), bytes: Value::Object(fields).to_string().into() }
}

fn form(config: &HttpConfig, request: &HostedRequest, edit: &HostedEdit) -> Body {
    let text = |value: Value| match value {
        Value::String(text) => text.into_bytes(),
        other => other.to_string().into_bytes(),
    };
    let mut parts: Vec<Part<'_>> = fields(config, request)
        .into_iter()
        .map(|(name, value)| Part { name, file: None, bytes: text(value) })
        .collect();
    let image = encode_png(edit.width, edit.height, edit.channels, &edit.pixels, &[]);
    parts.push(Part { name: "image", file: Some("image.png"), bytes: image });
    if let Some(mask) = &edit.mask {
        // The API redraws where the mask is transparent.
        let rgba: Vec<u8> = mask.iter().flat_map(|&redraw| [0, 0, 0, 255 - redraw]).collect();
        let mask = encode_png(edit.width, edit.height, 4, &rgba, &[]);
        parts.push(Part { name: "mask", file: Some("mask.png"), bytes: mask });
    }
    multipart(&parts)
}

/// RFC 7578. The boundary is a hash of the parts, so the same request is the same bytes and no part can hold it.
fn multipart(parts: &[Part<'_>]) -> Body {
    let mut hasher = Sha256::new();
    parts.iter().for_each(|part| hasher.update(&part.bytes));
    let hash: String = hasher.finalize().iter().take(16).map(|byte| format!("{byte:02x}")).collect();
    let boundary = format!("evenset-{hash}");
    let mut bytes = Vec::new();
    for part in parts {
        let head = match part.file {
            None => format!("name=\"{}\"\r\n\r\n", part.name),
            Some(file) => format!("name=\"{}\"; filename=\"{file}\"\r\nContent-Type: image/png\r\n\r\n", part.name),
        };
        bytes.extend_from_slice(format!("--{boundary}\r\nContent-Disposition: form-data; {head}").as_bytes());
        bytes.extend_from_slice(&part.bytes);
        bytes.extend_from_slice(b"\r\n");
    }
    bytes.extend_from_slice(format!("--{boundary}--\r\n").as_bytes());
    Body { content_type: format!("multipart/form-data; boundary={boundary}"), bytes: bytes.into() }
}
