//! An audit in words.

mod images;

use evenset_audit::statistics::{Direction, SIGNIFICANT};
use evenset_audit::{AssociatedCell, Association, Audit, Grouping, Reversal};
use evenset_report::document::{Block, Document, Figure, Finding, Grid, Kind, Section, SheetCell, Tone};
use evenset_report::text::{count, number, percent, percent_interval, plural};

use super::{between, list, p_value, sheet, spoken};

/// Findings of one kind that are told.
const MOST_FINDINGS: usize = 4;
/// Above it an association is worth a sentence.
const STRONG: f64 = 0.3;

/// An audit as a document. `source` names the data, `label` the attribute that a model is to learn.
pub fn audit(source: &str, audit: &Audit, label: Option<&str>, remarks: &[String]) -> Document {
    let mut sections = vec![who_is_there(audit)];
    sections.extend(grids(audit));
    sections.extend([who_is_missing(audit), evenness(audit), together(audit), combinations(audit)]);
    sections.extend([parity(audit), reversals(audit)].into_iter().flatten());
    sections.extend(audit.images.iter().flat_map(images::sections));
    let mut remarks = remarks.to_vec();
    remarks.extend(audit.left_out.iter().map(|left| format!("not shown: {}: {}", list(&left.attributes), left.reason)));
    remarks.extend(audit.coverage.left_out.iter().cloned());
    Document {
        title: format!("audit of {source}"),
        headline: headline(audit),
        figures: figures(audit),
        findings: findings(audit, label),
        sections: sections.into_iter().filter(|section| !section.blocks.is_empty()).collect(),
        remarks,
    }
}

/// The finest grouping, which is the last one.
fn finest(audit: &Audit) -> Option<&Grouping> {
    audit.groupings.iter().max_by_key(|grouping| grouping.groups.len())
}

fn complete(group: &evenset_audit::GroupCount) -> bool {
    group.values.is_complete()
}

fn headline(audit: &Audit) -> String {
    let rows = plural(audit.rows, "row", "rows");
    let Some(grouping) = finest(audit) else { return rows };
    let groups: Vec<_> = grouping.groups.iter().filter(|group| complete(group)).collect();
    let (Some(smallest), Some(largest)) =
        (groups.iter().min_by_key(|group| group.count), groups.iter().max_by_key(|group| group.count))
    else {
        return rows;
    };
    let empty = groups.iter().filter(|group| group.count == 0).count();
    let name = list(&grouping.attributes);
    if empty > 0 {
        return format!(
            "Of {} groups of {name}, {} have no row at all; the largest ({}) has {}.",
            count(groups.len() as u64),
            count(empty as u64),
            spoken(&largest.values),
            count(largest.count)
        );
    }
    format!(
        "The smallest of {} groups of {name} ({}) has {} of {rows}, the largest ({}) {}.",
        count(groups.len() as u64),
        spoken(&smallest.values),
        count(smallest.count),
        spoken(&largest.values),
        count(largest.count)
    )
}

fn figures(audit: &Audit) -> Vec<Figure> {
    let figure = |label: &str, value: String, detail: String| Figure { label: label.into(), value, detail };
    let mut figures = vec![figure("rows", count(audit.rows), String::new())];
    if let Some(grouping) = finest(audit) {
        let groups = grouping.groups.len() as u64;
        let detail = format!("of {} groups of {}", count(groups), list(&grouping.attributes));
        figures.push(figure("as even as", number(grouping.effective_groups, 1), detail));
    }
    let (coverage, patterns) = (&audit.coverage, audit.coverage.uncovered.len() as u64);
    let detail = format!(
        "combinations of up to {} values with fewer than {} rows",
        coverage.max_level,
        count(coverage.threshold)
    );
    figures.push(figure("uncovered", count(patterns), detail));
    figures
}

