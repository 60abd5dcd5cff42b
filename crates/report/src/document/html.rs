//! A document as one HTML page.

use minijinja::syntax::SyntaxConfig;
use minijinja::value::Serde;
use minijinja::{Environment, Value};
use serde::Serialize;

use super::{Block, Document, Grid, Kind, Sheet, SheetCell, Tone};
use crate::ReportError;
use crate::charts::part_bar;
use crate::html::{Folded, safe, step};
use crate::text::count;

pub(super) fn draw(document: &Document, version: &str) -> Result<String, ReportError> {
    let mut environment = Environment::new();
    environment.set_syntax(SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build()?);
    environment.add_template("document.html", include_str!("../../templates/document.html"))?;
    let page = Page {
        css: safe(include_str!("../../templates/report.css").to_owned()),
        version,
        document,
        sections: document.sections.iter().map(section).collect(),
    };
    Ok(environment.get_template("document.html")?.render(Serde(page))?)
}

#[derive(Serialize)]
struct Page<'a> {
    css: Value,
    version: &'a str,
    document: &'a Document,
    sections: Vec<SectionView<'a>>,
}

#[derive(Serialize)]
struct SectionView<'a> {
    title: &'a str,
    intro: &'a str,
    blocks: Vec<BlockView<'a>>,
}

/// Exactly one of its parts is there.
#[derive(Default, Serialize)]
struct BlockView<'a> {
    text: Option<&'a str>,
    sheet: Option<SheetView<'a>>,
    grid: Option<GridView<'a>>,
}

#[derive(Serialize)]
struct SheetView<'a> {
    caption: &'a str,
    columns: Vec<(&'a str, &'static str)>,
    rows: Folded<Vec<CellView<'a>>>,
}

#[derive(Serialize)]
struct CellView<'a> {
    kind: &'static str,
    tone: &'static str,
    text: &'a str,
    chart: Option<Value>,
}

#[derive(Serialize)]
struct GridView<'a> {
    grid: &'a Grid,
    rows: Vec<(&'a str, Vec<Shade>)>,
}

/// A count as it is shown and the step of its colour; none where there is no such group.
type Shade = Option<(String, u64)>;

fn section(section: &super::Section) -> SectionView<'_> {
    let blocks = section.blocks.iter().map(|block| match block {
        Block::Text(text) => BlockView { text: Some(text), ..BlockView::default() },
        Block::Sheet(sheet) => BlockView { sheet: Some(sheet_view(sheet)), ..BlockView::default() },
        Block::Grid(grid) => BlockView { grid: Some(grid_view(grid)), ..BlockView::default() },
    });
    SectionView { title: &section.title, intro: &section.intro, blocks: blocks.collect() }
}

fn sheet_view(sheet: &Sheet) -> SheetView<'_> {
    // Where hardly anything would be folded away, nothing is.
    let rows = Folded::new(
        sheet.rows.iter().map(|row| cells(row, &sheet.columns)).collect(),
        sheet.shown + sheet.shown / 4,
        sheet.shown,
    );
    let columns = sheet.columns.iter().map(|(name, kind)| (name.as_str(), class(*kind))).collect();
    SheetView { caption: &sheet.caption, columns, rows }
}

fn cells<'a>(row: &'a [SheetCell], columns: &[(String, Kind)]) -> Vec<CellView<'a>> {
    row.iter().zip(columns).map(|(cell, (_, kind))| cell_view(cell, *kind)).collect()
}

fn cell_view(cell: &SheetCell, kind: Kind) -> CellView<'_> {
    match cell {
        SheetCell::Text(text, tone) => CellView { kind: class(kind), tone: tone_class(*tone), text, chart: None },
        SheetCell::Bar { real, made, interval } => {
            let chart = Some(safe(part_bar(*real, *made, *interval)));
            CellView { kind: class(kind), tone: "", text: "", chart }
        }
    }
}

fn class(kind: Kind) -> &'static str {
    match kind {
        Kind::Words => "words",
        Kind::Number => "n",
        Kind::Bar => "pic",
    }
}

fn tone_class(tone: Tone) -> &'static str {
    match tone {
        Tone::Plain => "",
        Tone::Soft => "soft",
        Tone::Good => "better",
        Tone::Bad => "worse",
    }
}

fn grid_view(grid: &Grid) -> GridView<'_> {
    let largest = grid.rows.iter().flat_map(|(_, counts)| counts.iter().flatten()).max().copied().unwrap_or(0);
    let cell = |images: &Option<u64>| images.map(|images| (count(images), step(images, largest)));
    let rows = grid.rows.iter().map(|(name, counts)| (name.as_str(), counts.iter().map(cell).collect()));
    GridView { grid, rows: rows.collect() }
}
