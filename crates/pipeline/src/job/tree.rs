//! YAML as a tree in which every node knows its file, line and column.
//!
//! Jobs are read in two steps so that an error can always name the place: text to this tree (where `include` and
//! `--set` are applied), then the tree to typed values. Serde alone would lose the lines at the first `include`.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use saphyr::{LoadableYamlNode, MarkedYaml, Scalar, YamlData};

use super::JobError;

/// A job file larger than this is not a job file.
const MAX_BYTES: u64 = 1 << 20;
/// Includes inside includes go no deeper than this.
const MAX_DEPTH: usize = 8;

/// Where a node was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Position {
    /// The file as the user named it, or the `--set` flag.
    pub file: Arc<str>,
    /// From 1; 0 where the file has no lines (a flag).
    pub line: usize,
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.line == 0 { f.write_str(&self.file) } else { write!(f, "{}:{}", self.file, self.line) }
    }
}

/// A YAML node and its position.
#[derive(Clone, Debug)]
pub struct Node {
    /// What is written.
    pub value: Value,
    /// Where.
    pub at: Position,
}

/// What is written in a node.
#[derive(Clone, Debug)]
pub enum Value {
    /// Null, a boolean, a number or a string.
    Scalar(serde_json::Value),
    /// A sequence.
    List(Vec<Node>),
    /// A mapping in the order written: key, the key's position, value.
    Map(Vec<(String, Position, Node)>),
}

impl Node {
    /// An empty mapping that no file holds.
    pub fn empty() -> Self {
        Self::empty_at(Position { file: "--set".into(), line: 0 })
    }

    fn empty_at(at: Position) -> Self {
        Self { value: Value::Map(Vec::new()), at }
    }

    /// Reads a YAML file and everything that it includes.
    pub fn read(path: &Path) -> Result<Self, JobError> {
        read_at_depth(path, 0)
    }

    /// Applies one `--set path.to.key=value`; the value is YAML.
    pub fn set(&mut self, assignment: &str) -> Result<(), JobError> {
        let bad = |why: &str| JobError::Set { assignment: assignment.to_owned(), why: why.to_owned() };
        let (path, text) = assignment.split_once('=').ok_or_else(|| bad("expected `path.to.key=value`"))?;
        let at = Position { file: format!("--set {assignment}").into(), line: 0 };
        let value = if text.trim().is_empty() {
            Self { value: Value::Scalar(serde_json::Value::Null), at: at.clone() }
        } else {
            let mut value = parse(text, &at.file)?;
            value.place(&at);
            value
        };
        let mut node = self;
        for key in path.trim().split('.') {
            if key.is_empty() {
                return Err(bad("a key between the dots is empty"));
            }
            node = match &mut node.value {
                Value::List(items) => {
                    let n = items.len();
                    let index: usize = key.parse().map_err(|_| bad(&format!("`{key}` is not an index of a list")))?;
                    items
                        .get_mut(index)
                        .ok_or_else(|| bad(&format!("the list has {n} items, none numbered {index}")))?
                }
                value => {
                    if !matches!(value, Value::Map(_)) {
                        *value = Value::Map(Vec::new());
                    }
                    let Value::Map(entries) = value else { return Err(bad("not a mapping")) };
                    let index = entries.iter().position(|(k, ..)| k == key).unwrap_or_else(|| {
                        entries.push((key.to_owned(), at.clone(), Self::empty_at(at.clone())));
                        entries.len() - 1
                    });
                    &mut entries[index].2
                }
            };
        }
        *node = value;
        Ok(())
    }

    /// The child named `key` (or numbered, in a list).
    pub fn child(&self, key: &str) -> Option<&Self> {
        match &self.value {
            Value::Map(entries) => entries.iter().find(|(k, ..)| k == key).map(|(.., node)| node),
            Value::List(items) => items.get(key.parse::<usize>().ok()?),
            Value::Scalar(_) => None,
        }
    }

    /// The tree without positions.
    pub fn to_json(&self) -> serde_json::Value {
        match &self.value {
            Value::Scalar(scalar) => scalar.clone(),
            Value::List(items) => items.iter().map(Self::to_json).collect(),
            Value::Map(entries) => {
                serde_json::Value::Object(entries.iter().map(|(k, _, v)| (k.clone(), v.to_json())).collect())
            }
        }
    }