fn findings(audit: &Audit, label: Option<&str>) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut tell = |tone: Tone, text: String| findings.push(Finding { tone, text });
    let uncovered = &audit.coverage.uncovered;
    for pattern in uncovered.iter().take(MOST_FINDINGS) {
        let rows = plural(pattern.count, "row", "rows");
        tell(Tone::Bad, format!("{} has {rows}, fewer than {}", pattern.pattern, count(audit.coverage.threshold)));
    }
    if uncovered.len() > MOST_FINDINGS {
        let more = count((uncovered.len() - MOST_FINDINGS) as u64);
        tell(Tone::Bad, format!("{more} more combinations have fewer than {} rows", count(audit.coverage.threshold)));
    }
    let mut strong: Vec<(&Association, f64)> =
        audit.associations.iter().filter_map(|a| Some((a, a.cramers_v?))).filter(|(_, v)| *v >= STRONG).collect();
    // What is tied to the label comes first: a model can learn it instead of the label.
    let about_label = |association: &Association| association.attributes.iter().any(|a| Some(a.as_str()) == label);
    strong.sort_by(|(a, v), (b, w)| about_label(b).cmp(&about_label(a)).then(w.total_cmp(v)));
    for (association, v) in strong.into_iter().take(MOST_FINDINGS) {
        tell(Tone::Bad, tied(association, v));
    }
    for reversal in audit.reversals.iter().take(MOST_FINDINGS) {
        tell(Tone::Bad, turned(reversal));
    }
    for (tone, text) in audit.images.iter().flat_map(images::findings) {
        tell(tone, text);
    }
    for missing in audit.missing.iter().filter(|missing| missing.count > 0) {
        let share = percent(missing.count as f64 / audit.rows as f64);
        tell(Tone::Plain, format!("{} of the rows ({share}) have no {}", count(missing.count), missing.attribute));
    }
    findings
}

/// Two attributes that go together, with the combination that shows it best.
fn tied(association: &Association, v: f64) -> String {
    let [a, b] = &association.attributes;
    let over = association.cells.iter().filter(|cell| cell.direction == Direction::Over && cell.q < SIGNIFICANT);
    let example = over.max_by(|x, y| (x.count as f64 - x.expected).total_cmp(&(y.count as f64 - y.expected)));
    let example = example.map_or_else(String::new, |cell| {
        let expected = number(cell.expected, 0);
        format!(": {} has {} rows where {expected} would be independent", cell.values, count(cell.count))
    });
    format!("{a} and {b} go together (Cramér's V {}){example}", number(v, 2))
}

fn turned(reversal: &Reversal) -> String {
    let less = if reversal.marginal_direction == Direction::Under { "less" } else { "more" };
    let within = reversal.pooled.odds_ratio.map_or("infinite".to_owned(), |ratio| number(ratio, 2));
    let ending = if reversal.pooled_is_significant { "it turns around" } else { "it is gone" };
    format!(
        "Simpson's paradox: {} go together {less} often than by chance (odds ratio {}), but within each {} {ending} \
         (odds ratio {within})",
        reversal.values,
        number(reversal.marginal_odds_ratio, 2),
        reversal.within,
    )
}

fn who_is_there(audit: &Audit) -> Section {
    let single = audit.groupings.iter().filter(|grouping| grouping.attributes.len() == 1);
    let mut blocks: Vec<Block> = single.map(group_sheet).collect();
    if blocks.is_empty() {
        blocks.extend(audit.groupings.iter().map(group_sheet));
    }
    let intro = "Shares of all rows with their 95 % intervals: what share the population may have if the rows are a random \
                 sample of it.";
    Section { title: "Who is there".into(), intro: intro.into(), blocks, detail: false }
}

