//! Tables with bars for a terminal: what `evenset audit`, `plan`, `verify` and `evidence` show.
//!
//! Every function takes plain rows, the terminal's width in columns and whether to colour, and returns text whose lines
//! end in `\n`. Bars differ by glyph as well as by colour, so nothing is lost under `NO_COLOR`.

mod table;
mod wrap;

use evenset_core::Group;

pub use table::{Cell, Column, Style, Table};
pub(crate) use wrap::{plain, wrap};

use crate::data::{Acceptance, Arm, Checks, Evidence, Interval, summed};
use crate::html::{MOST_ALARMS, biased, composed, found, plateau, test_images, too_small};
use crate::text::{
    count, images_interval, number, p_value, percent, percent_interval, plural, points, shown, signed_interval,
    signed_points, significant,
};
use crate::words::sees_generated;

/// Narrower terminals show the arms without a picture, so that their names stay whole.
const BAR_FROM: usize = 96;
/// Groups that are named one by one in a remark.
const NAMED: usize = 5;

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

/// What `evenset evidence` says: the arms, the verdict, and what else was measured, in short.
pub fn evidence_text(evidence: &Evidence, width: usize, color: bool) -> String {
    let mut text = evidence_table(&evidence.arms, width, color);
    let mut say = |line: String| text.push_str(&wrap(&plain(&line), width, "  "));
    if evidence.arms.iter().any(|arm| sees_generated(&arm.name)) {
        say("+ with generated images; differences in points, with 95 % intervals".to_owned());
    }
    say(evidence.sentence.clone());
    if let Some((gain, p)) = evidence.gain.as_ref().and_then(|gain| Some((gain, gain.p?))) {
        let over = &gain.over;
        let p = p_value(p);
        say(format!(
            "balanced against {over} in the worst group, by the test images alone (paired permutation test): {p}"
        ));
    }
    if let Some(arm) = evidence.arm("generated-only") {
        let interval = arm.accuracy_interval.map(|i| format!(" ({})", percent_interval(i))).unwrap_or_default();
        say(format!("classification accuracy score (generated images alone): {}{interval}", percent(arm.accuracy)));
    }
    if let Some(sweep) = &evidence.sweep {
        let share = |share: &crate::SweepShare| format!("{}: {}", number(share.share, 2), percent(share.worst_group));
        let shares: Vec<String> = sweep.shares.iter().map(share).collect();
        say(format!("worst group by share of the plan's images: {}", shares.join(", ")));
        say(plateau(sweep));
    }
    if let Some(held_out) = &evidence.held_out {
        say(composed(held_out));
    }
    distances(evidence).into_iter().for_each(&mut say);
    for skipped in &evidence.skipped {
        say(format!("not run: {} ({})", skipped.name, skipped.why));
    }
    for note in evidence.arms.iter().filter_map(|arm| arm.note.as_ref().map(|note| format!("{}: {note}", arm.name))) {
        say(note);
    }
    let test_images = test_images(evidence);
    if !test_images.is_empty() {
        say(test_images);
    }
    text
}

/// How far generated images lie from real ones: all of them, and the mean of the groups, which a few large groups do not
/// decide.
fn distances(evidence: &Evidence) -> Vec<String> {
    let kernel = |of: &Option<crate::Distances>| of.as_ref().and_then(|of| of.kernel);
    let both = |row: &crate::GroupDistances| kernel(&row.generated).zip(kernel(&row.floor));
    let told = |kernel: crate::KernelDistance| {
        format!("{} ± {}", significant(kernel.value, 2), significant(kernel.standard_error, 1))
    };
    let all = evidence.distances.iter().find(|row| row.group.is_none()).and_then(both).map(|(generated, floor)| {
        format!(
            "kernel distance of generated to real images {}, of real test images {} (in the verifier's own features)",
            told(generated),
            told(floor)
        )
    });
    let groups: Vec<_> = evidence.distances.iter().filter(|row| row.group.is_some()).filter_map(both).collect();
    let mean = |of: &dyn Fn(&(crate::KernelDistance, crate::KernelDistance)) -> f64| {
        significant(groups.iter().map(of).sum::<f64>() / groups.len() as f64, 2)
    };
    let by_group = (!groups.is_empty()).then(|| {
        format!(
            "the same within {}, their mean: {} of generated, {} of real test images",
            plural(groups.len() as u64, "group", "groups"),
            mean(&|pair| pair.0.value),
            mean(&|pair| pair.1.value)
        )
    });
    all.into_iter().chain(by_group).collect()
}

