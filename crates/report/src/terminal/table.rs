//! A table that fits itself into a terminal: text shrinks, numbers never do, bars take what is left.

use unicode_width::{UnicodeWidthChar, UnicodeWidthStr};

const GAP: usize = 2;
const NARROWEST_TEXT: usize = 6;
const NARROWEST_BAR: usize = 6;
const WIDEST_BAR: usize = 40;

/// How a cell or a part of a bar is shown.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Style {
    /// As it is.
    #[default]
    Plain,
    /// Less important.
    Dim,
    /// A heading.
    Bold,
    /// Real images: blue, `█`.
    Real,
    /// Generated images: orange, `▒`.
    Made,
    /// Reached, better: green.
    Good,
    /// Missing, worse: red.
    Bad,
}

impl Style {
    fn code(self) -> Option<&'static str> {
        match self {
            Self::Plain => None,
            Self::Dim => Some("2"),
            Self::Bold => Some("1"),
            Self::Real => Some("34"),
            Self::Made => Some("33"),
            Self::Good => Some("32"),
            Self::Bad => Some("31"),
        }
    }

    fn glyph(self) -> char {
        if self == Self::Made { '▒' } else { '█' }
    }
}

/// How a column behaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Column {
    /// Text, set left, cut with `…` where the table is too wide.
    Left,
    /// Numbers, set right, never cut.
    Right,
    /// A picture of a number; takes the width that is left, and goes where there is none.
    Bar,
}

/// One cell.
#[derive(Clone, Debug, PartialEq)]
pub struct Cell(Content);

#[derive(Clone, Debug, PartialEq)]
enum Content {
    Text(String, Style),
    Bar(Vec<(f64, Style)>),
    Whisker([f64; 3], Style),
}

impl Cell {
    /// Plain text.
    pub fn text(text: impl Into<String>) -> Self {
        Self::styled(text, Style::Plain)
    }

    /// Less important text.
    pub fn dim(text: impl Into<String>) -> Self {
        Self::styled(text, Style::Dim)
    }

    /// Text in a style. Characters that steer a terminal are shown as `�`.
    pub fn styled(text: impl Into<String>, style: Style) -> Self {
        Self(Content::Text(text.into().chars().map(harmless).collect(), style))
    }

    /// A bar of parts one after the other; each is a share of the column's width, 0 to 1.
    pub fn bar(parts: impl IntoIterator<Item = (f64, Style)>) -> Self {
        Self(Content::Bar(parts.into_iter().collect()))
    }

    /// A dot on its interval, all three from 0 to 1; the dot has the style.
    pub fn whisker(low: f64, point: f64, high: f64, style: Style) -> Self {
        Self(Content::Whisker([low, point, high], style))
    }
}

/// Rows under headings.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Table {
    columns: Vec<(String, Column)>,
    rows: Vec<Vec<Cell>>,
}

impl Table {
    /// A table without columns.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a column of text.
    pub fn left(self, heading: &str) -> Self {
        self.column(heading, Column::Left)
    }

    /// Adds a column of numbers.
    pub fn right(self, heading: &str) -> Self {
        self.column(heading, Column::Right)
    }

    /// Adds a column of bars, without a heading.
    pub fn bar(self) -> Self {
        self.column("", Column::Bar)
    }

    fn column(mut self, heading: &str, column: Column) -> Self {
        self.columns.push((heading.chars().map(harmless).collect(), column));
        self
    }

    /// Adds a row; cells beyond the columns are left out, missing ones are empty.
    pub fn row(&mut self, cells: Vec<Cell>) {
        self.rows.push(cells);
    }

    /// The table as text of at most `width` columns where text can be cut so far. No line has spaces at its end.
    pub fn render(&self, width: usize, color: bool) -> String {
        let widths = self.widths(width);
        let headings: Vec<Cell> =
            self.columns.iter().map(|(heading, _)| Cell::styled(heading.as_str(), Style::Bold)).collect();
        let mut text = String::new();
        for row in std::iter::once(&headings).chain(&self.rows) {
            self.line(row, &widths, color, &mut text);
        }
        text
    }

    fn line(&self, row: &[Cell], widths: &[usize], color: bool, text: &mut String) {
        // Spaces are owed until something follows them, so that none stand at the end of a line.
        let mut owed = 0;
        for ((cell, (_, column)), &width) in row.iter().zip(&self.columns).zip(widths).filter(|(_, width)| **width > 0)
        {
            let pieces = cell.pieces(width);
            let used: usize = pieces.iter().map(|(piece, _)| piece.width()).sum();
            let space = width.saturating_sub(used);
            let (before, after) = if *column == Column::Right { (space, 0) } else { (0, space) };
            owed += before;
            for (piece, style) in pieces.iter().filter(|(piece, _)| !piece.is_empty()) {
                text.extend(std::iter::repeat_n(' ', std::mem::take(&mut owed)));
                match style.code().filter(|_| color) {
                    Some(code) => text.push_str(&format!("\u{1b}[{code}m{piece}\u{1b}[0m")),
                    None => text.push_str(piece),
                }
            }
            owed += after + GAP;
        }
        text.push('\n');
    }

