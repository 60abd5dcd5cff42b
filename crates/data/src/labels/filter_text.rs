//! A filter as the command line writes it: `age >= 18`, `colour not in black, navy`, `income is missing`.

use super::filter::{Filter, FilterError};
use super::scalar::{Scalar, Scalars, number};

/// The comparisons.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Operator {
    Equal,
    NotEqual,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
    In,
    NotIn,
    Missing,
    NotMissing,
}

/// Signs, the longer ones first.
const SIGNS: [(&str, Operator); 7] = [
    ("==", Operator::Equal),
    ("!=", Operator::NotEqual),
    ("<=", Operator::LessOrEqual),
    (">=", Operator::GreaterOrEqual),
    ("=", Operator::Equal),
    ("<", Operator::Less),
    (">", Operator::Greater),
];
/// Words, the longer ones first.
const WORDS: [(&[&str], Operator); 4] = [
    (&["is", "not", "missing"], Operator::NotMissing),
    (&["is", "missing"], Operator::Missing),
    (&["not", "in"], Operator::NotIn),
    (&["in"], Operator::In),
];

impl Filter {
    /// Reads one comparison: `= == != < <= > >=`, `in a, b`, `not in a, b`, `is missing`, `is not missing`.
    ///
    /// Columns and values may stand in `'` or `"`, and must where they hold a sign or one of these words.
    ///
    /// # Errors
    /// [`FilterError::Syntax`] with the place and what was expected there.
    pub fn parse(text: &str) -> Result<Self, FilterError> {
        let mut reader = Reader { text, at: 0 };
        let column = reader.column()?;
        let operator = reader.operator()?;
        let mut filter = Self { column, ..Self::default() };
        match operator {
            Operator::Missing => filter.missing = Some(true),
            Operator::NotMissing => filter.missing = Some(false),
            Operator::Equal => filter.is_in = Some(Scalars(vec![reader.value(false)?])),
            Operator::NotEqual => filter.not = Some(Scalars(vec![reader.value(false)?])),
            Operator::In => filter.is_in = Some(reader.list()?),
            Operator::NotIn => filter.not = Some(reader.list()?),
            Operator::Greater => filter.above = Some(reader.number()?),
            Operator::GreaterOrEqual => filter.min = Some(reader.number()?),
            Operator::Less => filter.below = Some(reader.number()?),
            Operator::LessOrEqual => filter.max = Some(reader.number()?),
        }
        reader.end()?;
        Ok(filter)
    }
}

struct Reader<'a> {
    text: &'a str,
    at: usize,
}

impl<'a> Reader<'a> {
    fn left(&self) -> &'a str {
        self.text.get(self.at..).unwrap_or_default()
    }

    fn skip_spaces(&mut self) {
        self.at += self.left().len() - self.left().trim_start().len();
    }

    fn expected<T>(&self, at: usize, expected: impl Into<String>) -> Result<T, FilterError> {
        Err(FilterError::Syntax { text: self.text.to_owned(), at, expected: expected.into() })
    }

    /// What stands in quotes here, if anything does.
    fn quoted(&mut self) -> Result<Option<String>, FilterError> {
        let Some(quote @ ('\'' | '"')) = self.left().chars().next() else { return Ok(None) };
        match self.left()[1..].find(quote) {
            Some(length) => {
                let inside = &self.left()[1..=length];
                self.at += length + 2;
                Ok(Some(inside.to_owned()))
            }
            None => self.expected(self.text.len(), format!("a closing {quote}")),
        }
    }

    /// The name before the first sign or word of comparison.
    fn column(&mut self) -> Result<String, FilterError> {
        self.skip_spaces();
        if let Some(column) = self.quoted()? {
            return Ok(column);
        }
        let begin = self.at;
        let found = self.left().char_indices().find(|&(at, _)| operator_at(self.text, begin + at).is_some());
        let name = found.map_or(self.left(), |(at, _)| &self.left()[..at]).trim();
        if name.is_empty() {
            return self.expected(begin, "the name of a column");
        }
        self.at = begin + found.map_or(self.left().trim_end().len(), |(at, _)| at);
        Ok(name.to_owned())
    }

    fn operator(&mut self) -> Result<Operator, FilterError> {
        self.skip_spaces();
        match operator_at(self.text, self.at) {
            Some((operator, end)) => {
                self.at = end;
                Ok(operator)
            }
            None => {
                self.expected(self.at, "a comparison: =, !=, <, <=, >, >=, in, not in, is missing or is not missing")
            }
        }
    }

    /// A value up to the end, or up to a comma where it is one of several.
    fn value(&mut self, in_list: bool) -> Result<Scalar, FilterError> {
        self.skip_spaces();
        if let Some(value) = self.quoted()? {
            return Ok(Scalar(value));
        }
        let end = self.left().find(',').filter(|_| in_list).unwrap_or(self.left().len());
        let value = self.left()[..end].trim_end();
        if value.is_empty() {
            return self.expected(self.at, "a value");
        }
        if let Some(place) = value.find(['=', '<', '>', '!', '\'', '"', ',']) {
            return self.expected(self.at + place, "the end; put a value that holds such a sign in quotes");
        }
        self.at += value.len();
        Ok(Scalar(value.to_owned()))
    }

    fn list(&mut self) -> Result<Scalars, FilterError> {
        let mut values = vec![self.value(true)?];
        self.skip_spaces();
        while self.left().starts_with(',') {
            self.at += 1;
            values.push(self.value(true)?);
            self.skip_spaces();
        }
        Ok(Scalars(values))
    }

    fn number(&mut self) -> Result<f64, FilterError> {
        self.skip_spaces();
        let begin = self.at;
        let value = self.value(false)?;
        match number(value.as_str()) {
            Some(number) => Ok(number),
            None => self.expected(begin, "a number"),
        }
    }

    fn end(&mut self) -> Result<(), FilterError> {
        self.skip_spaces();
        if self.left().is_empty() { Ok(()) } else { self.expected(self.at, "the end of the condition") }
    }
}