/// The arms of the evidence: accuracy and worst group, each arm's difference to the best baseline with its 95 % interval,
/// and the worst group as a dot on its interval. Arms with generated images are marked by `+`.
pub fn evidence_table(arms: &[Arm], width: usize, color: bool) -> String {
    let mut table = Table::new().left("trained on").right("accuracy").right("worst group").right("95 %");
    table = table.right("to best baseline").right("gap");
    if width >= BAR_FROM {
        table = table.bar();
    }
    let compared = arms.iter().any(|arm| arm.against_best.is_some());
    for arm in arms {
        let interval = arm.worst_group_interval.unwrap_or([arm.worst_group; 2]);
        let (mark, style) = if sees_generated(&arm.name) { ("+ ", Style::Made) } else { ("  ", Style::Real) };
        let answer = arm.name == "balanced";
        let name = format!("{mark}{}", arm.name);
        let against = match &arm.against_best {
            Some(gain) => format!("{} ({})", signed_points(gain.worst_group), signed_interval(gain.interval)),
            None if compared => "the best baseline".to_owned(),
            None => String::new(),
        };
        table.row(vec![
            if answer { Cell::styled(name, Style::Bold) } else { Cell::text(name) },
            Cell::text(percent(arm.accuracy)),
            Cell::text(percent(arm.worst_group)),
            Cell::dim(arm.worst_group_interval.map(percent_interval).unwrap_or_default()),
            Cell::dim(against),
            Cell::text(arm.gap.map(points).unwrap_or_default()),
            Cell::whisker(interval[0], arm.worst_group, interval[1], style),
        ]);
    }
    table.render(width, color)
}

/// The gates in their order: how many candidates each was asked about and dropped, and mostly why.
pub fn gates_table(acceptance: &Acceptance, width: usize, color: bool) -> String {
    let mut table = Table::new().left("gate").right("asked").right("dropped").right("share").bar().left("mostly for");
    for gate in &acceptance.gates {
        let share = ratio(gate.dropped, gate.checked);
        table.row(vec![
            Cell::text(gate.gate.clone()),
            Cell::text(count(gate.checked)),
            Cell::text(count(gate.dropped)),
            Cell::text(percent(share)),
            Cell::bar([(share, Style::Bad)]),
            Cell::dim(gate.reasons.first().map(|reason| reason.reason.clone()).unwrap_or_default()),
        ]);
    }
    table.render(width, color)
}