fn group_sheet(grouping: &Grouping) -> Block {
    // Bars leave room for the interval of the largest.
    let largest = grouping.groups.iter().map(|group| group.interval[1]).fold(f64::MIN_POSITIVE, f64::max);
    let referenced = grouping.groups.iter().any(|group| group.reference.is_some());
    let mut columns: Vec<(&str, Kind)> = grouping.attributes.iter().map(|name| (name.as_str(), Kind::Words)).collect();
    columns.extend([("rows", Kind::Number), ("share", Kind::Number), ("95 %", Kind::Number)]);
    if referenced {
        columns.push(("should be", Kind::Number));
    }
    columns.push(("", Kind::Bar));
    let mut groups: Vec<_> = grouping.groups.iter().collect();
    if grouping.attributes.len() > 1 {
        groups.sort_by_key(|group| group.count);
    }
    let rows = groups.into_iter().map(|group| {
        let mut cells: Vec<SheetCell> = group.values.values().map(SheetCell::text).collect();
        let rows = count(group.count);
        cells.push(if group.count == 0 { SheetCell::bad(rows) } else { SheetCell::text(rows) });
        cells.push(SheetCell::text(percent(group.share)));
        cells.push(SheetCell::soft(percent_interval(group.interval)));
        if referenced {
            cells.push(SheetCell::text(group.reference.map(percent).unwrap_or_default()));
        }
        let interval = group.interval.map(|end| end / largest);
        cells.push(SheetCell::Bar { real: group.share / largest, made: 0.0, interval: Some(interval) });
        cells
    });
    Block::Sheet(sheet("", &columns, rows.collect()))
}

fn who_is_missing(audit: &Audit) -> Section {
    let coverage = &audit.coverage;
    let mut patterns: Vec<_> = coverage.uncovered.iter().collect();
    patterns.sort_by_key(|pattern| (pattern.level, pattern.count));
    let rows = patterns.into_iter().map(|pattern| {
        let rows = count(pattern.count);
        let rows = if pattern.count == 0 { SheetCell::bad(rows) } else { SheetCell::text(rows) };
        let bar = SheetCell::bar(pattern.count as f64 / coverage.threshold as f64);
        vec![SheetCell::text(pattern.pattern.to_string()), rows, bar]
    });
    let rows: Vec<_> = rows.collect();
    let intro = format!(
        "Combinations of up to {} values that fewer than {} rows have, while enough rows have each part of them.",
        coverage.max_level,
        count(coverage.threshold)
    );
    let blocks = if rows.is_empty() {
        vec![Block::Text("None: every combination has enough rows.".into())]
    } else {
        let columns = [("combination", Kind::Words), ("rows", Kind::Number), ("", Kind::Bar)];
        vec![Block::Sheet(sheet("", &columns, rows))]
    };
    Section { title: "Who is missing".into(), intro, blocks, detail: false }
}

fn evenness(audit: &Audit) -> Section {
    let columns = [
        ("grouping", Kind::Words),
        ("groups", Kind::Number),
        ("as even as", Kind::Number),
        ("largest / smallest", Kind::Number),
        ("entropy", Kind::Number),
        ("distance", Kind::Number),
        ("95 %", Kind::Number),
        ("from", Kind::Words),
    ];
    let row = |grouping: &Grouping| {
        let distance = grouping.distance.as_ref();
        let variation = distance.map(|distance| &distance.distances.total_variation);
        vec![
            SheetCell::text(list(&grouping.attributes)),
            SheetCell::text(count(grouping.groups.len() as u64)),
            SheetCell::text(number(grouping.effective_groups, 1)),
            SheetCell::text(grouping.largest_to_smallest.map_or("∞".to_owned(), |ratio| number(ratio, 1))),
            SheetCell::text(percent(grouping.normalised_entropy)),
            SheetCell::text(variation.map(|variation| percent(variation.value)).unwrap_or_default()),
            SheetCell::soft(
                variation.and_then(|variation| variation.interval).map(percent_interval).unwrap_or_default(),
            ),
            SheetCell::soft(distance.map(|distance| distance.reference.clone()).unwrap_or_default()),
        ]
    };
    let intro = "As even as so many equally large groups; entropy, 100 % is even; distance, the part of the rows that would \
                 have to change group to give every group the same share, or the reference's (total variation).";
    let rows = audit.groupings.iter().map(row).collect();
    let blocks = vec![Block::Sheet(sheet("", &columns, rows))];
    Section { title: "How even".into(), intro: intro.into(), blocks, detail: false }
}