    /// The first key `wanted` at or below this node: its path from here and its position.
    pub fn find_key(&self, wanted: &str) -> Option<(Vec<String>, Position)> {
        self.find(&mut |key, _| key == Some(wanted))
    }

    /// The only scalar below this node that satisfies `is`: its path from here and its position. None where several do.
    pub fn find_scalar(&self, is: &dyn Fn(&serde_json::Value) -> bool) -> Option<(Vec<String>, Position)> {
        let hit = |node: &Self| matches!(&node.value, Value::Scalar(s) if is(s));
        let mut hits = 0;
        self.find(&mut |_, node| {
            hits += usize::from(hit(node));
            false
        });
        if hits == 1 { self.find(&mut |_, node| hit(node)) } else { None }
    }

    fn find(&self, hit: &mut dyn FnMut(Option<&str>, &Self) -> bool) -> Option<(Vec<String>, Position)> {
        let mut descend = |key: String, at: &Position, named: bool, child: &Self| {
            if hit(named.then_some(key.as_str()), child) {
                return Some((vec![key], at.clone()));
            }
            child.find(hit).map(|(mut path, at)| {
                path.insert(0, key);
                (path, at)
            })
        };
        match &self.value {
            Value::Scalar(_) => None,
            Value::List(items) => {
                items.iter().enumerate().find_map(|(i, child)| descend(i.to_string(), &child.at, false, child))
            }
            Value::Map(entries) => entries.iter().find_map(|(k, at, child)| descend(k.clone(), at, true, child)),
        }
    }

    /// Gives every node below the same position.
    fn place(&mut self, at: &Position) {
        self.at = at.clone();
        match &mut self.value {
            Value::Scalar(_) => {}
            Value::List(items) => items.iter_mut().for_each(|item| item.place(at)),
            Value::Map(entries) => entries.iter_mut().for_each(|(_, key_at, node)| {
                *key_at = at.clone();
                node.place(at);
            }),
        }
    }

    /// Lays `over` on top: mappings are merged key by key, anything else is replaced.
    fn overlay(&mut self, over: Self) {
        if let (Value::Map(under), Value::Map(entries)) = (&mut self.value, &over.value) {
            // A part of another `type` replaces the included one: its keys would not fit.
            let kind = |entries: &[(String, Position, Self)]| {
                entries.iter().find(|(k, ..)| k == "type").map(|(.., v)| v.to_json())
            };
            let same_type = kind(entries).is_none_or(|kind_over| kind(under).is_none_or(|k| k == kind_over));
            if same_type {
                self.at = over.at.clone();
                for (key, at, node) in entries.clone() {
                    match under.iter_mut().find(|(k, ..)| *k == key) {
                        Some((_, key_at, existing)) => {
                            *key_at = at;
                            existing.overlay(node);
                        }
                        None => under.push((key, at, node)),
                    }
                }
                return;
            }
        }
        *self = over;
    }

    /// Replaces `include: FILE` or `include: [FILE, ...]` in this mapping and below by the files' contents.
    fn resolve_includes(&mut self, folder: &Path, depth: usize) -> Result<(), JobError> {
        match &mut self.value {
            Value::Scalar(_) => return Ok(()),
            Value::List(items) => return items.iter_mut().try_for_each(|item| item.resolve_includes(folder, depth)),
            Value::Map(entries) => {
                entries.iter_mut().try_for_each(|(_, _, node)| node.resolve_includes(folder, depth))?;
                let Some(index) = entries.iter().position(|(k, ..)| k == "include") else { return Ok(()) };
                let (_, at, included) = entries.remove(index);
                let mut base: Option<Self> = None;
                for file in included_files(&included, &at)? {
                    let piece = read_included(&folder.join(&file), &at, depth)?;
                    match &mut base {
                        Some(base) => base.overlay(piece),
                        None => base = Some(piece),
                    }
                }
                let Some(mut base) = base else { return Ok(()) };
                base.overlay(Self { value: Value::Map(std::mem::take(entries)), at: self.at.clone() });
                *self = base;
            }
        }
        Ok(())
    }
}