/// What was found when the gates themselves were looked at: warnings first, then corrected counts, shortcuts, variety and
/// the ways to start an image, in short.
pub fn checks_text(checks: &Checks, width: usize) -> String {
    let mut text = String::new();
    let mut say = |line: String| text.push_str(&wrap(&plain(&line.replace('\u{a0}', " ")), width, "  "));
    for warning in checks.bias.iter().take(MOST_ALARMS) {
        say(format!("warning: {}", biased(warning)));
    }
    if checks.bias.len() > MOST_ALARMS {
        let more = checks.bias.len() - MOST_ALARMS;
        say(format!("warning: {more} more groups are thrown away far more often than the others; --json names them"));
    }
    if let Some(shortcut) = &checks.shortcut {
        say(format!("{}{}", if shortcut.found { "warning: " } else { "" }, found(shortcut)));
        too_small(shortcut).into_iter().for_each(&mut say);
    }
    for attribute in &checks.corrected {
        let accepted: u64 = attribute.values.iter().map(|value| value.accepted).sum();
        let right: Option<f64> = attribute.values.iter().map(|value| value.corrected).sum();
        if let Some(right) = right.filter(|_| accepted > 0) {
            let name = &attribute.attribute;
            let right = count(right.round().max(0.0) as u64);
            let ends =
                summed(&attribute.values).map(|ends| format!(" ({})", images_interval(ends))).unwrap_or_default();
            say(format!(
                "{name}: {} accepted, of which {right} truly{ends}, corrected for the check's errors on real images",
                count(accepted)
            ));
        }
        let share = |value: &crate::CorrectedCount| Some(value.corrected? / value.accepted as f64);
        let worst = attribute.values.iter().filter(|value| value.accepted > 0 && value.corrected.is_some());
        let worst = worst.min_by(|a, b| share(a).unwrap_or(1.0).total_cmp(&share(b).unwrap_or(1.0)));
        if let Some((value, right, interval)) = worst.and_then(|value| Some((value, value.corrected?, value.interval?)))
        {
            let ends = images_interval(interval);
            let (accepted, right) = (count(value.accepted), count(right.round().max(0.0) as u64));
            say(format!(
                "least sure of {}: {}, {accepted} accepted, of which {right} truly ({ends})",
                attribute.attribute, value.value
            ));
        }
    }
    let shares = checks.diversity.iter().filter_map(|row| Some((row, row.accepted_score? / row.real_score?)));
    if let Some((row, share)) = shares.filter(|(_, share)| share.is_finite()).min_by(|(_, a), (_, b)| a.total_cmp(b)) {
        say(format!("least varied: {}, {} of the variety of as many real images", row.group, percent(share)));
    }
    let tried = checks.guides.iter().filter(|guide| guide.accepted.shown > 0);
    let tried = tried.map(|guide| {
        let of = &guide.accepted;
        let interval = of.interval.map(|i| format!(", {}", percent_interval(i))).unwrap_or_default();
        format!("{} {} of {} ({}{interval})", guide.name, count(of.kept), count(of.shown), percent(of.rate()))
    });
    let tried: Vec<String> = tried.collect();
    if !tried.is_empty() {
        say(format!("accepted by how images were started: {}", tried.join("; ")));
    }
    text
}

/// Groups that were given up, with their reasons; the first few of many.
pub fn given_up(groups: &[(Group, String)], width: usize) -> String {
    let mut text = String::new();
    for (group, why) in groups.iter().take(NAMED) {
        text.push_str(&wrap(&plain(&format!("given up: {group}: {why}")), width, "  "));
    }
    if groups.len() > NAMED {
        let others = plural((groups.len() - NAMED) as u64, "other group was", "other groups were");
        text.push_str(&format!("{others} given up too; the report names them\n"));
    }
    text
}

/// The attributes of the first group (all groups of a grouping share them) and a table that begins with them.
fn group_columns<'a>(mut groups: impl Iterator<Item = &'a Group>) -> (Vec<String>, Table) {
    let attributes: Vec<String> =
        groups.next().map(|group| group.attributes().map(str::to_owned).collect()).unwrap_or_default();
    let table = attributes.iter().fold(Table::new(), |table, attribute| table.left(attribute));
    (attributes, table)
}

