//! Paragraphs that fit a terminal.

use unicode_width::UnicodeWidthStr;

use super::table::harmless;

/// Text without characters that steer a terminal.
pub(crate) fn plain(text: &str) -> String {
    text.chars().map(harmless).collect()
}

/// Breaks text between words so that no line is wider than `width` where words allow; lines after the first begin with
/// `indent`. Ends in a line break.
pub(crate) fn wrap(text: &str, width: usize, indent: &str) -> String {
    let mut wrapped = String::new();
    let mut line = String::new();
    for word in text.split(' ') {
        if !line.trim().is_empty() && line.width() + 1 + word.width() > width {
            wrapped.push_str(&line);
            wrapped.push('\n');
            line = indent.to_owned();
        } else if !line.is_empty() {
            line.push(' ');
        }
        line.push_str(word);
    }
    wrapped.push_str(&line);
    wrapped.push('\n');
    wrapped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_break_between_words_and_later_ones_are_set_in() {
        assert_eq!(wrap("- one two three", 9, "  "), "- one two\n  three\n");
        assert_eq!(wrap("unbreakable", 4, ""), "unbreakable\n");
        assert_eq!(wrap("", 4, ""), "\n");
    }
}