fn included_files(node: &Node, at: &Position) -> Result<Vec<PathBuf>, JobError> {
    let wrong = || JobError::Invalid {
        at: at.clone(),
        path: "include".into(),
        message: "expected a file name or a list of file names, relative to this file".into(),
    };
    let name = |node: &Node| match &node.value {
        Value::Scalar(serde_json::Value::String(name)) => Ok(PathBuf::from(name)),
        _ => Err(wrong()),
    };
    match &node.value {
        Value::List(items) => items.iter().map(name).collect(),
        _ => Ok(vec![name(node)?]),
    }
}

fn read_included(path: &Path, at: &Position, depth: usize) -> Result<Node, JobError> {
    let invalid = |message| JobError::Invalid { at: at.clone(), path: "include".into(), message };
    if depth >= MAX_DEPTH {
        return Err(invalid(format!("includes go deeper than {MAX_DEPTH} files; does a file include itself?")));
    }
    if !path.is_file() {
        return Err(invalid(format!(
            "`{}` does not exist; includes are relative to the including file",
            path.display()
        )));
    }
    read_at_depth(path, depth + 1)
}

fn read_at_depth(path: &Path, depth: usize) -> Result<Node, JobError> {
    let io = |source| JobError::Read { path: path.to_owned(), source };
    let length = std::fs::metadata(path).map_err(io)?.len();
    if length > MAX_BYTES {
        return Err(JobError::TooLarge { path: path.to_owned(), bytes: length, most: MAX_BYTES });
    }
    let text = std::fs::read_to_string(path).map_err(io)?;
    let mut node = parse(&text, &path.display().to_string().into())?;
    if !matches!(node.value, Value::Map(_)) {
        let message = "expected keys and values, such as `dataset: {path: ...}`".into();
        return Err(JobError::Invalid { at: node.at, path: "(the whole file)".into(), message });
    }
    let folder = path.parent().unwrap_or(Path::new("")).to_owned();
    node.resolve_includes(&folder, depth)?;
    Ok(node)
}

fn parse(text: &str, file: &Arc<str>) -> Result<Node, JobError> {
    let documents = MarkedYaml::load_from_str(text).map_err(|error| JobError::Yaml {
        at: Position { file: file.clone(), line: error.marker().line() },
        message: error.info().to_owned(),
    })?;
    match documents.as_slice() {
        [document] => convert(document, file),
        [] => Ok(Node::empty_at(Position { file: file.clone(), line: 1 })),
        [_, second, ..] => Err(JobError::Yaml {
            at: Position { file: file.clone(), line: second.span.start.line() },
            message: "a job is one YAML document; remove the `---` and what follows".into(),
        }),
    }
}

fn convert(yaml: &MarkedYaml<'_>, file: &Arc<str>) -> Result<Node, JobError> {
    let at = Position { file: file.clone(), line: yaml.span.start.line() };
    let unsupported =
        |what: &str| JobError::Yaml { at: at.clone(), message: format!("{what} cannot be used in a job") };
    let value = match &yaml.data {
        YamlData::Value(scalar) => Value::Scalar(match scalar {
            Scalar::Null => serde_json::Value::Null,
            Scalar::Boolean(b) => (*b).into(),
            Scalar::Integer(i) => (*i).into(),
            Scalar::FloatingPoint(f) => {
                serde_json::Number::from_f64(f.into_inner()).ok_or_else(|| unsupported("`.nan` or `.inf`"))?.into()
            }
            Scalar::String(s) => s.as_ref().into(),
        }),
        YamlData::Sequence(items) => {
            Value::List(items.iter().map(|item| convert(item, file)).collect::<Result<_, _>>()?)
        }
        YamlData::Mapping(entries) => {
            let mut map: Vec<(String, Position, Node)> = Vec::with_capacity(entries.len());
            for (key, value) in entries {
                let key_at = Position { file: file.clone(), line: key.span.start.line() };
                let key = match convert(key, file)?.value {
                    Value::Scalar(serde_json::Value::String(key)) => key,
                    // YAML reads `yes:` or `2020:` as no string; as a key it is one.
                    Value::Scalar(other) => other.to_string(),
                    _ => return Err(unsupported("a list or a mapping as a key")),
                };
                map.push((key, key_at, convert(value, file)?));
            }
            Value::Map(map)
        }
        YamlData::Tagged(..) => return Err(unsupported("a `!tag`")),
        YamlData::Alias(_) | YamlData::BadValue | YamlData::Representation(..) => {
            return Err(unsupported("this value"));
        }
    };
    Ok(Node { value, at })
}