fn together(audit: &Audit) -> Section {
    let columns = [
        ("attributes", Kind::Words),
        ("Cramér's V", Kind::Number),
        ("shared information", Kind::Number),
        ("p", Kind::Number),
        ("", Kind::Bar),
    ];
    let mut pairs: Vec<(&Association, f64)> =
        audit.associations.iter().filter_map(|a| Some((a, a.cramers_v?))).collect();
    pairs.sort_by(|(_, a), (_, b)| b.total_cmp(a));
    let rows: Vec<_> = pairs
        .into_iter()
        .map(|(association, v)| {
            let information =
                association.mutual_information.as_ref().map(|m| percent(m.normalised)).unwrap_or_default();
            let p = association.test.as_ref().map(|test| p_value(test.p)).unwrap_or_default();
            vec![
                SheetCell::text(association.attributes.join(" and ")),
                SheetCell::text(number(v, 2)),
                SheetCell::text(information),
                SheetCell::soft(p),
                SheetCell::bar(v),
            ]
        })
        .collect();
    let intro = "0 is independent, 1 is one given by the other. With many rows a tiny association has a tiny p: look at its \
                 size first.";
    let blocks = if rows.is_empty() { Vec::new() } else { vec![Block::Sheet(sheet("", &columns, rows))] };
    Section { title: "What goes together".into(), intro: intro.into(), blocks, detail: false }
}

/// The combinations of values that are furthest from independence.
fn combinations(audit: &Audit) -> Section {
    let columns = [
        ("combination", Kind::Words),
        ("rows", Kind::Number),
        ("if independent", Kind::Number),
        ("odds ratio", Kind::Number),
        ("95 %", Kind::Number),
        ("NPMI", Kind::Number),
        ("q", Kind::Number),
    ];
    let significant = |cell: &&AssociatedCell| cell.q < SIGNIFICANT;
    let mut cells: Vec<&AssociatedCell> =
        audit.associations.iter().flat_map(|a| &a.cells).filter(significant).collect();
    cells.sort_by(|a, b| b.npmi.abs().total_cmp(&a.npmi.abs()));
    let row = |cell: &AssociatedCell| {
        vec![
            SheetCell::text(cell.values.to_string()),
            SheetCell::text(count(cell.count)),
            SheetCell::text(number(cell.expected, 1)),
            SheetCell::text(number(cell.odds_ratio, 2)),
            SheetCell::soft(between(cell.odds_ratio_interval, 2)),
            SheetCell::text(number(cell.npmi, 2)),
            SheetCell::soft(p_value(cell.q)),
        ]
    };
    let rows: Vec<_> = cells.into_iter().take(200).map(row).collect();
    let intro = "Each combination of two values against all others; NPMI is -1 for never together, 0 for independent, 1 for \
                 only together; q is the false discovery rate within its pair of attributes. Only those with q below 0.05.";
    let blocks = if rows.is_empty() { Vec::new() } else { vec![Block::Sheet(sheet("", &columns, rows))] };
    Section { title: "Combinations".into(), intro: intro.into(), blocks, detail: true }
}

