//! Who was missing: counts of every group before and after, as a grid of label by attribute or as bars.

use minijinja::Value;
use serde::Serialize;

use super::{Folded, ratio, safe, values};
use crate::ReportData;
use crate::charts::stacked_bar;
use crate::data::{Balance, GroupRow};
use crate::text::{count, number, percent, shown};

/// A grid with more columns than this would not fit a page.
const WIDEST_GRID: usize = 14;
const TALLEST_GRID: usize = 40;
/// Colours of the grid, from none to most.
const STEPS: u64 = 7;

/// The counts, in whichever form suits the grouping.
#[derive(Serialize)]
pub struct Counts {
    grids: Vec<Grid>,
    bars: Option<Folded<Bar>>,
    attributes: Vec<String>,
    after_name: &'static str,
    legend: Vec<LegendStep>,
}

#[derive(Serialize)]
struct Grid {
    caption: String,
    row_attribute: String,
    column_attribute: String,
    columns: Vec<String>,
    rows: Vec<GridRow>,
}

#[derive(Serialize)]
struct GridRow {
    name: String,
    cells: Vec<Option<Cell>>,
}

#[derive(Serialize)]
struct Cell {
    number: String,
    step: u64,
    /// Share of generated images in percent, where there are any.
    made: Option<String>,
    title: String,
}

#[derive(Serialize)]
struct LegendStep {
    step: u64,
    name: String,
}

#[derive(Serialize)]
struct Bar {
    values: Vec<String>,
    before: String,
    after: String,
    chart: Value,
}

/// Counts before and after: after is what was written, else what is accepted so far, else what the plan wants.
pub fn counts(data: &ReportData) -> Option<Counts> {
    let first = data.groups.first()?;
    let attributes: Vec<String> = first.values.attributes().map(str::to_owned).collect();
    let written = data.groups.iter().any(|group| group.after.is_some());
    let accepted = data.groups.iter().any(|group| group.accepted > 0);
    let planned = data.groups.iter().any(|group| group.want.is_some());
    let after_name = match (written, accepted, planned) {
        (true, _, _) => "after",
        (false, true, _) => "so far",
        (false, false, true) => "planned",
        (false, false, false) => "",
    };
    let after = move |group: &GroupRow| match after_name {
        "after" => group.after.unwrap_or(group.before),
        "so far" => group.before.saturating_add(group.accepted),
        "planned" => group.want.unwrap_or(group.before).max(group.before),
        _ => group.before,
    };
    let made = move |group: &GroupRow| match after_name {
        "after" | "so far" => group.made(),
        _ => after(group).saturating_sub(group.before),
    };
    let largest = data.groups.iter().map(|group| after(group).max(group.before)).max().unwrap_or(0);
    let grids = grids(data, &attributes, after_name, largest, &|group| (after(group), made(group)));
    let bars = grids.is_empty().then(|| bars(data, after, made, after_name, largest));
    let legend = if grids.is_empty() { Vec::new() } else { legend(largest) };
    Some(Counts { grids, bars, attributes, after_name, legend })
}

fn grids(
    data: &ReportData,
    attributes: &[String],
    after_name: &str,
    largest: u64,
    after: &dyn Fn(&GroupRow) -> (u64, u64),
) -> Vec<Grid> {
    let [row_attribute, column_attribute] = attributes else {
        return Vec::new();
    };
    let (rows, columns) = (distinct(data, row_attribute), distinct(data, column_attribute));
    if columns.len() > WIDEST_GRID || rows.len() > TALLEST_GRID {
        return Vec::new();
    }
    let find = |row: &str, column: &str| {
        data.groups.iter().find(|group| {
            group.values.get(row_attribute) == Some(row) && group.values.get(column_attribute) == Some(column)
        })
    };
    // All images of a group, and the generated ones among them.
    let grid = |caption: String, count_of: &dyn Fn(&GroupRow) -> (u64, u64)| Grid {
        caption,
        row_attribute: row_attribute.clone(),
        column_attribute: column_attribute.clone(),
        columns: columns.iter().map(|column| shown(column)).collect(),
        rows: rows
            .iter()
            .map(|row| GridRow {
                name: shown(row),
                cells: columns
                    .iter()
                    .map(|column| find(row, column).map(|group| cell(group, count_of(group), largest)))
                    .collect(),
            })
            .collect(),
    };
    let mut grids = vec![grid("Before: real training images".to_owned(), &|group| (group.before, 0))];
    match after_name {
        "" => {}
        "planned" => grids.push(grid("Planned: what every group is to have".to_owned(), after)),
        "so far" => grids.push(grid("So far: real and accepted generated images".to_owned(), after)),
        _ => grids.push(grid("After: real and generated training images".to_owned(), after)),
    }
    grids
}

