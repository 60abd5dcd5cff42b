//! Templates: text with placeholders.

use super::PromptError;

/// A template, read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Template(pub Vec<Part>);

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Part {
    Text(String),
    Place(Place),
}

/// A placeholder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Place {
    /// An attribute or a word slot.
    pub name: String,
    /// Whether its article stands before it.
    pub article: bool,
    /// Whether several are meant.
    pub plural: bool,
    /// Whether a sentence starts with it.
    pub capital: bool,
}

impl Template {
    /// Reads a template whose placeholders name attributes or word slots of `known`.
    pub fn read(text: &str, known: &[String]) -> Result<Self, PromptError> {
        let lone = |column| PromptError::Brace { template: text.to_owned(), column };
        let (mut parts, mut plain) = (Vec::new(), String::new());
        let mut characters = text.chars().zip(1..).peekable();
        while let Some((character, column)) = characters.next() {
            match character {
                '{' | '}' if characters.next_if(|(next, _)| *next == character).is_some() => plain.push(character),
                '}' => return Err(lone(column)),
                '{' => {
                    let mut inside = String::new();
                    loop {
                        match characters.next() {
                            Some(('}', _)) => break,
                            None | Some(('{', _)) => return Err(lone(column)),
                            Some((character, _)) => inside.push(character),
                        }
                    }
                    if !plain.is_empty() {
                        parts.push(Part::Text(std::mem::take(&mut plain)));
                    }
                    parts.push(Part::Place(place(text, column, &inside, known)?));
                }
                _ => plain.push(character),
            }
        }
        if !plain.is_empty() {
            parts.push(Part::Text(plain));
        }
        Ok(Self(parts))
    }
}

fn place(template: &str, column: usize, inside: &str, known: &[String]) -> Result<Place, PromptError> {
    let has = |name: &str| known.iter().any(|known| known == name);
    let (written, plural) = match inside.rsplit_once(':') {
        // A name may hold a colon itself.
        Some(_) if has(inside.trim()) => (inside, false),
        Some((name, form)) if form.trim() == "plural" => (name, true),
        Some((_, form)) => {
            let form = form.trim().to_owned();
            return Err(PromptError::UnknownForm { template: template.to_owned(), column, form });
        }
        None => (inside, false),
    };
    let written = written.trim();
    let found = |name: &str, article, capital| Place { name: name.to_owned(), article, plural, capital };
    if has(written) {
        return Ok(found(written, false, false));
    }
    if let Some((article, name)) = written.split_once(' ').map(|(article, name)| (article, name.trim()))
        && matches!(article, "a" | "an" | "A" | "An")
        && has(name)
    {
        return Ok(found(name, true, article.starts_with('A')));
    }
    let small = with_first(written, |first| first.to_lowercase().collect());
    if has(&small) {
        return Ok(found(&small, false, true));
    }
    let name = written.to_owned();
    Err(PromptError::UnknownName { template: template.to_owned(), column, name, known: known.to_vec() })
}

/// The text with its first character changed.
pub(super) fn with_first(text: &str, change: impl Fn(char) -> String) -> String {
    let mut characters = text.chars();
    match characters.next() {
        Some(first) => change(first) + characters.as_str(),
        None => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Template, PromptError> {
        Template::read(text, &["garment".to_owned(), "skin tone".to_owned(), "place".to_owned()])
    }

    #[test]
    fn placeholders_are_told_from_text_and_doubled_braces() {
        let Template(parts) = read("{A garment} of {{a}} {skin tone}, {an place} {Garment} {garment:plural}").unwrap();
        let place =
            |name: &str, article, plural, capital| Part::Place(Place { name: name.into(), article, plural, capital });
        let text = |text: &str| Part::Text(text.into());
        assert_eq!(
            parts,
            [
                place("garment", true, false, true),
                text(" of {a} "),
                place("skin tone", false, false, false),
                text(", "),
                place("place", true, false, false),
                text(" "),
                place("garment", false, false, true),
                text(" "),
                place("garment", false, true, false),
            ]
        );
    }

    #[test]
    fn mistakes_are_shown_with_the_column_and_the_known_names() {
        for (template, message) in [
            (
                "a {coat}",
                "prompt `a {coat}`, column 3: `coat` is neither an attribute nor a word slot; there are `garment`, `skin tone`, `place`",
            ),
            ("é {a coat}", "prompt `é {a coat}`, column 3: `a coat` is neither"),
            ("a {garment", "prompt `a {garment`, column 3: this brace has no partner; write `{{` or `}}`"),
            ("a {garment {place}", "prompt `a {garment {place}`, column 3: this brace"),
            ("a garment}", "prompt `a garment}`, column 10: this brace"),
            ("{}", "prompt `{}`, column 1: `` is neither"),
            ("{garment:many}", "prompt `{garment:many}`, column 1: `many` is not a form"),
        ] {
            let error = read(template).unwrap_err().to_string();
            assert!(error.starts_with(message), "{error}");
        }
    }
}