    /// The width of each column; 0 leaves the column out.
    fn widths(&self, width: usize) -> Vec<usize> {
        let mut widths: Vec<usize> = (0..self.columns.len()).map(|i| self.natural_width(i)).collect();
        let bars = self.columns.iter().filter(|(_, column)| *column == Column::Bar).count();
        let gaps = GAP * self.columns.len().saturating_sub(1);
        let room = width.saturating_sub(gaps);
        // The widest text gives way first, one column at a time, while the table and its narrowest bars do not fit.
        while widths.iter().sum::<usize>() + bars * NARROWEST_BAR > room {
            let widest = (0..widths.len())
                .filter(|&i| self.columns[i].1 == Column::Left && widths[i] > NARROWEST_TEXT)
                .max_by_key(|&i| widths[i]);
            match widest {
                Some(i) => widths[i] -= 1,
                None => break,
            }
        }
        let left = room.saturating_sub(widths.iter().sum());
        let bar = left.checked_div(bars).filter(|&bar| bar >= NARROWEST_BAR).map_or(0, |bar| bar.min(WIDEST_BAR));
        for (column_width, (_, column)) in widths.iter_mut().zip(&self.columns) {
            if *column == Column::Bar {
                *column_width = bar;
            }
        }
        widths
    }

    fn natural_width(&self, column: usize) -> usize {
        let heading = self.columns[column].0.width();
        let cells = self.rows.iter().filter_map(|row| match &row.get(column)?.0 {
            Content::Text(text, _) => Some(text.width()),
            Content::Bar(_) | Content::Whisker(..) => None,
        });
        cells.fold(heading, usize::max)
    }
}

impl Cell {
    /// What stands in the cell when it is `width` wide, in pieces of one style.
    fn pieces(&self, width: usize) -> Vec<(String, Style)> {
        match &self.0 {
            Content::Text(text, style) => vec![(cut(text, width), *style)],
            Content::Bar(parts) => bar(parts, width),
            Content::Whisker(ends, style) => whisker(*ends, *style, width),
        }
    }
}

/// Parts end at the rounded place of their sum, so that a bar of parts is as long as a bar of the whole.
fn bar(parts: &[(f64, Style)], width: usize) -> Vec<(String, Style)> {
    let mut sum = 0.0;
    let mut drawn = 0;
    parts
        .iter()
        .map(|&(share, style)| {
            sum += share.max(0.0);
            let mut end = place(sum, width);
            if share > 0.0 && end == drawn && drawn < width {
                // What is there is seen, however little it is.
                end += 1;
            }
            let length = end.saturating_sub(drawn);
            drawn = drawn.max(end);
            (std::iter::repeat_n(style.glyph(), length).collect(), style)
        })
        .collect()
}

fn whisker([low, point, high]: [f64; 3], style: Style, width: usize) -> Vec<(String, Style)> {
    let last = width.saturating_sub(1);
    let (low, point, high) = (place(low, last), place(point, last), place(high, last));
    let piece = |glyph: char, length: usize| std::iter::repeat_n(glyph, length).collect::<String>();
    vec![
        (piece('·', low.min(point)), Style::Dim),
        (piece('─', point.saturating_sub(low)), Style::Plain),
        ("●".to_owned(), style),
        (piece('─', high.saturating_sub(point)), Style::Plain),
        (piece('·', last.saturating_sub(high.max(point))), Style::Dim),
    ]
}

/// Where a share of 0 to 1 ends on a scale of `width` places; what is not a number is at 0.
fn place(share: f64, width: usize) -> usize {
    (share.clamp(0.0, 1.0) * width as f64).round() as usize
}

fn cut(text: &str, width: usize) -> String {
    if text.width() <= width {
        return text.to_owned();
    }
    let mut kept = String::new();
    for c in text.chars() {
        kept.push(c);
        if kept.width() >= width {
            kept.pop();
            break;
        }
    }
    kept.push('…');
    kept
}

/// Control characters, and the marks that turn the direction of text around, could garble the whole terminal.
pub(super) fn harmless(c: char) -> char {
    let turns = matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{061c}');
    // Zero-width parts of emoji and combining marks stay; everything else without a width is a control character.
    if turns || c.width().is_none() { '\u{fffd}' } else { c }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_set_right_and_text_is_cut_to_fit() {
        let mut table = Table::new().left("name").right("n");
        table.row(vec![Cell::text("a very long name indeed"), Cell::text("1,000")]);
        table.row(vec![Cell::text("b"), Cell::text("7")]);
        assert_eq!(table.render(20, false), "name               n\na very long …  1,000\nb                  7\n");
    }

    #[test]
    fn bars_go_where_there_is_no_room_and_small_parts_are_still_seen() {
        let mut table = Table::new().right("n").bar();
        table.row(vec![Cell::text("1"), Cell::bar([(0.001, Style::Real), (0.999, Style::Made)])]);
        assert_eq!(table.render(8, false), "n\n1\n");
        assert_eq!(table.render(13, false), "n\n1  █▒▒▒▒▒▒▒▒▒\n");
    }

    #[test]
    fn what_is_not_a_number_draws_nothing() {
        let mut table = Table::new().bar();
        table.row(vec![Cell::bar([(f64::NAN, Style::Real)])]);
        table.row(vec![Cell::bar([(f64::INFINITY, Style::Real)])]);
        assert_eq!(table.render(8, false), "\n\n████████\n");
    }

    #[test]
    fn rows_may_be_shorter_or_longer_than_the_headings() {
        let mut table = Table::new().left("a").left("b");
        table.row(vec![Cell::text("x")]);
        table.row(vec![Cell::text("x"), Cell::text("y"), Cell::text("z")]);
        assert_eq!(table.render(80, false), "a  b\nx\nx  y\n");
    }
}
