//! Two datasets side by side, in words.

use evenset_audit::statistics::SIGNIFICANT;
use evenset_audit::{ComparedGroup, ComparedGrouping, Comparison};
use evenset_report::document::{Block, Document, Figure, Finding, Kind, Section, SheetCell, Tone};
use evenset_report::text::{count, number, percent, percent_interval, signed_points};

use super::{list, p_value, sheet, spoken};

/// A comparison as a document.
pub fn comparison(found: &Comparison, remarks: &[String]) -> Document {
    let [a, b] = &found.datasets;
    let figure = |name: &str, rows: u64| Figure { label: name.to_owned(), value: count(rows), detail: "rows".into() };
    let mut remarks = remarks.to_vec();
    remarks
        .extend(found.left_out.iter().map(|left| format!("not compared: {}: {}", list(&left.attributes), left.reason)));
    Document {
        title: format!("comparison of {a} and {b}"),
        headline: headline(found),
        figures: vec![figure(a, found.rows[0]), figure(b, found.rows[1])],
        findings: findings(found),
        sections: sections(found),
        remarks,
    }
}

/// The groups whose shares differ by more than chance, single values before combinations, the largest difference first.
fn different(found: &Comparison) -> Vec<&ComparedGroup> {
    let groups = found.groupings.iter().flat_map(|grouping| &grouping.groups);
    let mut groups: Vec<_> = groups.filter(|group| group.q.is_some_and(|q| q < SIGNIFICANT)).collect();
    let combines = |group: &ComparedGroup| group.values.len() > 1;
    let size = |group: &ComparedGroup| group.difference.abs();
    groups.sort_by(|a, b| combines(a).cmp(&combines(b)).then(size(b).total_cmp(&size(a))));
    groups
}

fn headline(found: &Comparison) -> String {
    let [a, b] = &found.datasets;
    match different(found).first() {
        None => format!("No group has a share in {a} that differs from its share in {b} by more than chance."),
        Some(group) => {
            let what = if group.values.len() > 1 { "combination; no single value differs so" } else { "value" };
            let [x, y] = group.shares.map(percent);
            format!("{} is {x} of {a} and {y} of {b}: the largest difference of any {what}.", group.values)
        }
    }
}

fn findings(found: &Comparison) -> Vec<Finding> {
    let [a, b] = &found.datasets;
    let lonely = found.only_in_one.iter().take(6).map(|value| Finding {
        tone: Tone::Bad,
        text: format!("only {} has {} ({} rows)", value.dataset, value.value, count(value.count)),
    });
    let different = different(found).into_iter().skip(1).take(5).map(|group| Finding {
        tone: Tone::Plain,
        text: format!(
            "{}: {} of {a}, {} of {b} ({} points, 95 % {})",
            group.values,
            percent(group.shares[0]),
            percent(group.shares[1]),
            signed_points(group.difference),
            interval(group)
        ),
    });
    lonely.chain(different).collect()
}

/// The interval of a difference in points.
fn interval(group: &ComparedGroup) -> String {
    format!("{} to {}", signed_points(group.interval[0]), signed_points(group.interval[1]))
}

fn sections(found: &Comparison) -> Vec<Section> {
    let part = |title: &str, intro: &str, blocks: Vec<Block>, detail: bool| {
        (!blocks.is_empty()).then(|| Section { title: title.into(), intro: intro.into(), blocks, detail })
    };
    let single = found.groupings.iter().filter(|grouping| grouping.attributes.len() == 1);
    let more = found.groupings.iter().filter(|grouping| grouping.attributes.len() > 1);
    let shares = "Shares in both, their difference in points with its 95 % interval, and the false discovery rate q within \
                  the grouping.";
    let distances = "Total variation is the part of the rows that would have to change group to make the one the other; p is \
                     of the test that both have the same shares.";
    let parts = [
        part("How far apart", distances, vec![Block::Sheet(overview(found))], false),
        part("Value by value", shares, single.map(|grouping| groups(found, grouping)).collect(), false),
        part("Groups", shares, more.map(|grouping| groups(found, grouping)).collect(), true),
    ];
    parts.into_iter().flatten().collect()
}

fn overview(found: &Comparison) -> evenset_report::document::Sheet {
    let columns = [
        ("grouping", Kind::Words),
        ("total variation", Kind::Number),
        ("95 %", Kind::Number),
        ("Jensen-Shannon", Kind::Number),
        ("p", Kind::Number),
        ("", Kind::Bar),
    ];
    let row = |grouping: &ComparedGrouping| {
        let distances = grouping.distances.as_ref();
        let variation = distances.map(|distances| &distances.total_variation);
        vec![
            SheetCell::text(list(&grouping.attributes)),
            SheetCell::text(variation.map(|v| percent(v.value)).unwrap_or_default()),
            SheetCell::soft(variation.and_then(|v| v.interval).map(percent_interval).unwrap_or_default()),
            SheetCell::text(distances.map(|d| number(d.jensen_shannon.value, 4)).unwrap_or_default()),
            SheetCell::soft(grouping.test.as_ref().map(|test| p_value(test.p)).unwrap_or_default()),
            SheetCell::bar(variation.map_or(0.0, |v| v.value)),
        ]
    };
    sheet("", &columns, found.groupings.iter().map(row).collect())
}

fn groups(found: &Comparison, grouping: &ComparedGrouping) -> Block {
    let [a, b] = found.datasets.each_ref().map(String::as_str);
    let columns = [
        ("group", Kind::Words),
        (a, Kind::Number),
        ("share", Kind::Number),
        (b, Kind::Number),
        ("share", Kind::Number),
        ("points", Kind::Number),
        ("95 %", Kind::Number),
        ("q", Kind::Number),
    ];
    let row = |group: &ComparedGroup| {
        let difference = signed_points(group.difference);
        let far = group.q.is_some_and(|q| q < SIGNIFICANT);
        vec![
            SheetCell::text(spoken(&group.values)),
            SheetCell::text(count(group.counts[0])),
            SheetCell::soft(percent(group.shares[0])),
            SheetCell::text(count(group.counts[1])),
            SheetCell::soft(percent(group.shares[1])),
            if far { SheetCell::bad(difference) } else { SheetCell::text(difference) },
            SheetCell::soft(interval(group)),
            SheetCell::soft(group.q.map(p_value).unwrap_or_default()),
        ]
    };
    Block::Sheet(sheet(list(&grouping.attributes), &columns, grouping.groups.iter().map(row).collect()))
}
