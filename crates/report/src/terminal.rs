//! Tables with bars for a terminal: what `evenset audit`, `plan`, `verify` and `evidence` show.
//!
//! Every function takes plain rows, the terminal's width in columns and whether to colour, and returns text whose lines
//! end in `\n`. Bars differ by glyph as well as by colour, so nothing is lost under `NO_COLOR`.

mod table;
mod wrap;

use evenset_core::Group;

pub use table::{Cell, Column, Style, Table};
pub(crate) use wrap::{plain, wrap};

use crate::data::{Arm, Interval};
use crate::text::{count, percent, percent_interval, points};

/// A group and what the gates did with its candidates.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct AcceptanceRow {
    /// The group.
    pub values: Group,
    /// Candidates drawn.
    pub candidates: u64,
    /// Candidates accepted.
    pub accepted: u64,
    /// 95 % interval of the rate.
    pub interval: Option<Interval>,
    /// The most frequent reason for dropping one.
    pub reason: Option<String>,
}

/// Accepted candidates of each group with the rate, its 95 % interval and the most frequent reason against.
pub fn acceptance_table(rows: &[AcceptanceRow], width: usize, color: bool) -> String {
    let (attributes, mut table) = group_columns(rows.iter().map(|row| &row.values));
    table = table.right("drawn").right("accepted").right("rate").right("95 %").bar().left("mostly dropped for");
    for row in rows {
        let rate = ratio(row.accepted, row.candidates);
        let mut cells = group_cells(&row.values, &attributes);
        cells.push(Cell::text(count(row.candidates)));
        cells.push(Cell::text(count(row.accepted)));
        cells.push(if row.candidates == 0 { Cell::dim("-") } else { Cell::text(percent(rate)) });
        cells.push(Cell::dim(row.interval.map(percent_interval).unwrap_or_default()));
        cells.push(Cell::bar([(rate, Style::Made)]));
        cells.push(Cell::dim(row.reason.clone().unwrap_or_default()));
        table.row(cells);
    }
    table.render(width, color)
}

/// The arms of the evidence: accuracy and worst group with 95 % intervals, and the worst group as a dot on its interval.
pub fn evidence_table(arms: &[Arm], width: usize, color: bool) -> String {
    let mut table = Table::new().left("trained on").right("accuracy").right("95 %").right("worst group").right("95 %");
    table = table.right("gap").bar();
    for arm in arms {
        let interval = arm.worst_group_interval.unwrap_or([arm.worst_group; 2]);
        table.row(vec![
            Cell::text(arm.name.clone()),
            Cell::text(percent(arm.accuracy)),
            Cell::dim(arm.accuracy_interval.map(percent_interval).unwrap_or_default()),
            Cell::text(percent(arm.worst_group)),
            Cell::dim(arm.worst_group_interval.map(percent_interval).unwrap_or_default()),
            Cell::text(arm.gap.map(points).unwrap_or_default()),
            Cell::whisker(interval[0], arm.worst_group, interval[1]),
        ]);
    }
    table.render(width, color)
}

/// The attributes of the first group (all groups of a grouping share them) and a table that begins with them.
fn group_columns<'a>(mut groups: impl Iterator<Item = &'a Group>) -> (Vec<String>, Table) {
    let attributes: Vec<String> =
        groups.next().map(|group| group.attributes().map(str::to_owned).collect()).unwrap_or_default();
    let table = attributes.iter().fold(Table::new(), |table, attribute| table.left(attribute));
    (attributes, table)
}

fn group_cells(group: &Group, attributes: &[String]) -> Vec<Cell> {
    attributes.iter().map(|attribute| Cell::text(group.get(attribute).unwrap_or(evenset_core::MISSING))).collect()
}

