//! A plan in words: what each target asks for, what it costs, and what keeps it from being reached.

use std::collections::BTreeSet;

use evenset_core::MISSING;

use crate::error::list;
use crate::plan::Task;
use crate::target::{AtLeast, Budget, Independent, Marginals, Match, Parity, Ratio, words};
use crate::{Attributes, PlannedGroup, Target};

/// What there is to tell of one target.
pub(crate) struct Story<'a> {
    /// What was planned for.
    pub task: &'a Task<'a>,
    /// The number of the target.
    pub number: usize,
    /// Whether the plan reaches it.
    pub satisfied: bool,
    /// The plan.
    pub groups: &'a [PlannedGroup],
    /// The counts that it leads to, row by row of the table.
    pub finals: &'a [u64],
    /// What is to be said about the search.
    pub note: Option<&'static str>,
}

pub(crate) fn explain(story: &Story<'_>) -> String {
    let target = &story.task.targets[story.number];
    let alone = story.task.targets.len() == 1;
    let mut text = if alone { cost(target, story.groups) } else { cost_by_itself(story) };
    if !story.satisfied {
        text.push_str(&if alone { out_of_reach(story) } else { still_short(story) });
    }
    if let Some(note) = story.note {
        text.push_str("; ");
        text.push_str(note);
    }
    if story.number == 0 {
        text.push_str(&without_a_value(story.groups));
    }
    text
}

/// What the plan would cost were there no limits.
fn cost(target: &Target, groups: &[PlannedGroup]) -> String {
    let needed: u64 = groups.iter().map(|g| g.want.saturating_sub(g.count)).sum();
    let surplus: u64 = groups.iter().map(|g| g.count.saturating_sub(g.want)).sum();
    let lacking = groups.iter().filter(|g| g.want > g.count).count();
    let mut text = match (needed, surplus) {
        (0, 0) => format!("{}: met as it is, no image is needed", aim(target)),
        (0, _) => aim(target),
        _ => format!("{}: takes {needed} images in {}", aim(target), many(lacking, "group")),
    };
    if surplus > 0 {
        text.push_str(&format!("; {} are left out", many(surplus as usize, "image")));
    }
    text
}

/// What the target lacks before anything is added, beside other targets that may ask for the same images.
fn cost_by_itself(story: &Story<'_>) -> String {
    let target = &story.task.targets[story.number];
    if let Target::Budget(_) = target {
        return aim(target);
    }
    match story.lacking(&story.task.table.counts) {
        Some((0, _)) => format!("{}: met before anything is added", aim(target)),
        Some((images, cells)) => format!("{}: lacks {images} images in {cells}", aim(target)),
        None => format!("{}: has images that it leaves no share for", aim(target)),
    }
}

fn still_short(story: &Story<'_>) -> String {
    let limits = limits(story.groups);
    let short = match story.lacking(story.finals) {
        Some((images, cells)) => format!("still {images} images short in {cells}"),
        None => "still not met".to_owned(),
    };
    match limits.is_empty() {
        true => format!("; {short}"),
        false => format!("; out of reach under {}: {short}", list(&limits)),
    }
}

fn out_of_reach(story: &Story<'_>) -> String {
    let groups = story.groups;
    let short = groups.iter().filter(|g| g.limited_by.is_some()).count();
    let (mut needed, mut given) = (0u64, 0u64);
    for group in groups {
        needed += group.want.saturating_sub(group.count);
        given += group.add;
    }
    let smallest = groups.iter().filter(|g| g.values.is_complete()).map(PlannedGroup::goal).min().unwrap_or(0);
    format!(
        "; out of reach: {} allows {given}, so {} are missing in {}; the images go where the smallest groups rise most, \
         which is to {smallest} or more",
        list(&limits(groups)),
        needed.saturating_sub(given),
        many(short, "group"),
    )
}

fn without_a_value(groups: &[PlannedGroup]) -> String {
    let without: Vec<&PlannedGroup> = groups.iter().filter(|g| !g.values.is_complete()).collect();
    if without.is_empty() {
        return String::new();
    }
    let images: u64 = without.iter().map(|g| g.count).sum();
    let groups = many(without.len(), "group");
    format!("; {groups} without a value for an attribute, {MISSING}, stay at {images} images")
}

impl Story<'_> {
    /// How many images the target alone lacks at these counts, and in how many cells.
    fn lacking(&self, counts: &[u64]) -> Option<(u64, String)> {
        let (mut images, mut cells) = (0u64, 0);
        for demand in self.task.demands.iter().filter(|demand| demand.target == self.number) {
            let (deficits, _) = demand.deficits(counts).ok()?;
            images += deficits.iter().sum::<u64>();
            cells += deficits.iter().filter(|deficit| **deficit > 0).count();
        }
        let level = self.task.demands.iter().any(|demand| demand.target == self.number && demand.overlapping);
        Some((images, many(cells, if level { "pattern" } else { "cell" })))
    }
}

fn limits(groups: &[PlannedGroup]) -> Vec<String> {
    let limits: BTreeSet<&str> = groups.iter().filter_map(|g| g.limited_by.as_deref()).collect();
    limits.into_iter().map(str::to_owned).collect()
}

/// The target in a few words.
pub(crate) fn aim(target: &Target) -> String {
    match target {
        Target::Parity(Parity { of, within }) => {
            let of = if of.0.is_empty() { "every group".to_owned() } else { format!("every {}", list(&of.0)) };
            let Attributes(within) = within;
            let within = if within.is_empty() { String::new() } else { format!(" within each {}", list(within)) };
            format!("{of}{within} as frequent as the most frequent one")
        }
        Target::AtLeast(AtLeast { images, pattern: Some(pattern), .. }) => {
            format!("at least {images} images of {}", words(pattern))
        }
        Target::AtLeast(AtLeast { images, of, max_level, .. }) => {
            let of = if of.0.is_empty() { String::new() } else { format!(" of {}", list(&of.0)) };
            match max_level {
                Some(level) => {
                    let level = many(*level as usize, "attribute");
                    format!("at least {images} images in every pattern{of} that fixes up to {level}")
                }
                None if of.is_empty() => format!("at least {images} images in every group"),
                None => format!("at least {images} images in every value{of}"),
            }
        }
        Target::Ratio(Ratio { at_most, of }) if of.0.is_empty() => {
            format!("the largest group at most {at_most} times the smallest")
        }
        Target::Ratio(Ratio { at_most, of }) => {
            format!("the most frequent {} at most {at_most} times the least frequent", list(&of.0))
        }
        Target::Match(Match { of, .. }) => format!("the reference shares of {}", list(&of.0)),
        Target::Independent(Independent { of, from }) => format!("{} independent of {}", list(&of.0), list(&from.0)),
        Target::Marginals(Marginals { shares }) => {
            format!("the shares of {}", list(&shares.keys().cloned().collect::<Vec<_>>()))
        }
        Target::Budget(Budget { images }) => format!("{images} images where they raise the smallest groups most"),
    }
}

pub(crate) fn many(n: usize, thing: &str) -> String {
    format!("{n} {thing}{}", if n == 1 { "" } else { "s" })
}
