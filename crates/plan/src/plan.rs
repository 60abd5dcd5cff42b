//! The plan: how many images each group gets, which limit bound, and what is missing.

use std::collections::BTreeSet;

use evenset_core::{Group, MISSING};
use serde::{Deserialize, Serialize};

use crate::cells::{Cell, MOST_IMAGES, cells, is_complete};
use crate::error::list;
use crate::fill::{Vessel, water_fill};
use crate::target::{AtLeast, Attributes, Match, Parity, Ratio};
use crate::{Limits, PlanError, Target};

/// Additions that reach a target, or come as near as the limits allow.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Plan {
    /// How many images are to be generated.
    pub images: u64,
    /// The groups in the order of the counts.
    pub groups: Vec<PlannedGroup>,
    /// What becomes of the target.
    pub targets: Vec<TargetOutcome>,
    /// Whether fewer images cannot do the same; true for all targets that are solved in closed form.
    pub optimal: bool,
}

/// One group of a plan.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlannedGroup {
    /// The group.
    pub values: Group,
    /// Its images.
    pub count: u64,
    /// The images the target wants it to have, were there no limits.
    pub want: u64,
    /// The images to generate for it.
    pub add: u64,
    /// The limit that keeps it below what the target wants.
    pub limited_by: Option<String>,
}

impl PlannedGroup {
    /// The count that rounds of generation fill up to, within the limits.
    pub fn goal(&self) -> u64 {
        self.count.saturating_add(self.add)
    }
}

/// What becomes of a target.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TargetOutcome {
    /// The type of the target in the job file.
    #[serde(rename = "type")]
    pub kind: String,
    /// Whether the plan reaches it.
    pub satisfied: bool,
    /// What the target asks for, what it costs, and what keeps it from being reached.
    pub explanation: String,
}

/// Plans additions: the fewest images that reach `target`, and where `limits` forbid so many, those that raise the
/// smallest groups most.
///
/// `counts` list every group once, empty ones too (a cube's roll-up does); groups that are not listed get nothing.
/// Groups without a value for an attribute ([`MISSING`]) are counted but never asked for, and targets pass over them.
///
/// # Errors
/// [`PlanError::Value`] and [`PlanError::Repeated`] for a target or limits that make no sense;
/// [`PlanError::NoGroups`], [`PlanError::Inconsistent`] and [`PlanError::Overflow`] for the counts;
/// [`PlanError::UnknownAttribute`] and [`PlanError::Share`] where the two do not fit.
pub fn plan(counts: &[(Group, u64)], target: &Target, limits: &Limits) -> Result<Plan, PlanError> {
    target.validate()?;
    limits.validate()?;
    let real = total(counts)?;
    let cells = cells(counts, target)?;
    let needs = needs_up_to(counts, &cells, u64::MAX);
    let capped = limits.per_group.map_or_else(|| needs.clone(), |most| needs_up_to(counts, &cells, most));
    let budget = budget(limits, real);
    let adds = spend(counts, &capped, budget.images);
    let groups = counts.iter().enumerate().map(|(i, (group, count))| PlannedGroup {
        values: group.clone(),
        count: *count,
        want: count + needs[i],
        add: adds[i],
        limited_by: (adds[i] < needs[i])
            .then(|| if adds[i] < capped[i] { budget.limit } else { "limits.per_group" })
            .map(str::to_owned),
    });
    let groups: Vec<PlannedGroup> = groups.collect();
    let satisfied = cells.iter().all(|cell| cell.members.iter().map(|&i| adds[i]).sum::<u64>() == cell.deficit());
    let explanation = explain(target, &groups, satisfied);
    let outcome = TargetOutcome { kind: target.name().to_owned(), satisfied, explanation };
    Ok(Plan { images: adds.iter().sum(), groups, targets: vec![outcome], optimal: true })
}

impl Plan {
    /// The groups that get images, and how many.
    pub fn asks(&self) -> Vec<(Group, u64)> {
        self.groups.iter().filter(|g| g.add > 0).map(|g| (g.values.clone(), g.add)).collect()
    }
}

/// The sum of the counts, after a check that they fit together.
fn total(counts: &[(Group, u64)]) -> Result<u64, PlanError> {
    let (first, _) = counts.first().ok_or(PlanError::NoGroups)?;
    let (mut seen, mut total) = (BTreeSet::new(), 0u64);
    for (group, count) in counts {
        if !group.attributes().eq(first.attributes()) || !seen.insert(group) {
            return Err(PlanError::Inconsistent(group.clone()));
        }
        let sum = total.checked_add(*count).filter(|&sum| sum <= MOST_IMAGES);
        total = sum.ok_or(PlanError::Overflow { limit: MOST_IMAGES })?;
    }
    Ok(total)
}

