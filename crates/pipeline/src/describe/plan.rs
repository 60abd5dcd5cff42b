//! A plan in words.

use evenset_plan::{Known, Plan, PlannedGroup, Price};
use evenset_report::document::{Block, Document, Figure, Finding, Kind, Section, SheetCell, Tone};
use evenset_report::text::{bytes, count, number, plural, shown};

use super::{sheet, spoken};

/// A plan as a document. `source` names the data.
pub fn plan(source: &str, plan: &Plan, price: Option<&Price>, remarks: &[String]) -> Document {
    let findings = plan.targets.iter().map(|target| Finding {
        tone: if target.satisfied { Tone::Good } else { Tone::Bad },
        text: target.explanation.clone(),
    });
    let mut remarks = remarks.to_vec();
    remarks.push(proof(plan));
    remarks.extend(price.map(how_priced));
    let sections = vec![groups(plan)].into_iter().filter(|section| !section.blocks.is_empty());
    Document {
        title: format!("plan for {source}"),
        headline: headline(plan),
        figures: figures(plan).into_iter().chain(price.into_iter().flat_map(cost)).collect(),
        findings: findings.collect(),
        sections: sections.collect(),
        remarks,
    }
}

fn removed(plan: &Plan) -> u64 {
    plan.groups.iter().map(|group| group.remove).sum()
}

fn headline(plan: &Plan) -> String {
    let missed = plan.targets.iter().filter(|target| !target.satisfied).count();
    let images = plural(plan.images, "image", "images");
    let lacking = plan.groups.iter().filter(|group| group.add > 0).count() as u64;
    let removed = match removed(plan) {
        0 => String::new(),
        removed => format!(", and {} to leave out", count(removed)),
    };
    match (missed, plan.images) {
        (0, 0) if !removed.is_empty() => {
            format!("No image to generate: leaving out {} reaches every target.", count(self::removed(plan)))
        }
        (0, 0) => "Every target is met as the data is: nothing is missing.".to_owned(),
        (0, _) => {
            format!("{images} to generate in {} reach every target{removed}.", plural(lacking, "group", "groups"))
        }
        (_, 0) if plan.bound == Some(0) => {
            "No plan was found in the time given; allow more with `plan.seconds`, or ask for less at once.".to_owned()
        }
        _ => {
            let stay = if missed == 1 { "stays" } else { "stay" };
            format!("{images} to generate{removed}; {missed} of {} targets {stay} out of reach.", plan.targets.len())
        }
    }
}

fn figures(plan: &Plan) -> Vec<Figure> {
    let smallest = |after: &dyn Fn(&PlannedGroup) -> u64| plan.groups.iter().map(after).min().unwrap_or(0);
    let before = count(smallest(&|group| group.count));
    vec![
        Figure { label: "images to generate".into(), value: count(plan.images), detail: String::new() },
        Figure {
            label: "smallest group".into(),
            value: count(smallest(&PlannedGroup::goal)),
            detail: format!("{before} before"),
        },
    ]
}

/// What the plan is expected to cost.
fn cost(price: &Price) -> Vec<Figure> {
    let whole = |n: f64| count(n.ceil() as u64);
    let (low, high) = price.candidates_range;
    let range = match high {
        Some(high) if high > low => format!("{} to {}", whole(low), whole(high)),
        Some(_) => String::new(),
        None => format!("{} or more", whole(low)),
    };
    let time = |seconds: f64| match seconds {
        s if s < 120.0 => format!("{} s", number(s, 0)),
        s if s < 7200.0 => format!("{} min", number(s / 60.0, 0)),
        s => format!("{} h", number(s / 3600.0, 1)),
    };
    let times = match price.seconds_range {
        (low, Some(high)) if high > low => format!("{} to {}", time(low), time(high)),
        (low, None) => format!("{} or more", time(low)),
        _ => String::new(),
    };
    let figure = |label: &str, value: String, detail: String| Figure { label: label.into(), value, detail };
    let mut figures =
        vec![figure("candidates to draw", whole(price.candidates), range), figure("time", time(price.seconds), times)];
    if price.memory_bytes > 0 {
        figures.push(figure("memory", bytes(price.memory_bytes), "so far, in the measurement".into()));
    }
    figures
}