fn group_cells(group: &Group, attributes: &[String]) -> Vec<Cell> {
    let value = |attribute: &String| shown(group.get(attribute).unwrap_or(evenset_core::MISSING));
    attributes.iter().map(|attribute| Cell::text(value(attribute))).collect()
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
        let text = evidence_table(&[arm("as-is", 0.0, [0.0, 0.5]), arm("balanced", 0.75, [0.5, 1.0])], 100, false);
        let lines: Vec<&str> = text.lines().collect();
        assert!(lines[1].contains("●─"), "{text}");
        assert!(lines[2].contains("─●─"), "{text}");
        assert!(lines[2].contains("50 to 100"), "{text}");
        assert!(lines[1].starts_with("  as-is") && lines[2].starts_with("+ balanced"), "{text}");
    }

    #[test]
    fn the_evidence_says_what_was_compared_and_what_was_not() {
        let gain =
            crate::Gain { over: "as-is".into(), worst_group: 0.12, interval: [0.05, 0.2], ..crate::Gain::default() };
        let arm = |name: &str| Arm { name: name.into(), accuracy: 0.7, ..Arm::default() };
        let far = |value: f64| {
            let kernel = Some(crate::KernelDistance { value, standard_error: 0.1 });
            Some(crate::Distances { kernel, ..crate::Distances::default() })
        };
        let distance = |colour: Option<&str>, generated: f64, floor: f64| crate::GroupDistances {
            group: colour.map(|colour| Group::of("colour", colour)),
            generated: far(generated),
            floor: far(floor),
        };
        let evidence = Evidence {
            sentence: "Balancing helped.".into(),
            arms: vec![arm("as-is"), Arm { against_best: Some(gain), ..arm("balanced") }, arm("generated-only")],
            skipped: vec![crate::SkippedArm { name: "augment".into(), why: "features are given".into() }],
            overlapping: 2,
            unseen: 1,
            untested: vec!["square".into()],
            all_below: Some(10),
            distances: vec![
                distance(None, 0.5, 0.1),
                distance(Some("red"), 0.2, 0.1),
                distance(Some("blue"), 0.6, 0.3),
            ],
            ..Evidence::default()
        };
        let text = evidence_text(&evidence, 100, false);
        for part in [
            "+12 (+5 to +20)",
            "the best baseline",
            "Balancing helped.",
            "classification accuracy score (generated images alone): 70 %",
            "not run: augment (features are given)",
            "2 test images were left out",
            "1 test image was left out because no training image has the class",
            "No test image shows \u{201c}square\u{201d}",
            "No group has 10 test images",
            "kernel distance of generated to real images 0.5 ± 0.1, of real test images 0.1 ± 0.1",
            "within 2 groups, their mean: 0.4 of generated, 0.2 of real test images",
        ] {
            assert!(text.contains(part), "{part}: {text}");
        }
        assert!(text.lines().all(|line| line.width() <= 100));
    }

    #[test]
    fn the_gates_are_told_with_their_warnings_and_hostile_names_stay_harmless() {
        let rate = |kept, shown| crate::Rate { kept, shown, interval: None };
        let gates = Acceptance {
            gates: vec![crate::GateRow { gate: "decode".into(), checked: 10, dropped: 4, ..Default::default() }],
            ..Acceptance::default()
        };
        let checks = Checks {
            bias: vec![crate::BiasWarning {
                group: group("co\u{1b}[2Jat", "blue"),
                accepted: rate(1, 10),
                others: rate(9, 10),
                p: 0.0001,
                ..Default::default()
            }],
            corrected: vec![crate::CorrectedAttribute {
                attribute: "colour".into(),
                values: vec![crate::CorrectedCount {
                    value: "blue".into(),
                    accepted: 80,
                    corrected: Some(76.0),
                    interval: Some([70.0, 80.0]),
                }],
            }],
            guides: vec![crate::GuideRow { name: "from noise".into(), accepted: rate(1, 2) }],
            ..Checks::default()
        };
        let missed: Vec<(Group, String)> =
            (0..7).map(|i| (group("coat", &i.to_string()), "too few".to_owned())).collect();
        let text = gates_table(&gates, 120, false) + &checks_text(&checks, 120) + &given_up(&missed, 120);
        assert!(!text.contains('\u{1b}'), "{text}");
        for part in [
            "40 %",
            "warning: The checks throw away far more of co",
            "least sure of colour: blue, 80 accepted, of which 76 truly (70 to 80)",
            "accepted by how images were started: from noise 1 of 2 (50 %)",
            "given up: garment=coat & colour=0: too few",
            "2 other groups were given up too",
        ] {
            assert!(text.contains(part), "{part}: {text}");
        }
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