fn parity(audit: &Audit) -> Option<Section> {
    let columns = [
        ("label", Kind::Words),
        ("most among", Kind::Words),
        ("share", Kind::Number),
        ("least among", Kind::Words),
        ("share", Kind::Number),
        ("difference", Kind::Number),
        ("95 %", Kind::Number),
        ("ratio", Kind::Number),
    ];
    let mut parities: Vec<_> = audit.parity.iter().collect();
    parities.sort_by(|a, b| b.difference.total_cmp(&a.difference));
    let rows = parities.into_iter().map(|parity| {
        vec![
            SheetCell::text(parity.label.to_string()),
            SheetCell::text(parity.highest.to_string()),
            SheetCell::text(percent(parity.highest_share)),
            SheetCell::text(parity.lowest.to_string()),
            SheetCell::text(percent(parity.lowest_share)),
            SheetCell::text(percent(parity.difference)),
            SheetCell::soft(percent_interval(parity.interval)),
            SheetCell::text(number(parity.ratio, 2)),
        ]
    });
    let rows: Vec<_> = rows.collect();
    let intro = "Demographic parity: how unevenly each value of the label is spread over the values of an attribute.";
    (!rows.is_empty()).then(|| Section {
        title: "The label by attribute".into(),
        intro: intro.into(),
        blocks: vec![Block::Sheet(sheet("", &columns, rows))],
        detail: true,
    })
}

fn reversals(audit: &Audit) -> Option<Section> {
    let columns = [
        ("values", Kind::Words),
        ("odds ratio", Kind::Number),
        ("within", Kind::Words),
        ("odds ratio", Kind::Number),
        ("p", Kind::Number),
        ("values with the other direction", Kind::Number),
    ];
    let row = |reversal: &Reversal| {
        vec![
            SheetCell::text(reversal.values.to_string()),
            SheetCell::text(number(reversal.marginal_odds_ratio, 2)),
            SheetCell::text(reversal.within.clone()),
            SheetCell::text(reversal.pooled.odds_ratio.map_or("∞".to_owned(), |ratio| number(ratio, 2))),
            SheetCell::soft(p_value(reversal.pooled.p)),
            SheetCell::text(format!("{} of {}", reversal.strata_reversed, reversal.pooled.strata)),
        ]
    };
    let rows: Vec<_> = audit.reversals.iter().map(row).collect();
    let intro = "Simpson's paradox: two values that go together one way over all rows, and the other way within the values \
                 of a third attribute (Mantel and Haenszel's pooled odds ratio).";
    (!rows.is_empty()).then(|| Section {
        title: "Reversals".into(),
        intro: intro.into(),
        blocks: vec![Block::Sheet(sheet("", &columns, rows))],
        detail: true,
    })
}

/// Every pair of attributes as a grid of counts, and finer groupings as lists of their smallest groups.
fn grids(audit: &Audit) -> Option<Section> {
    let more = audit.groupings.iter().filter(|grouping| grouping.attributes.len() > 1);
    let blocks: Vec<Block> =
        more.map(|grouping| grid(grouping).map_or_else(|| group_sheet(grouping), Block::Grid)).collect();
    let intro = "Rows of every group; lists begin with the smallest.";
    // One or two grids are what an audit of two attributes is about.
    let detail = blocks.len() > 1;
    (!blocks.is_empty()).then(|| Section { title: "Groups".into(), intro: intro.into(), blocks, detail })
}

fn grid(grouping: &Grouping) -> Option<Grid> {
    let [row_attribute, column_attribute] = grouping.attributes.as_slice() else { return None };
    let mut grid = Grid {
        caption: list(&grouping.attributes),
        row_attribute: row_attribute.clone(),
        column_attribute: column_attribute.clone(),
        ..Grid::default()
    };
    for group in &grouping.groups {
        let (row, column) = (group.values.get(row_attribute)?, group.values.get(column_attribute)?);
        if !grid.columns.iter().any(|name| name == column) {
            grid.columns.push(column.to_owned());
        }
        match grid.rows.last_mut() {
            Some((name, counts)) if name == row => counts.push(Some(group.count)),
            _ => grid.rows.push((row.to_owned(), vec![Some(group.count)])),
        }
    }
    let fits = grid.columns.len() <= Grid::MOST_COLUMNS && grid.rows.len() <= Grid::MOST_ROWS;
    fits.then_some(grid)
}
