//! A document as text for a terminal.

use super::{Block, Document, Grid, Kind, Section, Sheet, SheetCell, Tone};
use crate::terminal::{Cell, Style, Table, plain, wrap};
use crate::text::count;

pub(super) fn draw(document: &Document, width: usize, color: bool) -> String {
    let mut text = String::new();
    paragraph(&mut text, &document.headline, width);
    let mut figures = Table::new().left("").right("").left("");
    for figure in &document.figures {
        figures.row(vec![Cell::text(&*figure.label), Cell::text(&*figure.value), Cell::dim(&*figure.detail)]);
    }
    if !document.figures.is_empty() {
        text.push_str(figures.render(width, color).trim_start_matches('\n'));
        text.push('\n');
    }
    for finding in &document.findings {
        let mark = match finding.tone {
            Tone::Bad => "! ",
            _ => "- ",
        };
        text.push_str(&wrap(&format!("{mark}{}", plain(&finding.text)), width, "  "));
    }
    for section in document.sections.iter().filter(|section| !section.detail) {
        draw_section(&mut text, section, width, color);
    }
    let details: Vec<&str> = document.sections.iter().filter(|s| s.detail).map(|s| s.title.as_str()).collect();
    if !details.is_empty() {
        let more = format!("`--html FILE` writes a page that also has: {}", details.join(", "));
        text.push('\n');
        text.push_str(&wrap(&plain(&more), width, "  "));
    }
    for remark in &document.remarks {
        text.push_str(&wrap(&format!("note: {}", plain(remark)), width, "  "));
    }
    text
}

fn draw_section(text: &mut String, section: &Section, width: usize, color: bool) {
    let heading = plain(&section.title);
    text.push('\n');
    text.push_str(&if color { format!("\u{1b}[1m{heading}\u{1b}[0m\n") } else { format!("{heading}\n") });
    paragraph(text, &section.intro, width);
    for block in &section.blocks {
        match block {
            Block::Text(words) => paragraph(text, words, width),
            Block::Sheet(sheet) => draw_sheet(text, sheet, width, color),
            Block::Grid(grid) => draw_grid(text, grid, width, color),
        }
    }
}

fn draw_sheet(text: &mut String, sheet: &Sheet, width: usize, color: bool) {
    caption(text, &sheet.caption, width);
    let mut table = sheet.columns.iter().fold(Table::new(), |table, (name, kind)| match kind {
        Kind::Words => table.left(name),
        Kind::Number => table.right(name),
        Kind::Bar => table.bar(),
    });
    for row in sheet.rows.iter().take(sheet.shown) {
        table.row(row.iter().map(cell).collect());
    }
    text.push_str(&table.render(width, color));
    let more = sheet.rows.len().saturating_sub(sheet.shown);
    if more > 0 {
        text.push_str(&format!("… and {} more (--json has them all)\n", count(more as u64)));
    }
}

fn cell(cell: &SheetCell) -> Cell {
    match cell {
        SheetCell::Text(text, tone) => Cell::styled(&**text, style(*tone)),
        SheetCell::Bar { real, made, .. } => Cell::bar([(*real, Style::Real), (*made, Style::Made)]),
    }
}

fn style(tone: Tone) -> Style {
    match tone {
        Tone::Plain => Style::Plain,
        Tone::Soft => Style::Dim,
        Tone::Good => Style::Good,
        Tone::Bad => Style::Bad,
    }
}

fn draw_grid(text: &mut String, grid: &Grid, width: usize, color: bool) {
    caption(text, &grid.caption, width);
    let heading = format!("{} \\ {}", grid.row_attribute, grid.column_attribute);
    let mut table = grid.columns.iter().fold(Table::new().left(&heading), |table, column| table.right(column));
    for (name, counts) in &grid.rows {
        let cells = counts.iter().map(|images| match images {
            None => Cell::text(""),
            Some(0) => Cell::styled("0", Style::Bad),
            Some(images) => Cell::text(count(*images)),
        });
        table.row(std::iter::once(Cell::text(&**name)).chain(cells).collect());
    }
    text.push_str(&table.render(width, color));
}

fn caption(text: &mut String, caption: &str, width: usize) {
    text.push('\n');
    paragraph(text, caption, width);
}

fn paragraph(text: &mut String, words: &str, width: usize) {
    if !words.is_empty() {
        text.push_str(&wrap(&plain(words), width, ""));
    }
}