/// The comparison that begins here, and where it ends. Words stand between spaces or quotes.
fn operator_at(text: &str, at: usize) -> Option<(Operator, usize)> {
    let left = text.get(at..)?;
    if let Some((sign, operator)) = SIGNS.iter().find(|(sign, _)| left.starts_with(sign)) {
        return Some((*operator, at + sign.len()));
    }
    let boundary = |letter: Option<char>| letter.is_none_or(|letter| letter.is_whitespace() || "'\"".contains(letter));
    if at == 0 || !boundary(text[..at].chars().next_back()) {
        return None;
    }
    WORDS.iter().find_map(|(words, operator)| {
        let mut end = at;
        for (place, word) in words.iter().enumerate() {
            let spaces = text[end..].len() - text[end..].trim_start().len();
            end += if place > 0 { spaces } else { 0 };
            let found = text.get(end..end + word.len())?;
            if !found.eq_ignore_ascii_case(word) || !boundary(text[end + word.len()..].chars().next()) {
                return None;
            }
            end += word.len();
        }
        Some((*operator, end))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &str) -> String {
        serde_json::to_string(&Filter::parse(text).unwrap()).unwrap()
    }

    fn error(text: &str) -> String {
        Filter::parse(text).unwrap_err().to_string()
    }

    #[test]
    fn every_comparison_is_read() {
        assert_eq!(parsed("age >= 18"), r#"{"column":"age","min":18.0}"#);
        assert_eq!(parsed("age>1.5"), r#"{"column":"age","above":1.5}"#);
        assert_eq!(parsed("age<-3"), r#"{"column":"age","below":-3.0}"#);
        assert_eq!(parsed(" age <= 1e3 "), r#"{"column":"age","max":1000.0}"#);
        assert_eq!(parsed("colour = light blue"), r#"{"column":"colour","in":["light blue"]}"#);
        assert_eq!(parsed("colour==black"), r#"{"column":"colour","in":["black"]}"#);
        assert_eq!(parsed("colour != black"), r#"{"column":"colour","not":["black"]}"#);
        assert_eq!(
            parsed("colour in black, 'navy, dark' ,red"),
            r#"{"column":"colour","in":["black","navy, dark","red"]}"#
        );
        assert_eq!(parsed("colour NOT  IN black"), r#"{"column":"colour","not":["black"]}"#);
        assert_eq!(parsed("colour is missing"), r#"{"column":"colour","missing":true}"#);
        assert_eq!(parsed("colour is not missing"), r#"{"column":"colour","missing":false}"#);
    }

    #[test]
    fn names_may_have_spaces_and_quotes_keep_signs_and_words() {
        assert_eq!(parsed("skin tone = dark"), r#"{"column":"skin tone","in":["dark"]}"#);
        assert_eq!(parsed("'is in'in a"), r#"{"column":"is in","in":["a"]}"#);
        assert_eq!(parsed("\"a<b\" = '='"), r#"{"column":"a<b","in":["="]}"#);
        assert_eq!(parsed("inside = ''"), r#"{"column":"inside","in":[""]}"#);
        assert_eq!(parsed("größe >= 1"), r#"{"column":"größe","min":1.0}"#);
    }

    #[test]
    fn an_error_shows_the_place_and_what_was_expected_there() {
        assert_eq!(error("age >= old"), "expected a number\n  age >= old\n         ^");
        assert_eq!(error(" >= 1"), "expected the name of a column\n   >= 1\n   ^");
        assert!(error("age 18").starts_with("expected a comparison: =,"), "{}", error("age 18"));
        assert!(error("age 18").ends_with("\n  age 18\n        ^"), "{}", error("age 18"));
        assert_eq!(error("größe = 'x"), "expected a closing '\n  größe = 'x\n            ^");
        assert_eq!(error("a ="), "expected a value\n  a =\n     ^");
        assert_eq!(error("a in x,,y"), "expected a value\n  a in x,,y\n         ^");
        assert!(error("a = b = c").starts_with("expected the end; put"), "{}", error("a = b = c"));
        assert!(error("a is missing too").starts_with("expected the end of the condition"));
        for text in ["", "  ", "'", "a in", "is missing", "=", "a is not", "a is\u{a0}missing x"] {
            assert!(Filter::parse(text).is_err(), "{text}");
        }
    }
}
