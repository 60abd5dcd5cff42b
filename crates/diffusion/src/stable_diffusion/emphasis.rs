//! Emphasis in prompts: `(more)`, `[less]`, `(1.3 times:1.3)`, as AUTOMATIC1111's web interface reads it
//! (`prompt_parser.parse_prompt_attention`), without its `BREAK`.

/// What a pair of round brackets multiplies by, and a pair of square ones divides by.
const STEP: f64 = 1.1;
/// The most brackets that can be open at once.
const DEEPEST: usize = 64;
/// The largest magnitude of a weight.
const HEAVIEST: f64 = 100.0;

/// A part of a prompt and how much it counts.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Piece {
    pub(super) text: String,
    pub(super) weight: f64,
}

/// The parts of a prompt, neighbours with one weight together. Brackets without a partner: an open one goes on to the end,
/// a closing one is a sign like any other.
///
/// # Errors
/// What is wrong with a weight, in words.
pub(super) fn parse(prompt: &str) -> Result<Vec<Piece>, String> {
    let mut parser = Parser::default();
    let mut rest = prompt;
    while let Some(sign) = rest.chars().next() {
        let after = &rest[sign.len_utf8()..];
        rest = match sign {
            '\\' => parser.escaped(after),
            '(' | '[' => parser.open(sign, after)?,
            ')' if parser.close('(', STEP) => after,
            ']' if parser.close('[', 1.0 / STEP) => after,
            ':' => match weight(after)? {
                Some((weight, after)) if parser.close('(', weight) => after,
                _ => parser.sign(sign, after),
            },
            sign => parser.sign(sign, after),
        };
    }
    parser.finish()
}

#[derive(Default)]
struct Parser {
    pieces: Vec<Piece>,
    /// Brackets that are open, each with the number of pieces before it.
    open: Vec<(char, usize)>,
    /// Whether the next sign starts a piece.
    cut: bool,
}

impl Parser {
    fn sign<'a>(&mut self, sign: char, after: &'a str) -> &'a str {
        match self.pieces.last_mut() {
            Some(piece) if !self.cut => piece.text.push(sign),
            _ => self.pieces.push(Piece { text: sign.into(), weight: 1.0 }),
        }
        self.cut = false;
        after
    }

    /// A backslash that stands before nothing special is left out.
    fn escaped<'a>(&mut self, after: &'a str) -> &'a str {
        match after.chars().next() {
            Some(sign @ ('(' | ')' | '[' | ']' | '\\')) => self.sign(sign, &after[1..]),
            _ => after,
        }
    }

    fn open<'a>(&mut self, bracket: char, after: &'a str) -> Result<&'a str, String> {
        if self.open.len() == DEEPEST {
            return Err(format!(
                "more than {DEEPEST} brackets are open at once; write weights as (word:1.5), or turn `emphasis` off"
            ));
        }
        self.open.push((bracket, self.pieces.len()));
        self.cut = true;
        Ok(after)
    }

    /// Whether a bracket of this kind was open, which it no longer is.
    fn close(&mut self, bracket: char, factor: f64) -> bool {
        let Some(at) = self.open.iter().rposition(|(open, _)| *open == bracket) else {
            return false;
        };
        let (_, first) = self.open.remove(at);
        self.multiply(first, factor);
        self.cut = true;
        true
    }

    fn multiply(&mut self, first: usize, factor: f64) {
        self.pieces.iter_mut().skip(first).for_each(|piece| piece.weight *= factor);
    }

    fn finish(mut self) -> Result<Vec<Piece>, String> {
        for (bracket, factor) in [('(', STEP), ('[', 1.0 / STEP)] {
            let starts: Vec<usize> =
                self.open.iter().filter(|(open, _)| *open == bracket).map(|(_, first)| *first).collect();
            starts.into_iter().for_each(|first| self.multiply(first, factor));
        }
        let mut merged: Vec<Piece> = Vec::new();
        for piece in self.pieces {
            if piece.weight.is_nan() || piece.weight.abs() > HEAVIEST {
                return Err(format!(
                    "{:?} has the weight {}; weights lie between -{HEAVIEST} and {HEAVIEST}",
                    piece.text, piece.weight
                ));
            }
            match merged.last_mut() {
                Some(last) if last.weight == piece.weight => last.text.push_str(&piece.text),
                _ => merged.push(piece),
            }
        }
        Ok(merged)
    }
}