fn ratio(part: u64, whole: u64) -> f64 {
    if whole == 0 { 0.0 } else { part as f64 / whole as f64 }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::document::{Block, Document, Kind, Section, Sheet, SheetCell};
    use unicode_width::UnicodeWidthStr;

    struct CountRow {
        values: Group,
        count: u64,
    }

    struct PlanRow {
        values: Group,
        have: u64,
        add: u64,
    }

    /// The counts as a sheet of a document.
    fn audit_table(rows: &[CountRow], width: usize, color: bool) -> String {
        let total: u64 = rows.iter().map(|row| row.count).sum();
        let largest = rows.iter().map(|row| row.count).max().unwrap_or(0);
        let row = |row: &CountRow| {
            let mut cells: Vec<SheetCell> = row.values.values().map(SheetCell::text).collect();
            let images = count(row.count);
            cells.push(if row.count == 0 { SheetCell::bad(images) } else { SheetCell::text(images) });
            cells.push(SheetCell::soft(percent(ratio(row.count, total))));
            cells.push(SheetCell::bar(ratio(row.count, largest)));
            cells
        };
        let columns = [("images", Kind::Number), ("share", Kind::Number), ("", Kind::Bar)];
        sheet(rows.first().map(|row| &row.values), &columns, rows.iter().map(row).collect(), width, color)
    }

    /// A plan as a sheet of a document.
    fn plan_table(rows: &[PlanRow], width: usize, color: bool) -> String {
        let largest = rows.iter().map(|row| row.have + row.add).max().unwrap_or(0);
        let row = |row: &PlanRow| {
            let mut cells: Vec<SheetCell> = row.values.values().map(SheetCell::text).collect();
            let add = if row.add == 0 { SheetCell::soft("0") } else { SheetCell::text(format!("+{}", row.add)) };
            cells.extend([SheetCell::text(count(row.have)), add, SheetCell::text(count(row.have + row.add))]);
            let (real, made) = (ratio(row.have, largest), ratio(row.add, largest));
            cells.push(SheetCell::Bar { real, made, interval: None });
            cells
        };
        let columns = [("has", Kind::Number), ("add", Kind::Number), ("then", Kind::Number), ("", Kind::Bar)];
        sheet(rows.first().map(|row| &row.values), &columns, rows.iter().map(row).collect(), width, color)
    }

    /// What stands under a section's heading.
    fn sheet(
        first: Option<&Group>,
        columns: &[(&str, Kind)],
        rows: Vec<Vec<SheetCell>>,
        width: usize,
        color: bool,
    ) -> String {
        let attributes = first.into_iter().flat_map(|group| group.attributes()).map(|name| (name, Kind::Words));
        let columns = attributes.chain(columns.iter().copied()).map(|(name, kind)| (name.to_owned(), kind)).collect();
        let sheet = Sheet { columns, shown: rows.len(), rows, ..Sheet::default() };
        let section = Section { title: "#".into(), blocks: vec![Block::Sheet(sheet)], ..Section::default() };
        let document = Document { sections: vec![section], ..Document::default() };
        let text = document.terminal(width, color);
        text.split_once("#")
            .map(|(_, under)| under.split_once("\n\n").map_or(under, |(_, sheet)| sheet))
            .unwrap()
            .to_owned()
    }

    fn group(garment: &str, colour: &str) -> Group {
        Group::new([("garment", garment), ("colour", colour)]).unwrap()
    }

    #[test]
    fn an_audit_table_lines_up_and_scales_bars_to_the_largest_group() {
        let rows = [
            CountRow { values: group("coat", "blue"), count: 1500 },
            CountRow { values: group("bag", "red"), count: 375 },
            CountRow { values: group("bag", "blue"), count: 0 },
        ];
        let text = audit_table(&rows, 52, false);
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines[0], "garment  colour  images  share");
        assert_eq!(lines[1], "coat     blue     1,500   80 %  ████████████████████");
        assert_eq!(lines[2], "bag      red        375   20 %  █████");
        assert_eq!(lines[3], "bag      blue         0    0 %");
    }

    #[test]
    fn a_plan_table_shows_what_is_added_behind_what_is_there() {
        let rows = [
            PlanRow { values: group("coat", "blue"), have: 100, add: 0 },
            PlanRow { values: group("coat", "red"), have: 25, add: 75 },
        ];
        let text = plan_table(&rows, 49, false);
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines[1], "coat     blue    100    0   100  ████████████████");
        assert_eq!(lines[2], "coat     red      25  +75   100  ████▒▒▒▒▒▒▒▒▒▒▒▒");
    }

    #[test]
    fn an_evidence_table_marks_the_interval_and_the_point() {
        let arm = |name: &str, worst: f64, interval| Arm {
            name: name.into(),
            accuracy: 0.8,
            worst_group: worst,
            worst_group_interval: Some(interval),
            gap: Some(0.5),
            ..Arm::default()
        };
        let text = evidence_table(&[arm("as-is", 0.0, [0.0, 0.5]), arm("balanced", 0.75, [0.5, 1.0])], 78, false);
        let lines: Vec<&str> = text.lines().collect();
        assert!(lines[1].contains("●─"), "{text}");
        assert!(lines[2].contains("─●─"), "{text}");
        assert!(lines[2].contains("50 to 100"), "{text}");
    }

    #[test]
    fn wide_and_hostile_values_keep_the_columns_and_never_reach_the_terminal_raw() {
        let rows = [
            CountRow { values: group("外套", "🧥"), count: 1 },
            CountRow { values: group("\u{1b}[2Jcoat\n", "\u{202e}red"), count: 1 },
            CountRow { values: group(&"long ".repeat(40), "x"), count: 1 },
        ];
        let text = audit_table(&rows, 60, false);
        assert!(!text.contains('\u{1b}') && !text.contains('\u{202e}'));
        assert_eq!(text.lines().count(), 4);
        for line in text.lines() {
            assert!(line.width() <= 60, "{line}");
        }
        assert!(text.contains('…'));
    }

    #[test]
    fn colour_is_only_written_when_asked_for() {
        let rows = [CountRow { values: group("coat", "blue"), count: 1 }];
        assert!(!audit_table(&rows, 60, false).contains('\u{1b}'));
        assert!(audit_table(&rows, 60, true).contains("\u{1b}["));
    }

    #[test]
    fn tables_without_rows_are_only_a_heading() {
        assert_eq!(audit_table(&[], 80, false), "images  share\n");
        assert_eq!(acceptance_table(&[], 80, false).lines().count(), 1);
        assert_eq!(evidence_table(&[], 10, true).lines().count(), 1);
    }
}
