//! What can be wrong with prompts.

use crate::error::list;

/// Why prompts cannot be used.
#[derive(Debug, Clone, thiserror::Error, PartialEq, Eq)]
pub enum PromptError {
    /// A placeholder names nothing that there is.
    #[error("prompt `{template}`, column {column}: `{name}` is neither an attribute nor a word slot; there are {}", list(.known))]
    UnknownName {
        /// The template.
        template: String,
        /// Where the placeholder begins, in characters from 1.
        column: usize,
        /// What it names.
        name: String,
        /// Attributes and word slots.
        known: Vec<String>,
    },
    /// A placeholder asks for a form that there is not.
    #[error("prompt `{template}`, column {column}: `{form}` is not a form; after the colon stands `plural`")]
    UnknownForm {
        /// The template.
        template: String,
        /// Where the placeholder begins, in characters from 1.
        column: usize,
        /// The form as written.
        form: String,
    },
    /// A brace stands alone.
    #[error(
        "prompt `{template}`, column {column}: this brace has no partner; write `{{{{` or `}}}}` for a brace itself"
    )]
    Brace {
        /// The template.
        template: String,
        /// Where it stands, in characters from 1.
        column: usize,
    },
    /// `phrases` or `where` name an attribute that the groups do not have.
    #[error("`{key}` names `{name}`, but groups are made of {}", list(.known))]
    UnknownAttribute {
        /// The key in the job file.
        key: String,
        /// The name as written.
        name: String,
        /// The attributes of the groups.
        known: Vec<String>,
    },
    /// `phrases` or `where` name a value that the attribute does not have.
    #[error("`{key}` names the value `{value}` of `{attribute}`, which has {}", list(.known))]
    UnknownValue {
        /// The key in the job file.
        key: String,
        /// The attribute.
        attribute: String,
        /// The value as written.
        value: String,
        /// Its values.
        known: Vec<String>,
    },
    /// A list that something is chosen from is empty, or a text in it is.
    #[error("`{key}` is empty; give at least one text, none of them blank")]
    Empty {
        /// The key in the job file.
        key: String,
    },
    /// A word slot has the name of an attribute.
    #[error("`{key}` is also an attribute; give the word slot a name of its own")]
    Ambiguous {
        /// The key in the job file.
        key: String,
    },
}