/// The number in `1.3)` and what comes behind the bracket; none where something else stands there.
fn weight(text: &str) -> Result<Option<(f64, &str)>, String> {
    let start = text.trim_start();
    let unsigned = start.strip_prefix(['+', '-']).unwrap_or(start);
    let end = unsigned.find(|c: char| !(c.is_ascii_digit() || c == '.')).unwrap_or(unsigned.len());
    let Some(after) = unsigned[end..].trim_start().strip_prefix(')').filter(|_| end > 0) else {
        return Ok(None);
    };
    let number = &start[..start.len() - unsigned.len() + end];
    match number.parse() {
        Ok(number) => Ok(Some((number, after))),
        Err(_) => Err(format!("the weight `{number}` is no number; write (word:1.2)")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parts(prompt: &str) -> Vec<(String, f64)> {
        let pieces = parse(prompt).unwrap();
        pieces.into_iter().map(|piece| (piece.text, (piece.weight * 1e4).round() / 1e4)).collect()
    }

    fn are(prompt: &str, expected: &[(&str, f64)]) {
        let expected: Vec<_> = expected.iter().map(|(text, weight)| ((*text).to_owned(), *weight)).collect();
        assert_eq!(parts(prompt), expected, "{prompt}");
    }

    #[test]
    fn brackets_raise_and_lower_what_they_hold() {
        are("", &[]);
        are("a coat", &[("a coat", 1.0)]);
        are("a (red) coat", &[("a ", 1.0), ("red", 1.1), (" coat", 1.0)]);
        are("((red))", &[("red", 1.21)]);
        are("[red] [[blue]]", &[("red", 0.9091), (" ", 1.0), ("blue", 0.8264)]);
        are("(red:1.5)", &[("red", 1.5)]);
        are("(red: -0.5 ) x", &[("red", -0.5), (" x", 1.0)]);
        are("((a:2) b:3)", &[("a", 6.0), (" b", 3.0)]);
        are("(a [b] c)", &[("a ", 1.1), ("b", 1.0), (" c", 1.1)]);
    }

    #[test]
    fn signs_that_mean_nothing_stay_and_escaped_ones_too() {
        are(r"a \(red\) \[coat\] \\", &[(r"a (red) [coat] \", 1.0)]);
        are(r"a\b\", &[("ab", 1.0)]);
        are("16:9 a) b] c:1.2)", &[("16:9 a) b] c:1.2)", 1.0)]);
        are("(x:y) (:)", &[("x:y", 1.1), (" ", 1.0), (":", 1.1)]);
        are("[red:1.5]", &[("red:1.5", 0.9091)]);
        are("(red: )", &[("red: ", 1.1)]);
        are("()[]", &[]);
        are("日本 (語:1.2)", &[("日本 ", 1.0), ("語", 1.2)]);
    }

    #[test]
    fn an_open_bracket_goes_on_to_the_end() {
        are("a (b c", &[("a ", 1.0), ("b c", 1.1)]);
        are("a (b [c", &[("a ", 1.0), ("b ", 1.1), ("c", 1.0)]);
        are("(a [b) c]", &[("a ", 1.1), ("b", 1.0), (" c", 0.9091)]);
    }

    #[test]
    fn neighbours_with_one_weight_are_read_together() {
        are("(a)(b)c", &[("ab", 1.1), ("c", 1.0)]);
        are("a(b:1)c", &[("abc", 1.0)]);
    }

    #[test]
    fn absurd_weights_and_depths_are_errors_in_words() {
        for (prompt, expected) in [
            ("(a:1.2.3)".to_owned(), "1.2.3"),
            ("(a:1000)".to_owned(), "1000"),
            (format!("(a:{})", "9".repeat(400)), "weight"),
            ("(".repeat(65), "64"),
        ] {
            let error = parse(&prompt).unwrap_err();
            assert!(error.contains(expected), "{error}");
        }
    }
}