/// What each group gets when every cell spends its deficit on its smallest groups, at most `most` on each.
fn needs_up_to(counts: &[(Group, u64)], cells: &[Cell], most: u64) -> Vec<u64> {
    let mut needs = vec![0; counts.len()];
    for cell in cells {
        let vessels: Vec<Vessel> =
            cell.members.iter().map(|&i| Vessel { count: counts[i].1, room: cell.deficit().min(most) }).collect();
        for (&i, add) in cell.members.iter().zip(water_fill(&vessels, cell.deficit())) {
            needs[i] = add;
        }
    }
    needs
}

/// How many images may be generated in all, and the limit that says so.
struct Budget {
    images: u64,
    limit: &'static str,
}

fn budget(limits: &Limits, real: u64) -> Budget {
    let images = Budget { images: limits.images.unwrap_or(u64::MAX), limit: "limits.images" };
    let share = limits
        .synthetic_share
        .map(|share| Budget { images: most_generated(share, real), limit: "limits.synthetic_share" });
    share.filter(|share| share.images < images.images).unwrap_or(images)
}

/// The most generated images `g` with `g <= share * (real + g)`.
fn most_generated(share: f64, real: u64) -> u64 {
    if share >= 1.0 {
        return u64::MAX;
    }
    // A share such as 0.9 means the decimal fraction: 1e-9 forgives its rounding. The conversion saturates.
    (real as f64 * share / (1.0 - share) * (1.0 + 1e-9)) as u64
}

/// The additions in the order of the counts: all that is needed where the budget covers it, else those that raise the
/// smallest groups most, the earlier group first where two are alike.
fn spend(counts: &[(Group, u64)], needs: &[u64], budget: u64) -> Vec<u64> {
    let mut order: Vec<usize> = (0..counts.len()).collect();
    order.sort_by_key(|&i| &counts[i].0);
    let vessels: Vec<Vessel> = order.iter().map(|&i| Vessel { count: counts[i].1, room: needs[i] }).collect();
    let mut adds = vec![0; counts.len()];
    for (&i, add) in order.iter().zip(water_fill(&vessels, budget)) {
        adds[i] = add;
    }
    adds
}

fn explain(target: &Target, groups: &[PlannedGroup], satisfied: bool) -> String {
    let needed: u64 = groups.iter().map(|g| g.want - g.count).sum();
    let lacking = groups.iter().filter(|g| g.want > g.count).count();
    let mut text = match needed {
        0 => format!("{}: met as it is, no image is needed", aim(target)),
        _ => format!("{}: takes {needed} images in {}", aim(target), many(lacking, "group")),
    };
    if !satisfied {
        text.push_str(&explain_limits(groups, needed));
    }
    let without: Vec<&PlannedGroup> = groups.iter().filter(|g| !is_complete(&g.values)).collect();
    if !without.is_empty() {
        let images: u64 = without.iter().map(|g| g.count).sum();
        let groups = many(without.len(), "group");
        text.push_str(&format!("; {groups} without a value for an attribute, {MISSING}, stay at {images} images"));
    }
    text
}

fn explain_limits(groups: &[PlannedGroup], needed: u64) -> String {
    let limits: BTreeSet<&str> = groups.iter().filter_map(|g| g.limited_by.as_deref()).collect();
    let limits: Vec<String> = limits.into_iter().map(str::to_owned).collect();
    let short = groups.iter().filter(|g| g.limited_by.is_some()).count();
    let given: u64 = groups.iter().map(|g| g.add).sum();
    let smallest = groups.iter().filter(|g| is_complete(&g.values)).map(PlannedGroup::goal).min().unwrap_or(0);
    format!(
        "; out of reach: {} allows {given}, so {} are missing in {}; the images go where the smallest groups rise most, \
         which is to {smallest} or more",
        list(&limits),
        needed.saturating_sub(given),
        many(short, "group"),
    )
}

fn aim(target: &Target) -> String {
    match target {
        Target::Parity(Parity { of, within }) => {
            let of = if of.0.is_empty() { "every group".to_owned() } else { format!("every {}", list(&of.0)) };
            let Attributes(within) = within;
            let within = if within.is_empty() { String::new() } else { format!(" within each {}", list(within)) };
            format!("{of}{within} as frequent as the most frequent one")
        }
        Target::AtLeast(AtLeast { images }) => format!("at least {images} images in every group"),
        Target::Ratio(Ratio { at_most }) => format!("the largest group at most {at_most} times the smallest"),
        Target::Match(Match { of, .. }) => format!("the reference shares of `{of}`"),
    }
}

fn many(n: usize, thing: &str) -> String {
    format!("{n} {thing}{}", if n == 1 { "" } else { "s" })
}
