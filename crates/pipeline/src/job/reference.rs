//! The job file's reference as Markdown, made from the JSON Schema, so that it cannot fall behind the code.

use std::fmt::Write;

use serde_json::{Map, Value};

const HEAD: &str = "# The job file

A job is one YAML file. `evenset run JOB` does all of it; every other verb does a part. Unknown keys are refused with file,
line and the keys that are known. Paths are relative to the folder that evenset is started in.

- `include: FILE` (or a list), in the job or in any mapping of it, merges that file's keys under those written here; the
  file is looked for relative to the one that includes it.
- `--set a.b=c` on the command line overrides a key; the value is YAML.
- `evenset schema` prints the JSON Schema behind this page, for editors.

This page is made by `evenset schema --markdown`.
";

/// The whole page.
pub fn reference(schema: &Value) -> String {
    let mut page = HEAD.to_owned();
    let mut writer = Writer { schema, page: &mut page, depth: 0 };
    writer.properties("", schema);
    page
}

struct Writer<'a> {
    schema: &'a Value,
    page: &'a mut String,
    depth: usize,
}

impl Writer<'_> {
    /// One row a key, then a section for each key that is a mapping itself.
    fn properties(&mut self, path: &str, part: &Value) {
        let Some(properties) = part["properties"].as_object() else { return };
        let required: Vec<&str> = part["required"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
        self.table(properties, &required);
        if self.depth > 6 {
            return;
        }
        for (key, value) in properties {
            let path = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
            let (path, below) = self.inside(path, self.resolve(value));
            if below.get("properties").is_some() {
                self.section(&path, value, &below);
            } else if let Some(variants) = variants(&below) {
                self.heading(&path);
                self.text(value, &below);
                for variant in variants {
                    self.variant(&path, &self.resolve_variant(variant));
                }
            }
        }
    }

    /// Looks into lists, mappings and alternatives for the mapping that needs a section: `where` holds a list of them,
    /// `derive` one for each name.
    fn inside(&self, path: String, part: Value) -> (String, Value) {
        let speaks = |part: &Value| part.get("properties").is_some() || variants(part).is_some();
        if speaks(&part) {
            return (path, part);
        }
        if part["items"].is_object() {
            return self.inside(format!("{path}[]"), self.resolve(&part["items"]));
        }
        if part["additionalProperties"].is_object() {
            return self.inside(format!("{path}.NAME"), self.resolve(&part["additionalProperties"]));
        }
        let options = part["anyOf"].as_array().cloned().unwrap_or_default();
        let found = options.iter().map(|option| self.inside(path.clone(), self.resolve(option)));
        found.into_iter().find(|(_, part)| speaks(part)).unwrap_or((path, part))
    }

    fn section(&mut self, path: &str, value: &Value, below: &Value) {
        self.heading(path);
        self.text(value, below);
        self.depth += 1;
        self.properties(path, below);
        self.depth -= 1;
    }

    fn variant(&mut self, path: &str, variant: &Value) {
        let Some(kind) = variant["properties"]["type"]["const"].as_str() else { return };
        let _ = writeln!(self.page, "\n### `{path}: {{type: {kind}}}`\n");
        if let Some(text) = variant["description"].as_str() {
            let _ = writeln!(self.page, "{text}\n");
        }
        let mut rest = variant.clone();
        if let Some(properties) = rest["properties"].as_object_mut() {
            properties.shift_remove("type");
        }
        self.depth += 1;
        self.properties(path, &rest);
        self.depth -= 1;
    }

    fn heading(&mut self, path: &str) {
        let _ = writeln!(self.page, "\n## `{path}`\n");
    }

    fn text(&mut self, value: &Value, below: &Value) {
        if let Some(text) = value["description"].as_str().or(below["description"].as_str()) {
            let _ = writeln!(self.page, "{text}\n");
        }
    }

    fn table(&mut self, properties: &Map<String, Value>, required: &[&str]) {
        if properties.is_empty() {
            return;
        }
        let _ = writeln!(self.page, "| key | value | what it says |\n|---|---|---|");
        for (key, value) in properties {
            let below = self.resolve(value);
            let text = value["description"].as_str().or(below["description"].as_str()).unwrap_or_default();
            let needed = if required.contains(&key.as_str()) { " **Required.**" } else { "" };
            let default = match value.get("default").or(below.get("default")) {
                Some(Value::Null | Value::Object(_)) | None => String::new(),
                Some(_) if text.contains("Default:") || text.contains("default:") => String::new(),
                Some(default) => format!(" Default: `{default}`."),
            };
            let cell = format!("{}{default}{needed}", text.replace('\n', " ")).replace('|', "\\|");
            let _ = writeln!(self.page, "| `{key}` | {} | {cell} |", self.kind(value));
        }
    }

    /// What kind of value it is, in a few words.
    fn kind(&self, value: &Value) -> String {
        let value = self.resolve(value);
        if let Some(names) = names(&value) {
            return names.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(" \\| ");
        }
        if let Some(options) = value["anyOf"].as_array().or(value["oneOf"].as_array()) {
            let kinds: Vec<String> = options.iter().map(|option| self.kind(option)).collect();
            let mut distinct: Vec<String> = Vec::new();
            for kind in kinds.into_iter().filter(|kind| kind != "nothing") {
                if !distinct.contains(&kind) {
                    distinct.push(kind);
                }
            }
            return distinct.join(" or ");
        }
        let kind = match &value["type"] {
            Value::String(kind) => kind.as_str(),
            Value::Array(kinds) => kinds.iter().filter_map(Value::as_str).find(|kind| *kind != "null").unwrap_or(""),
            _ => "",
        };
        match kind {
            "string" => "text".into(),
            "integer" => "whole number".into(),
            "number" => "number".into(),
            "boolean" => "`true` \\| `false`".into(),
            "null" => "nothing".into(),
            "array" => format!("list of {}", self.kind(&value["items"])),
            "object" => match value.get("additionalProperties") {
                Some(below) if below.is_object() => format!("mapping to {}", self.kind(below)),
                _ => "mapping".into(),
            },
            _ => "anything".into(),
        }
    }

    /// Follows `$ref`, and looks through an option's `anyOf` with null.
    fn resolve(&self, value: &Value) -> Value {
        if let Some(name) = value["$ref"].as_str().and_then(|name| name.strip_prefix("#/$defs/")) {
            return self.resolve(&self.schema["$defs"][name]);
        }
        if let Some([one, null]) = value["anyOf"].as_array().map(Vec::as_slice)
            && null["type"] == "null"
        {
            return self.resolve(one);
        }
        value.clone()
    }

    /// A tagged variant: its own `type` and the keys of the struct that it refers to.
    fn resolve_variant(&self, variant: &Value) -> Value {
        let mut whole = variant.clone();
        let below = match variant["$ref"].as_str() {
            Some(_) => self.resolve(&serde_json::json!({"$ref": variant["$ref"]})),
            None => return whole,
        };
        if let (Some(mine), Some(theirs)) = (whole["properties"].as_object_mut(), below["properties"].as_object()) {
            mine.extend(theirs.iter().map(|(key, value)| (key.clone(), value.clone())));
        }
        if let Some(required) = below.get("required") {
            whole["required"] = required.clone();
        }
        whole
    }
}

/// The variants of a part that is tagged by `type`.
fn variants(part: &Value) -> Option<&Vec<Value>> {
    let options = part["oneOf"].as_array().or(part["anyOf"].as_array())?;
    options.iter().any(|option| option["properties"]["type"]["const"].is_string()).then_some(options)
}

/// The names of an enumeration.
fn names(value: &Value) -> Option<Vec<&str>> {
    if let Some(names) = value["enum"].as_array() {
        return names.iter().map(Value::as_str).collect();
    }
    if let Some(name) = value["const"].as_str() {
        return Some(vec![name]);
    }
    value["oneOf"].as_array()?.iter().map(|option| option["const"].as_str()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_key_has_a_row_and_every_tagged_part_a_section_for_each_type() {
        let page = reference(&super::super::schema());
        for part in
            ["| `seed` |", "## `dataset`", "| `splits` |", "{type: at-least}", "{type: conditional}", "| `rounds` |"]
        {
            assert!(page.contains(part), "{part} is missing in {page}");
        }
    }
}