fn how_priced(price: &Price) -> String {
    let known = price.groups.iter().filter(|group| group.known == Known::Group).count();
    let pooled = price.groups.iter().filter(|group| group.known == Known::Pooled).count();
    let acceptance = match (known, pooled) {
        (0, 0) => "acceptance is not known yet, so every candidate is taken to be accepted".to_owned(),
        (known, 0) => format!("acceptance of {known} groups is from an earlier run"),
        (known, pooled) => {
            format!("acceptance of {known} groups is from an earlier run, of {pooled} from all groups of it together")
        }
    };
    format!(
        "price: training and drawing, measured on this machine for a model of this size; checking, writing and the \
         evidence come on top; {acceptance}"
    )
}

/// Whether fewer images could do the same.
fn proof(plan: &Plan) -> String {
    match (plan.optimal, plan.bound, plan.gap) {
        (true, ..) => "it is proven that no plan with fewer images does the same".to_owned(),
        (false, Some(bound), Some(gap)) => {
            format!(
                "the search ended before a proof: {} images are needed at least, {} fewer",
                count(bound),
                count(gap)
            )
        }
        _ => "the search ended before it was proven that fewer images cannot do the same".to_owned(),
    }
}

fn groups(plan: &Plan) -> Section {
    let attributes: Vec<String> =
        plan.groups.first().map(|group| group.values.attributes().map(str::to_owned).collect()).unwrap_or_default();
    let removes = removed(plan) > 0;
    let mut columns: Vec<(&str, Kind)> = attributes.iter().map(|name| (name.as_str(), Kind::Words)).collect();
    columns.extend([("has", Kind::Number), ("add", Kind::Number)]);
    if removes {
        columns.push(("leave out", Kind::Number));
    }
    columns.extend([
        ("then", Kind::Number),
        ("asked for by", Kind::Words),
        ("held back by", Kind::Words),
        ("", Kind::Bar),
    ]);
    let largest = plan.groups.iter().map(|group| group.goal().max(group.count)).max().unwrap_or(0).max(1) as f64;
    let mut groups: Vec<&PlannedGroup> = plan.groups.iter().collect();
    groups.sort_by_key(|group| std::cmp::Reverse(group.add));
    let row = |group: &PlannedGroup| {
        let mut cells: Vec<SheetCell> = group.values.values().map(|value| SheetCell::text(shown(value))).collect();
        cells.push(SheetCell::text(count(group.count)));
        cells.push(if group.add == 0 {
            SheetCell::soft("0")
        } else {
            SheetCell::text(format!("+{}", count(group.add)))
        });
        if removes {
            cells.push(SheetCell::text(if group.remove == 0 {
                String::new()
            } else {
                format!("−{}", count(group.remove))
            }));
        }
        cells.push(SheetCell::text(count(group.goal())));
        cells.push(SheetCell::soft(group.target.clone().unwrap_or_default()));
        cells.push(SheetCell::bad(group.limited_by.clone().unwrap_or_default()));
        let real = (group.count - group.remove.min(group.count)) as f64 / largest;
        cells.push(SheetCell::Bar { real, made: group.add as f64 / largest, interval: None });
        cells
    };
    let rows: Vec<_> = groups.into_iter().map(row).collect();
    let weighted = plan.groups.iter().filter_map(|group| Some((group, group.weight?)));
    let heaviest = weighted.max_by(|(_, a), (_, b)| a.total_cmp(b));
    let mut intro = String::new();
    if let Some((group, weight)) = heaviest.filter(|(_, weight)| *weight > 1.0) {
        intro = format!(
            "Without any image, weights would reach the first target for a model that takes them: each row of {} would count {} \
             times.",
            spoken(&group.values),
            number(weight, 1)
        );
    }
    let blocks = if rows.is_empty() { Vec::new() } else { vec![Block::Sheet(sheet("", &columns, rows))] };
    Section { title: "Group by group".into(), intro, blocks, detail: false }
}