/// The attribute's values in the order in which the groups name them.
fn distinct<'a>(data: &'a ReportData, attribute: &str) -> Vec<&'a str> {
    let mut seen: Vec<&str> = Vec::new();
    for value in data.groups.iter().filter_map(|group| group.values.get(attribute)) {
        if !seen.contains(&value) {
            seen.push(value);
        }
    }
    seen
}

fn cell(group: &GroupRow, (images, made): (u64, u64), largest: u64) -> Cell {
    let real = images.saturating_sub(made);
    Cell {
        number: count(images),
        step: step(images, largest),
        made: (made > 0).then(|| number(100.0 * ratio(made, images), 1)),
        title: if made > 0 {
            format!("{}: {} real, {} generated", super::spoken(&group.values), count(real), count(made))
        } else {
            format!("{}: {} real", super::spoken(&group.values), count(images))
        },
    }
}

/// The colour of a count: 0 is none at all, the others follow its square root, since small counts matter most.
pub(crate) fn step(images: u64, largest: u64) -> u64 {
    if images == 0 {
        return 0;
    }
    ((ratio(images, largest).sqrt() * STEPS as f64).ceil() as u64).clamp(1, STEPS)
}

fn legend(largest: u64) -> Vec<LegendStep> {
    let end = |step: u64| ((step as f64 / STEPS as f64).powi(2) * largest as f64).round() as u64;
    let mut steps = vec![LegendStep { step: 0, name: "none".to_owned() }];
    // With few images several steps end at the same count; only the last of them can occur.
    steps.extend((1..=STEPS).filter(|&step| end(step) > end(step - 1)).map(|step| LegendStep {
        step,
        name: if step == STEPS { count(end(step)) } else { format!("≤ {}", count(end(step))) },
    }));
    steps
}

/// Groups from the smallest to the largest.
fn bars(
    data: &ReportData,
    after: impl Fn(&GroupRow) -> u64,
    made: impl Fn(&GroupRow) -> u64,
    after_name: &str,
    largest: u64,
) -> Folded<Bar> {
    let mut groups: Vec<&GroupRow> = data.groups.iter().collect();
    groups.sort_by_key(|group| group.before);
    let bar = |group: &GroupRow| {
        let total = after(group);
        let made = if after_name == "planned" { 0 } else { made(group) };
        let real = if after_name == "planned" { group.before } else { total.saturating_sub(made) };
        Bar {
            values: values(&group.values),
            before: count(group.before),
            after: if after_name.is_empty() { String::new() } else { count(total) },
            chart: safe(stacked_bar(real, made, group.want, largest.max(group.want.unwrap_or(0)))),
        }
    };
    Folded::new(groups.into_iter().map(bar).collect(), 60, 40)
}

/// One statistic of evenness.
#[derive(Serialize)]
pub struct BalanceRow {
    name: &'static str,
    meaning: &'static str,
    before: String,
    after: Option<String>,
}

/// How even the counts are, in the statistics that the audit gives.
pub fn balance(data: &ReportData) -> Vec<BalanceRow> {
    type Statistic = (&'static str, &'static str, fn(&Balance) -> Option<String>);
    const STATISTICS: [Statistic; 5] = [
        ("Effective groups", "how many equally large groups would be as even", |b| {
            Some(number(b.effective_groups?, 1))
        }),
        ("Largest to smallest", "1 is even; ∞ where a group has no image", |b| {
            Some(b.largest_to_smallest.map_or("∞".to_owned(), |ratio| number(ratio, 1)))
        }),
        ("Evenness", "entropy of the counts, 100 % is even", |b| Some(percent(b.normalised_entropy?))),
        ("Distance from equal counts", "share of images in the wrong group", |b| Some(percent(b.total_variation?))),
        ("Label and attributes tied together", "Cramér's V: 0 is independent, 1 is fully tied", |b| {
            Some(number(b.cramers_v?, 2))
        }),
    ];
    let Some(balance) = &data.balance else {
        return Vec::new();
    };
    let row = |(name, meaning, value): Statistic| {
        let before = value(&balance.before)?;
        Some(BalanceRow { name, meaning, before, after: balance.after.as_ref().and_then(value) })
    };
    STATISTICS.into_iter().filter_map(row).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_colour_of_a_count_sets_none_apart_and_keeps_small_counts_apart() {
        assert_eq!([0, 1, 20, 736].map(|images| step(images, 736)), [0, 1, 2, 7]);
        assert_eq!([0, 1].map(|images| step(images, 1)), [0, 7]);
        assert_eq!(step(0, 0), 0);
    }

    #[test]
    fn the_legend_names_only_steps_that_can_occur() {
        let names: Vec<String> = legend(3).into_iter().map(|step| step.name).collect();
        assert_eq!(names, ["none", "≤ 1", "≤ 2", "3"]);
    }
}
